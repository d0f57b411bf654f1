"""T5X's trees of parameters and Adafactor states, and ours, each from the other.

Between layouts an optimizer state is a flat dict with T5X's names of the unrolled network:
'<parameter>/v_row' is the mean of squared gradients over the longer side of a matrix, 'v_col' over
the shorter one, 'v' the whole second moment where they are not kept, 'm' the momentum. What is not
kept is a zero of shape (1,). That is t5x/adafactor.py's heuristic for matrices, and optax's. Its
explicit rule for the stacked parameters of scalable_t5 differs: 'v_row' is kept for the axis `embed`,
'v_col' for all others, whatever the lengths; norm scales and position biases keep 'v'. scalable_t5
also keeps heads and kv of attention kernels apart: [embed, layers, heads, kv] for queries, keys and
values, [heads, layers, kv, embed] for outputs.
"""

import dataclasses
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from aya_train.checkpoint import layouts, names
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.checkpoint.arrays.lazy_arrays import SlicedArray
from aya_train.checkpoint.hf import hf_export
from aya_train.models import t5_config

logger = logging.getLogger(__name__)

FIELDS = ('v_row', 'v_col', 'v', 'm')
MIN_DIM_SIZE_TO_FACTOR = 128
_UNUSED = (1,)
_STATES = 'state/param_states/'
_ATTENTION = re.compile(r'(?:encoder/encoder|decoder/decoder)/\w*attention/(\w+)/kernel')
_RELPOS = 'relpos_bias/rel_embedding'
_OPTAX_LEAF = re.compile(r'opt_state/(?:.*/)?(v_row|v_col|v|ema)/((?:token_|encoder|decoder).*)')

Arrays = Mapping[str, SlicedArray]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A checkpoint of any format, opened: nothing but its index has been read.

  Attributes:
    where: for messages.
    config: the network; `config.scan_layers` says which layout `params` have.
    params: whole name to array.
    step: updates done, 0 if unknown.
    moments: Adafactor's state as described above, None where there is none to be had.
    vocabulary_file: the SentencePiece file that it names, or ''.
  """

  where: str
  config: t5_config.T5Config
  params: Arrays
  step: int = 0
  moments: Arrays | None = None
  vocabulary_file: str = ''

  def in_layout(self, config: t5_config.T5Config) -> Arrays:
    """The parameters in the layout of another config; arrays keep their dtype. See `relayout`."""
    return relayout(self.params, self.config, config)


def relayout(params: Arrays, source: t5_config.T5Config, target: t5_config.T5Config) -> Arrays:
  """Stacks or unstacks layers, and gives stacks or layers position biases, as `target` has them.

  Raises:
    ValueError: layers have different position biases where `target` has one table for a stack.
  """
  if same_layout(source, target):
    return params
  if source.scan_layers:
    params = lazy_arrays.to_unrolled(params, layouts.table_of(source), source.param_scan_axis)
  if source.relpos_bias_per_layer != target.relpos_bias_per_layer:
    params = _relpos(params, '', source, per_layer=target.relpos_bias_per_layer)
  if target.scan_layers:
    params = lazy_arrays.to_scanned(params, layouts.table_of(target), target.param_scan_axis)
  return params


def same_layout(one: t5_config.T5Config, other: t5_config.T5Config) -> bool:
  """Whether two networks of the same architecture name and stack their parameters alike."""
  return (one.scan_layers, one.relpos_bias_per_layer) == (
    other.scan_layers,
    other.relpos_bias_per_layer,
  ) and (not one.scan_layers or one.param_scan_axis == other.param_scan_axis)


def with_relpos(checkpoint: Checkpoint, *, per_layer: bool) -> Checkpoint:
  """The same function with position biases of each layer, or of each stack; moments follow.

  A shared table is copied; tables that are all the same become one, with the moments of the first.

  Raises:
    ValueError: layers have different tables, and are to share one.
  """
  config = checkpoint.config
  if config.relpos_bias_per_layer == per_layer:
    return checkpoint
  target = dataclasses.replace(config, relpos_bias_per_layer=per_layer)
  moments = checkpoint.moments
  try:
    params = relayout(checkpoint.params, config, target)
  except ValueError as error:
    raise ValueError(f'{checkpoint.where}: {error}') from error
  for field in FIELDS if moments is not None else ():
    moments = _relpos(moments or {}, f'/{field}', config, per_layer=per_layer)
  return dataclasses.replace(checkpoint, config=target, params=params, moments=moments)


def _relpos(
  arrays: Arrays, suffix: str, config: t5_config.T5Config, *, per_layer: bool
) -> dict[str, SlicedArray]:
  """`arrays`, by unrolled names with `suffix`, tables of position biases copied or joined."""
  out = dict(arrays)
  for stack, depth in (
    ('encoder', config.num_encoder_layers),
    ('decoder', config.num_decoder_layers),
  ):
    shared = f'{stack}/{_RELPOS}{suffix}'
    layers = [f'{stack}/layers_{i}/{_RELPOS}{suffix}' for i in range(depth)]
    if per_layer:
      table = out.pop(shared)
      out |= dict.fromkeys(layers, table)
      continue
    tables = [out.pop(name) for name in layers]
    if not suffix and not _all_equal(tables):
      raise ValueError(
        f'the {depth} layers of the {stack} have different relative position biases, as umT5 and all '
        'networks that scalable_t5 trains; T5 1.1, mT5 and Aya share one table in a stack. Set '
        'RELPOS_BIAS_PER_LAYER = True to run such a network'
      )
    out[shared] = tables[0]
  return out


def _all_equal(tables: Sequence[SlicedArray]) -> bool:
  first = tables[0].read()
  return all(np.array_equal(table.read(), first) for table in tables[1:])


def relpos_are_equal(checkpoint: Checkpoint) -> bool:
  """Whether the layers of each stack share their position biases, or have copies of one table."""
  if not checkpoint.config.relpos_bias_per_layer:
    return True
  unrolled = dataclasses.replace(checkpoint.config, scan_layers=False)
  params = checkpoint.in_layout(unrolled)
  depths = {'encoder': unrolled.num_encoder_layers, 'decoder': unrolled.num_decoder_layers}
  return all(
    _all_equal([params[f'{stack}/layers_{i}/{_RELPOS}'] for i in range(depth)])
    for stack, depth in depths.items()
  )


# From T5X ------------------------------------------------------------------------------------------


def from_leaves(leaves: Arrays, where: str) -> Checkpoint:
  """Understands the leaves of a T5X checkpoint ('target/…', 'state/…').

  The architecture is read off names and shapes: T5X stores none. Activations cannot be; they are
  gelu and linear for a gated MLP (T5 1.1, mT5) and relu for T5 1.0. scalable_t5 has position biases in
  each layer: copies of one table, as conversions from mT5 write them, are one table shared.

  Raises:
    ValueError: not an encoder-decoder of T5X's examples, with what is missing or in excess.
  """
  leaves = {name.removeprefix('_optimizer/'): leaf for name, leaf in leaves.items()}
  params: Arrays = {
    name.split('/', 1)[1]: leaf
    for name, leaf in leaves.items()
    if name.startswith(('target/', 'params/'))
  }
  if not params:
    found = sorted({name.split('/', 1)[0] for name in leaves})
    raise ValueError(
      f'{where}: no parameters: expected `target` (or `params`) in the index, got {found}'
    )
  lazy_arrays.check_floats(params, where)
  scanned = any(name.startswith('encoder/encoder/') for name in params)
  states: Arrays = {k.removeprefix(_STATES): v for k, v in leaves.items() if k.startswith(_STATES)}
  if scanned:
    axis = _scan_axis(params)
    params, states = _joined_heads(params, states, axis)
  config = _architecture(params, scanned, where)
  table = layouts.table_of(config)
  table.check(params, 'scanned' if scanned else 'unrolled', where)
  layouts.check_shapes(params, hf_export.expected_shapes(config), where)
  step = leaves.get('state/step', leaves.get('step'))
  checkpoint = Checkpoint(
    where=where,
    config=config,
    params=params,
    step=0 if step is None else int(step.read()),
    moments=_moments_from_t5x(states, params, config, where),
  )
  return with_relpos(checkpoint, per_layer=False) if relpos_are_equal(checkpoint) else checkpoint


def _joined_heads(params: Arrays, states: Arrays, axis: int) -> tuple[Arrays, Arrays]:
  """Joins heads and kv of stacked attention kernels and of their moments."""
  joined, moments = dict(params), dict(states)
  for name, array in params.items():
    matched = _ATTENTION.fullmatch(name)
    if matched is None or len(array.shape) != 4:
      continue
    first, second = _head_axes(matched[1], axis)
    joined[name] = lazy_arrays.merge(array, first, second)
    for field in FIELDS:
      moment = states.get(f'{name}/{field}')
      if moment is not None and len(moment.shape) == 4:
        moments[f'{name}/{field}'] = lazy_arrays.merge(moment, first, second)
      elif moment is not None and field == 'v_col' and len(moment.shape) == 3:
        moments[f'{name}/{field}'] = lazy_arrays.merge(
          moment, *_head_axes_of_v_col(matched[1], axis)
        )
  return joined, moments


def _head_axes(projection: str, axis: int) -> tuple[int, int]:
  """Positions of heads and kv in a stacked kernel with layers on `axis`."""
  if projection != 'out':
    return 2, 3
  return (1, 2) if axis == 0 else (0, 2)


def _head_axes_of_v_col(projection: str, axis: int) -> tuple[int, int]:
  """The same in the mean over `embed`."""
  return (0, 2) if projection == 'out' and axis == 1 else (1, 2)


def _scan_axis(params: Arrays) -> int:
  """Where the layers are in a norm scale, [embed, layers] or [layers, embed]."""
  scale = params.get('encoder/encoder/pre_mlp_layer_norm/scale')
  table = params.get('token_embedder/embedding')
  if scale is None or table is None or len(scale.shape) != 2 or scale.shape[0] == table.shape[-1]:
    return 1
  return 0


def _architecture(params: Arrays, scanned: bool, where: str) -> t5_config.T5Config:
  axis = _scan_axis(params) if scanned else None

  def shape(name: str, rank: int, *, stacked: bool = True) -> tuple[int, ...]:
    if name not in params:
      raise ValueError(
        f'{where}: no parameter {name!r} among {sorted(params)[:5]} …: this is not an '
        "encoder-decoder of T5X's examples/t5 or examples/scalable_t5"
      )
    found = params[name].shape
    if axis is not None and stacked:
      found = found[:axis] + found[axis + 1 :]
    if len(found) != rank:
      raise ValueError(
        f'{where}: {name} has shape {params[name].shape}, expected {rank} axes'
        + (' beside the layers' if axis is not None and stacked else '')
      )
    return found

  def layer(stack: str, name: str) -> str:
    return f'{stack}/{stack}/{name}' if scanned else f'{stack}/layers_0/{name}'

  def depth(stack: str) -> int:
    if axis is not None:
      stacked = params.get(f'{stack}/{stack}/pre_mlp_layer_norm/scale')
      return stacked.shape[axis] if stacked is not None and len(stacked.shape) == 2 else 1
    found = {m[1] for n in params if (m := re.match(rf'{stack}/layers_(\d+)/', n))}
    return max(1, len(found))

  vocab_size, emb_dim = shape('token_embedder/embedding', 2, stacked=False)
  relpos = layer('encoder', _RELPOS)
  per_layer = relpos in params
  num_heads, buckets = shape(relpos if per_layer else f'encoder/{_RELPOS}', 2, stacked=per_layer)
  _, joined_kv = shape(layer('encoder', 'attention/query/kernel'), 2)
  gated = layer('encoder', 'mlp/wi/kernel') not in params
  _, mlp_dim = shape(layer('encoder', f'mlp/{"wi_0" if gated else "wi"}/kernel'), 2)
  if joined_kv % num_heads:
    raise ValueError(f'{where}: {joined_kv} columns of a query kernel for {num_heads} heads')
  return t5_config.T5Config(
    vocab_size=vocab_size,
    emb_dim=emb_dim,
    num_heads=num_heads,
    head_dim=joined_kv // num_heads,
    mlp_dim=mlp_dim,
    num_encoder_layers=depth('encoder'),
    num_decoder_layers=depth('decoder'),
    mlp_activations=('gelu', 'linear') if gated else ('relu',),
    logits_via_embedding='decoder/logits_dense/kernel' not in params,
    scan_layers=scanned,
    param_scan_axis=1 if axis is None else axis,
    relative_attention_num_buckets=buckets,
    relpos_bias_per_layer=per_layer,
  )


def _moments_from_t5x(
  states: Arrays, params: Arrays, config: t5_config.T5Config, where: str
) -> Arrays | None:
  if not states:
    return None
  expected = {f'{name}/{field}' for name in params for field in FIELDS}
  if set(states) != expected:
    logger.warning(
      '%s: the optimizer state is not that of Adafactor (%s …); only the weights are used',
      where,
      sorted(set(states) ^ expected)[:3],
    )
    return None
  table = layouts.table_of(config)
  moments: dict[str, SlicedArray] = {}
  for rule, layer in table.parameters():
    stored = rule.scanned if config.scan_layers else rule.unrolled.replace('{layer}', str(layer))
    fields = {field: states[f'{stored}/{field}'] for field in FIELDS}
    if config.scan_layers and rule.stack is not None:
      fields = _layer_of_t5x(fields, params[stored].shape, config.param_scan_axis, layer or 0, rule)
    name = rule.name('unrolled', layer)
    _check_moments(fields, _matrix_shape(params[stored].shape, config, rule), f'{where}: {name}')
    moments |= {f'{name}/{field}': array for field, array in fields.items()}
  return moments


def _layer_of_t5x(
  fields: dict[str, SlicedArray], shape: tuple[int, ...], axis: int, layer: int, rule: names.Rule
) -> dict[str, SlicedArray]:
  """One layer of T5X's stacked moments, under this module's convention of rows and columns."""
  out = {
    field: fields[field]
    if fields[field].shape == _UNUSED
    else lazy_arrays.take(fields[field], axis, layer)
    for field in ('v', 'm')
  }
  if fields['v_row'].shape == _UNUSED:
    return out | {'v_row': fields['v_row'], 'v_col': fields['v_col']}
  embed, other = _embed_axis(rule), 1 - _embed_axis(rule)
  kept = {}
  for field, kept_side in (('v_row', embed), ('v_col', other)):
    # Both axes left, in the parameter's order: the layers, and the side that was not averaged.
    position = 0 if axis == 0 or kept_side == 1 else 1
    kept[kept_side] = lazy_arrays.take(fields[field], position, layer)
  smaller, larger = np.argsort([n for i, n in enumerate(shape) if i != axis])
  return out | {'v_row': kept[int(smaller)], 'v_col': kept[int(larger)]}


def _embed_axis(rule: names.Rule) -> int:
  """Which side of a layer's kernel is `embed`: T5X's axis names (t5x/examples/t5/layers.py)."""
  return 1 if rule.unrolled.endswith(('/out/kernel', '/wo/kernel')) else 0


def _matrix_shape(
  shape: tuple[int, ...], config: t5_config.T5Config, rule: names.Rule
) -> tuple[int, ...]:
  if config.scan_layers and rule.stack is not None:
    return shape[: config.param_scan_axis] + shape[config.param_scan_axis + 1 :]
  return shape


def _check_moments(fields: Arrays, shape: tuple[int, ...], what: str) -> None:
  found = {field: array.shape for field, array in fields.items()}
  whole = {'v': shape, 'v_row': _UNUSED, 'v_col': _UNUSED}
  factored = {'v': _UNUSED}
  if len(shape) == 2:
    smaller, larger = np.argsort(shape)
    factored |= {'v_row': (shape[smaller],), 'v_col': (shape[larger],)}
  if found['m'] not in (_UNUSED, shape) or {k: found[k] for k in whole} not in (whole, factored):
    raise ValueError(
      f'{what} of shape {shape} has Adafactor moments of shapes {found}, expected {whole} or '
      f'{factored}'
    )


# To T5X --------------------------------------------------------------------------------------------


def to_leaves(checkpoint: Checkpoint, *, scan_layers: bool, dtype: str = 'float32') -> Arrays:
  """The leaves of a T5X checkpoint, for `t5x_format.write`.

  Args:
    checkpoint: any, opened. Without moments it gets those of a fresh optimizer, since T5X restores
      parameters and optimizer together.
    scan_layers: lay it out for examples/scalable_t5 (relative position biases in each layer, if need
      be copies; layers on axis 1) instead of examples/t5.
    dtype: of the parameters; the optimizer state is always float32.
  """
  if scan_layers:
    checkpoint = with_relpos(checkpoint, per_layer=True)
  config = dataclasses.replace(checkpoint.config, scan_layers=scan_layers, param_scan_axis=1)
  params = checkpoint.in_layout(config)
  table = layouts.table_of(config)
  leaves: dict[str, SlicedArray] = {
    'state/step': lazy_arrays.of(np.asarray(checkpoint.step, np.int32))
  }
  for rule, layer in [(r, None) for r in table.rules()] if scan_layers else table.parameters():
    name = rule.scanned if scan_layers else rule.name('unrolled', layer)
    array = lazy_arrays.cast(params[name], dtype)
    matrix = _matrix_shape(array.shape, config, rule)
    if not scan_layers:
      fields = _wanted(checkpoint.moments, name, matrix, _factored(matrix))
    elif rule.stack is None:
      fields = _wanted(checkpoint.moments, rule.unrolled, matrix, _factored(matrix))
    else:
      fields = _stacked(checkpoint.moments, rule, matrix, table.depth(rule) or 0)
    if scan_layers and (matched := _ATTENTION.fullmatch(name)):
      array, fields = _split_heads(array, fields, matched[1], config.head_dim)
    leaves[f'target/{name}'] = array
    leaves |= {f'{_STATES}{name}/{field}': value for field, value in fields.items()}
  return leaves


def _split_heads(
  array: SlicedArray, fields: dict[str, SlicedArray], projection: str, head_dim: int
) -> tuple[SlicedArray, dict[str, SlicedArray]]:
  """Separates heads and kv, as scalable_t5 keeps them."""
  axes, axes_of_v_col = _head_axes(projection, 1), _head_axes_of_v_col(projection, 1)
  fields = {**fields, 'v_col': lazy_arrays.split(fields['v_col'], *axes_of_v_col, head_dim)}
  if fields['m'].shape == array.shape:
    fields['m'] = lazy_arrays.split(fields['m'], *axes, head_dim)
  return lazy_arrays.split(array, *axes, head_dim), fields


def _factored(shape: tuple[int, ...]) -> bool:
  return len(shape) == 2 and min(shape) >= MIN_DIM_SIZE_TO_FACTOR


def _stacked(
  moments: Arrays | None, rule: names.Rule, matrix: tuple[int, ...], depth: int
) -> dict[str, SlicedArray]:
  """Moments of all layers by T5X's explicit rule: every kernel factored, rows for `embed`."""
  factored = len(matrix) == 2 and not rule.scanned.endswith(_RELPOS)
  layers = [_wanted(moments, rule.name('unrolled', i), matrix, factored) for i in range(depth)]

  def stacked(field: str, axis: int) -> SlicedArray:
    if layers[0][field].shape == _UNUSED:
      return layers[0][field]
    return lazy_arrays.stack([fields[field] for fields in layers], axis)

  out = {field: stacked(field, 1) for field in ('v', 'm')}
  if not factored:
    return out | {field: lazy_arrays.zeros(_UNUSED) for field in ('v_row', 'v_col')}
  embed, other = _embed_axis(rule), 1 - _embed_axis(rule)
  smaller, _ = np.argsort(matrix)
  for field, side in (('v_row', embed), ('v_col', other)):
    out[field] = stacked('v_row' if side == smaller else 'v_col', 1 - side)
  return out


def _wanted(
  moments: Arrays | None, name: str, shape: tuple[int, ...], factored: bool
) -> dict[str, SlicedArray]:
  """The four fields of one parameter, factored or not; zeros where there are no moments."""
  smaller, larger = np.argsort(shape) if len(shape) == 2 else (0, 0)
  shapes = {'v_row': _UNUSED, 'v_col': _UNUSED, 'v': shape, 'm': _UNUSED}
  if factored:
    shapes |= {'v_row': (shape[smaller],), 'v_col': (shape[larger],), 'v': _UNUSED}
  if moments is None:
    return {field: lazy_arrays.zeros(shapes[field]) for field in FIELDS}
  fields = {field: _moment(moments, name, field, shape, shapes[field]) for field in FIELDS[:3]}
  return fields | {'m': moments[f'{name}/m']}


def _moment(
  moments: Arrays, name: str, field: str, shape: tuple[int, ...], wanted: tuple[int, ...]
) -> SlicedArray:
  """One field in the shape wanted: kept, averaged from `v`, or `v` estimated from its means."""
  if wanted == _UNUSED:
    return lazy_arrays.zeros(_UNUSED)
  held = moments[f'{name}/{field}']
  if held.shape == tuple(wanted):
    return held
  row, col, whole = (moments[f'{name}/{k}'] for k in ('v_row', 'v_col', 'v'))
  smaller, larger = np.argsort(shape)
  if field != 'v':
    axis = int(larger if field == 'v_row' else smaller)
    return lazy_arrays.computed(wanted, lambda v: v.mean(axis), whole)

  def estimate(v_row: np.ndarray, v_col: np.ndarray) -> np.ndarray:
    scaled = v_row / max(float(v_row.mean()), np.finfo(np.float32).tiny)
    v = np.outer(scaled, v_col)
    return v if smaller == 0 else v.T

  return lazy_arrays.computed(wanted, estimate, row, col)


# Ours ----------------------------------------------------------------------------------------------


def fill(abstract: Any, params: Any, checkpoint: Checkpoint, config: t5_config.T5Config) -> Any:
  """An optax state of SlicedArrays, laid out as an abstract state of `optimizer.adafactor`.

  Args:
    abstract: the optimizer state's shapes, parameters in the layout of `config`.
    params: tree of the parameters that it belongs to.
    checkpoint: the source of moments and step.
    config: the model's.

  Returns:
    A tree like `abstract`, or None if the checkpoint has no moments or `abstract` is of an optimizer
    other than Adafactor.
  """
  if checkpoint.moments is None:
    return None
  checkpoint = with_relpos(checkpoint, per_layer=config.relpos_bias_per_layer)
  flat = {_dict_names(p): leaf.shape for p, leaf in jax.tree_util.tree_leaves_with_path(params)}
  table = layouts.table_of(config)
  unknown: list[str] = []

  def leaf(path: tuple[Any, ...], wanted: Any) -> SlicedArray | None:
    keys = _dict_names(path)
    name = next((keys[i:] for i in range(len(keys)) if keys[i:] in flat), None)
    field = [k.name for k in path if isinstance(k, jax.tree_util.GetAttrKey)][-1:]
    if field == ['count']:
      return lazy_arrays.of(np.full(wanted.shape, checkpoint.step, wanted.dtype))
    if name is None or field[0] not in ('v_row', 'v_col', 'v', 'ema'):
      unknown.append(jax.tree_util.keystr(path))
      return None
    return _ours(
      checkpoint.moments or {}, '/'.join(name), field[0], wanted.shape, flat[name], config, table
    )

  filled = jax.tree_util.tree_map_with_path(leaf, abstract)
  if unknown:
    logger.warning(
      '%s: its Adafactor state does not fit the configured optimizer (%s …), which starts afresh',
      checkpoint.where,
      unknown[:3],
    )
    return None
  return filled


def _ours(
  moments: Arrays,
  name: str,
  field: str,
  wanted: tuple[int, ...],
  shape: tuple[int, ...],
  config: t5_config.T5Config,
  table: names.Table,
) -> SlicedArray:
  rule, layer = table.match(name, 'scanned' if config.scan_layers else 'unrolled')

  def one(unrolled: str, matrix: tuple[int, ...], wanted: tuple[int, ...]) -> SlicedArray:
    if field != 'ema':
      return _moment(moments, unrolled, field, matrix, wanted)
    momentum = moments[f'{unrolled}/m']
    if momentum.shape != matrix:
      return lazy_arrays.zeros(matrix)
    return negated(momentum)

  if not config.scan_layers or rule.stack is None:
    return one(rule.name('unrolled', layer), shape, tuple(wanted))
  # optimizer.over_layers puts layers first in moments; momentum is shaped like its parameter.
  axis = config.param_scan_axis if field == 'ema' else 0
  matrix = _matrix_shape(shape, config, rule)
  rest = tuple(n for i, n in enumerate(wanted) if i != axis)
  depth = table.depth(rule) or 0
  return lazy_arrays.stack(
    [one(rule.name('unrolled', i), matrix, rest) for i in range(depth)], axis
  )


def negated(array: SlicedArray) -> SlicedArray:
  """T5X subtracts its momentum, optax adds it."""
  return dataclasses.replace(array, get=lambda i: np.negative(array.get(i)))


def moments_from_ours(
  training: Arrays, params: Arrays, config: t5_config.T5Config, where: str
) -> Arrays | None:
  """Adafactor's moments from the leaves of our item `training`; None if it has none.

  Args:
    training: leaves by path, e.g. 'opt_state/0/inner_states/1/inner_state/0/v_row/encoder/…'.
    params: the parameters, in the layout of `config`.
  """
  held: dict[str, SlicedArray] = {}
  for path, array in training.items():
    if matched := _OPTAX_LEAF.fullmatch(path):
      field, name = matched.groups()
      held[f'{name}/{field}'] = array
  table = layouts.table_of(config)
  moments: dict[str, SlicedArray] = {}
  for rule, layer in table.parameters():
    stored = rule.scanned if config.scan_layers else rule.name('unrolled', layer)
    name = rule.name('unrolled', layer)
    if any(f'{stored}/{field}' not in held for field in FIELDS[:3]):
      logger.warning('%s: no Adafactor state for %s; only the weights are used', where, stored)
      return None
    fields = {field: held[f'{stored}/{field}'] for field in FIELDS[:3]}
    momentum = held.get(f'{stored}/ema')
    if config.scan_layers and rule.stack is not None:
      fields = {k: lazy_arrays.take(array, 0, layer or 0) for k, array in fields.items()}
      if momentum is not None:
        momentum = lazy_arrays.take(momentum, config.param_scan_axis, layer or 0)
    fields['m'] = lazy_arrays.zeros(_UNUSED) if momentum is None else negated(momentum)
    _check_moments(fields, _matrix_shape(params[stored].shape, config, rule), f'{where}: {name}')
    moments |= {f'{name}/{field}': array for field, array in fields.items()}
  return moments


def _dict_names(path: tuple[Any, ...]) -> tuple[str, ...]:
  return tuple(str(k.key) for k in path if isinstance(k, jax.tree_util.DictKey))

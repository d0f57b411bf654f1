"""T5X's trees of parameters and Adafactor states, and ours, each from the other.

Between layouts an optimizer state is a flat dict with T5X's names of the unrolled network:
'<parameter>/v_row' is the mean of squared gradients over the longer side of a matrix, 'v_col' over
the shorter one, 'v' the whole second moment where they are not kept, 'm' the momentum. What is not
kept is a zero of shape (1,). That is t5x/adafactor.py's heuristic for matrices, and optax's; its
explicit rule for stacked ones keeps rows for the axis `embed` instead, whatever the lengths.
"""

import dataclasses
import logging
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from aya_train.checkpoint import hf_export, layouts, names, t5x_arrays
from aya_train.checkpoint.t5x_arrays import SlicedArray
from aya_train.models import t5_config

logger = logging.getLogger(__name__)

FIELDS = ('v_row', 'v_col', 'v', 'm')
MIN_DIM_SIZE_TO_FACTOR = 128
_UNUSED = (1,)
_STATES = 'state/param_states/'
_RELPOS = re.compile(r'(encoder|decoder)/\1/relpos_bias/rel_embedding')
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
    """The parameters in the layout of another config; arrays keep their dtype."""
    return relayout(self.params, self.config, config)


def relayout(params: Arrays, source: t5_config.T5Config, target: t5_config.T5Config) -> Arrays:
  """Stacks or unstacks layers where `scan_layers` or `param_scan_axis` differ."""
  same_axis = not source.scan_layers or source.param_scan_axis == target.param_scan_axis
  if source.scan_layers == target.scan_layers and same_axis:
    return params
  table = layouts.table_of(source)
  if source.scan_layers:
    params = t5x_arrays.to_unrolled(params, table, source.param_scan_axis)
  if target.scan_layers:
    params = t5x_arrays.to_scanned(params, table, target.param_scan_axis)
  return params


# From T5X ------------------------------------------------------------------------------------------


def from_leaves(leaves: Arrays, where: str) -> Checkpoint:
  """Understands the leaves of a T5X checkpoint ('target/…', 'state/…').

  The architecture is read off names and shapes: T5X stores none. Activations cannot be; they are
  gelu and linear for a gated MLP (T5 1.1, mT5) and relu for T5 1.0.

  Raises:
    ValueError: not an encoder-decoder of T5X's examples, with what is missing or in excess; a
      scanned one whose layers have different relative position biases.
  """
  leaves = {name.removeprefix('_optimizer/'): leaf for name, leaf in leaves.items()}
  params = {
    name.split('/', 1)[1]: leaf
    for name, leaf in leaves.items()
    if name.startswith(('target/', 'params/'))
  }
  if not params:
    found = sorted({name.split('/', 1)[0] for name in leaves})
    raise ValueError(
      f'{where}: no parameters: expected `target` (or `params`) in the index, got {found}'
    )
  t5x_arrays.check_floats(params, where)
  scanned = any(name.startswith('encoder/encoder/') for name in params)
  states = {k.removeprefix(_STATES): v for k, v in leaves.items() if k.startswith(_STATES)}
  if scanned:
    params, states = _share_relpos(params, states, where)
  config = _architecture(params, scanned, where)
  table = layouts.table_of(config)
  table.check(params, 'scanned' if scanned else 'unrolled', where)
  layouts.check_shapes(params, hf_export.expected_shapes(config), where)
  step = leaves.get('state/step', leaves.get('step'))
  return Checkpoint(
    where=where,
    config=config,
    params=params,
    step=0 if step is None else int(step.read()),
    moments=_moments_from_t5x(states, params, config, where),
  )


def _share_relpos(params: Arrays, states: Arrays, where: str) -> tuple[Arrays, Arrays]:
  """Makes one table of scalable_t5's table a layer, if they are all the same."""

  def shared(name: str) -> str:
    return _RELPOS.sub(r'\1/relpos_bias/rel_embedding', name)

  out = dict(params)
  for name, array in params.items():
    if not _RELPOS.fullmatch(name):
      continue
    tables = array.read()
    if tables.ndim != 3:
      raise ValueError(
        f'{where}: {name} must have 3 axes (heads, layers, buckets), got {tables.shape}'
      )
    axis = _scan_axis(params)
    if not (tables == tables.take([0], axis)).all():
      raise ValueError(
        f'{where}: the {tables.shape[axis]} layers of {name} have different relative position '
        'biases, as scalable_t5 trains them; T5 1.1, mT5 and Aya share one table in a stack, so '
        'this network cannot be run here or in transformers. Train it with scan_layers=False in '
        'T5X, or from a checkpoint of this program'
      )
    del out[name]
    out[shared(name)] = t5x_arrays.take(array, axis, 0)
  return out, {
    shared(name): t5x_arrays.take(array, _scan_axis(params), 0) if array.shape != _UNUSED else array
    for name, array in states.items()
    if _RELPOS.match(name)
  } | {name: array for name, array in states.items() if not _RELPOS.match(name)}


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
  num_heads, buckets = shape('encoder/relpos_bias/rel_embedding', 2, stacked=False)
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
  table, moments = layouts.table_of(config), {}
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
    else t5x_arrays.take(fields[field], axis, layer)
    for field in ('v', 'm')
  }
  if fields['v_row'].shape == _UNUSED:
    return out | {'v_row': fields['v_row'], 'v_col': fields['v_col']}
  embed, other = _embed_axis(rule), 1 - _embed_axis(rule)
  kept = {}
  for field, kept_side in (('v_row', embed), ('v_col', other)):
    # Both axes left, in the parameter's order: the layers, and the side that was not averaged.
    position = 0 if axis == 0 or kept_side == 1 else 1
    kept[kept_side] = t5x_arrays.take(fields[field], position, layer)
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
    scan_layers: lay it out for examples/scalable_t5 (each layer with a copy of the relative position
      biases, layers on axis 1) instead of examples/t5.
    dtype: of the parameters; the optimizer state is always float32.
  """
  config = dataclasses.replace(checkpoint.config, scan_layers=scan_layers, param_scan_axis=1)
  params = checkpoint.in_layout(config)
  table = layouts.table_of(config)
  leaves: dict[str, SlicedArray] = {
    'state/step': t5x_arrays.of(np.asarray(checkpoint.step, np.int32))
  }
  for rule, layer in [(r, None) for r in table.rules()] if scan_layers else table.parameters():
    name = rule.scanned if scan_layers else rule.name('unrolled', layer)
    array = t5x_arrays.cast(params[name], dtype)
    matrix = _matrix_shape(array.shape, config, rule)
    if not scan_layers:
      fields = _wanted(checkpoint.moments, name, matrix, _factored(matrix))
    elif rule.stack is None:
      fields = _wanted(checkpoint.moments, rule.unrolled, matrix, _factored(matrix))
    else:
      fields = _stacked(checkpoint.moments, rule, matrix, table.depth(rule) or 0)
    if scan_layers and name.endswith('relpos_bias/rel_embedding'):
      stack = name.split('/')[0]
      layers = config.num_encoder_layers if stack == 'encoder' else config.num_decoder_layers
      name = f'{stack}/{name}'
      array = t5x_arrays.stack([array] * layers, 1)
      fields = {
        k: v if v.shape == _UNUSED else t5x_arrays.stack([v] * layers, 1) for k, v in fields.items()
      }
    leaves[f'target/{name}'] = array
    leaves |= {f'{_STATES}{name}/{field}': value for field, value in fields.items()}
  return leaves


def _factored(shape: tuple[int, ...]) -> bool:
  return len(shape) == 2 and min(shape) >= MIN_DIM_SIZE_TO_FACTOR


def _stacked(
  moments: Arrays | None, rule: names.Rule, matrix: tuple[int, ...], depth: int
) -> dict[str, SlicedArray]:
  """Moments of all layers by T5X's explicit rule: every kernel factored, rows for `embed`."""
  layers = [
    _wanted(moments, rule.name('unrolled', i), matrix, len(matrix) == 2) for i in range(depth)
  ]

  def stacked(field: str, axis: int) -> SlicedArray:
    if layers[0][field].shape == _UNUSED:
      return layers[0][field]
    return t5x_arrays.stack([fields[field] for fields in layers], axis)

  out = {field: stacked(field, 1) for field in ('v', 'm')}
  if len(matrix) != 2:
    return out | {field: layers[0][field] for field in ('v_row', 'v_col')}
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
    return {field: t5x_arrays.zeros(shapes[field]) for field in FIELDS}
  fields = {field: _moment(moments, name, field, shape, shapes[field]) for field in FIELDS[:3]}
  return fields | {'m': moments[f'{name}/m']}


def _moment(
  moments: Arrays, name: str, field: str, shape: tuple[int, ...], wanted: tuple[int, ...]
) -> SlicedArray:
  """One field in the shape wanted: kept, averaged from `v`, or `v` estimated from its means."""
  if wanted == _UNUSED:
    return t5x_arrays.zeros(_UNUSED)
  held = moments[f'{name}/{field}']
  if held.shape == tuple(wanted):
    return held
  row, col, whole = (moments[f'{name}/{k}'] for k in ('v_row', 'v_col', 'v'))
  smaller, larger = np.argsort(shape)
  if field != 'v':
    axis = int(larger if field == 'v_row' else smaller)
    return t5x_arrays.computed(wanted, lambda v: v.mean(axis), whole)

  def estimate(v_row: np.ndarray, v_col: np.ndarray) -> np.ndarray:
    scaled = v_row / max(float(v_row.mean()), np.finfo(np.float32).tiny)
    v = np.outer(scaled, v_col)
    return v if smaller == 0 else v.T

  return t5x_arrays.computed(wanted, estimate, row, col)


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
  flat = {_dict_names(p): leaf.shape for p, leaf in jax.tree_util.tree_leaves_with_path(params)}
  table = layouts.table_of(config)
  unknown: list[str] = []

  def leaf(path: tuple[Any, ...], wanted: Any) -> SlicedArray | None:
    keys = _dict_names(path)
    name = next((keys[i:] for i in range(len(keys)) if keys[i:] in flat), None)
    field = [k.name for k in path if isinstance(k, jax.tree_util.GetAttrKey)][-1:]
    if field == ['count']:
      return t5x_arrays.of(np.full(wanted.shape, checkpoint.step, wanted.dtype))
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
  rule, layer = names.match(name, 'scanned' if config.scan_layers else 'unrolled')

  def one(unrolled: str, matrix: tuple[int, ...], wanted: tuple[int, ...]) -> SlicedArray:
    if field != 'ema':
      return _moment(moments, unrolled, field, matrix, wanted)
    momentum = moments[f'{unrolled}/m']
    if momentum.shape != matrix:
      return t5x_arrays.zeros(matrix)
    return negated(momentum)

  if not config.scan_layers or rule.stack is None:
    return one(rule.name('unrolled', layer), shape, tuple(wanted))
  # optimizer.over_layers puts layers first in moments; momentum is shaped like its parameter.
  axis = config.param_scan_axis if field == 'ema' else 0
  matrix = _matrix_shape(shape, config, rule)
  rest = tuple(n for i, n in enumerate(wanted) if i != axis)
  depth = table.depth(rule) or 0
  return t5x_arrays.stack([one(rule.name('unrolled', i), matrix, rest) for i in range(depth)], axis)


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
  table, moments = layouts.table_of(config), {}
  for rule, layer in table.parameters():
    stored = rule.scanned if config.scan_layers else rule.name('unrolled', layer)
    name = rule.name('unrolled', layer)
    if any(f'{stored}/{field}' not in held for field in FIELDS[:3]):
      logger.warning('%s: no Adafactor state for %s; only the weights are used', where, stored)
      return None
    fields = {field: held[f'{stored}/{field}'] for field in FIELDS[:3]}
    momentum = held.get(f'{stored}/ema')
    if config.scan_layers and rule.stack is not None:
      fields = {k: t5x_arrays.take(array, 0, layer or 0) for k, array in fields.items()}
      if momentum is not None:
        momentum = t5x_arrays.take(momentum, config.param_scan_axis, layer or 0)
    fields['m'] = t5x_arrays.zeros(_UNUSED) if momentum is None else negated(momentum)
    _check_moments(fields, _matrix_shape(params[stored].shape, config, rule), f'{where}: {name}')
    moments |= {f'{name}/{field}': array for field, array in fields.items()}
  return moments


def _dict_names(path: tuple[Any, ...]) -> tuple[str, ...]:
  return tuple(str(k.key) for k in path if isinstance(k, jax.tree_util.DictKey))

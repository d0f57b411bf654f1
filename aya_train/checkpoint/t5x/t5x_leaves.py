"""T5X's trees of parameters and Adafactor states as checkpoints, and checkpoints as such trees.

`adafactor_moments` describes the states of unrolled networks (t5x/examples/t5), which T5X keeps by
its heuristic for matrices. Its explicit rule for the stacked parameters of scalable_t5 differs:
'v_row' is kept for the axis `embed`, 'v_col' for all others, whatever the lengths; norm scales and
position biases keep 'v'. scalable_t5 also keeps heads and kv of attention kernels apart:
[embed, layers, heads, kv] for queries, keys and values, [heads, layers, kv, embed] for outputs.
"""

import dataclasses
import logging
import re

import numpy as np

from aya_train.checkpoint import adafactor_moments, contents, layouts, names
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.models import t5_config

logger = logging.getLogger(__name__)

MIN_DIM_SIZE_TO_FACTOR = 128
_STATES = 'state/param_states/'
_ATTENTION = re.compile(r'(?:encoder/encoder|decoder/decoder)/\w*attention/(\w+)/kernel')


# From T5X -----------------------------------------------------------------------------------------


def from_leaves(leaves: lazy_arrays.Arrays, where: str) -> contents.Checkpoint:
  """Understands the leaves of a T5X checkpoint ('target/…', 'state/…').

  The architecture is read off names and shapes: T5X stores none. Activations cannot be; they are
  gelu and linear for a gated MLP (T5 1.1, mT5) and relu for T5 1.0. scalable_t5 has position biases
  in each layer: copies of one table, as conversions from mT5 write them, are one table shared.

  Raises:
    ValueError: not an encoder-decoder of T5X's examples, with what is missing or in excess.
  """
  leaves = {name.removeprefix('_optimizer/'): leaf for name, leaf in leaves.items()}
  params: lazy_arrays.Arrays = {
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
  states: lazy_arrays.Arrays = {
    k.removeprefix(_STATES): v for k, v in leaves.items() if k.startswith(_STATES)
  }
  if scanned:
    axis = _scan_axis(params)
    params, states = _joined_heads(params, states, axis)
  config = _architecture(params, scanned, where)
  layouts.check(params, config, where)
  step = leaves.get('state/step', leaves.get('step'))
  checkpoint = contents.Checkpoint(
    where=where,
    config=config,
    params=params,
    step=0 if step is None else int(step.read()),
    moments=_moments_from_t5x(states, params, config, where),
  )
  return (
    contents.with_relpos(checkpoint, per_layer=False)
    if contents.relpos_are_equal(checkpoint)
    else checkpoint
  )


def _joined_heads(
  params: lazy_arrays.Arrays, states: lazy_arrays.Arrays, axis: int
) -> tuple[lazy_arrays.Arrays, lazy_arrays.Arrays]:
  """Joins heads and kv of stacked attention kernels and of their moments."""
  joined, moments = dict(params), dict(states)
  for name, array in params.items():
    matched = _ATTENTION.fullmatch(name)
    if matched is None or len(array.shape) != 4:
      continue
    first, second = _head_axes(matched[1], axis)
    joined[name] = lazy_arrays.merge(array, first, second)
    for field in adafactor_moments.FIELDS:
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


def _scan_axis(params: lazy_arrays.Arrays) -> int:
  """Where the layers are in a norm scale, [embed, layers] or [layers, embed]."""
  scale = params.get('encoder/encoder/pre_mlp_layer_norm/scale')
  table = params.get('token_embedder/embedding')
  if scale is None or table is None or len(scale.shape) != 2 or scale.shape[0] == table.shape[-1]:
    return 1
  return 0


def _architecture(params: lazy_arrays.Arrays, scanned: bool, where: str) -> t5_config.T5Config:
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
  relpos = layer('encoder', contents.RELPOS)
  per_layer = relpos in params
  num_heads, buckets = shape(
    relpos if per_layer else f'encoder/{contents.RELPOS}', 2, stacked=per_layer
  )
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
  states: lazy_arrays.Arrays, params: lazy_arrays.Arrays, config: t5_config.T5Config, where: str
) -> lazy_arrays.Arrays | None:
  if not states:
    return None
  expected = {f'{name}/{field}' for name in params for field in adafactor_moments.FIELDS}
  if set(states) != expected:
    logger.warning(
      '%s: the optimizer state is not that of Adafactor (%s …); only the weights are used',
      where,
      sorted(set(states) ^ expected)[:3],
    )
    return None
  table = layouts.table_of(config)
  moments: dict[str, lazy_arrays.LazyArray] = {}
  for rule, layer in table.parameters():
    stored = rule.scanned if config.scan_layers else rule.unrolled.replace('{layer}', str(layer))
    fields = {field: states[f'{stored}/{field}'] for field in adafactor_moments.FIELDS}
    if config.scan_layers and rule.stack is not None:
      fields = _layer_of_t5x(fields, params[stored].shape, config.param_scan_axis, layer or 0, rule)
    name = rule.name('unrolled', layer)
    adafactor_moments.check(
      fields, adafactor_moments.matrix_shape(params[stored].shape, config, rule), f'{where}: {name}'
    )
    moments |= {f'{name}/{field}': array for field, array in fields.items()}
  return moments


def _layer_of_t5x(
  fields: dict[str, lazy_arrays.LazyArray],
  shape: tuple[int, ...],
  axis: int,
  layer: int,
  rule: names.Rule,
) -> dict[str, lazy_arrays.LazyArray]:
  """One layer of T5X's stacked moments, under this module's convention of rows and columns."""
  out = {
    field: fields[field]
    if fields[field].shape == adafactor_moments.UNUSED
    else lazy_arrays.take(fields[field], axis, layer)
    for field in ('v', 'm')
  }
  if fields['v_row'].shape == adafactor_moments.UNUSED:
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


# To T5X -------------------------------------------------------------------------------------------


def to_leaves(
  checkpoint: contents.Checkpoint, *, scan_layers: bool, dtype: str = 'float32'
) -> lazy_arrays.Arrays:
  """The leaves of a T5X checkpoint, for `t5x_format.write`.

  Args:
    checkpoint: any, opened. Without moments it gets those of a fresh optimizer, since T5X restores
      parameters and optimizer together.
    scan_layers: lay it out for examples/scalable_t5 (relative position biases in each layer, if
      need be copies; layers on axis 1) instead of examples/t5.
    dtype: of the parameters; the optimizer state is always float32.
  """
  if scan_layers:
    checkpoint = contents.with_relpos(checkpoint, per_layer=True)
  config = dataclasses.replace(checkpoint.config, scan_layers=scan_layers, param_scan_axis=1)
  params = checkpoint.in_layout(config)
  table = layouts.table_of(config)
  leaves: dict[str, lazy_arrays.LazyArray] = {
    'state/step': lazy_arrays.of(np.asarray(checkpoint.step, np.int32))
  }
  for rule, layer in [(r, None) for r in table.rules()] if scan_layers else table.parameters():
    name = rule.scanned if scan_layers else rule.name('unrolled', layer)
    array = lazy_arrays.cast(params[name], dtype, name)
    matrix = adafactor_moments.matrix_shape(array.shape, config, rule)
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
  array: lazy_arrays.LazyArray,
  fields: dict[str, lazy_arrays.LazyArray],
  projection: str,
  head_dim: int,
) -> tuple[lazy_arrays.LazyArray, dict[str, lazy_arrays.LazyArray]]:
  """Separates heads and kv, as scalable_t5 keeps them."""
  axes, axes_of_v_col = _head_axes(projection, 1), _head_axes_of_v_col(projection, 1)
  fields = {**fields, 'v_col': lazy_arrays.split(fields['v_col'], *axes_of_v_col, head_dim)}
  if fields['m'].shape == array.shape:
    fields['m'] = lazy_arrays.split(fields['m'], *axes, head_dim)
  return lazy_arrays.split(array, *axes, head_dim), fields


def _factored(shape: tuple[int, ...]) -> bool:
  return len(shape) == 2 and min(shape) >= MIN_DIM_SIZE_TO_FACTOR


def _stacked(
  moments: lazy_arrays.Arrays | None, rule: names.Rule, matrix: tuple[int, ...], depth: int
) -> dict[str, lazy_arrays.LazyArray]:
  """Moments of all layers by T5X's explicit rule: every kernel factored, rows for `embed`."""
  factored = len(matrix) == 2 and not rule.scanned.endswith(contents.RELPOS)
  layers = [_wanted(moments, rule.name('unrolled', i), matrix, factored) for i in range(depth)]

  def stacked(field: str, axis: int) -> lazy_arrays.LazyArray:
    if layers[0][field].shape == adafactor_moments.UNUSED:
      return layers[0][field]
    return lazy_arrays.stack([fields[field] for fields in layers], axis)

  out = {field: stacked(field, 1) for field in ('v', 'm')}
  if not factored:
    return out | {
      field: lazy_arrays.zeros(adafactor_moments.UNUSED) for field in ('v_row', 'v_col')
    }
  embed, other = _embed_axis(rule), 1 - _embed_axis(rule)
  smaller, _ = np.argsort(matrix)
  for field, side in (('v_row', embed), ('v_col', other)):
    out[field] = stacked('v_row' if side == smaller else 'v_col', 1 - side)
  return out


def _wanted(
  moments: lazy_arrays.Arrays | None, name: str, shape: tuple[int, ...], factored: bool
) -> dict[str, lazy_arrays.LazyArray]:
  """The four fields of one parameter, factored or not; zeros where there are no moments."""
  smaller, larger = np.argsort(shape) if len(shape) == 2 else (0, 0)
  shapes = {
    'v_row': adafactor_moments.UNUSED,
    'v_col': adafactor_moments.UNUSED,
    'v': shape,
    'm': adafactor_moments.UNUSED,
  }
  if factored:
    shapes |= {'v_row': (shape[smaller],), 'v_col': (shape[larger],), 'v': adafactor_moments.UNUSED}
  if moments is None:
    return {field: lazy_arrays.zeros(shapes[field]) for field in adafactor_moments.FIELDS}
  fields = {
    field: adafactor_moments.in_shape(moments, name, field, shape, shapes[field])
    for field in adafactor_moments.FIELDS[:3]
  }
  return fields | {'m': moments[f'{name}/m']}

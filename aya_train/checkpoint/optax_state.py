"""The state of our optimizer: filled from a checkpoint's moments, and as moments of one."""

import logging
import re
from typing import Any

import jax
import numpy as np

from aya_train import parameter_tree
from aya_train.checkpoint import adafactor_moments, contents, layouts, names
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.models import t5_config

logger = logging.getLogger(__name__)

_OPTAX_LEAF = re.compile(r'opt_state/(?:.*/)?(v_row|v_col|v|ema)/((?:token_|encoder|decoder).*)')


def fill(
  abstract: Any, params: Any, checkpoint: contents.Checkpoint, config: t5_config.T5Config
) -> Any:
  """An optax state of LazyArrays, laid out as an abstract state of `optimizer.adafactor`.

  Args:
    abstract: the optimizer state's shapes, parameters in the layout of `config`.
    params: tree of the parameters that it belongs to.
    checkpoint: the source of moments and step.
    config: the model's.

  Returns:
    A tree like `abstract`, or None if the checkpoint has no moments or `abstract` is of an
    optimizer other than Adafactor.
  """
  if checkpoint.moments is None:
    return None
  checkpoint = contents.with_relpos(checkpoint, per_layer=config.relpos_bias_per_layer)
  flat = {
    parameter_tree.dict_names(p): leaf.shape
    for p, leaf in jax.tree_util.tree_leaves_with_path(params)
  }
  table = layouts.table_of(config)
  unknown: list[str] = []

  def leaf(path: tuple[Any, ...], wanted: Any) -> lazy_arrays.LazyArray | None:
    keys = parameter_tree.dict_names(path)
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
  moments: lazy_arrays.Arrays,
  name: str,
  field: str,
  wanted: tuple[int, ...],
  shape: tuple[int, ...],
  config: t5_config.T5Config,
  table: names.Table,
) -> lazy_arrays.LazyArray:
  rule, layer = table.match(name, 'scanned' if config.scan_layers else 'unrolled')

  def one(unrolled: str, matrix: tuple[int, ...], wanted: tuple[int, ...]) -> lazy_arrays.LazyArray:
    if field != 'ema':
      return adafactor_moments.in_shape(moments, unrolled, field, matrix, wanted)
    momentum = moments[f'{unrolled}/m']
    if momentum.shape != matrix:
      return lazy_arrays.zeros(matrix)
    return _negated(momentum)

  if not config.scan_layers or rule.stack is None:
    return one(rule.name('unrolled', layer), shape, tuple(wanted))
  # optimizer.over_layers puts layers first in moments; momentum is shaped like its parameter.
  axis = config.param_scan_axis if field == 'ema' else 0
  matrix = adafactor_moments.matrix_shape(shape, config, rule)
  rest = tuple(n for i, n in enumerate(wanted) if i != axis)
  depth = table.depth(rule) or 0
  return lazy_arrays.stack(
    [one(rule.name('unrolled', i), matrix, rest) for i in range(depth)], axis
  )


def _negated(array: lazy_arrays.LazyArray) -> lazy_arrays.LazyArray:
  """T5X subtracts its momentum, optax adds it."""
  return lazy_arrays.mapped(array, np.negative)


def to_moments(
  training: lazy_arrays.Arrays, params: lazy_arrays.Arrays, config: t5_config.T5Config, where: str
) -> lazy_arrays.Arrays | None:
  """Adafactor's moments from the leaves of our item `training`; None if it has none.

  Args:
    training: leaves by path, e.g. 'opt_state/0/inner_states/1/inner_state/0/v_row/encoder/…'.
    params: the parameters, in the layout of `config`.
  """
  held: dict[str, lazy_arrays.LazyArray] = {}
  for path, array in training.items():
    if matched := _OPTAX_LEAF.fullmatch(path):
      field, name = matched.groups()
      held[f'{name}/{field}'] = array
  table = layouts.table_of(config)
  moments: dict[str, lazy_arrays.LazyArray] = {}
  for rule, layer in table.parameters():
    stored = rule.scanned if config.scan_layers else rule.name('unrolled', layer)
    name = rule.name('unrolled', layer)
    if any(f'{stored}/{field}' not in held for field in adafactor_moments.FIELDS[:3]):
      logger.warning('%s: no Adafactor state for %s; only the weights are used', where, stored)
      return None
    fields = {field: held[f'{stored}/{field}'] for field in adafactor_moments.FIELDS[:3]}
    momentum = held.get(f'{stored}/ema')
    if config.scan_layers and rule.stack is not None:
      fields = {k: lazy_arrays.take(array, 0, layer or 0) for k, array in fields.items()}
      if momentum is not None:
        momentum = lazy_arrays.take(momentum, config.param_scan_axis, layer or 0)
    fields['m'] = (
      lazy_arrays.zeros(adafactor_moments.UNUSED) if momentum is None else _negated(momentum)
    )
    adafactor_moments.check(
      fields, adafactor_moments.matrix_shape(params[stored].shape, config, rule), f'{where}: {name}'
    )
    moments |= {f'{name}/{field}': array for field, array in fields.items()}
  return moments

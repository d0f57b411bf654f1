"""Moves parameters between the layouts of `names`, one array at a time.

Nothing here holds a whole network: each function returns a flat dict of `lazy_arrays.LazyArray`,
whose data are read, sliced, stacked or transposed when they are asked for. 13 billion parameters so
pass through a machine that has room for the largest of them.
"""

import functools
from collections.abc import Mapping

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util

from aya_train.checkpoint import names
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.models import network, t5_config

ArrayLikes = Mapping[str, lazy_arrays.ArrayLike]


def table_of(config: t5_config.T5Config, has_decoder: bool = True) -> names.Table:
  """The names.Table of a network, or of its encoder alone."""
  return names.Table(
    num_encoder_layers=config.num_encoder_layers,
    num_decoder_layers=config.num_decoder_layers,
    mlp_inputs=len(config.mlp_activations),
    tied=config.logits_via_embedding,
    relpos_per_layer=config.relpos_bias_per_layer,
    has_decoder=has_decoder,
  )


@functools.lru_cache(maxsize=8)
def expected_shapes(config: t5_config.T5Config) -> Mapping[str, tuple[int, ...]]:
  """Shape of each parameter of the network, by whole name; computes nothing."""
  tokens = jax.ShapeDtypeStruct((1, 2), np.int32)
  variables = jax.eval_shape(
    network.Transformer(config).init, jax.random.key(0), tokens, tokens, tokens
  )
  flat = traverse_util.flatten_dict(nn.meta.unbox(variables['params']), sep='/')
  return {name: tuple(leaf.shape) for name, leaf in flat.items()}


def check(
  arrays: ArrayLikes, config: t5_config.T5Config, where: str, *, has_decoder: bool = True
) -> None:
  """Refuses arrays that are not the parameters of a network (or of its encoder), in its own layout.

  Raises:
    ValueError: names do not fit (see `names.Table.check`), or shapes do not; shows up to five.
  """
  table_of(config, has_decoder).check(
    arrays, 'scanned' if config.scan_layers else 'unrolled', where
  )
  expected = expected_shapes(config)
  wrong = sorted(
    f'{name} expected {expected[name]}, got {tuple(array.shape)}'
    for name, array in arrays.items()
    if tuple(array.shape) != expected[name]
  )
  if wrong:
    raise ValueError(f'{where}: {len(wrong)} arrays do not fit the T5Config: {wrong[:5]}')


def to_unrolled(
  scanned: ArrayLikes, table: names.Table, scan_axis: int = 1
) -> dict[str, lazy_arrays.LazyArray]:
  """Cuts stacked parameters into layers.

  Args:
    scanned: whole name to array; a parameter of a layer has the stack's depth on `scan_axis`.
    table: the network's parameters.
    scan_axis: `param_scan_axis` of the T5Config.

  Returns:
    The arrays in the unrolled layout, in canonical order, dtypes kept.

  Raises:
    ValueError: names do not fit the table, or a stack is not as deep as the table says.
  """
  table.check(scanned, 'scanned')
  for rule in table.rules():
    depth, shape = table.depth(rule), tuple(scanned[rule.scanned].shape)
    if depth is not None and (len(shape) <= scan_axis or shape[scan_axis] != depth):
      raise ValueError(
        f'{rule.scanned}{shape}: axis {scan_axis} must hold {depth} layers; is param_scan_axis '
        'right?'
      )

  def leaf(rule: names.Rule, layer: int | None) -> lazy_arrays.LazyArray:
    array = lazy_arrays.of(scanned[rule.scanned])
    return array if layer is None else lazy_arrays.take(array, scan_axis, layer)

  return {rule.name('unrolled', layer): leaf(rule, layer) for rule, layer in table.parameters()}


def to_scanned(
  unrolled: ArrayLikes, table: names.Table, scan_axis: int = 1
) -> dict[str, lazy_arrays.LazyArray]:
  """Stacks layers along `scan_axis`: the inverse of `to_unrolled`, same arguments and errors."""
  table.check(unrolled, 'unrolled')

  def leaf(rule: names.Rule) -> lazy_arrays.LazyArray:
    depth = table.depth(rule)
    if depth is None:
      return lazy_arrays.of(unrolled[rule.unrolled])
    layers = [lazy_arrays.of(unrolled[rule.name('unrolled', i)]) for i in range(depth)]
    try:
      return lazy_arrays.stack(layers, scan_axis)
    except ValueError as error:
      raise ValueError(f'{rule.scanned}: {error}') from error

  return {rule.scanned: leaf(rule) for rule in table.rules()}


def to_hf(unrolled: ArrayLikes, table: names.Table) -> dict[str, lazy_arrays.LazyArray]:
  """The state dict of transformers' classes, without the aliases of the input table."""
  table.check(unrolled, 'unrolled')
  return {
    rule.name('hf', layer): _turned(unrolled[rule.name('unrolled', layer)], rule)
    for rule, layer in table.parameters()
  }


def from_hf(
  state_dict: ArrayLikes, table: names.Table, where: str = 'state dict'
) -> dict[str, lazy_arrays.LazyArray]:
  """The inverse of `to_hf`; takes the aliases that files of older transformers hold."""
  held = names.hf_names(state_dict, tied=table.tied)
  table.check(held, 'hf', where)
  return {
    rule.name('unrolled', layer): _turned(state_dict[held[rule.name('hf', layer)]], rule)
    for rule, layer in table.parameters()
  }


def _turned(array: lazy_arrays.ArrayLike, rule: names.Rule) -> lazy_arrays.LazyArray:
  lazy = lazy_arrays.of(array)
  return lazy_arrays.transpose(lazy) if rule.transposed else lazy

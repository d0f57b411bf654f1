"""What ways of decoding share: rows of a cache for several decodes, and the model behind it.

Shapes, and what the model and its cache are, are those of decoding.py.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Cache = Any  # a pytree of arrays
TokensToLogits = Callable[[jax.Array, jax.Array, Cache], tuple[jax.Array, Cache]]


def flat_batch_beam_expand(x: jax.Array, num_decodes: int, cache_offset: int = 0) -> jax.Array:
  """Repeats each of the B rows on axis `cache_offset` num_decodes times: [..B..] -> [..N..].

  A model that closes over an array with B rows can call it inside tokens_to_logits with
  num_decodes = tokens_N1.shape[0] // B.
  """
  return jnp.repeat(x, num_decodes, axis=cache_offset)


def gather(x_BCX: jax.Array, index_BK: jax.Array, row_axis: int = 0) -> jax.Array:
  """Picks entries of the axis after `row_axis`, row by row: [.., B, C, ..] -> [.., B, K, ..].

  Mapped over rows, so that rows sharded over devices stay where they are.
  """

  def pick(x: jax.Array, index: jax.Array) -> jax.Array:
    return jnp.take(x, index, axis=row_axis, mode='clip')

  return jax.vmap(pick, (row_axis, 0), row_axis)(x_BCX, index_BK)


def gather_cache(cache: Cache, beams_BK: jax.Array, cache_offset: int) -> Cache:
  """Gives each new live sequence the cache rows of the sequence it extends."""

  def reordered(leaf: jax.Array) -> jax.Array:
    before, after = leaf.shape[:cache_offset], leaf.shape[cache_offset + 1 :]
    by_row = leaf.reshape(*before, *beams_BK.shape, *after)
    return gather(by_row, beams_BK, cache_offset).reshape(leaf.shape)

  return jax.tree.map(reordered, cache)


def expand_cache(cache: Cache, num_decodes: int, cache_offset: int) -> Cache:
  return jax.tree.map(lambda x: flat_batch_beam_expand(x, num_decodes, cache_offset), cache)


def next_logits(
  tokens_to_logits: TokensToLogits, last_N: jax.Array, position: jax.Array, cache: Cache
) -> tuple[jax.Array, Cache]:
  logits_NV, cache = tokens_to_logits(last_N[:, None], position, cache)
  if logits_NV.ndim != 2 or logits_NV.shape[0] != last_N.shape[0]:
    raise ValueError(
      f'tokens_to_logits must return logits of shape ({last_N.shape[0]}, vocabulary) for tokens of '
      f'shape ({last_N.shape[0]}, 1); got shape {logits_NV.shape}.'
    )
  return logits_NV.astype(jnp.float32), cache


def batch_size(cache: Cache, cache_offset: int) -> int:
  """Rows of the cache, the same on axis `cache_offset` of every leaf."""
  leaves = [(jax.tree_util.keystr(k), x.shape) for k, x in jax.tree.leaves_with_path(cache)]
  if not leaves:
    raise ValueError(
      'cache has no arrays, so the batch size is unknown; pass the cache of a model.'
    )
  for name, shape in leaves:
    if not 0 <= cache_offset < len(shape):
      raise ValueError(
        f'cache{name} has shape {shape}, which has no axis cache_offset={cache_offset}; every leaf '
        f'needs the batch there.'
      )
  first, shape = leaves[0]
  for name, other in leaves:
    if other[cache_offset] != shape[cache_offset]:
      raise ValueError(
        f'cache leaves disagree about the batch size on axis cache_offset={cache_offset}: '
        f'cache{first} has shape {shape}, cache{name} has shape {other}.'
      )
  return shape[cache_offset]


def check_lengths(max_decode_length: int, num_decodes: int) -> None:
  if max_decode_length < 1:
    raise ValueError(f'max_decode_length must be at least 1, got {max_decode_length}.')
  if num_decodes < 1:
    raise ValueError(f'num_decodes must be at least 1, got {num_decodes}.')

"""Reductions of large arrays that read them once and hold nothing of their size.

XLA's CPU compiler does not fuse what is reduced into the reduction: the squares of an embedding of
mT5 are half a gigabyte that is written and read again, on one core. So on a CPU large arrays are
reduced block by block, each of which stays in the cache. Elsewhere XLA fuses, and nothing changes.
Nor does it on several CPU devices, where an array in parts would be gathered block by block.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
LARGE = 2**22
"""Numbers in an array from which on CPUs it is reduced, or mapped, in blocks."""
_BLOCK = 2**19
"""Numbers in a block, about: 2 MiB of float32."""

_COMBINE = {jnp.sum: jnp.add, jnp.any: jnp.logical_or}


def several_cpus() -> bool:
  """Whether CPUs are used as several devices (of one process or of several): a simulation."""
  return jax.default_backend() == 'cpu' and jax.device_count() > 1


def reduce(
  reduction: Callable[..., Array],
  values: Callable[..., Array],
  arrays: Sequence[Array],
  axes: Sequence[int | None] = (None,),
) -> tuple[Array, ...]:
  """`reduction(values(*arrays), axis)` for each of several axes.

  Args:
    reduction: jnp.sum or jnp.any, which begin with 0.
    values: elementwise; gives one array that is to be reduced.
    arrays: they broadcast to the shape of the first.
    axes: what to reduce over; None: everything.

  Returns:
    One array for each of `axes`.
  """

  def whole(*arrays: Array) -> tuple[Array, ...]:
    found = values(*arrays)
    return tuple(reduction(found, axis=axis) for axis in axes)

  rows = _rows_of_a_block(arrays[0].shape)
  if rows is None:
    return whole(*arrays)
  length, rank = arrays[0].shape[0], arrays[0].ndim
  over_rows = [axis is None or axis % rank == 0 for axis in axes]

  def in_blocks(*arrays: Array) -> tuple[Array, ...]:
    def one(totals: tuple[Array, ...], start: Array) -> tuple[Any, Any]:
      found = whole(*(_block(x, start, rows, length) for x in arrays))
      combine = _COMBINE[reduction]
      summed = (x for x, over in zip(found, over_rows, strict=True) if over)
      apart = tuple(x for x, over in zip(found, over_rows, strict=True) if not over)
      return tuple(map(combine, totals, summed)), apart

    kinds = jax.eval_shape(whole, *arrays)
    zeros = tuple(
      jnp.zeros(x.shape, x.dtype) for x, over in zip(kinds, over_rows, strict=True) if over
    )
    totals, apart = jax.lax.scan(one, zeros, jnp.arange(0, length, rows))
    left, right = iter(totals), iter(apart)
    return tuple(
      next(left) if over else next(right).reshape(kind.shape)
      for kind, over in zip(kinds, over_rows, strict=True)
    )

  return jax.lax.platform_dependent(*arrays, cpu=in_blocks, default=whole)


def map_rows(function: Callable[..., Any], *arrays: Array) -> Any:
  """`function(*arrays)`, which treats every row of its arrays alone, on CPUs block by block.

  Args:
    function: maps arrays [N, ...] to a tree of arrays [N, ...].
    *arrays: the first is the largest.
  """
  rows = _rows_of_a_block(arrays[0].shape)
  if rows is None:
    return function(*arrays)

  def in_blocks(*arrays: Array) -> Any:
    parts = [x.reshape(-1, rows, *x.shape[1:]) for x in arrays]
    found = jax.lax.map(lambda xs: function(*xs), parts)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)

  return jax.lax.platform_dependent(*arrays, cpu=in_blocks, default=function)


def _rows_of_a_block(shape: tuple[int, ...]) -> int | None:
  """Rows (of the first axis) that make a block; None: the array is taken at once."""
  size = math.prod(shape)
  if size < LARGE or several_cpus():
    return None
  most = max(1, _BLOCK // (size // shape[0]))
  rows = next(n for n in range(min(most, shape[0]), 0, -1) if shape[0] % n == 0)
  # Lengths without such a divisor would be cut into crumbs.
  return rows if 4 * rows > most else None


def _block(x: Array, start: Array, rows: int, length: int) -> Array:
  return x if x.shape[0] != length else jax.lax.dynamic_slice_in_dim(x, start, rows)

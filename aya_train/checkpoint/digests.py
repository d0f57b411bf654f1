"""Digests of arrays: two sums of 32 bits that no layout changes and every flipped bit does.

Each element's bits are mixed with its place in the whole array, and the results are added up modulo
2^32. So a digest is the same on one device and on many, in one piece and in blocks of any order;
devices compute it where the array lies, at the speed of reading it once. Changing one element
always changes it, since the mixing can be undone; other damage escapes once in 2^64 times. It finds
accidents. Somebody who wants to deceive can write a digest as well as an array.
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from aya_train.checkpoint.arrays import blocks, lazy_arrays

_PLACE, _FIRST, _SECOND = 0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35
_BITS = 0xFFFFFFFF
_PIECE = 1 << 16  # elements, whose working memory stays in the cache of a core
_HOST_BYTES = 1 << 26  # up to here copying costs less than compiling

Sums = tuple[int, int]


def of_tree(tree: Any) -> dict[str, str]:
  """The digest of each array by its path, joined by '/': 16 hexadecimal digits.

  Arrays are jax's (on any mesh, random keys included), numpy's or Python's numbers. On several
  hosts all of them call this with the same tree, and all get the same.

  Raises:
    TypeError: a leaf is no array of numbers.
  """
  leaves = named_leaves(tree)
  arrays = [plain(leaf, name) for name, leaf in leaves.items()]
  here = all(not isinstance(x, jax.Array) or x.is_fully_addressable for x in arrays)
  if here and sum(x.nbytes for x in arrays) <= _HOST_BYTES:
    sums = [of_block(x, x.shape) for x in jax.device_get(arrays)]
  else:
    sums = _on_devices(arrays)
  return {name: in_hex(each) for name, each in zip(leaves, sums, strict=True)}


def combined(digests: Mapping[str, str]) -> str:
  """One digest (64 hexadecimal digits) of many, whatever their order."""
  return of_json(dict(digests))


def of_json(content: Any) -> str:
  """SHA-256 of JSON content, whatever its spaces and the order of its keys."""
  content = json.loads(json.dumps(content))  # tuples and numbers as keys, as they are read back
  canonical = json.dumps(content, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(canonical.encode()).hexdigest()


def of_lazy(array: lazy_arrays.LazyArray) -> str:
  """The digest of an array that is read block by block."""
  chunks = array.chunks or blocks.chunk_shape(array.shape, array.dtype.itemsize)
  first = second = 0
  if not math.prod(array.shape):
    return in_hex((0, 0))
  for index in blocks.cut(array.shape, array.dtype.itemsize, chunks):
    one, other = of_block(array.get(index), array.shape, [i.start for i in index])
    first, second = first + one, second + other
  return in_hex((first, second))


def summing(
  array: lazy_arrays.LazyArray,
) -> tuple[lazy_arrays.LazyArray, Callable[[], str]]:
  """An array that is digested while it is read, and what gives the digest afterwards.

  Its blocks must be read once each, by one thread.
  """
  sums = [0, 0]

  def get(index: blocks.Index) -> np.ndarray:
    block = array.get(index)
    for i, part in enumerate(of_block(block, array.shape, [i.start for i in index])):
      sums[i] += part
    return block

  return dataclasses.replace(array, get=get), lambda: in_hex((sums[0], sums[1]))


def named_leaves(tree: Any) -> dict[str, Any]:
  """The leaves of a tree by their path, joined by '/'."""
  return {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def name_of(path: Any) -> str:
  """A path of `jax.tree_util`, joined by '/'."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def in_hex(sums: Sums) -> str:
  return ''.join(f'{each & _BITS:08x}' for each in sums)


# On the host --------------------------------------------------------------------------------------


def of_block(block: np.ndarray, shape: Sequence[int], starts: Sequence[int] | None = None) -> Sums:
  """The part that a block adds to the sums of an array of `shape`; they count modulo 2^32.

  Args:
    block: a part of the array, of any strides.
    shape: of the whole.
    starts: where the block begins in each dimension; by default at its beginning.
  """
  words = _words(np.asarray(block))
  shape = (*shape, *words.shape[len(shape) :])
  starts = (*(starts or (0,) * block.ndim), *(0,) * (words.ndim - block.ndim))
  if not words.size:
    return 0, 0
  strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
  # The last axes that are whole, and one more, lie in one run.
  axis = words.ndim
  while axis and (axis == words.ndim or words.shape[axis] == shape[axis]):
    axis -= 1
  rows = np.zeros(1, np.int64)
  for size, start, stride in zip(words.shape[:axis], starts, strides, strict=False):
    rows = np.add.outer(rows, (start + np.arange(size)) * stride).reshape(-1)
  rest = zip(starts[axis:], strides[axis:], strict=True)
  rows += sum(start * stride for start, stride in rest)
  return _summed(words.reshape(rows.size, -1), rows)


def _summed(words: np.ndarray, rows: np.ndarray) -> Sums:
  """Sums of runs of words; `rows` says at which place of the array each begins."""
  length = words.shape[1]
  width = min(length, _PIECE)
  height = max(1, _PIECE // width)
  bases = (rows & _BITS).astype(np.uint32) * np.uint32(_PLACE)
  ramp = np.arange(width, dtype=np.uint32) * np.uint32(_PLACE)
  mixed, shifted = np.empty((2, height, width), np.uint32)
  first = second = 0
  for column in range(0, length, width):
    across = np.uint32(column * _PLACE & _BITS) + bases
    for row in range(0, len(rows), height):
      piece = words[row : row + height, column : column + width]
      h, t = (x[: piece.shape[0], : piece.shape[1]] for x in (mixed, shifted))
      np.add(across[row : row + height, None], ramp[: piece.shape[1]], out=h)
      np.bitwise_xor(h, piece, out=h)
      np.multiply(h, np.uint32(_FIRST), out=h)
      np.right_shift(h, 16, out=t)
      np.bitwise_xor(h, t, out=h)
      first += int(np.add.reduce(h, axis=None, dtype=np.uint32))
      np.multiply(h, np.uint32(_SECOND), out=h)
      np.right_shift(h, 15, out=t)
      np.bitwise_xor(h, t, out=h)
      second += int(np.add.reduce(h, axis=None, dtype=np.uint32))
  return first & _BITS, second & _BITS


def _words(array: np.ndarray) -> np.ndarray:
  """Bits of an array as unsigned integers of at most 32 bits; of 64 a last axis has the halves."""
  array = np.ascontiguousarray(array).reshape(array.shape)
  size = array.dtype.itemsize
  if size == 8:
    return array.reshape(*array.shape, 1).view('<u4')
  return array.view(f'<u{size}')


# On devices ---------------------------------------------------------------------------------------


def _on_devices(arrays: Sequence[Any]) -> list[Sums]:
  """Sums of arrays that stay where they are; those of one set of devices in one program."""
  groups: dict[Any, list[int]] = {}
  found: dict[int, Any] = {}
  for position, array in enumerate(arrays):
    if isinstance(array, jax.Array):
      groups.setdefault(frozenset(array.devices()), []).append(position)
    else:
      found[position] = of_block(array, array.shape)
  for positions in groups.values():
    members = [arrays[i] for i in positions]
    shardings = [x.sharding for x in members if isinstance(x.sharding, NamedSharding)]
    result = NamedSharding(shardings[0].mesh, PartitionSpec()) if shardings else None
    found |= dict(zip(positions, np.asarray(_program(result)(members)), strict=True))
  return [(int(found[i][0]), int(found[i][1])) for i in range(len(arrays))]


@functools.cache
def _program(result: NamedSharding | None) -> Any:
  """Arrays to [arrays, 2] uint32, whole on each device of `result`."""

  def sums(arrays: Sequence[jax.Array]) -> jax.Array:
    return jnp.stack([_device_sums(x) for x in arrays])

  return jax.jit(sums, out_shardings=result)


def _device_sums(array: jax.Array) -> jax.Array:
  """[2] uint32, the sums of one array; it is read once."""
  if array.dtype == jnp.bool_:
    array = array.astype(jnp.uint8)
  size = min(array.dtype.itemsize, 4)
  words = jax.lax.bitcast_convert_type(array, jnp.dtype(f'uint{8 * size}')).astype(jnp.uint32)
  place = jnp.zeros(words.shape, jnp.uint32)
  for axis in range(words.ndim):
    stride = math.prod(words.shape[axis + 1 :]) & _BITS
    place += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * jnp.uint32(stride)
  h = (words ^ (place * jnp.uint32(_PLACE))) * jnp.uint32(_FIRST)
  h ^= h >> 16
  g = h * jnp.uint32(_SECOND)
  g ^= g >> 15
  # One reduction with two results: two would read the array twice on a CPU.
  zero = jnp.uint32(0)
  added = jax.lax.reduce(
    (h, g), (zero, zero), lambda x, y: (x[0] + y[0], x[1] + y[1]), range(words.ndim)
  )
  return jnp.stack(added)


def plain(leaf: Any, name: str) -> Any:
  """An array of numbers; of random keys their words.

  Raises:
    TypeError: a leaf is no array of numbers.
  """
  if isinstance(leaf, jax.Array):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return jax.random.key_data(leaf)
  else:
    leaf = np.asarray(leaf)
  size = leaf.dtype.itemsize
  if size not in (1, 2, 4, 8) or leaf.dtype.kind in 'cOSUMm':
    raise TypeError(f'{name}: arrays of {leaf.dtype} have no digest')
  return leaf

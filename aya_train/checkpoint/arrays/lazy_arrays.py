"""Arrays of known shape whose data stay where they are until a slice of them is asked for.

Operations on them move no data either. So neither a host of a pod nor a machine that converts a
checkpoint ever holds more than a block of one, whatever lies between its file and the reader.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from aya_train.checkpoint.arrays import blocks

FLOATS = ('float32', 'bfloat16', 'float16', 'float64')
QUANTISED = 'Quantised weights mean nothing without their scales: give what they were made from'
_STRIP_ROWS = 16


class ArrayLike(Protocol):
  """What `of` takes: numpy, jax, zarr, TensorStore and LazyArray offer it."""

  @property
  def shape(self) -> tuple[int, ...]: ...
  @property
  def dtype(self) -> Any: ...
  def __getitem__(self, index: Any, /) -> Any: ...


@dataclasses.dataclass(frozen=True)
class LazyArray:
  """An array of known shape whose slices are read when asked for, anew each time.

  Attributes:
    shape, dtype: of the whole.
    get: maps one slice a dimension (start and stop given, step 1) to that part as numpy.
    chunks: shape of the parts that are read at least, None where slices cost what they hold.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  get: Callable[[blocks.Index], np.ndarray]
  chunks: tuple[int, ...] | None = None

  def __getitem__(self, index: Any) -> np.ndarray:
    index = index if isinstance(index, tuple) else (index,)
    index += (slice(None),) * (len(self.shape) - len(index))
    full = []
    for i, size in zip(index, self.shape, strict=True):
      start, stop, step = (i if isinstance(i, slice) else _position(i, size)).indices(size)
      if step != 1:
        raise ValueError(f'slices of lazy arrays have step 1, got {i}')
      full.append(slice(start, max(start, stop)))
    part = self.get(tuple(full))
    return part[tuple(slice(None) if isinstance(i, slice) else 0 for i in index)]

  def read(self) -> np.ndarray:
    """The whole."""
    return self.get(tuple(slice(0, size) for size in self.shape))

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    del copy  # each read makes a new array, or a view that nobody else holds.
    array = self.read()
    return array if dtype is None else array.astype(dtype, copy=False)

  @property
  def nbytes(self) -> int:
    return math.prod(self.shape) * self.dtype.itemsize


Arrays = Mapping[str, LazyArray]


def _position(i: int, size: int) -> slice:
  start = range(size)[i]
  return slice(start, start + 1)


def of(array: ArrayLike) -> LazyArray:
  """A LazyArray over another kind of array."""
  if isinstance(array, LazyArray):
    return array
  shape = tuple(array.shape)
  whole = tuple(slice(0, size) for size in shape)

  def get(index: blocks.Index) -> np.ndarray:
    # Taken as it is, an array of jax or TensorStore is fetched without being sliced first.
    return np.asarray(array if index == whole else array[index])

  dtype = np.dtype(getattr(array.dtype, 'numpy_dtype', array.dtype))  # TensorStore has its own
  return LazyArray(shape, dtype, get, getattr(array, 'chunks', None))


def zeros(shape: Sequence[int]) -> LazyArray:
  """float32 zeros that take no memory until read."""

  def get(index: blocks.Index) -> np.ndarray:
    return np.zeros([i.stop - i.start for i in index], np.float32)

  return LazyArray(tuple(shape), np.dtype(np.float32), get)


def mapped(
  array: LazyArray, function: Callable[[np.ndarray], np.ndarray], dtype: Any = None
) -> LazyArray:
  """`function`, which works element by element, of whatever is read; its results are of `dtype`."""
  return dataclasses.replace(
    array,
    dtype=array.dtype if dtype is None else np.dtype(dtype),
    get=lambda index: function(array.get(index)),
  )


def cast(array: LazyArray, dtype: Any, name: str = 'a weight') -> LazyArray:
  """The same numbers in another dtype, rounded to nearest.

  Reading raises ValueError with `name` where a number is beyond what the dtype holds.
  """
  dtype = np.dtype(dtype)
  if array.dtype == dtype:
    return array
  return mapped(array, lambda part: rounded(part, dtype, name), dtype)


def rounded(block: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
  """A block in another dtype.

  Raises:
    ValueError: a finite number becomes infinite.
  """
  with np.errstate(over='ignore'):
    out = block.astype(dtype, copy=False)
  if dtype.itemsize >= block.dtype.itemsize and block.dtype.name != 'bfloat16':
    return out
  if blocks.all_finite(out) or not blocks.all_finite(block):
    return out
  peak = np.abs(block.astype(np.float64)).max()
  raise ValueError(f'{name} holds {peak:g}, more than {dtype.name} can: choose another --dtype')


def transpose(matrix: LazyArray) -> LazyArray:
  """The transpose of a matrix; what is read of it has memory of its own, in C order."""
  return LazyArray(
    matrix.shape[::-1],
    matrix.dtype,
    lambda index: _transposed(matrix.get(index[::-1])),
    matrix.chunks and matrix.chunks[::-1],
  )


def _transposed(matrix: np.ndarray) -> np.ndarray:
  """A few rows at a time: each cache line that is written is then written whole.

  That is several times as fast as numpy's copy of a transposed view.
  """
  bits = matrix.view(f'u{matrix.dtype.itemsize}')  # numpy copies bfloat16 more slowly
  out = np.empty(bits.shape[::-1], bits.dtype)
  for start in range(0, bits.shape[0], _STRIP_ROWS):
    out[:, start : start + _STRIP_ROWS] = bits[start : start + _STRIP_ROWS].T
  return out.view(matrix.dtype)


def take(array: LazyArray, axis: int, position: int) -> LazyArray:
  """The part at one position of an axis, which disappears."""

  def get(index: blocks.Index) -> np.ndarray:
    whole = (*index[:axis], slice(position, position + 1), *index[axis:])
    return np.squeeze(array.get(whole), axis)

  chunks = array.chunks and (*array.chunks[:axis], *array.chunks[axis + 1 :])
  return LazyArray(
    (*array.shape[:axis], *array.shape[axis + 1 :]), array.dtype, get, chunks or None
  )


def stack(arrays: Sequence[LazyArray], axis: int) -> LazyArray:
  """Arrays of one shape side by side on a new axis: the inverse of `take`.

  Raises:
    ValueError: shapes differ.
  """
  shapes = {array.shape for array in arrays}
  if len(shapes) != 1:
    raise ValueError(f'layers of one stack must agree in shape, got {sorted(shapes)}')
  shape = next(iter(shapes))
  dtype = np.result_type(*{array.dtype for array in arrays})

  def get(index: blocks.Index) -> np.ndarray:
    rest = (*index[:axis], *index[axis + 1 :])
    chosen = arrays[index[axis]]
    if len(chosen) == 1:
      return np.expand_dims(chosen[0].get(rest).astype(dtype, copy=False), axis)
    out = np.empty([i.stop - i.start for i in index], dtype)
    for position, array in enumerate(chosen):
      out[(slice(None),) * axis + (position,)] = array.get(rest)
    return out

  chunks = arrays[0].chunks
  return LazyArray(
    (*shape[:axis], len(arrays), *shape[axis:]),
    dtype,
    get,
    chunks and (*chunks[:axis], 1, *chunks[axis:]),
  )


def merge(array: LazyArray, first: int, second: int) -> LazyArray:
  """Joins an axis and a later one into one at the place of the first, which varies slower."""
  width = array.shape[second]

  def get(index: blocks.Index) -> np.ndarray:
    rows = index[first]
    whole = slice(rows.start // width, -(-rows.stop // width))
    index = (*index[:first], whole, *index[first + 1 :])
    part = array.get((*index[:second], slice(0, width), *index[second:]))
    part = np.moveaxis(part, second, first + 1)
    joined_rows = part.shape[first] * width
    part = part.reshape(*part.shape[:first], joined_rows, *part.shape[first + 2 :])
    offset = whole.start * width
    kept = slice(rows.start - offset, rows.stop - offset)
    return part[(slice(None),) * first + (kept,)]

  def joined(sizes: tuple[int, ...]) -> tuple[int, ...]:
    out = [*sizes[:second], *sizes[second + 1 :]]
    out[first] = sizes[first] * width
    return tuple(out)

  return LazyArray(
    joined(array.shape), array.dtype, get, None if array.chunks is None else joined(array.chunks)
  )


def split(array: LazyArray, first: int, second: int, width: int) -> LazyArray:
  """Cuts an axis into runs of `width`, whose positions become a later axis: undoes `merge`.

  Raises:
    ValueError: the axis is no multiple of `width`.
  """
  rows = array.shape[first]
  if rows % width:
    raise ValueError(f'axis {first} of {array.shape} cannot be cut into runs of {width}')

  def get(index: blocks.Index) -> np.ndarray:
    outer, inner = index[first], index[second]
    index = (*index[:second], *index[second + 1 :])
    run = slice(outer.start * width, outer.stop * width)
    part = array.get((*index[:first], run, *index[first + 1 :]))
    runs = outer.stop - outer.start
    part = part.reshape(*part.shape[:first], runs, width, *part.shape[first + 1 :])
    return np.moveaxis(part[(slice(None),) * (first + 1) + (inner,)], first + 1, second)

  shape = list(array.shape)
  shape[first] = rows // width
  shape.insert(second, width)
  return LazyArray(tuple(shape), array.dtype, get)


def computed(
  shape: Sequence[int], function: Callable[..., np.ndarray], *arrays: LazyArray
) -> LazyArray:
  """`function` of whole float32 arrays; for the small ones of an optimizer state."""
  return LazyArray(
    tuple(shape),
    np.dtype(np.float32),
    lambda i: function(*(np.asarray(array, np.float32) for array in arrays))[i],
    tuple(shape),
  )


def first_difference(name: str, one: LazyArray, other: LazyArray) -> str | None:
  """Compares two arrays bit for bit, block by block; None where they are equal."""
  if one.shape != other.shape or one.dtype != other.dtype:
    return f'{name}: {one.shape} {one.dtype} against {other.shape} {other.dtype}'
  chunks = other.chunks or one.chunks or blocks.chunk_shape(one.shape, one.dtype.itemsize)
  for index in blocks.cut(one.shape, one.dtype.itemsize, chunks):
    # As bytes: NaN equals itself, and -0 differs from 0.
    if one.get(index).tobytes() != other.get(index).tobytes():
      return f'{name}{[(i.start, i.stop) for i in index]}: contents differ'
  return None


def check_floats(arrays: Arrays, where: str) -> None:
  """Raises ValueError for an array that is no floating point number."""
  wrong = [f'{name} {a.dtype}' for name, a in arrays.items() if a.dtype.name not in FLOATS]
  if wrong:
    raise ValueError(
      f'{where}: {len(wrong)} of {len(arrays)} parameters are no weights in {", ".join(FLOATS)}: '
      f'{wrong[:5]}. {QUANTISED}'
    )

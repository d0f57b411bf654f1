"""Arrays that refuse to be read where they hold NaN or infinity."""

import dataclasses

import numpy as np

from aya_train.checkpoint.arrays import blocks, lazy_arrays, workers


def checked(arrays: lazy_arrays.Arrays, where: str) -> dict[str, lazy_arrays.LazyArray]:
  """The same arrays; each part is looked at when it is read.

  Reading raises ValueError with the array's name and the place of the first such number.
  """
  return {name: _checked(name, array, where) for name, array in arrays.items()}


def _checked(name: str, array: lazy_arrays.LazyArray, where: str) -> lazy_arrays.LazyArray:
  def get(index: blocks.Index) -> np.ndarray:
    part = array.get(index)
    check(part, name, where, [i.start for i in index])
    return part

  return dataclasses.replace(array, get=get)


def check(block: np.ndarray, name: str, where: str, start: list[int] | None = None) -> None:
  """Raises ValueError if a block of an array, which begins at `start`, is not finite."""
  if blocks.all_finite(block):
    return
  numbers = block.astype(np.float32)
  wrong = np.argwhere(~np.isfinite(numbers))
  first = wrong[0]
  value = numbers[tuple(first)]
  place = [int(i) + begin for i, begin in zip(first, start or [0] * len(first), strict=True)]
  raise ValueError(
    f'{where}: {name} holds {value} at {place}, the first of {len(wrong)} such numbers in the part '
    'that was read: weights must be finite. Take an earlier checkpoint, or another copy of this '
    'one; --allow_non_finite converts it as it is'
  )


def check_all(arrays: lazy_arrays.Arrays, where: str) -> None:
  """Reads every array, block by block. Raises ValueError where one is not finite."""

  def look(named: tuple[str, lazy_arrays.LazyArray]) -> None:
    name, array = named
    chunks = array.chunks or blocks.chunk_shape(array.shape, array.dtype.itemsize)
    for index in blocks.cut(array.shape, array.dtype.itemsize, chunks):
      check(array.get(index), name, where, [i.start for i in index])

  for _ in workers.ahead(look, arrays.items(), waiting=workers.MANY):
    pass

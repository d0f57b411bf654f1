"""How arrays are cut: chunks to store them in, blocks of whole chunks to move them in."""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

CHUNK_BYTES = 1 << 26
BLOCK_BYTES = 1 << 26

Index = tuple[slice, ...]  # one slice a dimension, start and stop given, step 1


def chunk_shape(
  shape: Sequence[int], itemsize: int, whole: Sequence[int] = (), limit: int = CHUNK_BYTES
) -> tuple[int, ...]:
  """Divides the longest sides until a chunk is within `limit` bytes.

  Args:
    shape: of the array; each side of the chunk divides it.
    itemsize: bytes of an element.
    whole: axes that are cut into single positions first.
  """
  chunk = [1 if axis in whole else max(1, size) for axis, size in enumerate(shape)]
  while math.prod(chunk) * itemsize > limit and max(chunk) > 1:
    axis = int(np.argmax(chunk))
    chunk[axis] = next(n for n in range(chunk[axis] // 2, 0, -1) if chunk[axis] % n == 0)
  return tuple(chunk)


def cut(
  shape: Sequence[int], itemsize: int, chunks: Sequence[int], limit: int = BLOCK_BYTES
) -> Iterator[Index]:
  """Cuts an array into blocks of whole chunks, the last axes together as far as `limit` allows."""
  block = list(chunks)
  for axis in reversed(range(len(shape))):
    room = limit // max(1, math.prod(block) * itemsize)
    count = min(max(1, room), -(-shape[axis] // chunks[axis]))
    block[axis] = min(shape[axis], count * chunks[axis])
    if block[axis] < shape[axis]:
      break
  starts = [range(0, size, step) for size, step in zip(shape, block, strict=True)]
  for position in itertools.product(*starts):
    yield tuple(
      slice(start, min(start + step, size))
      for start, step, size in zip(position, block, shape, strict=True)
    )


# Where all bits of the exponent are set, a number is infinite or none. numpy's isfinite is slow on
# types that it does not know.
_EXPONENT = {'bfloat16': 0x7F80, 'float16': 0x7C00}


def all_finite(block: np.ndarray) -> bool:
  """Whether a block of numbers holds no NaN and no infinity."""
  if block.dtype.kind in 'iub':
    return True
  mask = _EXPONENT.get(block.dtype.name)
  if mask is None:
    return bool(np.isfinite(block).all())
  bits = np.ascontiguousarray(block).view(np.uint16)
  return int(np.bitwise_and(bits, np.uint16(mask)).max(initial=0)) != mask

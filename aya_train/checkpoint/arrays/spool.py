"""Stacked arrays copied into plain files, so that their layers can be read one by one."""

import math
import threading

import numpy as np
from etils import epath

from aya_train.checkpoint.arrays import blocks, lazy_arrays


def spooled(array: lazy_arrays.LazyArray, axis: int, path: epath.Path) -> lazy_arrays.LazyArray:
  """The same array, copied on first use into a plain file with `axis` outermost.

  Chunks of a stacked parameter usually span all its layers: reading layer after layer would
  decompress each chunk once a layer. The copy is made block by block.
  """
  order = (array.shape[axis], *array.shape[:axis], *array.shape[axis + 1 :])
  part = math.prod(order[1:])
  filling = threading.Lock()

  def fill() -> None:
    rows = axis + 1 if axis == 0 else 0  # the outermost axis beside the layers
    step = (array.chunks or array.shape)[rows]
    row_bytes = math.prod(order) // array.shape[rows] * array.dtype.itemsize
    step *= max(1, blocks.BLOCK_BYTES // max(1, step * row_bytes))
    with path.open('wb') as f:
      for start in range(0, array.shape[rows], step):
        stop = min(start + step, array.shape[rows])
        index = [slice(0, n) for n in array.shape]
        index[rows] = slice(start, stop)
        block = np.moveaxis(array.get(tuple(index)), axis, 0)
        for layer, content in enumerate(block):
          f.seek((layer * part + start * math.prod(order[2:])) * array.dtype.itemsize)
          f.write(np.ascontiguousarray(content).tobytes())

  def get(index: blocks.Index) -> np.ndarray:
    with filling:
      if not path.exists():
        fill()
    rest = (*index[:axis], *index[axis + 1 :])
    layers = []
    for layer in range(index[axis].start, index[axis].stop):
      with path.open('rb') as f:
        f.seek(layer * part * array.dtype.itemsize)
        content = np.frombuffer(f.read(part * array.dtype.itemsize), array.dtype)
      layers.append(content.reshape(order[1:])[rest])
    return np.stack(layers, axis)

  return lazy_arrays.LazyArray(array.shape, array.dtype, get)

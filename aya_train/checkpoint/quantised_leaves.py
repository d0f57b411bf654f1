"""Kernels quantised while they are read: a layer at a time on the host, then put on devices."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from aya_train.checkpoint import restoration
from aya_train.checkpoint.arrays import lazy_arrays


def place(array: lazy_arrays.LazyArray, leaf: Any, layer_axis: int) -> Any:
  """An array laid out as a leaf of abstract parameters, which may be quantised.

  Devices never hold more of the numbers as they were than what is not quantised.

  Args:
    array: numbers as they were.
    leaf: a jax.ShapeDtypeStruct; or qwix's WithAux of one for the quantised values and one for the
      scales, with how to make them of a matrix.
    layer_axis: axis of stacked layers, if the array has three axes.

  Raises:
    ValueError: the array has another shape than `leaf`.
  """
  if isinstance(leaf, jax.ShapeDtypeStruct):
    return restoration.place(array, leaf)
  qvalue, scale = leaf.array.qvalue, leaf.array.scale
  if array.shape != tuple(qvalue.shape):
    raise ValueError(f'an array of shape {array.shape} was to fill one of {qvalue.shape}')
  kernel = _Quantised(array, leaf, layer_axis)
  placed = [
    jax.make_array_from_callback(tuple(x.shape), _sharding(x), _once(read, x.shape))
    for x, read in ((qvalue, kernel.values), (scale, kernel.scales))
  ]
  return leaf.replace(array=leaf.array.replace(qvalue=placed[0], scale=placed[1]))


def _sharding(x: Any) -> Any:
  if x.sharding is not None:
    return x.sharding
  return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def _once(
  read: Callable[[tuple[slice, ...]], np.ndarray], shape: tuple[int, ...]
) -> Callable[[Any], np.ndarray]:
  """Reads each part once, however many devices hold it."""
  kept: dict[Any, np.ndarray] = {}

  def shard(index: Any) -> np.ndarray:
    key = tuple(i.indices(n)[:2] for i, n in zip(index or (), shape, strict=True))
    if key not in kept:
      kept[key] = read(tuple(slice(*bounds) for bounds in key))
    return kept[key]

  return shard


class _Quantised:
  """Parts of one quantised kernel; scales are kept from the reading of the values."""

  def __init__(self, array: lazy_arrays.LazyArray, leaf: Any, layer_axis: int):
    self._array, self._how = array, leaf.how
    self._dtype = leaf.array.qvalue.dtype
    self._layer_axis = layer_axis if len(array.shape) == 3 else None
    self._rows_axis = 1 if self._layer_axis == 0 else 0
    rows = array.shape[self._rows_axis]
    self._tile = leaf.how.tiled_axes.get(0, rows)
    self._scales = np.zeros(leaf.array.scale.shape, leaf.array.scale.dtype)
    self._known = np.zeros(leaf.array.scale.shape, bool)

  def values(self, index: tuple[slice, ...]) -> np.ndarray:
    """Quantised values, whose tiles may reach beyond what is asked for."""
    rows, tile = index[self._rows_axis], self._tile
    tiles = slice(rows.start // tile, -(-rows.stop // tile))
    start = tiles.start * tile
    whole = _replaced(index, self._rows_axis, slice(start, tiles.stop * tile))
    out = np.empty([i.stop - i.start for i in whole], self._dtype)
    for part, place in self._matrices(whole):
      block = np.asarray(self._array[part], np.float32)
      shape = block.shape
      quantised = _quantise(block.reshape(self._as_matrix(shape)), self._how)
      out[place] = np.asarray(quantised.qvalue).reshape(shape)
      kept = _replaced(part, self._rows_axis, tiles)
      shape = self._scales[kept].shape
      self._scales[kept] = np.asarray(quantised.scale).astype(self._scales.dtype).reshape(shape)
      self._known[kept] = True
    within = slice(rows.start - start, rows.stop - start)
    return out[_replaced((slice(None),) * len(index), self._rows_axis, within)]

  def scales(self, index: tuple[slice, ...]) -> np.ndarray:
    """Scales, of whatever lies in their tiles."""
    if not self._known[index].all():
      tiles = index[self._rows_axis]
      rows = slice(tiles.start * self._tile, tiles.stop * self._tile)
      self.values(_replaced(index, self._rows_axis, rows))
    return self._scales[index]

  def _matrices(
    self, whole: tuple[slice, ...]
  ) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Each layer's part of the array, and where it is in what is asked for."""
    everything = (slice(None),) * len(whole)
    if self._layer_axis is None:
      yield whole, everything
      return
    layers = whole[self._layer_axis]
    for i in range(layers.start, layers.stop):
      here = slice(i - layers.start, i - layers.start + 1)
      yield (
        _replaced(whole, self._layer_axis, slice(i, i + 1)),
        _replaced(everything, self._layer_axis, here),
      )

  def _as_matrix(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for axis, n in enumerate(shape) if axis != self._layer_axis)


def _replaced(index: tuple[slice, ...], axis: int, value: slice) -> tuple[slice, ...]:
  return (*index[:axis], value, *index[axis + 1 :])


def _quantise(matrix: np.ndarray, how: Any) -> Any:
  with jax.default_device(jax.local_devices(backend='cpu')[0]):
    tiled = tuple(sorted(how.tiled_axes.items()))
    return _quantiser(how.qtype, tuple(how.channelwise_axes), tiled)(matrix)


@functools.cache
def _quantiser(qtype: Any, channelwise: tuple[int, ...], tiled: tuple[tuple[int, int], ...]) -> Any:
  import qwix

  return jax.jit(
    lambda x: qwix.quantize(x, qtype, channelwise_axes=channelwise, tiled_axes=dict(tiled))
  )

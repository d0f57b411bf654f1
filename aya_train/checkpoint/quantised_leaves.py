"""Kernels quantised while they are read: a layer at a time on the host, then put on devices."""

import functools
from collections.abc import Callable
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
    rows = index[self._rows_axis]
    start, stop = rows.start // self._tile * self._tile, -(-rows.stop // self._tile) * self._tile
    whole = _replaced(index, self._rows_axis, slice(start, stop))
    out = np.empty([i.stop - i.start for i in whole], self._dtype)
    tiles = slice(start // self._tile, stop // self._tile)
    for layer in self._layers(index):
      part = whole if layer is None else _replaced(whole, self._layer_axis, layer)
      block = np.asarray(self._array[part], np.float32)
      matrix = block if layer is None else block.squeeze(self._layer_axis)
      quantised = _quantise(matrix, self._how)
      place = slice(None) if layer is None else layer.start - whole[self._layer_axis].start
      here = (slice(None),) * len(index) if layer is None else _at(self._layer_axis, place)
      out[here] = np.asarray(quantised.qvalue)
      kept = _replaced(part, self._rows_axis, tiles)
      scales = np.asarray(quantised.scale)
      if layer is not None:
        scales = np.expand_dims(scales, self._layer_axis)
      self._scales[kept] = scales.astype(self._scales.dtype)
      self._known[kept] = True
    return out[_replaced((slice(None),) * len(index), self._rows_axis, _within(rows, start))]

  def scales(self, index: tuple[slice, ...]) -> np.ndarray:
    if not self._known[index].all():
      tiles = index[self._rows_axis]
      rows = slice(tiles.start * self._tile, tiles.stop * self._tile)
      self.values(_replaced(index, self._rows_axis, rows))
    return self._scales[index]

  def _layers(self, index: tuple[slice, ...]) -> list[slice | None]:
    if self._layer_axis is None:
      return [None]
    layers = index[self._layer_axis]
    return [slice(i, i + 1) for i in range(layers.start, layers.stop)]


def _replaced(index: tuple[Any, ...], axis: int | None, value: Any) -> tuple[Any, ...]:
  assert axis is not None
  return (*index[:axis], value, *index[axis + 1 :])


def _at(axis: int | None, position: Any) -> tuple[Any, ...]:
  return _replaced((slice(None),) * 3, axis, position)


def _within(rows: slice, start: int) -> slice:
  return slice(rows.start - start, rows.stop - start)


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

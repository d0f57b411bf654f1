"""Moves parameters between the layouts of `names`, one array at a time.

Nothing here holds a whole network: each function returns a flat dict of `LazyArray`, whose data are
read, sliced, stacked or transposed when one is asked for. 13 billion parameters so pass through a
machine that has room for the largest of them.
"""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

from aya_train.checkpoint import names

T = TypeVar('T')
R = TypeVar('R')
MANY = 100  # results that take no memory
_STRIP_ROWS = 16
WORKERS = 2  # blocks that are read, or arrays that are written, at a time; memory grows with it


def ahead(function: Callable[[T], R], items: Iterable[T], *, waiting: int = WORKERS) -> Iterator[R]:
  """`map` in WORKERS threads, results in order, at most `waiting` of them begun and not taken.

  (De)compression releases Python's lock, so that other processors take part. An error of `function`
  is raised where its result would come; what has not begun by then never does.
  """
  pending: collections.deque[concurrent.futures.Future[R]] = collections.deque()
  with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
    try:
      for item in items:
        if len(pending) == waiting:
          yield pending.popleft().result()
        pending.append(pool.submit(function, item))
      while pending:
        yield pending.popleft().result()
    finally:
      for future in pending:
        future.cancel()


class ArrayLike(Protocol):
  """What a leaf must offer: numpy, jax, zarr, TensorStore and LazyArray do."""

  @property
  def shape(self) -> tuple[int, ...]: ...
  @property
  def dtype(self) -> Any: ...
  def __getitem__(self, index: Any, /) -> Any: ...


@dataclasses.dataclass(frozen=True)
class LazyArray:
  """An array of known shape whose data come from `read()`, anew at each call.

  Attributes:
    shape, dtype: of the whole.
    read: returns the whole.
    part: returns `read()[index]` without reading the rest, where that is possible.
    chunk_rows: rows that are read together at least, where the source has chunks.
  """

  shape: tuple[int, ...]
  dtype: Any
  read: Callable[[], np.ndarray]
  part: Callable[[Any], np.ndarray] | None = None
  chunk_rows: int | None = None

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    del copy  # read() makes a new array each time, or a view that nobody else holds.
    array = self.read()
    return array if dtype is None else array.astype(dtype, copy=False)

  def __getitem__(self, index: Any) -> np.ndarray:
    return self.read()[index] if self.part is None else self.part(index)


def table_of(config: Any) -> names.Table:
  """The names.Table of a T5Config."""
  return names.Table(
    num_encoder_layers=config.num_encoder_layers,
    num_decoder_layers=config.num_decoder_layers,
    mlp_inputs=len(config.mlp_activations),
    tied=config.logits_via_embedding,
    relpos_per_layer=config.relpos_bias_per_layer,
  )


def to_unrolled(
  scanned: Mapping[str, ArrayLike], table: names.Table, scan_axis: int = 1
) -> dict[str, LazyArray]:
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
        f'{rule.scanned}{shape}: axis {scan_axis} must hold {depth} layers; is param_scan_axis right?'
      )

  def layer_of(array: ArrayLike, layer: int | None) -> LazyArray:
    shape = tuple(array.shape)
    if layer is None:
      return _lazy(array)
    index = (slice(None),) * scan_axis + (layer,)
    shape = shape[:scan_axis] + shape[scan_axis + 1 :]
    return LazyArray(shape, array.dtype, lambda: np.asarray(array[index]))

  return {
    rule.name('unrolled', layer): layer_of(scanned[rule.scanned], layer)
    for rule, layer in table.parameters()
  }


def to_scanned(
  unrolled: Mapping[str, ArrayLike], table: names.Table, scan_axis: int = 1
) -> dict[str, LazyArray]:
  """Stacks layers along `scan_axis`: the inverse of `to_unrolled`, same arguments and errors."""
  table.check(unrolled, 'unrolled')

  def stack(rule: names.Rule) -> LazyArray:
    depth = table.depth(rule)
    if depth is None:
      return _lazy(unrolled[rule.unrolled])
    arrays = {rule.name('unrolled', i): unrolled[rule.name('unrolled', i)] for i in range(depth)}
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    if len(set(shapes.values())) != 1:
      raise ValueError(f'layers of one stack must agree in shape, got {shapes}')
    shape, dtype = next(iter(shapes.values())), next(iter(arrays.values())).dtype

    def read() -> np.ndarray:
      stacked = np.empty((*shape[:scan_axis], depth, *shape[scan_axis:]), dtype)
      for layer, array in enumerate(arrays.values()):
        stacked[(slice(None),) * scan_axis + (layer,)] = np.asarray(array)
      return stacked

    return LazyArray((*shape[:scan_axis], depth, *shape[scan_axis:]), dtype, read)

  return {rule.scanned: stack(rule) for rule in table.rules()}


def _lazy(array: ArrayLike) -> LazyArray:
  return LazyArray(
    tuple(array.shape),
    array.dtype,
    lambda: np.asarray(array),
    lambda index: np.asarray(array[index]),
    _chunk_side(array, 0),
  )


def _chunk_side(array: ArrayLike, axis: int) -> int | None:
  """Length of the parts in which an array on disk is read along an axis."""
  chunks = getattr(array, 'chunks', None)
  return None if chunks is None or len(chunks) <= axis else int(chunks[axis])


def _maybe_transposed(array: ArrayLike, transposed: bool) -> LazyArray:
  if not transposed:
    return _lazy(array)

  def part(index: Any) -> np.ndarray:
    rows, columns = (*index, slice(None))[:2] if isinstance(index, tuple) else (index, slice(None))
    return transpose(np.asarray(array[columns, rows]))

  shape = tuple(array.shape)
  return LazyArray(
    shape[::-1],
    array.dtype,
    lambda: transpose(np.asarray(array)),
    part,
    _chunk_side(array, 1),
  )


def transpose(matrix: np.ndarray) -> np.ndarray:
  """The transpose of a matrix, in memory of its own and in C order.

  A few rows at a time: each cache line that is written is then written whole, several times as fast
  as numpy's copy of a transposed view.
  """
  bits = matrix.view(f'u{matrix.dtype.itemsize}')  # numpy copies bfloat16 more slowly
  out = np.empty(bits.shape[::-1], bits.dtype)
  for start in range(0, bits.shape[0], _STRIP_ROWS):
    out[:, start : start + _STRIP_ROWS] = bits[start : start + _STRIP_ROWS].T
  return out.view(matrix.dtype)


def to_hf(unrolled: Mapping[str, ArrayLike], table: names.Table) -> dict[str, LazyArray]:
  """The state dict of transformers' classes, without the aliases of the input table."""
  table.check(unrolled, 'unrolled')
  return {
    rule.name('hf', layer): _maybe_transposed(
      unrolled[rule.name('unrolled', layer)], rule.transposed
    )
    for rule, layer in table.parameters()
  }


def from_hf(
  state_dict: Mapping[str, ArrayLike], table: names.Table, where: str = 'state dict'
) -> dict[str, LazyArray]:
  """The inverse of `to_hf`; takes the aliases that files of older transformers hold."""
  held = names.hf_names(state_dict, tied=table.tied)
  table.check(held, 'hf', where)
  return {
    rule.name('unrolled', layer): _maybe_transposed(
      state_dict[held[rule.name('hf', layer)]], rule.transposed
    )
    for rule, layer in table.parameters()
  }


def check_shapes(
  arrays: Mapping[str, ArrayLike], expected: Mapping[str, tuple[int, ...]], where: str
) -> None:
  """Raises ValueError naming up to five arrays whose shape differs from the expected one."""
  wrong: Iterable[str] = [
    f'{name} expected {expected[name]}, got {tuple(array.shape)}'
    for name, array in arrays.items()
    if tuple(array.shape) != tuple(expected[name])
  ]
  if wrong := sorted(wrong):
    raise ValueError(f'{where}: {len(wrong)} arrays do not fit the T5Config: {wrong[:5]}')

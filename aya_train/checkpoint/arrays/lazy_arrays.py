"""Arrays that stay on disk until a slice of them is asked for, and zarr arrays read and written so.

T5X and Orbax both keep one zarr array for each parameter; TensorStore reads the chunks that a slice
touches and no others. Everything here is lazy, so that neither a host of a pod nor a machine that
converts a checkpoint ever holds more than a block of it.
"""

import dataclasses
import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorstore as ts
from etils import epath

from aya_train.checkpoint import layouts, names
from aya_train.checkpoint.arrays import zarr_gzip

CHUNK_BYTES = 1 << 26
_BLOCK_BYTES = 1 << 26
FLOATS = ('float32', 'bfloat16', 'float16', 'float64')
_MISSING_SHOWN = 3

Index = tuple[slice, ...]


@dataclasses.dataclass(frozen=True)
class SlicedArray:
  """An array of known shape whose slices are read when asked for, anew each time.

  Attributes:
    shape, dtype: of the whole.
    get: maps one slice a dimension (start and stop given, step 1) to that part as numpy.
    chunks: shape of the parts that are read at least, None where slices cost what they hold.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  get: Callable[[Index], np.ndarray]
  chunks: tuple[int, ...] | None = None

  def __getitem__(self, index: Any) -> np.ndarray:
    index = index if isinstance(index, tuple) else (index,)
    index += (slice(None),) * (len(self.shape) - len(index))
    full = []
    for i, size in zip(index, self.shape, strict=True):
      start, stop, step = (i if isinstance(i, slice) else slice(i, i + 1)).indices(size)
      if step != 1:
        raise ValueError(f'slices of arrays on disk have step 1, got {i}')
      full.append(slice(start, stop))
    part = self.get(tuple(full))
    return part[tuple(slice(None) if isinstance(i, slice) else 0 for i in index)]

  def read(self) -> np.ndarray:
    return self[()]

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    del copy  # each read makes a new array, or a view that nobody else holds.
    array = self.read()
    return array if dtype is None else array.astype(dtype, copy=False)

  @property
  def nbytes(self) -> int:
    return math.prod(self.shape) * self.dtype.itemsize


def of(array: Any) -> SlicedArray:
  """A SlicedArray over numpy, jax or `layouts.LazyArray`; the last reads itself whole each time."""
  if isinstance(array, SlicedArray):
    return array
  shape = tuple(array.shape)
  chunks = shape if isinstance(array, layouts.LazyArray) else None
  return SlicedArray(shape, np.dtype(array.dtype), lambda i: np.asarray(array[i]), chunks)


def zeros(shape: Sequence[int]) -> SlicedArray:
  """float32 zeros that take no memory until read."""

  def get(index: Index) -> np.ndarray:
    return np.zeros([i.stop - i.start for i in index], np.float32)

  return SlicedArray(tuple(shape), np.dtype(np.float32), get)


def cast(array: SlicedArray, dtype: Any) -> SlicedArray:
  """The same numbers in another dtype, rounded to nearest."""
  dtype = np.dtype(dtype)
  if array.dtype == dtype:
    return array
  return SlicedArray(
    array.shape, dtype, lambda i: array.get(i).astype(dtype, copy=False), array.chunks
  )


def take(array: SlicedArray, axis: int, position: int) -> SlicedArray:
  """The part at one position of an axis, which disappears."""

  def get(index: Index) -> np.ndarray:
    whole = (*index[:axis], slice(position, position + 1), *index[axis:])
    return np.squeeze(array.get(whole), axis)

  chunks = array.chunks and (*array.chunks[:axis], *array.chunks[axis + 1 :])
  return SlicedArray(
    (*array.shape[:axis], *array.shape[axis + 1 :]), array.dtype, get, chunks or None
  )


def stack(arrays: Sequence[SlicedArray], axis: int) -> SlicedArray:
  """Arrays of one shape side by side on a new axis: the inverse of `take`.

  Raises:
    ValueError: shapes differ.
  """
  shapes = {array.shape for array in arrays}
  if len(shapes) != 1:
    raise ValueError(f'layers of one stack must agree in shape, got {sorted(shapes)}')
  shape = next(iter(shapes))
  dtype = np.result_type(*{array.dtype for array in arrays})

  def get(index: Index) -> np.ndarray:
    rest = (*index[:axis], *index[axis + 1 :])
    chosen = arrays[index[axis]]
    if len(chosen) == 1:
      return np.expand_dims(chosen[0].get(rest).astype(dtype, copy=False), axis)
    out = np.empty([i.stop - i.start for i in index], dtype)
    for position, array in enumerate(chosen):
      out[(slice(None),) * axis + (position,)] = array.get(rest)
    return out

  chunks = arrays[0].chunks
  return SlicedArray(
    (*shape[:axis], len(arrays), *shape[axis:]),
    dtype,
    get,
    chunks and (*chunks[:axis], 1, *chunks[axis:]),
  )


def merge(array: SlicedArray, first: int, second: int) -> SlicedArray:
  """Joins two axes into one at the place of the first, whose positions vary slower."""
  width = array.shape[second]

  def get(index: Index) -> np.ndarray:
    rows = index[first]
    whole = slice(rows.start // width, -(-rows.stop // width))
    index = (*index[:first], whole, *index[first + 1 :])
    part = array.get((*index[:second], slice(0, width), *index[second:]))
    part = np.moveaxis(part, second, first + 1)
    part = part.reshape(*part.shape[:first], -1, *part.shape[first + 2 :])
    offset = whole.start * width
    kept = slice(rows.start - offset, rows.stop - offset)
    return part[(slice(None),) * first + (kept,)]

  def joined(sizes: tuple[int, ...]) -> tuple[int, ...]:
    out = [*sizes[:second], *sizes[second + 1 :]]
    out[first] = sizes[first] * width
    return tuple(out)

  return SlicedArray(
    joined(array.shape), array.dtype, get, None if array.chunks is None else joined(array.chunks)
  )


def split(array: SlicedArray, first: int, second: int, width: int) -> SlicedArray:
  """Cuts an axis into runs of `width`, whose positions become the axis `second`: undoes `merge`.

  Raises:
    ValueError: the axis is no multiple of `width`.
  """
  rows = array.shape[first]
  if rows % width:
    raise ValueError(f'axis {first} of {array.shape} cannot be cut into runs of {width}')

  def get(index: Index) -> np.ndarray:
    outer, inner = index[first], index[second]
    index = (*index[:second], *index[second + 1 :])
    run = slice(outer.start * width, outer.stop * width)
    part = array.get((*index[:first], run, *index[first + 1 :]))
    part = part.reshape(*part.shape[:first], -1, width, *part.shape[first + 1 :])
    return np.moveaxis(part[(slice(None),) * (first + 1) + (inner,)], first + 1, second)

  shape = list(array.shape)
  shape[first] = rows // width
  shape.insert(second, width)
  return SlicedArray(tuple(shape), array.dtype, get)


def computed(
  shape: Sequence[int], function: Callable[..., np.ndarray], *arrays: SlicedArray
) -> SlicedArray:
  """`function` of whole float32 arrays; for the small ones of an optimizer state."""
  return SlicedArray(
    tuple(shape),
    np.dtype(np.float32),
    lambda i: function(*(np.asarray(array, np.float32) for array in arrays))[i],
    tuple(shape),
  )


def to_unrolled(
  scanned: Mapping[str, Any], table: names.Table, scan_axis: int
) -> dict[str, SlicedArray]:
  """`layouts.to_unrolled`, with leaves that can be sliced."""
  layouts.to_unrolled(scanned, table, scan_axis)  # refuses names and depths that do not fit
  return {
    rule.name('unrolled', layer): of(scanned[rule.scanned])
    if layer is None
    else take(of(scanned[rule.scanned]), scan_axis, layer)
    for rule, layer in table.parameters()
  }


def to_scanned(
  unrolled: Mapping[str, Any], table: names.Table, scan_axis: int
) -> dict[str, SlicedArray]:
  """`layouts.to_scanned`, with leaves that can be sliced."""
  table.check(unrolled, 'unrolled')

  def leaf(rule: names.Rule) -> SlicedArray:
    depth = table.depth(rule)
    if depth is None:
      return of(unrolled[rule.unrolled])
    return stack([of(unrolled[rule.name('unrolled', i)]) for i in range(depth)], scan_axis)

  return {rule.scanned: leaf(rule) for rule in table.rules()}


# zarr ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ZarrLeaf:
  """Where an array lies and what the index says of it.

  Attributes:
    name: for messages.
    kvstore: TensorStore spec of the array's own folder, trailing slash in `path` included.
    driver: 'zarr' or 'zarr3'.
    shape, dtype: as the index says, None where it does not.
  """

  name: str
  kvstore: dict[str, Any]
  driver: str = 'zarr'
  shape: tuple[int, ...] | None = None
  dtype: str | None = None


def open_zarr(leaves: Sequence[ZarrLeaf], where: str) -> dict[str, SlicedArray]:
  """Opens arrays, all at once since each costs a few round trips to a bucket; reads no data.

  Raises:
    ValueError: an array is missing, lacks chunks, or is not what the index says.
  """
  # A missing chunk would otherwise be read as zeros.
  opening = [
    ts.open(
      {'driver': leaf.driver, 'kvstore': leaf.kvstore, 'fill_missing_data_reads': False},
      open=True,
      read=True,
    )
    for leaf in leaves
  ]
  stores = [
    _wait(future, f'{where}: array {leaf.name} is missing or damaged')
    for leaf, future in zip(leaves, opening, strict=True)
  ]
  listing = [store.kvstore.list() for store in stores]
  opened = {}
  for leaf, store, keys in zip(leaves, stores, listing, strict=True):
    _check_leaf(leaf, store, where)
    present = {key.decode(errors='replace') for key in _wait(keys, f'{where}: {leaf.name}')}
    _check_chunks(leaf, store, present, where)
    opened[leaf.name] = _of_store(store, f'{where}: array {leaf.name}')
  return opened


def _wait(future: Any, what: str) -> Any:
  """The result of a TensorStore operation; its errors are of many types and name internals."""
  try:
    return future.result()
  except Exception as error:
    cause = str(error).split(' [')[0]
    raise ValueError(f'{what}: {cause}. Copy the checkpoint again from its source') from error


def _check_leaf(leaf: ZarrLeaf, store: ts.TensorStore, where: str) -> None:
  for what, said, found in (
    ('shape', leaf.shape, tuple(store.shape)),
    ('dtype', leaf.dtype, store.dtype.name),
  ):
    if said is not None and said != found:
      raise ValueError(
        f'{where}: array {leaf.name} has {what} {found}, but the index says {said}: index and '
        'arrays are not of one checkpoint'
      )
  if store.dtype.name == 'uint16':
    raise ValueError(
      f'{where}: array {leaf.name} is uint16, how T5X before June 2021 stored bfloat16: restore and '
      'save it with a T5X of that time, or ask its author for float32'
    )


def _check_chunks(leaf: ZarrLeaf, store: ts.TensorStore, present: set[str], where: str) -> None:
  metadata = store.spec().to_json().get('metadata', {})
  if leaf.driver == 'zarr3':
    encoding = metadata.get('chunk_key_encoding', {'name': 'default'})
    default = encoding.get('name', 'default') == 'default'
    separator = encoding.get('configuration', {}).get('separator', '/' if default else '.')
    prefix = f'c{separator}' if default else ''
  else:
    separator, prefix = metadata.get('dimension_separator', '.'), ''
  sizes = _ints(store.chunk_layout.write_chunk.shape)
  grid = [range(-(-n // size)) for n, size in zip(store.shape, sizes, strict=True)]
  keys = [prefix + separator.join(map(str, position)) for position in itertools.product(*grid)]
  if not store.shape:
    keys = [prefix.rstrip(separator) or '0']
  if missing := [key for key in keys if key not in present]:
    raise ValueError(
      f'{where}: array {leaf.name} lacks {len(missing)} of its chunks: {missing[:_MISSING_SHOWN]}. '
      'Copy the checkpoint again from its source'
    )


def _ints(shape: Sequence[int | None] | None) -> tuple[int, ...]:
  """A chunk shape as TensorStore gives it; its sizes are known once the array is open."""
  return tuple(int(size or 1) for size in shape or ())


def _of_store(store: ts.TensorStore, what: str) -> SlicedArray:
  inflated = zarr_gzip.reader(store)

  def get(index: Index) -> np.ndarray:
    if inflated is None:
      return np.asarray(_wait(store[index].read() if index else store.read(), what))
    try:
      return inflated(index)
    except ValueError as error:
      raise ValueError(f'{what}: {error}. Copy the checkpoint again from its source') from error

  chunks = _ints(store.chunk_layout.read_chunk.shape)
  return SlicedArray(tuple(store.shape), np.dtype(store.dtype.numpy_dtype), get, chunks)


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


def blocks(
  shape: Sequence[int], itemsize: int, chunks: Sequence[int], limit: int = _BLOCK_BYTES
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


def write_zarr(
  kvstore: dict[str, Any],
  array: SlicedArray,
  *,
  compressor: Mapping[str, Any] | None,
  chunks: Sequence[int],
) -> dict[str, Any]:
  """Writes one array block by block, in place of whatever is there; returns its zarr metadata.

  Raises:
    OSError: it cannot be written. Errors of reading `array` pass.
  """
  metadata = {
    'shape': list(array.shape),
    'chunks': list(chunks),
    'compressor': None if compressor is None else dict(compressor),
  }
  spec = {
    'driver': 'zarr',
    'dtype': array.dtype.name,
    'kvstore': kvstore,
    'metadata': metadata,
    # Readers tell a chunk of zeros from a lost one by its file.
    'store_data_equal_to_fill_value': True,
  }
  store = _written(ts.open(spec, create=True, delete_existing=True), kvstore)
  writing = None  # one block is compressed while the next is read
  for index in blocks(array.shape, array.dtype.itemsize, chunks):
    target = store[index] if index else store
    content = np.asarray(array.get(index), order='C')
    if writing is not None:
      _written(writing, kvstore)
    writing = target.write(content, can_reference_source_data_indefinitely=True)
  if writing is not None:
    _written(writing, kvstore)
  return metadata


def _written(future: Any, kvstore: Mapping[str, Any]) -> Any:
  """The result of a TensorStore operation that writes."""
  try:
    return future.result()
  except Exception as error:
    cause = str(error).split(' [')[0]
    raise OSError(f'{kvstore.get("path")} cannot be written: {cause}') from error


def first_difference(name: str, one: SlicedArray, other: SlicedArray) -> str | None:
  """Compares two arrays bit for bit, block by block; None where they are equal."""
  if one.shape != other.shape or one.dtype != other.dtype:
    return f'{name}: {one.shape} {one.dtype} against {other.shape} {other.dtype}'
  chunks = other.chunks or one.chunks or chunk_shape(one.shape, one.dtype.itemsize)
  for index in blocks(one.shape, one.dtype.itemsize, chunks):
    # As bytes: NaN equals itself, and -0 differs from 0.
    if one.get(index).tobytes() != other.get(index).tobytes():
      return f'{name}{[(i.start, i.stop) for i in index]}: contents differ'
  return None


def check_floats(arrays: Mapping[str, Any] | Iterable[tuple[str, Any]], where: str) -> None:
  """Raises ValueError for an array that is no floating point number."""
  items = arrays.items() if isinstance(arrays, Mapping) else arrays
  wrong = [f'{name} {array.dtype}' for name, array in items if str(array.dtype) not in FLOATS]
  if wrong:
    raise ValueError(f'{where}: {len(wrong)} parameters are not of {FLOATS}: {wrong[:5]}')


def spooled(array: SlicedArray, axis: int, path: epath.Path) -> SlicedArray:
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
    step *= max(1, _BLOCK_BYTES // max(1, step * row_bytes))
    with path.open('wb') as f:
      for start in range(0, array.shape[rows], step):
        stop = min(start + step, array.shape[rows])
        index = [slice(0, n) for n in array.shape]
        index[rows] = slice(start, stop)
        block = np.moveaxis(array.get(tuple(index)), axis, 0)
        for layer, content in enumerate(block):
          f.seek((layer * part + start * math.prod(order[2:])) * array.dtype.itemsize)
          f.write(np.ascontiguousarray(content).tobytes())

  def get(index: Index) -> np.ndarray:
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

  return SlicedArray(array.shape, array.dtype, get)

"""Safetensors files, written tensor by tensor and read slice by slice, on disk or in a bucket.

safetensors' own writer wants every tensor in memory, and its reader local files. Layout (README of
huggingface/safetensors): length of the header as 8 little-endian bytes, header as JSON padded with
spaces to a multiple of 8, tensors without gaps in row-major order.
"""

import collections
import dataclasses
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from aya_train import destinations
from aya_train.checkpoint import layouts

DTYPES = {
  'F32': np.dtype(np.float32),
  'BF16': np.dtype(ml_dtypes.bfloat16),
  'F16': np.dtype(np.float16),
}
# A header of the largest model has some 100 kB; a damaged length must not become an allocation.
_MAX_HEADER_BYTES = 100_000_000
_BLOCK_BYTES = 1 << 28
_KEPT_TENSORS = 2
_WAY_OUT = 'Copy the checkpoint again from its source'


@dataclasses.dataclass(frozen=True)
class Entry:
  """Where a tensor lies.

  Attributes:
    shape, dtype: of the tensor.
    offset: of its first byte in the file.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  offset: int

  @property
  def nbytes(self) -> int:
    return math.prod(self.shape) * self.dtype.itemsize


def read_header(path: epath.PathLike) -> dict[str, Entry]:
  """What a file says of its tensors, by name.

  Raises:
    FileNotFoundError: no such file.
    ValueError: it is cut short, no safetensors file, or holds tensors of other dtypes.
  """
  path = epath.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'{path} does not exist. {_WAY_OUT}')
  size = path.stat().length
  with path.open('rb') as f:
    length = int.from_bytes(f.read(8), 'little')
    if size < 8 or not 0 < length <= min(size - 8, _MAX_HEADER_BYTES):
      raise ValueError(
        f'{path} ({size} bytes) is cut short or no safetensors file: it gives its header '
        f'{length} bytes. {_WAY_OUT}'
      )
    content = f.read(length)
  try:
    header = json.loads(content)
    header.pop('__metadata__', None)
    entries = {name: _entry(fields, 8 + length) for name, fields in header.items()}
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f'{path} has no header of a safetensors file: {_cause(error)}. {_WAY_OUT}'
    ) from error
  end = 8 + length
  for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
    if entry.offset != end:
      raise ValueError(
        f'{path}: tensor {name} begins at byte {entry.offset}, expected {end}: the header is '
        f'damaged. {_WAY_OUT}'
      )
    end += entry.nbytes
  if end != size:
    raise ValueError(
      f'{path} has {size} bytes, its header describes {end}: the file is '
      f'{"cut short" if size < end else "too long"}. {_WAY_OUT}'
    )
  return entries


def _cause(error: Exception) -> str:
  return str(error) if isinstance(error, ValueError) else repr(error)


def _entry(fields: Any, base: int) -> Entry:
  shape, (start, stop) = fields['shape'], fields['data_offsets']
  if not all(type(n) is int and n >= 0 for n in (*shape, start, stop)):
    raise ValueError(f'shape {shape} or offsets {[start, stop]} are no positions')
  if fields['dtype'] not in DTYPES:
    raise ValueError(f'a tensor is {fields["dtype"]}; only {sorted(DTYPES)} are read')
  entry = Entry(tuple(shape), DTYPES[fields['dtype']], base + start)
  if stop - start != entry.nbytes:
    raise ValueError(f'{stop - start} bytes for shape {shape} of {fields["dtype"]}')
  return entry


def open_file(path: epath.PathLike, dtype: np.dtype | None = None) -> dict[str, layouts.LazyArray]:
  """Every tensor of a file by its name, as `dtype` unless None. Raises as `read_header` does."""
  part = _mapped if destinations.is_local(path) else _Remote(epath.Path(path)).part
  return {
    name: _lazy(epath.Path(path), entry, part, dtype) for name, entry in read_header(path).items()
  }


Part = Callable[[epath.Path, Entry, Any], np.ndarray]


def _lazy(path: epath.Path, entry: Entry, part: Part, dtype: np.dtype | None) -> layouts.LazyArray:
  dtype = dtype or entry.dtype

  def get(index: Any) -> np.ndarray:
    return part(path, entry, index).astype(dtype, copy=False)

  return layouts.LazyArray(entry.shape, dtype, lambda: get(slice(None)), get)


def _mapped(path: epath.Path, entry: Entry, index: Any) -> np.ndarray:
  if not entry.nbytes:
    return np.empty(entry.shape, entry.dtype)[index]
  # Only the pages of the slice are read.
  whole = np.memmap(str(path), entry.dtype, 'r', entry.offset, entry.shape)
  return np.array(whole[index])


class _Remote:
  """Tensors of a file in a bucket: runs of rows are read alone, other slices need the whole tensor.

  The last few whole ones are kept, since a transposed matrix is asked for in many blocks of columns.
  """

  def __init__(self, path: epath.Path):
    self._path = path
    self._kept: collections.OrderedDict[int, np.ndarray] = collections.OrderedDict()
    self._lock = threading.Lock()

  def part(self, path: epath.Path, entry: Entry, index: Any) -> np.ndarray:
    del path
    rows, *rest = index if isinstance(index, tuple) else (index,)
    all_columns = all(
      isinstance(i, slice) and i.indices(n) == (0, n, 1)
      for i, n in zip(rest, entry.shape[1:], strict=False)
    )
    if not entry.shape or not isinstance(rows, slice) or not all_columns:
      with self._lock:
        return np.array(self._whole(entry)[index])
    start, stop, step = rows.indices(entry.shape[0])
    if (start, stop, step) == (0, entry.shape[0], 1):
      return self._read(entry, 0, entry.nbytes).reshape(entry.shape)
    if step != 1:
      raise ValueError(f'slices of tensors have step 1, got {rows}')
    row_bytes = entry.nbytes // entry.shape[0]
    found = self._read(entry, start * row_bytes, max(0, stop - start) * row_bytes)
    return found.reshape(-1, *entry.shape[1:])

  def _whole(self, entry: Entry) -> np.ndarray:
    if entry.offset not in self._kept:
      self._kept[entry.offset] = self._read(entry, 0, entry.nbytes).reshape(entry.shape)
      if len(self._kept) > _KEPT_TENSORS:
        self._kept.popitem(last=False)
    return self._kept[entry.offset]

  def _read(self, entry: Entry, start: int, length: int) -> np.ndarray:
    with self._path.open('rb') as f:
      f.seek(entry.offset + start)
      content = f.read(length)
    if len(content) != length:
      raise ValueError(f'{self._path} became shorter while it was read')
    return np.frombuffer(content, entry.dtype)


def write(
  path: epath.Path,
  tensors: Mapping[str, layouts.LazyArray],
  dtype: np.dtype,
  cast: Callable[[np.ndarray, np.dtype, str], np.ndarray],
) -> None:
  """Streams tensors into one file, in runs of rows.

  Args:
    path: file to make.
    tensors: by name, in the order that they get in the file.
    dtype: of all.
    cast: makes a run of rows such, from the run, `dtype` and the tensor's name.
  """
  name_of = {value: key for key, value in DTYPES.items()}
  header: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
  end = 0
  for name, tensor in tensors.items():
    start, end = end, end + math.prod(tensor.shape) * dtype.itemsize
    header[name] = {
      'dtype': name_of[dtype],
      'shape': list(tensor.shape),
      'data_offsets': [start, end],
    }
  encoded = json.dumps(header, separators=(',', ':')).encode()
  encoded += b' ' * (-len(encoded) % 8)
  with path.open('wb') as f:
    f.write(len(encoded).to_bytes(8, 'little'))
    f.write(encoded)

    def content(part: tuple[str, slice]) -> memoryview:
      name, rows = part
      block = cast(np.asarray(tensors[name][rows]), dtype, name)
      return np.ascontiguousarray(block).reshape(-1).view(np.uint8).data

    for block in layouts.ahead(content, _parts(tensors), waiting=layouts.WORKERS + 1):
      f.write(block)


def _parts(tensors: Mapping[str, layouts.LazyArray]) -> Iterator[tuple[str, slice]]:
  for name, tensor in tensors.items():
    for rows in row_slices(tensor):
      yield name, rows


def row_blocks(tensor: layouts.LazyArray) -> Iterator[np.ndarray]:
  """A tensor as runs of rows in order, each small enough that no second copy of the whole lives."""
  return (np.asarray(tensor[rows]) for rows in row_slices(tensor))


def row_slices(tensor: layouts.LazyArray) -> Iterator[slice]:
  """The runs of rows of `row_blocks`: whole chunks of the source, or they would be read twice."""
  row_bytes = math.prod(tensor.shape[1:]) * np.dtype(tensor.dtype).itemsize
  rows = max(1, _BLOCK_BYTES // max(1, row_bytes))
  if tensor.chunk_rows and tensor.chunk_rows <= rows:
    rows -= rows % tensor.chunk_rows
  for start in range(0, tensor.shape[0], rows):
    yield slice(start, min(start + rows, tensor.shape[0]))

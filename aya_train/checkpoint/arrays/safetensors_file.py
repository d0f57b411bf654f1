"""Safetensors files, written tensor by tensor and read slice by slice, on disk or in a bucket.

safetensors' own writer wants every tensor in memory, and its reader local files. Layout (README of
huggingface/safetensors): length of the header as 8 little-endian bytes, header as JSON padded with
spaces to a multiple of 8, tensors without gaps in row-major order.
"""

import collections
import dataclasses
import functools
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from aya_train import destinations, path_facts
from aya_train.checkpoint.arrays import blocks, lazy_arrays, workers

DTYPES = {
  'F32': np.dtype(np.float32),
  'BF16': np.dtype(ml_dtypes.bfloat16),
  'F16': np.dtype(np.float16),
}
# A header of the largest model has some 100 kB; a damaged length must not become an allocation.
_MAX_HEADER_BYTES = 100_000_000
_BLOCK_BYTES = 1 << 28
_KEPT_TENSORS = 2
_SAFETENSORS_DTYPES = (
  *('F64', 'F32', 'F16', 'BF16', 'F8_E4M3', 'F8_E5M2', 'F8_E8M0', 'F6_E2M3', 'F6_E3M2', 'F4'),
  *('I64', 'I32', 'I16', 'I8', 'U64', 'U32', 'U16', 'U8', 'BOOL', 'C64'),
)
_WAY_OUT = 'Copy the checkpoint again from its source'


class _OtherDtypeError(ValueError):
  """A whole file of tensors that are no weights as they stand."""


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
  size = path_facts.size(path)
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
    _check_dtypes(path, {name: fields['dtype'] for name, fields in header.items()})
    entries = {name: _entry(fields, 8 + length) for name, fields in header.items()}
  except _OtherDtypeError:
    raise
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


def _check_dtypes(path: epath.Path, dtypes: Mapping[str, Any]) -> None:
  """Refuses tensors of dtypes that are none of a weight's; the file itself may be whole."""
  others = {name: dtype for name, dtype in dtypes.items() if str(dtype) not in DTYPES}
  if not others:
    return
  name, dtype = next(iter(others.items()))
  if dtype not in _SAFETENSORS_DTYPES:
    raise ValueError(f'tensor {name} has the dtype {dtype!r}, which safetensors do not have')
  way_out = lazy_arrays.QUANTISED
  if dtype == 'F64':
    way_out = 'Save the model in float32: model.float().save_pretrained(FOLDER)'
  raise _OtherDtypeError(
    f'{path}: {len(others)} of {len(dtypes)} tensors are of a dtype that no weight is read in, '
    f'such as {name} of {dtype}; read are {", ".join(sorted(DTYPES))}. {way_out}'
  )


def _entry(fields: Any, base: int) -> Entry:
  shape, (start, stop) = fields['shape'], fields['data_offsets']
  if not all(type(n) is int and n >= 0 for n in (*shape, start, stop)):
    raise ValueError(f'shape {shape} or offsets {[start, stop]} are no positions')
  entry = Entry(tuple(shape), DTYPES[fields['dtype']], base + start)
  if stop - start != entry.nbytes:
    raise ValueError(f'{stop - start} bytes for shape {shape} of {fields["dtype"]}')
  return entry


def open_file(path: epath.PathLike) -> dict[str, lazy_arrays.LazyArray]:
  """Every tensor of a file by its name; errors are those of `read_header`."""
  path = epath.Path(path)
  opened = functools.partial(_mapped, path) if destinations.is_local(path) else _Remote(path).opened
  return {name: opened(entry) for name, entry in read_header(path).items()}


def _mapped(path: epath.Path, entry: Entry) -> lazy_arrays.LazyArray:
  def get(index: blocks.Index) -> np.ndarray:
    if not entry.nbytes:
      return np.empty(entry.shape, entry.dtype)[index]
    # Only the pages of the slice are read.
    whole = np.memmap(str(path), entry.dtype, 'r', entry.offset, entry.shape)
    return np.array(whole[index])

  return lazy_arrays.LazyArray(entry.shape, entry.dtype, get)


class _Remote:
  """Tensors of a file in a bucket: runs of rows are read alone, other slices need the whole tensor.

  The last few whole ones are kept: a transposed matrix is asked for in many blocks of columns.
  """

  def __init__(self, path: epath.Path):
    self._path = path
    self._kept: collections.OrderedDict[int, np.ndarray] = collections.OrderedDict()
    self._lock = threading.Lock()

  def opened(self, entry: Entry) -> lazy_arrays.LazyArray:
    # Its chunks are its whole: who needs many slices that are no rows does better to read it once.
    return lazy_arrays.LazyArray(
      entry.shape, entry.dtype, lambda index: self._part(entry, index), entry.shape
    )

  def _part(self, entry: Entry, index: blocks.Index) -> np.ndarray:
    whole = tuple(slice(0, size) for size in entry.shape)
    if index == whole:
      return self._read(entry, 0, entry.nbytes).reshape(entry.shape)
    if index[1:] != whole[1:]:
      with self._lock:
        return np.array(self._whole(entry)[index])
    rows, row_bytes = index[0], entry.nbytes // entry.shape[0]
    found = self._read(entry, rows.start * row_bytes, (rows.stop - rows.start) * row_bytes)
    return found.reshape(rows.stop - rows.start, *entry.shape[1:])

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
  tensors: Mapping[str, lazy_arrays.LazyArray],
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

    for block in workers.ahead(content, _parts(tensors), waiting=workers.COUNT + 1):
      f.write(block)


def _parts(tensors: Mapping[str, lazy_arrays.LazyArray]) -> Iterator[tuple[str, slice]]:
  for name, tensor in tensors.items():
    for rows in row_slices(tensor):
      yield name, rows


def row_blocks(tensor: lazy_arrays.LazyArray) -> Iterator[np.ndarray]:
  """A tensor as runs of rows in order, each small enough that no second copy of the whole lives."""
  return (np.asarray(tensor[rows]) for rows in row_slices(tensor))


def row_slices(tensor: lazy_arrays.LazyArray) -> Iterator[slice]:
  """The runs of rows of `row_blocks`: whole chunks of the source, so that none is read twice."""
  row_bytes = math.prod(tensor.shape[1:]) * tensor.dtype.itemsize
  rows = max(1, _BLOCK_BYTES // max(1, row_bytes))
  chunk_rows = tensor.chunks[0] if tensor.chunks else 0
  if 0 < chunk_rows <= rows:
    rows -= rows % chunk_rows
  for start in range(0, tensor.shape[0], rows):
    yield slice(start, min(start + rows, tensor.shape[0]))

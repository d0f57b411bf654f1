"""Zarr arrays, opened without being read, and written block by block.

T5X and Orbax both keep one zarr array for each parameter; TensorStore reads the chunks that a slice
touches and no others.
"""

import dataclasses
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import tensorstore as ts
from etils import epath

from aya_train.checkpoint.arrays import blocks, lazy_arrays, zarr_gzip

_MISSING_SHOWN = 3
_INTERNALS = re.compile(r' \[(?:tensorstore_spec|source locations)')


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


def kvstore_spec(folder: epath.PathLike) -> dict[str, Any]:
  """TensorStore's spec of a folder, on disk or in a bucket of Google Cloud Storage."""
  path = str(epath.Path(folder))
  if path.startswith('gs://'):
    bucket, _, rest = path.removeprefix('gs://').partition('/')
    return {'driver': 'gcs', 'bucket': bucket, 'path': rest + '/'}
  return {'driver': 'file', 'path': str(epath.Path(folder).resolve()) + '/'}


def inside(folder: epath.Path, path: str, what: str) -> epath.Path:
  """Joins a path that a checkpoint names, which must lie in its folder.

  Raises:
    ValueError: it is absolute, empty, has '..' or leaves the folder through a link.
  """
  parts = PurePosixPath(path).parts
  refused = not parts or '..' in parts or parts[0] == '/' or '\\' in path or '://' in path
  joined = folder / path if not refused else folder
  if not refused and '://' not in str(folder):
    # epath's own resolve() does not follow links.
    root, target = os.path.realpath(folder), os.path.realpath(joined)
    refused = os.path.commonpath([root, target]) != root or root == target
  if refused:
    raise ValueError(
      f'{what} has the path {path!r}, which is not inside the checkpoint. Nothing was read from '
      'there; do not trust this checkpoint'
    )
  return joined


def open_leaves(leaves: Sequence[ZarrLeaf], where: str) -> dict[str, lazy_arrays.LazyArray]:
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
    cause = _INTERNALS.split(str(error), maxsplit=1)[0]
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
      f'{where}: array {leaf.name} is uint16, how T5X before June 2021 stored bfloat16: restore '
      'and save it with a T5X of that time, or ask its author for float32'
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


def _of_store(store: ts.TensorStore, what: str) -> lazy_arrays.LazyArray:
  inflated = zarr_gzip.reader(store)

  def get(index: blocks.Index) -> np.ndarray:
    if inflated is None:
      return np.asarray(_wait(store[index].read() if index else store.read(), what))
    try:
      return inflated(index)
    except ValueError as error:
      raise ValueError(f'{what}: {error}. Copy the checkpoint again from its source') from error

  chunks = _ints(store.chunk_layout.read_chunk.shape)
  return lazy_arrays.LazyArray(tuple(store.shape), np.dtype(store.dtype.numpy_dtype), get, chunks)


def write(
  kvstore: dict[str, Any],
  array: lazy_arrays.LazyArray,
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
  for index in blocks.cut(array.shape, array.dtype.itemsize, chunks):
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
    cause = _INTERNALS.split(str(error), maxsplit=1)[0]
    raise OSError(f'{kvstore.get("path")} cannot be written: {cause}') from error

"""gzip chunks read by ISA-L are what TensorStore reads; damaged ones are refused."""

import gzip
import itertools

import numpy as np
import pytest
import tensorstore as ts

from aya_train.checkpoint.arrays import zarr_gzip

SHAPE, CHUNKS = (37, 20), (8, 20)


def written(folder, dtype='float32', chunks=CHUNKS, **metadata):
  spec = {
    'driver': 'zarr',
    'dtype': dtype,
    'kvstore': {'driver': 'file', 'path': f'{folder}/'},
    'metadata': {
      'shape': SHAPE,
      'chunks': chunks,
      'compressor': {'id': 'gzip', 'level': 1},
      **metadata,
    },
  }
  store = ts.open(spec, create=True, delete_existing=True).result()
  values = np.random.default_rng(0).normal(size=SHAPE).astype(store.dtype.numpy_dtype)
  store.write(values).result()
  return store, values


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('chunks', [CHUNKS, (37, 20), (10, 7), (37, 3)])
@pytest.mark.parametrize('separator', ['.', '/'])
def test_every_slice_is_read(tmp_path, dtype, chunks, separator):
  store, values = written(tmp_path, dtype, chunks, dimension_separator=separator)
  get = zarr_gzip.reader(store)
  rows = [slice(0, 37), slice(8, 16), slice(5, 6), slice(7, 33)]
  columns = [slice(0, 20), slice(2, 9), slice(19, 20)]
  for index in itertools.product(rows, columns):
    found = get(index)
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values[index])


def test_memory_and_buckets_are_read_as_files_are(tmp_path):
  store, values = written(tmp_path)
  memory = ts.KvStore.open('memory://').result()
  for key in store.kvstore.list().result():
    memory.write(key, store.kvstore.read(key).result().value).result()
  get = zarr_gzip.reader(_Elsewhere(store, memory))
  np.testing.assert_array_equal(get((slice(3, 30), slice(0, 20))), values[3:30])
  memory.delete_range(ts.KvStore.KeyRange('1.0', '1.1')).result()
  with pytest.raises(ValueError, match=r'chunk 1\.0 is missing'):
    get((slice(3, 30), slice(0, 20)))


class _Elsewhere:
  """An open array whose chunks lie in another key-value store."""

  def __init__(self, store, kvstore):
    self._store, self.kvstore = store, kvstore

  def __getattr__(self, name):
    return getattr(self._store, name)


@pytest.mark.parametrize(
  'metadata',
  [{'compressor': None}, {'compressor': {'id': 'zstd', 'level': 1}}, {'order': 'F'}],
  ids=str,
)
def test_other_arrays_are_left_to_tensorstore(tmp_path, metadata):
  assert zarr_gzip.reader(written(tmp_path, **metadata)[0]) is None


def _cut(content):
  return content[:-20]


def _flipped(content):
  return content[:40] + bytes([content[40] ^ 255]) + content[41:]


@pytest.mark.parametrize(
  ('damage', 'told'),
  [
    (_cut, 'chunk 1.0 is damaged'),
    (_flipped, 'chunk 1.0 is damaged'),
    (lambda content: b'', 'it ends after 0 of 640 bytes'),
    (
      lambda content: gzip.compress(gzip.decompress(content)[:-4]),
      'it ends after 636 of 640 bytes',
    ),
    (lambda content: gzip.compress(gzip.decompress(content) + b'x'), 'holds more than the 640'),
    (lambda content: content + b'x', 'holds more than the 640'),
    (None, 'chunk 1.0 cannot be read'),
  ],
)
def test_a_damaged_chunk_is_refused(tmp_path, damage, told):
  store, values = written(tmp_path)
  get = zarr_gzip.reader(store)
  chunk = tmp_path / '1.0'
  if damage is None:
    chunk.unlink()
  else:
    chunk.write_bytes(damage(chunk.read_bytes()))
  np.testing.assert_array_equal(get((slice(0, 8), slice(0, 20))), values[:8])
  for rows in (slice(8, 16), slice(0, 37)):
    with pytest.raises(ValueError, match=told):
      get((rows, slice(0, 20)))

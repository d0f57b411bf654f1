"""T5X's native format: what its files hold, as bytes; what is refused."""

import ml_dtypes
import msgpack
import numpy as np
import pytest

from aya_train.checkpoint import formats
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.checkpoint.t5x import t5x_format
from tests.checkpoint import small_model
from tests.checkpoint.t5x import random_leaves, t5x_bytes

CONFIG = small_model.config(scan_layers=False)
STORED = 'target/encoder/layers_1/mlp/wi_0/kernel'


@pytest.fixture
def leaves():
  return random_leaves.random_leaves(CONFIG)


def numpy(read):
  return {name: array.read() for name, array in read.items()}


@pytest.mark.parametrize(
  'kwargs',
  [
    {},
    {'chunks': (7, 5)},
    {'compressor': {'id': 'zstd', 'level': 1}},
    {'compressor': None},
    {'driver': 'gfile'},
    {'driver': 'gcs'},
    {'v2': True},
    {'v2': True, 'driver': 'gcs'},
    {'inlined': ('rel_embedding', 'query/kernel')},
    {'version': 2},
  ],
  ids=str,
)
def test_every_spelling_of_the_format_is_read(leaves, tmp_path, kwargs):
  folder = t5x_bytes.write(tmp_path / 'checkpoint_7', leaves, **kwargs)
  random_leaves.assert_equal(numpy(t5x_format.read(folder)), leaves)
  assert formats.detect(folder).format is formats.Format.T5X


def test_the_writer_writes_the_bytes_described(leaves, tmp_path):
  t5x_format.write(tmp_path, {name: lazy_arrays.of(array) for name, array in leaves.items()})
  index = t5x_bytes.read_index(tmp_path)
  assert set(index) == {'version', 'optimizer'} and index['version'] == 3
  found = {}

  def walk(tree, prefix):
    for key, value in tree.items():
      if isinstance(value, tuple):
        _, code, (shape, dtype, content) = value
        assert code == (1 if shape else 3)
        found[prefix + key] = np.frombuffer(content, dtype).reshape(shape)
      elif 'driver' in value:
        assert value['kvstore'] == {
          'driver': 'file',
          'path': f'{prefix}{key}/'.replace('/', '.')[:-1] + '/',
        }
        found[prefix + key] = t5x_bytes.read_stored(tmp_path, value)
        assert value['metadata']['shape'] == list(found[prefix + key].shape)
      else:
        walk(value, f'{prefix}{key}/')

  walk(index['optimizer'], '')
  random_leaves.assert_equal(found, leaves)
  random_leaves.assert_equal(numpy(t5x_format.read(tmp_path)), leaves)


def test_bfloat16_is_kept(tmp_path):
  array = np.arange(12).reshape(3, 4).astype(ml_dtypes.bfloat16)
  t5x_bytes.write(tmp_path / 'a', {'target/kernel': array, 'target/scale': array[0]})
  read = t5x_format.read(tmp_path / 'a')
  (tmp_path / 'b').mkdir()
  t5x_format.write(tmp_path / 'b', read)
  expected = {'target/kernel': array, 'target/scale': array[0]}
  random_leaves.assert_equal(numpy(read), expected)
  random_leaves.assert_equal(numpy(t5x_format.read(tmp_path / 'b')), expected)


def test_only_the_chunks_of_a_slice_are_read(leaves, tmp_path):
  folder = t5x_bytes.write(tmp_path / 'c', leaves, chunks=(10, 12))
  array = t5x_format.read(folder)[STORED]
  chunk = folder / STORED.replace('/', '.') / '0.1'
  chunk.write_bytes(b'no gzip')
  np.testing.assert_array_equal(array[10:, :12], leaves[STORED][10:, :12])
  with pytest.raises(ValueError, match=STORED):
    array[:10, 12:]


# Bad input ----------------------------------------------------------------------------------------


@pytest.fixture
def folder(leaves, tmp_path):
  return t5x_bytes.write(tmp_path / 'checkpoint_7', leaves)


def change_index(folder, change):
  index = t5x_bytes.unpack(folder)
  change(index['optimizer'])
  (folder / 'checkpoint').write_bytes(msgpack.packb(index, strict_types=True))


def entry(optimizer, name=STORED):
  for key in name.split('/'):
    optimizer = optimizer[key]
  return optimizer


@pytest.mark.parametrize('path', ['../x/', '/etc/', 'a/../../x/', '', 'gs://b/x/', 'link/', '.'])
def test_a_path_that_leaves_the_folder_is_refused(folder, path):
  (folder / 'link').symlink_to(folder.parent)
  change_index(folder, lambda o: entry(o)['kvstore'].update(path=path))
  with pytest.raises(ValueError, match='not inside the checkpoint') as caught:
    t5x_format.read(folder)
  assert STORED in str(caught.value)


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda f: (f / 'checkpoint').write_bytes((f / 'checkpoint').read_bytes()[:-9]), 'msgpack'),
    (lambda f: (f / 'checkpoint').write_bytes(b''), 'msgpack'),
    (lambda f: (f / 'checkpoint').write_bytes(msgpack.packb([1])), 'must hold a msgpack map'),
    (
      lambda f: (f / STORED.replace('/', '.') / '0.0').unlink(),
      r"lacks 1 of its chunks: \['0.0'\]",
    ),
    (lambda f: (f / STORED.replace('/', '.') / '.zarray').unlink(), 'missing or damaged'),
    (lambda f: (f / STORED.replace('/', '.') / '.zarray').write_text('{'), 'missing or damaged'),
    (
      lambda f: change_index(f, lambda o: entry(o)['metadata'].update(shape=[20, 25])),
      r'shape \(20, 24\), but the index says \(20, 25\)',
    ),
    (
      lambda f: change_index(f, lambda o: entry(o).update(dtype='bfloat16')),
      'dtype float32, but the index says bfloat16',
    ),
    (lambda f: change_index(f, lambda o: entry(o)['kvstore'].update(driver='s3')), "over 's3'"),
    (lambda f: change_index(f, lambda o: entry(o).update(driver='n5')), "driver 'n5'"),
    (lambda f: change_index(f, lambda o: entry(o)['kvstore'].update(path=3)), 'the path 3'),
    (lambda f: change_index(f, lambda o: entry(o)['metadata'].update(shape='x')), "shape 'x'"),
    (lambda f: change_index(f, lambda o: o['target'].update(extra='text')), 'target/extra must be'),
  ],
  ids=lambda value: value if isinstance(value, str) else 'damage',
)
def test_damage_is_refused_with_the_name_and_the_way_out(folder, damage, message):
  damage(folder)
  with pytest.raises(ValueError, match=message) as caught:
    t5x_format.read(folder)
  assert str(folder) in str(caught.value)


@pytest.mark.parametrize('version', [0, 1, 4, '3', None])
def test_other_versions_are_refused(leaves, tmp_path, version):
  folder = t5x_bytes.write(tmp_path / 'c', leaves, version=version)
  with pytest.raises(ValueError, match='version'):
    t5x_format.read(folder)


def test_a_chunk_cut_short_is_refused_when_it_is_read(folder):
  chunk = folder / STORED.replace('/', '.') / '0.0'
  chunk.write_bytes(chunk.read_bytes()[:-20])
  array = t5x_format.read(folder)[STORED]
  with pytest.raises(ValueError, match=STORED):
    array.read()


@pytest.mark.parametrize('bit', range(8))
def test_a_flipped_bit_of_a_chunk_is_refused_when_it_is_read(folder, bit):
  """gzip has a checksum of its contents; of its first ten bytes some say nothing about them."""
  chunk = folder / STORED.replace('/', '.') / '0.0'
  data = bytearray(chunk.read_bytes())
  data[int(np.random.default_rng(bit).integers(10, len(data)))] ^= 1 << bit
  chunk.write_bytes(bytes(data))
  array = t5x_format.read(folder)[STORED]
  with pytest.raises(ValueError, match=STORED):
    array.read()


@pytest.mark.parametrize(
  ('shape', 'dtype', 'content'),
  [
    ([3, 4], 'float32', bytes(8)),  # shorter than it says
    ([2], 'float32', bytes(400)),
    ([1 << 60], 'float32', bytes(8)),
    ([1], 'object', bytes(8)),
    ([1], 'nonsense', bytes(8)),
  ],
)
def test_an_inline_leaf_that_lies_about_its_shape_is_refused(folder, shape, dtype, content):
  lie = msgpack.ExtType(1, msgpack.packb((shape, dtype, content), use_bin_type=True))
  change_index(folder, lambda o: o['target']['encoder'].update(liar=lie))
  with pytest.raises(ValueError, match='checkpoint_7'):
    t5x_format.read(folder)


def test_old_bfloat16_as_uint16_is_refused(leaves, tmp_path):
  leaves['target/encoder/encoder_norm/scale'] = np.zeros(20, np.uint16)
  with pytest.raises(ValueError, match='uint16'):
    t5x_format.read(t5x_bytes.write(tmp_path / 'c', leaves, version=2))

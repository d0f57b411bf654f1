"""Safetensors files: written as safetensors reads them, read from disk or bucket, or refused."""

import json

import ml_dtypes
import numpy as np
import pytest
from etils import epath
from etils.epath import backend

from aya_train.checkpoint.arrays import safetensors_file
from aya_train.checkpoint.hf import hf_export, hf_import
from tests.checkpoint import small_model

safetensors = pytest.importorskip('safetensors', reason='needs the extra `hf`')


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  """gs://bucket, a folder of this machine."""

  class Bucket(backend._OsPathBackend):
    def open(self, path, mode):
      return super().open(local(path), mode)

    def exists(self, path):
      return super().exists(local(path))

    def isdir(self, path):
      return super().isdir(local(path))

    def listdir(self, path):
      return super().listdir(local(path))

    def glob(self, path):
      return super().glob(local(path))

    def stat(self, path):
      return super().stat(local(path))

  def local(path):
    return str(path).replace('gs://bucket', str(tmp_path))

  monkeypatch.setattr(backend, 'tf_backend', Bucket())
  return epath.Path('gs://bucket')


@pytest.fixture(params=['disk', 'bucket'])
def place(request, tmp_path):
  return request.getfixturevalue('bucket') if request.param == 'bucket' else epath.Path(tmp_path)


def save(path, **tensors):
  from safetensors import numpy

  numpy.save_file(tensors, str(path))


def test_slices_are_those_of_the_tensor(place, tmp_path):
  rng = np.random.default_rng(0)
  tensors = {'a': rng.normal(size=(7, 5)), 'b': rng.normal(size=9), 'c': rng.normal(size=(2, 3, 4))}
  tensors = {name: array.astype(np.float32) for name, array in tensors.items()}
  tensors['d'] = tensors['a'].astype(ml_dtypes.bfloat16)
  save(tmp_path / 'x.safetensors', **tensors)
  opened = safetensors_file.open_file(place / 'x.safetensors')
  assert set(opened) == set(tensors)
  for name, array in tensors.items():
    assert (opened[name].shape, opened[name].dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(opened[name].read(), array)
    for index in (
      *(slice(None), slice(2, 5), slice(4, 4), (slice(1, 2),)),
      *((slice(None), slice(1, 3)), (slice(1, 2), slice(0, 2))) * (array.ndim > 1),
    ):
      np.testing.assert_array_equal(opened[name][index], array[index], err_msg=f'{name} {index}')


def test_a_hugging_face_folder_is_read_from_a_bucket(bucket, tmp_path, vocabulary_file):
  config = small_model.config(scan_layers=False)
  params = small_model.random_params(config)
  hf_export.export(params, config, vocabulary_file, tmp_path / 'hf', max_shard_size='20KB')
  read = hf_import.open_folder(bucket / 'hf').params
  assert set(read) == set(params)
  for name, array in params.items():
    np.testing.assert_array_equal(read[name].read(), array, err_msg=name)
    np.testing.assert_array_equal(read[name][1:3], array[1:3], err_msg=name)


def header(content):
  length = int.from_bytes(content[:8], 'little')
  return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(content, change):
  fields, tensors = header(content)
  change(fields)
  encoded = json.dumps(fields).encode()
  return len(encoded).to_bytes(8, 'little') + encoded + tensors


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda c: b'', 'cut short'),
    (lambda c: c[:5], 'cut short'),
    (lambda c: c[:60], 'cut short'),
    (lambda c: c[:-1], 'cut short'),
    (lambda c: c + b'x', 'too long'),
    (lambda c: (1 << 62).to_bytes(8, 'little') + c[8:], 'cut short or no safetensors'),
    (lambda c: c[:8] + b'[' + c[9:], 'no header'),
    (lambda c: with_header(c, lambda h: h['a'].update(shape=[7, 6])), '140 bytes for shape'),
    (lambda c: with_header(c, lambda h: h['a'].update(shape=[-7, -5])), 'no positions'),
    (lambda c: with_header(c, lambda h: h['a'].update(dtype='X99')), 'safetensors do not have'),
    (lambda c: with_header(c, lambda h: h.update(b=h['a'])), 'begins at byte'),
    (lambda c: with_header(c, lambda h: h['a'].pop('shape')), 'shape'),
    (lambda c: with_header(c, lambda h: h.update(a=3)), 'no header'),
  ],
)
def test_damage_is_an_error_that_names_the_file(place, tmp_path, damage, message):
  path = tmp_path / 'x.safetensors'
  save(path, a=np.ones((7, 5), np.float32))
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(ValueError, match=message) as raised:
    safetensors_file.open_file(place / path.name)
  assert str(place / path.name) in str(raised.value)


def test_safetensors_reads_what_is_written(tmp_path):
  rng = np.random.default_rng(0)
  save(tmp_path / 'x', a=rng.normal(size=(4, 3)).astype(np.float32), b=np.zeros(1, np.float32))
  tensors = safetensors_file.open_file(tmp_path / 'x')
  out = epath.Path(tmp_path / 'y')
  safetensors_file.write(out, tensors, np.dtype(np.float16), lambda x, t, _: x.astype(t))
  with safetensors.safe_open(str(out), framework='numpy') as f:
    for name, tensor in tensors.items():
      np.testing.assert_array_equal(f.get_tensor(name), tensor.read().astype(np.float16))


@pytest.mark.parametrize(
  ('dtype', 'way_out'),
  [('F64', 'Save the model in float32'), ('I8', 'Quantised weights'), ('F8_E4M3', 'Quantised')],
)
def test_a_whole_file_of_another_dtype_is_not_called_damaged(tmp_path, dtype, way_out):
  path = tmp_path / 'x.safetensors'
  save(path, a=np.ones((7, 5), np.float32), b=np.ones(3, np.float32))
  path.write_bytes(with_header(path.read_bytes(), lambda h: h['a'].update(dtype=dtype)))
  with pytest.raises(ValueError, match=f'1 of 2 tensors .* a of {dtype}; .*{way_out}') as raised:
    safetensors_file.read_header(path)
  assert 'header' not in str(raised.value) and 'again' not in str(raised.value)

"""Whose fault an error is, and in what words it is told."""

import errno
import gzip
import os
import shutil
import threading
import zipfile
import zlib

import gin
import pytest
import tensorflow as tf

from aya_train import user_code
from aya_train.cli import error_report
from aya_train.tasks.user import dataset_tables


def of_module(module, name='ClientError', base=Exception):
  return type(name, (base,), {'__module__': module})


@pytest.mark.parametrize(
  ('error', 'told'),
  [
    (OSError(errno.ENOSPC, 'No space left on device'), 'the disk is full'),
    (OSError(errno.EDQUOT, 'Disk quota exceeded', '/x/y'), 'the disk that /x/y is on is full'),
    (RuntimeError('RESOURCE_EXHAUSTED: Failed to write 12 bytes'), 'the disk is full'),
    (
      of_module('jax.errors', 'JaxRuntimeError')('RESOURCE_EXHAUSTED: Out of memory allocating 9'),
      'the devices have too little memory',
    ),
    (
      of_module('jax.errors', 'JaxRuntimeError')(
        'RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 20.73M of 16.00M vmem.\n'
        '  1. Size: 9.99M\n     XLA label: attention_backward.5 = custom-call(x)'
      ),
      'attention_backward wants 20.73 MiB of the 16.00 MiB that there are in vmem',
    ),
    (MemoryError('Unable to allocate 9 GiB'), 'this machine has too little memory'),
    (of_module('concurrent.futures.process', 'BrokenProcessPool')('x'), 'no memory left'),
    (of_module('aiohttp.client_exceptions')('Cannot connect to host'), 'cannot be reached'),
    (of_module('gcsfs.retry', 'HttpError')('Anonymous caller'), 'credentials'),
    (of_module('google.auth.exceptions', 'RefreshError')('invalid_grant'), 'gcloud auth'),
    (of_module('httpx')('All connection attempts failed'), 'cannot be reached'),
    (
      ValueError('UNAVAILABLE: CURL error Could not resolve host: storage.googleapis.com'),
      'cannot be reached',
    ),
    (
      tf.errors.UnavailableError(None, None, 'x when reading gs://bucket/y'),
      'a path in a bucket cannot be reached',
    ),
    (tf.errors.DataLossError(None, None, 'truncated record at 12'), 'damaged or of another kind'),
    (tf.errors.NotFoundError(None, None, '/x; No such file'), 'a file cannot be read'),
    (zlib.error('incorrect header check'), 'damaged or of another kind'),
    (EOFError('Compressed file ended before the end'), 'damaged or of another kind'),
    (gzip.BadGzipFile('Not a gzipped file'), 'Not a gzipped file'),
    (zipfile.BadZipFile('File is not a zip file'), 'damaged or of another kind'),
    (of_module('yaml.scanner', 'ScannerError')('bad token'), 'damaged or of another kind'),
    (of_module('google.protobuf.message', 'DecodeError')('truncated'), 'damaged'),
    (of_module('safetensors_rust', 'SafetensorError')('header too large'), 'damaged'),
    (
      ModuleNotFoundError("No module named 'gguf'", name='gguf'),
      "pip install 'aya-train[quantised]",
    ),
    (ModuleNotFoundError("No module named 'torch'", name='torch.nn'), "'aya-train[hf]'"),
    (ModuleNotFoundError("No module named 'flax'", name='flax'), 'the installation is not whole'),
    (RuntimeError("Unable to initialize backend 'tpu': x"), 'JAX_PLATFORMS=cpu'),
    (RuntimeError('The TPU is already in use by process with pid 7'), 'hold the accelerator'),
    (
      TypeError(
        "f() missing 1 argument\n  No values supplied by Gin or caller for arguments: ['model']\n"
        "  Gin had values bound for: []\n  In call to configurable 'train' (<function train>)"
      ),
      "the gin files give no value for 'model' of train",
    ),
    (
      RuntimeError("Required bindings for `train` not provided in config: ['model']"),
      "the gin files give no value for 'model' of train",
    ),
    (PermissionError(errno.EACCES, 'Permission denied', 'run/x'), 'run/x may not be read'),
    (IsADirectoryError(errno.EISDIR, 'Is a directory', 'run'), 'run is a folder, where a file'),
    (NotADirectoryError(errno.ENOTDIR, 'Not a directory', 'x/y'), 'x/y cannot be: a part of'),
    (FileNotFoundError(errno.ENOENT, 'No such file', 'x'), 'x is not there'),
    (OSError(errno.EROFS, 'run cannot be written: give another'), 'run cannot be written: give'),
    (ValueError('BATCH_SIZE must be 1'), 'BATCH_SIZE must be 1'),
    (KeyError('file://'), "a path begins with 'file://', which cannot be read"),
  ],
)
def test_what_comes_from_outside_is_no_defect(error, told):
  report = error_report.of(error)
  assert told in report.text
  assert (report.code, report.is_defect) == (1, False)
  assert '\n' not in report.text


@pytest.mark.parametrize('error', [TypeError('x'), AssertionError(), KeyError('name')])
def test_what_nothing_explains_is_a_defect(error):
  assert error_report.of(error).is_defect


def test_an_error_in_code_of_the_users_is_told_with_its_line(tmp_path):
  file = tmp_path / 'my_tasks.py'
  source = 'def post(x):\n  return x.nothing\n'
  file.write_text(source)
  space = {}
  exec(compile(source, str(file), 'exec'), space)
  with pytest.raises(AttributeError) as caught:
    space['post'](3)
  report = error_report.of(caught.value)
  assert not report.is_defect
  assert report.text == (
    "AttributeError: 'int' object has no attribute 'nothing' (in code that is not of aya-train: "
    f'{file}, line 2)'
  )


@pytest.mark.parametrize('name', ['FileNotFoundError', 'ValueError', 'UserDataError'])
def test_what_a_reader_of_ours_raises_in_a_pipeline_is_told_in_its_words(name):
  report = error_report.of(_in_pipeline(name, "data set 'd': no file 'x'"))
  assert (report.text, report.is_defect) == ("data set 'd': no file 'x'", False)


def test_a_defect_in_a_pipeline_is_not_told_as_words_for_the_user():
  assert user_code.told_inside_graph(_in_pipeline('ValueError', 'no file')) == 'no file'
  assert not user_code.told_inside_graph(_in_pipeline('KeyError', 'name'))


def _in_pipeline(name, text):
  ours = os.path.join(os.path.dirname(error_report.__file__), 'reader.py')
  space = {'UserDataError': dataset_tables.UserDataError}
  exec(compile(f'def rows():\n  raise {name}({text!r})\n  yield 1', ours, 'exec'), space)
  signature = tf.TensorSpec((), tf.int32)
  with pytest.raises(tf.errors.OpError) as caught:
    next(iter(tf.data.Dataset.from_generator(space['rows'], output_signature=signature)))
  return caught.value


def test_pages_of_a_library_are_cut():
  error = of_module('tensorflow.python', 'NotFoundError')('line\n' * 1000)
  text = error_report.of(error).text
  assert len(text) < 800 and text.endswith('(--debug shows all)')


@gin.configurable(module='tests')
def fails_in_gin(error):
  raise error


@pytest.mark.parametrize(
  ('number', 'told'),
  [
    (errno.ENOSPC, 'the disk that /x/y is on is full'),
    (errno.EACCES, '/x/y may not be read or written by this user'),
    (errno.ENOENT, '/x/y is not there'),
  ],
)
def test_errors_of_files_are_told_alike_inside_gin(monkeypatch, number, told):
  monkeypatch.setattr(user_code, 'raised_here', lambda error: True)
  with pytest.raises(OSError) as caught:
    fails_in_gin(OSError(number, os.strerror(number), '/x/y'))
  assert told in error_report.of(caught.value).text


@pytest.fixture
def steps(tmp_path):
  folder = tmp_path / 'a run' / 'checkpoints'
  for step in (50, 110, 120):
    (folder / str(step) / 'params').mkdir(parents=True)
  return folder


def test_a_step_that_its_run_removes_is_not_called_damaged(steps):
  error = ValueError(f"{steps}/50/params: array x: NOT_FOUND: '{steps}/50/params/' is missing")
  began = threading.Timer(0.3, shutil.rmtree, [steps / '50'])
  began.start()
  found = error_report.of(error)
  began.join()
  assert found.text == error_report.of(error).text and not found.is_defect
  assert found.text.startswith(f'{steps}/50 is not there: a run removes the steps')
  assert 'There are steps 110, 120' in found.text and '\n' not in found.text


def test_an_old_step_that_stays_is_damaged(steps, monkeypatch):
  monkeypatch.setattr(error_report, '_SECONDS_TO_GO', 0.1)
  for step in (50, 120, 1100):
    text = f'{steps}/{step}/params is damaged'
    assert error_report.of(ValueError(text)).text == text

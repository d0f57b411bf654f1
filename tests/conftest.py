"""Settings of every test: several CPU devices, strict shapes, no network, a cache of their own."""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ['TFDS_DISABLE_GCS'] = '1'
os.environ['HF_HUB_OFFLINE'] = '1'
# Programs are compiled once for all processes of the tests, which take this over.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(prefix='compiled')
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.2'
  atexit.register(shutil.rmtree, os.environ['JAX_COMPILATION_CACHE_DIR'], ignore_errors=True)

import contextlib
import importlib

with contextlib.suppress(ImportError):  # after TensorFlow it ends the process, see main.py
  importlib.import_module('triton')

import jax
import pytest

from aya_train import ct2_library
from tests.checkpoint import small_model

ct2_library.prefer_mkl()

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
  """Sends all of tests/docs to one process, where its tests share a sandbox; others file by file.

  The mark xdist_group would say it too, but has no effect with pytest 9.2 and pytest-xdist 3.8.
  """
  from xdist.scheduler import LoadScopeScheduling

  class Scheduling(LoadScopeScheduling):
    def _split_scope(self, nodeid):
      file = nodeid.split('::')[0]
      return 'docs' if file.startswith('tests/docs/') else file

  return Scheduling(config, log) if config.getvalue('dist') == 'load' else None


@pytest.fixture(scope='session')
def vocabulary_file(tmp_path_factory):
  return small_model.train_vocabulary(tmp_path_factory.mktemp('vocabulary'))


@pytest.fixture(scope='session')
def rows():
  """All rows of the CLDR set."""
  from aya_train.tasks.cldr import cldr_rows

  return cldr_rows.rows()


@pytest.fixture(scope='session')
def session_cache(tmp_path_factory):
  """A cache with the CLDR set and its vocabulary, built once a session."""
  from aya_train.tasks import storage
  from aya_train.tasks.cldr import cldr_tasks, vocabulary

  with pytest.MonkeyPatch.context() as patch:
    path = tmp_path_factory.mktemp('cache')
    patch.setenv(storage.CACHE_ENV, str(path))
    cldr_tasks.build()
    vocabulary.build_default()
  return path


@pytest.fixture
def cache(session_cache, monkeypatch):
  """That cache in force, and no vocabulary chosen."""
  from aya_train.tasks import features, storage

  monkeypatch.setenv(storage.CACHE_ENV, str(session_cache))
  monkeypatch.delenv(features.VOCABULARY_ENV, raising=False)
  features.set_vocabulary(None)
  yield session_cache
  features.set_vocabulary(None)

"""The CLDR set and its vocabulary, built once a session in a cache of their own."""

import pytest

from aya_train.tasks import features, storage
from aya_train.tasks.cldr import cldr_rows, cldr_tasks, vocabulary


@pytest.fixture(scope='session')
def rows():
  return cldr_rows.rows()


@pytest.fixture(scope='session')
def session_cache(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    path = tmp_path_factory.mktemp('cache')
    patch.setenv(storage.CACHE_ENV, str(path))
    cldr_tasks.build()
    vocabulary.build_default()
  return path


@pytest.fixture
def cache(session_cache, monkeypatch):
  """A cache with the CLDR set and the default vocabulary, and no vocabulary chosen."""
  monkeypatch.setenv(storage.CACHE_ENV, str(session_cache))
  monkeypatch.delenv(features.VOCABULARY_ENV, raising=False)
  features.set_vocabulary(None)
  yield session_cache
  features.set_vocabulary(None)

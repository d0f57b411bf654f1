"""What the tests of whole commands share: all sources of the Aya mixtures, built once a session."""

import pathlib
from collections.abc import Iterator

import pytest
import seqio

from aya_train.cli import main
from aya_train.tasks import features, storage
from aya_train.tasks.mixtures import aya_mixtures, source_mixture
from aya_train.tasks.user import user_data
from tests import small_release

SHAREGPT = 'sharegpt_command'


def command(*words: object) -> None:
  """Runs `aya-train WORDS` in this process; its messages are in the captured output."""
  assert main.main([str(word) for word in words]) == 0


@pytest.fixture(scope='session')
def small_sources(tmp_path_factory) -> pathlib.Path:
  """A cache with the vocabulary and all sources, ShareGPT-Command among them, from small files."""
  root = tmp_path_factory.mktemp('small_sources')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv(storage.CACHE_ENV, str(root / 'cache'))
    patch.delenv(features.VOCABULARY_ENV, raising=False)
    command('prepare', 'cldr')
    for name, folder in small_release.write(root / 'released', sharegpt=True).items():
      command('prepare', name, '--data_dir', folder, '--workers', 1)
  return root / 'cache'


@pytest.fixture
def aya_cache(small_sources, monkeypatch) -> Iterator[pathlib.Path]:
  """`small_sources` as the cache directory; what commands set in this process is undone."""
  monkeypatch.setenv(storage.CACHE_ENV, str(small_sources))
  monkeypatch.delenv(features.VOCABULARY_ENV, raising=False)
  features.set_vocabulary(None)
  yield small_sources
  features.set_vocabulary(None)
  aya_mixtures.configure(source_mixture.MixtureSettings())
  user_data._DATASETS.pop(aya_mixtures.SAFE, None)
  vars(seqio.TaskRegistry.get(aya_mixtures.SAFE).source).pop('content', None)


@pytest.fixture
def open_cache(aya_cache, tmp_path, monkeypatch) -> pathlib.Path:
  """The same cache, without ShareGPT-Command."""
  cache = tmp_path / 'open_cache'
  for path in (*aya_cache.glob('vocabularies'), *aya_cache.glob('*/*')):
    link = cache / path.relative_to(aya_cache)
    if not path.name.startswith(SHAREGPT) and not link.parent.is_symlink():
      link.parent.mkdir(parents=True, exist_ok=True)
      link.symlink_to(path)
  monkeypatch.setenv(storage.CACHE_ENV, str(cache))
  return cache

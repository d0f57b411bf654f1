"""`aya-train prepare`: data sets and vocabularies are built, mixtures tokenised, once."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

import tensorflow_datasets as tfds

from aya_train import prepared
from aya_train.tasks import cldr, features, storage, vocabulary

logger = logging.getLogger(__name__)


def _build_cldr() -> None:
  tfds.disable_progress_bar()
  manifest = cldr.build()
  logger.info(
    'CLDR instruction set: %s in %d languages (Babel %s)',
    ', '.join(f'{n:,} {split}' for split, n in manifest['splits'].items()),
    len(manifest['languages']),
    manifest['babel'],
  )
  path = vocabulary.build_default()
  logger.info('vocabulary: %d pieces, %s', features.VOCABULARY.vocab_size, path)


SOURCES: Mapping[str, Callable[[], None]] = {'cldr': _build_cldr}


def build_sources(names: Sequence[str]) -> None:
  """Builds each named source unless it is there.

  Raises:
    ValueError: an unknown name, before anything is built.
  """
  if unknown := sorted(set(names) - set(SOURCES)):
    raise ValueError(f'unknown sources {unknown}; known: {sorted(SOURCES)}')
  for name in names:
    logger.info('preparing %s', name)
    SOURCES[name]()


def tokenise(parts: Sequence[tuple[str | None, str]], prepared_dir: str | None) -> None:
  """Runs the preprocessing of mixtures once, into random-access files of token ids.

  Args:
    parts: pairs of a task or mixture and a split; pairs without a name are left out.
    prepared_dir: where to; None for the cache directory.
  """
  for name, split in dict.fromkeys(parts):
    if name is None:
      continue
    started = time.monotonic()
    directory = prepared_dir or storage.cache_dir() / 'prepared'
    tasks = prepared.ensure_prepared(name, split, directory)
    rows = sum(task.manifest.num_examples for task in tasks.values())
    logger.info(
      'prepared %s:%s: %s examples of %d tasks in %.1f s',
      name,
      split,
      f'{rows:,}',
      len(tasks),
      time.monotonic() - started,
    )

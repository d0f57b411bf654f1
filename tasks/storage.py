"""Where aya-train keeps what it makes: vocabularies, built data sets, prepared tasks."""

import os

from etils import epath

CACHE_ENV = 'AYA_TRAIN_CACHE'


def cache_dir() -> epath.Path:
  """The cache directory: env AYA_TRAIN_CACHE (may be gs://...), else ~/.cache/aya_train.

  Read anew at each call; nothing is created.
  """
  return epath.Path(os.environ.get(CACHE_ENV) or '~/.cache/aya_train').expanduser()


def vocabularies_dir() -> epath.Path:
  """Trained SentencePiece files and their manifests."""
  return cache_dir() / 'vocabularies'


def tfds_dir() -> epath.Path:
  """Default TFDS data_dir of the builders of this package."""
  return cache_dir() / 'tensorflow_datasets'

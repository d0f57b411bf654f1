"""Where aya-train keeps what it makes, and how a file gets there whole."""

import os
import uuid

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


def write_atomically(path: epath.Path, content: str | bytes) -> None:
  """Writes a file whole or not at all; several writers do not disturb each other.

  The content goes to a hidden `.NAME.<random>.partial` in the same folder, which takes the name
  when it is complete.
  """
  partial = path.parent / f'.{path.name}.{uuid.uuid4().hex}.partial'
  data = content.encode() if isinstance(content, str) else content
  try:
    partial.write_bytes(data)
    partial.replace(path)
  except BaseException:
    partial.unlink(missing_ok=True)  # On a full disk it would keep it full.
    raise

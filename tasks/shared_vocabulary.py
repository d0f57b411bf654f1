"""The vocabulary of a run: which SentencePiece file is in force, opened at its first use.

Without SeqIO, and so without TensorFlow, which takes seconds to import: what encodes prompts and
decodes answers needs neither. Tasks have the same vocabulary as SeqIO's in features.py.
"""

import functools
import os
import sys
import threading
from collections.abc import Iterable
from typing import NamedTuple

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from aya_train import path_facts
from aya_train.tasks import storage

VOCABULARY_ENV = 'AYA_TRAIN_VOCABULARY'
DEFAULT_VOCABULARY = 'cldr.4000.100extra.model'
PAD_ID = 0

_chosen: str | None = None
_loading = threading.Lock()  # SentencePiece must not load two models at a time


class Opened(NamedTuple):
  """What a SentencePiece file holds; named as SeqIO names it.

  Attributes:
    tokenizer: encodes and decodes.
    sp_model: the model as SeqIO serialises it, of which fingerprints are taken.
  """

  tokenizer: sentencepiece.SentencePieceProcessor
  sp_model: bytes


def set_vocabulary(path: str | os.PathLike[str] | None) -> None:
  """Makes every task use the SentencePiece file at `path`, also tasks registered already.

  None returns to the default order: env AYA_TRAIN_VOCABULARY, else the file that
  `aya-train prepare cldr` trains. The file is opened at first use, not here.
  """
  global _chosen
  _chosen = None if path is None else os.path.expanduser(os.fspath(path))


def chosen() -> str | None:
  """What `set_vocabulary` was given last."""
  return _chosen


def vocabulary_file() -> str:
  """Path of the SentencePiece file in force; nothing is opened."""
  if _chosen is not None:
    return _chosen
  if path := os.environ.get(VOCABULARY_ENV):
    return os.path.expanduser(path)
  return str(storage.vocabularies_dir() / DEFAULT_VOCABULARY)


def opened() -> Opened:
  """The file in force, read once.

  Raises:
    FileNotFoundError: it is missing.
    ValueError: it is no SentencePiece model.
  """
  with _loading:
    return _load(vocabulary_file(), _origin())


def _origin() -> str:
  if _chosen is not None:
    return 'set_vocabulary or the gin macro VOCABULARY_FILE'
  return VOCABULARY_ENV if os.environ.get(VOCABULARY_ENV) else 'the default'


@functools.lru_cache(maxsize=8)
def _load(path: str, origin: str) -> Opened:
  if not path_facts.exists(path):
    raise FileNotFoundError(
      f'no SentencePiece file at {path} (named by {origin}). `aya-train prepare cldr` trains the '
      f"default one; for mT5's own, give VOCABULARY_FILE or {VOCABULARY_ENV} the path of "
      'mc4.250000.100extra/sentencepiece.model'
    )
  if path_facts.is_dir(path):
    raise ValueError(
      f'{path} (named by {origin}) is a folder: give the SentencePiece file in it, such as '
      'sentencepiece.model'
    )
  try:
    content = storage.epath.Path(path).read_bytes()
    model = sentencepiece.SentencePieceProcessor(model_proto=content)
    if model.get_piece_size() < 3:
      raise RuntimeError('it holds no pieces')
    serialised = sentencepiece_model_pb2.ModelProto.FromString(content).SerializeToString()
  except _unreadable() as error:
    raise ValueError(
      f'{path} (named by {origin}) is no SentencePiece model ({_said(error)}): give the file '
      'itself, such as mc4.250000.100extra/sentencepiece.model'
    ) from error
  return Opened(model, serialised)


def _unreadable() -> tuple[type[Exception], ...]:
  """Errors of reading; TensorFlow's where it is imported, as it is where it reads buckets."""
  tensorflow = sys.modules.get('tensorflow')
  return (OSError, RuntimeError, *(() if tensorflow is None else (tensorflow.errors.OpError,)))


def _said(error: Exception) -> str:
  """What a reader says, without the place in its C++ sources."""
  said = str(error).splitlines()[0]
  return 'it cannot be parsed' if '.cc(' in said else said


class TextVocabulary:
  """The SentencePiece vocabulary in force, looked up at each use, for texts outside tf.data.

  Its methods are those of a SeqIO vocabulary, and give the same. extra_ids is 0: as in mT5's file,
  the 100 sentinels are inside. All of them are equal; a pickle read in another process brings the
  chosen path along.

  Raises:
    FileNotFoundError: at first use, when the file is missing.
  """

  extra_ids = 0
  pad_id = PAD_ID

  @property
  def sentencepiece_model_file(self) -> str:
    """Path of the file."""
    return vocabulary_file()

  @property
  def sp_model(self) -> bytes:
    """The serialised model."""
    return opened().sp_model

  @property
  def tokenizer(self) -> sentencepiece.SentencePieceProcessor:
    """SentencePiece's own."""
    return opened().tokenizer

  @property
  def vocab_size(self) -> int:
    """Ids there are."""
    return self.tokenizer.get_piece_size()

  @property
  def bos_id(self) -> int:
    """-1 where there is none, as in mT5."""
    return self.tokenizer.bos_id()

  @property
  def eos_id(self) -> int:
    """End of sequence."""
    return self.tokenizer.eos_id()

  @property
  def unk_id(self) -> int:
    """What stands for ids that there are not."""
    return self.tokenizer.unk_id()

  def encode(self, text: str) -> list[int]:
    """Ids of a text, without an end of sequence."""
    return self.tokenizer.encode(text)

  def decode(self, ids: Iterable[int]) -> str:
    """The text of ids up to the first end of sequence."""
    tokenizer = self.tokenizer
    size, unknown, end = tokenizer.get_piece_size(), tokenizer.unk_id(), tokenizer.eos_id()
    known = [unknown if i >= size else int(i) for i in ids]
    return tokenizer.decode(known[: known.index(end) + 1] if end in known else known)

  def __eq__(self, other: object) -> bool:
    return isinstance(other, TextVocabulary)

  __hash__ = None  # type: ignore[assignment]

  def __reduce__(self):
    return _restore, (_chosen,)

  def __repr__(self) -> str:
    return f'TextVocabulary(file={vocabulary_file()})'


def bring(path: str | None) -> None:
  """Chooses what another process had chosen, where nothing is chosen here."""
  if path is not None and _chosen is None:
    set_vocabulary(path)


def _restore(path: str | None) -> TextVocabulary:
  bring(path)
  return TextVocabulary()

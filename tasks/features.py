"""Output features that all tasks share: one vocabulary, resolved when it is first used."""

import functools
import os
from collections.abc import Mapping

import sentencepiece
import seqio
import tensorflow as tf

from aya_train.tasks import storage

VOCABULARY_ENV = 'AYA_TRAIN_VOCABULARY'
DEFAULT_VOCABULARY = 'cldr.4000.100extra.model'

_chosen: str | None = None


def set_vocabulary(path: str | os.PathLike[str] | None) -> None:
  """Makes every task use the SentencePiece file at `path`, also tasks registered already.

  None returns to the default order: env AYA_TRAIN_VOCABULARY, else the file that
  `aya-train prepare cldr` trains. The file is opened at first use, not here.
  """
  global _chosen
  _chosen = None if path is None else os.path.expanduser(os.fspath(path))


def vocabulary_file() -> str:
  """Path of the SentencePiece file in force; nothing is opened."""
  if _chosen is not None:
    return _chosen
  if path := os.environ.get(VOCABULARY_ENV):
    return os.path.expanduser(path)
  return str(storage.vocabularies_dir() / DEFAULT_VOCABULARY)


def _origin() -> str:
  if _chosen is not None:
    return 'set_vocabulary or the gin macro VOCABULARY_FILE'
  return VOCABULARY_ENV if os.environ.get(VOCABULARY_ENV) else 'the default'


@functools.lru_cache(maxsize=8)
def _load(path: str, origin: str) -> seqio.SentencePieceVocabulary:
  if not storage.epath.Path(path).exists():
    raise FileNotFoundError(
      f'no SentencePiece file at {path} (named by {origin}). `aya-train prepare cldr` trains the '
      f"default one; for mT5's own, give VOCABULARY_FILE or {VOCABULARY_ENV} the path of "
      'mc4.250000.100extra/sentencepiece.model'
    )
  if storage.epath.Path(path).is_dir():
    raise ValueError(
      f'{path} (named by {origin}) is a folder: give the SentencePiece file in it, such as '
      'sentencepiece.model'
    )
  try:
    content = storage.epath.Path(path).read_bytes()
    model = sentencepiece.SentencePieceProcessor(model_proto=content)
    if model.get_piece_size() < 3:
      raise RuntimeError('it holds no pieces')
  except (OSError, RuntimeError, tf.errors.OpError) as error:
    raise ValueError(
      f'{path} (named by {origin}) is no SentencePiece model ({_said(error)}): give the file '
      'itself, such as mc4.250000.100extra/sentencepiece.model'
    ) from error
  return seqio.SentencePieceVocabulary(path, extra_ids=0)


def _said(error: Exception) -> str:
  """What a reader says, without the place in its C++ sources."""
  said = str(error).splitlines()[0]
  return 'it cannot be parsed' if '.cc(' in said else said


class SharedVocabulary(seqio.SentencePieceVocabulary):
  """The SentencePiece vocabulary in force, looked up at each use (see `set_vocabulary`).

  extra_ids is 0: as in mT5's file, the 100 sentinels are inside. Copies and pickles give back
  `VOCABULARY` itself, since gin copies the arguments of configurables; a pickle read in another
  process brings the chosen path along.

  Raises:
    FileNotFoundError: at first use, when the file is missing.
  """

  def __init__(self):
    super().__init__(sentencepiece_model_file='', extra_ids=0)

  @property
  def sentencepiece_model_file(self) -> str:
    return vocabulary_file()

  def _model_context(self):
    return _load(vocabulary_file(), _origin())._model_context()

  def __eq__(self, other: object) -> bool:
    if isinstance(other, SharedVocabulary):
      return True
    if not isinstance(other, seqio.SentencePieceVocabulary):
      return False
    return other.extra_ids == 0 and other.sentencepiece_model_file == vocabulary_file()

  __hash__ = None  # type: ignore[assignment]  # as its base class: what it equals can change

  def __reduce__(self):
    return _restore, (_chosen,)

  def __repr__(self) -> str:
    return f'SharedVocabulary(file={vocabulary_file()})'


def _restore(chosen: str | None) -> SharedVocabulary:
  if chosen is not None and _chosen is None:
    set_vocabulary(chosen)
  return VOCABULARY


VOCABULARY = SharedVocabulary()

OUTPUT_FEATURES = {
  'inputs': seqio.Feature(vocabulary=VOCABULARY, add_eos=True),
  'targets': seqio.Feature(vocabulary=VOCABULARY, add_eos=True),
}


def tokenize(
  dataset: tf.data.Dataset, output_features: Mapping[str, seqio.Feature]
) -> tf.data.Dataset:
  """`seqio.preprocessors.tokenize`, after opening the vocabulary.

  Inside tf.data its FileNotFoundError would come out as a traceback of the graph compiler.
  """
  VOCABULARY.load_model()
  return seqio.preprocessors.tokenize(dataset, output_features)


# The last preprocessors of every task: text to int32 ids, trimmed to the sequence length, then
# EOS (1). The text stays as inputs_pretokenized and targets_pretokenized, for metrics.
TOKENIZE_AND_APPEND_EOS = (
  tokenize,
  seqio.CacheDatasetPlaceholder(),
  seqio.preprocessors.append_eos_after_trim,
)

"""Output features that all tasks share: one vocabulary, resolved when it is first used."""

import os
from collections.abc import Mapping

import seqio
import tensorflow as tf

from aya_train.tasks import shared_vocabulary

VOCABULARY_ENV = shared_vocabulary.VOCABULARY_ENV
DEFAULT_VOCABULARY = shared_vocabulary.DEFAULT_VOCABULARY


def set_vocabulary(path: str | os.PathLike[str] | None) -> None:
  """See `shared_vocabulary.set_vocabulary`."""
  shared_vocabulary.set_vocabulary(path)


def vocabulary_file() -> str:
  """Path of the SentencePiece file in force; nothing is opened."""
  return shared_vocabulary.vocabulary_file()


class SharedVocabulary(seqio.SentencePieceVocabulary):
  """The SentencePiece vocabulary in force, looked up at each use (see shared_vocabulary.py).

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
    return shared_vocabulary.opened()

  def __eq__(self, other: object) -> bool:
    if isinstance(other, SharedVocabulary):
      return True
    if not isinstance(other, seqio.SentencePieceVocabulary):
      return False
    return other.extra_ids == 0 and other.sentencepiece_model_file == vocabulary_file()

  __hash__ = None  # type: ignore[assignment]  # as its base class: what it equals can change

  def __reduce__(self):
    return _restore, (shared_vocabulary.chosen(),)

  def __repr__(self) -> str:
    return f'SharedVocabulary(file={vocabulary_file()})'


def _restore(chosen: str | None) -> SharedVocabulary:
  shared_vocabulary.bring(chosen)
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

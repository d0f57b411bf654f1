"""Texts outside tf.data have the ids of SeqIO's vocabulary, which tasks have."""

import copy
import pickle

import pytest
import seqio

from aya_train.data import fingerprints
from aya_train.tasks import features, shared_vocabulary
from tests.checkpoint import small_model

TEXT = shared_vocabulary.TextVocabulary()


@pytest.fixture
def seqios(vocabulary_file):
  features.set_vocabulary(vocabulary_file)
  yield seqio.SentencePieceVocabulary(str(vocabulary_file), extra_ids=0)
  features.set_vocabulary(None)


def test_ids_texts_and_fingerprint_are_seqios(seqios):
  for text in (*small_model.CORPUS, '', ' ', 'a  b ', '<extra_id_0> x', '\u0000', '🦆'):
    ids = seqios.encode(text)
    assert TEXT.encode(text) == ids
    assert TEXT.decode(ids) == seqios.decode(ids)
  size = seqios.vocab_size
  for ids in ([5, 1, 6], [1], [], [0, 7, 0], [size, 9, size + 7], [2, 3], [size - 1, 8]):
    assert TEXT.decode(ids) == seqios.decode(ids)
  for name in ('vocab_size', 'extra_ids', 'pad_id', 'eos_id', 'unk_id', 'bos_id', 'sp_model'):
    assert getattr(TEXT, name) == getattr(seqios, name)
  assert fingerprints.of_vocabulary(TEXT) == fingerprints.of_vocabulary(seqios)
  assert fingerprints.of_vocabulary(TEXT) == fingerprints.of_vocabulary(features.VOCABULARY)


def test_one_model_is_in_memory_for_models_and_tasks(seqios):
  assert features.VOCABULARY.tokenizer is TEXT.tokenizer


def test_copies_are_equal_and_a_pickle_brings_the_choice(seqios):
  chosen = shared_vocabulary.chosen()
  pickled = pickle.dumps(TEXT)
  assert copy.deepcopy(TEXT) == TEXT
  features.set_vocabulary(None)
  assert pickle.loads(pickled) == TEXT
  assert shared_vocabulary.chosen() == chosen


def test_a_missing_file_is_named(tmp_path):
  features.set_vocabulary(tmp_path / 'none.model')
  try:
    with pytest.raises(FileNotFoundError, match=r'none\.model.*VOCABULARY_FILE'):
      _ = TEXT.vocab_size
  finally:
    features.set_vocabulary(None)

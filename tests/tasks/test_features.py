"""The shared vocabulary: which file is in force, and that copies stay the one vocabulary."""

import copy
import pickle

import pytest
import seqio

from aya_train.tasks import features
from aya_train.tasks.cldr import cldr_rows, vocabulary


def test_the_chosen_file_beats_the_environment_beats_the_cache(cache, monkeypatch):
  assert features.vocabulary_file() == str(cache / 'vocabularies' / features.DEFAULT_VOCABULARY)
  monkeypatch.setenv(features.VOCABULARY_ENV, '/from/env')
  assert features.vocabulary_file() == '/from/env'
  features.set_vocabulary('/chosen')
  assert features.vocabulary_file() == '/chosen'
  features.set_vocabulary(None)
  assert features.vocabulary_file() == '/from/env'


def test_a_missing_file_is_named_with_its_origin_and_the_command(cache, tmp_path):
  features.set_vocabulary(tmp_path / 'none.model')
  with pytest.raises(FileNotFoundError, match=r'none\.model.*VOCABULARY_FILE.*aya-train prepare'):
    _ = features.VOCABULARY.vocab_size
  task = seqio.get_mixture_or_task('cldr.yor')
  with pytest.raises(FileNotFoundError, match=r'none\.model'):
    task.get_dataset(None, 'train')


def test_tasks_registered_before_follow_a_later_choice(cache, tmp_path):
  task = seqio.get_mixture_or_task('cldr.eng')
  before = next(iter(task.get_dataset(None, 'train', shuffle=False).as_numpy_iterator()))
  path = tmp_path / 'small.model'
  texts = [row.inputs for row in cldr_rows.rows(['nya'])]
  vocabulary.train_sentencepiece(texts, path, 480)
  features.set_vocabulary(path)
  after = next(iter(task.get_dataset(None, 'train', shuffle=False).as_numpy_iterator()))
  assert task.output_features['inputs'].vocabulary.vocab_size == 480
  assert before['inputs_pretokenized'] == after['inputs_pretokenized']
  assert before['inputs'].tolist() != after['inputs'].tolist()
  assert after['inputs'].max() < 480


def test_copies_and_pickles_are_the_shared_vocabulary(cache):
  feature = features.OUTPUT_FEATURES['inputs']
  assert copy.deepcopy(features.OUTPUT_FEATURES)['inputs'].vocabulary is features.VOCABULARY
  assert pickle.loads(pickle.dumps(feature)) == feature


def test_equal_to_a_plain_vocabulary_of_the_same_file_only(cache):
  path = features.vocabulary_file()
  shared, plain = features.VOCABULARY, seqio.SentencePieceVocabulary
  assert shared == plain(path)
  assert plain(path) == shared
  assert shared != plain('/another')
  assert shared != plain(path, extra_ids=100)
  assert shared != seqio.ByteVocabulary()


def test_a_pickle_brings_the_choice_to_a_process_without_one(cache):
  features.set_vocabulary('/chosen')
  pickled = pickle.dumps(features.OUTPUT_FEATURES)
  features.set_vocabulary(None)
  pickle.loads(pickled)
  assert features.vocabulary_file() == '/chosen'
  features.set_vocabulary('/chosen/here')
  pickle.loads(pickled)
  assert features.vocabulary_file() == '/chosen/here'

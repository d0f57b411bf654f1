"""A folder of CTranslate2 answers as the model of ours that it was made of."""

import numpy as np
import pytest
import seqio

from aya_train import ct2_answers, ct2_library, model_answers, partitioning
from aya_train.checkpoint import formats, reading
from aya_train.checkpoint.hf import hf_export
from aya_train.models import network
from aya_train.objectives import seq2seq
from tests.checkpoint import small_model

GREEDY = {'function': 'temperature_sample', 'draws': False, 'temperature': 0.0}


@pytest.fixture(scope='module')
def both(vocabulary_file, tmp_path_factory):
  pytest.importorskip('ctranslate2', reason='needs the extra `quantised`')
  from aya_train.export import ct2_model

  config = small_model.config(scan_layers=False)
  folder = tmp_path_factory.mktemp('both')
  hf = hf_export.export(small_model.random_params(config), config, vocabulary_file, folder / 'hf')
  ct2 = ct2_model.to_ctranslate2(hf, folder / 'ct2', quantisation='float32')
  vocabulary = seqio.SentencePieceVocabulary(str(vocabulary_file))
  model = seq2seq.EncoderDecoderModel(network.Transformer(config), vocabulary, vocabulary)
  ours = model_answers.ModelAnswers(model, partitioning.one_device(), 3, seed=0)
  ours.params = reading.read_for(model, partitioning.one_device(), formats.detect(hf))
  return ours, ct2, vocabulary


def ids(vocabulary, text, end):
  return np.array([*vocabulary.encode(text), *([1] if end else [])], np.int32)


def test_greedy_answers_and_scores_are_the_same(both):
  ours, folder, vocabulary = both
  assert ct2_library.is_folder(folder)
  theirs = ct2_answers.Ct2Answers(folder, vocabulary, 3, ct2_answers.options_of(GREEDY))
  inputs = [ids(vocabulary, text, True) for text in ('coffee', 'Ko sí ìdádúró', '학생')]
  options = {'limit': 32, 'max_decode_length': 8}
  for mine, other in zip(
    ours.generate(inputs, [0, 1, 2], **options),
    theirs.generate(inputs, [0, 1, 2], **options),
    strict=True,
  ):
    assert mine.tokens == other.tokens
    assert mine.score == pytest.approx(other.score, rel=1e-4)
  for end in (True, False):
    targets = [ids(vocabulary, text, end) for text in ('tea', 'cups of <tea>')]
    targets += [] if end else [np.zeros(0, np.int32)]
    asked = [model_answers.Scored(inputs[0], targets), model_answers.Scored(inputs[2], targets[:1])]
    for mine, other in zip(ours.score(asked, limit=32), theirs.score(asked, limit=32), strict=True):
      np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)


def test_another_vocabulary_is_refused(both):
  _, folder, _ = both
  with pytest.raises(ValueError, match=r'the vocabulary has \d+ ids, and the model'):
    ct2_answers.Ct2Answers(folder, seqio.PassThroughVocabulary(10_000, eos_id=1), 3, {})


def test_ways_of_decoding_have_names_of_ctranslate2():
  beams = {'function': 'hf_beam_search', 'num_decodes': 4, 'length_penalty': 0.6}
  assert ct2_answers.options_of({**beams, 'repetition_penalty': 1.2}) == {
    'beam_size': 4,
    'length_penalty': 0.6,
    'min_decoding_length': 0,
    'repetition_penalty': 1.2,
    'no_repeat_ngram_size': 0,
  }
  with pytest.raises(ValueError, match='does not answer by'):
    ct2_answers.options_of({'function': 'beam_search', 'alpha': 0.6})

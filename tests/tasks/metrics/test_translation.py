"""BLEU, spBLEU and chrF++: sacrebleu's own values, intervals, and no download."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import sacrebleu
import sentencepiece

from aya_train.tasks.metrics import exact_match, translation
from tests.tasks.metrics import sib_texts

REFERENCES = ['The cat sat on the mat today.', 'She reads 3 long books.', 'It rains.'] * 8
ANSWERS = ['A cat sat on the mat.', 'She reads three long books.', 'It is raining.'] * 8
PIECES = sib_texts.SHARED / 'afriteva_vocab/sentencepiece.bpe.model'


def one_each(texts):
  return [[text] for text in texts]


def test_figures_are_those_of_sacrebleus_command(tmp_path):
  for name, texts in (('reference', REFERENCES), ('answer', ANSWERS)):
    (tmp_path / name).write_text('\n'.join(texts) + '\n')
  command = [sys.executable, '-m', 'sacrebleu', 'reference', '-i', 'answer', '-w', '6']
  command += ['-m', 'bleu', 'chrf', '--chrf-word-order', '2']
  done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
  bleu, chrf = json.loads(done.stdout)
  found = translation.bleu(one_each(REFERENCES), ANSWERS)
  found |= translation.chrf(one_each(REFERENCES), ANSWERS)
  assert found['bleu'] == pytest.approx(bleu['score'], abs=1e-5)
  assert found['chrf++'] == pytest.approx(chrf['score'], abs=1e-5)
  assert f'BLEU|{translation.signature("bleu")}'.split('|')[1:] == bleu['signature'].split('|')
  assert translation.signature('chrf++') == chrf['signature']


def test_intervals_are_like_sacrebleus_own():
  metric = sacrebleu.CHRF(word_order=2)
  theirs = metric.corpus_score(ANSWERS, [REFERENCES], n_bootstrap=1000)
  found = translation.chrf(one_each(REFERENCES), ANSWERS)
  half = (found['chrf++_high'] - found['chrf++_low']) / 2
  assert half == pytest.approx(theirs._ci, rel=0.15)


def test_several_references_count_together_and_may_be_of_different_number():
  found = translation.bleu([['a b c d e', 'v w x y z'], ['f g h i j']], ['v w x y z', 'f g h i j'])
  assert found['bleu'] == pytest.approx(100.0)
  theirs = sacrebleu.corpus_chrf(['v w x', 'f g'], [['a b c', 'f g h'], ['v w x y', None]])
  ours = translation.chrf([['a b c', 'v w x y'], ['f g h']], ['v w x', 'f g'], word_order=0)
  assert ours['chrf'] == pytest.approx(theirs.score)


@sib_texts.needs_them
@pytest.mark.parametrize('language', ['amh_Ethi', 'mya_Mymr', 'arb_Arab', 'zho_Hans', 'khm_Khmr'])
def test_chrf_is_100_for_the_reference_and_low_for_another_sentence(language):
  texts = sib_texts.texts(language)[:20]
  assert translation.chrf(one_each(texts), texts)['chrf++'] == pytest.approx(100.0)
  assert translation.chrf(one_each(texts), texts[1:] + texts[:1])['chrf++'] < 25


@sib_texts.needs_them
@pytest.mark.parametrize('language', ['khm_Khmr', 'zho_Hans', 'yor_Latn'])
def test_a_perfect_answer_in_the_form_that_mt5_can_write_scores_100_normalized(language):
  texts = sib_texts.texts(language)[:20]
  written = [exact_match.normalize(text) for text in texts]
  found = translation.chrf(one_each(texts), written)
  assert found['chrf++'] < 99 and found['chrf++_normalized'] == pytest.approx(100.0)
  assert found['chrf++_normalized_low'] == found['chrf++_normalized_high']
  worse = translation.chrf(one_each(texts), [*written[:10], *written[:10]])
  assert worse['chrf++'] < worse['chrf++_normalized'] < 75
  plain = translation.bleu(one_each(['a b c d e']), ['a b c d f'])
  assert plain['bleu'] == plain['bleu_normalized']


def test_without_its_file_spbleu_says_so_and_fetches_nothing(monkeypatch, tmp_path):
  monkeypatch.setenv('SACREBLEU', str(tmp_path))
  monkeypatch.delenv(translation.FLORES_ENV, raising=False)
  monkeypatch.setattr('socket.socket.connect', lambda *_: pytest.fail('a connection'))
  assert not translation.has_flores_tokenizer()
  with pytest.raises(FileNotFoundError, match=r'SentencePiece file of flores200.*FLORES200_SPM'):
    translation.spbleu([['a']], ['a'])
  assert {'bleu', 'chrf++'} <= {*translation.translation([['a b c d']], ['a b c d'])}


def test_a_named_file_that_is_not_there_or_no_model_is_told_and_bleu_is_not_given_instead(
  monkeypatch, tmp_path
):
  file = tmp_path / 'flores.model'
  monkeypatch.setenv(translation.FLORES_ENV, str(file))
  with pytest.raises(FileNotFoundError, match=r'none at .*flores\.model: put it there'):
    translation.translation([['a b c d']], ['a b c d'])
  file.write_text('<html>not found</html>')
  with pytest.raises(ValueError, match=r'flores\.model is no SentencePiece model.*FLORES200_SPM'):
    translation.translation([['a b c d']], ['a b c d'])


@pytest.mark.skipif(not PIECES.exists(), reason='no vocabulary beside the checkout')
@pytest.mark.parametrize('place', ['env', 'cache'])
def test_spbleu_is_bleu_over_pieces_of_the_file(monkeypatch, tmp_path, place):
  file = PIECES
  monkeypatch.setenv('SACREBLEU', str(tmp_path))
  if place == 'env':
    monkeypatch.setenv(translation.FLORES_ENV, str(file))
  else:
    monkeypatch.delenv(translation.FLORES_ENV, raising=False)
    (tmp_path / 'models').mkdir()
    (tmp_path / 'models/flores200sacrebleuspm').symlink_to(file)
  model = sentencepiece.SentencePieceProcessor(model_file=str(file))
  cut = lambda texts: [' '.join(model.encode(text, out_type=str)) for text in texts]
  expected = sacrebleu.corpus_bleu(cut(ANSWERS), [cut(REFERENCES)], tokenize='none', force=True)
  found = translation.translation(one_each(REFERENCES), ANSWERS)
  assert found['spbleu'] == pytest.approx(expected.score)
  assert found['spbleu_low'] <= found['spbleu'] <= found['spbleu_high']
  assert 'tok:flores200' in translation.signature('spbleu')


def test_systems_are_compared_on_the_same_sentences():
  better = [*REFERENCES[:12], *ANSWERS[12:]]
  found = translation.compare(one_each(REFERENCES), better, ANSWERS)
  assert 0 < found.low < found.difference < found.high and found.p_value < 0.01
  same = translation.compare(one_each(REFERENCES), ANSWERS, ANSWERS, 'bleu')
  assert (same.difference, same.p_value) == (0.0, 1.0)


def test_nothing_to_score_is_defined():
  assert translation.chrf([], []) == {}
  assert translation.chrf([[]], ['a']) == {'without_reference': 1.0}
  one = translation.chrf([['abc']], [''])
  assert one['chrf++'] == one['chrf++_low'] == 0.0
  assert translation.sentence('bleu', [], 'a') == 0.0
  assert np.isclose(translation.sentence('chrf++', ['same'], 'same'), 100.0)
  with pytest.raises(ValueError, match="'ter' is none of"):
    translation.sentence('ter', ['a'], 'a')


def test_signature_files_are_where_sacrebleu_keeps_them(monkeypatch):
  monkeypatch.delenv('SACREBLEU', raising=False)
  monkeypatch.delenv(translation.FLORES_ENV, raising=False)
  home = pathlib.Path.home() / '.sacrebleu/models'
  assert translation.spm_file() == home / 'flores200sacrebleuspm'

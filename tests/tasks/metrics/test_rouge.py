"""ROUGE: rouge-score's own values in English, and sensible ones in every other language."""

import pytest
from rouge_score import rouge_scorer

from aya_train.tasks.metrics import rouge
from tests.tasks.metrics import sib_texts

ENGLISH = (
  "The cat's owner didn't come home.\nShe was in the U.S. for 3.5 weeks.",
  'The owner of the cat was in the U.S.\nShe did not come home for weeks.',
)


def test_in_english_the_values_are_those_of_rouge_score():
  stock = rouge_scorer.RougeScorer(rouge.TYPES).score(*ENGLISH)
  assert rouge.score(*ENGLISH) == {name: stock[name].fmeasure for name in rouge.TYPES}
  assert rouge.score(*ENGLISH)['rougeLsum'] != rouge.score(*ENGLISH)['rougeL']


@sib_texts.needs_them
def test_in_every_language_a_text_is_like_itself_and_unlike_another():
  stock = rouge_scorer.RougeScorer(['rougeL'])
  unseen = []
  for language in sib_texts.languages():
    one, other, *_ = sib_texts.texts(language)
    assert rouge.score(one, one) == dict.fromkeys(rouge.TYPES, 1.0), language
    assert rouge.score(one, other)['rougeL'] < 0.5, language
    half = one[: len(one) // 2]
    assert 0.3 < rouge.score(one, half)['rougeLsum'] < 0.95, language
    if stock.score(one, one)['rougeL'].fmeasure == 0:
      unseen.append(language)
  assert {'amh_Ethi', 'arb_Arab', 'hin_Deva', 'rus_Cyrl'} <= {*unseen}


def test_the_best_of_several_references_counts():
  found = rouge.rouge([['a b c', 'x y z'], ['a b c']], ['x y z', 'q'])
  assert (found['rouge1'], found['rougeLsum']) == (50.0, 50.0)
  assert found['rouge1_low'] == 0.0 and found['rouge1_high'] == 100.0


@pytest.mark.parametrize(
  ('reference', 'prediction', 'expected'),
  [('', '', 1.0), ('?!', '?!', 1.0), ('', 'a', 0.0), ('a', '', 0.0), ('?', '!', 0.0)],
)
def test_texts_without_words_are_defined(reference, prediction, expected):
  assert set(rouge.score(reference, prediction).values()) == {expected}


def test_examples_without_references_are_counted():
  assert rouge.rouge([[]], ['a']) == {'without_reference': 1.0}

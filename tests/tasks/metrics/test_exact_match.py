"""Exact match: what counts as equal, and the sums over languages."""

import pytest

from aya_train.tasks.metrics import exact_match


@pytest.mark.parametrize(
  ('target', 'prediction'),
  [
    ('Oṣù Ẹ̀bibi', ' Oṣù Ẹ̀bibi '),  # composed, decomposed
    ('1\u202f234,5', '1 234,5'),
    ('กำ', 'กํา'),  # Thai sara am as the tokenizer leaves it
    ('သည\u103a\u1037', 'သည\u1037\u103a'),  # two marks, typed in either order
    ('\u05e9\u05c1\u05b8', '\u05e9\u05b8\u05c1'),
  ],
)
def test_spellings_that_the_tokenizer_cannot_tell_apart_match(target, prediction):
  assert target != prediction
  assert exact_match.exact_match([target], [prediction]) == {'exact_match': 100.0}


@pytest.mark.parametrize('prediction', ['', 'faranse', 'Faranse.', 'Faran se'])
def test_other_texts_do_not_match(prediction):
  assert exact_match.exact_match(['Faranse'], [prediction]) == {'exact_match': 0.0}


def test_by_language_the_overall_is_over_examples_not_languages():
  targets = [('yor', 'a'), ('yor', 'b'), ('yor', 'c'), ('amh', 'd')]
  predictions = [('yor', 'a'), ('yor', 'x'), ('yor', 'x'), ('amh', 'd')]
  assert exact_match.exact_match_by_language(targets, predictions) == {
    'exact_match': 50.0,
    'exact_match/amh': 100.0,
    'exact_match/yor': pytest.approx(100 / 3),
  }


def test_a_missing_prediction_is_an_error():
  with pytest.raises(ValueError, match='shorter'):
    exact_match.exact_match(['a', 'b'], ['a'])
  with pytest.raises(ValueError, match='shorter'):
    exact_match.exact_match_by_language([('yor', 'a')], [])


def test_postprocess_carries_the_language():
  assert exact_match.with_language('x', example={'language_code': b'yor'}) == ('yor', 'x')
  with pytest.raises(ValueError, match='language_code'):
    exact_match.with_language('x', example={'inputs': 'y'}, is_target=True)


def test_accuracy_takes_any_reference_and_has_an_interval():
  found = exact_match.accuracy([['a', 'Ẹ̀'], 'b', []], ['Ẹ̀', 'c', 'd'])
  assert (found['accuracy'], found['without_reference']) == (50.0, 1.0)
  assert (found['accuracy_low'], found['accuracy_high']) == (0.0, 100.0)


@pytest.mark.parametrize(
  'answer', ['Science/technology', ' "science/technology". ', '「science/technology」']
)
def test_labels_are_compared_without_case_and_outer_punctuation(answer):
  assert exact_match.label_accuracy([['science/technology']], [answer])['accuracy'] == 100.0
  assert exact_match.label_accuracy([['travel']], [answer])['accuracy'] == 0.0
  assert exact_match.label_accuracy([['?']], ['!'])['accuracy'] == 0.0

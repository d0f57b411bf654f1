"""Length and repetition of answers."""

import numpy as np
import pytest

from aya_train.tasks.metrics import answer_shape


def test_lengths_are_in_characters_and_in_tokens_of_a_vocabulary():
  answers = ['moja mbili', ' ', 'ዘጠኝ', 'a b c d']
  found = answer_shape.lengths([['x' * 20], ['y'], ['ዘጠ'], []], answers, vocabulary=str.split)
  assert found['answer_characters'] == np.mean([10, 0, 3, 7])
  assert found['answer_characters_median'] == 5.0
  assert found['answer_tokens'] == np.mean([2, 0, 1, 4])
  assert found['empty'] == 25.0
  assert found['length_ratio'] == pytest.approx(13 / 23)
  assert found['answer_characters_median_low'] <= 5.0 <= found['answer_characters_median_high']


def test_the_median_has_an_interval_like_scipys():
  from scipy import stats

  texts = ['x' * int(n) for n in np.random.default_rng(0).gamma(2, 50, 101)]
  found = answer_shape.lengths([[]] * 101, texts)
  expected = stats.bootstrap(
    ([len(t) for t in texts],), np.median, method='percentile', rng=np.random.default_rng(1)
  ).confidence_interval
  assert found['answer_characters_median_low'] == pytest.approx(expected.low, abs=4)
  assert found['answer_characters_median_high'] == pytest.approx(expected.high, abs=4)
  assert 'length_ratio' not in found and 'answer_tokens' not in found


def test_no_answers_have_no_lengths_and_missing_ones_are_refused():
  assert answer_shape.lengths([], []) == answer_shape.repetition([], []) == {}
  with pytest.raises(ValueError, match='2 targets for 1 predictions'):
    answer_shape.lengths([[], []], ['a'])


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('one two three four', 0.0),
    ('one two', 0.0),
    ('a b c d ' * 3, 5 / 9),
    ('ฉันรักภาษาไทย' * 4, 9 / 13),
    ('我爱北京天安门' * 2, pytest.approx(0.2, abs=0.2)),
  ],
)
def test_repeated_ngrams_are_those_that_came_before(text, expected):
  assert answer_shape.repeated_ngrams(text) == pytest.approx(expected)


@pytest.mark.parametrize(
  'text', ['I do not know. ' * 5, 'Start of it: ' + 'ንዓ ' * 9, 'na ' * 7 + 'n', 'ha' * 10, '0' * 30]
)
def test_an_answer_that_says_one_thing_over_and_over_is_a_loop(text):
  assert answer_shape.is_loop(text)


@pytest.mark.parametrize(
  'text', ['', 'ha ha ha ha', 'one two three four five six seven', 'na ' * 9 + 'and then it ended']
)
def test_other_answers_are_none(text):
  assert not answer_shape.is_loop(text)


def test_repetition_is_a_share_of_answers():
  found = answer_shape.repetition([[], []], ['la ' * 30, 'a short and plain answer'])
  assert (found['loops'], found['repeated_4grams']) == (50.0, pytest.approx(50 * 26 / 27))

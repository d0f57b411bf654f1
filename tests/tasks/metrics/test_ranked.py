"""Ranked options in the form of SeqIO's rank_classification."""

import pytest

from aya_train.tasks.metrics import ranked

# Two questions of two options, out of order, with a row that comes again as padding.
TARGETS = [
  ((0, 0), True, 1.0, 10),
  ((1, 1), True, 1.0, 4),
  ((0, 1), False, 1.0, 2),
  ((1, 0), False, 1.0, 8),
  ((1, 0), False, 1.0, 8),
]


def test_the_option_with_the_highest_score_is_the_answer():
  found = ranked.accuracy(TARGETS, [-5.0, -3.0, -2.0, -4.0, -4.0])
  assert (found['accuracy'], found['ties']) == (50.0, 0.0)
  assert found['accuracy_low'] <= 50.0 <= found['accuracy_high']


def test_scores_by_length_are_reported_beside():
  found = ranked.accuracy_by_length(TARGETS, [-5.0, -3.0, -2.0, -4.0, -4.0])
  assert found['accuracy'] == 50.0
  assert found['accuracy_norm'] == 50.0  # -0.5 beats -1; -0.75 loses to -0.5


def test_of_equal_scores_the_first_option_is_taken_and_it_is_said():
  found = ranked.accuracy(TARGETS, [-1.0] * 5)
  assert (found['accuracy'], found['ties']) == (50.0, 100.0)
  assert ranked.pick([-1.0, -1.0]) == (0, True)
  assert ranked.pick([float('nan'), -9.0]) == (1, False)
  with pytest.raises(ValueError, match='no options'):
    ranked.pick([])


def test_questions_may_weigh_differently():
  heavy = [((0, 0), True, 3.0, 1), ((0, 1), False, 3.0, 1), *TARGETS[1:2], TARGETS[3]]
  assert ranked.accuracy(heavy, [0.0, -1.0, -9.0, -1.0])['accuracy'] == 75.0


def test_examples_become_rows():
  example = {'idx': [3, 1], 'is_correct': True, 'targets_pretokenized': 'ዘጠኝ'.encode()}
  assert ranked.postprocess('x', example, is_target=True) == ((3, 1), True, 1.0, 3)
  assert ranked.postprocess(-1.5, example, is_target=False) == -1.5
  with pytest.raises(ValueError, match='rank_classification'):
    ranked.postprocess('x', {'label': 1}, is_target=True)

"""Which passages are negatives: the definition, written out."""

import numpy as np
import pytest

from aya_train.embedding import hard_negatives


def slowly(rows, scores, positives, positive_score, choice):
  ranking = [(r, s) for r, s in zip(rows, scores, strict=True) if r not in positives]
  kept = []
  for place, (row, score) in enumerate(ranking):
    if not choice.range_min <= place < choice.range_max:
      continue
    if choice.max_share is not None:
      limit = choice.max_share * positive_score if positive_score > 0 else positive_score
      if score > limit:
        continue
    if choice.max_score is not None and score > choice.max_score:
      continue
    if choice.min_score is not None and score < choice.min_score:
      continue
    if choice.margin is not None and score > positive_score - choice.margin:
      continue
    kept.append(row)
  return kept[: choice.count]


@pytest.mark.parametrize(
  'options',
  [
    {},
    {'count': 4, 'range_min': 3, 'range_max': 9},
    {'count': 3, 'max_share': None},
    {'count': 3, 'max_share': 0.8, 'margin': 0.3, 'max_score': 0.5, 'min_score': 0.1},
  ],
)
def test_the_top_ones_are_the_definition(options):
  rng = np.random.default_rng(0)
  choice = hard_negatives.Choice(**options)
  for _ in range(50):
    scores = np.sort(rng.uniform(-1, 1, 30))[::-1]
    rows = rng.permutation(30)
    positives = {int(r) for r in rng.choice(30, 3)}
    positive_score = float(rng.uniform(-0.5, 1))
    found = hard_negatives.choose(rows, scores, positives, positive_score, choice)
    assert list(found.rows) == slowly(rows, scores, positives, positive_score, choice)
    assert not positives & {*found.rows}


def test_what_scores_as_the_positive_does_is_left_out():
  rows, scores = [1, 2, 3, 4], [0.99, 0.96, 0.94, 0.5]
  found = hard_negatives.choose(rows, scores, {9}, 1.0, hard_negatives.Choice(count=2))
  assert (list(found.rows), found.num_dropped) == ([3, 4], 2)
  below = hard_negatives.choose(rows, [-0.1, -0.3, -0.4, -0.5], {9}, -0.2, hard_negatives.Choice())
  assert list(below.rows) == [2]


def test_random_ones_follow_from_the_seed():
  rows, scores = list(range(50)), np.linspace(0.9, 0.1, 50)
  choice = hard_negatives.Choice(count=5, strategy='random')
  draw = lambda seed: hard_negatives.choose(rows, scores, {60}, 1.0, choice, seed).rows
  assert draw((0, 1)) == draw((0, 1)) != draw((0, 2))
  assert len({*draw((0, 1))}) == 5


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'count': 0}, '--num_negatives must be at least 1'),
    ({'range_min': 5, 'range_max': 5}, '0 <= min < max'),
    ({'count': 3, 'range_max': 2}, 'fewer than the 3'),
    ({'max_share': 0.0}, '--max_share must be positive'),
    ({'strategy': 'best'}, '--strategy must be one of'),
  ],
)
def test_choices_that_mean_nothing_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    hard_negatives.Choice(**options)

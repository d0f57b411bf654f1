"""Bootstrap intervals: against SciPy's, deterministic, and defined for few examples."""

import numpy as np
import pytest
from scipy import stats

from aya_train.tasks.metrics import intervals

SCORES = np.random.default_rng(3).gamma(2.0, 10.0, 200)
HITS = (np.arange(150) % 3 == 0).astype(float)


@pytest.mark.parametrize('values', [SCORES, HITS], ids=['scores', 'hits'])
def test_the_mean_has_scipys_interval(values):
  expected = stats.bootstrap(
    (values,), np.mean, n_resamples=20_000, method='percentile', rng=np.random.default_rng(1)
  ).confidence_interval
  found = intervals.mean(values, resamples=20_000)
  width = expected.high - expected.low
  assert found == pytest.approx((expected.low, expected.high), abs=0.03 * width)


def test_a_quotient_of_sums_has_scipys_interval():
  above, below = SCORES, SCORES[::-1] + 5
  expected = stats.bootstrap(
    (above, below),
    lambda a, b, axis=-1: a.sum(axis) / b.sum(axis),
    paired=True,
    n_resamples=20_000,
    method='percentile',
    rng=np.random.default_rng(1),
  ).confidence_interval
  found = intervals.ratio('x', above, below)
  assert found['x'] == pytest.approx(above.sum() / below.sum())
  assert found['x_low'] == pytest.approx(expected.low, rel=0.02)
  assert found['x_high'] == pytest.approx(expected.high, rel=0.02)


def test_equal_scores_have_an_equal_interval_and_draws_do_not_depend_on_blocks(monkeypatch):
  once = intervals.named('f1', SCORES)
  assert once == intervals.named('f1', SCORES)
  assert once['f1_low'] < once['f1'] < once['f1_high']
  monkeypatch.setattr(intervals, '_CELLS', 1000)
  assert intervals.named('f1', SCORES) == once


def test_every_resample_draws_as_many_examples_as_there_are():
  assert (np.concatenate([*intervals.draws(17, 50)]).sum(1) == 17).all()


def test_one_example_has_an_interval_without_width_and_none_has_no_figure():
  assert intervals.percent('em', [True]) == {'em': 100.0, 'em_low': 100.0, 'em_high': 100.0}
  assert intervals.named('em', []) == intervals.ratio('x', [], []) == {}
  assert intervals.ratio('x', [1.0], [0.0]) == {}


def test_examples_of_a_group_are_drawn_together():
  groups = [str(i // 10) for i in range(200)]
  values = np.repeat(np.arange(20) % 2, 10)
  alone, together = intervals.mean(values), intervals.grouped(values, groups)
  assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_many_intervals_that_hold_together_are_wider():
  assert intervals.simultaneous_level(0.95, 101) == pytest.approx(1 - 0.05 / 101)
  assert intervals.simultaneous_level(0.95, 0) == 0.95

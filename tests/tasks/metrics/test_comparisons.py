"""Two systems: p values against SciPy's, corrections, and how often chance is a difference."""

import numpy as np
import pytest
from scipy import stats

from aya_train.tasks.metrics import comparisons

GENERATOR = np.random.default_rng(5)


def test_the_sign_flip_test_is_exact_where_few_pairs_differ():
  a, b = GENERATOR.normal(1, 1, 9), GENERATOR.normal(0, 1, 9)
  expected = stats.permutation_test(
    (a - b,), np.sum, permutation_type='samples', n_resamples=np.inf
  ).pvalue
  assert comparisons.sign_flip(a - b) == pytest.approx(expected)


def test_the_sign_flip_test_of_many_pairs_agrees_with_the_t_test():
  a = GENERATOR.normal(0.15, 1, 300)
  assert comparisons.sign_flip(a) == pytest.approx(stats.ttest_1samp(a, 0).pvalue, abs=0.01)


@pytest.mark.parametrize(('only_a', 'only_b'), [(0, 0), (7, 1), (30, 12), (500, 420), (3, 3)])
def test_mcnemar_is_the_binomial_test_of_what_one_system_alone_gets_right(only_a, only_b):
  a = [1] * only_a + [0] * only_b + [1, 0] * 10
  b = [0] * only_a + [1] * only_b + [1, 0] * 10
  count = only_a + only_b
  expected = stats.binomtest(only_a, count).pvalue if count else 1.0
  assert comparisons.mcnemar(a, b) == pytest.approx(expected)


def test_benjamini_hochberg_is_scipys_and_holm_is_never_smaller():
  values = GENERATOR.uniform(0, 0.2, 40) ** 2
  found = comparisons.benjamini_hochberg(values)
  assert found == pytest.approx(stats.false_discovery_control(values).tolist())
  strict = comparisons.holm(values)
  assert all(h >= b >= p for h, b, p in zip(strict, found, values, strict=True))
  assert comparisons.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
  assert comparisons.holm([]) == []


def test_alike_systems_are_seldom_called_different_in_any_of_many_languages():
  def false_alarms(correction):
    generator = np.random.default_rng(0)
    found = 0
    for _ in range(25):
      scores = {i: generator.integers(0, 2, (2, 60)) for i in range(20)}
      result = comparisons.by_group(scores, correction, 'mcnemar')
      found += any(comparison.significant() for comparison in result.values())
    return found

  assert false_alarms('holm') <= 3 < 8 <= false_alarms('none')


def test_a_comparison_says_by_how_much_and_how_surely():
  a, b = [80.0, 60, 70, 90] * 10, [70.0, 50, 65, 70] * 10
  found = comparisons.paired(a, b)
  assert found.difference == 11.25
  assert found.low < 11.25 < found.high and found.p_value < 0.001 and found.count == 40
  mirrored = comparisons.paired(b, a)
  assert (mirrored.difference, mirrored.p_value) == (-11.25, found.p_value)
  assert comparisons.paired(a, a).p_value == 1.0


def test_undefined_scores_are_left_out_and_unequal_numbers_refused():
  assert comparisons.paired([1, float('nan')], [0, 1]).count == 1
  assert comparisons.paired([], []) == comparisons.Comparison(0.0, 0.0, 0.0, 1.0, 1.0, 0)
  with pytest.raises(ValueError, match=r'same examples.*\(2,\) and \(1,\)'):
    comparisons.paired([1, 2], [1])
  with pytest.raises(ValueError, match="'bonferroni' is none of"):
    comparisons.by_group({}, 'bonferroni')

"""Two systems on the same examples: difference, interval, p value; many languages at once."""

import dataclasses
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np

from aya_train.tasks.metrics import intervals

Key = TypeVar('Key', bound=Hashable)
Test = Literal['paired', 'mcnemar']
Correction = Literal['holm', 'fdr_bh', 'none']
_EXACT = 16  # pairs that differ, up to which every sign is tried
_PERMUTATIONS = 10_000


@dataclasses.dataclass(frozen=True)
class Comparison:
  """System A minus system B.

  Attributes:
    difference, low, high: of the figures, with its 95 % interval by paired bootstrap.
    p_value: two-sided, that the systems are alike.
    p_adjusted: corrected for the number of comparisons made together; p_value where one was made.
    count: examples.
  """

  difference: float
  low: float
  high: float
  p_value: float
  p_adjusted: float
  count: int

  def significant(self, alpha: float = 0.05) -> bool:
    return self.p_adjusted < alpha


def _checked(
  a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
  if first.shape != second.shape or first.ndim != 1:
    raise ValueError(
      f'scores of the same examples are compared, got {first.shape} and {second.shape}'
    )
  return first, second


def paired(
  a: Sequence[float],
  b: Sequence[float],
  test: Test = 'paired',
  resamples: int = intervals.RESAMPLES,
  seed: int = intervals.SEED,
) -> Comparison:
  """Compares means of scores, one an example, in the same order.

  The p value is that of the sign-flip test (exact up to 16 pairs that differ), or of hits (0 or 1)
  McNemar's exact one. Pairs of which a score is NaN are left out.

  Raises:
    ValueError: not as many scores of the one as of the other.
  """
  first, second = _checked(a, b)
  kept = np.isfinite(first - second)
  first, second = first[kept], second[kept]
  difference = first - second
  if not len(difference):
    return Comparison(0.0, 0.0, 0.0, 1.0, 1.0, 0)
  low, high = intervals.mean(difference, resamples, seed)
  p_value = mcnemar(first, second) if test == 'mcnemar' else sign_flip(difference, seed=seed)
  return Comparison(float(difference.mean()), low, high, p_value, p_value, len(difference))


def sign_flip(
  differences: Sequence[float] | np.ndarray,
  permutations: int = _PERMUTATIONS,
  seed: int = intervals.SEED,
) -> float:
  """Two-sided p value that paired differences are as often of the one as of the other sign."""
  values = np.asarray(differences, np.float64)
  values = values[values != 0]
  if not len(values):
    return 1.0
  observed = abs(values.sum()) - 1e-9 * np.abs(values).sum()
  if len(values) <= _EXACT:
    signs = (np.arange(1 << len(values))[:, None] >> np.arange(len(values))) & 1
    return float((np.abs((2 * signs - 1) @ values) >= observed).mean())
  generator = np.random.default_rng(seed)
  extreme = done = 0
  while done < permutations:
    rows = min(permutations - done, max(1, (1 << 22) // len(values)))
    signs = 2 * generator.integers(0, 2, (rows, len(values)), np.int8) - 1
    extreme += int((np.abs(signs @ values) >= observed).sum())
    done += rows
  return (extreme + 1) / (permutations + 1)


def mcnemar(a_hits: Sequence[float] | np.ndarray, b_hits: Sequence[float] | np.ndarray) -> float:
  """Exact two-sided p value that two systems are right equally often.

  Only examples count of which one system alone is right.
  """
  first, second = _checked(a_hits, b_hits)
  only_a, only_b = (
    int(((first > 0) & (second <= 0)).sum()),
    int(((first <= 0) & (second > 0)).sum()),
  )
  count, fewer = only_a + only_b, min(only_a, only_b)
  if not count:
    return 1.0
  tail = [
    math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) - count * math.log(2)
    for k in range(fewer + 1)
  ]
  return min(1.0, 2 * math.fsum(map(math.exp, tail)))


def holm(p_values: Sequence[float]) -> list[float]:
  """P values after Holm's correction: the chance of any false difference is kept.

  >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
  [0.03, 0.06, 0.06]
  """
  values = np.asarray(p_values, np.float64)
  order = np.argsort(values, kind='stable')
  stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
  return _in_order(stepped, order)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
  """P values after Benjamini and Hochberg: the share of false ones among differences is kept.

  >>> [round(p, 3) for p in benjamini_hochberg([0.01, 0.04, 0.03])]
  [0.03, 0.04, 0.04]
  """
  values = np.asarray(p_values, np.float64)
  order = np.argsort(values, kind='stable')
  scaled = values[order] * len(values) / np.arange(1, len(values) + 1)
  return _in_order(np.minimum.accumulate(scaled[::-1])[::-1], order)


def _in_order(adjusted: np.ndarray, order: np.ndarray) -> list[float]:
  result = np.empty(len(adjusted))
  result[order] = np.minimum(adjusted, 1.0)
  return result.tolist()


_CORRECTIONS: Mapping[str, Callable[[Sequence[float]], list[float]]] = {
  'holm': holm,
  'fdr_bh': benjamini_hochberg,
  'none': list,
}


def adjusted(
  comparisons: Mapping[Key, Comparison], correction: Correction = 'holm'
) -> dict[Key, Comparison]:
  """The same comparisons with p values that know of each other.

  Raises:
    ValueError: of an unknown correction.
  """
  if correction not in _CORRECTIONS:
    raise ValueError(f'correction {correction!r} is none of {sorted(_CORRECTIONS)}')
  values = _CORRECTIONS[correction]([comparison.p_value for comparison in comparisons.values()])
  return {
    key: dataclasses.replace(comparison, p_adjusted=value)
    for (key, comparison), value in zip(comparisons.items(), values, strict=True)
  }


def by_group(
  scores: Mapping[Key, tuple[Sequence[float], Sequence[float]]],
  correction: Correction = 'holm',
  test: Test = 'paired',
) -> dict[Key, Comparison]:
  """Compares two systems language by language, or task by task.

  Args:
    scores: language -> (scores of A, scores of B) on the same examples.
    correction: of the p values: 'holm', 'fdr_bh' (Benjamini and Hochberg), 'none'.
    test: 'mcnemar' of hits (0 or 1), exact; 'paired' of any scores.
  """
  return adjusted({key: paired(a, b, test) for key, (a, b) in scores.items()}, correction)

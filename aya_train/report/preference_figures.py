"""What preference judgements amount to: win rates, strengths, agreement, positions, lengths.

Pure functions of arrays and lists. Shares are percents, and intervals are of 95 % unless a level is
given. A score is what a system gets from a judgement: 1 for a win, 0.5 for a tie, 0 for a loss.
Judgements of one item (a prompt with its two answers) are not independent: intervals count items.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special, stats

LEVEL = 0.95
_RESAMPLES = 500


@dataclasses.dataclass(frozen=True)
class Share:
  """A share in percent with its interval, and of how many."""

  percent: float
  low: float
  high: float
  count: int


@dataclasses.dataclass(frozen=True)
class WinRate:
  """How a system did against another.

  Attributes:
    rate, low, high: percent, a tie counting one half; None where nothing was judged.
    wins, ties, losses: judgements.
    judgements, items: how many.
    p_value: of a two-sided sign test over items that both are alike.
  """

  rate: float | None
  low: float | None
  high: float | None
  wins: int
  ties: int
  losses: int
  judgements: int
  items: int
  p_value: float

  @property
  def tie_share(self) -> float:
    return 100 * self.ties / self.judgements if self.judgements else 0.0

  @property
  def margin(self) -> float:
    """Half the width of the interval that this many items give at 50 %, in points."""
    return 98 / math.sqrt(self.items) if self.items else 100.0


def wilson(share: float, count: float, level: float = LEVEL) -> tuple[float, float]:
  """Wilson's interval of a share.

  Args:
    share: from 0 to 1.
    count: it is a share of; may be an effective number.
    level: confidence.

  Returns:
    Both ends, from 0 to 1.
  """
  if count <= 0:
    return 0.0, 1.0
  z = stats.norm.ppf(0.5 + level / 2)
  middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
  half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
  return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def share(hits: int, count: int, level: float = LEVEL) -> Share | None:
  """A share with Wilson's interval; None of nothing."""
  if not count:
    return None
  low, high = wilson(hits / count, count, level)
  return Share(100 * hits / count, 100 * low, 100 * high, count)


def win_rate(
  scores: Sequence[float],
  items: Sequence[Hashable],
  weights: Sequence[float] | None = None,
  level: float = LEVEL,
) -> WinRate:
  """The win rate of a system, with the interval of as many items as its spread is worth.

  The interval is Wilson's, for the number of items that would give the variance found between
  items: ties narrow it, several judgements of an item do not, and it is never empty nor beyond 0
  and 100. With one judgement an item and no ties it is Wilson's own.

  Args:
    scores: of the system, one a judgement.
    items: what each judgement is about.
    weights: of judgements; all 1 by default.
    level: of the interval.
  """
  values = np.asarray(scores, np.float64)
  wins, losses = int((values > 0.5).sum()), int((values < 0.5).sum())
  counts = (wins, len(values) - wins - losses, losses, len(values))
  if not len(values):
    return WinRate(None, None, None, *counts, 0, 1.0)
  weight = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
  place = _places(items)
  total = np.bincount(place, weight * values)
  size = np.bincount(place, weight)
  rate = float(total.sum() / size.sum())
  variance = float(((total - rate * size) ** 2).sum() / size.sum() ** 2)
  effective = rate * (1 - rate) / variance if variance > 0 else len(size)
  low, high = wilson(rate, effective, level)
  leaning = total - size / 2
  won, lost = int((leaning > 1e-9).sum()), int((leaning < -1e-9).sum())
  p_value = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
  return WinRate(100 * rate, 100 * low, 100 * high, *counts, len(size), float(p_value))


def _places(items: Sequence[Hashable]) -> np.ndarray:
  index: dict[Hashable, int] = {}
  return np.asarray([index.setdefault(item, len(index)) for item in items], np.int64)


@dataclasses.dataclass(frozen=True)
class LengthControlled:
  """A win rate as it would be if both answers were equally long.

  Attributes:
    rate, low, high: percent; None where it cannot be told.
    slope: of the logit on tanh of the difference in standard deviations: above 0 the longer answer
      is preferred.
    reason: why there is none.
  """

  rate: float | None
  low: float | None = None
  high: float | None = None
  slope: float | None = None
  reason: str = ''


_FEWEST = 10


def length_controlled(
  scores: Sequence[float],
  differences: Sequence[float],
  items: Sequence[Hashable],
  weights: Sequence[float] | None = None,
  level: float = LEVEL,
) -> LengthControlled:
  """Logistic regression of the score on tanh(difference / its standard deviation).

  That is AlpacaEval's form without the terms that need files of its own. The rate is the prediction
  at a difference of 0; its interval is of errors that are robust and count items.

  Args:
    scores: of a system, one a judgement.
    differences: of lengths, the system's answer minus the other's, in any unit.
    items: what each judgement is about.
    weights: of judgements; all 1 by default.
    level: of the interval.

  Raises:
    ValueError: the extra that holds statsmodels is missing.
  """
  values, difference = np.asarray(scores, np.float64), np.asarray(differences, np.float64)
  if len({*items}) < _FEWEST:
    return LengthControlled(None, reason=f'fewer than {_FEWEST} prompts')
  spread = difference.std()
  if spread == 0:
    same = not difference.any()
    reason = 'all answers are equally long' if same else 'all differ in length by as much'
    return LengthControlled(None, reason=reason)
  x = np.tanh(difference / spread)
  if reason := _separated(values, x):
    return LengthControlled(None, reason=reason)
  api: Any = _needed('statsmodels.api')
  model = api.GLM(
    values,
    np.column_stack([np.ones(len(x)), x]),
    family=api.families.Binomial(),
    var_weights=None if weights is None else np.asarray(weights, np.float64),
  )
  fitted = model.fit(cov_type='cluster', cov_kwds={'groups': _places(items)})
  logit, slope = (float(v) for v in fitted.params)
  half = float(stats.norm.ppf(0.5 + level / 2)) * float(fitted.bse[0])
  if not (fitted.converged and math.isfinite(half)):
    return LengthControlled(None, reason='the regression did not converge')
  rate, low, high = (100 * float(special.expit(v)) for v in (logit, logit - half, logit + half))
  return LengthControlled(rate, low, high, slope)


def _separated(scores: np.ndarray, x: np.ndarray) -> str:
  """Why the likelihood has no maximum, '' if it has one."""
  more, less = x[scores > 0], x[scores < 1]  # a tie is half of each
  if not len(more) or not len(less):
    return 'one of them won every time'
  if more.min() >= less.max() or less.min() >= more.max():
    return 'length alone foretells every judgement'
  return ''


def _needed(name: str) -> Any:
  import importlib

  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise ValueError(
      f"this figure needs {name.split('.')[0]}, which is in the extra 'judge': "
      "pip install 'aya-train[judge]'"
    ) from error


@dataclasses.dataclass(frozen=True)
class Strength:
  """Bradley-Terry strength of a system on Elo's scale, mean 1000; 400 points are 10 to 1.

  Attributes:
    system: its name.
    points, low, high: None where it cannot be told.
    average: percent that it is expected to win of the others, on average.
  """

  system: str
  points: float | None
  low: float | None
  high: float | None
  average: float | None


@dataclasses.dataclass(frozen=True)
class Contest:
  """One judgement between two systems: the score of the first, its item, and a weight."""

  first: str
  second: str
  score: float
  item: Hashable
  weight: float = 1.0


def bradley_terry(
  contests: Sequence[Contest], resamples: int = _RESAMPLES, seed: int = 0
) -> list[Strength]:
  """Strengths by evalica, a tie counting as half a win of each; the strongest first.

  Intervals are of a bootstrap over items. Where some system never won, or never lost, against all
  the others together, there is no finite strength, and all points are None.

  Raises:
    ValueError: the extra that holds evalica is missing.
  """
  systems = sorted({name for c in contests for name in (c.first, c.second)})
  index = {name: i for i, name in enumerate(systems)}
  ends = np.asarray([(index[c.first], index[c.second]) for c in contests])
  score = np.asarray([c.score for c in contests])
  weight = np.asarray([c.weight for c in contests])
  place = _places([c.item for c in contests])
  points = _points(ends, score, weight, len(systems))
  if points is None:
    return [Strength(name, None, None, None, None) for name in systems]
  draw = np.random.default_rng(seed)
  drawn = []
  for _ in range(resamples):
    times = np.bincount(draw.integers(0, place.max() + 1, place.max() + 1), None, place.max() + 1)
    if (again := _points(ends, score, weight * times[place], len(systems))) is not None:
      drawn.append(again)
  tails = [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2]
  # Where many draws have no finite strength, neither have the ends of the interval.
  known = len(drawn) >= LEVEL * resamples
  low, high = np.percentile(drawn, tails, axis=0) if known else (None, None)
  chances = special.expit(np.log(10) / 400 * (points[:, None] - points[None, :]))
  averages = (chances.sum(1) - 0.5) / (len(systems) - 1)
  found = [
    Strength(
      name,
      float(points[i]),
      None if low is None else float(low[i]),
      None if high is None else float(high[i]),
      100 * float(averages[i]),
    )
    for i, name in enumerate(systems)
  ]
  return sorted(found, key=lambda s: -(s.points or 0))


def _points(
  ends: np.ndarray, score: np.ndarray, weight: np.ndarray, count: int
) -> np.ndarray | None:
  """Elo points by system; None where they are not finite or not all systems are connected."""
  wins = np.zeros((count, count))
  ties = np.zeros((count, count))
  np.add.at(wins, (ends[:, 0], ends[:, 1]), weight * (score > 0.5))
  np.add.at(wins, (ends[:, 1], ends[:, 0]), weight * (score < 0.5))
  np.add.at(ties, (ends[:, 0], ends[:, 1]), weight * (score == 0.5))
  beats = (wins + ties + ties.T > 0).astype(np.int64)
  reach = np.linalg.matrix_power(np.eye(count, dtype=np.int64) + beats, count) > 0
  if not reach.all():
    return None
  evalica: Any = _needed('evalica')
  kinds = ((wins, evalica.Winner.X), (ties, evalica.Winner.Draw))
  rows = [(i, j, w, float(m[i, j])) for m, w in kinds for i, j in np.argwhere(m).tolist()]
  xs, ys, winners, weights = map(list, zip(*rows, strict=True))
  result = evalica.bradley_terry(xs, ys, winners, weights=weights, tolerance=1e-10, limit=100_000)
  logs = np.log(result.scores.reindex(range(count)).to_numpy())
  return 1000 + 400 / math.log(10) * (logs - logs.mean())


@dataclasses.dataclass(frozen=True)
class Agreement:
  """How far annotators agree.

  Attributes:
    same: share of pairs of judgements of one item that are the same.
    decided: the same, among pairs of which neither is a tie.
    kappa: Cohen's, of all pairs of two annotators; None where they used one value only.
    items: judged by both.
  """

  same: Share
  decided: Share | None
  kappa: float | None
  items: int


def agreement(pairs: Sequence[tuple[int, int]]) -> Agreement | None:
  """Agreement of two annotators.

  Args:
    pairs: what each said of an item: 1, 0 for a tie, -1.

  Returns:
    None if they have no item in common.
  """
  if not pairs:
    return None
  same = share(sum(a == b for a, b in pairs), len(pairs))
  clear = [(a, b) for a, b in pairs if a and b]
  assert same is not None
  return Agreement(
    same, share(sum(a == b for a, b in clear), len(clear)), cohen_kappa(pairs), len(pairs)
  )


def cohen_kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
  """Cohen's kappa, unweighted; None where chance alone explains all."""
  first = collections.Counter(a for a, _ in pairs)
  second = collections.Counter(b for _, b in pairs)
  count = len(pairs)
  observed = sum(a == b for a, b in pairs) / count
  expected = sum(first[value] * second[value] for value in first) / count**2
  return None if expected == 1 else (observed - expected) / (1 - expected)


def krippendorff_alpha(ratings: Mapping[Hashable, Mapping[str, int]]) -> float | None:
  """Krippendorff's alpha (nominal) of any number of annotators, by evalica.

  Args:
    ratings: item -> annotator -> value; who did not judge an item is not in it.

  Returns:
    None where fewer than two judged an item, or all values are the same.

  Raises:
    ValueError: the extra that holds evalica is missing.
  """
  shared = [found for found in ratings.values() if len(found) > 1]
  if len({value for found in shared for value in found.values()}) < 2:
    return None
  evalica: Any = _needed('evalica')
  pandas: Any = _needed('pandas')
  who = sorted({name for found in shared for name in found})
  table = pandas.DataFrame([[found.get(name, math.nan) for found in shared] for name in who])
  return float(evalica.alpha(table).alpha)


def pairs_of_annotators(
  ratings: Mapping[Hashable, Mapping[str, int]],
) -> dict[tuple[str, str], list[tuple[int, int]]]:
  """Two annotators -> what both said of each item that both judged."""
  found: dict[tuple[str, str], list[tuple[int, int]]] = {}
  for given in ratings.values():
    for a, b in itertools.combinations(sorted(given), 2):
      found.setdefault((a, b), []).append((given[a], given[b]))
  return found


@dataclasses.dataclass(frozen=True)
class Positions:
  """Whether it matters which answer comes first.

  Attributes:
    first: share of judgements without ties that prefer the answer shown first; None if all tie.
    p_value: two-sided, that it is one half.
    consistent: share of items, judged in both orders by one judge, with the same verdict.
    first_twice, second_twice: items of which the same place won in both orders.
    one_tie: items with a tie in one order only.
  """

  first: Share | None
  p_value: float
  consistent: Share | None
  first_twice: int
  second_twice: int
  one_tie: int


def positions(
  first_scores: Sequence[float], both_orders: Sequence[tuple[float, float]]
) -> Positions:
  """Position bias and consistency.

  Args:
    first_scores: of the answer shown first, one a judgement.
    both_orders: of items judged in both orders, the score of the answer shown first in each order.
  """
  wins = sum(s > 0.5 for s in first_scores)
  decided = wins + sum(s < 0.5 for s in first_scores)
  p_value = float(stats.binomtest(wins, decided).pvalue) if decided else 1.0
  kinds = collections.Counter((np.sign(a - 0.5), np.sign(b - 0.5)) for a, b in both_orders)
  same = kinds[1, -1] + kinds[-1, 1] + kinds[0, 0]
  one_tie = sum(n for (a, b), n in kinds.items() if (a == 0) != (b == 0))
  return Positions(
    *(share(wins, decided), p_value, share(same, len(both_orders))),
    *(kinds[1, 1], kinds[-1, -1], one_tie),
  )

"""Which of the passages found for a query are its hard negatives: pure, one query at a time.

Positive-aware mining (NV-Retriever, Moreira et al. 2024): what scores nearly as high as the
positive is most often relevant too, and is left out. The options are those of
`mine_hard_negatives` of sentence-transformers.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

Strategy = Literal['top', 'random']
STRATEGIES = ('top', 'random')


@dataclasses.dataclass(frozen=True)
class Choice:
  """What is taken of a ranking.

  Attributes:
    count: negatives of each query.
    range_min, range_max: places of the ranking, without the positives, from which they are taken:
      the first that is looked at, from 0, and the one after the last.
    max_share: greatest score, as a share of the positive's; 0.95 drops all above 95 % of it. Of a
      positive whose score is not above 0, all that score less remain. None: no limit.
    max_score, min_score: bounds of the score itself.
    margin: how far below the positive's score a negative's must be at least.
    strategy: 'top': the best ones; 'random': any.
  """

  count: int = 1
  range_min: int = 0
  range_max: int = 100
  max_share: float | None = 0.95
  max_score: float | None = None
  min_score: float | None = None
  margin: float | None = None
  strategy: str = 'top'

  def __post_init__(self) -> None:
    if self.count < 1:
      raise ValueError(f'--num_negatives must be at least 1, got {self.count}')
    if not 0 <= self.range_min < self.range_max:
      raise ValueError(
        f'--range_min and --range_max must be 0 <= min < max, got {self.range_min}, '
        f'{self.range_max}'
      )
    if self.range_max - self.range_min < self.count:
      raise ValueError(
        f'the places from {self.range_min} to {self.range_max} hold fewer than the {self.count} '
        'of --num_negatives: raise --range_max'
      )
    if self.strategy not in STRATEGIES:
      raise ValueError(f'--strategy must be one of {STRATEGIES}, got {self.strategy!r}')
    if self.max_share is not None and not self.max_share > 0:
      raise ValueError(f'--max_share must be positive, got {self.max_share}')


@dataclasses.dataclass(frozen=True)
class Chosen:
  """The negatives of a query, the best first.

  Attributes:
    rows: of the corpus.
    scores: of each.
    num_dropped: places in the range that were too close to the positive.
  """

  rows: Sequence[int]
  scores: Sequence[float]
  num_dropped: int


def choose(
  rows: Sequence[int] | np.ndarray,
  scores: Sequence[float] | np.ndarray,
  positives: Collection[int],
  positive_score: float,
  choice: Choice,
  seed: Sequence[int] = (0,),
) -> Chosen:
  """Takes negatives from one query's ranking.

  Args:
    rows: of the corpus, the best first.
    scores: of each.
    positives: rows that are relevant to the query, or have the id or the text of one that is.
    positive_score: of the query's positive; of several the lowest, so that no negative passes for
      one of them.
    choice: what is taken.
    seed: for 'random', made of the run's seed and the query's number.

  Returns:
    At most `choice.count`; fewer if the range holds no more.
  """
  ranked = [(int(row), float(s)) for row, s in zip(rows, scores, strict=True) if row >= 0]
  ranked = [(row, s) for row, s in ranked if row not in positives]
  looked_at = ranked[choice.range_min : choice.range_max]
  fit = [(row, s) for row, s in looked_at if _fits(s, positive_score, choice)]
  if choice.strategy == 'random' and len(fit) > choice.count:
    drawn = np.random.default_rng(list(seed)).choice(len(fit), choice.count, replace=False)
    taken = [fit[i] for i in sorted(drawn)]
  else:
    taken = fit[: choice.count]
  return Chosen([row for row, _ in taken], [s for _, s in taken], len(looked_at) - len(fit))


def limit(positive_score: float, choice: Choice) -> float:
  """The greatest score that a negative may have."""
  bounds = [np.inf]
  if choice.max_share is not None:
    # A share of what is not positive would be more than it.
    share = choice.max_share * positive_score if positive_score > 0 else positive_score
    bounds.append(share)
  if choice.margin is not None:
    bounds.append(positive_score - choice.margin)
  if choice.max_score is not None:
    bounds.append(choice.max_score)
  return float(min(bounds))


def _fits(score: float, positive_score: float, choice: Choice) -> bool:
  above = choice.min_score is None or score >= choice.min_score
  return above and score <= limit(positive_score, choice)


def depth(choice: Choice, most_positives: int) -> int:
  """How many passages a search must give, so that the range is full without the positives."""
  return choice.range_max + most_positives

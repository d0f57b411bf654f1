"""What vectors of texts are worth: search (nDCG, recall, MRR), translations found, similarity.

Figures of search are those of trec_eval (pytrec_eval): documents of equal score stand in descending
order of their ids, a grade is a gain, and what has no grade or one below 1 is not relevant. Figures
of translations are mteb's BitextMining. Correlations are Pearson's and Spearman's.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from aya_train.tasks.metrics import intervals

Run = Mapping[str, Mapping[str, float]]  # query -> document -> score
Grades = Mapping[str, Mapping[str, int]]  # query -> document -> grade
NDCG, RECALL, MRR = 'ndcg_at_10', 'recall_at_100', 'mrr_at_10'
_NDCG_DEPTH, _RECALL_DEPTH, _MRR_DEPTH = 10, 100, 10


def ranking(scores: Mapping[str, float]) -> list[str]:
  """Documents from the best on; of equal scores, in float32, the greater id comes first."""
  ids = sorted(scores, reverse=True)
  return sorted(ids, key=lambda document: -float(np.float32(scores[document])))


def per_query(run: Run, grades: Grades) -> dict[str, dict[str, float]]:
  """nDCG@10, Recall@100 and MRR@10 of each query that has a relevant document.

  Args:
    run: what was found. A query that is not in it found nothing.
    grades: what is relevant.

  Returns:
    query -> name -> figure from 0 to 1.
  """
  found = {}
  for query, relevance in grades.items():
    gains = sorted((grade for grade in relevance.values() if grade > 0), reverse=True)
    if not gains:
      continue
    hits = [max(relevance.get(document, 0), 0) for document in ranking(run.get(query, {}))]
    first = next((i for i, gain in enumerate(hits[:_MRR_DEPTH], 1) if gain), None)
    found[query] = {
      NDCG: _discounted(hits[:_NDCG_DEPTH]) / _discounted(gains[:_NDCG_DEPTH]),
      RECALL: sum(gain > 0 for gain in hits[:_RECALL_DEPTH]) / len(gains),
      MRR: 1.0 / first if first else 0.0,
    }
  return found


def _discounted(gains: Sequence[int]) -> float:
  return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))


def search_figures(run: Run, grades: Grades) -> dict[str, float]:
  """Means of `per_query` in percent, each with its 95 % interval; {} without any query."""
  queries = list(per_query(run, grades).values())
  figures: dict[str, float] = {}
  for name in (NDCG, RECALL, MRR):
    figures |= intervals.percent(name, [query[name] for query in queries])
  return figures


def bitext_figures(nearest: Sequence[int] | np.ndarray, prefix: str = '') -> dict[str, float]:
  """Accuracy, with its 95 % interval, and mteb's weighted F1 of translations that were found.

  Args:
    nearest: of each text, the number of the one found for it; the right one has its own number.
    prefix: of the names.

  Returns:
    In percent; {} of no texts.
  """
  nearest = np.asarray(nearest, np.int64)
  hits = (nearest == np.arange(len(nearest))).astype(np.float64)
  if not len(hits):
    return {}
  # One text in each class: its precision is 1 / (how often it was found), its recall 0 or 1.
  times_found = np.bincount(nearest, minlength=len(nearest))[: len(nearest)]
  return {
    **intervals.percent(f'{prefix}accuracy', hits),
    f'{prefix}f1': 100.0 * float(np.mean(2 * hits / (times_found + 1))),
  }


def ranks(values: Sequence[float] | np.ndarray) -> np.ndarray:
  """Ranks from 1 on, float64; equal values share the mean of theirs."""
  values = np.asarray(values, np.float64)
  _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
  ends = np.cumsum(counts)
  return (ends - (counts - 1) / 2)[place]


def similarity_figures(
  scores: Sequence[float] | np.ndarray, gold: Sequence[float] | np.ndarray
) -> dict[str, float]:
  """Correlations of similarities with people's, in percent, with their 95 % intervals.

  Args:
    scores: cosines, one a pair.
    gold: of the same pairs.

  Returns:
    `spearman`, `pearson` and their bounds; {} where one side is constant, which correlates with
    nothing. Resamples for Spearman's keep the ranks of the whole.
  """
  if not len(gold):
    return {}
  pairs = {'spearman': (ranks(scores), ranks(gold)), 'pearson': (scores, gold)}
  figures: dict[str, float] = {}
  for name, (one, other) in pairs.items():
    x, y = (_centred(side) for side in (one, other))
    values = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
    if not np.isfinite(whole := _correlation(values.sum(0))):
      return {}
    figures |= intervals.with_bounds(name, whole, intervals.statistic(_correlation, values))
  return figures


def _centred(values: Sequence[float] | np.ndarray) -> np.ndarray:
  values = np.asarray(values, np.float64)
  centred = values - values.mean()
  return centred / max(float(np.abs(centred).max(initial=0.0)), 1e-300)


def _correlation(sums: np.ndarray) -> float:
  """Pearson's, in percent, of sums of 1, x, y, x^2, y^2 and xy; NaN where one is constant."""
  count, x, y, xx, yy, xy = sums
  if not count:
    return float('nan')
  spread = (xx - x * x / count) * (yy - y * y / count)
  return 100.0 * float((xy - x * y / count) / math.sqrt(spread)) if spread > 1e-18 else math.nan

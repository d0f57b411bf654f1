"""Accuracy of ranked options, in the form of SeqIO's rank_classification: a row an option."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aya_train.tasks.metrics import intervals

Row = tuple[tuple[int, ...], bool, float, int]
"""(place of the question and of the option, whether it is right, weight, length of the option)."""


def postprocess(
  value: Any, example: Mapping[str, Any] | None = None, is_target: bool = False
) -> Any:
  """A postprocess_fn: a target becomes a `Row`, whose length is that of its text in characters.

  Raises:
    ValueError: the example lacks `idx` or `is_correct`, which rank_classification gives it.
  """
  if not is_target:
    return value
  if example is None or not {'idx', 'is_correct'} <= {*example}:
    raise ValueError(
      'options are ranked by `idx` and `is_correct`, got columns '
      f'{sorted(example or {})}: does the task preprocess with rank_classification?'
    )
  text = example.get('targets_pretokenized', value)
  text = text.item() if hasattr(text, 'item') else text
  text = text.decode() if isinstance(text, bytes) else str(text)
  place = tuple(int(part) for part in np.atleast_1d(example['idx']))
  return place, bool(example['is_correct']), float(example.get('weight', 1.0)), len(text)


def pick(scores: Sequence[float]) -> tuple[int, bool]:
  """The best option, the first of several that are equal, and whether several are.

  An option whose score is NaN is never the best.

  Raises:
    ValueError: of no options.
  """
  if not len(scores):
    raise ValueError('a question has no options')
  values = np.nan_to_num(np.asarray(scores, np.float64), nan=-np.inf)
  return int(values.argmax()), int((values == values.max()).sum()) > 1


def _questions(
  targets: Sequence[Row], scores: Sequence[float], by_length: bool
) -> tuple[list[bool], list[bool], list[float]]:
  """Of each question: whether it is answered right, whether options tie, weight."""
  options: dict[tuple[int, ...], dict[int, tuple[float, bool, float]]] = defaultdict(dict)
  for (place, right, weight, length), score in zip(targets, scores, strict=True):
    score = float(score) / (max(length, 1) if by_length else 1)
    options[place[:-1]][place[-1]] = score, bool(right), weight  # a row again is padding
  hits, ties, weights = [], [], []
  for question in options.values():
    rows = [question[option] for option in sorted(question)]
    best, tied = pick([score for score, _, _ in rows])
    hits.append(rows[best][1])
    ties.append(tied)
    weights.append(rows[0][2])
  return hits, ties, weights


def _figures(name: str, targets: Sequence[Row], scores: Sequence[float]) -> dict[str, float]:
  hits, ties, weights = _questions(targets, scores, by_length=name == 'accuracy_norm')
  if not hits:
    return {}
  figures = intervals.ratio(name, np.multiply(hits, weights).tolist(), weights, 100.0)
  return figures | {name.replace('accuracy', 'ties'): 100.0 * sum(ties) / len(ties)}


def accuracy(targets: Sequence[Row], scores: Sequence[float]) -> dict[str, float]:
  """Percent of questions whose right option has the highest score.

  Returns:
    accuracy with its interval, and ties: percent of questions with several best options, of which
    the first is taken.
  """
  return _figures('accuracy', targets, scores)


def accuracy_by_length(targets: Sequence[Row], scores: Sequence[float]) -> dict[str, float]:
  """`accuracy`, and accuracy_norm: of scores divided by the characters of their options.

  The second is lm-evaluation-harness's acc_norm.
  """
  return accuracy(targets, scores) | _figures('accuracy_norm', targets, scores)

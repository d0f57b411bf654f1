"""What a page takes from a task's predictions: per-example figures, lengths, a few examples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from aya_train.tasks import eval_tasks
from aya_train.tasks.metrics import example_scores

KEPT = 12
"""Examples of a task that a page can show: its first ones."""

_ARGMAX = ('accuracy', 'acc', 'exact_match', 'em')
_BY_LENGTH = ('accuracy_norm', 'acc_norm', 'accuracy_by_length')
# Of a whole set of answers, not a mean over them.
_OF_A_CORPUS = ('bleu', 'spbleu', 'chrf', 'chrf++')


@dataclasses.dataclass(frozen=True)
class Answers:
  """Answers of one model to one task.

  Attributes:
    indices: of the examples, sorted.
    scores: figure of each in percent, None where the metric is no mean over examples, or where
      their mean is not the figure of results.json.
    languages: of each, as `fields` says, '' where it does not.
    groups: of each, what `fields` says of its cultural sensitivity, '' where it does not.
    characters: of each answer; of ranked tasks too.
    reference_characters: of each example's first reference, -1 where there is none.
    chance: accuracy in percent of guessing among the options, None where nothing is ranked.
    kept: the first examples.
  """

  indices: np.ndarray
  scores: np.ndarray | None
  languages: Sequence[str]
  groups: Sequence[str]
  characters: np.ndarray
  reference_characters: np.ndarray
  chance: float | None
  kept: Sequence[eval_tasks.Prediction]

  def __len__(self) -> int:
    return len(self.indices)


_SPLIT_FIELD = 'cultural_sensitivity_label'
_GROUPS = {'CS': 'culturally_sensitive', 'CA': 'culturally_agnostic'}


def read(
  result: eval_tasks.Result,
  metric: str,
  predictions: Iterable[eval_tasks.Prediction],
  problems: list[str],
) -> Answers | None:
  """Reads all predictions of a task; None where there are none.

  Args:
    result: of the task.
    metric: whose per-example figures are wanted.
    predictions: in any order.
    problems: gets a sentence where predictions and results do not agree.
  """
  rows: list[tuple[int, float, str, str, int, int]] = []
  kept: list[eval_tasks.Prediction] = []
  chances: list[float] = []
  score = scorer(result.about, metric)
  for p in predictions:
    value = math.nan if score is None else score(p)
    group = _GROUPS.get(str(p.fields.get(_SPLIT_FIELD, '')), '')
    reference = len(str(p.targets[0])) if p.targets else -1
    language = str(p.fields.get('language') or '')
    rows.append((p.index, value, language, group, len(p.prediction), reference))
    if p.options:
      chances.append(100 / len(p.options))
    if p.index < KEPT:
      kept.append(p)
  if not rows:
    return None
  rows.sort()
  indices, values, languages, groups, characters, references = zip(*rows, strict=True)
  if len(rows) != result.num_examples:
    problems.append(
      f'task {result.about.name}: {len(rows)} predictions can be read, results.json counts '
      f'{result.num_examples} examples'
    )
  return Answers(
    np.array(indices),
    _agreeing(result, metric, np.array(values), problems),
    languages,
    groups,
    np.array(characters),
    np.array(references),
    float(np.mean(chances)) if chances else None,
    sorted(kept, key=lambda p: p.index),
  )


def _agreeing(
  result: eval_tasks.Result, metric: str, values: np.ndarray, problems: list[str]
) -> np.ndarray | None:
  """Per-example figures in percent, if they are those that the task's figure was made from."""
  if len(values) != result.num_examples or not np.isfinite(values).all():
    return None
  figure = result.metrics.get(metric)
  if figure is None:
    return None
  for scale in (100.0, 1.0):  # shares, and figures that are percents already
    if abs(scale * values.mean() - figure) <= 0.006 + 1e-4 * abs(figure):
      return scale * values
  problems.append(
    f'task {result.about.name}: predictions give {metric} {100 * values.mean():.2f}, results.json '
    f'says {figure:.2f}; the intervals of results.json are used, and nothing is compared by example'
  )
  return None


Scorer = Callable[[eval_tasks.Prediction], float]


def scorer(task: eval_tasks.EvalTask, metric: str) -> Scorer | None:
  """Figure of one prediction, NaN where it has none; None where a metric is no mean of such."""
  if metric.casefold() in _OF_A_CORPUS:
    return None
  if task.protocol in (eval_tasks.T0, eval_tasks.HARNESS):
    if metric in _ARGMAX:
      return hit
    if metric in _BY_LENGTH:
      return lambda p: hit(p, by_length=True)
    return None

  def score(p: eval_tasks.Prediction) -> float:
    return float(
      example_scores.of(metric, _target(p), p.prediction, language=_language(task, p.fields))
    )

  return _guarded(score)


def _target(p: eval_tasks.Prediction) -> list[str]:
  return [str(target) for target in p.targets]


def _language(task: eval_tasks.EvalTask, fields: Mapping[str, Any]) -> str:
  return task.language or str(fields.get('language') or '')


def _guarded(score: Scorer) -> Scorer:
  def guarded(p: eval_tasks.Prediction) -> float:
    try:
      return score(p)
    except (ValueError, TypeError, KeyError, ImportError, OSError):
      return math.nan  # an unknown metric, or a library that is not installed

  return guarded


def hit(p: eval_tasks.Prediction, by_length: bool = False) -> float:
  """Whether the best option is the right one; the first of several best ones is the answer."""
  if p.label is None or not p.option_scores or len(p.option_scores) != len(p.options):
    return math.nan
  scores = [float(score) for score in p.option_scores]
  if by_length:
    scores = [s / max(1, len(text)) for s, text in zip(scores, p.options, strict=True)]
  if any(math.isnan(s) for s in scores):
    return math.nan
  return float(scores.index(max(scores)) == p.label)


def is_right(task: eval_tasks.EvalTask, metric: str, p: eval_tasks.Prediction) -> bool | None:
  """Whether an answer is wholly right; None where that cannot be said."""
  score = scorer(task, metric)
  if score is None or (not p.targets and p.label is None):
    return None
  value = score(p)
  return None if math.isnan(value) else value >= 1 - 1e-9

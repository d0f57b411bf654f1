"""What a page takes from a task's predictions: per-example figures, lengths, a few examples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from aya_train.tasks import eval_tasks
from aya_train.tasks.metrics import exact_match, example_scores

KEPT = 12
"""Examples of a task that a page can show: its first ones."""

_ARGMAX = ('accuracy', 'acc', 'exact_match', 'em')
_BY_LENGTH = ('accuracy_norm', 'acc_norm', 'accuracy_by_length')
# Of a whole set of answers, not a mean over them.
_OF_A_CORPUS = ('bleu', 'spbleu', 'chrf', 'chrf++')
_SLOW = 'rouge'

Scorer = Callable[[eval_tasks.Prediction], float]
"""Figure of one prediction, 0 to 100; NaN where it has none."""


@dataclasses.dataclass(frozen=True)
class Answers:
  """Answers of one model to one task.

  Attributes:
    scores: figure of each example that has one, 0 to 100, by index; None where the metric is no
      mean over examples, or where their mean is not the figure of results.json.
    indices: of the examples with a score; of all where there are no scores.
    languages: of those, as `fields` says, '' where it does not.
    groups: of those, what `fields` says of their cultural sensitivity, '' where it does not.
    characters: of every answer; of ranked tasks too.
    reference_characters: of every example's first reference, -1 where there is none.
    chance: accuracy in percent of guessing among the options, None where nothing is ranked.
    kept: the first examples.
    score: what gives an answer its figure, None where nothing does.
  """

  scores: np.ndarray | None
  indices: np.ndarray
  languages: Sequence[str]
  groups: Sequence[str]
  characters: np.ndarray
  reference_characters: np.ndarray
  chance: float | None
  kept: Sequence[eval_tasks.Prediction]
  score: Scorer | None


_SPLIT_FIELD = 'cultural_sensitivity_label'
_GROUPS = {'CS': 'culturally_sensitive', 'CA': 'culturally_agnostic'}


def read(
  result: eval_tasks.Result,
  metric: str,
  predictions: Iterable[eval_tasks.Prediction],
  problems: list[str],
  scored: bool = True,
) -> Answers | None:
  """Reads all predictions of a task; None where there are none.

  Args:
    result: of the task.
    metric: whose per-example figures are wanted.
    predictions: in any order.
    problems: gets a sentence where predictions and results do not agree.
    scored: whether to score each answer.
  """
  rows: list[tuple[int, str, str, int, int]] = []
  kept: list[eval_tasks.Prediction] = []
  chances: list[float] = []
  candidates = scorers(result.about, metric) if scored else []
  values: list[list[float]] = [[] for _ in candidates]
  for p in predictions:
    for score, column in zip(candidates, values, strict=True):
      column.append(score(p))
    group = _GROUPS.get(str(p.fields.get(_SPLIT_FIELD, '')), '')
    reference = len(str(p.targets[0])) if p.targets else -1
    rows.append((p.index, _row_language(p), group, len(p.prediction), reference))
    if p.options:
      chances.append(100 / len(p.options))
    if p.index < KEPT:
      kept.append(p)
  if not rows:
    return None
  if len(rows) != result.num_examples:
    problems.append(
      f'task {result.about.name}: {len(rows)} predictions can be read, results.json counts '
      f'{result.num_examples} examples'
    )
  found = _agreeing(result, metric, candidates, [np.array(v) for v in values], problems)
  order = np.argsort([row[0] for row in rows])
  if found is not None:
    order = order[np.isfinite(found[1][order])]
  indices, languages, groups, characters, references = zip(*rows, strict=True)
  return Answers(
    scores=None if found is None else found[1][order],
    indices=np.array(indices)[order],
    languages=[languages[k] for k in order],
    groups=[groups[k] for k in order],
    characters=np.array(characters),
    reference_characters=np.array(references),
    chance=float(np.mean(chances)) if chances else None,
    kept=sorted(kept, key=lambda p: p.index),
    score=found[0] if found else next(iter(candidates), None),
  )


def _row_language(p: eval_tasks.Prediction) -> str:
  return str(p.fields.get('language') or '')


def _agreeing(
  result: eval_tasks.Result,
  metric: str,
  candidates: Sequence[Scorer],
  values: Sequence[np.ndarray],
  problems: list[str],
) -> tuple[Scorer, np.ndarray] | None:
  """The per-example figures, NaN where there is none, that the task's figure was made from."""
  figure = result.metrics[metric]
  means = []
  for score, column in zip(candidates, values, strict=True):
    if not np.isfinite(column).any():
      continue
    means.append(float(np.nanmean(column)))
    if abs(means[-1] - figure) <= 0.006 + 1e-4 * abs(figure):
      return score, column
  if means:
    problems.append(
      f'task {result.about.name}: its predictions give {metric} {means[0]:.2f}, results.json says '
      f'{figure:.2f}; intervals are those of results.json, and nothing is compared by example'
    )
  return None


def is_slow(metric: str) -> bool:
  """Whether a figure of one answer takes milliseconds."""
  return metric.casefold().startswith(_SLOW)


def scorers(task: eval_tasks.EvalTask, metric: str) -> list[Scorer]:
  """What may have given the metric's figures of single answers; none of corpus metrics.

  Accuracy of free answers means equal texts, equal labels or equal numbers, as the task says.
  """
  if metric.casefold() in _OF_A_CORPUS:
    return []
  if task.protocol in (eval_tasks.T0, eval_tasks.HARNESS):
    if metric in _ARGMAX:
      return [hit]
    if metric in _BY_LENGTH:
      return [lambda p: hit(p, by_length=True)]
    return []
  if task.protocol == eval_tasks.EMBEDDED:
    return [lambda p: _own_figure(p, metric)]
  names = ('accuracy', 'mgsm') if metric == 'accuracy' else (metric,)
  found = [_of(task, name) for name in names if name in example_scores.names()]
  return found + ([_label] if metric == 'accuracy' else [])


def _own_figure(p: eval_tasks.Prediction, metric: str) -> float:
  value = p.fields.get(metric)
  return 100.0 * value if isinstance(value, int | float) else math.nan


def _of(task: eval_tasks.EvalTask, name: str) -> Scorer:
  def score(p: eval_tasks.Prediction) -> float:
    if not p.targets:
      return math.nan
    language = task.language or _row_language(p)
    try:
      return example_scores.of(name, _target(p), p.prediction, language=language)
    except (ImportError, OSError):  # a library or a file that is not here
      return math.nan

  return score


def _label(p: eval_tasks.Prediction) -> float:
  if not p.targets:
    return math.nan
  return exact_match.label_accuracy([_target(p)], [p.prediction])['accuracy']


def _target(p: eval_tasks.Prediction) -> list[str]:
  return [str(target) for target in p.targets]


def hit(p: eval_tasks.Prediction, by_length: bool = False) -> float:
  """100 if the best option is the right one, else 0; the first of several best ones counts."""
  if p.label is None or not p.option_scores or len(p.option_scores) != len(p.options):
    return math.nan
  scores = [float(score) for score in p.option_scores]
  if by_length:
    scores = [s / max(1, len(text)) for s, text in zip(scores, p.options, strict=True)]
  if any(math.isnan(s) for s in scores):
    return math.nan
  return 100.0 * (scores.index(max(scores)) == p.label)


def score_of(answers: Answers, p: eval_tasks.Prediction) -> float | None:
  """Figure of one answer, 0 to 100; None where it has none."""
  value = math.nan if answers.score is None else answers.score(p)
  return None if math.isnan(value) else value


def is_hit(metric: str) -> bool:
  """Whether an answer is right or wrong by a metric, and nothing between."""
  return metric in _ARGMAX + _BY_LENGTH

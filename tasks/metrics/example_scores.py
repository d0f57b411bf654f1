"""A metric's figure for one example, by its name: to compare, to sort by, to show."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aya_train.tasks.metrics import (
  answer_shape,
  exact_match,
  numerals,
  references,
  rouge,
  squad,
  translation,
)

_Score = Callable[[Sequence[str], str, str], float]


def _best(score: Callable[[str, str, str], float]) -> _Score:
  return lambda found, answer, language: max(
    (100 * score(text, answer, language) for text in found), default=0.0
  )


def _hit(found: Sequence[str], answer: str, language: str) -> float:
  del language
  return 100.0 * (exact_match.normalize(answer) in map(exact_match.normalize, found))


def _rouge(name: str) -> _Score:
  return lambda found, answer, language: 100 * rouge.best(found, answer)[name]


def _sentence(name: str) -> _Score:
  return lambda found, answer, language: translation.sentence(name, found, answer)


_SCORES: Mapping[str, _Score] = {
  'accuracy': _hit,
  'answer_characters': lambda found, answer, language: float(answer_shape.characters(answer)),
  'exact_match': _hit,
  'f1': _best(squad.f1),
  'em': _best(squad.em),
  'f1_unicode': _best(squad.f1_unicode),
  'em_unicode': _best(squad.em_unicode),
  'mgsm': lambda found, answer, language: 100.0 * numerals.is_right(found, answer, language),
  **{name: _rouge(name) for name in rouge.TYPES},
  **{name: _sentence(name) for name in translation.NAMES},
}


def names() -> list[str]:
  """Metrics that have a figure for one example."""
  return sorted(_SCORES)


def of(metric: str, target: Any, prediction: str, language: str = '') -> float:
  """Figure of one example, 0 to 100 (but characters); 0 where a reference is lacking.

  Args:
    metric: one of `names`; 'mgsm' is accuracy of numbers.
    target: a text, a list of texts, or `References`.
    language: where the target has none of its own.

  Raises:
    ValueError: of an unknown metric.
  """
  if metric not in _SCORES:
    raise ValueError(f'{metric!r} has no figure for one example; these have: {names()}')
  code = references.language(target, language)
  return float(_SCORES[metric](references.texts(target), prediction or '', code))


def per_example(
  metric: str, targets: Sequence[Any], predictions: Sequence[str], language: str = ''
) -> list[float]:
  """`of`, of all examples of a task."""
  return [
    of(metric, target, prediction, language)
    for target, prediction in zip(targets, predictions, strict=True)
  ]

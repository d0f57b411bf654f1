"""What metrics compare answers with: reference texts, and what else is known of the example."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

# Model features and what SeqIO adds: large, and of no use to a metric.
_NOT_KEPT = ('inputs', 'targets', 'inputs_pretokenized', 'references')


class References(list[str]):
  """Reference texts of an example, [] where there are none.

  Attributes:
    language: code of the example's language, '' where it is not said.
    fields: other columns of the example.
  """

  def __init__(
    self,
    texts: Iterable[str] = (),
    language: str = '',
    fields: Mapping[str, Any] | None = None,
  ):
    super().__init__(texts)
    self.language = language
    self.fields = dict(fields or {})


def _plain(value: Any) -> Any:
  """A value of an example without NumPy and bytes."""
  if isinstance(value, np.ndarray):
    value = value.tolist()
  elif isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, bytes):
    return value.decode('utf-8', 'replace')
  return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def postprocess(
  text: str, example: Mapping[str, Any] | None = None, is_target: bool = False
) -> Any:
  """A postprocess_fn: targets become `References`, predictions stay text.

  The references are the column `references`, or the decoded targets where there is none; the
  language is the column `language`, or `language_code`.
  """
  if not is_target:
    return text
  columns = {key: _plain(value) for key, value in (example or {}).items()}
  found = columns.get('references', [text])
  found = [found] if isinstance(found, str) else found
  fields = {key: value for key, value in columns.items() if key not in _NOT_KEPT}
  language = columns.get('language') or columns.get('language_code') or ''
  return References(map(str, found), language=str(language), fields=fields)


def texts(target: Any) -> list[str]:
  """References of one target: a text is one reference, None is none."""
  if target is None:
    return []
  return [target] if isinstance(target, str) else [str(text) for text in target]


def language(target: Any, otherwise: str = '') -> str:
  """Language of one target: its own, else that of its task."""
  return getattr(target, 'language', '') or otherwise


def field(target: Any, name: str, otherwise: Any = None) -> Any:
  """A column of the example of one target."""
  return getattr(target, 'fields', {}).get(name, otherwise)


def scored(
  targets: Sequence[Any], predictions: Sequence[str]
) -> tuple[list[list[str]], list[str], dict[str, float]]:
  """References and answers of the examples that have a reference.

  Returns:
    (references, answers, {} or {'without_reference': number of examples that have none}).

  Raises:
    ValueError: the two lengths differ.
  """
  pairs = [
    (texts(target), prediction or '')
    for target, prediction in zip(targets, predictions, strict=True)
  ]
  kept = [(found, prediction) for found, prediction in pairs if found]
  missing = len(pairs) - len(kept)
  note = {'without_reference': float(missing)} if missing else {}
  return [found for found, _ in kept], [prediction for _, prediction in kept], note


_COUNTS = ('without_reference', 'without_language')


def together(
  metrics: Sequence[Callable[..., dict[str, float]]], names: Sequence[str] = ()
) -> Callable[[Any, Any], dict[str, float]]:
  """One metric function of several, that SeqIO takes; it refuses two with a figure in common.

  Counts of examples that are left out stand once. Any other figure that an earlier metric has gets
  the name of its own before it: `number_accuracy`.

  Args:
    metrics: of (targets, predictions).
    names: of the metrics, by default those of the functions.
  """
  called = names or [metric.__name__ for metric in metrics]

  def figures(targets: Any, predictions: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, metric in zip(called, metrics, strict=True):
      new = metric(targets, predictions)
      taken = {*new} & {*found} - {*_COUNTS}
      found |= {f'{name}_{key}' if taken and key not in _COUNTS else key: new[key] for key in new}
    return found

  figures.metrics = tuple(metrics)  # type: ignore[attr-defined]
  return figures


def bound(
  metric: Callable[..., dict[str, float]], **options: Any
) -> Callable[[Any, Any], dict[str, float]]:
  """A metric function with options given, that SeqIO takes as it takes the function itself."""
  return functools.wraps(metric)(functools.partial(metric, **options))

"""Metrics of generated answers that a user's table can name."""

import importlib
from collections.abc import Callable, Mapping

# Name in a table -> module and function of tasks/metrics, and the figure that is published.
_METRICS: Mapping[str, tuple[str, str, str]] = {
  'exact_match': ('exact_match', 'accuracy', 'accuracy'),
  'squad': ('squad', 'squad', 'f1'),
  'rouge': ('rouge', 'rouge', 'rougeLsum'),
  'bleu': ('translation', 'bleu', 'bleu'),
  'spbleu': ('translation', 'spbleu', 'spbleu'),
  'chrf': ('translation', 'chrf', 'chrf++'),
  'number': ('numerals', 'mgsm', 'accuracy'),
  'length': ('answer_shape', 'lengths', 'answer_characters'),
  'repetition': ('answer_shape', 'repetition', 'repeated_4grams'),
  'language': ('answer_language', 'asked_language', 'in_language'),
}
NAMES = tuple(_METRICS)
FREE = ('length', 'repetition', 'language')
"""Metrics that look at answers alone."""


def published(name: str) -> str:
  """The figure of a metric that stands for it: 'f1' of 'squad'."""
  return _METRICS[name][2]


def needs_references(name: str) -> bool:
  """Whether a metric compares answers with right ones."""
  return name not in FREE


def function(name: str) -> Callable[..., dict[str, float]]:
  """The metric function of a name; its module is imported here."""
  module, attribute, _ = _METRICS[name]
  return getattr(importlib.import_module(f'aya_train.tasks.metrics.{module}'), attribute)

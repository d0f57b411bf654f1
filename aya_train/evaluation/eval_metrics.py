"""SeqIO's metrics around their edges: what cannot be called, what is no number, what they raise."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seqio

from aya_train import finiteness, user_code


def of_task(task: seqio.Task) -> Sequence[Any]:
  """A task's metrics; refuses functions that SeqIO cannot call, which it only does when asked.

  Raises:
    ValueError: a metric's arguments have other names than SeqIO gives.
  """
  try:
    return task.metric_objs
  except ValueError as error:
    raise ValueError(
      f'task {task.name!r} has a metric whose arguments have other names than SeqIO gives: {error}'
    ) from error


class StrictJSONLogger(seqio.JSONLogger):
  """SeqIO's files without figures that JSON has no words for; `evaluate` names them."""

  def __call__(self, *, metrics: Mapping[str, Any], **rest: Any) -> None:
    bad = {*finiteness.nonfinite_figures(numbers(metrics))}
    kept = {name: value for name, value in metrics.items() if name not in bad}
    super().__call__(metrics=kept, **rest)


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
  """The metrics that are one number each; SeqIO's loggers write others (texts, histograms)."""
  found = {}
  for name, value in values.items():
    if isinstance(value, seqio.metrics.MetricValue) and not isinstance(value, seqio.metrics.Scalar):
      continue
    array = np.asarray(getattr(value, 'value', value))
    if array.size == 1 and np.issubdtype(array.dtype, np.number):
      found[name] = float(array.reshape(()))
  return found


def first_line(error: BaseException) -> str:
  """Type, first line and place in the user's code of what was raised, through SeqIO's wrapping."""
  cause = error.__cause__ or error
  lines = str(cause).strip().splitlines()
  place = user_code.place(error)
  if "no attribute 'items'" in str(cause) and not place:
    place = 'does a metric return its number? SeqIO wants a dict of names to numbers'
  return f'{type(cause).__name__}: {lines[0] if lines else ""}' + (f', {place}' if place else '')

"""What TASK_FEATURE_LENGTHS cut of examples, and how many of them."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from aya_train.data import prepared

logger = logging.getLogger(__name__)
_said: set[str] = set()  # each evaluation opens the same data


def check(
  name: str,
  lengths: Mapping[str, int],
  max_fraction: float,
  tasks: Mapping[str, prepared.PreparedTask],
  rates: Mapping[str, float],
) -> dict[str, float]:
  """Returns the share of drawn examples that each feature's length cuts; says it once, if any.

  A drawn example is one of task t with probability rates[t] / sum(rates).

  Args:
    name: of the mixture and its split, for messages.
    lengths: tokens that a feature may have.
    max_fraction: the largest share that is allowed, MAX_TRUNCATED_FRACTION.
    tasks: of the mixture.
    rates: of each of them.

  Raises:
    ValueError: a share is above `max_fraction`.
  """
  shares = {}
  for feature, limit in lengths.items():
    sizes, counts, draws = [], [], []
    for task, rate in rates.items():
      histogram = tasks[task].manifest.lengths[feature]
      sizes.append(np.fromiter(histogram.keys(), np.int64))
      counts.append(np.fromiter(histogram.values(), np.int64))
      draws.append(counts[-1] * (rate / len(tasks[task])))
    length, count, draw = (np.concatenate(parts) for parts in (sizes, counts, draws))
    cut = length > limit
    shares[feature] = share = float(draw[cut].sum() / draw.sum())
    report = (
      f'{feature} longer than {limit} tokens: {count[cut].sum():,} of {count.sum():,} examples of'
      f" '{name}' ({share:.2%} of the draws); the longest has"
      f' {length.max():,}.'
    )
    if share > max_fraction:
      order = np.argsort(length)
      reached = np.cumsum(draw[order]) / draw.sum()
      enough = length[order][np.searchsorted(reached, 1 - max_fraction - 1e-9)]
      raise ValueError(
        f'{report} max_truncated_fraction is {max_fraction}: a length of {enough} in'
        f' task_feature_lengths[{feature!r}] would satisfy it, or raise the fraction (the macros '
        'TASK_FEATURE_LENGTHS and MAX_TRUNCATED_FRACTION).'
      )
    if cut.any() and report not in _said:
      _said.add(report)
      logger.info('%s', report)
  return shares


def trimmer(eos: Mapping[str, int], lengths: Mapping[str, int]) -> Callable[[Any], Any]:
  """A function that keeps the features of an example that have a length, cut to it.

  Args:
    eos: see `Manifest.eos_after_trim`.
    lengths: in tokens.
  """
  limits = [(f, length, eos.get(f)) for f, length in lengths.items()]

  def trim(example: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    kept = {}
    for feature, length, eos in limits:
      tokens = example[feature]
      if len(tokens) > length:
        tokens = tokens[:length] if eos is None else np.append(tokens[: length - 1], np.int32(eos))
      kept[feature] = tokens
    return kept

  return trim

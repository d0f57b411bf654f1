"""Rows of pairs of texts, and of hard negatives, for objectives that compare the texts of a batch.

Features: `inputs` (the query) and `targets` (what answers it); `negative_1`, `negative_2` ... (what
does not, though it seems to) and `labels` [2] (numbers of a row's source and of its group, 0 for
none), as many as TASK_FEATURE_LENGTHS names. A text of nothing but its end is none.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping

import numpy as np

from aya_train.data import feature_converters

LABELS = 'labels'
NUM_LABELS = 2
_NEGATIVE = re.compile(r'negative_([1-9][0-9]*)')
_END = 1


def negative_name(number: int) -> str:
  """The feature of a row's hard negative, counted from 1."""
  return f'negative_{number}'


def negatives_of(names: Mapping[str, object]) -> list[str]:
  """The features of hard negatives among names, in their order."""
  numbers = sorted(int(m[1]) for name in names if (m := _NEGATIVE.fullmatch(name)))
  return [negative_name(number) for number in numbers]


@dataclasses.dataclass(frozen=True)
class PairFeatureConverter(feature_converters.FeatureConverter):
  """Pairs as they are, with what the loss has to know of their texts."""

  task_features: tuple[str, ...] = ('inputs', 'targets')

  def convert(self, rows: Mapping[str, np.ndarray], *, packed: bool) -> feature_converters.Batch:
    """Converts stacked rows.

    Returns:
      The texts, int32 [B, L] each by its feature, and for each NAME_id int32 [B, 2], equal for
      equal texts; sources and groups int32 [B]; example_weights float32 [B], 0 for a row without
      a query or a target.
    """
    del packed
    texts = {name: x for name, x in rows.items() if name != LABELS}
    there = np.any(rows['inputs'] > _END, axis=1) & np.any(rows['targets'] > _END, axis=1)
    labels = rows.get(LABELS, np.zeros((len(there), NUM_LABELS), np.int32))
    return {
      **texts,
      **{f'{name}_id': text_ids(x) for name, x in texts.items()},
      'sources': np.ascontiguousarray(labels[:, 0]),
      'groups': np.ascontiguousarray(labels[:, 1]),
      'example_weights': there.astype(np.float32),
    }

  def check(self, lengths: Mapping[str, int], *, pack: bool) -> None:
    """Refuses packing, and features that are no pair of texts.

    Raises:
      ValueError: with the names that are wanted.
    """
    negatives = negatives_of(lengths)
    wanted = {*self.task_features, *negatives, LABELS}
    wrong = {*lengths} - wanted or {*self.task_features} - {*lengths}
    if wrong or negatives != [negative_name(i + 1) for i in range(len(negatives))]:
      raise ValueError(
        'task_feature_lengths (TASK_FEATURE_LENGTHS) must give a length for inputs and targets; '
        "for negative_1, negative_2 ... where there are hard negatives; and 'labels': 2 where the "
        f'rows say their source and group; got {dict(lengths)}'
      )
    if lengths.get(LABELS, NUM_LABELS) != NUM_LABELS:
      raise ValueError(
        f"TASK_FEATURE_LENGTHS: 'labels' has the length {NUM_LABELS}, source and group of a row, "
        f'got {lengths[LABELS]}'
      )
    if pack:
      raise ValueError('pack=True (PACK), but a row has one pair of texts: PACK = False')


@functools.lru_cache(maxsize=16)
def _multipliers(length: int) -> np.ndarray:
  numbers = np.random.default_rng(0).integers(0, 2**64, size=length, dtype=np.uint64)
  return numbers | np.uint64(1)


def text_ids(tokens_BL: np.ndarray) -> np.ndarray:
  """64 bits of each row as int32 [B, 2]: equal for equal texts, whatever the padding."""
  products = tokens_BL.astype(np.uint64) * _multipliers(tokens_BL.shape[1])
  return products.sum(axis=1, dtype=np.uint64).view(np.uint32).view(np.int32).reshape(-1, 2)

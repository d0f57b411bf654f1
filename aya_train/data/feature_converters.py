"""From rows of token ids to the arrays of a batch: SeqIO's feature converters, in numpy.

A row holds, for each task feature f of length L, an int32 array f [L]; a packed row of several
examples also f_segment_ids (1, 2, ... for its examples, 0 for padding) and f_positions (0, 1, ...
in each example). An objective says by its converter which features it reads, and what it is given.

Letters: B rows of a batch, S encoder positions, T decoder positions.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Batch = dict[str, np.ndarray]
PACKED = ('_segment_ids', '_positions')


@dataclasses.dataclass(frozen=True)
class FeatureConverter:
  """Gives rows as they are, with a weight for each: for objectives that pad and do not pack.

  Attributes:
    task_features: names of the integer features of a record that are read (SeqIO's TASK_FEATURES).
    packs: whether `convert` knows packed rows.
  """

  task_features: tuple[str, ...]
  packs: bool = False

  def convert(self, rows: Mapping[str, np.ndarray], *, packed: bool) -> Batch:
    """Converts stacked rows.

    Args:
      rows: int32 [B, L] arrays by the names above; a row of zeros fills a batch and counts nothing.
      packed: whether segment ids and positions are among them.

    Returns:
      What the objective computes with: the rows, and `example_weights` float32 [B], 0 for a row
      that only fills the batch.
    """
    del packed
    filled = np.any([rows[f].any(axis=1) for f in self.task_features], axis=0)
    return {**rows, 'example_weights': filled.astype(np.float32)}

  def check(self, lengths: Mapping[str, int], *, pack: bool) -> None:
    """Refuses lengths of other features than those that are read, and packing where there is none.

    Raises:
      ValueError: with the names that are wanted.
    """
    if sorted(lengths) != sorted(self.task_features):
      raise ValueError(
        'task_feature_lengths (TASK_FEATURE_LENGTHS) must give a positive length for each of '
        f'{self.task_features}, the features that the objective reads, got {dict(lengths)}.'
      )
    if pack and not self.packs:
      raise ValueError(
        f'pack=True (PACK), but the objective reads {self.task_features} of one example a row: '
        'PACK = False'
      )

  def check_examples(self, name: str, lengths: Mapping[str, Mapping[int, int]]) -> None:
    """Refuses data that the objective can learn nothing from; by default any is good.

    Args:
      name: of the data, for messages.
      lengths: of each feature, how many examples have how many tokens.

    Raises:
      ValueError: what is wrong with the data, and what to do.
    """
    del name, lengths

  def check_cut(self, name: str, examples: Iterable[Mapping[str, np.ndarray]]) -> None:
    """The same of some examples, as the lengths cut them; by default none is read.

    Args:
      name: of the data, for messages.
      examples: tokens of each feature.

    Raises:
      ValueError: what the lengths leave nothing of, and what to do.
    """
    del name, examples


@dataclasses.dataclass(frozen=True)
class EncDecFeatureConverter(FeatureConverter):
  """Converts `inputs` and `targets` as SeqIO's EncDecFeatureConverter does, packed or not."""

  task_features: tuple[str, ...] = ('inputs', 'targets')
  packs: bool = True

  def convert(self, rows: Mapping[str, np.ndarray], *, packed: bool) -> Batch:
    """Converts stacked rows to model features.

    Returns:
      encoder_input_tokens int32 [B, S]; decoder_input_tokens, decoder_target_tokens int32 and
      decoder_loss_weights float32 [B, T]; if packed encoder_segment_ids, encoder_positions int32
      [B, S] and decoder_segment_ids, decoder_positions int32 [B, T].
    """
    targets = rows['targets']
    batch = {
      'encoder_input_tokens': rows['inputs'],
      'decoder_input_tokens': shift_right(targets, rows['targets_segment_ids'] if packed else None),
      'decoder_target_tokens': targets,
      'decoder_loss_weights': (targets != 0).astype(np.float32),
    }
    if packed:
      for side, feature in (('encoder', 'inputs'), ('decoder', 'targets')):
        batch |= {side + suffix: rows[feature + suffix] for suffix in PACKED}
    return batch


def shift_right(tokens_BT: np.ndarray, segment_ids_BT: np.ndarray | None = None) -> np.ndarray:
  """Returns int32 [B, T] decoder inputs: the tokens one to the right, 0 at each segment's start."""
  shifted_BT = np.zeros_like(tokens_BT)
  shifted_BT[:, 1:] = tokens_BT[:, :-1]
  if segment_ids_BT is not None:
    shifted_BT[:, 1:] *= segment_ids_BT[:, 1:] == segment_ids_BT[:, :-1]
  return shifted_BT


def padded(
  examples: Sequence[Mapping[str, np.ndarray]],
  lengths: Mapping[str, int],
  batch_size: int | None = None,
) -> Batch:
  """Stacks examples, or rows that are packed already, into int32 [B, L] arrays.

  Args:
    examples: dicts of int32 arrays by the names in `lengths`, none longer than these say.
    lengths: feature to L.
    batch_size: B; rows of zeros fill it. None means the number of examples.
  """
  count = len(examples) if batch_size is None else batch_size
  rows = {f: np.zeros((count, length), np.int32) for f, length in lengths.items()}
  for i, example in enumerate(examples):
    for feature, values in rows.items():
      values[i, : len(example[feature])] = example[feature]
  return rows


def row_lengths(lengths: Mapping[str, int], *, packed: bool) -> dict[str, int]:
  """The length of each array of a row, those of packed rows included."""
  suffixes = ('', *PACKED) if packed else ('',)
  return {f + suffix: lengths[f] for f, suffix in itertools.product(lengths, suffixes)}


def packing_efficiency(rows: Mapping[str, np.ndarray], features: Sequence[str]) -> float:
  """Returns the share of all positions of the features [B, L] that are not padding."""
  tokens = [rows[f] for f in features]
  return sum(np.count_nonzero(t) for t in tokens) / sum(t.size for t in tokens)


def examples_per_batch(rows: Mapping[str, np.ndarray], features: Sequence[str]) -> int:
  """Returns the number of examples in rows of features [B, L], packed or not."""
  if f'{features[0]}_segment_ids' in rows:
    segments = [rows[f'{f}_segment_ids'].max(axis=1) for f in features]
  else:
    segments = [rows[f].any(axis=1) for f in features]
  return int(np.max(segments, axis=0).sum())


def check_lengths(lengths: Any, needed: Sequence[str] = ()) -> None:
  """Refuses lengths (TASK_FEATURE_LENGTHS) that are no number of tokens.

  Raises:
    ValueError: such as None, which SeqIO takes for "no cut", or one number for all features; none
      for a feature that is `needed`.
  """
  if not isinstance(lengths, Mapping):
    raise ValueError(
      f"TASK_FEATURE_LENGTHS must name features, as in {{'inputs': 128, 'targets': 64}}, got "
      f'{lengths!r}'
    )
  wrong = {
    name: length
    for name, length in lengths.items()
    if isinstance(length, bool) or not isinstance(length, int) or length < 1
  }
  if wrong:
    raise ValueError(
      f'TASK_FEATURE_LENGTHS must give a number of tokens for each feature, got {dict(lengths)}. '
      "SeqIO's None (nothing is cut) has no place here: arrays have one shape; give the length of "
      'the longest example'
    )
  if missing := [name for name in needed if name not in lengths]:
    raise ValueError(f'TASK_FEATURE_LENGTHS has no length of {missing}, got {dict(lengths)}')

"""Pairs of answers to a prompt, from prepared records to the arrays of a batch.

Letters: B rows of a batch, S encoder positions, T decoder positions, N pairs of a row at most.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping

import numpy as np

from aya_train import preference_losses
from aya_train.data import feature_converters

logger = logging.getLogger(__name__)
PAIR = ('chosen', 'rejected')
SCORES = (*PAIR, 'chosen_head', 'rejected_head', 'unrelated')
"""What a reference model says of a pair: log-likelihoods of both answers, of their tokens up to the
length of the shorter one, and of another prompt's answer."""
_SHORT_PROMPT = 8  # tokens


@dataclasses.dataclass(frozen=True)
class AnswerPairFeatureConverter(feature_converters.FeatureConverter):
  """Converts `inputs`, `chosen` and `rejected`, packed or not: two answers to each prompt.

  Packed, the answers of a pair have the segment number of their prompt, each on its own side. A
  pair may lack one of its answers, which then has no tokens: answers that were judged one by one.

  With `unrelated` among the features a row has an answer of another prompt, too; with `reference`
  the pair's SCORES under another model, as `as_integers` writes them.

  Attributes:
    answers: what examples must have: 'both' answers in each, 'either' with some of both kinds in
      the data, or 'chosen' ones in some.
  """

  task_features: tuple[str, ...] = ('inputs', 'chosen', 'rejected')
  packs: bool = True
  answers: str = 'both'

  def convert(self, rows: Mapping[str, np.ndarray], *, packed: bool) -> feature_converters.Batch:
    """Converts stacked rows to model features.

    Returns:
      encoder_input_tokens int32 [B, S]; decoder_input_tokens, decoder_target_tokens int32
      [B, 2, T], the chosen answers before the rejected ones, T the longer of both lengths; if
      packed encoder_segment_ids int32 [B, S] and decoder_segment_ids int32 [B, 2, T]; of rows that
      have them unrelated_input_tokens, unrelated_target_tokens and unrelated_segment_ids int32
      [B, T'], and `reference`, float32 [B, N, len(SCORES)], N the most pairs of a row.
    """
    targets = _both(rows, '')
    segments = _both(rows, '_segment_ids') if packed else None
    batch = {
      'encoder_input_tokens': rows['inputs'],
      'decoder_target_tokens': targets,
      'decoder_input_tokens': np.stack(
        [
          feature_converters.shift_right(
            targets[:, i], None if segments is None else segments[:, i]
          )
          for i in (0, 1)
        ],
        axis=1,
      ),
    }
    if segments is not None:
      batch['encoder_segment_ids'] = rows['inputs_segment_ids']
      batch['decoder_segment_ids'] = segments
    if 'unrelated' in self.task_features:
      other = rows['unrelated_segment_ids'] if packed else None
      batch['unrelated_target_tokens'] = rows['unrelated']
      batch['unrelated_input_tokens'] = feature_converters.shift_right(rows['unrelated'], other)
      if other is not None:
        batch['unrelated_segment_ids'] = other
    if 'reference' in self.task_features:
      batch['reference'] = from_integers(rows['reference'])
    return batch

  def check(self, lengths: Mapping[str, int], *, pack: bool) -> None:
    """Refuses also a length of `reference` that is not len(SCORES) for each pair of a row."""
    super().check(lengths, pack=pack)
    one = len(SCORES)
    given = lengths.get('reference', one)
    if given % one or (not pack and given != one):
      raise ValueError(
        "TASK_FEATURE_LENGTHS['reference'] must be "
        f'{f"{one} for each pair that a packed row may hold" if pack else one}, got {given}'
      )

  def check_examples(self, name: str, lengths: Mapping[str, Mapping[int, int]]) -> None:
    """Refuses answers that are missing where both are needed, or of which all are of one kind."""
    missing = {side: lengths[side].get(0, 0) for side in PAIR}
    total = sum(lengths['chosen'].values())
    if self.answers == 'both' and (lacking := max(missing.values())):
      side = max(PAIR, key=missing.__getitem__)
      raise ValueError(
        f'{name}: {lacking:,} of {total:,} rows have no {side} answer, and the loss compares two: '
        'give pairs, or take the loss for answers that were judged one by one (PREFERENCE_LOSS = '
        "'kto')"
      )
    wanted = {'either': PAIR, 'chosen': ('chosen',)}.get(self.answers, ())
    if none := [side for side in wanted if missing[side] == total]:
      raise ValueError(
        f'{name}: none of {total:,} rows has a {none[0]} answer: all labels are the same, and '
        'nothing can be learned of what is preferred. Give answers of both labels'
      )

  def check_cut(self, name: str, examples: Iterable[Mapping[str, np.ndarray]]) -> None:
    """Refuses pairs that are all the same where the lengths cut them; warns of some."""
    if self.answers != 'both':
      return
    same = [np.array_equal(example['chosen'], example['rejected']) for example in examples]
    said = (
      f'{name}: chosen and rejected are the same tokens in %d of %d pairs that were looked at, as '
      'the lengths cut them: nothing is learned from those. Longer TASK_FEATURE_LENGTHS tell them '
      'apart'
    )
    if same and all(same):
      raise ValueError(said % (sum(same), len(same)))
    if any(same):
      logger.warning(said, sum(same), len(same))


def _both(rows: Mapping[str, np.ndarray], suffix: str) -> np.ndarray:
  """The arrays of both answers [B, 2, T], the shorter one filled with zeros."""
  sides = [rows[name + suffix] for name in PAIR]
  length = max(side.shape[1] for side in sides)
  return np.stack([np.pad(x, ((0, 0), (0, length - x.shape[1]))) for x in sides], axis=1)


def as_integers(log_likelihoods: np.ndarray) -> np.ndarray:
  """Log-likelihoods as a prepared record holds them.

  Args:
    log_likelihoods: at most 0, float32.

  Returns:
    int32 of the same shape, not negative: the bits of the negative log-likelihoods.
  """
  return np.maximum(-log_likelihoods.astype(np.float32), np.float32(0)).view(np.int32)


def from_integers(integers: np.ndarray) -> np.ndarray:
  """What `as_integers` was given, float32 [B, N, len(SCORES)] of int32 [B, len(SCORES) N]."""
  bits = np.ascontiguousarray(integers, np.int32)
  return -bits.view(np.float32).reshape(len(integers), -1, len(SCORES))


def feature_lengths(
  lengths: Mapping[str, int],
  *,
  loss: str,
  pack: bool,
  reference_point: float | None = None,
  reference: str = 'scores',
) -> dict[str, int]:
  """Lengths of all features that a loss reads, from those of the texts.

  Args:
    lengths: of `inputs`, `chosen` and `rejected`, in tokens; an answer's is that of `targets`, if
      it has none of its own.
    loss: one of preference_losses.NAMES.
    pack: whether a row holds several pairs: as many as it has prompts of 8 tokens, at most.
    reference_point, reference: of PreferenceModel.

  Raises:
    ValueError: other features than these.
  """
  texts = ('inputs', *PAIR)
  given = lengths
  if 'targets' in lengths:
    lengths = {**dict.fromkeys(PAIR, lengths['targets']), **lengths}
  if missing := [name for name in texts if name not in lengths]:
    raise ValueError(
      f'TASK_FEATURE_LENGTHS must give the lengths of {texts} in tokens, got {dict(given)}: '
      f'{missing} missing'
    )
  if unknown := sorted({*lengths} - {*texts, 'targets'}):
    raise ValueError(
      f'TASK_FEATURE_LENGTHS has lengths of {unknown}; those of {(*texts, "targets")} are known, '
      'and a reference needs none'
    )
  found = {name: lengths[name] for name in texts}
  if loss == 'kto' and reference_point is None:
    found['unrelated'] = max(lengths[name] for name in PAIR)
  if loss in preference_losses.WITH_REFERENCE and reference == 'scores':
    pairs = max(1, lengths['inputs'] // _SHORT_PROMPT) if pack else 1
    found['reference'] = len(SCORES) * pairs
  return found


def decoding_lengths(lengths: Mapping[str, int]) -> dict[str, int]:
  """Lengths of `inputs` and `targets` for decoding, of those that `feature_lengths` takes."""
  answers = max(lengths.get(name, 1) for name in PAIR)
  return {'inputs': lengths['inputs'], 'targets': lengths.get('targets', answers)}


def prompt_lengths(lengths: Mapping[str, int]) -> dict[str, int]:
  """The length of `inputs` alone, which is all that is read where answers are drawn."""
  return {'inputs': lengths['inputs']}

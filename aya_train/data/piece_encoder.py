"""Text to the ids of a SentencePiece vocabulary, many texts at once: the ids that SeqIO gives.

SentencePiece's batch API is several times as fast as the operation of tensorflow_text that SeqIO
runs row by row, and gives the same pieces, but for ties: where a word repeats itself (`....`,
`nananana`) the same pieces in another order have the same probability, and the two libraries add
it up differently. Such rows, which show in their pieces, are given to TensorFlow.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import sentencepiece
import seqio
import tensorflow as tf

_LONGEST_PERIOD = 8  # in pieces


class PieceEncoder:
  """Encodes with a vocabulary that `is_plain`; may be used from several threads at once."""

  def __init__(self, vocabulary: seqio.SentencePieceVocabulary):
    self._processor = vocabulary.tokenizer
    self._eos = np.array([vocabulary.eos_id], np.int32)
    self._operation = vocabulary.tf_tokenizer
    self._classes = _classes(self._processor)

  def encode(self, texts: Sequence[bytes], *, add_eos: bool) -> list[np.ndarray]:
    """An int32 array of ids for each text; Python's lock is not held meanwhile."""
    found = _encode(self._processor, list(texts))
    if ambiguous := self._ambiguous(found):
      again = self._operation.tokenize(tf.constant([texts[i] for i in ambiguous]))
      rows = np.split(again.values.numpy(), again.row_splits.numpy()[1:-1])
      for i, row in zip(ambiguous, rows, strict=True):
        found[i] = row
    return [np.concatenate((ids, self._eos)) for ids in found] if add_eos else found

  def _ambiguous(self, rows: Sequence[np.ndarray]) -> list[int]:
    """Rows whose pieces could stand in another order: neighbours commute, or a pair comes again."""
    ids = np.concatenate(rows)
    row = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    classes = self._classes[ids]
    letters = classes >= 0
    found = np.zeros(len(ids), bool)
    found[1:] = (classes[1:] == classes[:-1]) & (ids[1:] != ids[:-1]) & (row[1:] == row[:-1])
    found &= letters
    for period in range(2, min(_LONGEST_PERIOD, len(ids) - 1) + 1):
      same = (ids[period:] == ids[:-period]) & (row[period:] == row[:-period]) & letters[period:]
      found[period + 1 :] |= same[1:] & same[:-1]
    return np.unique(row[found]).tolist()


def is_plain(vocabulary: Any) -> bool:
  """Whether TensorFlow's tokens of a vocabulary are those of SentencePiece itself."""
  kind = type(vocabulary)
  plain = seqio.SentencePieceVocabulary
  return (
    isinstance(vocabulary, plain)
    and kind._encode_tf is plain._encode_tf
    and kind.encode_tf is plain.encode_tf
    and kind.tf_tokenizer is plain.tf_tokenizer
    and not vocabulary._use_fast_tokenizer
    and vocabulary.tokenizer.eos_id() >= 0
  )


def _encode(
  processor: sentencepiece.SentencePieceProcessor, texts: list[bytes]
) -> list[np.ndarray]:
  if hasattr(processor, 'EncodeAsNumpy'):
    return processor.Encode(texts, return_type='numpy', num_threads=1)
  # Before 0.2.3, which Beam's protobuf keeps out.
  return [np.array(ids, np.int32) for ids in processor.Encode(texts, out_type=int, num_threads=1)]


def _classes(processor: sentencepiece.SentencePieceProcessor) -> np.ndarray:
  """int64 [pieces]: the same number for powers of the same text, which commute; -1 for bytes."""
  pieces = processor.IdToPiece(list(range(processor.GetPieceSize())))
  roots = [piece[: (piece + piece).find(piece, 1)] for piece in pieces]
  numbers: collections.defaultdict[str, int] = collections.defaultdict(itertools.count().__next__)
  classes = np.array([numbers[root] for root in roots])
  classes[[i for i in range(len(pieces)) if processor.IsByte(i)]] = -1
  return classes

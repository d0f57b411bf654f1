"""SeqIO sources over released files of benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from aya_train.tasks import sliced_source
from aya_train.tasks.eval.row_columns import Record

STRING = tf.TensorSpec((), tf.string)
STRINGS = tf.TensorSpec((None,), tf.string)
INTEGER = tf.TensorSpec((), tf.int32)


def _column(rows: Sequence[Record], name: str, spec: tf.TensorSpec) -> tf.Tensor | tf.RaggedTensor:
  values = [row[name] for row in rows]
  if spec.shape.rank == 0:
    return tf.constant(values, spec.dtype, shape=(len(values),))
  flat = [value for row in values for value in row]
  return tf.RaggedTensor.from_row_lengths(
    tf.constant(flat, spec.dtype, shape=(len(flat),)), [len(row) for row in values]
  )


class EvalSource(sliced_source.SliceableSource):
  """Rows that a function reads from released files, at each use.

  Attributes:
    read: split -> rows; a function of a module, or a `functools.partial` of one.
  """

  default_split = 'test'

  def __init__(
    self,
    read: Callable[[str], Iterable[Record]],
    fields: Mapping[str, tf.TensorSpec],
    splits: Sequence[str] = ('test',),
  ):
    """A source; nothing is opened.

    Args:
      read: called with a split; yields mappings that have all `fields`.
      fields: of a row, with their types: STRING, STRINGS, INTEGER.
      splits: that it has.
    """
    self.read = read
    self.fields = dict(fields)
    super().__init__(splits=tuple(splits))

  def rows(self, split: str) -> list[dict[str, Any]]:
    """All rows of a split, their `fields` alone.

    Raises:
      ValueError: no such split.
      FileNotFoundError, DamagedFileError, EvalDataError: see `rows` of this module.
    """
    if split not in self.splits:
      raise ValueError(f'no split {split!r}; it has {list(self.splits)}')
    return [{name: row[name] for name in self.fields} for row in self.read(split)]

  def whole_dataset(
    self, split: str, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo | None
  ) -> tf.data.Dataset:
    """Rows in the order of the files: tensors as `fields` says.

    Files are read here, and not when the data set is iterated, so that an error of theirs is
    raised as it is.
    """
    found = self.rows(split)
    columns = {name: _column(found, name, spec) for name, spec in self.fields.items()}
    dataset = tf.data.Dataset.from_tensor_slices(columns)
    if shard_info is not None and shard_info.num_shards > 1:
      dataset = dataset.shard(shard_info.num_shards, shard_info.index)
    return dataset.shuffle(max(1, len(found)), seed=seed) if shuffle else dataset

  def whole_count(self, split: str) -> int:
    """Rows of the split; reads the files."""
    return len(self.rows(split))

  def whole_shards(self, split: str) -> list[str]:
    """One, whatever the number of files; nothing is opened."""
    return [split]

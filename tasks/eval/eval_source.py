"""SeqIO sources over released files of benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from aya_train.tasks import sliced_source, split_slices
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


class EvalSource(seqio.DataSource):
  """Rows that a function reads from released files, at each use.

  Attributes:
    read: split -> rows; a function of a module, or a `functools.partial` of one.
  """

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

  @property
  def supports_arbitrary_sharding(self) -> bool:
    return False

  def rows(self, split: str) -> list[dict[str, Any]]:
    """All rows of a split, their `fields` alone.

    Raises:
      ValueError: no such split.
      FileNotFoundError, DamagedFileError, EvalDataError: see `rows` of this module.
    """
    if split not in self.splits:
      raise ValueError(f'no split {split!r}; it has {list(self.splits)}')
    return [{name: row[name] for name in self.fields} for row in self.read(split)]

  def get_dataset(
    self,
    split: str = 'test',
    shuffle: bool = True,
    seed: int | None = None,
    shard_info: seqio.ShardInfo | None = None,
    *,
    sequence_length: Mapping[str, int] | None = None,
    use_cached: bool = False,
    num_epochs: int | None = 1,
  ) -> tf.data.Dataset:
    """Rows in the order of the files: tensors as `fields` says; of slices, theirs.

    Files are read here, and not when the data set is iterated, so that an error of theirs is
    raised as it is.
    """
    del sequence_length, use_cached, num_epochs
    if split_slices.is_sliced(split, self.splits):
      return sliced_source.SlicedSource(self, split).get_dataset(split, shuffle, seed, shard_info)
    found = self.rows(split)
    columns = {name: _column(found, name, spec) for name, spec in self.fields.items()}
    dataset = tf.data.Dataset.from_tensor_slices(columns)
    if shard_info is not None and shard_info.num_shards > 1:
      dataset = dataset.shard(shard_info.num_shards, shard_info.index)
    return dataset.shuffle(max(1, len(found)), seed=seed) if shuffle else dataset

  def num_input_examples(self, split: str) -> int:
    """Rows of the split; reads the files."""
    if split_slices.is_sliced(split, self.splits):
      return sliced_source.SlicedSource(self, split).num_input_examples(split) or 0
    return len(self.rows(split))

  def list_shards(self, split: str) -> list[str]:
    """One, whatever the number of files; nothing is opened."""
    if split_slices.is_sliced(split, self.splits):
      return sliced_source.SlicedSource(self, split).list_shards(split)
    return [split]

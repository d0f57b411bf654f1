"""Sources of SeqIO that give slices of their splits.

Apart from split_slices.py, which names and compares splits without SeqIO.
"""

import abc
import copy
from collections.abc import Mapping

import seqio
import tensorflow as tf

from aya_train.tasks import split_slices


def with_split(task: seqio.Task, split: str) -> seqio.Task:
  """A task that has the split by this name: itself, or a copy whose source gives the slices.

  Raises:
    SplitError: see `split_slices.parse`.
    ValueError: the task lacks a split; the message has those that there are.
  """
  if split in task.splits:
    return task
  if not split_slices.has(task, split):
    raise ValueError(f'no split {split!r} in task {task.name!r}; splits are {sorted(task.splits)}.')
  sliced = copy.copy(task)
  sliced._source = SlicedSource(task.source, split)
  return sliced


class SlicedSource(seqio.DataSource):
  """A source that has one more split: slices of those that another source has.

  Attributes:
    whole: the other source.
  """

  def __init__(self, whole: seqio.DataSource, split: str):
    self.whole = whole
    self._name = split
    self._parts = split_slices.parse(split)
    super().__init__(splits=(*whole.splits, split), caching_permitted=whole.caching_permitted)

  @property
  def supports_arbitrary_sharding(self) -> bool:
    return False

  def list_shards(self, split: str) -> list[str]:
    """Files of a whole split; of the slices one, if what they are cut from has files."""
    if split != self._name:
      return list(self.whole.list_shards(split))
    return [split] if any(self.whole.list_shards(part.split) for part in self._parts) else []

  def num_input_examples(self, split: str) -> int | None:
    """Rows; a source that does not know its own is read for those of slices."""
    if split != self._name:
      return self.whole.num_input_examples(split)
    return sum(stop - start for _, start, stop in self._ranges())

  def _ranges(self) -> list[tuple[str, int, int]]:
    return [(part.split, *part.rows(_count(self.whole, part.split))) for part in self._parts]

  def get_dataset(
    self,
    split: str = 'train',
    shuffle: bool = True,
    seed: int | None = None,
    shard_info: seqio.ShardInfo | None = None,
    *,
    sequence_length: Mapping[str, int] | None = None,
    use_cached: bool = False,
    num_epochs: int | None = 1,
  ) -> tf.data.Dataset:
    """As the whole source's; slices come in the order of its rows, whatever `shuffle` says."""
    if split != self._name:
      return self.whole.get_dataset(split, shuffle, seed, shard_info)
    found = None
    for name, start, stop in self._ranges():
      rows = _read(self.whole, name, start, stop)
      found = rows if found is None else found.concatenate(rows)
    assert found is not None
    return found if shard_info is None else found.shard(shard_info.num_shards, shard_info.index)


class SliceableSource(seqio.DataSource):
  """A source that gives slices of its splits, too: what is asked for by SeqIO's words.

  Attributes:
    default_split: what `get_dataset` gives without one.
  """

  default_split = 'train'

  @abc.abstractmethod
  def whole_dataset(
    self, split: str, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo | None
  ) -> tf.data.Dataset:
    """Rows of a whole split."""

  @abc.abstractmethod
  def whole_count(self, split: str) -> int:
    """How many rows a whole split has."""

  @abc.abstractmethod
  def whole_shards(self, split: str) -> list[str]:
    """What stands for the files of a whole split, in a fixed order."""

  @property
  def supports_arbitrary_sharding(self) -> bool:
    return False

  def get_dataset(
    self,
    split: str | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    shard_info: seqio.ShardInfo | None = None,
    *,
    sequence_length: Mapping[str, int] | None = None,
    use_cached: bool = False,
    num_epochs: int | None = 1,
  ) -> tf.data.Dataset:
    """As `whole_dataset`; slices come in the order of the rows, whatever `shuffle` says."""
    del sequence_length, use_cached, num_epochs
    split = self.default_split if split is None else split
    if split_slices.is_sliced(split, self.splits):
      return SlicedSource(self, split).get_dataset(split, shuffle, seed, shard_info)
    return self.whole_dataset(split, shuffle, seed, shard_info)

  def num_input_examples(self, split: str) -> int:
    """Rows of a split or of slices."""
    if split_slices.is_sliced(split, self.splits):
      return SlicedSource(self, split).num_input_examples(split) or 0
    return self.whole_count(split)

  def list_shards(self, split: str) -> list[str]:
    """As `whole_shards`; slices are one."""
    if split_slices.is_sliced(split, self.splits):
      return SlicedSource(self, split).list_shards(split)
    return self.whole_shards(split)


def _read(source: seqio.DataSource, split: str, start: int, stop: int) -> tf.data.Dataset:
  rows = source.get_dataset(split=split, shuffle=False)
  return rows.skip(start).take(stop - start)


def _count(source: seqio.DataSource, split: str) -> int:
  count = source.num_input_examples(split)
  if count is None:
    rows = source.get_dataset(split=split, shuffle=False)
    count = int(rows.reduce(0, lambda n, _: n + 1).numpy())
  return int(count)

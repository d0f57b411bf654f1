"""SeqIO tasks over built sources: the data source that reads them, and how a task is added."""

import random
from collections.abc import Mapping, Sequence

import seqio
import tensorflow as tf

from aya_train.tasks import catalog, features, sliced_source
from aya_train.tasks.building import rows, source_builder
from aya_train.tasks.languages import aya101

FIELDS = ('inputs', 'targets', 'language_code', 'script', 'dataset', 'task_type')

AYA_LANGUAGES = tuple(language.code for language in aya101.LANGUAGES)

# Files that are read at once when rows are to be mixed: shards hold one language each.
_INTERLEAVED = 64


def parse_batch(
  serialized: tf.Tensor, columns: Sequence[str] = rows.COLUMNS
) -> dict[str, tf.Tensor]:
  """Serialized tf.train.Examples [B] to their text columns, strings [B] each."""
  features_of = {name: tf.io.FixedLenFeature((), tf.string) for name in columns}
  return tf.io.parse_example(serialized, features_of)


class BuiltSource(sliced_source.SliceableSource):
  """Rows of a source's constituents, in all languages or in some.

  The data directory is `seqio.set_tfds_data_dir_override`'s, else `storage.tfds_dir()`, looked up
  at each use. Nothing is built here: what is missing is a FileNotFoundError that names it.
  """

  def __init__(
    self,
    source: str,
    constituents: Sequence[str] = ('',),
    *,
    splits: Mapping[str, Sequence[str]] | None = None,
    codes: Sequence[str] | None = None,
  ):
    """A view of what is built.

    Args:
      source: a name of `sources.SOURCES`.
      constituents: TFDS configs; ('',) for a source without any.
      splits: SeqIO split -> splits of the build ('pruned' for xP3x), or 'CONSTITUENT/SPLIT' of one
        constituent; default: those of the table, by their own names.
      codes: ISO 639-3 codes to read; None for all.
    """
    row = catalog.by_name(source)
    self.source_name = source
    self.version = row.version
    self.constituents = tuple(constituents)
    self.split_map = {k: tuple(v) for k, v in (splits or {s: (s,) for s in row.splits}).items()}
    self.codes = None if codes is None else tuple(codes)
    super().__init__(splits=tuple(self.split_map))

  def _data_dir(self) -> str | None:
    return seqio.LazyTfdsLoader(f'{self.source_name}:{self.version}').data_dir

  def _read_from(self, split: str) -> list[tuple[str, str, Sequence[int]]]:
    """(constituent, split of the build, rows of each shard) of all that is read."""
    if split not in self.split_map:
      raise ValueError(f'no split {split!r} of {self.source_name}; it has {list(self.split_map)}')
    found, missing = [], []
    for constituent in self.constituents:
      try:
        manifest = source_builder.open_built(self.source_name, constituent, self._data_dir())
      except FileNotFoundError as error:
        missing.append((constituent, error))
        continue
      for name, about in sorted(manifest['splits'].items()):
        kind, _, code = name.partition('_')
        chosen = {kind, f'{constituent}/{kind}'} & set(self.split_map[split])
        if chosen and (self.codes is None or code in self.codes):
          found.append((constituent, name, about['shard_lengths']))
    if missing:
      if len(self.constituents) == 1:
        raise missing[0][1]
      raise FileNotFoundError(
        f'{self.source_name}: {len(missing)} of {len(self.constituents)} constituents are not '
        f'built: {rows.names([m for m, _ in missing], 20)}; run `aya-train prepare '
        f'{self.source_name}`, or train on the tasks of those that are'
      )
    return found

  def whole_shards(self, split: str) -> list[str]:
    """Files of the split, in a fixed order."""
    return [
      path
      for constituent, name, lengths in self._read_from(split)
      for path in source_builder.shard_paths(
        self.source_name, constituent, name, len(lengths), self._data_dir()
      )
    ]

  def whole_count(self, split: str) -> int:
    """Rows of the split."""
    return sum(sum(lengths) for _, _, lengths in self._read_from(split))

  def whole_dataset(
    self, split: str, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo | None
  ) -> tf.data.Dataset:
    """Rows of a split: scalar strings under `rows.COLUMNS`.

    Without `shuffle` in the order of the files; with it many files are read in turns, in an order
    drawn from `seed`, since each holds a single language.
    """
    shards = self.list_shards(split)
    if not shards:
      raise ValueError(
        f'{self.source_name}: the release has no rows of {self.codes or "any language"} in '
        f'{split!r} of {rows.names(self.constituents) or self.source_name}'
      )
    if shard_info is not None:
      shards = shards[shard_info.index :: shard_info.num_shards]
    if not shuffle:
      return tf.data.TFRecordDataset(shards).batch(1024).map(parse_batch).unbatch()
    random.Random(seed).shuffle(shards)
    rows_of_files = tf.data.Dataset.from_tensor_slices(shards).interleave(
      tf.data.TFRecordDataset, cycle_length=min(_INTERLEAVED, len(shards))
    )
    return rows_of_files.batch(1024).map(parse_batch).unbatch()


@seqio.map_over_dataset
def keep_fields(
  example: Mapping[str, tf.Tensor], fields: Sequence[str] = FIELDS
) -> dict[str, tf.Tensor]:
  """The named fields alone; scalar strings in, scalar strings out.

  By default the text, and what shares are counted by.
  """
  return {name: example[name] for name in fields}


def add(name: str, source: seqio.DataSource) -> str:
  """Registers a task over a built source, and returns its name. Nothing is opened."""
  seqio.TaskRegistry.add(
    name,
    source=source,
    preprocessors=[keep_fields, *features.TOKENIZE_AND_APPEND_EOS],
    metric_fns=[],
    output_features=features.OUTPUT_FEATURES,
  )
  return name

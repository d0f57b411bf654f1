"""SeqIO tasks over the CLDR instruction set, the default data of aya-train.

Tasks `cldr` (everything), `cldr.<ISO 639-3 code>` and `cldr_kind.<kind>`; mixtures `cldr_smoke`
(kinds, those that a small model can carry over to unseen entities weighing most) and
`cldr_languages` (languages at equal rates). `aya-train prepare cldr` builds the data.
"""

import functools
from typing import Any

import seqio
import tensorflow as tf

from aya_train.tasks import answer_kinds, features, sliced_source, source_tasks
from aya_train.tasks.cldr import cldr_builder, cldr_facts, cldr_rows, cldr_subjects
from aya_train.tasks.metrics import exact_match

build = cldr_builder.build

# Text, and the two fields that metrics read.
FIELDS = ('inputs', 'targets', 'language_code', 'kind')

# Formats and identification follow rules that hold for unseen dates, numbers and names; a name
# that was never seen can only be guessed. Of the former, those weigh most that have most to learn:
# a date takes the months and weekdays of each language, a percentage little more than a sign.
SMOKE_RATES = dict.fromkeys(cldr_rows.KINDS, 1.0) | {
  'date_format': 90.0,
  'number_format': 35.0,
  'percent_format': 4.0,
  'list_format': 15.0,
  'unit_format': 40.0,
  'identify_language': 40.0,
  'identify_category': 10.0,
  'identify_script': 10.0,
}
ANSWER_KINDS = answer_kinds.AnswerKinds(
  ruled=cldr_rows.RULED,
  others='Names held out',
  why='These kinds ask for the name of something that no training row of any language asks about. '
  'There is nothing to learn it from, so that a model from random weights can only guess.',
  copied=cldr_subjects.subject,
)


def _rows_where(batch: dict[str, tf.Tensor], column: str, value: str) -> dict[str, tf.Tensor]:
  keep = tf.equal(batch[column], value)
  return {name: tf.boolean_mask(column, keep) for name, column in batch.items()}


class CldrSource(sliced_source.SliceableSource, seqio.TfdsDataSource):
  """Rows of the built set, all or those of one language or one kind.

  The data directory is `seqio.set_tfds_data_dir_override`'s, else `storage.tfds_dir()`, looked up
  at each use. Unlike its base class it never builds: a missing set is a FileNotFoundError.
  """

  def __init__(self, language: str | None = None, kind: str | None = None):
    builder = cldr_builder.CldrInstructions
    super().__init__(f'{builder.name}:{builder.VERSION}', splits=cldr_rows.SPLITS)
    self._keep = {k: v for k, v in (('language_code', language), ('kind', kind)) if v is not None}

  def _open(self) -> tuple[cldr_builder.CldrInstructions, dict[str, Any]]:
    return cldr_builder.open_built(self.tfds_dataset.data_dir)

  def whole_dataset(
    self, split: str, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo | None
  ) -> tf.data.Dataset:
    """Examples of a split: scalar strings under `cldr_rows.COLUMNS`.

    A slice counts the rows of this language or kind.
    """
    del shuffle, seed  # a split is one file in TFDS's shuffled order; the task shuffles rows
    shards = self.list_shards(split)
    if shard_info is not None:
      shards = shards[shard_info.index :: shard_info.num_shards]
    # A hundred tasks read the same file: parsing whole batches costs a tenth of one by one.
    parse = functools.partial(source_tasks.parse_batch, columns=cldr_rows.COLUMNS)
    batches = tf.data.TFRecordDataset(shards).batch(1024).map(parse)
    for column, value in self._keep.items():
      batches = batches.map(functools.partial(_rows_where, column=column, value=value))
    return batches.unbatch()

  def whole_count(self, split: str) -> int:
    """Rows of the split, counted when the set was built."""
    counts = self._open()[1]['counts']
    return sum(
      rows[split]
      for language, kinds in counts.items()
      for kind, rows in kinds.items()
      if self._keep.items() <= {'language_code': language, 'kind': kind}.items()
    )

  def whole_shards(self, split: str) -> list[str]:
    """Files of the split."""
    builder, _ = self._open()
    return [info.filename for info in builder.info.splits[split].file_instructions]


def _add(name: str, language: str | None = None, kind: str | None = None) -> str:
  seqio.TaskRegistry.add(
    name,
    source=CldrSource(language, kind),
    preprocessors=[
      functools.partial(source_tasks.keep_fields, fields=FIELDS),
      *features.TOKENIZE_AND_APPEND_EOS,
    ],
    postprocess_fn=exact_match.with_language,
    metric_fns=[exact_match.exact_match_by_language],
    output_features=features.OUTPUT_FEATURES,
  )
  answer_kinds.add(name, ANSWER_KINDS)
  return name


_add('cldr')
LANGUAGE_TASKS = tuple(_add(f'cldr.{x.code}', language=x.code) for x in cldr_facts.COVERED)
for _kind in cldr_rows.KINDS:
  _add(f'cldr_kind.{_kind}', kind=_kind)

seqio.MixtureRegistry.add('cldr_languages', LANGUAGE_TASKS, default_rate=1.0)
seqio.MixtureRegistry.add(
  'cldr_smoke', [(f'cldr_kind.{kind}', rate) for kind, rate in SMOKE_RATES.items()]
)

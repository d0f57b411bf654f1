"""The rows that a command names: of a data file, a data set of a user's table, or a SeqIO task.

Of a task they are what its source and preprocessors give before text becomes tokens, in one
language: what is in another is left out and counted.
"""

import collections
import dataclasses
import itertools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import seqio

from aya_train import path_facts
from aya_train.data import task_examples
from aya_train.tasks import features, sliced_source, source_tasks, split_slices
from aya_train.tasks.languages import language_codes
from aya_train.tasks.rights import provenance
from aya_train.tasks.user import dataset_tables, user_data
from aya_train.translation.translation_output import Source

logger = logging.getLogger(__name__)
TABLES = ('.toml', '.yaml', '.yml')
_OTHERS = 8


@dataclasses.dataclass
class Found:
  """A data set to translate.

  Attributes:
    source: what is known of it.
    split: to read; of a task a slice too.
    left_out: rows in other languages, by code; complete when `rows` has been read.
  """

  source: Source
  split: str
  task: seqio.Task | None = None
  dataset: dataset_tables.Dataset | None = None
  columns: tuple[str, ...] = ('inputs', 'targets')
  left_out: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
  _unreadable: set[str] = dataclasses.field(default_factory=set)

  def rows(self) -> Iterator[Mapping[str, Any]]:
    """Rows in the language of the source, each with its columns.

    Raises:
      ValueError, OSError: the data cannot be read; the message says where.
    """
    spoken = language_codes.resolve(self.source.language)
    self.left_out.clear()
    for row in self._all():
      code = row.get('language_code') or ''
      if code and not _is(str(code), str(row.get('script') or ''), spoken):
        self.left_out[str(code)] += 1
        continue
      yield row

  def left_out_line(self) -> str:
    """What to tell of rows in other languages, '' without any."""
    if not self.left_out:
      return ''
    most = ', '.join(f'{code} {n:,}' for code, n in self.left_out.most_common(_OTHERS))
    return (
      f'{self.source.name}: {sum(self.left_out.values()):,} rows in other languages than '
      f'{self.source.language} were left out ({most})'
    )

  def _all(self) -> Iterator[Mapping[str, Any]]:
    if self.dataset is None:
      assert self.task is not None
      yield from _task_rows(self.task, self.split)
      return
    for part in split_slices.parse(self.split):
      rows = self._of_split(self.dataset, part.split)
      if not part.is_whole:
        count = sum(1 for _ in self._of_split(self.dataset, part.split))
        rows = itertools.islice(rows, *part.rows(count))
      yield from rows

  def _of_split(self, dataset: dataset_tables.Dataset, split: str) -> Iterator[Mapping[str, Any]]:
    if self.columns == ('inputs', 'targets') and dataset.templates:
      return (row._asdict() for row in user_data.instructions(dataset, split))
    return (
      _with_code(self._readable(columns), dataset)
      for _, columns in user_data.raw_rows(dataset, split)
    )

  def _readable(self, columns: Mapping[str, Any]) -> Mapping[str, Any]:
    found = user_data.readable(columns)
    if new := sorted({*columns} - {*found} - self._unreadable):
      self._unreadable.update(new)
      logger.warning('%s: the columns %s hold what is no text: left out', self.source.name, new)
    return found


def _is(code: str, script: str, spoken: language_codes.Variety) -> bool:
  try:
    found = language_codes.resolve(code, script or None)
  except language_codes.UnknownLanguageError:
    return False
  return (found.code, found.script) == (spoken.code, spoken.script)


def _with_code(columns: Mapping[str, Any], dataset: dataset_tables.Dataset) -> Mapping[str, Any]:
  if not dataset.language_column:
    return columns
  return {**columns, 'language_code': columns.get(dataset.language_column)}


def find(
  name: str,
  *,
  language: str,
  split: str,
  columns: Sequence[str] = ('inputs', 'targets'),
  only: Sequence[str] = (),
) -> list[Found]:
  """What a name means: a table, a data file, or a task that is registered.

  Args:
    name: path of a table (.toml, .yaml) or of a data file, or the name of a task.
    language: of the rows to translate.
    split: of the data.
    columns: to be translated.
    only: names of a table's data sets, () for all.

  Raises:
    ValueError: it means none of these, or the table has no such data set.
    OSError: it cannot be read.
  """
  chosen = tuple(columns)
  whole = split_slices.parse(split)[0].split
  if path_facts.exists(name) and not os.path.isdir(name):
    if name.lower().endswith(TABLES):
      return [_of_table(dataset, language, split, chosen) for dataset in _datasets(name, only)]
    stem = os.path.basename(name).split('.')[0] or 'data'
    dataset = dataset_tables.Dataset(stem, {whole: (os.path.abspath(name),)}, language)
    if '://' in name:
      dataset = dataclasses.replace(dataset, files={whole: (name,)})
    return [Found(Source(stem, language, '', split=whole), split, None, dataset, chosen)]
  if (owned := user_data.find(name)) is not None:
    return [_of_table(owned, language, split, chosen)]
  if name in seqio.TaskRegistry.names():
    task = seqio.TaskRegistry.get(name)
    return [Found(_source_of(task, language, whole), split, task, None, chosen)]
  if name in seqio.MixtureRegistry.names():
    raise ValueError(
      f'{name} is a mixture: translate its tasks one by one, such as '
      f'{provenance.tasks_of(seqio.MixtureRegistry.get(name))[0].name}'
    )
  raise ValueError(f'{name} is neither a file, nor a table of data sets, nor a SeqIO task')


def _datasets(path: str, only: Sequence[str]) -> list[dataset_tables.Dataset]:
  table = dataset_tables.read(path)
  found = {dataset.name: dataset for dataset in table.datasets}
  if missing := sorted({*only} - {*found}):
    raise ValueError(f'{path} has no data sets {missing}; it has {sorted(found)}')
  return [found[name] for name in only or found]


def _of_table(
  dataset: dataset_tables.Dataset, language: str, split: str, columns: tuple[str, ...]
) -> Found:
  record = dataset.license or 'Unspecified'
  own = dataset.language or language
  return Found(
    Source(
      dataset.name,
      own,
      record,
      dataset.attribution,
      dataset.model_generated_by,
      split_slices.parse(split)[0].split,
      dataset.terms,
    ),
    split,
    None,
    dataset,
    columns,
  )


def _source_of(task: seqio.Task, language: str, split: str) -> Source:
  records = [provenance.record_of(origin) for origin in provenance.origins(task)]
  names = dict.fromkeys(name for record in records for name, _ in record.licenses)
  return Source(
    task.name,
    language,
    '; '.join(names),
    '; '.join(dict.fromkeys(r.attribution for r in records if r.attribution)),
    '; '.join(dict.fromkeys(m for r in records for m in r.model_generated_by)),
    split,
    '; '.join(dict.fromkeys(r.terms for r in records if r.terms)),
  )


def _task_rows(task: seqio.Task, split: str) -> Iterator[Mapping[str, Any]]:
  """Examples as text: what a task's preprocessors give before they tokenise."""
  if unknown := [s.split for s in split_slices.parse(split) if s.split not in task.splits]:
    raise ValueError(f'{task.name} has no split {unknown[0]!r}; it has {list(task.splits)}')
  data = sliced_source.with_split(task, split).source.get_dataset(split=split, shuffle=False)
  kept = []
  for preprocess in task.preprocessors:
    if (inner := getattr(preprocess, 'func', preprocess)) in _TOKENS:
      break
    if inner is not source_tasks.keep_fields:  # it drops identifiers
      kept.append(preprocess)
  cut = [p for p in kept if not isinstance(p, seqio.CacheDatasetPlaceholder)]
  text_task = seqio.Task(
    task.name,
    source=task.source,
    output_features=task.output_features,
    preprocessors=[*cut, seqio.CacheDatasetPlaceholder()],
  )
  data = text_task.preprocess_precache(data, seed=task_examples.PREPROCESSING_SEED)
  for row in data.as_numpy_iterator():
    yield {name: _plain(value) for name, value in row.items()}


# From these on an example is no text any more.
_TOKENS = (
  seqio.preprocessors.tokenize,
  seqio.preprocessors.tokenize_and_append_eos,
  seqio.preprocessors.append_eos,
  seqio.preprocessors.append_eos_after_trim,
  *(getattr(step, 'func', step) for step in features.TOKENIZE_AND_APPEND_EOS),
)


def _plain(value: Any) -> Any:
  if isinstance(value, bytes):
    return value.decode('utf-8', errors='replace')
  if hasattr(value, 'tolist'):
    return _plain(value.tolist())
  if isinstance(value, list):
    return [_plain(each) for each in value]
  return value

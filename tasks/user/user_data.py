"""Data sets of a user: a row in a table and, if their columns are no instructions, templates.

`add_tables(FILES)` registers a SeqIO task for each data set and a mixture for each mixture of the
tables (`dataset_tables` says what they hold); nothing of Python is to be written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import decimal
import difflib
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf
from etils import epath

from aya_train import path_facts
from aya_train.tasks import sliced_source, source_tasks
from aya_train.tasks.building import records, text_files
from aya_train.tasks.building import rows as source_rows
from aya_train.tasks.building.read_report import DamagedFileError, RowProblemError
from aya_train.tasks.preference import preference_features
from aya_train.tasks.retrieval import pair_tasks
from aya_train.tasks.user import (
  csv_files,
  dataset_tables,
  eval_datasets,
  pair_datasets,
  preference_datasets,
  templates,
)
from aya_train.tasks.user.dataset_tables import Dataset, UserDataError, UserMixture

SAFE_SLOT = 'safety_context_distillation'

_DATASETS: dict[str, Dataset] = {}
_MIXTURES: dict[str, UserMixture] = {}
_ADDED: set[str] = set()


def find(name: str) -> Dataset | None:
  """The row of a user's data set, None if no table that was added has it."""
  return _DATASETS.get(name)


def raw_rows(dataset: Dataset, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
  """Places ('data/rows.csv row 3') and columns of a split's rows.

  Raises:
    UserDataError: a file cannot be read, or a row has no columns.
    FileNotFoundError, ValueError: see `Dataset.paths`.
  """
  for path in dataset.paths(split):
    if not path_facts.size(path) and not text_files.is_compressed(path.name):
      continue
    try:
      yield from _rows_of(dataset, path)
    except DamagedFileError as error:
      raise UserDataError(f'data set {dataset.name!r}: {error}') from error


def _records(path: epath.Path, lists: bool) -> Iterator[tuple[Any, Any]]:
  """Where each record is, and what it is; a list of objects is an array on one line."""
  for where, record in records.read(path, records_are_lists=lists):
    if isinstance(record, list) and record and all(isinstance(x, Mapping) for x in record):
      yield from ((f'{where}, element {i}', x) for i, x in enumerate(record, 1))
    else:
      yield where, record


def _rows_of(dataset: Dataset, path: epath.Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
  if csv_files.is_one(path.name):
    for number, columns in csv_files.read(path, dataset.columns):
      yield f'{path} row {number}', columns
    return
  if dataset.columns:
    raise UserDataError(
      f'data set {dataset.name!r}: `columns` name those of a CSV or TSV without a header, and '
      f'{path} says its own: leave `columns` away'
    )
  lists = bool(dataset.pairs)  # of texts, as sentence-transformers has them
  for where, record in _records(path, lists):
    if lists and isinstance(record, list) and len(record) > 1:
      record = {'query': record[0], 'positive': record[1], 'negatives': record[2:]}
    if isinstance(record, records.BadRecord) or not isinstance(record, Mapping):
      kind = 'a list' if isinstance(record, list) else type(record).__name__
      detail = getattr(record, 'detail', f'expected an object, got {kind}')
      raise UserDataError(f'data set {dataset.name!r}: {path}, {where}: {detail}')
    place = f'{path} {where}'
    try:
      yield place, {name: _plain(value) for name, value in record.items()}
    except TypeError:
      yield place, _Columns(f'data set {dataset.name!r}: {place}', record)


class _Columns(Mapping[str, Any]):
  """Columns of a row of which some can be no text, which matters to those who read them."""

  def __init__(self, where: str, record: Mapping[str, Any]):
    self._where, self._record = where, record

  def __getitem__(self, name: str) -> Any:
    value = self._record[name]
    try:
      return _plain(value)
    except TypeError as error:
      raise UserDataError(f'{self._where}: the column {name!r} is needed, and {error}') from error

  def __iter__(self) -> Iterator[str]:
    return iter(self._record)

  def __len__(self) -> int:
    return len(self._record)

  def __repr__(self) -> str:
    return repr(self._record)

  def readable(self) -> dict[str, Any]:
    found = {}
    for name, value in self._record.items():
      with contextlib.suppress(TypeError):
        found[name] = _plain(value)
    return found


def readable(columns: Mapping[str, Any]) -> Mapping[str, Any]:
  """Columns of a row without those that can be no text, for who copies them all."""
  return columns.readable() if isinstance(columns, _Columns) else columns


def _plain(value: Any) -> Any:
  """A value as JSON has it; parquet and Arrow have more types.

  Raises:
    TypeError: no text and no number, such as the bytes of a picture.
  """
  if isinstance(value, records.BadValue):
    raise TypeError(f'cannot be read: {value.detail}')
  if value is None or isinstance(value, str | bool | int | float):
    return value
  if isinstance(value, Mapping):
    return {str(name): _plain(inner) for name, inner in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(inner) for inner in value]
  if isinstance(value, datetime.date | datetime.time):
    return value.isoformat()
  if isinstance(value, datetime.timedelta | decimal.Decimal):
    return str(value)
  if isinstance(value, bytes):
    try:
      return value.decode('utf-8')
    except UnicodeDecodeError as error:
      raise TypeError(f'{value[:8]!r} ... is no text in UTF-8') from error
  raise TypeError(f'a {type(value).__name__} is neither text nor a number')


def instructions(dataset: Dataset, split: str) -> Iterator[source_rows.Row]:
  """The rows of a split as every source has them, templates applied.

  Rows for which a template gives no target are left out, as promptsource means it.

  Raises:
    UserDataError: a file, a row or a template is wrong; the message says which.
    FileNotFoundError: a file is not there.
  """
  prompts = dataset.prompts()
  places: dict[int, tuple[str, Mapping[str, Any]]] = {}

  def columns() -> Iterator[Mapping[str, Any]]:
    for number, (place, row) in enumerate(raw_rows(dataset, split)):
      places[number] = place, row
      yield row

  if prompts:
    found = templates.render(
      prompts,
      columns(),
      seed=dataset.seed,
      max_characters=dataset.max_characters,
      all_templates=dataset.all_templates,
      again=lambda: (row for _, row in raw_rows(dataset, split)),
    )
  else:
    found = ((n, '', _pair(dataset, places[n][0], row)) for n, row in enumerate(columns()))
  last = -1
  try:
    for number, name, pair in found:
      for old in range(last, number):
        places.pop(old, None)
      last = number
      if pair is not None:
        yield _row(dataset, *places[number], name, pair)
  except templates.RowTemplateError as error:
    raise UserDataError(
      f'data set {dataset.name!r}, {places[error.number][0]}: {dataset.templates}, template '
      f'{error.template!r}: {error.detail}'
    ) from error
  except templates.TemplateProblemError as error:
    raise UserDataError(f'data set {dataset.name!r}, {dataset.templates}: {error}') from error


def _pair(dataset: Dataset, place: str, row: Mapping[str, Any]) -> tuple[str, str]:
  try:
    return source_rows.text(row, 'inputs'), source_rows.text(row, 'targets')
  except RowProblemError as error:
    hint = ''
    if len(row) == 1 and (found := [mark for mark in ';\t|' if mark in next(iter(row))]):
      hint = f' (columns are told apart by "," in .csv and by a tab in .tsv, not by {found[0]!r})'
    raise UserDataError(
      f'data set {dataset.name!r}, {place}: {error}{hint}: without `templates` the columns must be '
      'inputs and targets'
    ) from error


def _row(
  dataset: Dataset,
  place: str,
  columns: Mapping[str, Any],
  template: str,
  pair: tuple[str, str],
) -> source_rows.Row:
  if dataset.language_column and dataset.language_column not in columns:
    raise UserDataError(
      f'data set {dataset.name!r}, {place}: no column {dataset.language_column!r} '
      f'(language_column) among {sorted(columns)}'
    )
  code = dataset.language or str(columns.get(dataset.language_column) or '')
  identifier = f'{place}.{template}' if template else place
  try:
    variety = source_rows.language(code)
    row = source_rows.Row(
      *pair, variety.code, variety.script, dataset.name, dataset.task_type, identifier
    )
    source_rows.check(row)
  except RowProblemError as error:
    raise UserDataError(f'data set {dataset.name!r}, {place}: {error}') from error
  return row


class UserSource(sliced_source.SliceableSource):
  """Rows of a user's data set, read and made instructions at each use."""

  def __init__(self, name: str, splits: Sequence[str] = ('train',)):
    self.dataset_name = name
    super().__init__(splits=tuple(splits))

  def _dataset(self) -> Dataset:
    if (dataset := find(self.dataset_name)) is None:
      raise FileNotFoundError(
        f'{self.dataset_name!r} is a data set that you supply: a row of that name in a table '
        '(DATASET_TABLES), see docs/mixtures.md'
      )
    return dataset

  def whole_dataset(
    self, split: str, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo | None
  ) -> tf.data.Dataset:
    """Scalar strings under `rows.COLUMNS`, in the order of the files.

    Of preferences under `preference_features.COLUMNS`.
    """
    if shard_info is not None and shard_info.num_shards > 1:
      raise ValueError(f'{self.dataset_name!r} is read as one shard')
    dataset = self._dataset()
    _check_split(dataset, split)
    columns = preference_features.COLUMNS if dataset.preferences else source_rows.COLUMNS
    return tf.data.Dataset.from_generator(
      lambda: _columns(dataset, split),
      output_signature={name: tf.TensorSpec((), tf.string) for name in columns},
    )

  def whole_count(self, split: str) -> int:
    """Rows of the split; reads the files, and applies the templates, once a process."""
    return _count(self._dataset_key(), split)

  def _dataset_key(self) -> str:
    self._dataset()
    return self.dataset_name

  def paths(self, split: str) -> list[epath.Path]:
    """Files of a split; see `Dataset.paths`."""
    return self._dataset().paths(split)

  def whole_shards(self, split: str) -> list[str]:
    """One shard, whatever the number of files."""
    dataset = self._dataset()
    return [f'{dataset.name} ({len(dataset.paths(split))} files)']


class UserPairs(pair_tasks.PairSource):
  """Pairs of texts of a user's data set, read at each use."""

  def __init__(self, dataset: Dataset):
    self._dataset = dataset
    super().__init__(
      dataset.name,
      lambda split: pair_datasets.pairs(dataset, split, _rows_of),
      tuple(dataset.files),
      content=_content(dataset),
    )

  def paths(self, split: str) -> list[epath.Path]:
    """Files of a split; see `Dataset.paths`."""
    return self._dataset.paths(split)


def _check_split(dataset: Dataset, split: str) -> None:
  if split not in dataset.files:
    raise ValueError(
      f'data set {dataset.name!r} has no split {split!r}; it has {sorted(dataset.files)}'
    )


@functools.lru_cache(maxsize=256)
def _count(name: str, split: str) -> int:
  dataset = find(name)
  assert dataset is not None
  return sum(1 for _ in _columns(dataset, split))


def _columns(dataset: Dataset, split: str) -> Iterator[dict[str, str]]:
  if dataset.preferences:
    return preference_datasets.rows(dataset, split, raw_rows(dataset, split))
  return (row._asdict() for row in instructions(dataset, split))


_NO_CONTENT = ('folder', 'preferences')


def _content(dataset: Dataset) -> str:
  """SHA-256 of what decides the task's rows beside the data: the table's row and the templates."""
  said = ('preferences',) if dataset.preferences else ()
  described = [
    {k: v for k, v in dataclasses.asdict(dataset).items() if k not in _NO_CONTENT or k in said},
    [dataclasses.asdict(prompt) for prompt in dataset.prompts()],
  ]
  return hashlib.sha256(json.dumps(described, sort_keys=True, default=list).encode()).hexdigest()


def add(dataset: Dataset) -> str:
  """Registers the task of a data set that is no benchmark; a second time, its new definition.

  Raises:
    UserDataError: another module has a task of that name.
    TemplateProblemError: its templates cannot be read.
    FileNotFoundError: they are not there.
  """
  eval_datasets.remove(dataset.name)  # it may have been a benchmark before
  if dataset.name in seqio.MixtureRegistry.names():
    raise UserDataError(f'there is a mixture {dataset.name!r} already; take another name')
  existing = seqio.TaskRegistry.names()
  mine = dataset.name in _DATASETS or dataset.name == SAFE_SLOT
  if dataset.name in existing and not mine:
    raise UserDataError(f'there is a task {dataset.name!r} already; take another name')
  source: Any
  if dataset.pairs:
    source = UserPairs(dataset)
  else:
    source = UserSource(dataset.name, tuple(dataset.files))
    source.content = _content(dataset)
  _DATASETS[dataset.name] = dataset
  _count.cache_clear()
  if dataset.name in existing:
    if dataset.name == SAFE_SLOT:  # mixtures hold the task: its source is looked up at each use
      seqio.TaskRegistry.get(SAFE_SLOT).source.content = source.content
      return dataset.name
    seqio.TaskRegistry.remove(dataset.name)
  if dataset.pairs:
    return pair_tasks.add(dataset.name, source)
  if dataset.preferences:
    return preference_features.add(dataset.name, source)
  return source_tasks.add(dataset.name, source)


def _add_benchmark(dataset: Dataset) -> list[str]:
  """Registers the tasks of a benchmark, and a mixture of its name."""
  if dataset.name in _DATASETS and dataset.name in seqio.TaskRegistry.names():
    seqio.TaskRegistry.remove(dataset.name)  # it was no benchmark before
  _DATASETS[dataset.name] = dataset
  known = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
  known -= {*eval_datasets.names(dataset.name)}
  return eval_datasets.add(dataset, raw_rows, _content(dataset), known.__contains__)


def _add_mixture(mixture: UserMixture, path: str) -> str:
  """Registers a mixture; a second time, its new definition."""
  known = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
  if mixture.name in known and mixture.name not in _MIXTURES:
    raise UserDataError(
      f'{path}: there is a task or mixture {mixture.name!r} already; take another name'
    )
  if unknown := sorted({*mixture.rates} - (known - {mixture.name})):
    close = difflib.get_close_matches(unknown[0], sorted(known), 3)
    raise UserDataError(
      f'{path}, mixture {mixture.name!r}: no task or mixture {unknown}; close names to '
      f'{unknown[0]!r} are {close}. Mixtures of mixtures stand after those'
    )
  parts = [
    (name, seqio.mixing_rate_num_examples if rate is None else rate)
    for name, rate in mixture.rates.items()
  ]
  if mixtures := [n for n, r in mixture.rates.items() if r is None and n not in _task_names()]:
    raise UserDataError(
      f'{path}, mixture {mixture.name!r}: {mixtures} are mixtures, whose rows are not counted: '
      'give rates, such as {a = 1, b = 3}'
    )
  if mixture.name in seqio.MixtureRegistry.names():
    seqio.MixtureRegistry.remove(mixture.name)
  _MIXTURES[mixture.name] = mixture
  seqio.MixtureRegistry.add(mixture.name, parts)
  return mixture.name


def _task_names() -> set[str]:
  return {*seqio.TaskRegistry.names()}


def add_table(path: epath.PathLike) -> list[str]:
  """`add_tables` of one table."""
  return add_tables([path])


def add_tables(paths: Sequence[epath.PathLike]) -> list[str]:
  """Registers a task for each data set of the tables, then their mixtures; the names of all.

  Raises:
    UserDataError: a name that two tables give; see `dataset_tables.read` and `add`.
    FileNotFoundError: a table, or a file of templates, is not there.
  """
  paths = list(dict.fromkeys(map(os.fspath, _listed(paths))))
  tables = {path: dataset_tables.read(path) for path in paths}
  of_name: dict[str, str] = {}
  for path, table in tables.items():
    for name in table.names:
      if name in of_name:
        raise UserDataError(f'{of_name[name]} and {path} both have {name!r}')
      of_name[name] = path
  names = []
  for path, table in tables.items():
    for dataset in table.datasets:
      try:
        names += _add_benchmark(dataset) if eval_datasets.is_one(dataset) else [add(dataset)]
      except UserDataError as error:
        raise UserDataError(f'{path}: {error}') from error
      except templates.TemplateProblemError as error:
        raise UserDataError(f'{path}, data set {dataset.name!r}: {error}') from error
  for path, table in tables.items():
    names += [_add_mixture(mixture, path) for mixture in table.mixtures]
  _ADDED.update(paths)
  return names


def ensure_tables(paths: Sequence[epath.PathLike]) -> None:
  """Adds the tables unless this process has read them all; for workers, which start with none."""
  if any(os.fspath(path) not in _ADDED for path in _listed(paths)):
    add_tables(paths)


def _listed(paths: Sequence[epath.PathLike]) -> Sequence[epath.PathLike]:
  return [paths] if isinstance(paths, str) else paths  # ('x') is a text, ('x',) a tuple


source_tasks.add(SAFE_SLOT, UserSource(SAFE_SLOT))

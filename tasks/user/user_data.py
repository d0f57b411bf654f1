"""Data sets of a user: a row in a table and, if their columns are no instructions, templates.

`add_table(FILE)` registers a SeqIO task for each row; nothing of Python is to be written. The file
is TOML (tables `[[dataset]]`), YAML or JSON (a list), or CSV or TSV (a header and rows):

  name = 'copa_swahili'                   # of the task
  files = 'xcopa/sw.jsonl'                # a pattern, or {train = ..., validation = ...}
  language = 'swa'                        # or language_column = 'lang'
  templates = 'copa/templates.yaml'       # without it the columns must be inputs and targets
  license = 'CC BY 4.0'                   # a name that aya_train.tasks.rights.licenses knows

Paths are relative to the table. Files are JSON lines, parquet, CSV or TSV, gzip or not.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import gzip
import hashlib
import io
import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf
import yaml
from etils import epath

from aya_train.tasks import source_tasks
from aya_train.tasks.building import records
from aya_train.tasks.building import rows as source_rows
from aya_train.tasks.building.read_report import RowProblemError
from aya_train.tasks.languages import language_codes
from aya_train.tasks.user import templates
from aya_train.tasks.user.templates import PromptTemplate

SAFE_SLOT = 'safety_context_distillation'
_TABLES = ('.csv', '.tsv')


class UserDataError(ValueError):
  """A table or a data file of a user that cannot be used; the message says where and why."""


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A row of a user's table.

  Attributes:
    name: of the task.
    files: split -> patterns of files.
    language: code of all rows, in any system of `language_codes`.
    language_column: column with the code of each row, instead.
    columns: names of the columns of a CSV or TSV without a header; () where there is one.
    templates: file of templates; None if the columns are inputs and targets.
    template_names: which of the file's, () for all.
    all_templates: a row with each template, instead of with one drawn for it.
    seed: of that draw and of `choice`.
    max_characters: what each `{{ ... }}` may print, as in promptsource (2,048 there).
    task_type: for reports.
    license: name or SPDX identifier, or several between ';'.
    use: use class where the licence's name does not say it.
    attribution: whom to name.
    model_generated_by: models that wrote text of it, between ';'.
    terms: other terms that bind.
    folder: of the table.
  """

  name: str
  files: Mapping[str, tuple[str, ...]]
  language: str = ''
  language_column: str = ''
  columns: tuple[str, ...] = ()
  templates: str | None = None
  template_names: tuple[str, ...] = ()
  all_templates: bool = False
  seed: int = 0
  max_characters: int | None = None
  task_type: str = ''
  license: str = ''
  use: str = ''
  attribution: str = ''
  model_generated_by: str = ''
  terms: str = ''
  folder: str = '.'

  def paths(self, split: str) -> list[epath.Path]:
    """Files of a split, sorted; FileNotFoundError if a pattern finds none."""
    found: list[epath.Path] = []
    for pattern in self.files[split]:
      at = epath.Path(self.folder) / pattern
      if not (matches := _matching(at)):
        raise FileNotFoundError(f'data set {self.name!r}, split {split!r}: no file {at}')
      found += matches
    return found

  def prompts(self) -> list[PromptTemplate]:
    """The templates to apply, [] for none."""
    if self.templates is None:
      return []
    found = templates.read(epath.Path(self.folder) / self.templates)
    return templates.choose(found, self.template_names)


def _matching(pattern: epath.Path) -> list[epath.Path]:
  """Files of a pattern whose folders may have wildcards too."""
  if not any(character in os.fspath(pattern) for character in '*?['):
    return [pattern] if pattern.exists() else []
  folder = pattern
  while any(character in os.fspath(folder) for character in '*?['):
    folder = folder.parent
  inside = os.fspath(pattern)[len(os.fspath(folder)) :] if folder != epath.Path('.') else pattern
  return sorted(folder.glob(os.fspath(inside).lstrip('/')))


_DATASETS: dict[str, Dataset] = {}
_LONGEST_FIELD = 10_000_000
_ADDED: set[str] = set()


def find(name: str) -> Dataset | None:
  """The row of a user's data set, None if no table that was added has it."""
  return _DATASETS.get(name)


def read_table(path: epath.PathLike) -> list[Dataset]:
  """The rows of a table.

  Raises:
    UserDataError: an unknown form, key or language, a row without name, files or language.
  """
  path = epath.Path(path)
  found = []
  for number, row in enumerate(_table_rows(path), 1):
    try:
      found.append(_dataset({k: v for k, v in row.items() if v not in (None, '')}, path.parent))
    except (TypeError, ValueError, KeyError) as error:
      name = row.get('name', f'row {number}')
      raise UserDataError(f'{path}, data set {name!r}: {str(error).strip(chr(39))}') from error
  return found


def _table_rows(path: epath.Path) -> Sequence[Mapping[str, Any]]:
  text = path.read_text()
  try:
    if path.suffix == '.toml':
      found: Any = tomllib.loads(text).get('dataset')
    elif path.suffix in ('.yaml', '.yml', '.json'):
      found = yaml.safe_load(text)
    elif path.suffix in _TABLES:
      found = list(csv.DictReader(io.StringIO(text), delimiter=_delimiter(path)))
    else:
      raise UserDataError(f'{path}: a table is .toml, .yaml, .json, .csv or .tsv')
  except (tomllib.TOMLDecodeError, yaml.YAMLError, csv.Error) as error:
    raise UserDataError(f'{path}: {error}') from error
  if not isinstance(found, list) or not all(isinstance(row, Mapping) for row in found):
    raise UserDataError(f'{path}: expected a list of data sets ([[dataset]] in TOML)')
  return found


def _delimiter(path: epath.Path) -> str:
  return '\t' if '.tsv' in path.name else ','


def _dataset(row: dict[str, Any], folder: epath.Path) -> Dataset:
  known = {field.name for field in dataclasses.fields(Dataset)} - {'folder'}
  if unknown := sorted(set(row) - known):
    raise ValueError(f'unknown keys {unknown}; known are {sorted(known)}')
  if missing := [key for key in ('name', 'files') if key not in row]:
    raise ValueError(f'{missing} missing')
  if bool(row.get('language')) == bool(row.get('language_column')):
    raise ValueError('give either language or language_column')
  if row.get('language'):
    language_codes.resolve(row['language'])
  files = row.pop('files')
  files = files if isinstance(files, Mapping) else {'train': files}
  row['files'] = {k: (v,) if isinstance(v, str) else tuple(v) for k, v in files.items()}
  for key in ('columns', 'template_names'):
    if isinstance(value := row.get(key, ()), str):
      value = [part.strip() for part in value.split(';')]
    row[key] = tuple(value)
  for key in ('seed', 'max_characters'):
    if key in row:
      row[key] = int(row[key])
  if isinstance(row.get('all_templates'), str):
    row['all_templates'] = row['all_templates'].lower() in ('1', 'true', 'yes')
  return Dataset(**row, folder=str(folder))


def raw_rows(dataset: Dataset, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
  """Places ('rows.csv row 3') and columns of a split's rows.

  Raises:
    UserDataError: a file cannot be read, or a row has no columns.
  """
  for path in dataset.paths(split):
    if not path.stat().length:
      continue
    if path.name.removesuffix('.gz').endswith(_TABLES):
      yield from _csv_rows(dataset, path)
      continue
    for where, record in records.read(path):
      if isinstance(record, records.BadRecord) or not isinstance(record, Mapping):
        detail = getattr(record, 'detail', f'expected an object, got {type(record).__name__}')
        raise UserDataError(f'{path}, {where}: {detail}')
      yield f'{path.name} {where}', record


def _csv_rows(dataset: Dataset, path: epath.Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
  csv.field_size_limit(_LONGEST_FIELD)  # as long as a row of another form may be
  with path.open('rb') as raw:
    opened = gzip.GzipFile(fileobj=raw) if path.name.endswith('.gz') else raw
    text = io.TextIOWrapper(opened, encoding='utf-8-sig', newline='')
    delimiter = _delimiter(path)
    quoting: Any = csv.QUOTE_NONE if delimiter == '\t' else csv.QUOTE_MINIMAL
    names = list(dataset.columns) or None
    reader = csv.DictReader(text, names, delimiter=delimiter, quoting=quoting)
    try:
      for number, row in enumerate(reader, 1):
        if None in row or None in row.values():
          raise UserDataError(f'{path} row {number}: expected columns {reader.fieldnames}')
        yield f'{path.name} row {number}', row
    except (csv.Error, UnicodeDecodeError) as error:
      raise UserDataError(f'{path}: {error}') from error


def instructions(dataset: Dataset, split: str) -> Iterator[source_rows.Row]:
  """The rows of a split as every source has them, templates applied.

  Rows for which a template gives no target are left out, as promptsource means it.

  Raises:
    UserDataError: a file, a row or a template is wrong; the message says which.
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
  except templates.TemplateProblemError as error:
    raise UserDataError(f'data set {dataset.name!r}, {dataset.templates}: {error}') from error


def _pair(dataset: Dataset, place: str, row: Mapping[str, Any]) -> tuple[str, str]:
  try:
    return source_rows.text(row, 'inputs'), source_rows.text(row, 'targets')
  except RowProblemError as error:
    raise UserDataError(
      f'data set {dataset.name!r}, {place}: {error}: without `templates` the columns must be '
      'inputs and targets'
    ) from error


def _row(
  dataset: Dataset,
  place: str,
  columns: Mapping[str, Any],
  template: str,
  pair: tuple[str, str],
) -> source_rows.Row:
  code = dataset.language or str(columns.get(dataset.language_column, ''))
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


class UserSource(seqio.DataSource):
  """Rows of a user's data set, read and made instructions at each use."""

  def __init__(self, name: str, splits: Sequence[str] = ('train',)):
    self.dataset_name = name
    super().__init__(splits=tuple(splits))

  @property
  def supports_arbitrary_sharding(self) -> bool:
    return False

  def _dataset(self) -> Dataset:
    if (dataset := find(self.dataset_name)) is None:
      raise FileNotFoundError(
        f'{self.dataset_name!r} is a data set that you supply: a row of that name in a table '
        '(DATASET_TABLES), see docs/mixtures.md'
      )
    return dataset

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
    """Scalar strings under `rows.COLUMNS`, in the order of the files."""
    del shuffle, seed, sequence_length, use_cached, num_epochs
    if shard_info is not None and shard_info.num_shards > 1:
      raise ValueError(f'{self.dataset_name!r} is read as one shard')
    dataset = self._dataset()
    signature = {name: tf.TensorSpec((), tf.string) for name in source_rows.COLUMNS}
    return tf.data.Dataset.from_generator(
      lambda: (row._asdict() for row in instructions(dataset, split)), output_signature=signature
    )

  def num_input_examples(self, split: str) -> int:
    """Rows of the split; reads the files, and applies the templates, once a process."""
    return _count(self._dataset_key(), split)

  def _dataset_key(self) -> str:
    self._dataset()
    return self.dataset_name

  def list_shards(self, split: str) -> list[str]:
    """One shard, whatever the number of files."""
    dataset = self._dataset()
    return [f'{dataset.name} ({len(dataset.paths(split))} files)']


@functools.lru_cache(maxsize=256)
def _count(name: str, split: str) -> int:
  dataset = find(name)
  assert dataset is not None
  return sum(1 for _ in instructions(dataset, split))


def _content(dataset: Dataset) -> str:
  """SHA-256 of what decides the task's rows beside the data: the table's row and the templates."""
  described = [
    {k: v for k, v in dataclasses.asdict(dataset).items() if k != 'folder'},
    [dataclasses.asdict(prompt) for prompt in dataset.prompts()],
  ]
  return hashlib.sha256(json.dumps(described, sort_keys=True, default=list).encode()).hexdigest()


def add(dataset: Dataset) -> str:
  """Registers the task of a data set; a second time, its new definition.

  Raises:
    UserDataError: another module has a task of that name.
    TemplateProblemError: its templates cannot be read.
  """
  if dataset.name in seqio.MixtureRegistry.names():
    raise UserDataError(f'there is a mixture {dataset.name!r} already; take another name')
  existing = seqio.TaskRegistry.names()
  mine = dataset.name in _DATASETS or dataset.name == SAFE_SLOT
  if dataset.name in existing and not mine:
    raise UserDataError(f'there is a task {dataset.name!r} already; take another name')
  source = UserSource(dataset.name, tuple(dataset.files))
  source.content = _content(dataset)
  _DATASETS[dataset.name] = dataset
  _count.cache_clear()
  if dataset.name in existing:
    if dataset.name == SAFE_SLOT:  # mixtures hold the task: its source is looked up at each use
      seqio.TaskRegistry.get(SAFE_SLOT).source.content = source.content
      return dataset.name
    seqio.TaskRegistry.remove(dataset.name)
  return source_tasks.add(dataset.name, source)


def add_table(path: epath.PathLike) -> list[str]:
  """Registers a task for each row of a table; their names.

  Raises:
    UserDataError: see `read_table` and `add`.
  """
  names = [add(dataset) for dataset in read_table(path)]
  _ADDED.add(str(path))
  return names


def ensure_tables(paths: Sequence[epath.PathLike]) -> None:
  """Adds the tables that this process has not read; for workers, which start with none."""
  for path in paths:
    if str(path) not in _ADDED:
      add_table(path)


source_tasks.add(SAFE_SLOT, UserSource(SAFE_SLOT))

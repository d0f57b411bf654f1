"""Tables of a user's data sets, and of mixtures of them.

A table is TOML (tables `[[dataset]]` and `[[mixture]]`), YAML or JSON (a list of data sets, or a
mapping with the lists `dataset` and `mixture`), or CSV or TSV (a header, and data sets):

  [[dataset]]
  name = 'copa_swahili'                   # of the task
  files = 'xcopa/sw.jsonl'                # a pattern, or {train = ..., validation = ...}
  language = 'swa'                        # or language_column = 'lang'
  templates = 'copa/templates.yaml'       # without it the columns must be inputs and targets
  license = 'CC BY 4.0'                   # a name that aya_train.tasks.rights.licenses knows
  # preferences = 'table'                 # prompt, chosen, rejected in place of inputs and targets

  [[mixture]]
  name = 'mine'
  rates = {copa_swahili = 1, aya_dataset = 3}   # or a list of names: by their numbers of rows

Paths are relative to the table, or else to the working directory; `~` is the home folder. Files are
JSON lines or one JSON array, parquet, Arrow, CSV or TSV, compressed (gz, bz2, xz, zst) or not.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from etils import epath

from aya_train import path_facts
from aya_train.tasks import split_slices
from aya_train.tasks.building import json_arrays, read_report, text_files
from aya_train.tasks.languages import language_codes
from aya_train.tasks.preference import preference_records
from aya_train.tasks.retrieval import pair_layouts
from aya_train.tasks.user import answer_metrics, csv_files, strict_yaml, templates
from aya_train.tasks.user.templates import PromptTemplate

_NAME = re.compile(r'[\w.:]+')  # as SeqIO has them
_WILD = '*?['


class UserDataError(ValueError):
  """A table or a data file of a user that cannot be used; the message says where and why."""


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A data set of a user's table.

  Attributes:
    name: of the task.
    files: split -> patterns of files.
    language: code of all rows, in any system of `language_codes`; '' of a benchmark without one.
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
    rank: a benchmark whose answers are options (`eval_datasets`).
    metrics: a benchmark whose answers are generated: names of `answer_metrics`.
    references: column with its right answers, a text or a list of them; '' for the targets.
    pairs: a layout of `pair_layouts`: the rows are pairs of texts for retrieval, not instructions.
    query, positive, negatives, group: columns of pairs that have no usual name.
    queries, corpus, negative_ids, other: files beside those of the pairs, '{split}' in their names
      standing for the split.
    preferences: the form of records that say which of two answers was preferred, one of
      `preference_records.READERS`; '' where rows are instructions.
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
  rank: bool = False
  metrics: tuple[str, ...] = ()
  references: str = ''
  pairs: str = ''
  query: str = ''
  positive: str = ''
  negatives: str = ''
  group: str = ''
  queries: str = ''
  corpus: str = ''
  negative_ids: str = ''
  other: str = ''
  preferences: str = ''
  folder: str = '.'

  def paths(self, split: str) -> list[epath.Path]:
    """Files of a split, each once, those of a pattern sorted.

    Raises:
      ValueError: the data set has no such split.
      FileNotFoundError: a pattern finds no file; the message has the places.
    """
    if split not in self.files:
      raise ValueError(
        f'data set {self.name!r} has no split {split!r}; it has {sorted(self.files)}'
      )
    return self._found(self.files[split], split)

  def beside(self, pattern: str, split: str) -> list[epath.Path]:
    """Other files that a split needs, '{split}' in the pattern standing for it; see `paths`."""
    return self._found([pattern.replace('{split}', split)], split)

  def _found(self, patterns: Sequence[str], split: str) -> list[epath.Path]:
    found: dict[str, epath.Path] = {}
    for pattern in patterns:
      places = self._places(pattern)
      matches = next((m for place in places if (m := _matching(place))), [])
      if not matches:
        raise FileNotFoundError(
          f'data set {self.name!r}, split {split!r}: no file {pattern!r}, neither beside the '
          f'table nor in the working directory: {" nor ".join(map(os.fspath, places))}'
        )
      for path in matches:
        if path_facts.is_dir(path):
          raise UserDataError(
            f'data set {self.name!r}, split {split!r}: {path} is a folder; give a pattern of its '
            f"files, such as '{pattern.rstrip('/')}/*.jsonl'"
          )
        try:
          text_files.refuse_stream(path)
        except read_report.DamagedFileError as error:
          raise UserDataError(f'data set {self.name!r}, split {split!r}: {error}') from error
        found[os.fspath(path)] = path
    return list(found.values())

  def _places(self, pattern: str) -> list[epath.Path]:
    """Where a path of the table may lie: beside it, or in the working directory."""
    path = epath.Path(os.path.expanduser(pattern))
    if '://' in pattern or path.is_absolute():
      return [path]
    return list(dict.fromkeys([epath.Path(self.folder) / path, epath.Path(os.getcwd()) / path]))

  def prompts(self) -> list[PromptTemplate]:
    """The templates to apply, [] for none.

    Raises:
      FileNotFoundError: no file of templates; the message has the places.
      templates.TemplateProblemError: what is wrong with it.
    """
    if self.templates is None:
      return []
    places = self._places(self.templates)
    path = next((place for place in places if path_facts.exists(place)), None)
    if path is None:
      raise FileNotFoundError(
        f'data set {self.name!r}: no file of templates {self.templates!r}, neither beside the '
        f'table nor in the working directory: {" nor ".join(map(os.fspath, places))}'
      )
    return templates.choose(templates.read(path), self.template_names)


@dataclasses.dataclass(frozen=True)
class UserMixture:
  """A mixture of a user's table.

  Attributes:
    name: of the mixture.
    rates: task or mixture -> rate; None: the number of its rows.
  """

  name: str
  rates: Mapping[str, float | None]


@dataclasses.dataclass(frozen=True)
class Table:
  """What a file defines."""

  datasets: tuple[Dataset, ...] = ()
  mixtures: tuple[UserMixture, ...] = ()

  @property
  def names(self) -> list[str]:
    return [*(dataset.name for dataset in self.datasets), *(m.name for m in self.mixtures)]


def _matching(pattern: epath.Path) -> list[epath.Path]:
  """Files of a pattern whose folders may have wildcards too."""
  if path_facts.exists(pattern):
    return [pattern]
  if not any(character in os.fspath(pattern) for character in _WILD):
    return []
  folder = pattern
  while any(character in os.fspath(folder) for character in _WILD):
    folder = folder.parent
  inside = os.fspath(pattern)[len(os.fspath(folder)) :] if folder != epath.Path('.') else pattern
  return path_facts.matching(folder, os.fspath(inside).lstrip('/'))


def read(path: epath.PathLike) -> Table:
  """The data sets and mixtures of a table.

  Raises:
    FileNotFoundError: no such file.
    UserDataError: an unknown form, key or language, a row without name, files or language, a name
      or a key that stands twice.
  """
  path = epath.Path(os.path.expanduser(os.fspath(path)))
  if not path_facts.exists(path):
    raise FileNotFoundError(f'no table of data sets {path} (DATASET_TABLES)')
  folder = os.fspath(path.parent)
  folder = folder if '://' in folder else os.path.abspath(folder)
  try:
    rows = _rows(path)
  except (ValueError, yaml.YAMLError, RecursionError) as error:
    text = str(error)
    raise UserDataError(text if os.fspath(path) in text else f'{path}: {text}') from error
  datasets = [_built(_dataset, row, path, f'data set {i}', folder) for i, row in rows['dataset']]
  mixtures = [_built(_mixture, row, path, f'mixture {i}') for i, row in rows['mixture']]
  table = Table(tuple(datasets), tuple(mixtures))
  if twice := sorted({name for name in table.names if table.names.count(name) > 1}):
    raise UserDataError(f'{path}: the names {twice} are given twice')
  return table


def _built(make: Any, row: Mapping[str, Any], path: epath.Path, place: str, *rest: str) -> Any:
  try:
    return make({k: v for k, v in row.items() if v is not None and v != ''}, *rest)
  except (TypeError, ValueError, KeyError) as error:
    name = f' ({row["name"]!r})' if isinstance(row.get('name'), str) else ''
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    raise UserDataError(f'{path}, {place}{name}: {text}') from error


Rows = list[tuple[int, Mapping[str, Any]]]


def _rows(path: epath.Path) -> dict[str, Rows]:
  """Data sets and mixtures as they are written, each with its number."""
  ending = path.suffix.lower()
  if csv_files.is_one(path.name):
    return {'dataset': list(csv_files.read(path)), 'mixture': []}
  if ending not in ('.toml', '.yaml', '.yml', '.json'):
    raise UserDataError(f'{path}: a table is .toml, .yaml, .json, .csv or .tsv')
  text = text_files.read(path)
  if ending == '.toml':
    found: Any = tomllib.loads(text)
  elif ending == '.json':
    found = json.loads(text, object_pairs_hook=json_arrays.unique_keys)
  else:
    found = yaml.load(text, strict_yaml.Loader)
  if isinstance(found, list):
    found = {'dataset': found}
  if not isinstance(found, Mapping) or not {*found} & {'dataset', 'mixture'}:
    raise UserDataError(f'{path}: expected a list of data sets ([[dataset]] in TOML)')
  if unknown := sorted(map(str, {*found} - {'dataset', 'mixture'})):
    raise UserDataError(f'{path}: unknown keys {unknown}; known are dataset and mixture')
  return {kind: _numbered(path, kind, found.get(kind, [])) for kind in ('dataset', 'mixture')}


def _numbered(path: epath.Path, kind: str, rows: Any) -> Rows:
  if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
    raise UserDataError(f'{path}: expected a list of tables under {kind!r} ([[{kind}]] in TOML)')
  return list(enumerate(rows, 1))


def _check_keys(row: Mapping[str, Any], known: Sequence[str], needed: Sequence[str]) -> None:
  if unknown := sorted(map(str, {*row} - {*known})):
    raise ValueError(f'unknown keys {unknown}; known are {sorted(known)}')
  if missing := [key for key in needed if key not in row]:
    raise ValueError(f'{missing} missing')
  if not isinstance(row['name'], str) or not _NAME.fullmatch(row['name']):
    raise ValueError(f'name {row["name"]!r}: expected letters, digits, "_", "." and ":"')


_TEXTS = tuple(f.name for f in dataclasses.fields(Dataset) if f.type in ('str', 'str | None'))


def _dataset(row: dict[str, Any], folder: str) -> Dataset:
  known = {field.name for field in dataclasses.fields(Dataset)} - {'folder'}
  _check_keys(row, sorted(known), ('name', 'files'))
  for key in _TEXTS:
    if not isinstance(row.get(key, ''), str):
      raise ValueError(f'{key}: expected a text, got {row[key]!r}')
  for key in ('columns', 'template_names', 'metrics'):
    if isinstance(value := row.get(key, ()), str):
      value = [part.strip() for part in value.split(';')]
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
      raise ValueError(f'{key}: expected a list of names, got {value!r}')
    if twice := sorted({part for part in value if value.count(part) > 1}):
      raise ValueError(f'{key}: {twice} are given twice')
    row[key] = tuple(value)
  for key in ('seed', 'max_characters'):
    if key in row:
      row[key] = _whole_number(key, row[key])
  if row.get('max_characters', 4) < 4:
    raise ValueError(f'max_characters: expected at least 4, got {row["max_characters"]}')
  for key in ('all_templates', 'rank'):
    row[key] = _truth(key, row.get(key, False))
  _check_benchmark(row)
  pair_layouts.check_keys({k: v for k, v in row.items() if v})
  _check_preferences(row)
  is_benchmark = bool(row['rank'] or row['metrics'])
  _check_language(row, is_benchmark)
  row['files'] = _patterns(row['files'], 'test' if is_benchmark else 'train')
  return Dataset(**row, folder=folder)


def _check_language(row: dict[str, Any], is_benchmark: bool) -> None:
  """What is trained on has a language; a benchmark may have none, or say that it is unknown."""
  if is_benchmark and language_codes.is_unsaid(row.get('language', '')):
    row.pop('language', None)
  given = [key for key in ('language', 'language_column') if row.get(key)]
  if len(given) > 1 or not (given or is_benchmark):
    raise ValueError('give either language or language_column')
  if row.get('language'):
    language_codes.resolve(row['language'])


def _check_benchmark(row: Mapping[str, Any]) -> None:
  if row['rank'] and (row['metrics'] or row.get('references')):
    raise ValueError('rank: options are scored by accuracy, without `metrics` and `references`')
  if row.get('references') and not row['metrics']:
    raise ValueError('references: is for answers that are scored; give `metrics` too')
  if (row['rank'] or row['metrics']) and row['all_templates']:
    raise ValueError('all_templates: each template of a benchmark has a task of its own anyway')
  if unknown := sorted({*row['metrics']} - {*answer_metrics.NAMES}):
    raise ValueError(f'metrics: unknown {unknown}; known are {sorted(answer_metrics.NAMES)}')


def _check_preferences(row: Mapping[str, Any]) -> None:
  form = row.get('preferences', '')
  if not form:
    return
  if form not in preference_records.READERS:
    raise ValueError(
      f'preferences: unknown {form!r}; known are {sorted(preference_records.READERS)}'
    )
  others = ('templates', 'template_names', 'all_templates', 'rank', 'metrics', 'references')
  if given := [key for key in others if row.get(key)]:
    raise ValueError(f'preferences: pairs of answers have no {given}')


def _patterns(files: Any, split: str) -> dict[str, tuple[str, ...]]:
  by_split = files if isinstance(files, Mapping) else {split: files}
  found = {}
  for split, patterns in by_split.items():
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(patterns, list) or not all(p and isinstance(p, str) for p in patterns):
      raise ValueError(
        f'files of {split!r}: expected a pattern or a list of them, got {patterns!r}'
      )
    if not patterns:
      raise ValueError(f'files of {split!r}: the list is empty')
    if not isinstance(split, str) or split_slices.parse(split)[0] != split_slices.SplitSlice(split):
      raise ValueError(
        f'files of {split!r}: that is no name of a split; slices are taken where it is read, such '
        "as TRAIN_SPLIT = 'train[:90%]'"
      )
    found[split] = tuple(patterns)
  if not found:
    raise ValueError('files: no split')
  return found


def _whole_number(key: str, value: Any) -> int:
  if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
    raise ValueError(f'{key}: expected a whole number, got {value!r}')
  try:
    return int(value)
  except (TypeError, ValueError) as error:
    raise ValueError(f'{key}: expected a whole number, got {value!r}') from error


def _truth(key: str, value: Any) -> bool:
  words = {'1': True, 'true': True, 'yes': True, '0': False, 'false': False, 'no': False}
  if (found := words.get(str(value).strip().lower())) is None:
    raise ValueError(f'{key}: expected true or false, got {value!r}')
  return found


def _mixture(row: dict[str, Any]) -> UserMixture:
  _check_keys(row, ('name', 'rates'), ('name', 'rates'))
  rates = row['rates']
  if isinstance(rates, list):
    if not all(isinstance(name, str) for name in rates):
      raise ValueError(f'rates: expected names of tasks, got {rates!r}')
    if twice := sorted({name for name in rates if rates.count(name) > 1}):
      raise ValueError(f'rates: {twice} are given twice')
    rates = dict.fromkeys(rates)
  if not isinstance(rates, Mapping) or not rates:
    raise ValueError(f'rates: expected names of tasks and their rates, or a list, got {rates!r}')
  for name, rate in rates.items():
    number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if rate is not None and not (number and rate > 0 and math.isfinite(rate)):
      raise ValueError(f'rates: expected a positive number for {name!r}, got {rate!r}')
  return UserMixture(row['name'], {str(k): v if v is None else float(v) for k, v in rates.items()})

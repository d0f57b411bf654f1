"""Data that embeddings are measured on, as it is released: search, translations, similarity."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import path_facts
from aya_train.embedding import text_rows
from aya_train.tasks.building import records, text_files
from aya_train.tasks.languages import language_codes
from aya_train.tasks.user import csv_files, row_files

_CORPUS, _QUERIES, _QRELS = 'corpus', 'queries', 'qrels'
_TABLES = ('.jsonl', '.jsonl.gz', '.jsonl.zst', '.parquet', '.json')
_LINES = re.compile(r'(?P<stem>.*?)\.?(?P<one>\w+)-(?P<other>\w+)\.(?P<side>\w+)$')
_PIVOTS = ('eng', 'en', 'english', 'eng_Latn')
_PAIR = (
  ('sentence1', 'sentence2'),
  ('source', 'target'),
  ('text1', 'text2'),
  ('inputs', 'targets'),
)
_LANGUAGE = ('lang', 'language', 'langs', 'language_code')
_SCORE = ('score', 'label', 'similarity_score', 'similarity', 'gold')
_SHOWN = 8


@dataclasses.dataclass(frozen=True)
class SearchData:
  """A corpus, queries and what is relevant.

  Attributes:
    name: of the benchmark.
    corpus: passages; `title` stands before the text.
    queries: id -> text.
    grades: query -> passage -> grade.
  """

  name: str
  corpus: text_rows.Rows
  queries: Mapping[str, str]
  grades: Mapping[str, Mapping[str, int]]


@dataclasses.dataclass(frozen=True)
class PairData:
  """Two texts a row.

  Attributes:
    name: of the benchmark.
    language: ISO 639-3 code of the side that is not the pivot; '' if unknown.
    subset: as the data name the pair: 'afr-eng'.
    one, other: texts.
    gold: similarities by people; () of translations.
  """

  name: str
  language: str
  subset: str
  one: Sequence[str]
  other: Sequence[str]
  gold: Sequence[float] = ()


def named(argument: str) -> tuple[str, str]:
  """NAME=PATH, or a path that is called by its last part."""
  name, equals, path = argument.partition('=')
  if equals and '/' not in name and name and path:
    return name, path
  last = argument.rstrip('/').rpartition('/')[2]
  return last.partition('.')[0] or last, argument


def search(name: str, folder: epath.PathLike, split: str = 'test') -> SearchData:
  """BEIR's layout: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv, with other endings too.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: damaged files, no grades, or a grade of a query that is not there.
  """
  folder = epath.Path(folder)
  corpus = text_rows.of_files([_file(folder, _CORPUS)], column='text', title_column='title')
  queries_file = _file(folder, _QUERIES)
  rows = text_rows.of_files([queries_file], column='text')
  text_rows.survey(rows, str(queries_file))
  queries = {row.id: row.text for row in rows()}
  grades: dict[str, dict[str, int]] = {}
  file = _grades_file(folder, split)
  for place, (query, passage, grade) in _grades(file):
    if query not in queries:
      raise ValueError(f'{file}, {place}: no query {query!r} in {queries_file}')
    grades.setdefault(query, {})[passage] = grade
  if not any(grade > 0 for of_query in grades.values() for grade in of_query.values()):
    raise ValueError(f'{file}: no query has a relevant passage')
  return SearchData(name, corpus, queries, grades)


def _file(folder: epath.Path, stem: str) -> epath.Path:
  for ending in _TABLES:
    if path_facts.exists(folder / f'{stem}{ending}'):
      return folder / f'{stem}{ending}'
  raise FileNotFoundError(
    f'no {stem}.jsonl (or {", ".join(_TABLES[1:])}) in {folder}: expected the layout of BEIR, '
    'corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv'
  )


def _grades_file(folder: epath.Path, split: str) -> epath.Path:
  found = [folder / _QRELS / f'{split}{ending}' for ending in ('.tsv', *_TABLES)]
  for path in found:
    if path_facts.exists(path):
      return path
  there = [path.name for path in path_facts.matching(folder / _QRELS, '*')]
  raise FileNotFoundError(f'no {found[0]}: there are {there} (--split)')


def _grades(file: epath.Path) -> Iterator[tuple[str, tuple[str, str, int]]]:
  """BEIR's three columns with a header; TREC's four without one."""
  rows: Iterator[tuple[str, Any]]
  if csv_files.is_one(file.name):
    lines = [line.split() for _, line in row_files.lines(file) if line.strip()]
    if lines and len(lines[0]) > 2 and _number(lines[0][-1]) is None:
      lines = lines[1:]
    rows = ((f'row {i}', line) for i, line in enumerate(lines, 1))
  else:
    keys = ('query-id', 'corpus-id', 'score')
    rows = ((place, [row.get(k) for k in keys]) for place, row in _columns(file, 'its columns'))
  for place, fields in rows:
    if len(fields) == 4:
      fields = [fields[0], *fields[2:]]
    is_whole = len(fields) == 3 and _is_number(fields[2]) and not float(fields[2]) % 1
    if not is_whole or None in fields:
      raise ValueError(
        f'{file}, {place}: expected a query, a passage and a whole number as grade, got '
        f'{fields[:_SHOWN]}'
      )
    yield place, (str(fields[0]), str(fields[1]), int(float(fields[2])))


def _number(text: Any) -> float | None:
  try:
    return float(text)
  except (TypeError, ValueError):
    return None


def _is_number(text: Any) -> bool:
  return (number := _number(text)) is not None and math.isfinite(number)


def _columns(path: epath.PathLike, wanted: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
  """(place, columns) of each row of a table; ValueError where a row has none."""
  for place, row in row_files.read(path):
    if isinstance(row, records.BadRecord):
      raise ValueError(f'{path}, {place}: {row.detail}')
    if not isinstance(row, Mapping):
      raise ValueError(f'{path}, {place}: expected {wanted}, got {type(row).__name__}')
    yield place, row


# Pairs --------------------------------------------------------------------------------------------


def translations(name: str, path: epath.PathLike) -> list[PairData]:
  """Translations: a folder of aligned lines, or a table.

  A folder has files `NAME.LANG-eng.LANG` and `NAME.LANG-eng.eng` (Tatoeba, as LASER and OPUS lay it
  out). A table has two columns of texts, `sentence1` and `sentence2` say, and perhaps `lang`; or a
  column for each language, each of which is held against English, or else the first.

  Raises:
    ValueError: lines that are not as many on both sides, empty texts, unknown columns.
    FileNotFoundError: nothing there.
  """
  path = epath.Path(path)
  if not path_facts.exists(path):
    raise FileNotFoundError(f'no translations at {path}')
  found = _aligned(name, path) if path_facts.is_dir(path) else _table(name, path)
  if not found:
    raise ValueError(
      f'{path}: no translations in it; expected files NAME.LANG-eng.LANG and NAME.LANG-eng.eng'
    )
  return found


def _aligned(name: str, folder: epath.Path) -> list[PairData]:
  sides: dict[tuple[str, str, str], dict[str, epath.Path]] = {}
  for path in sorted(folder.iterdir()):
    matched = _LINES.match(path.name)
    if matched and matched['side'] in (matched['one'], matched['other']):
      key = (matched['stem'], matched['one'], matched['other'])
      sides.setdefault(key, {})[matched['side']] = path
  found = []
  for (_, one, other), files in sides.items():
    if {*files} != {one, other}:
      raise FileNotFoundError(f'{next(iter(files.values()))}: the other side is missing')
    texts = [[line for _, line in row_files.lines(files[side])] for side in (one, other)]
    found.append(_pairs(name, (one, other), *texts, where=str(files[one])))
  return found


def _table(name: str, path: epath.Path) -> list[PairData]:
  columns: dict[str, list[Any]] = {}
  for place, row in _columns(path, 'columns, such as sentence1 and sentence2'):
    columns = columns or {str(key): [] for key in row}
    if {*map(str, row)} != {*columns}:
      raise ValueError(
        f'{path}, {place}: its columns are {sorted(map(str, row))[:_SHOWN]}, and those of the '
        f'first row {sorted(columns)[:_SHOWN]}'
      )
    for key, value in row.items():
      columns[str(key)].append(value)
  pair = next((p for p in _PAIR if {*p} <= {*columns}), None)
  if pair is None:
    return _by_language(name, path, columns)
  language = next((key for key in _LANGUAGE if key in columns), None)
  if language is None:
    return [_pairs(name, ('', ''), *(columns[c] for c in pair), where=str(path))]
  found = []
  for value in dict.fromkeys(columns[language]):
    rows = [i for i, lang in enumerate(columns[language]) if lang == value]
    texts = [[columns[c][i] for i in rows] for c in pair]
    one, _, other = str(value or '').partition('-')
    found.append(_pairs(name, (one, other), *texts, where=str(path)))
  return found


def _by_language(name: str, path: epath.Path, columns: Mapping[str, list[Any]]) -> list[PairData]:
  texts = {
    key: values
    for key, values in columns.items()
    if key and any(isinstance(v, str) and not _is_number(v) for v in values)
  }
  pivot = next((key for key in texts if key.lower() in _PIVOTS), next(iter(texts), ''))
  others = [key for key in texts if key != pivot]
  if not others:
    raise ValueError(
      f'{path} has the columns {sorted(columns)[:_SHOWN]}: expected two of texts, such as '
      'sentence1 and sentence2, or one for each language'
    )
  return [
    _pairs(name, (key, pivot), texts[key], texts[pivot], where=f'{path}, column {key}')
    for key in others
  ]


def _pairs(
  name: str, sides: tuple[str, str], one: Sequence[Any], other: Sequence[Any], *, where: str
) -> PairData:
  if len(one) != len(other):
    raise ValueError(f'{where}: {len(one)} lines, and {len(other)} of the other side')
  for row, texts in enumerate(zip(one, other, strict=True), 1):
    if not all(isinstance(text, str) and not text_files.is_blank(text) for text in texts):
      raise ValueError(f'{where}, row {row}: an empty text, or one that is no text')
  if not one:
    raise ValueError(f'{where}: no rows')
  foreign = sides[1] if sides[0].lower() in _PIVOTS else sides[0]
  subset = '-'.join(filter(None, sides))
  return PairData(name, iso_code(foreign), subset, list(one), list(other))


def iso_code(name: str) -> str:
  """ISO 639-3 code of a code or an English name; '' if it is none."""
  try:
    return language_codes.resolve(name).code
  except language_codes.UnknownLanguageError:
    return ''


def similarities(name: str, path: epath.PathLike) -> list[PairData]:
  """Pairs with a score by people: `sentence1`, `sentence2`, `score`, and perhaps `lang`.

  Raises:
    ValueError: columns are missing, or a score is no number.
    FileNotFoundError: no such file.
  """
  path = epath.Path(path)
  if not path_facts.exists(path):
    raise FileNotFoundError(f'no file {path}')
  groups: dict[str, tuple[list[str], list[str], list[float]]] = {}
  for place, row in _columns(path, 'sentence1, sentence2 and score'):
    keys = {*row}
    pair = next((p for p in _PAIR if {*p} <= keys), None)
    score = next((key for key in _SCORE if key in keys), None)
    if pair is None or score is None:
      raise ValueError(
        f'{path}, {place}: expected sentence1, sentence2 and score, got {sorted(keys)[:_SHOWN]}'
      )
    if not _is_number(row[score]):
      raise ValueError(f'{path}, {place}: the score {row[score]!r} is no number')
    language = str(next((row[key] for key in _LANGUAGE if key in keys), None) or '')
    one, other, gold = groups.setdefault(language, ([], [], []))
    one.append(row[pair[0]])
    other.append(row[pair[1]])
    gold.append(float(row[score]))
  if not groups:
    raise ValueError(f'{path}: no rows')
  found = []
  for language, (one, other, gold) in groups.items():
    sides = (language.partition('-')[0], language.partition('-')[2])
    pairs = _pairs(name, sides, one, other, where=str(path))
    found.append(dataclasses.replace(pairs, gold=gold))
  return found

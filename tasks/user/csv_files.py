"""CSV and TSV as spreadsheets and scripts write them.

CSV is read with quotes, as RFC 4180 has them; in TSV a quote is a character as any other. Rows
count from 1, without the header and without blank lines.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from aya_train.tasks.building import text_files
from aya_train.tasks.building.read_report import DamagedFileError

ENDINGS = ('.csv', '.tsv')
_LONGEST_FIELD = 64 << 20  # as long as a line of another form may be
# What the first line of a file without a header does not consist of.
_USUAL = frozenset(
  (
    *('answer', 'answers', 'category', 'completion', 'context', 'id', 'idx', 'index', 'input'),
    *('inputs', 'instruction', 'label', 'lang', 'language', 'output', 'outputs', 'prompt'),
    *('question', 'response', 'split', 'target', 'targets', 'text', 'title'),
  )
)

Fields = list[str]


def is_one(name: str) -> bool:
  """Whether a file's name says that it is CSV or TSV, compressed or not."""
  return text_files.plain_name(name.lower()).endswith(ENDINGS)


def read(path: epath.PathLike, columns: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
  """Yields the number of each row and its columns, all strings.

  Args:
    path: of a file for which `is_one`.
    columns: names, for a file without a header.

  Raises:
    DamagedFileError: with the file, the row and its first line: another number of fields than
      columns, a quote that is never closed or stands inside a field, bytes that are not UTF-8; a
      name twice in the header, or a header although `columns` are given; see `text_files.opened`.
  """
  path = epath.Path(path)
  with text_files.opened(path) as file:
    found = _fields(path, file, headers=0 if columns else 1)
    names = list(columns)
    if not names:
      names = next((fields for _, fields in found), [])
    _refuse_repeated(path, names)
    for number, (line, fields) in enumerate(found, 1):
      if number == 1 and columns:
        _refuse_header(path, fields, columns)
      if len(fields) != len(names):
        raise DamagedFileError(
          f'{path}, row {number} (line {line}): {len(fields)} fields, expected the {len(names)} '
          f'columns {names}: {_shortened(fields)}'
        )
      yield number, {name: field for name, field in zip(names, fields, strict=True) if name}


def _refuse_repeated(path: epath.Path, names: Sequence[str]) -> None:
  if repeated := sorted({name for name in names if name and names.count(name) > 1}):
    raise DamagedFileError(f'{path}: the columns {repeated} are there twice, of {list(names)}')


def _refuse_header(path: epath.Path, fields: Sequence[str], columns: Sequence[str]) -> None:
  cells = [field.strip().lower() for field in fields]
  same = [cell for cell, name in zip(cells, columns, strict=False) if cell == name.strip().lower()]
  if same or (len(cells) > 1 and {*cells} <= {*_USUAL, *(name.lower() for name in columns)}):
    raise DamagedFileError(
      f'{path}: `columns` are given for files without a header, and line 1 is one: {list(fields)}. '
      'Leave `columns` away'
    )


def _shortened(fields: Sequence[str]) -> str:
  text = repr(fields[:8])
  return text if len(text) <= 120 else f'{text[:120]}...'


def _fields(path: epath.Path, file: Any, headers: int) -> Iterator[tuple[int, Fields]]:
  """The first line and the fields of each row that is not blank."""
  if text_files.plain_name(path.name.lower()).endswith('.tsv'):
    for number, line in enumerate(_lines(path, file), 1):
      if text := line.removesuffix('\n').removesuffix('\r'):
        yield number, text.split('\t')
    return
  csv.field_size_limit(_LONGEST_FIELD)
  reader = csv.reader(_lines(path, file), strict=True)
  before = rows = 0
  try:
    for fields in reader:
      if fields:
        rows += 1
        yield before + 1, fields
      before = reader.line_num
  except csv.Error as error:
    raise DamagedFileError(
      f'{path}, row {rows + 1 - headers} (from line {before + 1}): {_explained(str(error))}'
    ) from error


def _explained(problem: str) -> str:
  if 'end of data' in problem:
    return 'a field opens with a quote (") that is never closed'
  if 'expected after' in problem:
    return 'a quote (") inside a quoted field; such a one is written twice ("")'
  if 'new-line character' in problem:
    return 'a carriage return alone, inside a field without quotes'
  return problem


def _lines(path: epath.Path, file: Any) -> Iterator[str]:
  """Lines with their ends."""
  for number, line in enumerate(text_files.raw_lines(file), 1):
    yield text_files.decoded(path, line, f'line {number}')

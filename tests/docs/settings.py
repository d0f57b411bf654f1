"""What the documentation says of settings, and what the gin files say.

A table of settings has the header `macro`, `setting` or `parameter`. Its other columns are a
`default` or a `value`, or one column for each of several gin files. A cell begins with the value: a
Python literal, numbers also as 30,000, lengths and meshes also as `data 4, fsdp 16`; `required` for
a macro that must be given; another macro's name for its value; `@name` for what gin builds.
"""

import contextlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gin

from aya_train import config, gin_text
from aya_train.tasks import features
from tests.docs.commands import PAGES, ROOT

NAME = re.compile(r'[A-Z][A-Z0-9_]+|[a-z]\w+(?:\.\w+)*')
_FIRST = ('macro', 'setting', 'parameter')
_NUMBER = re.compile(r'-?\d[\d,_]*(?:\.\d+)?(?:e-?\d+)?')


class Told(NamedTuple):
  """A setting that a page tells: where, of which gin files, its name, and the words for it."""

  where: str
  gin_files: tuple[str, ...]
  name: str
  cell: str


@contextlib.contextmanager
def parsed(gin_files: Sequence[str]) -> Iterator[None]:
  """Gin with these files."""
  try:
    config.parse(gin_files, require_all=False)
    yield
  finally:
    gin.clear_config()
    features.set_vocabulary(None)


def values(gin_files: Sequence[str]) -> dict[str, Any]:
  """Macros and bound parameters (`optimizer.adafactor.decay_rate`), references as text."""
  with parsed(gin_files):
    text = gin.config_str()
    found = gin_text.macros(text)
    for scope, name in re.findall(r'^((?:\w+/)?\w+\.\w+)\.(\w+) =', text, re.MULTILINE):
      with contextlib.suppress(ValueError):
        value = gin.query_parameter(f'{scope}.{name}')
        if value is None or isinstance(value, bool | int | float | str | tuple | dict):
          found[f'{scope}.{name}'] = value
    return found


def parameters(function: Any) -> dict[str, Any]:
  """Defaults of a function's parameters."""
  signature = inspect.signature(function)
  return {p.name: p.default for p in signature.parameters.values() if p.default is not p.empty}


def says(cell: str, value: object) -> bool:
  """Whether a cell begins with a value."""
  cell = re.sub(r'[`*]', '', cell).strip()
  if value is None or isinstance(value, bool):
    return re.match(rf'{value}(?!\w)', cell) is not None
  if isinstance(value, int | float):
    number = _NUMBER.match(cell)
    return number is not None and float(re.sub('[,_]', '', number[0].rstrip(','))) == value
  if isinstance(value, Mapping) and value:
    pairs = re.findall(r"'?(\w+)'?\W+?(-?\d[\d,]*)", cell.partition(';')[0])
    return {name: int(number.replace(',', '')) for name, number in pairs} == dict(value)
  if isinstance(value, str) and value[:1] in '@%':
    words = {'%gin.REQUIRED': 'required'}.get(value, value.lstrip('%'))
    return re.match(rf'{re.escape(words)}(?!\w)', cell) is not None
  return cell.startswith(re.sub(r'[`*]', '', repr(value)))


def changed(value: object) -> object:
  """Another value of the same kind."""
  if value is None:
    return 1
  if isinstance(value, bool):
    return not value
  if isinstance(value, int | float):
    return value * 2 + 1
  if isinstance(value, Mapping):
    return {**value, next(iter(value)): 7} if value else {'inputs': 7}
  return (*value, 'more') if isinstance(value, tuple) else f'{value}_more'


def cells(line: str) -> list[str]:
  """Cells of a line of a table; a bar in code is written `\\|`."""
  return [cell.strip().replace('\\|', '|') for cell in re.split(r'(?<!\\)\|', line.strip('|\n '))]


def tables(text: str) -> Iterator[tuple[int, list[str], list[list[str]]]]:
  """Line, header and rows of each table of a page."""
  lines = text.splitlines()
  for i, line in enumerate(lines):
    if re.fullmatch(r'\|[-| :]+\|', line.strip()):
      rows = []
      for row in lines[i + 1 :]:
        if not row.startswith('|'):
          break
        rows.append(cells(row))
      yield i, cells(lines[i - 1]), rows


def of_settings(page: str) -> Iterator[tuple[str, list[str], list[list[str]]]]:
  """Place, header and rows of the tables of settings of a page."""
  text = (ROOT / page).read_text(encoding='utf-8')
  for line, header, rows in tables(text):
    if header[0] in _FIRST:
      yield f'{page}:{line}', header, rows


def names(cell: str) -> list[str]:
  """The settings of a row: words in capitals, or parameters in code."""
  in_code = [name for code in re.findall(r'`([^`]+)`', cell) for name in NAME.findall(code)]
  return in_code or re.findall(r'\b[A-Z][A-Z0-9_]*_[A-Z0-9_]+\b|\b(?:PACK|MODEL|OPTIMIZER)\b', cell)


def parts(cell: str, count: int) -> list[str]:
  """What a cell says of each of `count` settings."""
  found = re.split(r', (?![^{(]*[})])(?!\d{3}\b)', cell)
  return found if len(found) == count else [cell] * count


def of_columns(
  page: str, columns: Mapping[str, tuple[str, ...]], files: Mapping[str, tuple[str, ...]]
) -> Iterator[Told]:
  """What the tables of a page tell.

  Args:
    page: path from the root.
    columns: of a header's second cell (`default`, `value`) -> gin files that it tells of.
    files: name of a gin file, as a header has it -> the gin files to parse for it.
  """
  for where, header, rows in of_settings(page):
    named = [re.sub('`', '', cell) for cell in header]
    told = {
      i: columns.get(f'{page} {name}') or columns.get(name) or files.get(name)
      for i, name in enumerate(named)
      if i
    }
    for row in rows:
      found = names(row[0])
      for i, gin_files in told.items():
        if gin_files:
          for name, cell in zip(found, parts(row[i], len(found)), strict=True):
            yield Told(where, gin_files, name, cell)


def sentence(page: str, pattern: str) -> tuple[str, ...]:
  """What the one sentence of a page that has this pattern says: its groups.

  Raises:
    ValueError: the page has no such sentence, or several.
  """
  assert page in PAGES, page
  text = ' '.join((ROOT / page).read_text(encoding='utf-8').split())
  found = list(re.finditer(pattern, text))
  if len(found) != 1:
    raise ValueError(f'{page}: {len(found)} sentences have {pattern!r}, expected one')
  return found[0].groups()

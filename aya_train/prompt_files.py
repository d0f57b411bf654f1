"""Prompts that a user gives: texts, a file of lines, rows with further columns."""

import dataclasses
import json
import logging
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from etils import epath

from aya_train import answer_file
from aya_train.tasks.building import json_arrays, records, text_files
from aya_train.tasks.user import row_files

logger = logging.getLogger(__name__)
STDIN = '-'
COLUMNS = ('inputs', 'prompt')  # looked for in this order
ID = 'id'
# What an answer says itself; of columns of the same names the answer's are kept.
OWN = ('index', 'inputs', 'prediction', 'sample')
BadRows = Literal['refuse', 'leave_out']
Form = Literal['text', 'jsonl']
_NAMED = 5  # bad rows that a message names


@dataclasses.dataclass(frozen=True)
class Prompt:
  """A prompt, and the further columns of its row, which go with its answer."""

  text: str
  columns: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def of_texts(texts: Sequence[str], name: str = 'PROMPTS') -> list[Prompt]:
  """Prompts of texts.

  Raises:
    ValueError: one is empty, or no text.
  """
  for number, text in enumerate(texts, 1):
    if text_files.is_blank(text):
      raise ValueError(f'{name}: text {number} is empty: give each prompt at least a word')
    if not text_files.is_unicode(text):
      raise ValueError(f'{name}: text {number} is not UTF-8: {text!r}; write it so, or in a file')
  return [Prompt(text) for text in texts]


def read(
  path: epath.PathLike,
  *,
  column: str | None = None,
  form: Form | None = None,
  bad_rows: BadRows = 'refuse',
) -> list[Prompt]:
  """Prompts of a file, '-' is standard input.

  A file is JSON lines if its name says so (`.jsonl`, `.json`, compressed too) or, of standard
  input and pipes, if it holds objects; CSV, TSV, parquet, Arrow and TFRecord have rows of the same
  columns; else each line that is not blank is a prompt.

  Args:
    path: of this machine or a bucket; compressed or not.
    column: of JSON lines, which holds the prompt; None: `inputs`, or else `prompt`.
    form: None: by the name.
    bad_rows: what happens to rows that are torn, have no prompt, or an `id` that was there before.

  Raises:
    ValueError: no prompt at all; or bad rows that are not to be left out.
    OSError: it cannot be read.
  """
  if bad_rows not in ('refuse', 'leave_out'):
    raise ValueError(f"BAD_ROWS must be 'refuse' or 'leave_out', got {bad_rows!r}")
  if form not in (None, 'text', 'jsonl'):
    raise ValueError(f"PROMPTS_FORMAT must be 'text', 'jsonl' or None, got {form!r}")
  if form is None and not answer_file.is_stream(path) and _has_rows(os.fspath(path)):
    return _given(_of_rows(_table(path), str(path), column, bad_rows), str(path))
  text, name = _text(path)
  is_asked = form is not None
  if form is None:
    form = _form(path, text)
  if form == 'text' and not is_asked and any(map(records.is_object, text_files.lines(text)[:1])):
    raise ValueError(
      f'{name}: line 1 is a JSON object in a file of prompts, a line each: rename it to end in '
      ".jsonl, or PROMPTS_FORMAT = 'jsonl'; 'text' takes the lines as they are"
    )
  if form == 'text':
    prompts = [Prompt(line) for line in text_files.lines(text) if line.strip()]
  else:
    prompts = _of_rows(_rows(text), name, column, bad_rows)
  return _given(prompts, name)


def _given(prompts: list[Prompt], name: str) -> list[Prompt]:
  if not prompts:
    raise ValueError(f'{name}: no prompts in it')
  return prompts


def _has_rows(name: str) -> bool:
  return row_files.is_table(name) or name.lower().endswith(records.ZIP)


def _table(path: epath.PathLike) -> Iterable[tuple[int, Any]]:
  for number, (_, row) in enumerate(row_files.read(path), 1):
    # Answers are JSON, with the columns of their prompts: dates and bytes become texts.
    yield number, json.loads(json.dumps(row, default=_as_text)) if isinstance(row, dict) else row


def _as_text(value: Any) -> Any:
  if isinstance(value, records.BadValue):
    return {'unreadable': value.detail}
  if isinstance(value, bytes):
    try:
      return value.decode('utf-8')
    except UnicodeDecodeError:  # a picture, say
      return {'bytes': value.hex()}
  return str(value)


def _text(path: epath.PathLike) -> tuple[str, str]:
  if path != STDIN:
    return text_files.read(path), str(path)
  if sys.stdin.isatty():
    logger.info('reading prompts from the terminal, one a line, until Ctrl-D')
  try:
    text = sys.stdin.buffer.read().decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise ValueError(f'standard input: {text_files.not_utf8(error)}') from error
  text_files.refuse_nul(text, 'standard input')
  return text.replace('\r\n', '\n'), 'standard input'


def _form(path: epath.PathLike, text: str) -> Form:
  if not answer_file.is_stream(path):
    name = text_files.plain_name(str(path)).lower()
    return 'jsonl' if name.endswith(('.jsonl', '.json', '.ndjson')) else 'text'
  # One torn row does not make prompts of the others' JSON.
  begins = text.lstrip().startswith(('{', '['))
  return 'jsonl' if begins and any(isinstance(row, dict) for _, row in _rows(text)) else 'text'


def _parsed(line: str) -> Any:
  """JSON, or a `BadRecord`; None in place of numbers that JSON has no words for, such as NaN."""
  try:
    return json.loads(
      line,
      parse_constant=lambda _: None,
      parse_float=_finite,
      object_pairs_hook=json_arrays.unique_keys,
    )
  except (ValueError, RecursionError) as error:
    return records.BadRecord('broken_json', str(error)[:200])


def _finite(digits: str) -> float | None:
  number = float(digits)
  return number if math.isfinite(number) else None


def _rows(text: str) -> Iterable[tuple[int, Any]]:
  """Values by the numbers of their lines, or of a list by their places; `BadRecord`: no JSON."""
  if text.lstrip().startswith('[') and isinstance(values := _parsed(text), list):
    yield from enumerate(values, 1)
    return
  for number, line in enumerate(text.split('\n'), 1):
    if line.strip():
      yield number, _parsed(line)


def _of_rows(
  rows: Iterable[tuple[int, Any]], name: str, column: str | None, bad_rows: BadRows
) -> list[Prompt]:
  prompts: list[Prompt] = []
  bad: list[tuple[int, str]] = []
  ids: dict[str, int] = {}
  for number, row in rows:
    if not isinstance(row, dict):
      why = row.detail if isinstance(row, records.BadRecord) else f'got {type(row).__name__}'
      bad.append((number, f'is torn or no JSON object ({why})'))
      continue
    key = next((key for key in ([column] if column else COLUMNS) if key in row), None)
    if key is None:
      wanted = f'no column {column!r}' if column else f'no column of {list(COLUMNS)}'
      bad.append((number, f'has {wanted}, but {sorted(row)[:8]} (PROMPT_COLUMN names another)'))
    elif not isinstance(row[key], str):
      bad.append((number, f'has no text in {key!r} but {type(row[key]).__name__}'))
    elif text_files.is_blank(row[key]):
      bad.append((number, f'has an empty {key!r}'))
    elif not text_files.is_unicode(row[key]):
      bad.append((number, f'has half of a surrogate pair in {key!r}, which is no text'))
    elif ID in row and (first := ids.setdefault(json.dumps(row[ID]), number)) != number:
      bad.append((number, f'has the {ID} {row[ID]!r} of row {first}'))
    else:
      kept = {name: value for name, value in row.items() if name not in (key, *OWN)}
      prompts.append(Prompt(row[key], kept))
  if bad:
    told = '; '.join(f'row {number} {problem}' for number, problem in bad[:_NAMED])
    more = f'; and {len(bad) - _NAMED} more' if len(bad) > _NAMED else ''
    if bad_rows == 'refuse':
      raise ValueError(f"{name}: {told}{more}: mend them, or BAD_ROWS = 'leave_out' goes without")
    logger.warning('%s: %d rows are left out: %s%s', name, len(bad), told, more)
  return prompts

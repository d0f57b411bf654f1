"""Columns of a benchmark's rows, held to what they must be: text, a number, one of some words."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

logger = logging.getLogger('aya_train.tasks.eval.row_columns')
_left_out: set[str] = set()

Record = Mapping[str, Any]
Located = tuple[str, Record]  # ('/data/xcopa/et/val.et.jsonl row 3', columns)


class EvalDataError(ValueError):
  """A file of a benchmark that is not of its released shape; the message has file and row."""


def text(record: Record, column: str, where: str) -> str:
  """A column that must hold text that is not blank, stripped of nothing.

  Raises:
    EvalDataError: it is not there, no text, or blank.
  """
  value = record.get(column)
  if not isinstance(value, str) or not value.strip():
    got = f'{value!r:.80}' if column in record else f'only {sorted(map(str, record))}'
    raise EvalDataError(f'{where}: expected text in {column!r}, got {got}')
  return value


def integer(record: Record, column: str, where: str, allowed: Sequence[int] | None = None) -> int:
  """A column that must hold a whole number, also as text.

  Raises:
    EvalDataError: it is not there, none, or not among those that are allowed.
  """
  value = record.get(column)
  try:
    if isinstance(value, bool) or value is None or (found := int(value)) != float(value):
      raise ValueError
  except (TypeError, ValueError):
    got = f'{value!r:.80}' if column in record else f'only {sorted(map(str, record))}'
    raise EvalDataError(f'{where}: expected a whole number in {column!r}, got {got}') from None
  if allowed is not None and found not in allowed:
    raise EvalDataError(f'{where}: expected {column!r} among {list(allowed)}, got {found}')
  return found


def choice(record: Record, column: str, where: str, allowed: Sequence[str]) -> str:
  """A column that must hold one of some words, white space around it not counting.

  Raises:
    EvalDataError: it is not there, or holds another.
  """
  value = record.get(column)
  if not isinstance(value, str) or (found := value.strip()) not in allowed:
    got = f'{value!r:.80}' if column in record else f'only {sorted(map(str, record))}'
    raise EvalDataError(f'{where}: expected {column!r} among {list(allowed)}, got {got}')
  return found


def leave_out(where: str, reason: str) -> None:
  """Says once a process that a row of a release is not used."""
  if where not in _left_out:
    _left_out.add(where)
    logger.warning('%s is left out: %s', where, reason)


def unquoted(value: str) -> str:
  """A field of a TSV that was written as CSV: without its quotes, doubled ones as one."""
  inside = value[1:-1]
  is_quoted = len(value) > 1 and value[0] == value[-1] == '"'
  return inside.replace('""', '"') if is_quoted and '"' not in inside.replace('""', '') else value

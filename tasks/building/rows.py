"""The rows that every source becomes, and the checks that every row passes."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aya_train.tasks.building import text_files
from aya_train.tasks.building.read_report import RowProblemError
from aya_train.tasks.languages import language_codes

COLUMNS = ('inputs', 'targets', 'language_code', 'script', 'dataset', 'task_type', 'id')
MAX_CHARACTERS = 200_000

SAMPLE_SEED = b'aya-train sample 1'


class Row(NamedTuple):
  """One example.

  Attributes:
    inputs, targets: text.
    language_code: ISO 639-3, see `language_codes`.
    script: ISO 15924.
    dataset: name of the constituent it comes from.
    task_type: as released, '' where the release says nothing.
    id: unique within its constituent and split.
  """

  inputs: str
  targets: str
  language_code: str
  script: str
  dataset: str
  task_type: str
  id: str


class Place(NamedTuple):
  """Where a row is stored: TFDS config, SeqIO split, and what the split is divided by.

  Rows of one config, split and part make one TFDS split, `<split>_<part>`, or `<split>` where
  the part is ''. `group` is what a limit of rows counts, such as an audited data set.
  """

  config: str
  split: str
  part: str = ''
  group: str = ''


def text(record: Mapping[str, Any], column: str) -> str:
  """The string in a column; '' for null.

  Raises:
    RowProblemError: the column is missing or holds something else.
  """
  if column not in record:
    raise RowProblemError('wrong_columns', f'no column {column!r} among {sorted(record)[:12]}')
  value = record[column]
  if value is None:
    return ''
  if not isinstance(value, str):
    raise RowProblemError(
      'wrong_columns', f'{column!r} should be a string, got {type(value).__name__} {value!r:.60}'
    )
  return value


def optional(record: Mapping[str, Any], *columns: str) -> str:
  """The first of some columns that is there and not null, as a string; '' if none is."""
  for column in columns:
    if (value := record.get(column)) is not None:
      return str(value)
  return ''


def language(code: str, script: str | None = None) -> language_codes.Variety:
  """`language_codes.resolve`, an unknown code being a problem of the row."""
  try:
    return language_codes.resolve(code, script or None)
  except language_codes.UnknownLanguageError as error:
    raise RowProblemError('unknown_language', str(error)) from error


def check(row: Row, max_characters: int = MAX_CHARACTERS) -> None:
  """Refuses what no model should learn from.

  Raises:
    RowProblemError: inputs or targets have nothing to read, hold NUL or a lone surrogate
      (which is no UTF-8), or are longer than `max_characters` together.
  """
  for column in ('inputs', 'targets'):
    value = getattr(row, column)
    if text_files.is_blank(value):
      raise RowProblemError(f'empty_{column}', f'{value!r:.40}')
    check_text(value, column)
  size = len(row.inputs) + len(row.targets)
  if size > max_characters:
    raise RowProblemError('too_long', f'{size:,} characters, over {max_characters:,}')


def check_text(text: str, column: str) -> None:
  """Refuses NUL and lone surrogates.

  Raises:
    RowProblemError: nul, invalid_utf8.
  """
  if '\0' in text:
    raise RowProblemError('nul', f'NUL in {column} at character {text.index(chr(0))}')
  try:
    text.encode('utf-8')
  except UnicodeEncodeError as error:
    raise RowProblemError('invalid_utf8', f'lone surrogate in {column}: {error}') from error


def key(row: Row) -> int:
  """63 bits of a hash of the row without its id: equal rows are duplicates, small ones a sample.

  Taking the rows with the smallest keys draws without replacement, the same on every machine
  and in every order, and another sample in each language.
  """
  joined = '\x1f'.join((row.dataset, row.language_code, row.script, row.inputs, row.targets))
  digest = hashlib.blake2b(joined.encode(), digest_size=8, key=SAMPLE_SEED).digest()
  return int.from_bytes(digest, 'little') >> 1


def encode(row: Row) -> bytes:
  """The row as a serialized tf.train.Example of bytes features, keys sorted."""
  return encode_columns(dict(zip(COLUMNS, row, strict=True)))


def encode_columns(columns: Mapping[str, str | int]) -> bytes:
  """A serialized tf.train.Example: bytes of texts, 64-bit integers; keys sorted.

  Written by hand: it takes a tenth of the time of the protobuf classes, and sorted keys make the
  bytes the same everywhere.
  """
  features = b''.join(
    _field(1, _field(1, name.encode()) + _field(2, _value(value)))
    for name, value in sorted(columns.items())
  )
  return _field(1, features)


def _value(value: str | int) -> bytes:
  if isinstance(value, str):
    return _field(1, _field(1, value.encode()))
  return _field(3, _field(1, _varint(value & (1 << 64) - 1)))


def _field(number: int, payload: bytes) -> bytes:
  return bytes((number << 3 | 2,)) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
  out = bytearray()
  while value > 127:
    out.append(value & 127 | 128)
    value >>= 7
  out.append(value)
  return bytes(out)


def names(values: Sequence[str], first: int = 8) -> str:
  """Some names and the number of the others, for messages."""
  more = len(values) - first
  return ', '.join(values[:first]) + (f' and {more} more' if more > 0 else '')

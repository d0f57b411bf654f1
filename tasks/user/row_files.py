"""Rows of the files that users have, whatever their form: the ending says what each is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from etils import epath

from aya_train import path_facts
from aya_train.tasks.building import records, text_files, tfrecord_files
from aya_train.tasks.user import csv_files


def read(path: epath.PathLike) -> Iterator[tuple[str, Any]]:
  """(place, columns) of each row of a file; a line of plain text is a string.

  JSON lines, JSON arrays, parquet, Arrow, TFRecord, CSV and TSV, compressed or not; any other file
  is text. A record that cannot be read is a `records.BadRecord`.

  Args:
    path: of this machine or a bucket.

  Raises:
    IsADirectoryError: it is a folder.
    read_report.DamagedFileError: a pipe under a name of more than lines of text, at once.
    read_report.DamagedFileError: while reading; see `records.read`, `csv_files.read` and
      `text_files.opened`.
  """
  name = epath.Path(path).name
  if path_facts.is_dir(path):
    raise IsADirectoryError(f'{path} is a folder: give a file in it')
  if is_table(name) or records.is_readable(name):
    text_files.refuse_stream(path)
  if csv_files.is_one(name):
    for number, fields in csv_files.read(path):
      yield f'row {number}', fields
  elif records.is_readable(name) or is_table(name):
    yield from records.read(path)
  else:
    yield from lines(path)


def is_table(name: str) -> bool:
  """Whether a file's name is of rows with columns that are no JSON."""
  name = name.lower()
  binary = name.endswith((records.PARQUET, *records.ARROW)) or tfrecord_files.is_one(name)
  return binary or csv_files.is_one(name)


def lines(path: epath.PathLike) -> Iterator[tuple[str, str]]:
  """(place, line without its end) of each line of a text file."""
  with text_files.opened(path) as file:
    for number, line in enumerate(text_files.raw_lines(file), 1):
      text = text_files.decoded(path, line, f'line {number}')
      yield f'line {number}', text.removesuffix('\n').removesuffix('\r')

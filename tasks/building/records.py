"""Reads released files record by record: parquet, JSON lines, JSON lines in gzip or in zip.

Memory is bounded by a batch of rows or by one line. A file that ends too early is damaged, and
says so before its caller can take it for whole; a bad record inside a sound file is given out as a
`BadRecord`, so that reading goes on.
"""

import dataclasses
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from etils import epath

from aya_train.tasks.building.read_report import DamagedFileError

PARQUET = '.parquet'
JSON_LINES = ('.jsonl', '.json', '.ndjson')
GZIP = '.gz'
ZIP = '.zip'

MAX_LINE_BYTES = 64 << 20
_BATCH_ROWS = 1_024
_LFS_POINTER = b'version https://git-lfs'


@dataclasses.dataclass(frozen=True)
class BadRecord:
  """A record that cannot be read: `kind` and `detail` as in `read_report.RowProblemError`."""

  kind: str
  detail: str


@dataclasses.dataclass(frozen=True)
class FilePart:
  """A piece of a file that is read on its own, so that a large file is many units of work.

  Attributes:
    start: first row group, or first byte.
    end: row group or byte after the last; None for the end of the file. A line belongs to the
      part in which it starts.
  """

  start: int = 0
  end: int | None = None


WHOLE = FilePart()

Found = tuple[str, Any]  # ('row 17' or 'byte 2048', record or BadRecord)


def is_readable(name: str) -> bool:
  """Whether the name's ending is one that `read` knows."""
  return name.endswith((PARQUET, *JSON_LINES, *(s + GZIP for s in JSON_LINES), ZIP))


def read(
  path: epath.PathLike, part: FilePart = WHOLE, columns: Sequence[str] | None = None
) -> Iterator[Found]:
  """Yields ('row N', record) or ('row N', BadRecord); N counts from 1.

  Args:
    path: local, or gs://... .
    part: for JSON lines that do not start at byte 0 the place is 'byte N' instead.
    columns: of a parquet file, those to read; default: all. Of JSON lines, nothing.

  Raises:
    DamagedFileError: the file is truncated, empty of what its ending promises, or a pointer of
      git-lfs. For a zip, gzip or text file this may come after its sound records.
    ValueError: an ending that is not known.
  """
  path = epath.Path(path)
  if path.name.endswith(PARQUET):
    yield from _read_parquet(path, part, columns)
  elif path.name.endswith(ZIP):
    yield from _read_zip(path)
  elif is_readable(path.name):
    yield from _read_lines(path, part)
  else:
    raise ValueError(
      f'{path}: unknown kind of file; expected {PARQUET}, {", ".join(JSON_LINES)}, or with {GZIP}, '
      f'or {ZIP}'
    )


def parts(
  path: epath.PathLike, size: int, rows: int = 100_000, megabytes: int = 64
) -> list[FilePart]:
  """Parts of about `rows` rows (parquet) or `megabytes` (text); one part for gzip and zip.

  Raises:
    DamagedFileError: the parquet file has no readable end.
  """
  path = epath.Path(path)
  if path.name.endswith(PARQUET):
    with _OpenParquet(path) as file:
      metadata = file.metadata
      counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    return _group(counts, rows)
  step = megabytes << 20
  if path.name.endswith((GZIP, ZIP)) or size <= step:
    return [WHOLE]
  starts = list(range(0, size, step))
  return [FilePart(a, b) for a, b in zip(starts, [*starts[1:], None], strict=True)]


def _group(counts: Sequence[int], rows: int) -> list[FilePart]:
  """Consecutive row groups, each part as small as it can be with at least `rows` rows."""
  found, start, held = [], 0, 0
  for i, count in enumerate(counts):
    held += count
    if held >= rows or i == len(counts) - 1:
      found.append(FilePart(start, i + 1))
      start, held = i + 1, 0
  return found or [FilePart(0, 0)]


class _OpenParquet:
  """`with _OpenParquet(path) as file`: a pyarrow ParquetFile, pyarrow's errors in our words."""

  def __init__(self, path: epath.Path):
    self._path = path

  def __enter__(self):
    import pyarrow.parquet as pq

    self._raw = self._path.open('rb')
    _refuse_pointer(self._path, self._raw)
    try:
      self._file = pq.ParquetFile(self._raw)
    except Exception as error:
      self._raw.close()
      raise DamagedFileError(f'{self._path}: not a whole parquet file ({_line(error)})') from error
    return self._file

  def __exit__(self, kind, error, traceback):
    import pyarrow

    self._raw.close()
    if isinstance(error, pyarrow.ArrowException | OSError):
      raise DamagedFileError(f'{self._path}: damaged inside ({_line(error)})') from error


def _line(error: BaseException) -> str:
  return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _refuse_pointer(path: epath.Path, file: BinaryIO) -> None:
  start = file.read(len(_LFS_POINTER))
  file.seek(0)
  if not start:
    raise DamagedFileError(f'{path}: empty file')
  if start == _LFS_POINTER:
    raise DamagedFileError(f'{path}: a git-lfs pointer, not the data; run `git lfs pull`')


def _read_parquet(
  path: epath.Path, part: FilePart, columns: Sequence[str] | None
) -> Iterator[Found]:
  with _OpenParquet(path) as file:
    names = file.schema_arrow.names
    if columns is not None and (missing := [c for c in columns if c not in names]):
      raise DamagedFileError(f'{path}: lacks the columns {missing}; it has {names}')
    groups = list(range(file.metadata.num_row_groups))[part.start : part.end]
    row = sum(file.metadata.row_group(i).num_rows for i in range(part.start)) + 1
    wanted = None if columns is None else [n for n in names if n in columns]
    for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=wanted):
      for record in _records_of(batch):
        yield f'row {row}', record
        row += 1


def _records_of(batch: Any) -> Iterator[Any]:
  try:
    yield from batch.to_pylist()
    return
  except UnicodeDecodeError:
    pass  # find the row: one value that is not UTF-8 spoils the conversion of all
  for i in range(batch.num_rows):
    try:
      yield from batch.slice(i, 1).to_pylist()
    except UnicodeDecodeError as error:
      yield BadRecord('invalid_utf8', _line(error))


def _read_lines(path: epath.Path, part: FilePart) -> Iterator[Found]:
  with path.open('rb') as raw:
    _refuse_pointer(path, raw)
    if not path.name.endswith(GZIP):
      yield from _lines(path, raw, part)
      return
    try:
      with gzip.open(raw, 'rb') as unzipped:
        yield from _lines(path, io.BufferedReader(unzipped), WHOLE)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
      raise DamagedFileError(f'{path}: not a whole gzip file ({_line(error)})') from error


def _read_zip(path: epath.Path) -> Iterator[Found]:
  """Records of the files of JSON lines in a zip, in their order there, counted through."""
  with path.open('rb') as raw:
    _refuse_pointer(path, raw)
    try:
      with zipfile.ZipFile(raw) as archive:
        # What macOS adds has the endings of the files that it describes.
        names = [n for n in archive.namelist() if not n.startswith('__MACOSX/')]
        names = [n for n in names if n.endswith(JSON_LINES)]
        if not names:
          raise DamagedFileError(f'{path}: no file of JSON lines in it')
        number = 0
        for name in names:
          with archive.open(name) as file:
            for _, record in _lines(
              path / name, io.BufferedReader(cast(io.RawIOBase, file)), WHOLE
            ):
              number += 1
              yield f'row {number}', record
    except (EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
      raise DamagedFileError(f'{path}: not a whole zip file ({_line(error)})') from error


def _lines(path: epath.Path, file: BinaryIO, part: FilePart) -> Iterator[Found]:
  if part.start:
    file.seek(part.start - 1)
    file.readline()  # the rest of a line that belongs to the part before
    position = file.tell()
  else:
    position = 0
  number = 0
  while part.end is None or position < part.end:
    where = f'byte {position}' if part.start else f'row {number + 1}'
    line = file.readline(MAX_LINE_BYTES)
    if not line:
      return
    number += 1
    position += len(line)
    if len(line) == MAX_LINE_BYTES and not line.endswith(b'\n'):
      position += _skip_line(file)
      yield where, BadRecord('too_long', f'a line of over {MAX_LINE_BYTES:,} bytes')
      continue
    if not line.strip():
      continue
    record = parse_line(line.removeprefix(b'\xef\xbb\xbf') if number == 1 else line)
    if isinstance(record, BadRecord) and not line.endswith(b'\n'):
      raise DamagedFileError(f'{path}: ends in the middle of a record, at {where}')
    yield where, record


def _skip_line(file: BinaryIO) -> int:
  skipped = 0
  while chunk := file.readline(1 << 20):
    skipped += len(chunk)
    if chunk.endswith(b'\n'):
      break
  return skipped


def parse_line(line: bytes) -> Any:
  """The JSON object or array of a line, or a `BadRecord`; never raises."""
  try:
    record = json.loads(line.decode('utf-8'))
  except UnicodeDecodeError as error:
    return BadRecord('invalid_utf8', _line(error))
  except (ValueError, RecursionError) as error:
    return BadRecord('broken_json', _line(error))
  if not isinstance(record, dict | list):
    return BadRecord('wrong_columns', f'expected a JSON object, got {type(record).__name__}')
  return record

"""Reads released files record by record: parquet, Arrow, TFRecord, JSON lines or a JSON array.

Text may be compressed or in a zip.

Memory is bounded by a batch of rows, by one line or by one element of an array. A file that ends
too early is damaged, and says so before its caller can take it for whole; a bad record inside a
sound file is given out as a `BadRecord`, so that reading goes on.
"""

import codecs
import dataclasses
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from etils import epath

from aya_train import path_facts
from aya_train.tasks.building import json_arrays, text_files, tfrecord_files
from aya_train.tasks.building.read_report import DamagedFileError

PARQUET = '.parquet'
ARROW = ('.arrow', '.feather')
JSON_LINES = ('.jsonl', '.json', '.ndjson')
GZIP = '.gz'
ZIP = '.zip'

MAX_LINE_BYTES = 64 << 20
_BATCH_ROWS = 1_024


@dataclasses.dataclass(frozen=True)
class BadRecord:
  """A record that cannot be read: `kind` and `detail` as in `read_report.RowProblemError`."""

  kind: str
  detail: str


@dataclasses.dataclass(frozen=True)
class BadValue:
  """A value that cannot be read, in a record whose others can; attributes as of `BadRecord`."""

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
  name = name.lower()
  return name.endswith((PARQUET, ZIP)) or text_files.plain_name(name).endswith(JSON_LINES)


def read(
  path: epath.PathLike,
  part: FilePart = WHOLE,
  columns: Sequence[str] | None = None,
  *,
  records_are_lists: bool = False,
) -> Iterator[Found]:
  """Yields ('row N', record) or ('row N', BadRecord); N counts from 1.

  Args:
    path: local, or gs://... .
    part: for JSON lines that do not start at byte 0 the place is 'byte N' instead.
    columns: of a parquet file, those to read, all of which a record needs; default: all that
      there are, and one that cannot be read is a `BadValue`. Of JSON lines, nothing.
    records_are_lists: a JSON record may be a list itself.

  Raises:
    DamagedFileError: the file is truncated, empty of what its ending promises, or a pointer of
      git-lfs; a column is there twice; or see `text_files.opened`. For a compressed, zip or text
      file this may come after its sound records.
    ValueError: an ending that is not known.
  """
  path = epath.Path(path)
  name = path.name.lower()
  if name.endswith(PARQUET):
    yield from _read_parquet(path, part, columns)
  elif name.endswith(ARROW):
    yield from _read_arrow(path)
  elif tfrecord_files.is_one(name):
    yield from _read_tfrecord(path)
  elif name.endswith(ZIP):
    yield from _read_zip(path)
  elif is_readable(name):
    yield from _read_lines(path, part, records_are_lists)
  else:
    raise ValueError(
      f'{path}: unknown kind of file; expected {PARQUET}, .tfrecord, {", ".join(JSON_LINES)}, or '
      f'with {", ".join(text_files.COMPRESSED)}, or {ZIP}'
    )


def parts(
  path: epath.PathLike, size: int, rows: int = 100_000, megabytes: int = 64
) -> list[FilePart]:
  """Parts of about `rows` rows (parquet) or `megabytes` (text); one for what is compressed or zip.

  Raises:
    DamagedFileError: the parquet file has no readable end.
  """
  path = epath.Path(path)
  if path.name.lower().endswith(PARQUET):
    with _OpenParquet(path) as file:
      metadata = file.metadata
      counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    return _group(counts, rows)
  step = megabytes << 20
  if text_files.is_compressed(path.name) or path.name.lower().endswith(ZIP) or size <= step:
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
  text = str(error)
  return text.partition('\n')[0][:200] if text else type(error).__name__


def _refuse_pointer(path: epath.Path, file: BinaryIO) -> None:
  head = file.read(64)
  file.seek(0)
  if not head:
    raise DamagedFileError(f'{path}: empty file')
  text_files.refuse_pointer(path, head)


def _read_parquet(
  path: epath.Path, part: FilePart, columns: Sequence[str] | None
) -> Iterator[Found]:
  with _OpenParquet(path) as file:
    names = file.schema_arrow.names
    _refuse_repeated(path, names)
    if columns is not None and (missing := [c for c in columns if c not in names]):
      raise DamagedFileError(f'{path}: lacks the columns {missing}; it has {names}')
    groups = list(range(file.metadata.num_row_groups))[part.start : part.end]
    row = sum(file.metadata.row_group(i).num_rows for i in range(part.start)) + 1
    wanted = None if columns is None else [n for n in names if n in columns]
    for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=wanted):
      for record in _records_of(batch, are_needed=columns is not None):
        yield f'row {row}', record
        row += 1


def _records_of(batch: Any, *, are_needed: bool = False) -> Iterator[Any]:
  """The rows of a batch; a value that cannot be read makes a row bad if all `are_needed`."""
  try:
    yield from batch.to_pylist()
    return
  except (ValueError, OverflowError, ImportError):
    pass  # find the values: one that is not UTF-8, or no date, spoils the conversion of all
  columns = {name: _values_of(batch.column(name)) for name in batch.schema.names}
  for values in zip(*columns.values(), strict=True):
    record = dict(zip(columns, values, strict=True))
    bad = [(name, value) for name, value in record.items() if isinstance(value, BadValue)]
    if bad and are_needed:
      name, value = bad[0]
      yield BadRecord(value.kind, f'column {name!r}: {value.detail}')
    else:
      yield record


def _values_of(column: Any) -> list[Any]:
  try:
    return column.to_pylist()
  except (ValueError, OverflowError, ImportError):
    return [_value_of(column[i]) for i in range(len(column))]


def _value_of(scalar: Any) -> Any:
  try:
    return scalar.as_py()
  except UnicodeDecodeError as error:
    return BadValue('invalid_utf8', text_files.not_utf8(error))
  except (ValueError, OverflowError, ImportError) as error:
    return BadValue('wrong_columns', _line(error))


def _read_arrow(path: epath.Path) -> Iterator[Found]:
  """Rows of an Arrow file, or of an Arrow stream, which is what Hugging Face's `datasets` saves."""
  import pyarrow as pa

  with path.open('rb') as raw:
    _refuse_pointer(path, raw)
    row = 0
    try:
      try:
        reader = pa.ipc.open_file(raw)
        batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
      except pa.ArrowInvalid:
        raw.seek(0)
        batches = iter(pa.ipc.open_stream(raw))
      for batch in batches:
        _refuse_repeated(path, batch.schema.names)
        for record in _records_of(batch):
          row += 1
          yield f'row {row}', record
    except (pa.ArrowException, OSError) as error:
      raise DamagedFileError(f'{path}: not a whole Arrow file ({_line(error)})') from error


def _read_tfrecord(path: epath.Path) -> Iterator[Found]:
  with path.open('rb') as raw:
    _refuse_pointer(path, raw)
  for row, record in enumerate(tfrecord_files.read(path), 1):
    yield f'row {row}', record


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
            lines = io.BufferedReader(cast(io.RawIOBase, file))
            for _, record in _lines_from(path / name, lines, WHOLE, 0):
              number += 1
              yield f'row {number}', record
    except (EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
      raise DamagedFileError(f'{path}: not a whole zip file ({_line(error)})') from error


def _refuse_repeated(path: epath.Path, names: Sequence[str]) -> None:
  if repeated := sorted({name for name in names if names.count(name) > 1}):
    raise DamagedFileError(f'{path}: the columns {repeated} are there twice, of {list(names)}')


def _read_lines(path: epath.Path, part: FilePart, records_are_lists: bool) -> Iterator[Found]:
  with text_files.opened(path) as file:
    if not file.peek(1) and not path_facts.size(path):
      raise DamagedFileError(f'{path}: empty file')
    is_array = _is_array(path, file, records_are_lists)
    if is_array or _is_transcoded(path):
      if part.start:
        return  # the first part has it all
      part = WHOLE
    if not is_array:
      yield from _lines_from(path, file, WHOLE, 0) if part == WHOLE else _lines(path, part)
      return
  with text_files.opened(path) as file:
    number = 0
    try:
      for number, value in enumerate(json_arrays.elements(file, MAX_LINE_BYTES), 1):
        yield f'row {number}', _checked(value)
    except json_arrays.BrokenArrayError as error:
      raise DamagedFileError(f'{path}: a JSON array that cannot be read, {error}') from error


def _is_transcoded(path: epath.Path) -> bool:
  if text_files.is_compressed(path.name):
    return False
  with path.open('rb') as file:
    return bool(text_files.wide_encoding(file.read(4)))


def _is_array(path: epath.Path, file: Any, records_are_lists: bool) -> bool:
  """Whether a file is one JSON array of records, and not lines of JSON.

  Where a record may be a list, a file of one line is an array if all that it holds are lists.
  """
  head = bytes(file.peek(1 << 10)).lstrip()
  if head and not head.startswith(b'['):
    return False
  with text_files.opened(path) as again:
    while (first := again.readline(MAX_LINE_BYTES)) and not first.strip():
      pass
    if not first.lstrip().startswith(b'['):
      return False
    if len(first) == MAX_LINE_BYTES:
      return True
    value = parse_line(first)
    if isinstance(value, BadRecord):
      return value.kind != 'invalid_utf8'
    while (line := again.readline(MAX_LINE_BYTES)) and not line.strip():
      pass
    if line:
      return False
    return not records_are_lists or all(isinstance(element, list) for element in value)


def _lines(path: epath.Path, part: FilePart) -> Iterator[Found]:
  """Lines of a part of an uncompressed file; bytes count as it lies there, its mark included."""
  with path.open('rb') as file:
    if part.start:
      file.seek(part.start - 1)
      file.readline()  # the rest of a line that belongs to the part before
    yield from _lines_from(path, file, part, file.tell())


def _lines_from(path: epath.Path, file: Any, part: FilePart, position: int) -> Iterator[Found]:
  number = 0
  while part.end is None or position < part.end:
    where = f'byte {position}' if part.start else f'row {number + 1}'
    line = file.readline(MAX_LINE_BYTES)
    if not line:
      return
    number += 1
    size = len(line)
    if not position:
      line = line.removeprefix(codecs.BOM_UTF8)
    position += size
    if size == MAX_LINE_BYTES and not line.endswith(b'\n'):
      position += _skip_line(file)
      yield where, BadRecord('too_long', f'a line of over {MAX_LINE_BYTES:,} bytes')
      continue
    if not line.strip():
      continue
    record = parse_line(line)
    cut = isinstance(record, BadRecord) and record.kind in ('broken_json', 'invalid_utf8')
    if cut and not line.endswith(b'\n'):
      what = f'{path}: ends in the middle of a record, at {where}'
      if record.kind == 'invalid_utf8':
        what = f'{path}, {where}'
      raise DamagedFileError(f'{what}: {record.detail}')
    yield where, record


def _skip_line(file: Any) -> int:
  skipped = 0
  while chunk := file.readline(1 << 20):
    skipped += len(chunk)
    if chunk.endswith(b'\n'):
      break
  return skipped


def parse_line(line: bytes) -> Any:
  """The JSON object or array of a line, or a `BadRecord`; never raises."""
  try:
    record = json.loads(line.decode('utf-8'), object_pairs_hook=json_arrays.unique_keys)
  except UnicodeDecodeError as error:
    return BadRecord('invalid_utf8', text_files.not_utf8(error))
  except json_arrays.RepeatedNameError as error:
    return BadRecord('wrong_columns', str(error))
  except (ValueError, RecursionError) as error:
    detail = _line(error)
    if line.strip() in (b'{', b'{"'):
      detail += '; a file is one object a line, or one array of objects'
    elif b'\r' in line.strip():
      detail += "; its lines end in carriage returns, which `tr '\\r' '\\n'` turns into newlines"
    return BadRecord('broken_json', detail)
  return _checked(record)


def is_object(line: str) -> bool:
  """Whether a line of a text is a JSON object."""
  return line.lstrip().startswith('{') and isinstance(
    parse_line(line.encode('utf-8', 'replace')), dict
  )


def _checked(record: Any) -> Any:
  if not isinstance(record, dict | list):
    return BadRecord('wrong_columns', f'expected a JSON object, got {type(record).__name__}')
  return record

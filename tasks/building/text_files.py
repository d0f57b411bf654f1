"""Files of text as users write them: compressed or not, with a byte-order mark, UTF-8 or UTF-16.

What comes out is UTF-8 without a byte-order mark. Lines end at '\\n' or '\\r\\n' alone; in a file
without any '\\n', at '\\r', as those of the old Macintosh do. U+2028, U+0085 and the like are text.
Whatever else a file holds is refused by its name.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import os
import tomllib
import unicodedata
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from etils import epath

from aya_train import path_facts
from aya_train.tasks.building.read_report import DamagedFileError

# Endings of compressed files: the name of the form, and how such a file begins.
_FORMS = {
  '.gz': ('gzip', b'\x1f\x8b'),
  '.bz2': ('bzip2', b'BZh'),
  '.xz': ('xz', b'\xfd7zXZ\x00'),
  '.zst': ('zstd', b'\x28\xb5\x2f\xfd'),
}
COMPRESSED = tuple(_FORMS)
_MARKS = (  # UTF-32's first: the little-endian one begins with UTF-16's
  (codecs.BOM_UTF32_LE, 'utf-32-le'),
  (codecs.BOM_UTF32_BE, 'utf-32-be'),
  (codecs.BOM_UTF16_LE, 'utf-16-le'),
  (codecs.BOM_UTF16_BE, 'utf-16-be'),
)
_LFS_POINTER = b'version https://git-lfs'
_NUL = 'a NUL; is this a file of text in UTF-8?'
_BLOCK = 1 << 16
_HEAD = 512

_TABLES = {b'PAR1': '.parquet', b'ARROW1': '.arrow'}  # tables by their first bytes
_ZIP = b'PK\x03\x04'  # spreadsheets are such
_TAR = b'ustar'  # behind the name and the numbers of its first file


def plain_name(name: str) -> str:
  """A file's name without the ending that says how it is compressed."""
  stem, ending = os.path.splitext(name)
  return stem if ending.lower() in _FORMS else name


def is_compressed(name: str) -> bool:
  return name.lower().endswith(COMPRESSED)


@contextlib.contextmanager
def opened(path: epath.PathLike) -> Iterator[io.BufferedReader]:
  """The bytes of a file, decompressed, as UTF-8 without a byte-order mark; not to be sought in.

  That they are UTF-8 is for the reader to see (`decoded`).

  Raises:
    DamagedFileError: at once or while reading: not the compressed form of its ending, or cut off;
      compressed without such an ending; UTF-16 that is not whole or has no byte-order mark; a
      pointer of git-lfs.
    IsADirectoryError: it is a folder.
  """
  path = epath.Path(os.fspath(path))
  if path_facts.is_dir(path):
    raise IsADirectoryError(f'{path} is a folder: give a file in it')
  with path.open('rb') as raw:
    file: Any = io.BufferedReader(_Decompressed(path, raw)) if is_compressed(path.name) else raw
    if not hasattr(file, 'peek'):  # of a bucket
      file = io.BufferedReader(_Blocks(file))
    head = bytes(file.peek(_HEAD))[:_HEAD]
    refuse_pointer(path, head)
    _refuse_compressed(path, head)
    if head.startswith(codecs.BOM_UTF8):
      file.read(len(codecs.BOM_UTF8))
    elif encoding := wide_encoding(head):
      file.read(len(next(mark for mark, name in _MARKS if name == encoding)))
      file = io.BufferedReader(_Transcoded(path, file, encoding))
    elif head[:64].count(0) * 4 >= len(head[:64]) > 1:
      raise DamagedFileError(
        f'{path}: begins with {head[:8]!r}, which looks like UTF-16 without a byte-order mark; '
        'save it as UTF-8'
      )
    yield file


def refuse_stream(path: epath.PathLike) -> None:
  """DamagedFileError for a pipe or a device: who opens it a second time waits, or finds nothing."""
  name = os.fspath(path)
  if '://' not in name and os.path.exists(name) and not os.path.isfile(name):
    raise DamagedFileError(
      f'{name} is a pipe or a device, which can be read once at most, and data is read several '
      'times: write it to a file'
    )


def wide_encoding(head: bytes) -> str:
  """'utf-16-le' or another of UTF-16 and UTF-32, by the byte-order mark; '' if there is none."""
  return next((name for mark, name in _MARKS if head.startswith(mark)), '')


def refuse_pointer(path: epath.Path, head: bytes) -> None:
  """DamagedFileError if a file's first bytes are those of a git-lfs pointer."""
  if head.startswith(_LFS_POINTER):
    raise DamagedFileError(f'{path}: a git-lfs pointer, not the data; run `git lfs pull`')


def _refuse_compressed(path: epath.Path, head: bytes) -> None:
  for ending, (form, magic) in _FORMS.items():
    if head.startswith(magic) and not (magic == b'BZh' and not head[3:4].isdigit()):
      inside = ' inside' if is_compressed(path.name) else ''
      raise DamagedFileError(f'{path}: holds {form}{inside}; rename it to end in {ending}')
  if head.startswith(_ZIP):
    raise DamagedFileError(
      f'{path}: is no text but a zip file, as a spreadsheet (.xlsx, .ods) is one; save a '
      'spreadsheet as CSV, and name a zip of JSON lines .zip'
    )
  if head[257:262] == _TAR:
    raise DamagedFileError(f'{path}: is no text but a tar archive; unpack it and name its files')
  for magic, ending in _TABLES.items():
    if head.startswith(magic):
      raise DamagedFileError(f'{path}: is no text but {ending[1:]}; rename it to end in {ending}')


def decoded(path: epath.PathLike, line: bytes, place: str) -> str:
  """A line, or other bytes, of a file as text.

  Args:
    path: of the file, for the message.
    line: UTF-8.
    place: such as 'row 3', for the message.

  Raises:
    DamagedFileError: it is not UTF-8, the message has the bytes; or has a NUL.
  """
  try:
    text = line.decode('utf-8')
  except UnicodeDecodeError as error:
    raise DamagedFileError(f'{path}, {place}: {not_utf8(error)}') from error
  if '\0' in text:
    raise DamagedFileError(f'{path}, {place}: {_NUL}')
  return text


def raw_lines(file: BinaryIO) -> Iterator[bytes]:
  """Lines of what `opened` gives, with their ends."""
  first = file.readline()
  if first.endswith(b'\n') or b'\r' not in first:
    yield from filter(None, [first])
    yield from file
    return
  *ended, last = first.split(b'\r')
  yield from (line + b'\r' for line in ended)
  yield from filter(None, [last])


def refuse_nul(text: str, name: str) -> None:
  """DamagedFileError with the line if a text has a NUL."""
  if (nul := text.find('\0')) >= 0:
    line = text.count('\n', 0, nul) + 1
    raise DamagedFileError(f'{name}, line {line}: {_NUL}')


def is_unicode(text: str) -> bool:
  """Whether UTF-8 can hold a text; it cannot hold halves of surrogate pairs."""
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return True


def not_utf8(error: UnicodeDecodeError) -> str:
  """What was found, and what to do."""
  around = error.object[max(0, error.start - 8) : error.end + 8]
  return (
    f'byte 0x{error.object[error.start]:02x} in {around!r} is not UTF-8; if it was saved as '
    'Windows-1252, `iconv -f WINDOWS-1252 -t UTF-8` mends it'
  )


def read(path: epath.PathLike) -> str:
  """The text of a whole file; every line ends in '\\n'.

  Raises:
    DamagedFileError: see `opened`; bytes that are not UTF-8, or NUL, with their line.
  """
  with opened(path) as file:
    content = file.read()
  try:
    text = content.decode('utf-8')
  except UnicodeDecodeError as error:
    line = content.count(b'\n', 0, error.start) + 1
    raise DamagedFileError(f'{path}, line {line}: {not_utf8(error)}') from error
  refuse_nul(text, os.fspath(path))
  return text.replace('\r\n', '\n')


def toml(path: epath.PathLike) -> dict[str, Any]:
  """The keys of a TOML file.

  Raises:
    DamagedFileError: see `read`.
    ValueError: it is no TOML; the message has the file.
  """
  text = read(path)
  try:
    return tomllib.loads(text)
  except (tomllib.TOMLDecodeError, RecursionError) as error:
    raise ValueError(f'{path} is no TOML file: {error}') from None


def lines(text: str) -> list[str]:
  """Lines without their ends, and no empty one at the end; see above for what ends a line."""
  if '\n' not in text:
    text = text.replace('\r', '\n')
  found = [line.removesuffix('\r') for line in text.split('\n')]
  return found if found[-1] else found[:-1]


class _Blocks(io.RawIOBase):
  """Bytes of something that has `read`."""

  def __init__(self, file: Any):
    self._file = file
    self._left = b''

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: Any) -> int:
    if not self._left:
      self._left = self._next()
    size = min(len(buffer), len(self._left))
    buffer[:size] = self._left[:size]
    self._left = self._left[size:]
    return size

  def _next(self) -> bytes:
    """The next bytes, b'' at the end."""
    return self._file.read(_BLOCK)


class _Decompressed(_Blocks):
  """The content of a compressed file; what the libraries raise is told with the file's name."""

  def __init__(self, path: epath.Path, raw: BinaryIO):
    self._path = path
    self._form, magic = _FORMS[path.suffix.lower()]
    head = raw.read(len(magic))
    if head != magic:
      raise DamagedFileError(
        f'{path}: no {self._form} file: it '
        + (f'begins with {head!r}' if head else 'is empty')
        + '. Download it again, or rename it if it is not compressed'
      )
    raw.seek(0)
    super().__init__(_decompressor(path.suffix.lower(), raw))

  def _next(self) -> bytes:
    try:
      return self._file.read(_BLOCK)
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
      if isinstance(error, OSError) and error.errno is not None:
        raise  # of the disk
      detail = str(error).partition('\n')[0][:200]
      raise DamagedFileError(f'{self._path}: not a whole {self._form} file ({detail})') from error


def _decompressor(ending: str, raw: BinaryIO) -> Any:
  if ending == '.gz':
    return gzip.GzipFile(fileobj=raw)
  if ending == '.bz2':
    return _Streams(raw, bz2.BZ2Decompressor)
  if ending == '.xz':
    return _Streams(raw, lzma.LZMADecompressor)
  import pyarrow as pa

  return pa.CompressedInputStream(pa.PythonFile(raw, mode='r'), 'zstd')


class _Streams:
  """Content of one or more compressed streams.

  The libraries' own files end without a word where a later stream is damaged.
  """

  def __init__(self, raw: BinaryIO, decompressor: Any):
    self._raw, self._new = raw, decompressor
    self._stream = decompressor()

  def read(self, size: int) -> bytes:
    """At most `size` bytes, b'' at the end; EOFError, OSError or LZMAError of a damaged file."""
    while True:
      if self._stream.eof:
        if not (rest := self._beginning()):
          return b''
        self._stream = self._new()
      else:
        rest = self._raw.read(_BLOCK) if self._stream.needs_input else b''
        if not rest and self._stream.needs_input:
          raise EOFError('it ends before its end is marked')
      if content := self._stream.decompress(rest, size):
        return content

  def _beginning(self) -> bytes:
    """The first bytes of the next stream; NUL may stand before it in xz."""
    rest = self._stream.unused_data
    while not (rest := rest.lstrip(b'\0')):
      if not (rest := self._raw.read(_BLOCK)):
        return b''
    return rest


class _Transcoded(_Blocks):
  """UTF-8 of bytes in another encoding."""

  def __init__(self, path: epath.Path, file: Any, encoding: str):
    super().__init__(file)
    self._path, self._encoding = path, encoding
    self._decoder = codecs.getincrementaldecoder(encoding)('strict')
    self._ended = False

  def _next(self) -> bytes:
    while not self._ended:
      block = self._file.read(_BLOCK)
      self._ended = not block
      try:
        if text := self._decoder.decode(block, final=self._ended):
          return text.encode('utf-8')
      except UnicodeDecodeError as error:
        raise DamagedFileError(
          f'{self._path}: not whole {self._encoding.upper()} ({error.reason})'
        ) from error
    return b''


def is_blank(text: str) -> bool:
  """Whether a text has nothing to read: white space, and characters of no width such as U+200B."""
  return all(x.isspace() or unicodedata.category(x) in ('Cf', 'Cc') for x in text)

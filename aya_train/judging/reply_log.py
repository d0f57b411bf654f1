"""Files that grow by a line a record and survive a kill: replies that were paid, and verdicts."""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

from etils import epath

from aya_train import destinations, disk_writes, json_lines

_REMOTE_SECONDS = 30.0


def line(record: Mapping[str, Any]) -> bytes:
  """A record as a line of UTF-8."""
  return (json.dumps(record, ensure_ascii=False) + '\n').encode('utf-8', 'replace')


class GrowingFile:
  """A file of JSON lines; a record that `append` has returned from is on the disk.

  In a bucket, where nothing can be appended, the whole is written anew twice a minute and at the
  end. One process at a time writes a file of this machine.
  """

  def __init__(self, path: epath.PathLike):
    """Opens it for more records.

    Raises:
      OSError: it cannot be written, or another process writes it.
    """
    self._path = epath.Path(path)
    self._file: BinaryIO | None = None
    self._written = time.monotonic()
    self._content = b''
    if destinations.is_local(path):
      os.makedirs(self._path.parent, exist_ok=True)
      self._file = open(os.fspath(self._path), 'ab')  # noqa: SIM115
      try:
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        self._file.close()
        raise OSError(
          f'{path} is being written by another process: let it end, or give another --output'
        ) from None
      json_lines.mend_end(path)
      if self._file.tell() != os.path.getsize(path):  # mended: it is another file now
        self._file.close()
        self._file = open(os.fspath(self._path), 'ab')  # noqa: SIM115
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif self._path.exists():
      self._content = self._path.read_bytes()

  def append(self, record: Mapping[str, Any]) -> None:
    """Adds a record."""
    if self._file is None:
      self._content += line(record)
      if time.monotonic() - self._written > _REMOTE_SECONDS:
        self._write_remote()
      return
    with disk_writes.named(self._path):
      self._file.write(line(record))
      self._file.flush()
      os.fsync(self._file.fileno())

  def close(self) -> None:
    """Lets go of it."""
    if self._file is not None:
      self._file.close()
    else:
      self._write_remote()

  def _write_remote(self) -> None:
    self._path.write_bytes(self._content)
    self._written = time.monotonic()


def write_whole(path: epath.PathLike, records: Iterable[Mapping[str, Any]]) -> None:
  """Writes a file of records whole, or leaves the one that is there."""
  replace(path, b''.join(map(line, records)))


def replace(path: epath.PathLike, content: bytes) -> None:
  """The same for any content."""
  path = epath.Path(path)
  if not destinations.is_local(path):
    path.write_bytes(content)
    return
  from aya_train.tasks import storage  # TensorFlow comes with it

  storage.remove_leftovers(path.parent)
  partial = storage.temporary(path, 'partial')
  try:
    with disk_writes.named(path), open(partial, 'wb') as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)


class Replies:
  """Replies by the hash of what was asked, in a file beside the verdicts."""

  def __init__(self, path: epath.PathLike, types: Mapping[str, type] | None = None):
    """Reads what is there; torn lines, and records that lack something, are left out.

    Args:
      path: of the file.
      types: what each record holds beside its key, which is a text.

    Raises:
      OSError: see `GrowingFile`.
    """
    needed = {'key': str, **(types or {})}

    def fits(record: Any) -> bool:
      return isinstance(record, dict) and all(
        isinstance(record.get(name), kind) for name, kind in needed.items()
      )

    self._file = GrowingFile(path)
    self._found: dict[str, Mapping[str, Any]] = {}
    if epath.Path(path).exists():
      for _, record in json_lines.read(path, fits):
        self._found[record['key']] = record

  def get(self, key: str) -> Mapping[str, Any] | None:
    """The reply to what has this hash."""
    return self._found.get(key)

  def forget(self, key: str) -> None:
    """Has what is asked under this hash asked again; a later reply takes its place."""
    self._found.pop(key, None)

  def add(self, record: Mapping[str, Any]) -> None:
    """Keeps a reply, on the disk before this returns."""
    self._file.append(record)
    self._found[record['key']] = record

  def close(self) -> None:
    """Lets go of the file."""
    self._file.close()

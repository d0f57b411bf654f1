"""Answers as JSON lines, written as they come, so that a process that is killed goes on later.

Questions have numbers, from 0, and each record says its own as `index`. While the work lasts, the
file holds the records in the order in which they came; at the end it is put into the order of the
questions, at once. Beside it `NAME.run.json` says what the answers depend on: a process that would
answer otherwise does not go on in the file.

Objects of a bucket cannot be appended to. There the records lie in `NAME.parts/` until all are
there. A stream (standard output, a pipe) gets them in the order of the questions, each as soon as
those before it are there; nothing can go on in it.
"""

import contextlib
import fcntl
import io
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from etils import epath

from aya_train import destinations, disk_writes, hosts, path_facts
from aya_train.tasks import storage

logger = logging.getLogger(__name__)
ABOUT = '.run.json'  # after the file's name
PARTS = '.parts'
STDOUT = '-'
INDEX = 'index'
SYNC_SECONDS = 5.0  # a machine that loses its power loses so much at most
PART_SECONDS = 10.0  # and of a bucket a process that is killed
_LONGEST = 80  # characters of a value in a message


class OtherAnswersError(ValueError):
  """The file holds answers of something else."""


def _index(record: Mapping[str, Any]) -> int | None:
  return record[INDEX]


class AnswerFile:
  """The records of one set of questions; a context that closes it, finished or not.

  On several hosts the first one alone reads and writes; all make one, and call `finish`.

  Attributes:
    done: numbers of the questions that earlier processes answered, on every host.
    complete: whether those are all of them.
    is_stream: whether nothing can go on in it.
  """

  def __init__(
    self,
    path: epath.PathLike,
    about: Mapping[str, Any],
    *,
    num_questions: int,
    records_each: int = 1,
    number: Callable[[Mapping[str, Any]], int | None] = _index,
    name: str = 'OUTPUT_FILE',
    overwrite: bool = False,
    way_out: str = 'give another file, or OVERWRITE = True',
  ):
    """Opens what is there to go on, or begins anew.

    Args:
      path: of this machine, a bucket, or a stream ('-' is standard output).
      about: all that the answers depend on, JSON by a name that people know.
      num_questions: how many there are.
      records_each: records of a question, such as samples; a question with fewer is not done.
      number: which question a record belongs to, None if to none; its `index` by default.
      name: what the user calls the file.
      overwrite: begin anew where the file holds answers of something else.
      way_out: what to do about these, for the message.

    Raises:
      OtherAnswersError: the file is there, is not of the same, and not to be overwritten.
      OSError: it cannot be written, or another process writes to it.
    """
    self.is_stream = is_stream(path)
    self._number = number
    self._path = epath.Path(os.fspath(path))
    self._about = json.loads(json.dumps(about))
    self._count, self._each, self._name = num_questions, records_each, name
    self._records: list[dict[str, Any]] = []  # of a bucket those that are in no part
    self._waiting: dict[int, list[Mapping[str, Any]]] = {}  # of a stream
    self._next, self._part = 0, 0
    self._finished = self._closed = False
    self._file: Any = None
    self._written_at = time.monotonic()
    done: list[list[int]] = []
    with hosts.together():
      if hosts.is_first():
        done = _ranges(self._open(overwrite, way_out))
    self.done = frozenset(i for low, high in hosts.first_says(done) for i in range(low, high))
    self.complete = len(self.done) == num_questions

  def _open(self, overwrite: bool, way_out: str) -> set[int]:
    if self.is_stream:
      self._file = _stream(self._path)
      return set()
    destinations.check_file(self._path, self._name)
    if self._is_local:
      self._file = _locked(self._path, self._name)  # before what is there is read, and mended
    try:
      found = self._found(overwrite, way_out)
    except BaseException:
      if self._file is not None:
        self._file.close()
      raise
    if self._file is None:
      self._part = len(self._parts)
    else:
      self._file.close()
      self._file = _locked(self._path, self._name)
      if found is None:
        self._file.truncate(0)
    if found is None:
      self._remove_parts()
      storage.write_atomically(self._about_path, json.dumps(self._written_about, indent=2) + '\n')
      return set()
    if found and len(found) < self._count:
      logger.info('%s: going on after %d of %d answers', self._path, len(found), self._count)
    return found

  def _found(self, overwrite: bool, way_out: str) -> set[int] | None:
    """Questions that are answered; None: begin anew."""
    if not (self._path.exists() and path_facts.size(self._path)) and not self._about_path.exists():
      return None
    differences = self._differences()
    if differences is None:
      if overwrite:
        logger.info('%s: answers of another run are there, and overwritten', self._path)
        return None
      if not self._size():
        return None
      raise OtherAnswersError(
        f'{self._name} {self._path} is there, and nothing beside it says how it was made '
        f'({self._about_path.name}): {way_out}'
      )
    if differences:
      if overwrite or not self._size():
        logger.info('%s: begun anew, since %s', self._path, differences)
        return None
      raise OtherAnswersError(
        f'{self._name} {self._path} holds answers of another run ({differences}): {way_out}'
      )
    return self._mended()

  def _differences(self) -> str | None:
    """In which settings the answers there are others; None if that is not known."""
    try:
      before = json.loads(self._about_path.read_text())
      old, counts = before['about'], (before['num_questions'], before['records_each'])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
      return None
    said = [
      f'{key} was {_short(old.get(key))}, now {_short(self._about.get(key))}'
      for key in sorted({*old, *self._about})
      if old.get(key) != self._about.get(key)
    ]
    if not said and counts != (self._count, self._each):
      said = [f'{counts[0]} x {counts[1]} answers were wanted, now {self._count} x {self._each}']
    return '; '.join(said)

  @property
  def _is_local(self) -> bool:
    return destinations.is_local(self._path)

  @property
  def _about_path(self) -> epath.Path:
    return self._path.parent / (self._path.name + ABOUT)

  @property
  def _parts_path(self) -> epath.Path:
    return self._path.parent / (self._path.name + PARTS)

  @property
  def _parts(self) -> list[epath.Path]:
    return path_facts.matching(self._parts_path, '*.jsonl')

  @property
  def _written_about(self) -> dict[str, Any]:
    return {'about': self._about, 'num_questions': self._count, 'records_each': self._each}

  def _size(self) -> int:
    return (path_facts.size(self._path) if self._path.exists() else 0) + len(self._parts)

  def _sources(self) -> list[epath.Path]:
    # A bucket's object is there when all answers are; then the parts are about to go.
    return [self._path] if self._is_local or self._path.exists() else self._parts

  def _mended(self) -> set[int]:
    """Whole questions of what is there; of a file of this machine the rest is removed."""
    kept: dict[int, int] = {}
    dropped = 0
    for path in self._sources():
      for line in _lines(path):
        index = self._question(line)
        if index is None:
          dropped += 1
        else:
          kept[index] = kept.get(index, 0) + 1
    whole = {index for index, count in kept.items() if count == self._each}
    cut = dropped + sum(count for index, count in kept.items() if index not in whole)
    if cut:
      logger.warning('%s: %d lines are torn or not whole, and left out', self._path, cut)
    if cut and self._is_local:
      partial = storage.temporary(self._path)
      with disk_writes.named(self._path), partial.open('wb') as file:
        for line in _lines(self._path):
          if self._question(line) in whole:
            file.write(line)
      partial.replace(self._path)
    elif self._is_local and self._path.exists():
      _end_line(self._path)
    return whole

  def _question(self, line: bytes) -> int | None:
    try:
      record = json.loads(line)
    except (ValueError, RecursionError):
      return None
    return self._question_of(record) if isinstance(record, dict) else None

  def _question_of(self, record: Mapping[str, Any]) -> int | None:
    try:
      number = self._number(record)
    except (KeyError, TypeError):
      return None
    return number if type(number) is int and 0 <= number < self._count else None

  def write(self, records: Iterable[Mapping[str, Any]]) -> None:
    """Adds records of whole questions, all of each; on other hosts than the first nothing.

    Raises:
      ValueError: a record has no number of a question, or holds what JSON has no words for.
      OSError: it cannot be written, such as a full disk.
    """
    if not hosts.is_first():
      return
    records = list(records)
    for record in records:
      if self._question_of(record) is None:
        raise ValueError(f'a record needs {INDEX!r} from 0 to {self._count - 1}: {_short(record)}')
    if self.is_stream:
      self._write_in_order(records)
    elif self._is_local:
      self._append(_encoded(records))
      if time.monotonic() - self._written_at > SYNC_SECONDS:
        self._sync()
    else:
      self._records += map(dict, records)
      if time.monotonic() - self._written_at > PART_SECONDS:
        self._write_part()

  def _append(self, data: bytes) -> None:
    assert self._file is not None
    view = memoryview(data)
    with disk_writes.named(self._path):
      while view:
        view = view[self._file.write(view) :]

  def _sync(self) -> None:
    assert self._file is not None
    with disk_writes.named(self._path):
      os.fsync(self._file.fileno())
    self._written_at = time.monotonic()

  def _write_in_order(self, records: Iterable[Mapping[str, Any]]) -> None:
    assert self._file is not None
    for record in records:
      self._waiting.setdefault(self._number(record) or 0, []).append(record)
    while len(self._waiting.get(self._next, ())) == self._each:
      self._file.write(_encoded(self._waiting.pop(self._next)))
      self._next += 1
    self._file.flush()

  def _write_part(self) -> None:
    if self._records:
      self._parts_path.mkdir(parents=True, exist_ok=True)
      path = self._parts_path / f'{self._part:06d}.jsonl'
      storage.write_atomically(path, _encoded(self._records))
      self._part, self._records = self._part + 1, []
    self._written_at = time.monotonic()

  def records(self) -> Iterator[dict[str, Any]]:
    """What is written so far, in the order of the questions; on the first host of a file."""
    if self.is_stream or not hosts.is_first():
      return
    if not self._is_local:
      self._write_part()
    for line in self._ordered():
      yield json.loads(line)

  def _places(self) -> list[tuple[int, int, int, int]]:
    """Of each line the question, the place of its file among `_sources`, begin and length."""
    places = []
    for k, path in enumerate(self._sources()):
      begin = 0
      for line in _lines(path):
        if (index := self._question(line)) is not None:
          places.append((index, k, begin, len(line)))
        begin += len(line)
    return places

  def _ordered(self) -> Iterator[bytes]:
    """Lines in the order of the questions, and as they were written within each."""
    with contextlib.ExitStack() as stack:
      files = [stack.enter_context(path.open('rb')) for path in self._sources()]
      for _, k, begin, length in sorted(self._places()):
        files[k].seek(begin)
        yield files[k].read(length)

  def finish(self) -> None:
    """Puts the records into the order of the questions.

    Raises:
      ValueError: not all are answered.
    """
    with hosts.together():
      if hosts.is_first():
        self._finish()
    self._finished = True
    self.close()

  def _finish(self) -> None:
    if self.is_stream:
      if self._next < self._count:
        raise ValueError(f'{self._path}: {self._next} of {self._count} questions are answered')
      return
    if not self._is_local:
      self._write_part()
    found = [index for index, *_ in self._places()]
    wanted = [index for index in range(self._count) for _ in range(self._each)]
    if sorted(found) != wanted:
      raise ValueError(f'{self._path}: {len(found)} of {len(wanted)} answers are there')
    if found != wanted or self._sources() != [self._path]:
      partial = storage.temporary(self._path)
      try:
        with disk_writes.named(self._path), partial.open('wb') as file:
          for line in self._ordered():
            file.write(line)
          if self._is_local:
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)
      except BaseException:
        partial.unlink(missing_ok=True)
        raise
    elif self._file is not None:
      self._sync()
    self._remove_parts()

  def _remove_parts(self) -> None:
    if self._parts_path.exists():
      self._parts_path.rmtree()

  def close(self) -> None:
    """Ends writing; what is there stays, and the next process goes on. Nothing leaves nothing."""
    if self._closed:
      return
    self._closed = True
    if self._file is not None:
      self._file.close()
    if self.is_stream or not hosts.is_first():
      return
    if not self._is_local:
      self._write_part()
    if not self._finished and not self._size():
      self._path.unlink(missing_ok=True)
      self._about_path.unlink(missing_ok=True)

  def __enter__(self) -> 'AnswerFile':
    return self

  def __exit__(self, *unused: Any) -> None:
    self.close()


def is_stream(path: epath.PathLike) -> bool:
  """Whether it is a place to which a program writes once: standard output, a device, a pipe."""
  name = os.fspath(path)
  if name == STDOUT or name.startswith(('/dev/', '/proc/')):
    return True
  return (
    destinations.is_local(path)
    and os.path.exists(name)
    and not (os.path.isfile(name) or os.path.isdir(name))
  )


class _StandardOutput(io.RawIOBase):
  """Bytes for standard output, also where that is a text alone; closing it leaves it open."""

  def writable(self) -> bool:
    return True

  def write(self, data: Any) -> int:
    if (buffer := getattr(sys.stdout, 'buffer', None)) is not None:
      sys.stdout.flush()
      buffer.write(data)
    else:
      sys.stdout.write(bytes(data).decode())
    return len(data)

  def flush(self) -> None:
    if not self.closed:
      sys.stdout.flush()


def _stream(path: epath.Path) -> Any:
  name = os.fspath(path)
  if name in (STDOUT, '/dev/stdout'):
    return _StandardOutput()
  return open(name, 'ab' if name.startswith(('/dev/fd/', '/proc/')) else 'wb')


def _locked(path: epath.Path, name: str) -> BinaryIO:
  file = open(path, 'ab', buffering=0)  # noqa: SIM115
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    file.close()
    raise OSError(f'{name} {path}: another process is writing to it') from error
  except OSError:
    pass  # a file system without locks
  return file


def _encoded(records: Sequence[Mapping[str, Any]]) -> bytes:
  text = ''.join(json.dumps(r, ensure_ascii=False, allow_nan=False) + '\n' for r in records)
  return text.encode('utf-8', 'backslashreplace')  # halves of surrogate pairs


def _lines(path: epath.Path) -> Iterator[bytes]:
  if path.exists():
    with path.open('rb') as file:
      yield from file


def _end_line(path: epath.Path) -> None:
  """Gives a last line its end, so that the next one does not go on in it."""
  with open(path, 'r+b') as file:
    if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b'\n':
      file.write(b'\n')


def _ranges(numbers: Iterable[int]) -> list[list[int]]:
  """[first, last + 1] of each run of consecutive numbers."""
  found: list[list[int]] = []
  for number in sorted(numbers):
    if found and found[-1][1] == number:
      found[-1][1] += 1
    else:
      found.append([number, number + 1])
  return found


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= _LONGEST else f'{text[:_LONGEST]}...'

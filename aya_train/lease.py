"""One writer at a time in a folder: a lease that ends with its holder, on whatever machine.

    FOLDER/lease.json   who holds the folder, and how many signs of life it has given

No clock of another machine is trusted, and no lock of a file system alone. A holder counts up in
its file. Whoever finds one looks whether the process lives, if it is of this machine and this start
of it; else whether the count goes up while looking. Who stands still for `patience` is replaced.

On a local or network disk a lease is taken in one indivisible step. A bucket has none that is open
to us: there the file is written, and read again after SETTLE_SECONDS. Of two that begin within that
time the last one stays. If a write takes longer than that, both go on until the next sign of life
or `check`, where the first one stops.
"""

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import json
import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from etils import epath

from aya_train import destinations, hosts, path_facts, process_identity
from aya_train.tasks import storage

logger = logging.getLogger(__name__)
FILE = 'lease.json'
BEAT_SECONDS = 10.0
SILENT_BEATS = 6  # after as many the holder counts as gone
_LOCK_SECONDS = 5.0
_MOST_LOST = 100  # times that a folder vanishes while it is waited for
# After which half a file is nobody's any more: far more than clocks are apart.
_LEFT_SECONDS = 86_400
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
SETTLE_SECONDS = 3.0
_LONGEST_PATIENCE = 600.0
_LINE_SECONDS = 15.0


class HeldError(OSError):
  """Another process is writing the folder."""


class LostError(OSError):
  """Another process has taken the folder over, as this one gave no sign of life."""


@dataclasses.dataclass(frozen=True)
class Holder:
  """Who holds a folder, as its file says.

  Attributes:
    token: of this one lease.
    host, pid: where it is written from, for people.
    machine: which machine, since which start, and among which processes; '' if not known.
    process: when the process began, in the machine's own count; '' if not known.
    since: UTC, for people.
    what: the command, for people.
    beat_seconds: between two signs of life.
    beats: how many there were.
  """

  token: str
  host: str
  pid: int
  machine: str
  process: str
  since: str
  what: str
  beat_seconds: float
  beats: int = 0

  @property
  def patience(self) -> float:
    """Seconds without a sign of life after which it counts as gone."""
    return min(SILENT_BEATS * self.beat_seconds, _LONGEST_PATIENCE)

  def __str__(self) -> str:
    return f'{self.what}, process {self.pid} on {self.host}, since {self.since}'


_UNKNOWN = Holder('', 'an unknown host', 0, '', '', 'an unknown time', 'a command', BEAT_SECONDS)


class Lease:
  """A folder that is held; on other hosts than the first a promise that this one holds it."""

  def __init__(self, folder: epath.Path, name: str, mine: Holder | None):
    self._path, self._name, self._mine = folder / FILE, name, mine
    self._taker: Holder | None = None
    self._good, self._looked = time.monotonic(), _with_sleep()
    self._lock, self._ended = threading.Lock(), threading.Event()
    if mine is not None:
      self._thread = threading.Thread(target=self._beat_on, name='lease', daemon=True)
      self._thread.start()

  def check(self) -> None:
    """Looks whether the folder is still held; to be called before anything is written to it.

    Looks at most once a second, so that it may be called often.

    Raises:
      LostError: another process has taken it, or may have.
    """
    if self._mine is None:
      return
    with self._lock:
      if self._taker is not None or _with_sleep() - self._looked > 1.0:
        self._look()

  def check_together(self) -> None:
    """`check` of the first host, which ends the others too; called by every host."""
    with hosts.together():
      self.check()

  def release(self) -> None:
    """Gives the folder back; a lease that is lost is left to its new holder."""
    if self._mine is None:
      return
    self._ended.set()
    with self._lock, contextlib.suppress(Exception):
      if (found := read(self._path)) is not None and found.token == self._mine.token:
        self._path.unlink()

  def _beat_on(self) -> None:
    assert self._mine is not None
    warned = False
    while not self._ended.wait(self._mine.beat_seconds):
      with self._lock:
        if self._ended.is_set():
          return
        try:
          self._beat()
          warned = False
        except LostError as error:
          logger.error('%s', error)
          return
        except Exception as error:  # buckets have errors of their own
          if not warned:
            logger.warning('no sign of life could be written to %s: %s', self._path, error)
          warned = True

  def _beat(self) -> None:
    self._look()
    assert self._mine is not None
    read_at = _with_sleep()
    mine = dataclasses.replace(self._mine, beats=self._mine.beats + 1)
    _write(self._path, mine)
    if _with_sleep() - read_at > mine.patience:  # this machine slept in between
      self._taker = _UNKNOWN
      self._look()
    self._mine, self._good = mine, time.monotonic()

  def _look(self) -> None:
    assert self._mine is not None
    if self._taker is None:
      try:
        found = read(self._path)
      except Exception as error:
        silent = time.monotonic() - self._good
        if silent < self._mine.patience:
          return
        raise LostError(
          f'{self._name} {self._path.parent} could not be reached for {silent:.0f} s ({error}): '
          'another process may have taken it. Nothing more is written; the same command goes on '
          'from the newest checkpoint'
        ) from error
      if found is None or found.token == self._mine.token:
        self._looked = _with_sleep()
        return
      self._taker = found
    raise LostError(
      f'{self._name} {self._path.parent} was taken over by another command ({self._taker}), while '
      f'this process ({os.getpid()} on {platform.node()}) gave no sign of life for more than '
      f'{self._mine.patience:.0f} s. Nothing more is written here: leave the folder to the other, '
      'or stop that one and give the same command again'
    )


@contextlib.contextmanager
def held(folder: epath.PathLike, name: str, what: str, *, wait: bool = False) -> Iterator[Lease]:
  """Holds a folder, which is made if need be, until the block ends.

  The first host holds it for all hosts. What a process held that has ended is taken over: at once
  on the same machine, else after it gave no sign of life for a minute.

  Args:
    folder: of a disk or bucket.
    name: what the user calls it: 'MODEL_DIR'.
    what: the command that holds it, for people.
    wait: until another holder has ended, instead of refusing; a line says so.

  Raises:
    HeldError: another process is writing it.
    OSError: it cannot be written.
  """
  folder = epath.Path(folder)
  mine: Holder | None = None
  made: list[epath.Path] = []
  with hosts.together():
    if hosts.is_first():
      mine, made = _acquire(folder, name, what, wait)
  lease = Lease(folder, name, mine)
  try:
    yield lease
  finally:
    lease.release()
    with contextlib.suppress(OSError):  # a command that was refused leaves no folder behind
      for path in made:
        os.rmdir(path)


def read(path: epath.Path) -> Holder | None:
  """Who holds a folder, by its file; None if nobody does. Damaged: a holder without a name."""
  try:
    content = path.read_text()
  except FileNotFoundError:
    return None
  except NotADirectoryError:
    return None
  except Exception:
    if not path.exists():
      return None
    raise
  try:
    holder = Holder(**json.loads(content))
    float(holder.beat_seconds), int(holder.beats), int(holder.pid)
  except (ValueError, TypeError):
    return _UNKNOWN
  return holder


def _acquire(
  folder: epath.Path, name: str, what: str, wait: bool
) -> tuple[Holder, list[epath.Path]]:
  """Takes a folder; returns this holder, and the folders that were made for it, deepest first."""
  mine = _me(what)
  path = folder / FILE
  try:
    made = _make(folder)
    watch = _Watch(folder, name, wait)
    lost = 0
    while True:
      found = read(path)
      if found is None:
        try:
          made = _make(folder) or made
          taken = _create(path, mine)
        except FileNotFoundError:  # its holder has ended, and taken the folder that it made along
          lost += 1
          if lost > _MOST_LOST:
            raise
          continue
      elif watch.is_gone(found):
        logger.info('%s %s was held by %s, which has ended: taken over', name, folder, found)
        taken = _replace(path, found, mine)
        if destinations.is_local(folder):
          made = made or [folder]  # as the one that was killed would have: it goes if it is empty
      else:
        continue
      if taken:
        return mine, made
  except HeldError:
    raise
  except Exception as error:  # buckets have errors of their own
    problem = 'its disk is full' if destinations.is_full(error) else str(error)
    raise OSError(
      f'{name} {folder} cannot be written ({problem or type(error).__name__}): give a folder or '
      'bucket that can be made and written'
    ) from error


def _make(folder: epath.Path) -> list[epath.Path]:
  if not destinations.is_local(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return []
  missing = [path for path in (folder, *folder.parents) if not path.exists()]
  folder.mkdir(parents=True, exist_ok=True)
  # Of a kill in the middle of a sign of life.
  for left in path_facts.matching(folder, f'.{FILE}.*'):
    with contextlib.suppress(FileNotFoundError):  # a young one is of a command that begins now
      if time.time() - path_facts.modified(left) > _LEFT_SECONDS:
        left.unlink()
  return missing


class _Watch:
  """Looks at a holder until it is known whether it lives."""

  def __init__(self, folder: epath.Path, name: str, wait: bool):
    self._folder, self._name, self._wait = folder, name, wait
    self._seen: tuple[str, int] | None = None
    self._silent = self._told = 0.0
    self._at = time.monotonic()

  def is_gone(self, found: Holder) -> bool:
    """True if it has ended; False to look again, after a while.

    Raises:
      HeldError: it lives, and this one does not wait.
    """
    alive = _lives_here(found)
    if alive is False:
      return True
    pause = min(found.beat_seconds / 4, 2.0)
    now = time.monotonic()
    # What passed while this process itself was stopped is not held against the other.
    passed, self._at = min(now - self._at, 2 * pause), now
    seen = (found.token, found.beats)
    changed = self._seen is not None and seen != self._seen
    self._silent = 0.0 if seen != self._seen else self._silent + passed
    self._seen = seen
    if (alive or changed) and not self._wait:
      raise HeldError(
        f'{self._name} {self._folder} is in use by another command ({found}), which '
        f'{"is running" if alive else "gives signs of life"}: wait for its end, or stop it there, '
        f'or take another {self._name}'
      )
    if not alive and self._silent >= found.patience:
      return True
    self._tell(found, now, bool(alive or changed))
    time.sleep(pause)
    return False

  def _tell(self, found: Holder, now: float, lives: bool) -> None:
    if self._told and now - self._told < _LINE_SECONDS:
      return
    self._told = now
    if lives:
      logger.info('%s %s is in use by %s: waiting for its end', self._name, self._folder, found)
    else:
      logger.info(
        '%s %s is held by %s: looking for a sign of life; without one it is taken over in %.0f s',
        *(self._name, self._folder, found, found.patience - self._silent),
      )


# The file -----------------------------------------------------------------------------------------


def _write(path: epath.Path, holder: Holder) -> None:
  text = json.dumps(dataclasses.asdict(holder), indent=1)
  if destinations.is_local(path):
    storage.write_atomically(path, text)
  else:  # an object appears whole
    path.write_text(text)


def _create(path: epath.Path, mine: Holder) -> bool:
  """Writes the file if there is none; returns whether it is ours."""
  if not destinations.is_local(path):
    return _settled(path, mine)
  with _alone(path.parent):
    return _linked(path, mine)


def _linked(path: epath.Path, mine: Holder) -> bool:
  new = path.parent / f'.{FILE}.{mine.token}'
  new.write_text(json.dumps(dataclasses.asdict(mine), indent=1))
  try:
    os.link(new, path)
  except (FileExistsError, FileNotFoundError):
    return False
  except OSError as error:
    if error.errno not in _NO_LINKS:
      raise
    return _settled(path, mine)
  finally:
    new.unlink(missing_ok=True)
  return True


def _replace(path: epath.Path, gone: Holder, mine: Holder) -> bool:
  """Takes the place of a holder that has ended; returns whether nobody else was quicker."""
  if not destinations.is_local(path):
    return _settled(path, mine)
  aside = path.parent / f'.{FILE}.{mine.token}.gone'
  with _alone(path.parent):
    if read(path) != gone:
      return False
    try:
      os.rename(path, aside)
    except FileNotFoundError:
      return False
    try:
      if read(aside) != gone:  # somebody else's, who came in between
        with contextlib.suppress(OSError):
          os.link(aside, path)
        return False
      return _linked(path, mine)
    finally:
      aside.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(folder: epath.Path) -> Iterator[None]:
  """Keeps other processes of this machine out while a file is looked at and replaced.

  The system lets go of the lock when a process ends. Where a disk has no such lock, or who has it
  stands still, the block runs without: then two commands that begin in the same instant after a
  kill may both go on until the next sign of life or `check`, where the first one stops.
  """
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    end = time.monotonic() + _LOCK_SECONDS
    while time.monotonic() < end:
      try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
      except BlockingIOError:
        time.sleep(0.01)
      except OSError:
        break
    yield
  finally:
    os.close(descriptor)


def _settled(path: epath.Path, mine: Holder) -> bool:
  _write(path, mine)
  time.sleep(SETTLE_SECONDS)
  found = read(path)
  return found is not None and found.token == mine.token


# Processes ----------------------------------------------------------------------------------------


def _me(what: str) -> Holder:
  now = datetime.datetime.now(datetime.UTC)
  return Holder(
    token=uuid.uuid4().hex,
    host=platform.node(),
    pid=os.getpid(),
    machine=process_identity.machine(),
    process=process_identity.began(os.getpid()),
    since=f'{now:%Y-%m-%d %H:%M:%S} UTC',
    what=what,
    beat_seconds=BEAT_SECONDS,
  )


def _lives_here(holder: Holder) -> bool | None:
  """Whether its process lives; None if that cannot be seen from here, or it is suspended."""
  if not holder.machine or holder.machine != process_identity.machine():
    return None
  return process_identity.lives(holder.pid, holder.process)


def _with_sleep() -> float:
  """Seconds on a clock that goes on while the machine sleeps."""
  clock: Any = getattr(time, 'CLOCK_BOOTTIME', None)
  return time.monotonic() if clock is None else time.clock_gettime(clock)

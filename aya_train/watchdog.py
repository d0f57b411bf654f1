"""Notices that a run has stopped moving, shows where every thread stands, and ends the process.

What a program does is told by phases: `with phase('save of step 5')`. A phase that has parts beats
once for each of them (`beat`, `expect`). Whether anybody watches makes no difference to it.
"""

import collections
import contextlib
import dataclasses
import datetime
import faulthandler
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

logger = logging.getLogger(__name__)

EXIT_CODE = 4  # neither 1 nor 2: launchers start the command again
FOLDER = 'hang'
ACTIONS = ('exit', 'dump')
WRITE_SECONDS = 30  # the disk may be what hangs
_IDLE = 'between phases'


@dataclasses.dataclass(frozen=True)
class WatchdogConfig:
  """How long a run may stand still. A host that waits for others has a limit of its own (peers.py).

  Attributes:
    timeout: seconds that a training step, or a batch of an evaluation, may take; None: for ever.
    long_timeout: the same of what has no parts to watch (reading and saving a checkpoint, metrics),
      and of the first step or batch of a phase, which compiles.
    action: 'exit' shows all stacks and ends the process with code 4; 'dump' shows them only.
  """

  timeout: float | None = 1800.0
  long_timeout: float | None = 14400.0
  action: str = 'exit'

  def __post_init__(self):
    for name in ('timeout', 'long_timeout'):
      value = getattr(self, name)
      number = isinstance(value, int | float) and not isinstance(value, bool)
      if value is not None and not (number and value > 0):
        raise ValueError(
          f'WATCHDOG_{name.upper()} must be a number of seconds above 0, or None, got {value!r}'
        )
    if self.action not in ACTIONS:
      raise ValueError(f'WATCHDOG_ACTION must be one of {ACTIONS}, got {self.action!r}')


@dataclasses.dataclass(eq=False)
class _Phase:
  name: str
  waiting: bool  # for other hosts: somebody else sees to the limit
  beaten: bool = False
  done: str = ''  # the last part that is


@dataclasses.dataclass(frozen=True)
class Standing:
  """What a process is at.

  Attributes:
    phase: its name, the same on every host.
    done: the last part of it that is done, '' if it does not say.
    beats: a number that grows with every part that is done.
    limit: seconds that may pass before the next beat; None for ever.
  """

  phase: str
  done: str
  beats: int
  limit: float | None

  def __str__(self) -> str:
    return f'{self.phase}, after {self.done}' if self.done else self.phase


class _Progress:
  """Phases and beats of this process; used from any thread."""

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._phases: list[_Phase] = []
    self._beats = 0
    self._expected: collections.deque[tuple[Any, _Phase | None, str]] = collections.deque()
    self.config: WatchdogConfig | None = None

  def enter(self, phase: _Phase) -> None:
    with self._lock:
      self._phases.append(phase)
      self._beats += 1

  def leave(self, phase: _Phase) -> None:
    with self._lock:
      self._phases.remove(phase)
      self._beats += 1

  def beat(self, done: str = '') -> None:
    with self._lock:
      self._beat(self._phases[-1] if self._phases else None, done)

  def _beat(self, phase: _Phase | None, done: str) -> None:
    self._beats += 1
    if phase is not None:
      phase.beaten, phase.done = True, done

  def expect(self, value: Any, done: str) -> None:
    if self.config is not None:
      with self._lock:
        # It may be there when another phase has begun, of which it is no part.
        phase = self._phases[-1] if self._phases else None
        self._expected.append((value, phase, done))

  def collect(self) -> None:
    """Beats for what was expected and is there."""
    with self._lock:
      while self._expected and _is_ready(self._expected[0][0]):
        _, phase, done = self._expected.popleft()
        self._beat(phase, done)

  def forget(self) -> None:
    with self._lock:
      self._expected.clear()

  def standing(self) -> Standing:
    with self._lock:
      phase = self._phases[-1] if self._phases else _Phase(_IDLE, waiting=False)
      config, limit = self.config, None
      if config is not None and not phase.waiting:
        limit = config.timeout if phase.beaten else config.long_timeout
      return Standing(phase.name, phase.done, self._beats, limit)


def _is_ready(value: Any) -> bool:
  try:
    return bool(value.is_ready())
  except Exception:  # an array of a computation that failed; whoever reads it is told
    return True


_progress = _Progress()
# Told before the process is ended here, with the reason.
before_exit: list[Callable[[str], None]] = []
# Add lines to what is shown: what other hosts are at.
descriptions: list[Callable[[], str]] = []


@contextlib.contextmanager
def phase(name: str, *, waiting: bool = False) -> Iterator[None]:
  """Names what the block does; phases may lie in one another.

  Args:
    name: for messages: 'save of step 5'.
    waiting: for other hosts, by a barrier with a limit of its own; the time is not counted here.
  """
  this = _Phase(name, waiting)
  _progress.enter(this)
  try:
    yield
  finally:
    _progress.leave(this)


def beat(done: str = '') -> None:
  """A part of the phase is done, named if it has a name; after the first, nothing compiles."""
  _progress.beat(done)


def expect(value: Any, done: str = '') -> None:
  """Beats when an array that is being computed is there; does not wait for it.

  Args:
    value: a JAX array.
    done: names the part that it ends: 'step 5'.
  """
  _progress.expect(value, done)


def standing() -> Standing:
  """What this process is at."""
  return _progress.standing()


@contextlib.contextmanager
def watching(
  config: WatchdogConfig | None, folder: epath.PathLike, who: str = ''
) -> Iterator[None]:
  """Watches the phases of the block.

  Args:
    config: limits, and what happens past them; None watches nothing.
    folder: MODEL_DIR; stacks are written below `hang/` in it.
    who: names this host in messages and files, where there are several.
  """
  if config is None or (config.timeout is None and config.long_timeout is None):
    yield
    return
  ended = threading.Event()
  watchdog = _Watchdog(config, epath.Path(folder), who, ended)
  _progress.config = config
  thread = threading.Thread(target=watchdog.run, name='watchdog', daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
    _progress.config = None
    _progress.forget()


class _Watchdog:
  def __init__(
    self, config: WatchdogConfig, folder: epath.Path, who: str, ended: threading.Event
  ) -> None:
    self._config, self._folder, self._who, self._ended = config, folder, who, ended
    limits = [x for x in (config.timeout, config.long_timeout) if x is not None]
    self._period = min(5.0, min(limits) / 10)

  def run(self) -> None:
    quiet, shown, beats = 0.0, False, -1
    last = time.monotonic()
    while not self._ended.wait(self._period):
      _progress.collect()
      at, now = _progress.standing(), time.monotonic()
      # A machine that slept, or a process that was stopped, is not a run that hangs.
      gap, last = min(now - last, 3 * self._period), now
      if at.beats != beats:
        if shown:
          logger.warning('the run moves again, after %.0f s', quiet)
        quiet, shown, beats = 0.0, False, at.beats
        continue
      quiet += gap
      if at.limit is not None and quiet > at.limit and not shown:
        shown = True
        self._bark(at, quiet)

  def _bark(self, at: Standing, quiet: float) -> None:
    host = f'{self._who}: ' if self._who else ''
    reason = f'{host}{at}: nothing has moved for {quiet:.0f} s'
    stacks = _stacks()
    others = ''.join(f'{text}\n' for text in (describe() for describe in descriptions) if text)
    sys.stderr.write(f'aya-train: {reason}. All threads of process {os.getpid()}:\n')
    sys.stderr.write(f'{stacks}{others}')
    where = self._keep(f'{reason}\n{others}{stacks}')
    exits = self._config.action == 'exit'
    sys.stderr.write(
      f'aya-train: error: {reason}; its stacks are above{where}. '
      + (
        'This process ends, and the same command goes on from the newest checkpoint'
        if exits
        else "It goes on, since WATCHDOG_ACTION is 'dump'"
      )
      + '. If it was only slow, raise WATCHDOG_TIMEOUT or WATCHDOG_LONG_TIMEOUT\n'
    )
    sys.stderr.flush()
    if exits:
      for tell in before_exit:
        with contextlib.suppress(Exception):
          tell(reason)
      os._exit(EXIT_CODE)

  def _keep(self, text: str) -> str:
    """Writes it below MODEL_DIR, which may be what hangs; says where, if it worked."""
    time_of_day = datetime.datetime.now(datetime.UTC).strftime('%Y%m%dT%H%M%SZ')
    name = self._who.replace(' ', '_') or 'host'
    path = self._folder / FOLDER / f'{time_of_day}-{name}.txt'
    written = threading.Event()

    def write() -> None:
      with contextlib.suppress(Exception):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.set()

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    thread.join(WRITE_SECONDS)
    return f' and in {path}' if written.is_set() else ''


def _stacks() -> str:
  """Where every Python thread stands, the innermost call first."""
  with tempfile.TemporaryFile() as file:
    faulthandler.dump_traceback(file=file, all_threads=True)
    file.seek(0)
    return file.read().decode(errors='replace')

"""Signals of a run: what was trained is saved before the process ends.

Until the first step is made there is nothing to save, and SIGTERM or SIGINT end the run at once,
whatever it is doing. From then on the step is finished, an evaluation ends after its batch, and the
state is saved. A second signal ends the process without another word.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from typing import Any

import jax
from jax.experimental import multihost_utils

logger = logging.getLogger(__name__)
CODE = 130
GRACE_SECONDS = 15.0  # for compiled code to come back, where nothing is to be saved
TWICE_SECONDS = 0.5  # a group and its leader may both be told: as soon after, it is the same one
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(KeyboardInterrupt):
  """A signal ended what was being done. No `Exception`: nobody may take it for a failure."""


class Stop:
  """What a signal has asked for. On several hosts all of them agree on the place where they stop.

  Attributes:
    saving: whether there is something to save, so that the work is not broken off anywhere.
  """

  def __init__(self) -> None:
    self.saving = False
    self._signalled = False
    self._calls = 0

  def requested(self) -> bool:
    """Whether to stop here; on several hosts all call it as often, and all get the same answer."""
    if not self._signalled and jax.process_count() > 1:
      self._calls += 1
      self._signalled = multihost_utils.reached_preemption_sync_point(self._calls)
    return self._signalled

  def check(self) -> None:
    """Raises StoppedError if a stop is requested; for places between two batches."""
    if self.requested():
      raise StoppedError

  def signal(self, number: int) -> None:
    """A signal has come.

    Raises:
      StoppedError: there is nothing to save.
    """
    if self._signalled:
      return
    self._signalled = True
    name = signal.Signals(number).name
    if self.saving:
      logger.info('%s: saving after this step', name)
    else:
      logger.info('%s: nothing is to be saved, stopping', name)
      raise StoppedError


class stop_on_signal:
  """Gives a `Stop` that the signals of this process set, until the block ends.

  Python sees a signal between two of its own instructions, and compiled code may take minutes for
  one. So a thread sees it too: it ends the process where nothing is to be saved, after
  GRACE_SECONDS, and at once on a second signal. In other threads than the main one nothing is
  changed. On several hosts SIGTERM is JAX's notice of preemption, and SIGINT is made one.
  """

  def __enter__(self) -> Stop:
    self._stop = Stop()
    self._previous: dict[int, Any] = {}
    if threading.current_thread() is not threading.main_thread():
      return self._stop
    if jax.process_count() > 1:
      self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, _to_notice)
      return self._stop
    self._ended = threading.Event()
    self._read, self._write = os.pipe()
    os.set_blocking(self._write, False)
    self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
    for number in _SIGNALS:
      self._previous[number] = signal.signal(number, lambda number, _: self._stop.signal(number))
    threading.Thread(target=self._watch, name='signals', daemon=True).start()
    return self._stop

  def __exit__(self, *unused: Any) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    if len(self._previous) > 1:
      self._ended.set()
      signal.set_wakeup_fd(self._wakeup)
      os.write(self._write, b'\0')
      os.close(self._write)

  def _watch(self) -> None:
    first = None
    with contextlib.closing(os.fdopen(self._read, 'rb', buffering=0)) as pipe:
      while (byte := pipe.read(1)) and byte != b'\0':
        if byte[0] not in _SIGNALS:
          continue
        if first is None:
          first = time.monotonic()
        elif time.monotonic() - first > TWICE_SECONDS:
          _end('a second signal: ended at once, nothing more is saved')
        if not self._stop.saving:
          timer = threading.Timer(GRACE_SECONDS, self._end_unless_saving)
          timer.daemon = True
          timer.start()

  def _end_unless_saving(self) -> None:
    if not (self._ended.is_set() or self._stop.saving):
      _end('ended in the middle of compiled code; nothing was to be saved')


def _to_notice(number: int, frame: Any) -> None:
  logger.info('SIGINT: all hosts stop together; once more to end this one at once')
  signal.signal(signal.SIGINT, signal.default_int_handler)
  os.kill(os.getpid(), signal.SIGTERM)


def _end(why: str) -> None:
  logger.warning('%s', why)
  sys.stderr.flush()
  os._exit(CODE)

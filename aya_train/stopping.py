"""Signals of a run: the step is finished and saved before the process ends."""

import logging
import signal
from typing import Any

import jax
from jax.experimental import multihost_utils

logger = logging.getLogger(__name__)


class Stop:
  """Set by SIGTERM or SIGINT; on several hosts all of them stop at the same step."""

  def __init__(self) -> None:
    self.signalled = False

  def requested(self, step: int) -> bool:
    if jax.process_count() == 1:
      return self.signalled
    return multihost_utils.reached_preemption_sync_point(step)


class stop_on_signal:
  """Lets a step finish and be saved before a signal ends the run; a second one ends it at once."""

  def __enter__(self) -> Stop:
    stop = Stop()
    self._previous = {}
    if jax.process_count() == 1:

      def handler(number: int, frame: Any) -> None:
        logger.info('%s: saving after this step', signal.Signals(number).name)
        stop.signalled = True
        self.__exit__()

      for number in (signal.SIGTERM, signal.SIGINT):
        self._previous[number] = signal.signal(number, handler)
    return stop

  def __exit__(self, *unused: Any) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

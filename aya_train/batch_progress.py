"""Lines about how far work on many items is, with the time that is left."""

import logging
import time

from aya_train import hosts

logger = logging.getLogger(__name__)
SECONDS = 10.0  # between two lines


class BatchProgress:
  """Counts what is done, and says so at times; on several hosts the first one does.

  The first batch, which compiles, does not count for the rates of later lines.

  Args:
    what: the items, such as 'answers'.
    total: how many there are.
    done: of them before this process began.
    seconds: between two lines.
  """

  def __init__(self, what: str, total: int, done: int = 0, *, seconds: float = SECONDS):
    self._what, self._total, self._done, self._begin = what, total, done, done
    self._seconds = seconds
    self._counted_from = time.monotonic()
    self._said: float | None = None

  def add(self, count: int) -> None:
    """So many more are done."""
    self._done += count
    now = time.monotonic()
    is_first = self._said is None
    if self._said is not None and now - self._said < self._seconds and self._done < self._total:
      return
    self._said = now
    rate = (self._done - self._begin) / max(now - self._counted_from, 1e-9)
    left = clock((self._total - self._done) / max(rate, 1e-9))
    if hosts.is_first():
      logger.info('%s %d/%d  %.3g/s  ETA %s', self._what, self._done, self._total, rate, left)
    if is_first:
      self._begin, self._counted_from = self._done, now


def clock(seconds: float) -> str:
  """A duration for people: '4m05s', '1h02m'."""
  hours, rest = divmod(int(seconds), 3600)
  minutes, rest = divmod(rest, 60)
  return f'{hours}h{minutes:02d}m' if hours else f'{minutes}m{rest:02d}s'

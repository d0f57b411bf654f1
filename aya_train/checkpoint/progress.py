"""How far a conversion is, in bytes: a bar on a terminal, elsewhere lines in the log."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

from aya_train.checkpoint.arrays import lazy_arrays

logger = logging.getLogger(__name__)

LOG_SECONDS = 30.0
_BAR_DELAY_SECONDS = 1.0

Advance = Callable[[int], None]


@contextlib.contextmanager
def shown(what: str, total: int) -> Iterator[Advance]:
  """Yields a function to call with each number of bytes done, from any thread.

  Args:
    what: a word for people, such as 'writing'.
    total: bytes.
  """
  if sys.stderr.isatty():
    import tqdm

    lock = threading.Lock()
    with tqdm.tqdm(
      desc=what, total=total, unit='B', unit_scale=True, delay=_BAR_DELAY_SECONDS, leave=False
    ) as bar:

      def advance(count: int) -> None:
        with lock:
          bar.update(min(count, total - bar.n))

      yield advance
  else:
    yield _Lines(what, total).advance


class _Lines:
  """Log lines, at most one in LOG_SECONDS."""

  def __init__(self, what: str, total: int):
    self._what, self._total = what, total
    self._done = 0
    self._started = self._told = time.monotonic()
    self._lock = threading.Lock()

  def advance(self, count: int) -> None:
    with self._lock:
      self._done = min(self._done + count, self._total)
      now = time.monotonic()
      if now - self._told < LOG_SECONDS:
        return
      self._told = now
      rate = self._done / (now - self._started)
      left = (self._total - self._done) / rate if rate else float('inf')
    logger.info(
      '%s: %.1f of %.1f GB, %.0f MB/s, %.0f s left',
      self._what,
      self._done / 1e9,
      self._total / 1e9,
      rate / 1e6,
      left,
    )


def total_bytes(arrays: lazy_arrays.Arrays) -> int:
  """Bytes of all arrays together."""
  return sum(array.nbytes for array in arrays.values())


def counted(arrays: lazy_arrays.Arrays, advance: Advance) -> dict[str, lazy_arrays.LazyArray]:
  """The same arrays, which tell `advance` of what is read of them."""

  def told(part: np.ndarray) -> np.ndarray:
    advance(part.nbytes)
    return part

  return {name: lazy_arrays.mapped(array, told) for name, array in arrays.items()}

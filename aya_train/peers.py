"""What the hosts of a run tell each other, without their accelerators: barriers, and who is alive.

Everything goes through the key-value store of JAX's coordination service, which the first host
holds. A barrier here knows who has not come, and what the missing host was last at; it gives up on
a host that does not move, not on one that is slow.
"""

import atexit
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from aya_train import watchdog

logger = logging.getLogger(__name__)

# Seconds that a host may stand still while others wait for it; host_args sets it.
BARRIER_TIMEOUT = 1800.0
SECONDS_BETWEEN_LINES = 60
PERIOD = 2.0  # seconds between two signs of life
SILENT = 12.0  # seconds after which a host without a sign of life is named; JAX ends us after 30
_ROOT = 'aya_train'


class MissingHostError(ConnectionError):
  """A host did not come to where the others wait for it; starting all of them again may help."""


def _client() -> Any:
  # JAX has no public way to its key-value store; Orbax takes the same one.
  from jax._src import distributed

  return distributed.global_state.client


class Peers:
  """The hosts of a run, as one of them sees the others.

  Args:
    client: of JAX's coordination service.
    index, count: of this host, and of all.
    on_silence: called with a sentence when hosts fall silent, with '' when they are heard again.
  """

  def __init__(self, client: Any, index: int, count: int, on_silence: Callable[[str], None]):
    self._client, self.index, self.count = client, index, count
    self._on_silence = on_silence
    self._lock = threading.Lock()
    now = time.monotonic()
    self._heard = dict.fromkeys(range(count), now)
    self._moved = dict.fromkeys(range(count), now)
    self._at: dict[int, dict[str, Any]] = {}
    self._sent = 0
    self._barriers = 0
    self._said = ''
    self._stopped = threading.Event()
    self._thread: threading.Thread | None = None

  def start(self) -> None:
    """Signs of life from now on, on a thread."""
    self._thread = threading.Thread(target=self._live, name='peers', daemon=True)
    self._thread.start()

  def stop(self) -> None:
    """Waits for the thread to end.

    Where Python ends while the thread is within JAX's client, the process is aborted: a thread that
    comes back from compiled code then is unwound through it.
    """
    self._stopped.set()
    if self._thread is not None:
      self._thread.join(SILENT)

  def _live(self) -> None:
    while not self._stopped.is_set():
      try:
        self.look()
      except Exception as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        self._tell(f'host 0, which coordinates, cannot be reached ({text})')
      self._stopped.wait(PERIOD)

  def look(self) -> None:
    """Gives a sign of life, and takes those of the others."""
    at = watchdog.standing()
    self._sent += 1
    mine = {'phase': str(at), 'beats': at.beats, 'limit': at.limit, 'sent': self._sent}
    mine |= {'host': socket.gethostname(), 'pid': os.getpid()}
    self._client.key_value_set(f'{_ROOT}/at/{self.index}', json.dumps(mine), allow_overwrite=True)
    found = self._client.key_value_dir_get(f'{_ROOT}/at/')
    now = time.monotonic()
    with self._lock:
      for key, value in found:
        index, new = int(key.rpartition('/')[2]), json.loads(value)
        old = self._at.get(index, {})
        if new['sent'] != old.get('sent'):
          self._heard[index] = now
        if new['beats'] != old.get('beats'):
          self._moved[index] = now
        self._at[index] = new
    silent = self.silent()
    self._tell(f'{self.named(silent)} gave no sign of life' if silent else '')

  def _tell(self, text: str) -> None:
    if text != self._said:
      self._said = text
      self._on_silence(text)

  def silent(self) -> list[int]:
    """Hosts that have given no sign of life lately."""
    now = time.monotonic()
    with self._lock:
      return [i for i, heard in self._heard.items() if i != self.index and now - heard > SILENT]

  def lost(self, wait: float = SILENT + 3 * PERIOD) -> str:
    """Who is lost, after an error that says that somebody is; '' if nobody is known to be."""
    deadline = time.monotonic() + wait
    while not self._said and time.monotonic() < deadline:
      time.sleep(PERIOD / 4)
    if self.index == 0 and self._said:
      time.sleep(2 * PERIOD)  # the others hear of it through this one, and end with it
    return self._said

  def named(self, indices: list[int]) -> str:
    """Hosts for messages: which they are, where, and what they were at."""
    now = time.monotonic()
    shown = []
    with self._lock:
      for i in indices[:8]:
        at = self._at.get(i)
        if at is None:
          shown.append(f'host {i} of {self.count} (never heard of)')
          continue
        quiet = now - self._moved[i]
        shown.append(
          f'host {i} of {self.count} ({at["host"]}, process {at["pid"]}, last at '
          f'{at["phase"]!r}, which has not moved for {quiet:.0f} s)'
        )
    more = f' and {len(indices) - 8} more' if len(indices) > 8 else ''
    return ', '.join(shown) + more

  def describe(self) -> str:
    """A line about each other host."""
    return '\n'.join(self.named([i]) for i in range(self.count) if i != self.index)

  def exchange(self, what: str, value: Any) -> list[Any]:
    """Waits until every host is here; returns what each of them gave, in order.

    Args:
      what: names the place in messages; the same on every host.
      value: JSON.

    Raises:
      MissingHostError: a host does not come and does not move, or is at another place.
    """
    self._barriers += 1
    folder = f'{_ROOT}/barrier/{self._barriers}'
    self._client.key_value_set(f'{folder}/{self.index}', json.dumps([what, value]))
    began = said = time.monotonic()
    pause = 0.002
    with watchdog.phase(f'waiting for other hosts: {what}', waiting=True):
      while True:
        come = {
          int(key.rpartition('/')[2]): json.loads(text)
          for key, text in self._client.key_value_dir_get(f'{folder}/')
        }
        if missing := [i for i in range(self.count) if i not in come]:
          now = time.monotonic()
          self._give_up(what, missing, now, began)
          if now - said > SECONDS_BETWEEN_LINES:
            said = now
            waited = f'{now - began:.0f} s'
            logger.warning('%s: waiting for %s since %s', what, self.named(missing), waited)
          time.sleep(pause)
          pause = min(0.5, pause * 1.5)
          continue
        break
    if self.index == 0 and self._barriers > 1:  # nobody reads the one before any more
      self._client.key_value_delete(f'{_ROOT}/barrier/{self._barriers - 1}/')
    elsewhere = {i: at for i, (at, _) in come.items() if at != what}
    if elsewhere:
      i, at = next(iter(elsewhere.items()))
      raise MissingHostError(
        f'host {self.index} is at {what!r} and host {i} at {at!r}: the hosts do not run the same '
        'program with the same settings and files'
      )
    return [come[i][1] for i in range(self.count)]

  def _give_up(self, what: str, missing: list[int], now: float, began: float) -> None:
    with self._lock:
      for i in missing:
        limit = max(BARRIER_TIMEOUT, (self._at.get(i) or {}).get('limit') or 0.0)
        if now - max(began, self._moved[i]) > limit:
          break
      else:
        return
    raise MissingHostError(
      f'{what}: waited {now - began:.0f} s for {self.named(missing)}. Look at what it is doing, '
      'then start the same command again on all hosts; --barrier_timeout is how many seconds a '
      'host may stand still'
    )


_here: Peers | None = None


def start(index: int, count: int, on_silence: Callable[[str], None]) -> None:
  """Begins to exchange signs of life; after JAX has joined the hosts."""
  global _here
  _here = Peers(_client(), index, count, on_silence)
  watchdog.descriptions.append(_here.describe)
  _here.start()
  atexit.register(_here.stop)  # before JAX leaves the others, which it registered earlier


def here() -> Peers:
  """The other hosts of this run; `start` has been called."""
  import jax

  global _here
  if _here is None:  # somebody else joined the hosts
    _here = Peers(_client(), jax.process_index(), jax.process_count(), lambda text: None)
  return _here


def lost() -> str:
  """Who is lost, see `Peers.lost`; '' where hosts were not joined here."""
  return '' if _here is None else _here.lost()

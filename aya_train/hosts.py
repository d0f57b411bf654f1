"""Several hosts: joining them, and saying what happened when one of them is lost."""

import contextlib
import dataclasses
import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from aya_train import memory_limits, peers, watchdog

logger = logging.getLogger(__name__)

WAIT_BEFORE_WARNING = 60  # seconds
JOIN_TIMEOUT = 300  # seconds until all hosts must have come
HEARTBEAT_TIMEOUT = 30  # seconds after which JAX counts a silent host as lost
LOST_HOST = (
  'another host stopped, or the network between hosts failed, this one stops too. Start the '
  'same command again on all hosts: the run goes on from its newest checkpoint'
)
_BY_FORCE = (
  'the connection to host 0, which coordinates, broke; or the system ended it (out of memory?)'
)
CPU_THREADS = 16
_WAITING = (
  'still waiting for the other hosts: does the same command run on all of them, do they reach the '
  "coordinator's address, and is no other process holding an accelerator"
)


@dataclasses.dataclass(frozen=True)
class Host:
  """The place of a process among those of a run, as readers of data take it.

  Attributes:
    index, count: of the processes.
    shard: which part of a batch's rows it reads, and of how many
      (`partitioning.Partitioner.data_shard`); None for a part of its own in each process.
    barrier: called with a name where processes wait for each other; None if somebody else has seen
      to it that the first comes first.
  """

  index: int = 0
  count: int = 1
  shard: tuple[int, int] | None = None
  barrier: Callable[[str], None] | None = None

  @property
  def part(self) -> tuple[int, int]:
    """Which part of a batch's rows it reads, and of how many."""
    return self.shard or (self.index, self.count)

  @property
  def name(self) -> str:
    """For messages; '' if it is alone."""
    return f'host {self.index} of {self.count}' if self.count > 1 else ''

  @property
  def is_first(self) -> bool:
    return self.index == 0

  def wait(self, what: str) -> None:
    """Waits until every process is here."""
    if self.count > 1 and self.barrier is not None:
      self.barrier(what)


ALONE = Host()


def here(shard: tuple[int, int] | None = None) -> Host:
  """This process's place in JAX's."""
  import jax

  return Host(jax.process_index(), jax.process_count(), shard, _barrier)


def _barrier(what: str) -> None:
  peers.here().exchange(what, None)


class JoinError(ConnectionError):
  """The hosts did not find each other; starting all of them again may help."""


def join(
  coordinator_address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Makes this process one of several; without arguments the environment (TPU, Slurm) tells which.

  A command that was not started on every host waits in here; after a minute it says so.

  Raises:
    JoinError: the others did not come, the address is wrong, or an accelerator is held by another
      process.
  """
  import jax

  _widen_cpu_pool()
  waiting = threading.Timer(WAIT_BEFORE_WARNING, logger.warning, [_WAITING])
  waiting.daemon = True
  waiting.start()
  note(
    f'not all hosts came within {JOIN_TIMEOUT} s, or the coordinator was not reached; where JAX '
    'says above "timed out task names", those are the missing ones. Start the same command on all '
    'hosts'
  )
  try:
    with _missing_are_named():
      jax.distributed.initialize(
        coordinator_address,
        num_processes,
        process_id,
        initialization_timeout=JOIN_TIMEOUT + 30,
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
      )
    jax.devices()
  except RuntimeError as error:
    raise JoinError(f'{_WAITING}. JAX says: {error}') from error
  finally:
    waiting.cancel()
  note('')
  if jax.process_count() > 1:
    peers.start(jax.process_index(), jax.process_count(), on_silence=note)


@contextlib.contextmanager
def _missing_are_named() -> Iterator[None]:
  """Has the coordinator give up before the others do: it alone knows who has not come."""
  from jax._src import distributed

  library = getattr(distributed, '_jax', None)
  service = getattr(library, 'get_distributed_runtime_service', None)
  if library is None or service is None:  # another release of JAX
    yield
    return
  library.get_distributed_runtime_service = functools.partial(
    service, cluster_register_timeout=JOIN_TIMEOUT
  )
  try:
    yield
  finally:
    library.get_distributed_runtime_service = service


def _widen_cpu_pool() -> None:
  """Gives XLA's CPU client more threads than a small machine has cores; before there is a client.

  On CPU devices a collective blocks its thread. With a thread for each core, two processes whose
  threads all wait in different collectives of one program wait for ever.
  """
  if (os.cpu_count() or 1) < CPU_THREADS:
    os.environ.setdefault('NPROC', str(CPU_THREADS))


_to_watcher: int | None = None  # the pipe to the child of `watched`


def note(text: str) -> None:
  """What `watched` is to say if this process is ended by force from now on; '' takes it back."""
  if _to_watcher is not None:
    with contextlib.suppress(OSError):
      os.write(_to_watcher, f'{" ".join(text.split())[:2000]}\n'.encode())


def _farewell(unused_reason: str = '') -> None:
  """This process ends, and has said why."""
  if _to_watcher is not None:
    with contextlib.suppress(OSError):
      os.write(_to_watcher, b'.\n')


@contextlib.contextmanager
def watched() -> Iterator[None]:
  """Explains the end of this process if it is ended by force inside the block.

  When a host is lost, JAX ends the others from within compiled code, where no Python runs any more.
  So a child process, forked before anything is loaded, waits for this one to end, and speaks if it
  ended without a word. POSIX only.
  """
  global _to_watcher
  read, write = os.pipe()
  if os.fork() == 0:
    os.close(write)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
      signal.signal(number, signal.SIG_IGN)
    with os.fdopen(read, errors='replace') as told:
      last = [line.rstrip('\n') for line in told][-1:]
    if last != ['.']:
      reason = last[0] if last and last[0] else _BY_FORCE
      said = f'this process was ended by force ({reason}). Most likely {LOST_HOST}'
      os.write(2, f'\naya-train: error: {said}\n'.encode())
    os._exit(0)
  os.close(read)
  _to_watcher = write
  watchdog.before_exit.append(_farewell)
  try:
    yield
  finally:
    _farewell()
    watchdog.before_exit.remove(_farewell)
    _to_watcher = None
    os.close(write)


def is_lost(error: BaseException) -> bool:
  """Whether an error means that another host is gone."""
  if isinstance(error, peers.MissingHostError):
    return True
  named = type(error).__name__ in ('JaxRuntimeError', 'XlaRuntimeError')
  return named and several() and memory_limits.exhausted(error) is None


def describe_lost(error: BaseException) -> str:
  """What an error of `is_lost` means: which host is lost, as far as it is known."""
  if isinstance(error, peers.MissingHostError):
    return str(error)
  first = str(error).strip().splitlines()[:1]
  who = peers.lost()
  return f'{f"{who}: " if who else ""}{LOST_HOST} ({"".join(first)[:500]})'


def several() -> bool:
  """Whether this process has joined others."""
  jax = sys.modules.get('jax')
  return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
  """Whether this is the first process of a run, or the only one; without JAX it is."""
  return not several() or sys.modules['jax'].process_index() == 0


class ElsewhereError(ValueError):
  """Another host found something wrong; its own message says what."""


@contextlib.contextmanager
def together() -> Iterator[None]:
  """Fails on every host if the block fails on one, so that none waits for a host that has gone.

  Raises:
    ElsewhereError: the block failed on another host only.
  """
  problem: Exception | None = None
  try:
    yield
  except Exception as error:
    problem = error
  if several():
    failed = peers.here().exchange(_place(), problem is not None)
    if problem is None and any(failed):
      raise ElsewhereError(f'host {failed.index(True)} cannot go on; its message says why')
  if problem is not None:
    raise problem


def first_says(value: Any) -> Any:
  """What the first host says, on every host; JSON."""
  if not several():
    return value
  return peers.here().exchange(_place(), value)[0]


def _place() -> str:
  return f'checks at {watchdog.standing().phase!r}'


def any_says(value: str | None) -> str | None:
  """What the first host that has something to say says, on every host."""
  if not several():
    return value
  import jax
  import numpy as np
  from jax.experimental import multihost_utils

  speaking = np.flatnonzero(multihost_utils.process_allgather(np.array(value is not None)))
  if not speaking.size:
    return None
  source = int(speaking[0]) == jax.process_index()
  mine = np.frombuffer((value or '').encode(), np.uint8)
  size = int(multihost_utils.broadcast_one_to_all(np.array(mine.size), is_source=source))
  padded = np.zeros(size, np.uint8)
  padded[: min(size, mine.size)] = mine[:size]
  return multihost_utils.broadcast_one_to_all(padded, is_source=source).tobytes().decode()


def leave(code: int) -> None:
  """Ends this process; after an error at once, without waiting for hosts that wait for this one."""
  if code and several():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  if code:
    for number in (signal.SIGTERM, signal.SIGINT):  # one more while Python ends would hide the code
      signal.signal(number, signal.SIG_IGN)
  sys.exit(code)

"""Several hosts: joining them, and saying what happened when one of them is lost."""

import contextlib
import dataclasses
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from aya_train import memory_limits

logger = logging.getLogger(__name__)

WAIT_BEFORE_WARNING = 60  # seconds
HEARTBEAT_TIMEOUT = 30  # seconds after which JAX counts a silent host as lost
LOST_HOST = (
  'another host stopped, or the network between hosts failed, so this one stops too. Start the '
  'same command again on all hosts: the run goes on from its newest checkpoint'
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
  from jax.experimental import multihost_utils

  return Host(jax.process_index(), jax.process_count(), shard, multihost_utils.sync_global_devices)


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
  try:
    jax.distributed.initialize(
      coordinator_address,
      num_processes,
      process_id,
      heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
    )
    jax.devices()
  except RuntimeError as error:
    raise JoinError(f'{_WAITING}. JAX says: {error}') from error
  finally:
    waiting.cancel()


def _widen_cpu_pool() -> None:
  """Gives XLA's CPU client more threads than a small machine has cores; before there is a client.

  On CPU devices a collective blocks its thread. With a thread for each core, two processes whose
  threads all wait in different collectives of one program wait for ever.
  """
  if (os.cpu_count() or 1) < CPU_THREADS:
    os.environ.setdefault('NPROC', str(CPU_THREADS))


@contextlib.contextmanager
def watched() -> Iterator[None]:
  """Explains the end of this process if it is ended by force inside the block.

  When a host is lost, JAX ends the others from within compiled code, where no Python runs any more.
  So a child process, forked before anything is loaded, waits for this one to end, and speaks if it
  ended without a word. POSIX only.
  """
  read, write = os.pipe()
  if os.fork() == 0:
    os.close(write)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
      signal.signal(number, signal.SIG_IGN)
    if not os.read(read, 1):
      os.write(
        2,
        f'\naya-train: error: this process was ended by force. Most likely {LOST_HOST}\n'.encode(),
      )
    os._exit(0)
  os.close(read)
  try:
    yield
  finally:
    os.write(write, b'.')
    os.close(write)


def is_lost(error: BaseException) -> bool:
  """Whether an error means that another host is gone."""
  named = type(error).__name__ in ('JaxRuntimeError', 'XlaRuntimeError')
  return named and several() and memory_limits.exhausted(error) is None


def several() -> bool:
  """Whether this process has joined others."""
  jax = sys.modules.get('jax')
  return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


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
    import numpy as np
    from jax.experimental import multihost_utils

    failed = np.flatnonzero(multihost_utils.process_allgather(np.array(problem is not None)))
    if problem is None and failed.size:
      raise ElsewhereError(f'host {failed[0]} cannot go on; its message says why')
  if problem is not None:
    raise problem


def first_says(value: Any) -> Any:
  """What the first host says, on every host; JSON."""
  if not several():
    return value
  import numpy as np
  from jax.experimental import multihost_utils

  mine = np.frombuffer(json.dumps(value).encode(), np.uint8)
  size = int(multihost_utils.broadcast_one_to_all(np.array(mine.size)))
  padded = np.zeros(size, np.uint8)
  padded[: min(size, mine.size)] = mine[:size]
  return json.loads(multihost_utils.broadcast_one_to_all(padded).tobytes())


def leave(code: int) -> None:
  """Ends this process; after an error at once, without waiting for hosts that wait for this one."""
  if code and several():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)

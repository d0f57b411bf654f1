"""A trace of a few training steps, for TensorBoard's profiler, XProf and Perfetto."""

import logging
import pathlib
import time
from typing import Any

import jax

logger = logging.getLogger(__name__)


def check(steps: Any, name: str = 'PROFILE_STEPS') -> tuple[int, int] | None:
  """The first and the last step to be traced, or None.

  Raises:
    ValueError: not None and not two steps from 1 on in their order.
  """
  if steps is None:
    return None
  pair = tuple(steps) if isinstance(steps, list | tuple) else ()
  whole = len(pair) == 2 and all(isinstance(x, int) and not isinstance(x, bool) for x in pair)
  if not whole or not 1 <= pair[0] <= pair[1]:
    raise ValueError(
      f'{name} must be None, or the first and the last step to trace, counted from 1 where this '
      f'command begins, such as (10, 15); got {steps!r}'
    )
  return pair


def _ends_the_process() -> bool:
  maps = pathlib.Path('/proc/self/maps')
  loaded = maps.exists() and 'libtpu' in maps.read_text(encoding='utf-8', errors='replace')
  return loaded and jax.default_backend() != 'tpu'


def _options() -> Any:
  options = jax.profiler.ProfileOptions()
  # Python's own calls are left out: they slow the loop that is measured, and the tracer of them
  # reads frames of other threads, which has ended a process.
  options.python_tracer_level = 0
  return options


class StepTrace:
  """Traces some of the steps that a process makes. Every host writes its own."""

  def __init__(self, steps: tuple[int, int] | None, folder: str):
    """`steps` as of `check`; the trace is written to plugins/profile of `folder`, a path or URL."""
    self._first, self._last = steps or (0, 0)
    self._folder = folder
    self._made = 0
    self._since: float | None = None

  def begin(self) -> None:
    """A step begins: its batch is drawn next."""
    self._made += 1
    if self._made == self._first and _ends_the_process():
      logger.warning(
        'no trace: libtpu is loaded in this process and has no TPU, so its tracer would end the '
        'run; set JAX_PLATFORMS=cpu'
      )
    elif self._made == self._first:
      logger.info('tracing steps %d to %d of this process', self._first, self._last)
      jax.profiler.start_trace(self._folder, profiler_options=_options())
      self._since = time.monotonic()

  def end(self, results: Any) -> None:
    """A step was given to the devices; `results` are theirs."""
    if self._since is not None and self._made == self._last:
      self.close(results)

  def close(self, results: Any = None) -> None:
    """Writes the trace, if one is being made; it ends when `results` are there."""
    if self._since is None:
      return
    jax.block_until_ready(results)
    seconds, self._since = time.monotonic() - self._since, None
    jax.profiler.stop_trace()
    logger.info(
      'steps %d to %d took %.2f s and their trace is in %s/plugins/profile: tensorboard --logdir '
      '%s with its plugin xprof shows it, and ui.perfetto.dev opens its trace.json.gz',
      *(self._first, min(self._made, self._last), seconds, self._folder, self._folder),
    )

  @property
  def missed(self) -> bool:
    """Steps were to be traced, and the process made too few for the first of them."""
    return self._first > self._made

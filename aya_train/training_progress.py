"""What people see of a run between evaluations: figures and a line at times, with an ETA."""

import contextlib
import functools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from aya_train import batch_progress, metric_writer
from aya_train.objectives import objective

WORTH_SAYING = 0.1  # of the time

logger = logging.getLogger(__name__)


class TrainingProgress:
  """Counts the time of training alone; what else happens between steps is left out."""

  def __init__(
    self, model: objective.Objective, writer: metric_writer.Writer, step: int, last_step: int
  ):
    """Begins to count at `step`, of `last_step`."""
    self._model, self._writer = model, writer
    self._step, self._begin, self._last_step = step, step, last_step
    self._seconds, self._mark, self._waited = 0.0, time.monotonic(), 0.0

  def go_on(self) -> None:
    """Training goes on, after something else."""
    self._mark = time.monotonic()

  @contextlib.contextmanager
  def waiting_for_data(self) -> Iterator[None]:
    """Around the drawing of a batch: the time counts as `data_wait_fraction`."""
    begin = time.monotonic()
    with jax.profiler.TraceAnnotation('next_batch'):
      yield
    self._waited += time.monotonic() - begin

  def report(self, sums: Sequence[Mapping[str, Any]], step: int) -> None:
    """Writes and logs the figures of the steps since the last call.

    To the objective's figures comes `data_wait_fraction`, in [0, 1]: how much of the time the loop
    waited for batches. The devices may have been busy with the step before.

    Args:
      sums: what `train_step.train_step` gave at each of them that counts, on the host.
      step: the last of them.
    """
    self._seconds += (seconds := time.monotonic() - self._mark)
    eta = self._seconds / (step - self._begin) * (self._last_step - step)
    waited, self._waited = self._waited / max(seconds, 1e-9), 0.0
    line = 'every batch was skipped'
    if sums:
      summary = self._model.train_summary(functools.reduce(metric_writer.add, sums), seconds)
      summary = {**summary, 'data_wait_fraction': waited}
      self._writer.write(step, 'train', summary)
      line = self._model.train_line(summary)
      if waited >= WORTH_SAYING:
        line += f'  {100 * waited:.0f} % of the time waiting for data'
    logger.info('step %d/%d  %s  ETA %s', step, self._last_step, line, batch_progress.clock(eta))

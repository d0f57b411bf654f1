"""What people see of a run between evaluations: figures and a line at times, with an ETA."""

import functools
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from aya_train import batch_progress, metric_writer
from aya_train.objectives import objective

logger = logging.getLogger(__name__)


class TrainingProgress:
  """Counts the time of training alone; what else happens between steps is left out."""

  def __init__(
    self, model: objective.Objective, writer: metric_writer.Writer, step: int, last_step: int
  ):
    """Begins to count at `step`, of `last_step`."""
    self._model, self._writer = model, writer
    self._step, self._begin, self._last_step = step, step, last_step
    self._seconds, self._mark = 0.0, time.monotonic()

  def go_on(self) -> None:
    """Training goes on, after something else."""
    self._mark = time.monotonic()

  def report(self, sums: Sequence[Mapping[str, Any]], step: int) -> None:
    """Writes and logs the figures of the steps since the last call.

    Args:
      sums: what `train_step.train_step` gave at each of them that counts, on the host.
      step: the last of them.
    """
    self._seconds += (seconds := time.monotonic() - self._mark)
    eta = self._seconds / (step - self._begin) * (self._last_step - step)
    line = 'every batch was skipped'
    if sums:
      summary = self._model.train_summary(functools.reduce(metric_writer.add, sums), seconds)
      self._writer.write(step, 'train', summary)
      line = self._model.train_line(summary)
    logger.info('step %d/%d  %s  ETA %s', step, self._last_step, line, batch_progress.clock(eta))

"""What a run measures between its steps: validation loss and decoded metrics."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aya_train import hosts, lease, metric_writer, partitioning, train_state, watchdog
from aya_train.data import batching, task_registry
from aya_train.evaluation import evaluation, infer_evaluator
from aya_train.objectives import objective

logger = logging.getLogger(__name__)


class RunEvaluations:
  """What is measured between steps, and where it is written.

  Attributes:
    failures: what evaluations raised, by what and when.
  """

  def __init__(
    self,
    model: objective.Objective,
    partitioner: partitioning.Partitioner,
    eval_steps: int | None,
    validation: Callable[[], Any] | None,
    decoder: infer_evaluator.InferEvaluator | None,
    model_dir: str,
    held: lease.Lease,
    between: Callable[[], None],
  ):
    """As the attributes; `between` is called between two batches, and may end an evaluation."""
    self.writer = metric_writer.Writer(model_dir, held.check)
    self.failures: dict[str, Exception] = {}
    self._eval_steps, self._validation, self._decoder = eval_steps, validation, decoder
    self._model, self._partitioner, self._model_dir = model, partitioner, model_dir
    self._between = between
    self._eval_step = evaluation.make_eval_step(model, partitioner)

  def has(self, *, losses: bool, decode: bool) -> bool:
    """Whether there is anything to measure of what is due."""
    return (losses and self._validation is not None) or (decode and self._decoder is not None)

  def run(self, state: train_state.TrainState, step: int, *, losses: bool, decode: bool) -> None:
    """Measures; what fails is logged and kept in `failures`."""
    failed: dict[str, Exception] = {}
    if losses and self._validation is not None:
      try:
        self._losses(state, step)
      except Exception as error:
        if hosts.is_lost(error) or isinstance(error, lease.LostError):
          raise
        failed['validation loss'] = error
    if decode and self._decoder is not None:
      self._decode(state, step, self._decoder.tasks, failed)
    self._note(step, failed)

  def run_missing(
    self, state: train_state.TrainState, step: int, *, losses: bool, decode: bool
  ) -> None:
    """Measures what was due at this step, and is not in metrics.jsonl: the run ended before."""
    seen = metric_writer.kinds_of_step(self._model_dir, step)
    tasks = self._decoder.tasks if decode and self._decoder is not None else []
    missing = [name for name in tasks if f'infer_eval/{name}' not in seen]
    lost_losses = losses and self._validation is not None and 'train_eval' not in seen
    if hosts.first_says(lost_losses):
      self.run(state, step, losses=True, decode=False)
    if missing := hosts.first_says(missing):
      failed: dict[str, Exception] = {}
      self._decode(state, step, missing, failed)
      self._note(step, failed)

  def _losses(self, state: train_state.TrainState, step: int) -> None:
    assert self._validation is not None
    with watchdog.phase(f'validation loss of step {step}'):
      batches = _take(self._validation(), self._eval_steps)
      summary = evaluation.train_eval(
        self._model, self._eval_step, state.all_params, batches, self._partitioner, self._between
      )
    self.writer.write(step, 'train_eval', summary)
    logger.info('step %d  validation: %s', step, self._model.eval_line(summary))

  def _decode(
    self,
    state: train_state.TrainState,
    step: int,
    tasks: Sequence[str],
    failed: dict[str, Exception],
  ) -> None:
    assert self._decoder is not None
    for name in tasks:
      found = self._decoder.evaluate(
        state.all_params, step, tasks=[name], failures=failed, between=self._between
      )
      for task, values in found.items():
        self.writer.write(step, f'infer_eval/{task}', values)
        overall = {name: v for name, v in values.items() if '/' not in name}
        shown = ', '.join(f'{name} {v:.2f}' for name, v in overall.items())
        logger.info('step %d  decoded %s: %s', step, task, shown)

  def _note(self, step: int, failed: Mapping[str, Exception]) -> None:
    self.writer.flush()
    if failed:
      logger.error('step %d  evaluation failed: %s', step, evaluation.describe_failures(failed))
    self.failures |= {f'{name} at step {step}': error for name, error in failed.items()}


def prepared_validation(
  cfg: batching.DatasetConfig | None,
  host: hosts.Host,
  model: objective.Objective,
  eval_steps: int | None,
) -> Callable[[], Any] | None:
  """Prepares the validation data, so that no evaluation waits for it.

  Returns:
    What gives the batches of one evaluation; None if there is nothing to evaluate on.
  """
  if cfg is None:
    return None
  try:
    # A few batches are to be of all tasks; in the order of the files they would be of the first.
    return batching.open_eval(cfg, host, model.feature_converter, sample=eval_steps is not None)
  except task_registry.EmptySplitError as error:
    logger.warning('no validation loss: %s', error)
    return None


def _take(batches: Any, limit: int | None) -> Any:
  for i, batch in enumerate(batches):
    if limit is not None and i >= limit:
      return
    yield batch

"""What a run does about a step that gives NaN or infinity: stop, or skip its batch, never silently.

A compiled step says what of it is not finite (`train_step.NONFINITE`). Here the figures of such
steps are sifted out, and the batch is drawn again from the data and kept for study:

    MODEL_DIR/nonfinite/step_<N>.npz    the arrays that the step was given
                       /step_<N>.json   the same as people read it, and what went wrong

On several hosts each keeps its rows: step_<N>.host_<i>_of_<n>.
"""

import dataclasses
import io
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from aya_train import hosts, metric_writer, train_state, train_step
from aya_train.finiteness import NonFiniteError
from aya_train.objectives import objective

logger = logging.getLogger(__name__)

KIND = 'nonfinite'  # of records in metrics.jsonl
FOLDER = 'nonfinite'
STOP, SKIP = 'stop', 'skip_batch'


@dataclasses.dataclass(frozen=True)
class NonFiniteConfig:
  """What happens at a step whose loss, gradient, parameters or moments are not finite.

  Attributes:
    policy: 'stop' ends the run, its newest checkpoint being good. 'skip_batch' lets the compiled
      step refuse the update: parameters and moments stay as they were, the counts go on.
    max_skips: batches that a run may skip, restarts included; one more stops it.
  """

  policy: str = STOP
  max_skips: int = 10

  def __post_init__(self):
    if self.policy not in (STOP, SKIP):
      raise ValueError(f'NONFINITE_POLICY must be {STOP!r} or {SKIP!r}, got {self.policy!r}')
    if self.max_skips < 1:
      raise ValueError(f'NONFINITE_MAX_SKIPS must be at least 1, got {self.max_skips!r}')

  @property
  def skips(self) -> bool:
    return self.policy == SKIP


class NonFiniteSteps:
  """Sifts the steps of a run; every method is called by every host."""

  def __init__(
    self,
    config: NonFiniteConfig,
    model: objective.Objective,
    iterator: Any,
    writer: metric_writer.Writer,
    model_dir: epath.PathLike,
    state: train_state.TrainState,
  ):
    """Begins at `state`, whose batch was the last that the iterator gave."""
    self._config, self._model, self._iterator = config, model, iterator
    self._writer, self._folder = writer, epath.Path(model_dir) / FOLDER
    self._names = train_step.checked_names(state)
    self._mark = (int(state.step), iterator.get_state())
    self._skips = hosts.first_says(_skips_until(model_dir, self._mark[0]))

  def sift(self, sums: Sequence[Mapping[str, Any]], step: int) -> list[dict[str, Any]]:
    """Takes out the steps that were not finite; says, keeps and records each of them.

    Args:
      sums: on the host, of every step since the last call.
      step: the last of them, whose batch the iterator gave last.

    Returns:
      The sums of the other steps, of which figures can be made.

    Raises:
      NonFiniteError: the policy is to stop, or too many were skipped; names step and array.
    """
    indices = [int(each[train_step.NONFINITE]) for each in sums]
    first = step - len(sums) + 1
    bad = {first + i: self._names[index] for i, index in enumerate(indices) if index >= 0}
    if bad:
      # After a step that was not refused, all others are its consequence.
      self._handle(bad if self._config.skips else dict([min(bad.items())]))
    self._mark = (step, self._iterator.get_state())
    return [
      {name: x for name, x in each.items() if name != train_step.NONFINITE}
      for each, index in zip(sums, indices, strict=True)
      if index < 0
    ]

  def _handle(self, bad: Mapping[int, str]) -> None:
    batches = self._drawn_again([*bad])
    for step, found in bad.items():
      path = self._keep(step, found, batches[step])
      what = f'step {step}: {found} became NaN or infinite'
      if not self._config.skips:
        self._record(step, found, skipped=False)
        raise NonFiniteError(
          f'{what}. Its batch is kept in {path}: look at it, lower the learning rate, or pass over '
          f'such batches with NONFINITE_POLICY = {SKIP!r}'
        )
      self._skips += 1
      allowed = self._config.max_skips
      if self._skips > allowed:
        raise NonFiniteError(
          f'{what}. This makes {self._skips} batches to skip, and NONFINITE_MAX_SKIPS is '
          f'{allowed}; the batch is kept in {path}. Lower the learning rate, or look at what these '
          'batches share'
        )
      self._record(step, found, skipped=True)
      logger.warning(
        '%s; the update was refused and its batch was skipped (%d of at most %d); it is kept in %s',
        *(what, self._skips, allowed, path),
      )

  def _record(self, step: int, found: str, *, skipped: bool) -> None:
    values = {'found_in': found, 'skipped': int(skipped), 'skips': self._skips}
    self._writer.write(step, KIND, values)

  def _drawn_again(self, steps: Sequence[int]) -> dict[int, Mapping[str, np.ndarray]]:
    """This host's batches of some steps since the mark; the iterator is left where it was."""
    now = self._iterator.get_state()
    step, state = self._mark
    self._iterator.set_state(state)
    batches = {}
    while step < max(steps):
      step, batch = step + 1, next(self._iterator)
      if step in steps:
        batches[step] = batch
    self._iterator.set_state(now)
    return batches

  def _keep(self, step: int, found: str, batch: Mapping[str, np.ndarray]) -> epath.Path:
    """Writes a batch; that it cannot be written hides nothing of what is wrong."""
    index, count = jax.process_index(), jax.process_count()
    name = f'step_{step}' + (f'.host_{index}_of_{count}' if count > 1 else '')
    path = self._folder / f'{name}.json'
    told = {
      'step': step,
      'found_in': found,
      'policy': self._config.policy,
      'host': index,
    }
    rows = [json.dumps(row, ensure_ascii=False) for row in self._model.readable(batch)]
    arrays = io.BytesIO()
    np.savez_compressed(arrays, allow_pickle=False, **batch)
    try:
      self._folder.mkdir(parents=True, exist_ok=True)
      (self._folder / f'{name}.npz').write_bytes(arrays.getvalue())
      # A row a line, for people.
      path.write_text(f'{json.dumps(told)[:-1]}, "rows": [\n' + ',\n'.join(rows) + '\n]}\n')
    except OSError as error:
      logger.warning('the batch of step %d cannot be kept in %s: %s', step, path, error)
    return path


def records(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
  """Of a run's metrics those of steps that were not finite, by step."""
  return [line for line in lines if line['kind'] == KIND]


def _skips_until(model_dir: epath.PathLike, step: int) -> int:
  """How many batches a run has skipped up to a step."""
  if not (epath.Path(model_dir) / metric_writer.FILE).exists():
    return 0
  found = records(metric_writer.read(model_dir))
  return sum(int(line['skipped']) for line in found if line['step'] <= step)

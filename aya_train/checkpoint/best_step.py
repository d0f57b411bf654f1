"""Which checkpoint of a run is the best by a metric of its metrics.jsonl, and that it is kept."""

import dataclasses
import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath

from aya_train import hosts, metric_writer
from aya_train.tasks import storage

logger = logging.getLogger(__name__)
FILE = 'best_checkpoint.json'
MODES = ('max', 'min')


@dataclasses.dataclass(frozen=True)
class Monitored:
  """A metric of a run, by its kind in metrics.jsonl and its name: 'infer_eval/xnli.swa/accuracy'.

  Attributes:
    name: that.
    mode: 'max' or 'min', which is better.
  """

  name: str
  mode: str = 'max'

  def values(self, model_dir: epath.PathLike) -> dict[int, float]:
    """What was measured, by step; NaN and infinity are none."""
    if not (epath.Path(model_dir) / metric_writer.FILE).exists():
      return {}
    found = {}
    for record in metric_writer.read(model_dir):
      kind = f'{record["kind"]}/'
      if self.name.startswith(kind):
        value = record.get(self.name.removeprefix(kind))
        if isinstance(value, int | float):
          found[record['step']] = float(value)
    return found

  def best(self, model_dir: epath.PathLike, steps: Iterable[int]) -> tuple[int, float] | None:
    """The best of some steps and its value, of equal ones the last; None: nothing was measured."""
    values = self.values(model_dir)
    sign = 1 if self.mode == 'max' else -1
    measured = [(sign * values[step], step) for step in steps if step in values]
    if not measured:
      return None
    step = max(measured)[1]
    return step, values[step]


class NewestAndBest:
  """Orbax's preservation policy that keeps the newest checkpoints and the best one."""

  def __init__(self, model_dir: epath.PathLike, keep: int | None, monitored: Monitored):
    """Keeps the `keep` newest; None keeps all."""
    self._model_dir, self._keep, self._monitored = model_dir, keep, monitored

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    """For each checkpoint, in the order of their steps; every host calls it."""
    del context
    steps = sorted(info.step for info in checkpoints)
    if self._keep is None:
      return [True] * len(checkpoints)
    best = None
    if hosts.is_first():
      best = self._monitored.best(self._model_dir, steps)
    kept = {*steps[-self._keep :], hosts.first_says(None if best is None else best[0])}
    return [info.step in kept for info in checkpoints]


def note(model_dir: epath.PathLike, monitored: Monitored, steps: Iterable[int]) -> None:
  """Writes MODEL_DIR/best_checkpoint.json, and says it where another step is the best now."""
  if not hosts.is_first() or (best := monitored.best(model_dir, steps)) is None:
    return
  step, value = best
  path = epath.Path(model_dir) / FILE
  content = {
    'step': step,
    'metric_name_to_monitor': monitored.name,
    'metric_mode': monitored.mode,
    'value': value,
    'checkpoint': f'checkpoints/{step}',
  }
  text = json.dumps(content, indent=2) + '\n'
  if path.exists() and path.read_text() == text:
    return
  storage.write_atomically(path, text)
  logger.info('the best checkpoint is that of step %d: %s %.6g', step, monitored.name, value)

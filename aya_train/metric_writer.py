"""Sums over steps, and figures for people: TensorBoard events and a JSON-lines file."""

import json
import logging
import math
from collections.abc import Mapping
from typing import Any

import jax
from clu import metric_writers
from etils import epath

logger = logging.getLogger(__name__)
FILE = 'metrics.jsonl'
NONFINITE = 'not_finite'  # in a line: names of the figures that were left out of it


def add(total: Mapping[str, Any] | None, new: Mapping[str, Any]) -> dict[str, Any]:
  """Adds two sets of sums; None is the empty set."""
  return dict(new) if total is None else jax.tree.map(lambda a, b: a + b, total, dict(new))


class Writer:
  """Writes figures to TensorBoard and to metrics.jsonl; on the first host only.

  Each line is {"step": int, "kind": str, name: number, ...}. A restarted run appends.
  """

  def __init__(self, model_dir: epath.PathLike):
    self._active = jax.process_index() == 0
    if self._active:
      self._path = epath.Path(model_dir) / FILE
      self._path.parent.mkdir(parents=True, exist_ok=True)
      self._summary = metric_writers.SummaryWriter(str(model_dir))

  def write(self, step: int, kind: str, values: Mapping[str, float | str]) -> None:
    """Adds a line; a figure that is NaN or infinite is left out, and named in it and in the log.

    Args:
      step: of the run.
      kind: 'train', 'train_eval/<task>' or 'infer_eval/<task>', the TensorBoard prefix.
      values: figures by name; texts are in metrics.jsonl alone.
    """
    if not self._active:
      return
    texts = {name: v for name, v in values.items() if isinstance(v, str)}
    numbers = {name: float(v) for name, v in values.items() if name not in texts}
    finite = {name: v for name, v in numbers.items() if math.isfinite(v)}
    if left_out := sorted({*numbers} - {*finite}):
      logger.warning('step %d: %s: %s NaN or infinite, and left out', step, kind, left_out)
      texts[NONFINITE] = ', '.join(left_out)
    self._summary.write_scalars(step, {f'{kind}/{name}': v for name, v in finite.items()})
    with self._path.open('a') as f:
      f.write(
        json.dumps({'step': step, 'kind': kind, **texts, **finite}, ensure_ascii=False) + '\n'
      )

  def flush(self) -> None:
    if self._active:
      self._summary.flush()


def kinds_of_step(model_dir: epath.PathLike, step: int) -> set[str]:
  """What a run has measured at a step, by kind, without figures that were not finite."""
  if not (epath.Path(model_dir) / FILE).exists():
    return set()
  return {
    record['kind']
    for record in read(model_dir)
    if record['step'] == step and NONFINITE not in record
  }


def read(model_dir: epath.PathLike) -> list[dict[str, Any]]:
  """The lines of a run's metrics.jsonl; of a step written twice (a restart), the later one.

  Raises:
    FileNotFoundError: the run has written none.
  """
  path = epath.Path(model_dir) / FILE
  if not path.exists():
    raise FileNotFoundError(f'no {FILE} in {model_dir}: is it the MODEL_DIR of a run?')
  lines = {}
  for line in path.read_text().splitlines():
    record = json.loads(line)
    lines[record['kind'], record['step']] = record
  return sorted(lines.values(), key=lambda r: r['step'])

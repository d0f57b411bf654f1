"""Sums over steps, and figures for people: TensorBoard events and a JSON-lines file."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath

from aya_train import disk_writes, json_lines, signed_json

logger = logging.getLogger(__name__)
FILE = 'metrics.jsonl'
NONFINITE = 'not_finite'  # in a line: names of the figures that were left out of it


def add(total: Mapping[str, Any] | None, new: Mapping[str, Any]) -> dict[str, Any]:
  """Adds two sets of sums; None is the empty set."""
  return dict(new) if total is None else jax.tree.map(lambda a, b: a + b, total, dict(new))


class Writer:
  """Writes figures to TensorBoard and to metrics.jsonl; on the first host only.

  Each line is {"step": int, "kind": str, name: number, ..., "sha256": str}. The digest is of the
  rest, since figures say which checkpoint is kept. A restarted run appends. Nothing is touched
  before the first figure is written.
  """

  def __init__(self, model_dir: epath.PathLike, check: Callable[[], None] = lambda: None):
    """Writes to `model_dir`; `check` is called before each figure, and raises if it may not."""
    self._active = jax.process_index() == 0
    self._folder, self._check = epath.Path(model_dir), check
    self._path = self._folder / FILE
    self._summary: Any = None

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
    record = {'step': step, 'kind': kind, **texts, **finite}
    line = signed_json.dump(record) + '\n'
    if self._summary is None:
      self._check()
      self._folder.mkdir(parents=True, exist_ok=True)
      json_lines.mend_end(self._path)
      from clu import metric_writers  # TensorFlow comes with it

      self._summary = metric_writers.SummaryWriter(str(self._folder))
    self._check()  # the last thing before
    with disk_writes.named(self._path), self._path.open('a') as f:
      f.write(line)
    self._summary.write_scalars(step, {f'{kind}/{name}': v for name, v in finite.items()})

  def flush(self) -> None:
    if self._summary is not None:
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
  """The lines of a run's metrics.jsonl, by step.

  A run that goes on from a checkpoint repeats the steps behind it. So a line is superseded by a
  later one of its kind at the same or an earlier step. Torn and changed lines are left out, with a
  warning; those of earlier versions have no digest, and are taken.

  Raises:
    FileNotFoundError: the run has written none.
  """
  path = epath.Path(model_dir) / FILE
  if not path.exists():
    raise FileNotFoundError(f'no {FILE} in {model_dir}: is it the MODEL_DIR of a run?')
  kinds: dict[str, list[dict[str, Any]]] = {}
  for _, record in json_lines.read(path, _is_record):
    kept = kinds.setdefault(record['kind'], [])
    while kept and kept[-1]['step'] >= record['step']:
      kept.pop()
    kept.append(signed_json.bare(record))
  return sorted((r for kept in kinds.values() for r in kept), key=lambda r: r['step'])


def _is_record(value: Any) -> bool:
  return (
    isinstance(value, dict)
    and isinstance(value.get('kind'), str)
    and isinstance(value.get('step'), int)
    and not signed_json.is_changed(value)
  )

"""`aya-train eval`: loss on held-out batches, and metrics of real decodings (infer_eval.py)."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from aya_train import (
  destinations,
  eval_metrics,
  finiteness,
  hosts,
  infer_eval,
  lease,
  metric_writer,
  partitioning,
  run_dir,
  stopping,
  train_step,
  watchdog,
)
from aya_train.data import batching, task_registry
from aya_train.objectives import objective

Batch = Mapping[str, np.ndarray]
logger = logging.getLogger(__name__)


def _nothing() -> None:
  pass


def train_eval(
  model: objective.Objective,
  step_fn: Callable[..., Any],
  params: Any,
  batches: Iterable[Batch],
  partitioner: partitioning.Partitioner,
  between: Callable[[], None] = _nothing,
) -> dict[str, float]:
  """The objective's figures (`eval_summary`) of held-out batches.

  Args:
    model: the objective.
    step_fn: `make_eval_step`'s result.
    params: parameters.
    batches: this host's rows of each batch; every host must have as many batches.
    partitioner: joins the hosts' rows.
    between: called before each batch, by every host; what it raises ends the evaluation.

  Raises:
    ValueError: no batch, or no token with a weight in them.
    finiteness.NonFiniteError: a figure is NaN or infinite.
  """
  sums = None
  for batch in batches:
    between()
    new = step_fn(params, partitioner.to_global(batch))
    jax.block_until_ready(sums)  # two batches at most are under way, and a signal waits for no more
    sums = metric_writer.add(sums, new)
    watchdog.expect(next(iter(sums.values())))
  if sums is None:
    raise ValueError('no batch to evaluate: the split is empty or EVAL_STEPS is 0')
  sums = jax.device_get(sums)
  if empty := [name for name in ('denominator', 'target_tokens') if sums.get(name, 1) == 0]:
    raise ValueError(
      f'nothing to evaluate: the {empty[0].replace("_", " ")} of {int(sums["steps"])} batches is '
      '0; are all targets empty, or their loss weights 0?'
    )
  summary = model.eval_summary(sums)
  finiteness.check_figures(
    summary,
    f'of {int(sums["steps"])} batches',
    'The parameters are finite, so activations overflow or the objective divides by 0: '
    "ACTIVATION_DTYPE = 'float32' tells which",
  )
  return summary


def make_eval_step(model: objective.Objective, partitioner: partitioning.Partitioner) -> Any:
  """Compiled `train_step.eval_step` for one objective and mesh."""

  def eval_step(params: Any, batch: Any) -> Any:
    return train_step.eval_step(params, batch, objective=model)

  return partitioner.jit(eval_step, out_shardings=partitioner.replicated)


def evaluate(
  *,
  model: objective.Objective,
  checkpoint_path: str,
  partitioner: partitioning.Partitioner,
  output_dir: str,
  dataset_cfg: batching.DatasetConfig | None = None,
  infer_eval_cfg: infer_eval.InferEvalConfig | None = None,
) -> dict[str, dict[str, float]]:
  """`aya-train eval`: loss and decoded metrics of one checkpoint.

  What a mixture has no metrics for is not decoded, and a line says so.

  Args:
    model, partitioner: as for training.
    checkpoint_path: weights, of any format of checkpoint/formats.py.
    output_dir: gets metrics.jsonl, TensorBoard events and the inferences as JSON lines; no
      MODEL_DIR, and written by one process at a time.
    dataset_cfg: data for the loss, or None.
    infer_eval_cfg: tasks to decode, or None.

  Returns:
    Figures by name of what was measured.

  Raises:
    ValueError, FileNotFoundError, OSError: what cannot be read, measured or written, before any of
      it begins; or a metric that failed, after everything else is written.
  """
  from aya_train.checkpoint import answering, formats

  model.check_vocabulary()
  for cfg in (dataset_cfg, infer_eval_cfg):
    if cfg is None:
      continue
    task_registry.get_mixture_or_task(cfg.mixture_or_task_name)
    partitioner.check_batch_size(cfg.batch_size)
  if dataset_cfg is None and infer_eval_cfg is None:
    raise ValueError('nothing to evaluate: DATASET_CFG and INFER_EVAL_CFG are None')
  if (epath.Path(output_dir) / run_dir.FILE).exists():
    raise ValueError(
      f'EVAL_OUTPUT_DIR {output_dir} is the MODEL_DIR of a run, whose own figures are there: give '
      f'another folder, such as {epath.Path(output_dir) / "eval"}'
    )
  source = formats.detect(checkpoint_path)
  formats.check(source, objective.parameter_axes(model)[0], model)
  if model.config is not None:
    answering.check_plain(source, 'an evaluation')
  with hosts.together():
    if jax.process_index() == 0:
      if dataset_cfg is not None:
        batching.survey(dataset_cfg, allow_empty=True)
      destinations.check_folder(output_dir, 'EVAL_OUTPUT_DIR', files=(metric_writer.FILE,))
  with stopping.stop_on_signal() as stop, lease.held(output_dir, 'EVAL_OUTPUT_DIR', 'eval') as held:
    evaluator = infer_eval.decoder(
      model, partitioner, infer_eval_cfg, output_dir, required=dataset_cfg is None
    )
    batches = None
    if dataset_cfg is not None:
      batches = batching.open_eval(
        dataset_cfg, hosts.here(partitioner.data_shard), model.feature_converter
      )
    params, writer = (
      formats.read_for(model, partitioner, source),
      metric_writer.Writer(output_dir, held.check),
    )
    results: dict[str, dict[str, float]] = {}

    def record(kind: str, values: dict[str, float]) -> None:
      results[kind] = values
      writer.write(0, kind, values)
      for name, value in values.items():
        logger.info('%s  %s %.4f', kind, name, value)
      writer.flush()

    if batches is not None:
      step_fn = make_eval_step(model, partitioner)
      record('train_eval', train_eval(model, step_fn, params, batches(), partitioner, stop.check))
    failures: dict[str, Exception] = {}
    if evaluator is not None:
      for task in evaluator.tasks:
        found = evaluator.evaluate(params, 0, tasks=[task], failures=failures, between=stop.check)
        for values in found.values():
          record(f'infer_eval/{task}', values)
    if failures:
      raise EvaluationError(describe_failures(failures))
    return results


class EvaluationError(ValueError):
  """An evaluation failed; everything else that was to be done is done."""


def describe_failures(failures: Mapping[str, Exception]) -> str:
  """What failed, each with the first line of why."""
  return '; '.join(f'{name} ({eval_metrics.first_line(error)})' for name, error in failures.items())

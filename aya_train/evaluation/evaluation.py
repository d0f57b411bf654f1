"""`aya-train eval`: loss on held-out batches, and metrics of answers."""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import seqio
from etils import epath

from aya_train import (
  ct2_answers,
  ct2_library,
  decode_settings,
  destinations,
  finiteness,
  hosts,
  lease,
  metric_writer,
  parameter_tree,
  partitioning,
  run_dir,
  stopping,
  train_step,
  watchdog,
)
from aya_train.data import batching, task_registry
from aya_train.evaluation import (
  eval_decoder,
  eval_metrics,
  eval_results,
  infer_eval,
  missing_tasks,
  task_outcomes,
)
from aya_train.objectives import objective, seq2seq
from aya_train.tasks import eval_tasks

Batch = Mapping[str, np.ndarray]
logger = logging.getLogger(__name__)


def _nothing() -> None:
  pass


def _eval_key() -> jax.Array:
  """Of what is drawn in evaluations: always the same."""
  return jax.random.key(0)


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
    drawn = model.draw(params, partitioner.to_global(batch), _eval_key, partitioner)
    new = step_fn(params, drawn)
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


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """What the loss of a checkpoint is measured on: a `batching.DatasetConfig` of each name.

  Attributes:
    mixture_or_task_name: SeqIO task or mixture, or several of them. One of benchmarks alone
      (`tasks.eval_tasks`), or of ranked options, has no loss.
    split, splits_of_tasks: see `infer_eval.InferEvalConfig`.
    task_feature_lengths, batch_size, pack, prepared_dir, max_truncated_fraction: as there.
  """

  mixture_or_task_name: str | Sequence[str]
  task_feature_lengths: Mapping[str, int]
  split: str | None = None
  splits_of_tasks: Mapping[str, str] = dataclasses.field(default_factory=dict)
  batch_size: int = 128
  pack: bool = True
  prepared_dir: str | None = None
  max_truncated_fraction: float = 0.1

  def datasets(self) -> list[batching.DatasetConfig]:
    """One for each name that has a loss."""
    name = self.mixture_or_task_name
    found = []
    for each in (name,) if isinstance(name, str) else name:
      tasks = seqio.get_subtasks(task_registry.get_mixture_or_task(each))
      if all(eval_tasks.is_described(task.name) or _is_ranked(task) for task in tasks):
        logger.info('%s is answered, and has no loss', each)
        continue
      settings = {
        field.name: getattr(self, field.name)
        for field in dataclasses.fields(self)
        if field.name not in ('mixture_or_task_name', 'split', 'splits_of_tasks')
      }
      split = infer_eval.split_of(each, self.split, self.splits_of_tasks)
      found.append(batching.DatasetConfig(each, split=split, shuffle=False, **settings))
    return found


def _is_ranked(task: seqio.Task) -> bool:
  metrics = eval_metrics.of_task(task)
  return bool(metrics) and all(
    metric.model_output_type == seqio.metrics.ModelOutputType.SCORE for metric in metrics
  )


def evaluate(
  *,
  model: objective.Objective,
  checkpoint_path: str,
  partitioner: partitioning.Partitioner,
  output_dir: str,
  dataset_cfg: batching.DatasetConfig | LossConfig | None = None,
  infer_eval_cfg: infer_eval.InferEvalConfig | None = None,
  base_checkpoint_path: str | None = None,
  parameter_dtype: str = 'float32',
) -> dict[str, dict[str, float]]:
  """`aya-train eval`: loss and decoded metrics of one checkpoint.

  What a mixture has no metrics for is not decoded, and a line says so. Stopped and started again it
  goes on: tasks that are done are kept, and answers that are there are not asked for again.

  Args:
    model, partitioner: as for training.
    checkpoint_path: weights, of any format of checkpoint/formats.py, or a folder of CTranslate2.
    output_dir: gets results.json and the predictions (eval_results.py), metrics.jsonl and
      TensorBoard events; no MODEL_DIR, and written by one process at a time.
    dataset_cfg: data for the loss, or None.
    infer_eval_cfg: tasks to decode, or None.
    base_checkpoint_path: of an adapter, the weights under it; None: where it says.
    parameter_dtype: of the weights in memory, 'float32' or 'bfloat16'.

  Returns:
    Figures by name of what was measured.

  Raises:
    ValueError, FileNotFoundError, OSError: what cannot be read, measured or written, before any of
      it begins; or a metric that failed, after everything else is written.
  """
  model.check_vocabulary()
  parameter_tree.check_dtype(parameter_dtype)
  eval_decoder.check(model, infer_eval_cfg)
  if dataset_cfg is None and infer_eval_cfg is None:
    raise ValueError('nothing to evaluate: DATASET_CFG and INFER_EVAL_CFG are None')
  losses = _datasets(dataset_cfg)
  for cfg in losses:
    task_registry.get_mixture_or_task(cfg.mixture_or_task_name)
    partitioner.check_batch_size(cfg.batch_size)
  for name in infer_eval_cfg.names if infer_eval_cfg is not None else ():
    task_registry.get_mixture_or_task(name)
  if (epath.Path(output_dir) / run_dir.FILE).exists():
    raise ValueError(
      f'EVAL_OUTPUT_DIR {output_dir} is the MODEL_DIR of a run, whose own figures are there: give '
      f'another folder, such as {epath.Path(output_dir) / "eval"}'
    )
  checkpoint = _Checkpoint(checkpoint_path, model, base_checkpoint_path, parameter_dtype)
  if checkpoint.source is None:
    losses = []
  with hosts.together():
    if jax.process_index() == 0:
      destinations.check_folder(output_dir, 'EVAL_OUTPUT_DIR', files=(metric_writer.FILE,))
  with stopping.stop_on_signal() as stop, lease.held(output_dir, 'EVAL_OUTPUT_DIR', 'eval') as held:
    evaluator = eval_decoder.opened(
      *(model, partitioner, infer_eval_cfg, None),
      required=not losses,
      answerer=checkpoint.answerer(infer_eval_cfg),
      keeps_examples=False,
    )
    losses = _there(losses, infer_eval_cfg)
    batches = {
      cfg.mixture_or_task_name: batching.open_eval(
        cfg, hosts.here(partitioner.data_shard), model.feature_converter
      )
      for cfg in losses
    }
    params = checkpoint.params(partitioner)
    writer = metric_writer.Writer(output_dir, held.check)
    results: dict[str, dict[str, float]] = {}

    def record(kind: str, values: Mapping[str, float]) -> None:
      results[kind] = dict(values)
      writer.write(checkpoint.step, kind, values)
      for name, value in values.items():
        logger.info('%s  %s %.4f', kind, name, value)
      writer.flush()

    step_fn = make_eval_step(model, partitioner) if batches else None
    for name, opened in batches.items():
      kind = 'train_eval' if len(batches) == 1 else f'train_eval/{name}'
      assert step_fn is not None
      record(kind, train_eval(model, step_fn, params, opened(), partitioner, stop.check))
    failures: dict[str, Exception] = {}
    if evaluator is not None and infer_eval_cfg is not None:
      kept = eval_results.Results(output_dir, checkpoint.evaluated(infer_eval_cfg))
      kept.leave_out(evaluator.left_out)
      for task in evaluator.tasks:
        outcome = evaluator.evaluate_task(
          *(task, params, checkpoint.step), failures=failures, between=stop.check, store=kept
        )
        if outcome is None:
          continue
        if outcome.is_kept:
          logger.info('%s: done before, and kept', task)
          results[f'infer_eval/{task}'] = dict(outcome.metrics)
          continue
        record(f'infer_eval/{task}', outcome.metrics)
        about = _about(task, infer_eval_cfg.split_of(task), outcome)
        kept.add(eval_results.result(outcome, about))
        for note in outcome.notes:
          logger.info('%s: %s', task, note)
    if failures:
      raise EvaluationError(describe_failures(failures))
    return results


def _datasets(cfg: batching.DatasetConfig | LossConfig | None) -> list[batching.DatasetConfig]:
  if cfg is None:
    return []
  return cfg.datasets() if isinstance(cfg, LossConfig) else [cfg]


def _there(
  losses: Sequence[batching.DatasetConfig], cfg: infer_eval.InferEvalConfig | None
) -> list[batching.DatasetConfig]:
  """Those with data; says which others may be, and are, missing."""
  may_be_missing = cfg is not None and cfg.missing_tasks == missing_tasks.LEAVE_OUT
  there: list[bool] = []
  with hosts.together():
    for dataset in losses if hosts.is_first() else ():
      try:
        batching.survey(dataset, allow_empty=True)
      except FileNotFoundError as error:
        if not may_be_missing:
          raise
        logger.warning('no loss of %s: %s', dataset.mixture_or_task_name, error)
        there.append(False)
      else:
        there.append(True)
  return [dataset for dataset, found in zip(losses, hosts.first_says(there), strict=True) if found]


def _about(task: str, split: str, outcome: task_outcomes.Outcome) -> eval_tasks.EvalTask:
  """What a task measures, with the split that was read, and for one that nobody described how."""
  about = dataclasses.replace(eval_tasks.about(task), split=split)
  if eval_tasks.is_described(task) or not outcome.is_ranked:
    return about
  sides = seqio.TaskRegistry.get(task).output_features
  ends = sides['inputs'].add_eos and not sides['targets'].add_eos
  return dataclasses.replace(about, protocol=eval_tasks.HARNESS if ends else eval_tasks.T0)


class _Checkpoint:
  """What is evaluated, of whatever format.

  Attributes:
    source: None of a folder of CTranslate2.
    step: that it was saved at, 0 if unknown.
  """

  def __init__(self, path: str, model: objective.Objective, base: str | None, parameter_dtype: str):
    """Refuses what the model cannot answer with; no array is read."""
    from aya_train.checkpoint import answering, formats, reading, sha256sums

    self._model, self._dtype = model, parameter_dtype
    self.source: Any = None
    self._path, self.step = epath.Path(path), 0
    if ct2_library.is_folder(path):
      if hosts.several():
        raise ValueError(f'{path} is a CTranslate2 model, which runs on one host')
      sha256sums.check(path)
      return
    self.source = formats.detect(path, base)
    self._path = self.source.path
    self.step = reading.check(self.source, objective.parameter_axes(model)[0], model)
    if model.config is not None:
      answering.check_plain(self.source, 'an evaluation')

  def answerer(self, cfg: infer_eval.InferEvalConfig | None) -> ct2_answers.Ct2Answers | None:
    """What answers instead of the model; None: nothing."""
    if self.source is not None:
      return None
    if cfg is None:
      raise ValueError(
        f'{self._path} is a CTranslate2 model, whose loss is not measured: INFER_EVAL_CFG says '
        'what it is to answer'
      )
    options = ct2_answers.options_of(_decoding(self._model, cfg.task_feature_lengths))
    return ct2_answers.Ct2Answers(
      *(self._path, self._model.output_vocabulary, cfg.batch_size, options)
    )

  def params(self, partitioner: partitioning.Partitioner) -> Any:
    from aya_train.checkpoint import reading

    if self.source is None:
      return None
    return reading.read_for(self._model, partitioner, self.source, self._dtype)

  def evaluated(self, cfg: infer_eval.InferEvalConfig) -> eval_results.Evaluated:
    """As results.json says it."""
    from aya_train.checkpoint import checkpoint_identity

    print_of = ''
    with hosts.together():
      if hosts.is_first():
        print_of = checkpoint_identity.of(self._path)
    settings = {
      'mixture_or_task_name': list(cfg.names),
      'split': cfg.split,
      'splits_of_tasks': dict(cfg.splits_of_tasks),
      'task_feature_lengths': dict(cfg.task_feature_lengths),
      'task_feature_lengths_of_tasks': {k: dict(v) for k, v in cfg.lengths_of_tasks.items()},
      'num_examples': cfg.num_examples,
      'batch_size': cfg.batch_size,
      'seed': cfg.seed,
      'decoding': dict(_decoding(self._model, cfg.task_feature_lengths)),
      'activation_dtype': str(np.dtype(self._model.activation_dtype)),
      'parameter_dtype': self._dtype,
      'format': 'ctranslate2' if self.source is None else self.source.format.value,
    }
    return eval_results.Evaluated(
      *(os.fspath(self._path), hosts.first_says(print_of), self.step, self._model.metadata()),
      settings,
    )


def _decoding(model: objective.Objective, lengths: Mapping[str, int]) -> Mapping[str, Any]:
  """What the decode function does, by name; {} of a model that decodes nothing."""
  if not isinstance(model, seq2seq.EncoderDecoderModel):
    return {}
  return decode_settings.of(model.decode_fn, lengths['targets'])


class EvaluationError(ValueError):
  """An evaluation failed; everything else that was to be done is done."""


def describe_failures(failures: Mapping[str, Exception]) -> str:
  """What failed, each with the first line of why."""
  return '; '.join(f'{name} ({eval_metrics.first_line(error)})' for name, error in failures.items())

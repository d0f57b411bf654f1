"""Evaluation: loss on held-out batches, and metrics of real decodings through SeqIO's Evaluator."""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import seqio
from etils import epath
from jax.experimental import multihost_utils

from aya_train import data, metrics, partitioning, prepared, train_step
from aya_train.models import seq2seq

Batch = Mapping[str, np.ndarray]
logger = logging.getLogger(__name__)


def train_eval(
  step_fn: Callable[..., Any],
  params: Any,
  batches: Iterable[Batch],
  partitioner: partitioning.Partitioner,
) -> dict[str, float]:
  """Loss and token accuracy of teacher-forced batches (see `metrics.eval_summary`).

  Args:
    step_fn: `make_eval_step`'s result.
    params: parameters.
    batches: this host's rows of each batch; every host must have as many batches.
    partitioner: joins the hosts' rows.
  """
  sums = None
  for batch in batches:
    sums = metrics.add(sums, step_fn(params, partitioner.to_global(batch)))
  if sums is None:
    raise ValueError('no batch to evaluate: the split is empty or EVAL_STEPS is 0')
  return metrics.eval_summary(jax.device_get(sums))


def make_eval_step(model: train_step.Model, partitioner: partitioning.Partitioner) -> Any:
  """Compiled `train_step.eval_step` for one model and mesh."""

  def eval_step(params: Any, batch: Any) -> Any:
    return train_step.eval_step(params, batch, model=model)

  return partitioner.jit(eval_step, out_shardings=partitioner.replicated)


@dataclasses.dataclass(frozen=True, eq=False)
class InferEvalConfig:
  """What is decoded and scored by metrics; names follow T5X's infer_eval DatasetConfig.

  Attributes:
    mixture_or_task_name: SeqIO task or mixture with metrics.
    task_feature_lengths: lengths of inputs and targets; targets bound the decoding.
    split: split to decode.
    batch_size: rows decoded at a time, over all hosts.
    num_examples: examples of each task, None for all.
    use_cached: read SeqIO's offline cache.
    seed: of SeqIO's preprocessing.
  """

  mixture_or_task_name: str
  task_feature_lengths: Mapping[str, int]
  split: str = 'validation'
  batch_size: int = 128
  num_examples: int | None = None
  use_cached: bool = False
  seed: int = 42


class InferEvaluator:
  """Decodes SeqIO tasks with a model and computes their metrics.

  SeqIO's Evaluator caches targets and inputs, so that one object should serve a whole run.
  """

  def __init__(
    self,
    model: seq2seq.EncoderDecoderModel,
    partitioner: partitioning.Partitioner,
    config: InferEvalConfig,
    log_dir: str | None = None,
  ):
    self._model, self._partitioner, self._config = model, partitioner, config
    loggers = []
    if log_dir and jax.process_index() == 0:
      epath.Path(log_dir).mkdir(parents=True, exist_ok=True)
      loggers = [seqio.JSONLogger]
    self._evaluator = seqio.Evaluator(
      mixture_or_task_name=config.mixture_or_task_name,
      feature_converter=seqio.EncDecFeatureConverter(pack=False),
      eval_split=config.split,
      use_cached=config.use_cached,
      seed=config.seed,
      sequence_length=dict(config.task_feature_lengths),
      num_examples=config.num_examples,
      logger_cls=loggers,
      log_dir=log_dir,
      async_compute_metrics=False,
    )
    if not self._evaluator.eval_tasks:
      raise ValueError(
        f'{config.mixture_or_task_name}: no task with metrics and a split {config.split!r}'
      )
    self._predict = self._jit(self._predict_batch)
    self._score = self._jit(lambda params, batch, ids: model.score_batch(params, batch))

  def evaluate(self, params: Any, step: int) -> dict[str, dict[str, float]]:
    """Decodes and scores everything. Returns metrics by task name."""
    future, _ = self._evaluator.evaluate(
      compute_metrics=jax.process_index() == 0,
      step=step,
      predict_fn=lambda ds, *_: self._run(self._predict, params, ds),
      score_fn=lambda ds, *_: self._run(self._score, params, ds),
    )
    result = future.result() or {}
    return {
      task: {name: float(np.asarray(getattr(v, 'value', v))) for name, v in values.items()}
      for task, values in result.items()
    }

  def _jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
    return self._partitioner.jit(function, out_shardings=self._partitioner.replicated)

  def _predict_batch(self, params: Any, batch: Any, ids: jax.Array) -> jax.Array:
    length = self._config.task_feature_lengths['targets']
    rng = jax.random.key(self._config.seed)
    tokens, _ = self._model.predict_batch(params, batch, rng, ids, max_decode_length=length)
    return tokens[:, 0]

  def _run(self, function: Callable[..., Any], params: Any, ds: Any) -> list[tuple[int, Any]]:
    """Applies a function to an enumerated dataset, in batches; every host knows all rows."""
    rows = [
      (int(i), {k: v for k, v in ex.items() if k in _MODEL_FEATURES})
      for i, ex in ds.as_numpy_iterator()
    ]
    # Short inputs together, so that few batches are as wide as the longest row.
    rows.sort(key=lambda row: _num_tokens(row[1]['encoder_input_tokens']))
    results: list[tuple[int, Any]] = []
    for batch in batched(rows, self._config.batch_size):
      results += self._run_batch(function, params, batch)
    return results

  def _run_batch(
    self, function: Callable[..., Any], params: Any, rows: Sequence[tuple[int, Any]]
  ) -> list[tuple[int, Any]]:
    padded = [*rows, *[rows[0]] * (self._config.batch_size - len(rows))]
    whole = {name: np.stack([ex[name] for _, ex in padded]) for name in rows[0][1]}
    inputs = whole['encoder_input_tokens']
    width = input_width(max(map(_num_tokens, inputs)), inputs.shape[1])
    whole['encoder_input_tokens'] = inputs[:, :width]
    ids = {'ids': np.array([i for i, _ in padded], np.int32)}
    batch = self._partitioner.place(whole)
    out = function(params, batch, self._partitioner.place(ids)['ids'])
    values = np.asarray(out)  # replicated
    indices = [i for i, _ in rows]
    return list(zip(indices, values[: len(rows)].tolist(), strict=True))


_MODEL_FEATURES = (
  'encoder_input_tokens',
  'decoder_input_tokens',
  'decoder_target_tokens',
  'decoder_loss_weights',
)


def input_width(num_tokens: int, limit: int) -> int:
  """Width of a batch to decode: the next power of two, at least 32 and at most `limit`.

  Attention to padding costs as much as to tokens; few widths keep the number of programs small.
  """
  return min(max(32, 1 << (num_tokens - 1).bit_length()), limit)


def _num_tokens(tokens: np.ndarray) -> int:
  return int(np.max(np.flatnonzero(tokens), initial=0)) + 1


def batched(rows: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
  """Consecutive slices of at most `size` rows."""
  for start in range(0, len(rows), size):
    yield rows[start : start + size]


def decode_prompts(
  model: seq2seq.EncoderDecoderModel,
  params: Any,
  prompts: Sequence[str],
  *,
  lengths: Mapping[str, int],
  batch_size: int,
  partitioner: partitioning.Partitioner,
  seed: int = 0,
) -> list[list[int]]:
  """Answers to texts as ids without padding, cut after the end of sequence.

  Args:
    model, params: the model.
    prompts: texts; longer than `lengths['inputs']` tokens they are cut, end of sequence kept.
    lengths: 'inputs' and 'targets' in tokens.
    batch_size: prompts at a time.
    partitioner: mesh.
    seed: for sampling.
  """

  def predict(params: Any, inputs: jax.Array, ids: jax.Array) -> jax.Array:
    batch = {'encoder_input_tokens': inputs}
    key = jax.random.key(seed)
    tokens, _ = model.predict_batch(params, batch, key, ids, max_decode_length=lengths['targets'])
    return tokens[:, 0]

  step = partitioner.jit(predict, out_shardings=partitioner.replicated)
  vocabulary = model.input_vocabulary
  answers: list[list[int]] = []
  for start in range(0, len(prompts), batch_size):
    texts = prompts[start : start + batch_size]
    rows = [
      [*vocabulary.encode(text)[: lengths['inputs'] - 1], vocabulary.eos_id] for text in texts
    ]
    inputs = np.zeros((batch_size, input_width(max(map(len, rows)), lengths['inputs'])), np.int32)
    for row, tokens in enumerate(rows):
      inputs[row, : len(tokens)] = tokens
    ids = jnp.arange(start, start + batch_size, dtype=jnp.int32)
    decoded = np.asarray(step(params, inputs, ids))
    for row in decoded[: len(prompts) - start]:
      answers.append([int(t) for t in row if t != 0])
  return answers


def evaluate(
  *,
  model: seq2seq.EncoderDecoderModel,
  checkpoint_path: str,
  partitioner: partitioning.Partitioner,
  output_dir: str,
  dataset_cfg: data.DatasetConfig | None = None,
  infer_eval_cfg: InferEvalConfig | None = None,
) -> dict[str, dict[str, float]]:
  """`aya-train eval`: loss and decoded metrics of one checkpoint.

  Args:
    model, partitioner: as for training.
    checkpoint_path: weights, of any format of checkpoint/formats.py.
    output_dir: gets metrics.jsonl, TensorBoard events and the inferences as JSON lines.
    dataset_cfg: data for the loss, or None.
    infer_eval_cfg: tasks to decode, or None.

  Returns:
    Figures by name of what was measured.
  """
  from aya_train.checkpoint import formats

  model.check_vocabulary()
  for cfg in (dataset_cfg, infer_eval_cfg):
    if cfg is None:
      continue
    prepared.get_mixture_or_task(cfg.mixture_or_task_name)
    partitioner.check_batch_size(cfg.batch_size)
  params, writer = formats.read_for(model, partitioner, checkpoint_path), metrics.Writer(output_dir)
  results: dict[str, dict[str, float]] = {}
  if dataset_cfg is not None:
    batches = data.eval_batches(
      dataset_cfg,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      barrier=multihost_utils.sync_global_devices,
      shard=partitioner.data_shard,
    )
    step_fn = make_eval_step(model, partitioner)
    results['train_eval'] = train_eval(step_fn, params, batches, partitioner)
  if infer_eval_cfg is not None:
    evaluator = InferEvaluator(model, partitioner, infer_eval_cfg, output_dir)
    for task, values in evaluator.evaluate(params, 0).items():
      results[f'infer_eval/{task}'] = values
  for kind, values in results.items():
    writer.write(0, kind, values)
    for name, value in values.items():
      logger.info('%s  %s %.4f', kind, name, value)
  writer.flush()
  return results

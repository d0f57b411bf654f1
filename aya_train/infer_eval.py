"""Decoding: SeqIO tasks scored through SeqIO's Evaluator, and answers to prompts."""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import seqio
from etils import epath

from aya_train import finiteness, hosts, lease, metric_writer, partitioning, user_code, watchdog
from aya_train.data import feature_converters, task_registry
from aya_train.objectives import objective, seq2seq
from aya_train.tasks import split_slices

logger = logging.getLogger(__name__)
PREPROCESSING_SEED = 42
TRIED_EXAMPLES = 8  # on which metrics are tried before they are needed
_OUTPUT_TYPES = (
  seqio.metrics.ModelOutputType.PREDICTION,
  seqio.metrics.ModelOutputType.PREDICTION_WITH_AUX,
  seqio.metrics.ModelOutputType.SCORE,
)
_MODEL_FEATURES = (
  'encoder_input_tokens',
  'decoder_input_tokens',
  'decoder_target_tokens',
  'decoder_loss_weights',
)


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
  seed: int = PREPROCESSING_SEED

  def __post_init__(self):
    feature_converters.check_lengths(self.task_feature_lengths)
    if self.num_examples is not None and self.num_examples < 1:
      raise ValueError(
        f'EVALUATOR_NUM_EXAMPLES must be None (all) or at least 1, got {self.num_examples!r}'
      )


class NothingToDecodeError(ValueError):
  """No task can be decoded and scored; the message says why."""


class InferEvaluator:
  """Decodes SeqIO tasks with a model and computes their metrics.

  Each task has an evaluator of SeqIO's own, so that one whose metric fails takes no other with it.
  They cache targets and inputs: one object should serve a whole run.

  Attributes:
    tasks: names of the tasks that are decoded.
    left_out: names of the tasks that cannot be, by the reason.
  """

  def __init__(
    self,
    model: seq2seq.EncoderDecoderModel,
    partitioner: partitioning.Partitioner,
    config: InferEvalConfig,
    log_dir: str | None = None,
  ):
    """Reads the examples of all tasks; nothing is written before `evaluate`.

    Raises:
      NothingToDecodeError: no task has metrics, the split, and rows in it.
    """
    self._model, self._partitioner, self._config = model, partitioner, config
    self._log_dir = log_dir if jax.process_index() == 0 else None
    self.left_out: dict[str, list[str]] = {}
    self._evaluators: dict[str, seqio.Evaluator] = {}
    for task in seqio.get_subtasks(task_registry.get_mixture_or_task(config.mixture_or_task_name)):
      if reason := self._add(task):
        self.left_out.setdefault(reason, []).append(task.name)
    if not self._evaluators:
      raise NothingToDecodeError(
        f'nothing of {config.mixture_or_task_name!r} can be decoded and scored: '
        f'{self.describe_left_out()}'
      )
    self._predict = self._jit(self._predict_batch)
    self._score = self._jit(lambda params, batch, ids: (model.score_batch(params, batch),))

  @property
  def tasks(self) -> list[str]:
    return list(self._evaluators)

  def keep(self, names: Sequence[str]) -> None:
    """Decodes these tasks only, in this order."""
    self._evaluators = {name: self._evaluators[name] for name in names}

  def describe_left_out(self) -> str:
    """What is not decoded and why, '' if everything is."""
    return '; '.join(
      f'{reason}: {names[0]}' + (f' and {len(names) - 1} more' if len(names) > 1 else '')
      for reason, names in self.left_out.items()
    )

  def _add(self, task: seqio.Task) -> str:
    """Makes the evaluator of a task; returns why it cannot be decoded, '' if it can."""
    split = self._config.split
    if not _metrics(task):
      return 'no metrics'
    if not split_slices.has(task, split):
      return f'no split {split!r}'
    needed = {metric.model_output_type for metric in task.metric_objs}
    if unknown := needed - {*_OUTPUT_TYPES}:
      names = ', '.join(seqio.metrics.ModelOutputType.to_str(kind) for kind in unknown)
      return f'metrics of outputs that are not computed here ({names})'
    evaluator = self._evaluator(task.name, self._config.num_examples, self._log_dir)
    if not int(evaluator.cached_task_datasets[task.name].cardinality()):
      return f'no rows in {split!r}'
    self._evaluators[task.name] = evaluator
    return ''

  def _evaluator(self, name: str, num_examples: int | None, log_dir: str | None) -> seqio.Evaluator:
    config = self._config
    with task_registry.registered_with(seqio.TaskRegistry.get(name), config.split):
      return seqio.Evaluator(
        mixture_or_task_name=name,
        feature_converter=seqio.EncDecFeatureConverter(pack=False),
        eval_split=config.split,
        use_cached=config.use_cached,
        seed=config.seed,
        sequence_length=dict(config.task_feature_lengths),
        num_examples=num_examples,
        logger_cls=[_StrictJSONLogger] if log_dir else [],
        log_dir=log_dir,
        async_compute_metrics=False,
      )

  def try_metrics(self, num_examples: int = TRIED_EXAMPLES) -> dict[str, str]:
    """Scores the first targets as if the model had predicted them; no model runs.

    Tasks that share metrics and postprocessing are tried once.

    Returns:
      Task name -> what its metrics or postprocessing raised.
    """
    problems, tried = {}, set()
    for name in self._evaluators:
      task = seqio.TaskRegistry.get(name)
      metrics_of_task = task.metric_fns or task.metric_objs
      key = (*map(id, metrics_of_task), id(task.postprocess_fn))
      if key in tried:
        continue
      tried.add(key)
      try:
        scored = self._evaluator(name, num_examples, None).evaluate(
          compute_metrics=True,
          predict_fn=lambda ds, *_: _targets(ds),
          predict_with_aux_fn=lambda ds, *_: (pairs := _targets(ds), _aux([0.0] * len(pairs))),
          score_fn=lambda ds, *_: [(i, 0.0) for i, _ in _targets(ds)],
        )
        _numbers(scored[0].result()[name])
      except (Exception, SystemExit) as error:
        problems[name] = first_line(error)
    return problems

  def evaluate(
    self,
    params: Any,
    step: int,
    *,
    tasks: Sequence[str] | None = None,
    failures: dict[str, Exception] | None = None,
    between: Callable[[], None] = lambda: None,
  ) -> dict[str, dict[str, float]]:
    """Decodes and scores tasks, one after the other.

    Args:
      params: parameters.
      step: for the names of the files of decoded examples.
      tasks: which, None for all.
      failures: gets what a task's metrics raised, by task, or which of them are NaN or infinite;
        without it the first is raised at the end.
      between: called before each batch, by every host; a `lease.LostError`, or what is no
        Exception, ends all of it.

    Returns:
      Metrics that are single numbers, by task name; on the first host only, {} on others.
    """
    if self._log_dir:
      epath.Path(self._log_dir).mkdir(parents=True, exist_ok=True)
    failed: dict[str, Exception] = {}
    results = {}
    for name in self.tasks if tasks is None else tasks:
      try:
        with watchdog.phase(f'metrics of {name}'):
          scored, _ = self._evaluators[name].evaluate(
            compute_metrics=jax.process_index() == 0,
            step=step,
            predict_fn=lambda ds, *_: self._run(self._predict, params, ds, between)[0],
            predict_with_aux_fn=lambda ds, *_: self._predictions_with_aux(params, ds, between),
            score_fn=lambda ds, *_: self._run(self._score, params, ds, between)[0],
          )
        if (values := scored.result()) is not None:
          results[name] = _numbers(values[name])
          if others := sorted({*values[name]} - {*results[name]}):
            logger.info('%s: %s: no single numbers, not in %s', name, others, metric_writer.FILE)
          finiteness.check_figures(results[name], 'metrics', 'Does the metric divide by 0?')
      except SystemExit as error:
        failed[name] = RuntimeError(f'a metric called sys.exit({error.code!r})')
      except Exception as error:
        if hosts.is_lost(error) or isinstance(error, lease.LostError):
          raise
        failed[name] = error
    if failures is not None:
      failures.update(failed)
    elif failed:
      raise next(iter(failed.values()))
    return results

  def _jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
    return self._partitioner.jit(function, out_shardings=self._partitioner.replicated)

  def _predict_batch(self, params: Any, batch: Any, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    length = self._config.task_feature_lengths['targets']
    rng = jax.random.key(self._config.seed)
    tokens, scores = self._model.predict_batch(params, batch, rng, ids, max_decode_length=length)
    return tokens[:, 0], scores[:, 0]

  def _predictions_with_aux(
    self, params: Any, ds: Any, between: Callable[[], None]
  ) -> tuple[list[tuple[int, Any]], Any]:
    """As T5X's predict_batch_with_aux: tokens, and each answer's log-likelihood as `scores`."""
    tokens, scores = self._run(self._predict, params, ds, between)
    return tokens, _aux([score for _, score in scores])

  def _run(
    self, function: Callable[..., Any], params: Any, ds: Any, between: Callable[[], None]
  ) -> list[list[tuple[int, Any]]]:
    """Applies a function to an enumerated dataset, in batches; every host knows all rows.

    Returns:
      (index, value) of all rows, for each of the function's outputs.
    """
    rows = [
      (int(i), {k: v for k, v in ex.items() if k in _MODEL_FEATURES})
      for i, ex in ds.as_numpy_iterator()
    ]
    # Short inputs together, so that few batches are as wide as the longest row.
    rows.sort(key=lambda row: _num_tokens(row[1]['encoder_input_tokens']))
    outputs: list[list[tuple[int, Any]]] = []
    with watchdog.phase('decoding'):
      for batch in batched(rows, self._config.batch_size):
        between()
        indices = [i for i, _ in batch]
        for k, values in enumerate(self._run_batch(function, params, batch)):
          if k == len(outputs):
            outputs.append([])
          outputs[k] += zip(indices, values[: len(indices)].tolist(), strict=True)
        watchdog.beat()
    return outputs

  def _run_batch(
    self, function: Callable[..., Any], params: Any, rows: Sequence[tuple[int, Any]]
  ) -> list[np.ndarray]:
    padded = [*rows, *[rows[0]] * (self._config.batch_size - len(rows))]
    whole = {name: np.stack([ex[name] for _, ex in padded]) for name in rows[0][1]}
    inputs = whole['encoder_input_tokens']
    width = input_width(max(map(_num_tokens, inputs)), inputs.shape[1])
    whole['encoder_input_tokens'] = inputs[:, :width]
    ids = {'ids': np.array([i for i, _ in padded], np.int32)}
    batch = self._partitioner.place(whole)
    out = function(params, batch, self._partitioner.place(ids)['ids'])
    outputs = [np.asarray(values) for values in out]  # replicated
    for values in outputs:
      _check_scores(values[: len(rows)])
    return outputs


def _check_scores(values: np.ndarray) -> None:
  """Refuses answers whose log-likelihoods are NaN or infinite; token ids pass."""
  if (bad := int(np.sum(~np.isfinite(values)))) > 0:
    raise finiteness.NonFiniteError(
      f'the log-likelihoods of {bad} of {len(values)} answers of a batch are NaN or infinite, '
      "though the parameters are finite: activations overflow. Try ACTIVATION_DTYPE = 'float32'"
    )


def _metrics(task: seqio.Task) -> Sequence[Any]:
  """A task's metrics; refuses functions that SeqIO cannot call, which it only does when asked."""
  try:
    return task.metric_objs
  except ValueError as error:
    raise ValueError(
      f'task {task.name!r} has a metric whose arguments have other names than SeqIO gives: {error}'
    ) from error


def _aux(scores: list[float]) -> dict[str, list[float]]:
  return {'scores': scores}


def _targets(ds: Any) -> list[tuple[int, list[int]]]:
  return [(int(i), ex['decoder_target_tokens'].tolist()) for i, ex in ds.as_numpy_iterator()]


class _StrictJSONLogger(seqio.JSONLogger):
  """SeqIO's files without figures that JSON has no words for; `evaluate` names them."""

  def __call__(self, *, metrics: Mapping[str, Any], **rest: Any) -> None:
    bad = {*finiteness.nonfinite_figures(_numbers(metrics))}
    kept = {name: value for name, value in metrics.items() if name not in bad}
    super().__call__(metrics=kept, **rest)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
  """The metrics that are one number each; SeqIO's loggers write others (texts, histograms)."""
  numbers = {}
  for name, value in values.items():
    if isinstance(value, seqio.metrics.MetricValue) and not isinstance(value, seqio.metrics.Scalar):
      continue
    array = np.asarray(getattr(value, 'value', value))
    if array.size == 1 and np.issubdtype(array.dtype, np.number):
      numbers[name] = float(array.reshape(()))
  return numbers


def first_line(error: BaseException) -> str:
  """Type, first line and place in the user's code of what was raised, through SeqIO's wrapping."""
  cause = error.__cause__ or error
  lines = str(cause).strip().splitlines()
  place = user_code.place(error)
  if "no attribute 'items'" in str(cause) and not place:
    place = 'does a metric return its number? SeqIO wants a dict of names to numbers'
  return f'{type(cause).__name__}: {lines[0] if lines else ""}' + (f', {place}' if place else '')


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

  Raises:
    finiteness.NonFiniteError: the model gives an answer no finite log-likelihood.
  """
  tokens = encode_prompts(model, prompts, lengths)
  return decode_tokens(
    model,
    params,
    tokens,
    lengths=lengths,
    batch_size=batch_size,
    partitioner=partitioner,
    seed=seed,
  )


def encode_prompts(
  model: seq2seq.EncoderDecoderModel, prompts: Sequence[str], lengths: Mapping[str, int]
) -> list[list[int]]:
  """Ids of texts, cut to `lengths['inputs']` tokens, each with its end of sequence."""
  vocabulary = model.input_vocabulary
  return [
    [*vocabulary.encode(text)[: lengths['inputs'] - 1], vocabulary.eos_id] for text in prompts
  ]


def decode_tokens(
  model: seq2seq.EncoderDecoderModel,
  params: Any,
  prompts: Sequence[Sequence[int]],
  *,
  lengths: Mapping[str, int],
  batch_size: int,
  partitioner: partitioning.Partitioner,
  seed: int = 0,
) -> list[list[int]]:
  """Answers to inputs of ids, as `decode_prompts` gives them.

  Args:
    prompts: ids of each input, at most `lengths['inputs']`.
    model, params, lengths, batch_size, partitioner, seed: as for `decode_prompts`.
  """

  def predict(params: Any, inputs: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    batch = {'encoder_input_tokens': inputs}
    key = jax.random.key(seed)
    tokens, scores = model.predict_batch(
      params, batch, key, ids, max_decode_length=lengths['targets']
    )
    return tokens[:, 0], scores[:, 0]

  step = partitioner.jit(predict, out_shardings=partitioner.replicated)
  answers: list[list[int]] = []
  for start in range(0, len(prompts), batch_size):
    rows = prompts[start : start + batch_size]
    width = input_width(max(1, *map(len, rows)), lengths['inputs'])
    inputs = np.zeros((batch_size, width), np.int32)
    for row, tokens in enumerate(rows):
      inputs[row, : len(tokens)] = tokens
    ids = jnp.arange(start, start + batch_size, dtype=jnp.int32)
    decoded, scores = (np.asarray(values) for values in step(params, inputs, ids))
    _check_scores(scores[: len(rows)])
    for row in decoded[: len(rows)]:
      answers.append([int(t) for t in row if t != 0])
  return answers


def decoder(
  model: objective.Objective,
  partitioner: partitioning.Partitioner,
  config: InferEvalConfig | None,
  log_dir: str | None,
  *,
  required: bool,
) -> InferEvaluator | None:
  """The evaluator of what can be decoded; what cannot, and metrics that will fail, are said.

  Args:
    model, partitioner, config, log_dir: see `InferEvaluator`.
    required: refuse a configuration of which nothing can be decoded.

  Returns:
    None if nothing is to be, or can be, decoded.

  Raises:
    NothingToDecodeError: that, and it is required.
  """
  if config is None:
    return None
  evaluator = None
  with hosts.together():
    try:
      if not isinstance(model, seq2seq.EncoderDecoderModel):
        raise NothingToDecodeError(
          f'{type(model).__name__} decodes nothing, and {config.mixture_or_task_name!r} is to be '
          'decoded: INFER_EVAL_CFG = None'
        )
      evaluator = InferEvaluator(model, partitioner, config, log_dir)
    except NothingToDecodeError as error:
      if required:
        raise
      logger.warning('no answers are decoded: %s', error)
  # Hosts may see other data; they must decode the same tasks, one after the other.
  names = hosts.first_says([] if evaluator is None else evaluator.tasks)
  with hosts.together():
    if missing := sorted({*names} - {*(evaluator.tasks if evaluator else ())}):
      raise ValueError(f'{missing} can be decoded on the first host, and not on this one')
  if evaluator is None or not names:
    return None
  evaluator.keep(names)
  if evaluator.left_out:
    logger.warning('not decoded, %s', evaluator.describe_left_out())
  for task, problem in evaluator.try_metrics().items():
    logger.warning(
      'the metrics of %s fail on its own first targets (%s): they will fail after decoding too, '
      'and then be left out',
      task,
      problem,
    )
  return evaluator

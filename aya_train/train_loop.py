"""A training run: parts put together, the loop over steps, what happens between steps.

This is the only module with a clock.
"""

import dataclasses
import functools
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils

from aya_train import (
  evaluation,
  hosts,
  metric_writer,
  partitioning,
  preflight,
  run_dir,
  train_state,
  train_step,
)
from aya_train.checkpoint import formats, manager
from aya_train.data import batching, fingerprints, prepared
from aya_train.models import seq2seq

logger = logging.getLogger(__name__)


class NonFiniteError(ValueError):
  """The loss or the gradient became NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class Schedule:
  """When things happen, in steps.

  Attributes:
    log_period: between two lines of progress; also how often losses are looked at for NaN.
    eval_period: between two evaluations of the loss on the validation split.
    eval_steps: batches of each such evaluation, None for the whole split.
    infer_eval_period: between two decodings; None decodes at the end only.
    eval_before_training: evaluate and decode the initial parameters too, as a baseline.
  """

  log_period: int = 100
  eval_period: int = 1000
  eval_steps: int | None = 20
  infer_eval_period: int | None = None
  eval_before_training: bool = False

  def __post_init__(self):
    for name in ('log_period', 'eval_period', 'eval_steps', 'infer_eval_period'):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(f'{name.upper()} must be at least 1, got {value!r}')


def train(
  *,
  model: seq2seq.EncoderDecoderModel,
  model_dir: str,
  train_dataset_cfg: batching.DatasetConfig,
  train_eval_dataset_cfg: batching.DatasetConfig | None,
  infer_eval_cfg: evaluation.InferEvalConfig | None,
  checkpoint_cfg: manager.CheckpointConfig,
  partitioner: partitioning.Partitioner,
  optimizer: Callable[..., optax.GradientTransformation],
  learning_rate_fn: Callable[[jax.Array], jax.Array],
  schedule: Schedule,
  total_steps: int,
  relative_steps: int | None = None,
  initial_checkpoint_path: str | None = None,
  random_seed: int | None = None,
  num_microbatches: int | None = None,
  on_start: Callable[[str], None] | None = None,
  on_data: Callable[[str, batching.DatasetConfig], None] | None = None,
) -> train_state.TrainState:
  """Trains, evaluates and saves until `total_steps`; continues what `model_dir` already holds.

  Order of events: check every setting, the checkpoint to start from, the data and `model_dir`
  (preflight.py); prepare data; create the state (shapes only), then fill it from the newest
  checkpoint in `model_dir`, or else from `initial_checkpoint_path`, or else at random; then step. A
  batch is drawn, the update made, then the state and the position in the data are saved together,
  then evaluated.

  An evaluation that fails costs no training: it is logged, the run goes on, and the error comes at
  the end, when everything is saved. Evaluations of the newest checkpoint that a run lacks are made
  when it continues.

  Args:
    model: the model with its objective.
    model_dir: where checkpoints, metrics and TensorBoard events go.
    train_dataset_cfg, train_eval_dataset_cfg: training and validation data, or None for no validation
      loss. It is left out, with a line, if it is of the training mixture, and that has none.
    infer_eval_cfg: what is decoded, or None; of the training mixture, what has metrics.
    checkpoint_cfg: when to save.
    partitioner: mesh and logical axis rules.
    optimizer: maps (learning rate schedule, parameters' logical axes) to an optax transformation.
    learning_rate_fn: learning rate of a step.
    schedule: when to log and to evaluate.
    total_steps: last step, those of the initial checkpoint included (T5X's TRAIN_STEPS).
    relative_steps: if given, that many steps on top of the initial checkpoint's instead.
    initial_checkpoint_path: weights to start from (any format of checkpoint/formats.py), or None.
    random_seed: seeds parameters, dropout and data; None draws one, kept in `model_dir`.
    num_microbatches: parts that each batch is computed in; None for one.
    on_start: called with `model_dir` once the settings have passed the checks, on the first host.
    on_data: called with `model_dir` and the training data's configuration once the data is
      prepared, on the first host.

  Returns:
    The last state.

  Raises:
    ValueError: settings that do not fit together, each named with what was got.
    FileNotFoundError, OSError: data or a checkpoint is missing; `model_dir` cannot be written.
    NonFiniteError: NaN or infinite loss or gradient; the step is named.
    evaluation.EvaluationError: the run is complete and saved, and evaluations failed.
  """
  started = time.monotonic()
  micro = num_microbatches or 1
  _check(model, train_dataset_cfg, train_eval_dataset_cfg, infer_eval_cfg, partitioner, micro)
  tx = optimizer(learning_rate_fn, seq2seq.parameter_axes(model)[1])
  abstract = abstract_state(model, tx, partitioner)
  run_dir.check(model_dir, run_metadata(model), random_seed)
  begun = manager.latest_step(model_dir)
  initial, first_step = None, 0
  if initial_checkpoint_path is not None:
    initial, first_step = preflight.check_start(
      initial_checkpoint_path, model, abstract.params, needed=begun is None
    )
  if begun is not None:
    known = run_dir.read(model_dir)
    first_step = known.get('first_step', first_step)
    stream = dataclasses.replace(train_dataset_cfg, seed=known.get('seed'))
    preflight.check_stream(manager.data_states(model_dir, begun), stream, model_dir)
  last_step = first_step + relative_steps if relative_steps is not None else total_steps
  if begun is None:
    preflight.check_steps(first_step, last_step)
  found = preflight.check_data(train_dataset_cfg, train_eval_dataset_cfg)
  decoder = preflight.decoder(model, partitioner, infer_eval_cfg, train_dataset_cfg, model_dir)
  if begun is None or begun < last_step:
    steps = last_step - (first_step if begun is None else begun)
    preflight.check_model_dir(model_dir, abstract, checkpoint_cfg.num_kept(steps))

  seed = run_dir.claim(model_dir, run_metadata(model), random_seed)
  train_dataset_cfg = dataclasses.replace(train_dataset_cfg, seed=seed)
  if on_start is not None and jax.process_index() == 0:
    on_start(model_dir)
  places = data_hosts(partitioner)
  iterator = batching.train_iterator(train_dataset_cfg, **places)
  validation = prepared_validation(found.train_eval, schedule, places)
  if on_data is not None and jax.process_index() == 0:
    on_data(model_dir, train_dataset_cfg)

  checkpoints = manager.CheckpointManager(model_dir, checkpoint_cfg, run_metadata(model))
  try:
    latest = checkpoints.latest_step()
    if latest is not None:
      state = checkpoints.restore(abstract, iterator, latest)
      logger.info('continuing from step %d in %s', latest, model_dir)
    else:
      state = initial_state(model, tx, partitioner, abstract, seed, initial)
      run_dir.write(model_dir, first_step=int(state.step))
    evaluations = _Evaluations(model, partitioner, schedule, validation, decoder, model_dir)
    step_fn = make_train_step(model, tx, learning_rate_fn, partitioner, abstract, micro)
    loop = _Loop(step_fn, partitioner, iterator, checkpoints, evaluations, schedule, model_dir)
    try:
      with _stop_on_signal() as stop:
        state = loop.run(state, last_step, checkpoint_cfg.period, stop)
    finally:
      evaluations.writer.flush()
  finally:
    checkpoints.close()
  logger.info('done at step %d after %s', int(state.step), _clock(time.monotonic() - started))
  with hosts.together():
    if evaluations.failures:
      raise evaluation.EvaluationError(
        f'trained to step {int(state.step)}, and its checkpoint is in {model_dir}; but evaluations '
        f'failed: {evaluation.describe_failures(evaluations.failures)}. The same command repeats '
        'those of the last step'
      )
  return state


def prepared_validation(
  cfg: batching.DatasetConfig | None, schedule: Schedule, places: Mapping[str, Any]
) -> Callable[[], Any] | None:
  """Prepares the validation data, so that no evaluation waits for it.

  Returns:
    What gives the batches of one evaluation; None if there is nothing to evaluate on.
  """
  if cfg is None:
    return None
  try:
    # A few batches are to be of all tasks; in the order of the files they would be of the first.
    return batching.open_eval(cfg, **places, sample=schedule.eval_steps is not None)
  except prepared.EmptySplitError as error:
    logger.warning('no validation loss: %s', error)
    return None


# Parts ---------------------------------------------------------------------------------------------


def abstract_state(
  model: seq2seq.EncoderDecoderModel,
  tx: optax.GradientTransformation,
  partitioner: partitioning.Partitioner,
) -> train_state.TrainState:
  """Shapes, dtypes and shardings of the whole training state; allocates nothing."""
  params, axes = seq2seq.parameter_axes(model)
  shapes = jax.eval_shape(lambda p: train_state.create(p, tx, seed=0), params)
  shardings = partitioner.shardings(train_state.logical_axes(shapes, axes), shapes)
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
  )


def initial_state(
  model: seq2seq.EncoderDecoderModel,
  tx: optax.GradientTransformation,
  partitioner: partitioning.Partitioner,
  abstract: train_state.TrainState,
  seed: int,
  source: formats.Detected | None,
) -> train_state.TrainState:
  """A state with the weights of a checkpoint, or random ones, each device filling its own shards.

  As in T5X, the optimizer's moments of a checkpoint are taken with its weights, where it has them.
  """
  shardings = jax.tree.map(lambda x: x.sharding, abstract)
  if source is None:

    def create(seed: jax.Array) -> train_state.TrainState:
      params = nn.unbox(model.initial_variables(jax.random.key(seed)))
      return train_state.create(params, tx, seed=seed)

    return partitioner.jit(create, out_shardings=shardings)(jnp.uint32(seed))
  params, step = formats.read(source, abstract.params, model.config)
  create_from = functools.partial(train_state.create, tx=tx, step=step)
  create_state = partitioner.jit(
    lambda params, seed: create_from(params, seed=seed), out_shardings=shardings
  )
  state = create_state(params, jnp.uint32(seed))
  opt_state = formats.read_optimizer_state(source, abstract, model.config)
  if opt_state is None:
    logger.info('%s: weights of step %d; the optimizer starts afresh', source.path, step)
    return state
  logger.info('%s: weights and optimizer state of step %d', source.path, step)
  return dataclasses.replace(state, opt_state=opt_state)


def make_train_step(
  model: seq2seq.EncoderDecoderModel,
  tx: optax.GradientTransformation,
  learning_rate_fn: Callable[[jax.Array], jax.Array],
  partitioner: partitioning.Partitioner,
  abstract: train_state.TrainState,
  num_microbatches: int,
) -> Callable[..., Any]:
  """The compiled update; its state argument is donated."""
  gather = functools.partial(
    partitioner.gather, axes_tree=seq2seq.parameter_axes(model)[1], dtype=model.config.dtype
  )

  def step(state: train_state.TrainState, batch: Any) -> Any:
    return train_step.train_step(
      state,
      batch,
      model=model,
      tx=tx,
      learning_rate=learning_rate_fn,
      num_microbatches=num_microbatches,
      gather=gather,
    )

  shardings = jax.tree.map(lambda x: x.sharding, abstract)
  return partitioner.jit(
    step,
    out_shardings=(shardings, partitioner.replicated),
    donate_argnums=0,
    compiler_options=partitioner.compiler_options,
  )


def run_metadata(model: seq2seq.EncoderDecoderModel) -> dict[str, Any]:
  """What makes a checkpoint usable by another program: the architecture and the vocabulary."""
  return {
    'architecture': model.config.architecture(),
    'vocabulary': fingerprints.of_vocabulary(model.output_vocabulary),
    'vocabulary_file': str(getattr(model.output_vocabulary, 'sentencepiece_model_file', '')),
  }


def data_hosts(partitioner: partitioning.Partitioner) -> dict[str, Any]:
  """This host's place among the hosts, as the functions of data.py take it."""
  return {
    'process_index': jax.process_index(),
    'process_count': jax.process_count(),
    'barrier': multihost_utils.sync_global_devices,
    'shard': partitioner.data_shard,
  }


# Checks on the way in ------------------------------------------------------------------------------


def _check(
  model: seq2seq.EncoderDecoderModel,
  train_cfg: batching.DatasetConfig,
  train_eval_cfg: batching.DatasetConfig | None,
  infer_eval_cfg: evaluation.InferEvalConfig | None,
  partitioner: partitioning.Partitioner,
  num_microbatches: int,
) -> None:
  """Everything that can be refused before long work starts."""
  model.check_vocabulary()
  platform = partitioner.mesh.devices.flat[0].platform
  if model.config.attention_kernel == 'fused' and platform != 'tpu':
    raise ValueError(
      f"ATTENTION_KERNEL 'fused' is a TPU kernel and these devices are {platform!r}: "
      "bind ATTENTION_KERNEL = 'plain'"
    )
  partitioner.check_batch_size(train_cfg.batch_size, num_microbatches)
  prepared.get_mixture_or_task(train_cfg.mixture_or_task_name)
  if train_eval_cfg is not None:
    partitioner.check_batch_size(train_eval_cfg.batch_size)
    prepared.get_mixture_or_task(train_eval_cfg.mixture_or_task_name)
  if infer_eval_cfg is not None:
    partitioner.check_batch_size(infer_eval_cfg.batch_size, name='batch size of infer_eval')
    prepared.get_mixture_or_task(infer_eval_cfg.mixture_or_task_name)


# The loop ------------------------------------------------------------------------------------------


class _Evaluations:
  """What is measured between steps, and where it is written.

  Attributes:
    failures: what evaluations raised, by what and when.
  """

  def __init__(
    self,
    model: seq2seq.EncoderDecoderModel,
    partitioner: partitioning.Partitioner,
    schedule: Schedule,
    validation: Callable[[], Any] | None,
    decoder: evaluation.InferEvaluator | None,
    model_dir: str,
  ):
    self.writer = metric_writer.Writer(model_dir)
    self.failures: dict[str, Exception] = {}
    self._schedule, self._validation, self._decoder = schedule, validation, decoder
    self._partitioner, self._model_dir = partitioner, model_dir
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
        if hosts.is_lost(error):
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
    batches = _take(self._validation(), self._schedule.eval_steps)
    summary = evaluation.train_eval(self._eval_step, state.params, batches, self._partitioner)
    self.writer.write(step, 'train_eval', summary)
    logger.info(
      'step %d  validation: loss %.4f per token, accuracy %.1f %%',
      step,
      summary['loss_per_target_token'],
      100 * summary['accuracy'],
    )

  def _decode(
    self,
    state: train_state.TrainState,
    step: int,
    tasks: Sequence[str],
    failed: dict[str, Exception],
  ) -> None:
    assert self._decoder is not None
    for name in tasks:
      found = self._decoder.evaluate(state.params, step, tasks=[name], failures=failed)
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


def _take(batches: Any, limit: int | None) -> Any:
  for i, batch in enumerate(batches):
    if limit is not None and i >= limit:
      return
    yield batch


@dataclasses.dataclass
class _Loop:
  """Runs steps; owns the clock, the progress lines and the order of saving and evaluating."""

  step_fn: Callable[..., Any]
  partitioner: partitioning.Partitioner
  iterator: Any
  checkpoints: manager.CheckpointManager
  evaluations: _Evaluations
  schedule: Schedule
  model_dir: str

  def run(
    self, state: train_state.TrainState, last_step: int, save_period: int, stop: '_Stop'
  ) -> train_state.TrainState:
    step, begin = int(state.step), int(state.step)
    if self.checkpoints.latest_step() is not None:
      due = self._due(step, last_step, save_period)
      self.evaluations.run_missing(state, step, losses=due['losses'], decode=due['decode'])
    elif self.schedule.eval_before_training:
      self._evaluate_first(state, step)
    if step >= last_step:
      logger.info('already at step %d of %d: nothing to train', step, last_step)
      return state
    logger.info('training from step %d to %d (the first step compiles)', step, last_step)
    pending: list[Mapping[str, Any]] = []
    mark, training_seconds = time.monotonic(), 0.0
    while step < last_step:
      batch = self.partitioner.to_global(next(self.iterator))
      state, sums = self.step_fn(state, batch)
      pending.append(sums)
      step += 1
      due = self._due(step, last_step, save_period)
      stopping = stop.requested(step)
      if not (any(due.values()) or stopping):
        continue
      seconds = self._flush(pending, step, last_step, mark, begin, training_seconds)
      training_seconds += seconds
      pending = []
      evaluating = self.evaluations.has(losses=due['losses'], decode=due['decode'])
      # The first evaluation comes after a first checkpoint, whatever the periods: it may end the
      # process in ways that cannot be caught.
      first = evaluating and self.checkpoints.latest_step() is None
      if due['save'] or stopping or first:
        self.checkpoints.save(state, self.iterator)
      if evaluating and (first or step == last_step):
        self.checkpoints.wait()
      if evaluating and (step == last_step or not stopping):
        self.evaluations.run(state, step, losses=due['losses'], decode=due['decode'])
      mark = time.monotonic()
      if stopping and step < last_step:
        self.checkpoints.wait()
        logger.info('stopped at step %d; the same command continues from here', step)
        raise KeyboardInterrupt
    self.checkpoints.wait()
    return state

  def _evaluate_first(self, state: train_state.TrainState, step: int) -> None:
    """The baseline. Nothing is trained yet, so a failure ends the run while that costs nothing."""
    self.evaluations.run(state, step, losses=True, decode=True)
    with hosts.together():
      self._refuse_failures()

  def _refuse_failures(self) -> None:
    if self.evaluations.failures:
      raise evaluation.EvaluationError(
        'the evaluation before training failed: '
        f'{evaluation.describe_failures(self.evaluations.failures)}. EVAL_BEFORE_TRAINING = False '
        'trains without it'
      )

  def _due(self, step: int, last_step: int, save_period: int) -> dict[str, bool]:
    last = step >= last_step
    infer = self.schedule.infer_eval_period
    return {
      'log': last or step % self.schedule.log_period == 0,
      'losses': last or step % self.schedule.eval_period == 0,
      'decode': last or (infer is not None and step % infer == 0),
      'save': last or step % save_period == 0,
    }

  def _flush(
    self,
    pending: list[Mapping[str, Any]],
    step: int,
    last_step: int,
    mark: float,
    begin: int,
    before: float,
  ) -> float:
    """Fetches the sums since the last call, refuses NaN, writes and prints. Returns seconds."""
    fetched = jax.device_get(pending)
    seconds = time.monotonic() - mark
    series = {name: np.array([s[name] for s in fetched]) for name in ('loss', 'grad_norm')}
    if (bad := metric_writer.first_nonfinite(series)) is not None:
      self._refuse_nonfinite(step - len(fetched) + bad[0], bad[1])
    total = functools.reduce(metric_writer.add, fetched)
    summary = metric_writer.train_summary(total, seconds)
    self.evaluations.writer.write(step, 'train', summary)
    done, left = step - begin, last_step - step
    eta = (before + seconds) / done * left
    logger.info(
      'step %d/%d  loss %.4f  per token %.4f  accuracy %.1f %%  %.0f tokens/s  %.0f examples/s'
      '  packed %.0f %%  ETA %s',
      step,
      last_step,
      summary['loss'],
      summary['loss_per_target_token'],
      100 * summary['accuracy'],
      summary['tokens_per_second'],
      summary['examples_per_second'],
      100 * summary['non_padding_fraction'],
      _clock(eta),
    )
    return seconds

  def _refuse_nonfinite(self, step: int, name: str) -> None:
    self.checkpoints.wait()
    good = self.checkpoints.latest_step()
    kept = (
      'no checkpoint was saved before' if good is None else f'the checkpoint of step {good} is good'
    )
    raise NonFiniteError(
      f'{name} is NaN or infinite in the update after step {step}; stopped, and {kept} '
      f'({self.model_dir}). Lower the learning rate, or look at the data of that step'
    )


class _Stop:
  """Set by SIGTERM or SIGINT; on several hosts all of them stop at the same step."""

  def __init__(self) -> None:
    self.signalled = False

  def requested(self, step: int) -> bool:
    if jax.process_count() == 1:
      return self.signalled
    return multihost_utils.reached_preemption_sync_point(step)


class _stop_on_signal:
  """Lets a step finish and be saved before a signal ends the run; a second signal ends it at once."""

  def __enter__(self) -> _Stop:
    stop = _Stop()
    self._previous = {}
    if jax.process_count() == 1:

      def handler(number: int, frame: Any) -> None:
        logger.info('%s: saving after this step', signal.Signals(number).name)
        stop.signalled = True
        self.__exit__()

      for number in (signal.SIGTERM, signal.SIGINT):
        self._previous[number] = signal.signal(number, handler)
    return stop

  def __exit__(self, *unused: Any) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)


def _clock(seconds: float) -> str:
  hours, rest = divmod(int(seconds), 3600)
  minutes, rest = divmod(rest, 60)
  return f'{hours}h{minutes:02d}m' if hours else f'{minutes}m{rest:02d}s'

"""A training run: parts put together, the loop over steps, what happens between steps.

This is the only module with a clock.
"""

import dataclasses
import functools
import json
import logging
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax.experimental import multihost_utils

from aya_train import (
  data,
  evaluation,
  fingerprints,
  metrics,
  partitioning,
  prepared,
  train_state,
  train_step,
)
from aya_train.checkpoint import formats, manager
from aya_train.models import seq2seq

logger = logging.getLogger(__name__)
RUN_FILE = 'run.json'


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
    for name in ('log_period', 'eval_period', 'infer_eval_period'):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(f'{name.upper()} must be at least 1, got {value!r}')


def train(
  *,
  model: seq2seq.EncoderDecoderModel,
  model_dir: str,
  train_dataset_cfg: data.DatasetConfig,
  train_eval_dataset_cfg: data.DatasetConfig | None,
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
  on_data: Callable[[str, data.DatasetConfig], None] | None = None,
) -> train_state.TrainState:
  """Trains, evaluates and saves until `total_steps`; continues what `model_dir` already holds.

  Order of events: check every setting; prepare data; create the state (shapes only), then fill it
  from the newest checkpoint in `model_dir`, or else from `initial_checkpoint_path`, or else at
  random; then step. A batch is drawn, the update made, then the state and the position in the data
  are saved together.

  Args:
    model: the model with its objective.
    model_dir: where checkpoints, metrics and TensorBoard events go.
    train_dataset_cfg, train_eval_dataset_cfg: training and validation data.
    infer_eval_cfg: what is decoded, or None.
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
    NonFiniteError: NaN or infinite loss or gradient; the step is named.
  """
  started = time.monotonic()
  micro = num_microbatches or 1
  _check(model, train_dataset_cfg, train_eval_dataset_cfg, infer_eval_cfg, partitioner, micro)
  initial = None if initial_checkpoint_path is None else formats.detect(initial_checkpoint_path)
  seed = _claim_model_dir(model_dir, model, random_seed)
  train_dataset_cfg = dataclasses.replace(train_dataset_cfg, seed=seed)
  if on_start is not None and jax.process_index() == 0:
    on_start(model_dir)

  tx_axes = seq2seq.parameter_axes(model)[1]
  tx = optimizer(learning_rate_fn, tx_axes)
  abstract = abstract_state(model, tx, partitioner)
  checkpoints = manager.CheckpointManager(model_dir, checkpoint_cfg, run_metadata(model))

  hosts = data_hosts(partitioner)
  iterator = data.train_iterator(train_dataset_cfg, **hosts)
  if on_data is not None and jax.process_index() == 0:
    on_data(model_dir, train_dataset_cfg)
  validation = None
  if train_eval_dataset_cfg is not None:
    validation = functools.partial(data.eval_batches, train_eval_dataset_cfg, **hosts)

  latest = checkpoints.latest_step()
  if latest is not None:
    state = checkpoints.restore(abstract, iterator, latest)
    first_step = _read_run(model_dir)['first_step']
    logger.info('continuing from step %d in %s', latest, model_dir)
  else:
    state = initial_state(model, tx, partitioner, abstract, seed, initial)
    first_step = int(state.step)
    _write_run(model_dir, first_step=first_step)
  last_step = first_step + relative_steps if relative_steps is not None else total_steps
  if last_step <= first_step and latest is None:
    raise ValueError(
      f'nothing to train: the initial checkpoint is at step {first_step} and TRAIN_STEPS is '
      f'{last_step}; TRAIN_STEPS counts the steps of pre-training, TRAIN_STEPS_RELATIVE does not'
    )

  evaluator = _Evaluations(model, partitioner, schedule, validation, infer_eval_cfg, model_dir)
  step_fn = make_train_step(model, tx, learning_rate_fn, partitioner, abstract, micro)
  loop = _Loop(step_fn, partitioner, iterator, checkpoints, evaluator, schedule, model_dir)
  try:
    with _stop_on_signal() as stop:
      state = loop.run(state, last_step, checkpoint_cfg.period, stop)
  finally:
    checkpoints.close()
    evaluator.writer.flush()
  logger.info('done at step %d after %s', int(state.step), _clock(time.monotonic() - started))
  return state


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
  source: formats.Source | None,
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
  train_cfg: data.DatasetConfig,
  train_eval_cfg: data.DatasetConfig | None,
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


def _read_run(model_dir: str) -> dict[str, Any]:
  path = epath.Path(model_dir) / RUN_FILE
  return json.loads(path.read_text()) if path.exists() else {}


def _write_run(model_dir: str, **values: Any) -> None:
  if jax.process_index() == 0:
    path = epath.Path(model_dir) / RUN_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'{RUN_FILE}.partial')
    partial.write_text(json.dumps({**_read_run(model_dir), **values}, indent=2, ensure_ascii=False))
    partial.replace(path)


def _claim_model_dir(
  model_dir: str, model: seq2seq.EncoderDecoderModel, random_seed: int | None
) -> int:
  """Refuses a directory that belongs to another model; returns the run's seed."""
  known, mine = _read_run(model_dir), run_metadata(model)
  if theirs := known.get('architecture'):
    differ = {
      name: (theirs.get(name), value)
      for name, value in mine['architecture'].items()
      if theirs.get(name) != value
    }
    if differ:
      listed = ', '.join(
        f'{name} {old!r} there, {new!r} here' for name, (old, new) in differ.items()
      )
      raise ValueError(
        f'MODEL_DIR {model_dir} holds a run of another model: {listed}. Take another MODEL_DIR'
      )
  if known.get('vocabulary') not in (None, mine['vocabulary']):
    raise ValueError(
      f'MODEL_DIR {model_dir} holds a run with another vocabulary ({known["vocabulary_file"]}); '
      f'this one is {mine["vocabulary_file"]}. Take another MODEL_DIR or the same VOCABULARY_FILE'
    )
  seed = known.get('seed')
  if seed is not None and random_seed not in (None, seed):
    raise ValueError(
      f'MODEL_DIR {model_dir} was begun with RANDOM_SEED {seed}, got {random_seed}: a run keeps its '
      'seed; take another MODEL_DIR to change it'
    )
  if seed is None:
    seed = time.time_ns() % 2**31 if random_seed is None else random_seed
    seed = int(multihost_utils.broadcast_one_to_all(np.int64(seed)))
    try:
      _write_run(model_dir, **mine, seed=seed)
    except OSError as error:
      raise OSError(
        f'MODEL_DIR {model_dir} cannot be written ({error}): give a folder or bucket that can be made'
      ) from error
  return seed


# The loop ------------------------------------------------------------------------------------------


class _Evaluations:
  """What is measured between steps, and where it is written."""

  def __init__(
    self,
    model: seq2seq.EncoderDecoderModel,
    partitioner: partitioning.Partitioner,
    schedule: Schedule,
    validation: Callable[[], Any] | None,
    infer_eval_cfg: evaluation.InferEvalConfig | None,
    model_dir: str,
  ):
    self.writer = metrics.Writer(model_dir)
    self._schedule, self._validation = schedule, validation
    self._partitioner = partitioner
    self._eval_step = evaluation.make_eval_step(model, partitioner)
    self._infer = None
    if infer_eval_cfg is not None:
      log_dir = str(epath.Path(model_dir) / 'inference_eval')
      self._infer = evaluation.InferEvaluator(model, partitioner, infer_eval_cfg, log_dir)

  def run(self, state: train_state.TrainState, step: int, *, losses: bool, decode: bool) -> None:
    if losses and self._validation is not None:
      batches = _take(self._validation(), self._schedule.eval_steps)
      summary = evaluation.train_eval(self._eval_step, state.params, batches, self._partitioner)
      self.writer.write(step, 'train_eval', summary)
      logger.info(
        'step %d  validation: loss %.4f per token, accuracy %.1f %%',
        step,
        summary['loss_per_target_token'],
        100 * summary['accuracy'],
      )
    if decode and self._infer is not None:
      for task, values in self._infer.evaluate(state.params, step).items():
        self.writer.write(step, f'infer_eval/{task}', values)
        overall = {name: v for name, v in values.items() if '/' not in name}
        shown = ', '.join(f'{name} {v:.2f}' for name, v in overall.items())
        logger.info('step %d  decoded %s: %s', step, task, shown)
    self.writer.flush()


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
    if step >= last_step:
      logger.info('already at step %d of %d: nothing to do', step, last_step)
      return state
    if self.schedule.eval_before_training and self.checkpoints.latest_step() is None:
      self.evaluations.run(state, step, losses=True, decode=True)
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
      self.evaluations.run(state, step, losses=due['losses'], decode=due['decode'])
      if due['save'] or stopping:
        self.checkpoints.save(state, self.iterator)
      mark = time.monotonic()
      if stopping and step < last_step:
        self.checkpoints.wait()
        logger.info('stopped at step %d; the same command continues from here', step)
        raise KeyboardInterrupt
    self.checkpoints.wait()
    return state

  def _due(self, step: int, last_step: int, save_period: int) -> dict[str, bool]:
    last = step == last_step
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
    if (bad := metrics.first_nonfinite(series)) is not None:
      self._refuse_nonfinite(step - len(fetched) + bad[0], bad[1])
    total = functools.reduce(metrics.add, fetched)
    summary = metrics.train_summary(total, seconds)
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

"""A training run: parts put together, the loop over steps, what happens between steps."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import optax

from aya_train import (
  batch_progress,
  finiteness,
  hosts,
  initial_state,
  lease,
  model_folders,
  nonfinite_steps,
  partitioning,
  preflight,
  run_dir,
  state_digests,
  step_trace,
  stopping,
  train_state,
  train_step,
  training_progress,
  watchdog,
)
from aya_train.checkpoint import manager, reading
from aya_train.data import batching, task_registry
from aya_train.evaluation import eval_decoder, evaluation, infer_eval, run_evaluations
from aya_train.objectives import objective

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Schedule:
  """When things happen, in steps.

  Attributes:
    log_period: between two lines of progress. At least as often, and before each save, it is looked
      whether a step gave NaN.
    eval_period: between two evaluations of the loss on the validation split.
    eval_steps: batches of each such evaluation, None for the whole split.
    infer_eval_period: between two decodings; None decodes at the end only.
    eval_before_training: evaluate and decode the initial parameters too, as a baseline.
    state_digest_period: between two digests of the state in metrics.jsonl, which `aya-train replay`
      compares with its own; None for none.
    profile_steps: the first and the last step that a trace is made of, counted from 1 where the
      process begins (step_trace.py); None for no trace.
  """

  log_period: int = 100
  eval_period: int = 1000
  eval_steps: int | None = 20
  infer_eval_period: int | None = None
  eval_before_training: bool = False
  state_digest_period: int | None = None
  profile_steps: tuple[int, int] | None = None

  def __post_init__(self):
    periods = ('log_period', 'eval_period', 'infer_eval_period', 'state_digest_period')
    for name in ('eval_steps', *periods):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(f'{name.upper()} must be at least 1, got {value!r}')
    object.__setattr__(self, 'profile_steps', step_trace.check(self.profile_steps))


def train(
  *,
  model: objective.Objective,
  model_dir: str,
  train_dataset_cfg: batching.DatasetConfig,
  train_eval_dataset_cfg: batching.DatasetConfig | None,
  infer_eval_cfg: infer_eval.InferEvalConfig | None,
  checkpoint_cfg: manager.CheckpointConfig,
  partitioner: partitioning.Partitioner,
  optimizer: Callable[..., optax.GradientTransformation],
  learning_rate_fn: Callable[[jax.Array], jax.Array],
  schedule: Schedule,
  total_steps: int | None,
  relative_steps: int | None = None,
  initial_checkpoint_path: str | None = None,
  base_checkpoint_path: str | None = None,
  random_seed: int | None = None,
  num_microbatches: int | None = None,
  nonfinite_cfg: nonfinite_steps.NonFiniteConfig | None = None,
  watchdog_cfg: watchdog.WatchdogConfig | None = None,
  on_start: Callable[[str], None] | None = None,
  on_data: Callable[[str, batching.DatasetConfig], None] | None = None,
) -> train_state.TrainState:
  """Trains, evaluates and saves until `total_steps`; continues what `model_dir` already holds.

  Order of events: take hold of `model_dir` (lease.py); check every setting, the checkpoint to start
  from, the data and `model_dir` (preflight.py); prepare data; create the state (shapes only), then
  fill it from the newest checkpoint in `model_dir`, or else from `initial_checkpoint_path`, or else
  at random; then write what the run is, if there is anything to train; then step. A batch is drawn,
  the update made, then the state and the position in the data are saved together, then evaluated.
  A signal ends all of that early, see stopping.py.

  An evaluation that fails costs no training: it is logged, the run goes on, and the error comes at
  the end, when everything is saved. Evaluations of the newest checkpoint that a run lacks are made
  when it continues.

  Args:
    model: the objective, which gin and T5X call the model.
    model_dir: where checkpoints, metrics and TensorBoard events go.
    train_dataset_cfg, train_eval_dataset_cfg: training and validation data, or None for no
      validation loss. It is left out, with a line, if it is of the training mixture, and that has
      none.
    infer_eval_cfg: what is decoded, or None; of the training mixture, what has metrics.
    checkpoint_cfg: when to save.
    partitioner: mesh and logical axis rules.
    optimizer: maps (learning rate schedule, parameters' logical axes) to an optax transformation.
    learning_rate_fn: learning rate of a step.
    schedule: when to log and to evaluate.
    total_steps: last step, those of the initial checkpoint included (T5X's TRAIN_STEPS); may be
      None where `relative_steps` is given.
    relative_steps: if given, that many steps on top of the initial checkpoint's instead.
    initial_checkpoint_path: weights to start from (any format of checkpoint/formats.py), or None.
      A run that has checkpoints does not look for it, unless it trains an adapter: then these are
      the weights under it, or an adapter to go on from.
    base_checkpoint_path: where the weights under an adapter are, if not where it says.
    random_seed: seeds parameters, dropout and data; None draws one, kept in `model_dir`.
    num_microbatches: parts that each batch is computed in; None for one.
    nonfinite_cfg: what happens at a step that gives NaN or infinity; None stops.
    watchdog_cfg: how long the run may stand still once its data are prepared; None: for ever.
    on_start: called with `model_dir` before the first step, when nothing more can be refused, on
      the first host; not if all steps are made.
    on_data: called with `model_dir` and the training data's configuration at the same time.

  Returns:
    The last state.

  Raises:
    ValueError: settings that do not fit together, each named with what was got.
    FileNotFoundError, OSError: data or a checkpoint is missing; `model_dir` cannot be written, is a
      checkpoint or a model, or another process is writing it.
    stopping.StoppedError: a signal ended the run.
    finiteness.NonFiniteError: NaN or infinite loss, gradient or state; the step is named.
    evaluation.EvaluationError: the run is complete and saved, and evaluations failed.
  """
  started = time.monotonic()
  if not str(model_dir).strip():
    raise ValueError('MODEL_DIR is empty: give a folder or bucket')
  model_folders.check_run(model_dir)
  preflight.check_asked_steps(total_steps, relative_steps)
  if num_microbatches is not None and num_microbatches < 1:
    raise ValueError(f'NUM_MICROBATCHES must be None or at least 1, got {num_microbatches}')
  micro = num_microbatches or 1
  nonfinite_cfg = nonfinite_cfg or nonfinite_steps.NonFiniteConfig()
  _check(model, train_dataset_cfg, train_eval_dataset_cfg, infer_eval_cfg, partitioner, micro)
  train_dataset_cfg = preflight.with_reference(train_dataset_cfg)
  if train_eval_dataset_cfg is not None:
    train_eval_dataset_cfg = preflight.with_reference(train_eval_dataset_cfg)
  axes = objective.parameter_axes(model)[1]
  tx = optimizer(learning_rate_fn, objective.trained(model, axes))
  abstract = train_state.abstract_state(model, tx, partitioner)
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(stopping.stop_on_signal())
    held = stack.enter_context(lease.held(model_dir, 'MODEL_DIR', 'train'))
    begun = manager.newest_sound(model_dir, checkpoint_cfg.damaged)
    known = run_dir.read_or_recover(
      model_dir,
      None if begun is None else manager.read_metadata(manager.step_folder(model_dir, begun)),
    )
    run_dir.check(model_dir, known, model.metadata(), random_seed)
    initial, first_step = None, 0
    if begun is not None:
      first_step = known['first_step']
      stream = dataclasses.replace(train_dataset_cfg, seed=known['seed'])
      preflight.check_stream(manager.data_states(model_dir, begun), stream, model_dir)
    elif initial_checkpoint_path is not None:
      initial, first_step = preflight.check_start(
        initial_checkpoint_path, model, abstract.all_params, base_checkpoint_path
      )
    base = None
    if model.adapter is not None:
      paths = (initial_checkpoint_path, base_checkpoint_path)
      base = preflight.check_base(model, abstract.all_params, initial, known, *paths)
    last_step = total_steps or 0
    if relative_steps is not None:
      last_step = first_step + relative_steps
    if begun is None:
      preflight.check_steps(first_step, last_step)
    found = preflight.check_data(train_dataset_cfg, train_eval_dataset_cfg)
    decoder = preflight.decoder(model, partitioner, infer_eval_cfg, train_dataset_cfg, model_dir)
    preflight.check_monitored(
      checkpoint_cfg, schedule.eval_period, schedule.infer_eval_period, found, decoder, last_step
    )
    if begun is None or begun < last_step:
      steps = last_step - (first_step if begun is None else begun)
      preflight.check_model_dir(model_dir, abstract.saved, checkpoint_cfg.num_kept(steps))

    seed = known['seed'] if 'seed' in known else run_dir.drawn_seed(random_seed)
    train_dataset_cfg = dataclasses.replace(train_dataset_cfg, seed=seed)
    host = hosts.here(partitioner.data_shard)
    stop.check()
    iterator = batching.train_iterator(train_dataset_cfg, host, model.feature_converter)
    validation = run_evaluations.prepared_validation(
      found.train_eval, host, model, schedule.eval_steps
    )
    stop.check()

    stack.enter_context(watchdog.watching(watchdog_cfg, model_dir, host.name))
    run = {'seed': seed, 'first_step': first_step}
    # For exports: how long answers are, and with what dropout to train on.
    metadata = {
      **model.metadata(),
      **({} if base is None else {'base': base.described}),
      'task_feature_lengths': dict(train_dataset_cfg.task_feature_lengths),
      'run': run,
    }
    if model.config is not None:
      metadata['dropout_rate'] = model.config.dropout_rate
    checkpoints = manager.CheckpointManager(model_dir, checkpoint_cfg, metadata)
    stack.callback(_close, checkpoints)
    with watchdog.phase('reading a checkpoint'):
      restored = checkpoints.restore_newest(abstract, iterator)
      if restored is not None:
        state = restored
        if base is not None:
          frozen = reading.read_frozen(base.source, abstract.frozen, model.config)
          state = dataclasses.replace(state, frozen=frozen)
        logger.info('continuing from step %d in %s', int(state.step), model_dir)
      else:
        state = initial_state.create(model, tx, partitioner, abstract, seed, initial)
    stop.check()
    source = model_dir if restored is not None or initial is None else initial.path
    finiteness.check(
      state,
      f'step {int(state.step)} of {source}',
      'Nothing was trained from it: start from another checkpoint',
    )
    held.check_together()
    with hosts.together():
      ours = {**model.metadata(), **({} if base is None else {'base': base.described})}
      run_dir.write(model_dir, {**known, **(ours if restored is None else {}), **run})
      if int(state.step) < last_step and jax.process_index() == 0:
        if on_start is not None:
          on_start(model_dir)
        if on_data is not None:
          on_data(model_dir, train_dataset_cfg)
    evaluations = run_evaluations.RunEvaluations(
      model, partitioner, schedule.eval_steps, validation, decoder, model_dir, held, stop.check
    )
    stack.callback(evaluations.writer.flush)
    step_fn = train_step.make_train_step(
      *(model, tx, learning_rate_fn, partitioner, abstract, micro),
      skip_nonfinite=nonfinite_cfg.skips,
    )
    nonfinite = nonfinite_steps.NonFiniteSteps(
      nonfinite_cfg, model, iterator, evaluations.writer, model_dir, state
    )
    loop = _Loop(
      *(model, step_fn, partitioner, iterator, checkpoints, evaluations, nonfinite),
      *(schedule, model_dir, held, stop),
    )
    with watchdog.phase('training'):
      state = loop.run(state, last_step, checkpoint_cfg.period)
  logger.info(
    'done at step %d after %s', int(state.step), batch_progress.clock(time.monotonic() - started)
  )
  with hosts.together():
    if evaluations.failures:
      raise evaluation.EvaluationError(
        f'trained to step {int(state.step)}, and its checkpoint is in {model_dir}; but evaluations '
        f'failed: {evaluation.describe_failures(evaluations.failures)}. The same command repeats '
        'those of the last step'
      )
  return state


def _close(checkpoints: manager.CheckpointManager) -> None:
  with watchdog.phase('closing checkpoints'):
    checkpoints.close()


# Checks on the way in -----------------------------------------------------------------------------


def _check(
  model: objective.Objective,
  train_cfg: batching.DatasetConfig,
  train_eval_cfg: batching.DatasetConfig | None,
  infer_eval_cfg: infer_eval.InferEvalConfig | None,
  partitioner: partitioning.Partitioner,
  num_microbatches: int,
) -> None:
  """Everything that can be refused before long work starts."""
  model.check(partitioner.mesh.devices.flat[0].platform)
  model.feature_converter.check(train_cfg.task_feature_lengths, pack=train_cfg.pack)
  objective.check_sums(
    model,
    objective.abstract_batch(model, train_cfg.task_feature_lengths, 1, packed=train_cfg.pack),
  )
  eval_decoder.check(model, infer_eval_cfg)
  partitioner.check_batch_size(train_cfg.batch_size, num_microbatches)
  model.check_batch(train_cfg.batch_size, train_cfg.task_feature_lengths)
  task_registry.get_mixture_or_task(train_cfg.mixture_or_task_name)
  if train_eval_cfg is not None:
    model.feature_converter.check(train_eval_cfg.task_feature_lengths, pack=train_eval_cfg.pack)
    partitioner.check_batch_size(train_eval_cfg.batch_size)
    task_registry.get_mixture_or_task(train_eval_cfg.mixture_or_task_name)
  if infer_eval_cfg is not None:
    partitioner.check_batch_size(infer_eval_cfg.batch_size, name='batch size of infer_eval')
    for name in infer_eval_cfg.names:
      task_registry.get_mixture_or_task(name)


# The loop -----------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Loop:
  """Runs steps; owns the order of training, saving and evaluating."""

  model: objective.Objective
  step_fn: Callable[..., Any]
  partitioner: partitioning.Partitioner
  iterator: Any
  checkpoints: manager.CheckpointManager
  evaluations: run_evaluations.RunEvaluations
  nonfinite: nonfinite_steps.NonFiniteSteps
  schedule: Schedule
  model_dir: str
  held: lease.Lease
  stop: stopping.Stop

  def run(
    self, state: train_state.TrainState, last_step: int, save_period: int
  ) -> train_state.TrainState:
    step = int(state.step)
    if self.checkpoints.latest_step() is not None:
      due = self._due(step, last_step, save_period)
      self.evaluations.run_missing(state, step, losses=due['losses'], decode=due['decode'])
      self.checkpoints.note_best()
    elif self.schedule.eval_before_training:
      self._evaluate_first(state, step)
    if step >= last_step:
      logger.info('already at step %d of %d: nothing to train', step, last_step)
      return state
    logger.info('training from step %d to %d (the first step compiles)', step, last_step)
    pending: list[Mapping[str, Any]] = []
    progress = training_progress.TrainingProgress(
      self.model, self.evaluations.writer, step, last_step
    )
    trace = step_trace.StepTrace(self.schedule.profile_steps, self.model_dir)
    while step < last_step:
      trace.begin()
      with jax.profiler.StepTraceAnnotation('train', step_num=step + 1):
        with progress.waiting_for_data():
          rows = next(self.iterator)
        given = self.partitioner.to_global(rows)
        batch = self.model.draw(state.all_params, given, state.host_key, self.partitioner)
        state, sums = self.step_fn(state, batch)
      trace.end(sums)
      self.stop.saving = True
      pending.append(sums)
      step += 1
      self.checkpoints.check()
      watchdog.expect(sums['grad_norm'], f'step {step}')
      due = self._due(step, last_step, save_period)
      ending = self.stop.requested()
      if not (any(due.values()) or ending):
        continue
      self.held.check_together()
      with self._nothing_bad_is_kept():
        progress.report(self.nonfinite.sift(jax.device_get(pending), step), step)
      pending = []
      if due['digest']:
        self.evaluations.writer.write(step, state_digests.KIND, state_digests.record(state))
      evaluating = self.evaluations.has(losses=due['losses'], decode=due['decode'])
      # The first evaluation comes after a first checkpoint, whatever the periods: it may end the
      # process in ways that cannot be caught.
      first = evaluating and self.checkpoints.latest_step() is None
      if due['save'] or ending or first:
        self._save(state, step)
      if evaluating and (first or step == last_step):
        self._wait()
        self.stop.saving = False
      if evaluating and not ending:
        try:
          self.evaluations.run(state, step, losses=due['losses'], decode=due['decode'])
        except stopping.StoppedError:
          ending = True
        self.checkpoints.note_best()
      progress.go_on()
      if ending or step == last_step:
        trace.close(sums)
      if ending and (evaluating or step < last_step):
        self._save(state, step)
        self._wait()
        logger.info('stopped at step %d; the same command continues from here', step)
        raise stopping.StoppedError
    self._wait()
    if trace.missed:
      logger.warning(
        'PROFILE_STEPS %s: no trace, as fewer steps were left to train', self.schedule.profile_steps
      )
    return state

  def _save(self, state: train_state.TrainState, step: int) -> None:
    with self._nothing_bad_is_kept():
      finiteness.check(state, f'step {step}', 'It is not saved')
    with watchdog.phase(f'saving step {step}'):
      self.checkpoints.save(state, self.iterator)

  def _wait(self) -> None:
    with watchdog.phase('waiting until a checkpoint is written'):
      self.checkpoints.wait()

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
    infer, digest = self.schedule.infer_eval_period, self.schedule.state_digest_period
    return {
      'log': last or step % self.schedule.log_period == 0,
      'losses': last or step % self.schedule.eval_period == 0,
      'decode': last or (infer is not None and step % infer == 0),
      'save': last or step % save_period == 0,
      'digest': digest is not None and step % digest == 0,
    }

  @contextlib.contextmanager
  def _nothing_bad_is_kept(self) -> Iterator[None]:
    """Adds to a NonFiniteError what is kept."""
    try:
      yield
    except finiteness.NonFiniteError as error:
      self.checkpoints.wait()
      good = self.checkpoints.latest_step()
      kept = (
        'no checkpoint was saved before'
        if good is None
        else f'the checkpoint of step {good} is good'
      )
      raise finiteness.NonFiniteError(f'{error}. Stopped, and {kept} ({self.model_dir})') from error

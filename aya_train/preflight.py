"""What is checked before a run's long work: everything that can be known by then.

Nothing is written here but a probe that a folder can be.
"""

import dataclasses
import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import seqio
from etils import epath

from aya_train import destinations, hosts, metric_writer, partitioning, path_facts, run_dir
from aya_train.checkpoint import (
  answering,
  checkpoint_identity,
  checkpoint_room,
  formats,
  manager,
  reading,
)
from aya_train.data import batching, mixing, reference_scores, task_registry
from aya_train.evaluation import eval_decoder, infer_eval, infer_evaluator, missing_tasks
from aya_train.objectives import objective
from aya_train.tasks import features, split_slices

logger = logging.getLogger(__name__)


def check_start(
  initial_checkpoint_path: str,
  model: objective.Objective,
  abstract_params: Any,
  base_checkpoint_path: str | None = None,
) -> tuple[formats.Detected, int]:
  """Opens the checkpoint that a run starts from, without reading its weights.

  Args:
    initial_checkpoint_path: any format of checkpoint/formats.py.
    model, abstract_params: what it must fit.
    base_checkpoint_path: where the weights under an adapter are; None: where it says.

  Returns:
    The checkpoint, and the step it was saved at.

  Raises:
    FileNotFoundError: nothing there.
    ValueError: another network or vocabulary, a damaged checkpoint, or one that starts or ends
      answers with other tokens than training does.
  """
  try:
    source = formats.detect(initial_checkpoint_path, base_checkpoint_path)
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f'INITIAL_CHECKPOINT_PATH: {error}; None trains from scratch'
    ) from error
  step = reading.check(source, abstract_params, model)
  if model.config is not None and model.is_whole:
    answering.check_plain(source, 'training')
  return source, step


def check_asked_steps(total: int | None, relative: int | None) -> None:
  """Refuses numbers of steps that no run has, also where a run is continued.

  Raises:
    ValueError: by the name of its macro.
  """
  for name, steps in (('TRAIN_STEPS', total), ('TRAIN_STEPS_RELATIVE', relative)):
    if steps is not None and steps < 1:
      raise ValueError(f'{name} must be at least 1, got {steps}')
  if total is None and relative is None:
    raise ValueError('TRAIN_STEPS and TRAIN_STEPS_RELATIVE are both None: give one of them')


def with_reference(cfg: batching.DatasetConfig) -> batching.DatasetConfig:
  """A configuration whose reference was looked at, if it reads scores of one.

  A reference that is no longer there is known by its path: see `reference_scores.scored`.
  """
  path = cfg.reference_checkpoint
  if path is None or reference_scores.FEATURE not in cfg.task_feature_lengths:
    return cfg
  identity = ''
  with hosts.together():
    if hosts.is_first() and path_facts.exists(path):
      identity = checkpoint_identity.of(formats.detect(path).path)
  reference = reference_scores.Reference(path, hosts.first_says(identity))
  return dataclasses.replace(cfg, reference=reference)


@dataclasses.dataclass(frozen=True)
class Base:
  """The weights under a run's adapter.

  Attributes:
    source: where they are.
    identity: their `checkpoint_identity`.
  """

  source: formats.Detected
  identity: str

  @property
  def described(self) -> dict[str, str]:
    """What the run's checkpoints say of them."""
    path = os.fspath(self.source.path)
    is_local = destinations.is_local(path)
    return {'path': os.path.abspath(path) if is_local else path, 'identity': self.identity}


def check_base(
  model: objective.Objective,
  abstract_params: Any,
  initial: formats.Detected | None,
  known: Mapping[str, Any],
  initial_checkpoint_path: str | None,
  base_checkpoint_path: str | None,
) -> Base:
  """Finds the weights under the adapter of a run, and holds them against those it began with.

  Args:
    model, abstract_params: what they must fit.
    initial: what a run that begins starts from; None if it continues.
    known: run.json.
    initial_checkpoint_path, base_checkpoint_path: as `train_loop.train`'s. A run that continues
      finds its base without them, where it lay.

  Raises:
    FileNotFoundError: they are not there.
    ValueError: no checkpoint is named, or the weights are not those that the run began with.
  """
  begun: Mapping[str, str] = (known.get('base') or {}) if initial is None else {}
  if initial is None and not begun:
    raise ValueError(
      'an adapter is nothing without the weights under it: INITIAL_CHECKPOINT_PATH must name them, '
      f'got {initial_checkpoint_path!r}'
    )
  if initial is not None:
    source = formats.base_of(initial)
  else:
    named = base_checkpoint_path or initial_checkpoint_path
    path = named if named and path_facts.exists(named) else begun['path']
    source = formats.base_of(formats.detect(path))
    reading.check(source, abstract_params, model)
  identity = hosts.first_says(checkpoint_identity.of(source.path))
  if begun and begun['identity'] != identity:
    formats.check_identity(source, begun['identity'], "the adapter of this run's MODEL_DIR")
  return Base(source, identity)


def check_steps(first_step: int, last_step: int) -> None:
  """Refuses a run with nothing to do.

  Raises:
    ValueError: with both steps.
  """
  if last_step <= first_step:
    raise ValueError(
      f'nothing to train: the initial checkpoint is at step {first_step} and TRAIN_STEPS is '
      f'{last_step}; TRAIN_STEPS counts the steps of pre-training, TRAIN_STEPS_RELATIVE does not'
    )


def check_stream(
  saved: Sequence[Mapping[str, Any]], cfg: batching.DatasetConfig, where: epath.PathLike
) -> None:
  """Refuses to continue a run with other data, before these are prepared.

  Args:
    saved: states of the data of all hosts, of the newest checkpoint.
    cfg: of the training data, its seed the run's.
    where: the checkpoint.

  Raises:
    ValueError: with the saved and the present settings.
  """
  for state in saved:
    theirs = state.get('stream', {})
    differing = [
      f'{name}: saved {theirs.get(name)!r}, now {value!r}'
      for name, value in batching.stream_settings(cfg).items()
      if name in theirs and theirs[name] != value
    ]
    if differing:
      raise ValueError(
        f'the data of the run in {where} belong to another stream ({"; ".join(differing)}). '
        'Continue it with the settings that it was begun with, or take another MODEL_DIR'
      )


@dataclasses.dataclass(frozen=True)
class Data:
  """What a run reads and measures, of what was asked for.

  Attributes:
    train: the training data.
    train_eval: data of the validation loss, None if there is to be none, or can be none.
  """

  train: batching.DatasetConfig
  train_eval: batching.DatasetConfig | None


def check_data(train: batching.DatasetConfig, train_eval: batching.DatasetConfig | None) -> Data:
  """Looks for the data of a run, and prepares the first rows of each task.

  The validation loss is left out, with a line, where the training data has no validation split:
  that it is measured on the same mixture is a default. One that names other data must be possible.

  Raises:
    FileNotFoundError, ValueError, OSError: see `availability.survey`.
  """
  mixing.check_rates(task_registry.get_mixture_or_task(train.mixture_or_task_name))
  kept: batching.DatasetConfig | None = train_eval
  with hosts.together():
    if jax.process_index() == 0:
      log_survey(train, batching.survey(train))
      kept = check_validation(train, train_eval)
  return Data(train, train_eval if hosts.first_says(kept is not None) else None)


def check_validation(
  train: batching.DatasetConfig, train_eval: batching.DatasetConfig | None
) -> batching.DatasetConfig | None:
  """`train_eval`, or None, with a line, where the training data has nothing to validate on."""
  if train_eval is None:
    return None
  try:
    found = batching.survey(train_eval, allow_empty=True)
  except ValueError as error:
    named = train_eval.mixture_or_task_name != train.mixture_or_task_name
    if named or not _has_no_rows(train_eval, error):
      raise
    logger.warning(
      'no validation loss: %s; TRAIN_EVAL_MIXTURE_OR_TASK_NAME may name other data',
      str(error).rstrip('.'),
    )
    return None
  log_survey(train_eval, found)
  _say_common_rows(train, train_eval)
  return train_eval


def _say_common_rows(train: batching.DatasetConfig, evaluated: batching.DatasetConfig) -> None:
  """Says it where rows are validated on that are trained on."""
  names = [
    {t.name for t in seqio.get_subtasks(task_registry.get_mixture_or_task(c.mixture_or_task_name))}
    for c in (train, evaluated)
  ]
  if names[0] & names[1] and split_slices.overlap(train.split, evaluated.split):
    logger.warning(
      'the validation loss is measured on rows that are trained on: %r (TRAIN_EVAL_SPLIT) has rows '
      'of %r (TRAIN_SPLIT)',
      evaluated.split,
      train.split,
    )


def _has_no_rows(cfg: batching.DatasetConfig, error: Exception) -> bool:
  if isinstance(error, task_registry.EmptySplitError):
    return True
  return not task_registry.has_split(
    task_registry.get_mixture_or_task(cfg.mixture_or_task_name), cfg.split
  )


def log_survey(cfg: batching.DatasetConfig, found: Any) -> None:
  """Says what is read of a mixture, and what of it has nothing to read."""
  name = f'{cfg.mixture_or_task_name}:{cfg.split}'
  for reason, tasks in found.left_out.items():
    more = f' and {len(tasks) - 6} more' if len(tasks) > 6 else ''
    logger.info('%s: %s: %s%s', name, reason, ', '.join(tasks[:6]), more)
  logger.info('%s: data of %d tasks found', name, len(found.tasks))


def check_model_dir(model_dir: epath.PathLike, state: Any, num_kept: int) -> None:
  """Tries that a run can write its directory, and that the disk has room for one checkpoint.

  Args:
    model_dir: MODEL_DIR.
    state: shapes and dtypes of the training state.
    num_kept: checkpoints that will lie there at the end; a line says so if they will not fit.

  Raises:
    OSError: see `destinations.check_folder`.
  """
  size = checkpoint_room.num_bytes(state)
  with hosts.together():
    destinations.check_folder(
      model_dir,
      'MODEL_DIR',
      files=(run_dir.FILE, metric_writer.FILE, 'config.gin', 'operative_config.gin'),
      num_bytes=size - checkpoint_room.unfinished_bytes(epath.Path(model_dir) / manager.FOLDER),
      what='one checkpoint',
    )
    folder = os.fspath(epath.Path(model_dir) / manager.FOLDER)
    destinations.check_folder(folder, 'the checkpoints of MODEL_DIR,')
  free = destinations.free_bytes(model_dir)
  if free is not None and free < size * num_kept:
    logger.warning(
      'MODEL_DIR %s has %s free, and the %d checkpoints that this run will keep take %s: the disk '
      'will be full before the end. Set CHECKPOINT_KEEP or CHECKPOINT_PERIOD, or make room',
      model_dir,
      destinations.gigabytes(free),
      num_kept,
      destinations.gigabytes(size * num_kept),
    )


def decoder(
  model: objective.Objective,
  partitioner: Any,
  config: infer_eval.InferEvalConfig | None,
  train: batching.DatasetConfig,
  model_dir: epath.PathLike | None,
) -> infer_evaluator.InferEvaluator | None:
  """`eval_decoder.opened` of a run: what is named must be decodable, what is a default need not.

  Without `model_dir` the decoded examples are not written.
  """
  log_dir = None if model_dir is None else os.fspath(epath.Path(model_dir) / 'inference_eval')
  named = config is not None and config.mixture_or_task_name != train.mixture_or_task_name
  if config is not None and not named:
    config = dataclasses.replace(config, missing_tasks=missing_tasks.LEAVE_OUT)
  return eval_decoder.opened(model, partitioner, config, log_dir, required=named)


def check_monitored(
  cfg: manager.CheckpointConfig,
  eval_period: int,
  infer_eval_period: int | None,
  data: Data,
  decoder: infer_evaluator.InferEvaluator | None,
  last_step: int,
) -> None:
  """Refuses a metric that is never measured at a step that is saved.

  Args:
    cfg: which metric, and when steps are saved.
    eval_period, infer_eval_period: steps between two evaluations.
    data: what the loss is measured on.
    decoder: what is decoded.
    last_step: of the run.

  Raises:
    ValueError: what was asked for, and what there is.
  """
  name = cfg.metric_name_to_monitor
  if name is None:
    return
  said = f'CHECKPOINT_METRIC_NAME_TO_MONITOR = {name!r}: '
  tasks = [] if decoder is None else decoder.tasks
  kinds = [f'infer_eval/{task}/' for task in tasks]
  kinds += ['train_eval/'] if data.train_eval is not None else []
  kinds.append('train/')
  if not any(name.startswith(kind) and name != kind for kind in kinds):
    raise ValueError(f'{said}this run measures {[f"{kind}METRIC" for kind in kinds]}')
  if name.startswith('train/'):
    return
  loss = name.startswith('train_eval/')
  period, macro = (eval_period, 'EVAL') if loss else (infer_eval_period, 'INFER_EVAL')
  if period is None or math.lcm(period, cfg.period) > last_step:
    raise ValueError(
      f'{said}no step before the last is both measured ({macro}_PERIOD {period}) and saved '
      f'(CHECKPOINT_PERIOD {cfg.period}): let one be a multiple of the other, below {last_step}'
    )


def check_prepare(
  model: objective.Objective | None,
  initial_checkpoint_path: str | None,
  train: batching.DatasetConfig,
  train_eval: batching.DatasetConfig | None,
  infer_eval_cfg: infer_eval.InferEvalConfig | None,
) -> list[batching.DatasetConfig]:
  """What `prepare` with gin files checks: as `train`, of data, vocabulary and metrics.

  Args:
    model: None where no gin file configures one; then its vocabulary is not looked at.
    initial_checkpoint_path: as `train`'s. It may lie where only the pod can read it: a path that
      cannot be reached is said, and nothing more.
    train, train_eval, infer_eval_cfg: as `train`'s.

  Returns:
    What is to be tokenised.

  Raises:
    ValueError, FileNotFoundError, OSError: what `train` would raise.
  """
  if model is not None:
    check_vocabulary(model, initial_checkpoint_path)
  found = check_data(train, train_eval)
  if model is not None and infer_eval_cfg is not None:
    few = dataclasses.replace(
      infer_eval_cfg, num_examples=infer_evaluator.TRIED_EXAMPLES, batch_size=1
    )
    decoder(model, partitioning.one_device(), few, train, None)
  return [cfg for cfg in (found.train, found.train_eval) if cfg is not None]


def check_vocabulary(model: objective.Objective, initial_checkpoint_path: str | None) -> None:
  """Holds the vocabulary against the model and the checkpoint that it starts from.

  Raises:
    ValueError: see `Objective.check_vocabulary` and `check_start`.
  """
  model.check_vocabulary()
  path = initial_checkpoint_path
  # Data may be prepared where no bucket can be reached; who keeps the vocabulary in one has access.
  if path is None or not (
    destinations.is_local(path) or not destinations.is_local(features.vocabulary_file())
  ):
    return
  try:
    check_start(path, model, objective.parameter_axes(model)[0])
  except OSError as error:
    logger.warning('INITIAL_CHECKPOINT_PATH is not looked at from here: %s', error)

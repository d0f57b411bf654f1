"""Native checkpoints: Orbax, one folder a step, written in the background and committed as a whole.

    MODEL_DIR/checkpoints/<step>/params      float32 parameters
                                /training    step, optimizer state, random key
                                /data        position in the data, a file for each host
                                /metadata    JSON: architecture, vocabulary, versions
                                /digests     JSON: what all of these are held to (`soundness`)
             /damaged_checkpoints/<step>     a step that was found damaged, kept for study
             /best_checkpoint.json           which step is the best, if a metric is monitored
Parameters stand apart so that evaluation and export read nothing else.
"""

import dataclasses
import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from aya_train import destinations, hosts, path_facts, train_state
from aya_train.checkpoint import best_step, checkpoint_room, digests, restoration, soundness
from aya_train.checkpoint.soundness import DamagedError

logger = logging.getLogger(__name__)

FOLDER = 'checkpoints'
DAMAGED_FOLDER = 'damaged_checkpoints'
ON_DAMAGE = ('fall_back', 'stop')


class SaveError(OSError):
  """A checkpoint could not be written; names its step, and what is kept."""


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """When to save and what to keep; names follow T5X's CheckpointConfig.

  Attributes:
    period: steps between checkpoints; the last step is always saved.
    keep: number of newest checkpoints kept, None for all.
    use_async: write in the background while training goes on.
    damaged: what a run does whose newest checkpoint is damaged: 'fall_back' sets it aside and goes
      on from the newest sound one, 'stop' ends with a message.
    metric_name_to_monitor: a figure of metrics.jsonl by kind and name, such as
      'infer_eval/xnli.swa/accuracy' or 'train_eval/loss': the checkpoint with the best is kept
      besides the newest ones, of equal ones the last.
    metric_mode: 'max' or 'min', which of its values is better.
  """

  period: int = 5000
  keep: int | None = None
  use_async: bool = True
  damaged: str = 'fall_back'
  metric_name_to_monitor: str | None = None
  metric_mode: str = 'max'

  def __post_init__(self):
    if self.period < 1:
      raise ValueError(f'CHECKPOINT_PERIOD must be at least 1, got {self.period!r}')
    if self.keep is not None and self.keep < 1:
      raise ValueError(f'CHECKPOINT_KEEP must be None or at least 1, got {self.keep!r}')
    if self.damaged not in ON_DAMAGE:
      raise ValueError(f'CHECKPOINT_DAMAGED must be one of {ON_DAMAGE}, got {self.damaged!r}')
    if self.metric_mode not in best_step.MODES:
      raise ValueError(
        f'CHECKPOINT_METRIC_MODE must be one of {best_step.MODES}, got {self.metric_mode!r}'
      )

  @property
  def monitored(self) -> best_step.Monitored | None:
    """The metric by which a checkpoint is the best, if there is one."""
    name = self.metric_name_to_monitor
    return None if name is None else best_step.Monitored(name, self.metric_mode)

  def num_kept(self, steps: int) -> int:
    """Checkpoints that lie on the disk at most, after as many more steps."""
    made = -(-steps // self.period)
    # A new one is written before the oldest is deleted, and the best one may be an old one.
    more = 1 if self.metric_name_to_monitor is None else 2
    return made if self.keep is None else min(made, self.keep + more)


class _Orbax(ocp.CheckpointManager):
  """Orbax's manager, without its own question to JAX about a preemption.

  JAX has one count of such questions, at a number of which all hosts stop. stopping.py keeps it;
  with the steps of Orbax in between, hosts miss the number that they have agreed on.
  """

  def reached_preemption(self, step: int) -> bool:
    del step
    return False


class CheckpointManager:
  """Saves and restores a run in its MODEL_DIR. Every method is called by every host."""

  def __init__(
    self,
    model_dir: epath.PathLike,
    config: CheckpointConfig,
    metadata: Mapping,
    *,
    read_only: bool = False,
  ):
    """Opens a run's checkpoints; `read_only` changes nothing there, and cannot save."""
    self._metadata = dict(metadata)
    self._model_dir = epath.Path(model_dir).resolve()
    self._on_damage = config.damaged
    self._monitored = config.monitored
    kept: dict[str, Any] = {'max_to_keep': config.keep}
    if self._monitored is not None:
      policy = best_step.NewestAndBest(self._model_dir, config.keep, self._monitored)
      kept = {'preservation_policy': policy}
    self._saving: int | None = None
    self._manager = _Orbax(
      self._model_dir / FOLDER,
      options=ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
      if read_only
      else ocp.CheckpointManagerOptions(
        **kept,
        enable_async_checkpointing=config.use_async,
        # Unlike Orbax's own default, a step is never skipped because it is not a multiple.
        save_interval_steps=1,
        # What a kill or a full disk left half written.
        cleanup_tmp_directories=True,
      ),
    )

  def latest_step(self) -> int | None:
    """The newest committed checkpoint's step, None where there is none."""
    return self._manager.latest_step()

  def note_best(self) -> None:
    """Says which checkpoint is the best by now, after its metric was measured."""
    if self._monitored is not None:
      best_step.note(self._model_dir, self._monitored, self._manager.all_steps())

  def save(self, state: train_state.TrainState, data: grain.DatasetIterator | None) -> None:
    """Saves the state and the position of the iterator; returns once both are copied.

    The iterator must not have been advanced beyond the batch of the last update. Does nothing if
    this step is already there.

    Raises:
      SaveError: this checkpoint, or the one before it, cannot be written.
      OSError: there is no room.
    """
    step = int(state.step)
    if self._manager.latest_step() == step:
      return
    with hosts.together():
      self._check_room(step, state)
    self.wait()
    metadata = {**self._metadata, 'step': step}
    trees = {'params': state.params, 'training': _training(state)}
    known = soundness.Digests(
      soundness.of_trees(trees), digests.of_json(metadata), _data_digests(data)
    )
    items: dict[str, Any] = {
      **{item: ocp.args.StandardSave(tree) for item, tree in trees.items()},
      'metadata': ocp.args.JsonSave(metadata),
      soundness.ITEM: ocp.args.JsonSave(known.as_json()),
    }
    if data is not None:
      items['data'] = grain.checkpoint.CheckpointSave(data)
    self._saving = step
    try:
      saved = self._manager.save(step, args=ocp.args.Composite(**items))
    except Exception as error:
      raise self._save_error(error) from error
    if not saved:
      raise SaveError(
        f'the checkpoint of step {step} was not written: {self._manager.directory} holds step '
        f'{self.latest_step()} already'
      )

  def _check_room(self, step: int, state: train_state.TrainState) -> None:
    folder = self._manager.directory
    try:
      destinations.check_room(
        folder,
        'MODEL_DIR',
        checkpoint_room.num_bytes(state.saved),
        f'the checkpoint of step {step}',
      )
    except OSError as error:
      self.wait()
      raise OSError(f'{error}. {self._kept()}') from error

  def _kept(self) -> str:
    kept = latest_step(self._model_dir)
    return (
      f'The checkpoint of step {kept} is kept' if kept is not None else 'Nothing was saved yet'
    ) + ', and the same command goes on from there'

  def _save_error(self, error: Exception) -> SaveError:
    step, self._saving = self._saving, None
    self._manager.reload()
    cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if destinations.is_full(error):  # libraries say it in pages of their own
      cause = 'its disk is full, make room'
    return SaveError(
      f'writing the checkpoint of step {step} into {self._manager.directory} failed: {cause}. '
      f'{self._kept()}'
    )

  def restore(
    self, abstract: train_state.TrainState, data: Any, step: int
  ) -> train_state.TrainState:
    """The state of a step, laid out as `abstract` (arrays with shardings); sets the iterator.

    Meshes and numbers of hosts may differ from those that saved. The iterator is that of
    `batching.train_iterator`, or None. Every array and file is held to its digest.

    Raises:
      DamagedError: the step is not what was written; on every host.
      ValueError: shapes differ from those of `abstract`, or the data belong to another stream.
    """
    self.wait()
    folder = self._manager.directory / str(step)
    known, states = restoration.agreed(lambda: _small_files(folder, with_data=data is not None))
    trees = restoration.read_trees(
      folder, {'params': abstract.params, 'training': _training(abstract)}, known
    )
    if data is not None:
      data.set_state_of_hosts(states)
    return train_state.TrainState(params=trees['params'], **trees['training'])

  def restore_newest(
    self, abstract: train_state.TrainState, data: Any
  ) -> train_state.TrainState | None:
    """`restore` of the newest sound step; None where there is no step at all.

    Damaged ones that are newer are set aside, with a line each, or end the run, as the
    configuration says.

    Raises:
      DamagedError: none is sound, or the newest is not and the run is to stop then.
      ValueError: as `restore`.
    """
    found: dict[int, DamagedError] = {}
    for step in hosts.first_says(sorted(self._manager.all_steps(), reverse=True)):
      try:
        state = self.restore(abstract, data, step)
      except DamagedError as error:
        logger.error('the checkpoint of step %d is damaged and is not used: %s', step, error)
        found[step] = error
        _check_policy(found, self._on_damage, self._model_dir)
        continue
      if found:
        self._set_aside(list(found))
        logger.error(
          'going on from step %d, the newest sound checkpoint: the steps up to %d are made again',
          step,
          max(found),
        )
      return state
    if found:
      raise _none_sound(found, self._model_dir)
    return None

  def _set_aside(self, steps: Sequence[int]) -> None:
    """Moves damaged steps out of the way of those that will be saved."""
    with hosts.together():
      if jax.process_index() == 0:
        for step in steps:
          kept = self._model_dir / DAMAGED_FOLDER
          kept.mkdir(parents=True, exist_ok=True)
          target, number = kept / str(step), 2
          while target.exists():
            target, number = kept / f'{step}-{number}', number + 1
          (self._manager.directory / str(step)).rename(target)
          logger.error('the damaged checkpoint of step %d is kept in %s', step, target)
    self._manager.reload()

  def check(self) -> None:
    """Raises SaveError if saving in the background has failed by now; waits for nothing."""
    if self._saving is not None and not self._manager.is_saving_in_progress():
      self.wait()

  def wait(self) -> None:
    """Blocks until everything saved is committed.

    Raises:
      SaveError: it could not be written.
    """
    try:
      self._manager.wait_until_finished()
    except Exception as error:
      raise self._save_error(error) from error
    self._saving = None

  def close(self) -> None:
    """Waits as `wait` does, and ends the threads that write."""
    self.wait()
    self._manager.close()


# Damage -------------------------------------------------------------------------------------------


def _check_policy(
  found: Mapping[int, DamagedError], on_damage: str, model_dir: epath.PathLike
) -> None:
  if on_damage == 'stop':
    step, error = next(iter(found.items()))
    raise DamagedError(
      f"the newest checkpoint, step {step}, is damaged: {error}. CHECKPOINT_DAMAGED = 'fall_back' "
      f'goes on from the newest sound one, and keeps this one in {model_dir}/{DAMAGED_FOLDER}'
    )


def _none_sound(found: Mapping[int, DamagedError], model_dir: epath.PathLike) -> DamagedError:
  listed = '; '.join(f'step {step}: {str(error).rstrip(".")}' for step, error in found.items())
  return DamagedError(
    f'none of the {len(found)} checkpoints in {model_dir}/{FOLDER} is sound: {listed}. Nothing was '
    'changed. To begin anew take another MODEL_DIR'
  )


def newest_sound(model_dir: epath.PathLike, on_damage: str = 'fall_back') -> int | None:
  """The newest step of a run whose small files are sound; None where there is no step at all.

  Arrays are not read: that is for `CheckpointManager.restore_newest`, which also says what it finds
  and sets it aside. Creates nothing. Every host calls it, and all get what the first finds.

  Raises:
    DamagedError: none is sound, or the newest is not and `on_damage` is 'stop'.
  """
  with hosts.together():
    step = _newest_sound(model_dir, on_damage)
  return hosts.first_says(step)


def _newest_sound(model_dir: epath.PathLike, on_damage: str = 'fall_back') -> int | None:
  folder = epath.Path(model_dir) / FOLDER
  found: dict[int, DamagedError] = {}
  for step in steps(model_dir):
    try:
      _small_files(folder / str(step), with_data=False)
    except DamagedError as error:
      found[step] = error
      _check_policy(found, on_damage, model_dir)
      continue
    return step
  if found:
    raise _none_sound(found, model_dir)
  return None


def _small_files(
  folder: epath.Path, *, with_data: bool
) -> tuple[soundness.Digests | None, list[Any]]:
  """Checks all of a step but its arrays; its digests, and the positions in the data.

  `with_data`: it is no step of a run without them.

  Raises:
    DamagedError: it is not what was written.
  """
  known = soundness.read(folder)
  soundness.check_items(folder, ('params', 'training', 'metadata'))
  if not _read_metadata(folder, known):
    raise DamagedError(f'{folder}/metadata is empty')
  if with_data or (folder / 'data').exists() or (known is not None and known.data):
    states = soundness.data_states(folder, known)
    if with_data and not states:
      raise DamagedError(f'{folder} holds no position in the data')
    return known, states
  return known, []


def _data_digests(data: grain.DatasetIterator | None) -> list[str]:
  """Digests of the positions in the data of all hosts, in their order."""
  if data is None:
    return []
  state = data.get_state()  # Grain's older iterators give JSON as bytes
  mine = digests.of_json(json.loads(state) if isinstance(state, bytes) else state)
  if not hosts.several():
    return [mine]
  from jax.experimental import multihost_utils

  every = multihost_utils.process_allgather(np.frombuffer(bytes.fromhex(mine), np.uint8))
  return [bytes(each).hex() for each in every]


# Sizes and steps ----------------------------------------------------------------------------------


def step_folder(model_dir: epath.PathLike, step: int) -> epath.Path:
  """Where a step of a run lies."""
  return epath.Path(model_dir) / FOLDER / str(step)


def latest_step(model_dir: epath.PathLike) -> int | None:
  """Step of the newest committed checkpoint of a run, None where there is none; creates nothing."""
  return max(steps(model_dir), default=None)


def steps(model_dir: epath.PathLike) -> list[int]:
  """Steps of the committed checkpoints of a run, the newest first; creates nothing."""
  return sorted(_steps(epath.Path(model_dir) / FOLDER), reverse=True)


def _steps(folder: epath.Path) -> list[int]:
  return list(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []


def data_states(model_dir: epath.PathLike, step: int) -> list[Any]:
  """Positions in the data of all hosts of the run that saved a step; [] if it saved none.

  Raises:
    DamagedError: files are missing or damaged.
  """
  folder = step_folder(model_dir, step)
  if not (folder / 'data').exists():
    return []
  return soundness.data_states(folder, soundness.read(folder))


def _training(state: train_state.TrainState) -> dict[str, Any]:
  return {'step': state.step, 'opt_state': state.opt_state, 'rng': state.rng}


def find(path: epath.PathLike) -> epath.Path:
  """The step folder that a path means: itself, or the newest below a run or its `checkpoints`.

  Raises:
    FileNotFoundError: there is no native checkpoint.
  """
  path = epath.Path(path)
  if not path_facts.exists(path):
    raise FileNotFoundError(f'no checkpoint at {path}: the path does not exist')
  path = path.resolve()
  if path_facts.exists(path / 'params'):
    return path
  for folder in (path / FOLDER, path):
    if path_facts.is_dir(folder):
      steps = ocp.utils.checkpoint_steps(folder)
      if steps:
        return folder / str(max(steps))
  raise FileNotFoundError(
    f'no checkpoint at {path}: expected a step folder with `params` inside, a folder of such '
    f'steps, or a MODEL_DIR with `{FOLDER}/<step>/`'
  )


def read_metadata(path: epath.PathLike) -> dict[str, Any]:
  """What was saved beside the arrays of a step (see `find`): architecture, vocabulary, step.

  Raises:
    FileNotFoundError: no checkpoint there.
    DamagedError: it is not what was written.
  """
  folder = find(path)
  return _read_metadata(folder, soundness.read(folder))


def _read_metadata(folder: epath.Path, known: soundness.Digests | None) -> dict[str, Any]:
  soundness.check_items(folder, ['metadata'])
  metadata = soundness.read_json(folder, 'metadata')
  if known is not None:
    soundness.check_json(metadata, known.metadata, f'{folder}/metadata')
  return metadata


def read_params(path: epath.PathLike, abstract: Any) -> Any:
  """Parameters alone, laid out as `abstract` (arrays or ShapeDtypeStructs with shardings).

  Raises:
    FileNotFoundError: no checkpoint there.
    DamagedError: it is not what was written; names the arrays.
    ValueError: names or shapes differ; says which.
  """
  folder = find(path)
  known = restoration.agreed(lambda: soundness.read(folder))
  return restoration.read_trees(folder, {'params': abstract}, known)['params']


def num_params(path: epath.PathLike) -> int:
  """Number of parameters of a checkpoint; no array is read. Errors are those of `read_params`."""
  folder = find(path)
  if (known := soundness.read(folder)) is not None:
    stored = soundness.stored_of(known, folder, 'params')
    return sum(math.prod(x.shape) for x in stored.values())
  with ocp.StandardCheckpointer() as checkpointer:
    tree = checkpointer.metadata(folder / 'params').item_metadata.tree
  return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))

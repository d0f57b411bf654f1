"""Native checkpoints: Orbax, one folder a step, written in the background and committed as a whole.

    MODEL_DIR/checkpoints/<step>/params      float32 parameters
                                /training    step, optimizer state, random key
                                /data        position in the data, a file for each host
                                /metadata    JSON: architecture, vocabulary, versions
Parameters stand apart so that evaluation and export read nothing else.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from aya_train import destinations, hosts, train_state

FOLDER = 'checkpoints'
_UNFINISHED = '.orbax-checkpoint-tmp'


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """When to save and what to keep; names follow T5X's CheckpointConfig.

  Attributes:
    period: steps between checkpoints; the last step is always saved.
    keep: number of newest checkpoints kept, None for all.
    use_async: write in the background while training goes on.
  """

  period: int = 5000
  keep: int | None = None
  use_async: bool = True

  def __post_init__(self):
    if self.period < 1:
      raise ValueError(f'CHECKPOINT_PERIOD must be at least 1, got {self.period!r}')
    if self.keep is not None and self.keep < 1:
      raise ValueError(f'CHECKPOINT_KEEP must be None or at least 1, got {self.keep!r}')

  def num_kept(self, steps: int) -> int:
    """Checkpoints that lie on the disk at most, after as many more steps."""
    made = -(-steps // self.period)
    # A new one is written before the oldest is deleted.
    return made if self.keep is None else min(made, self.keep + 1)


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

  def __init__(self, model_dir: epath.PathLike, config: CheckpointConfig, metadata: Mapping):
    self._metadata = dict(metadata)
    self._manager = _Orbax(
      epath.Path(model_dir).resolve() / FOLDER,
      options=ocp.CheckpointManagerOptions(
        max_to_keep=config.keep,
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

  def save(self, state: train_state.TrainState, data: grain.DatasetIterator | None) -> None:
    """Saves the state and the position of the iterator; returns once both are copied.

    The iterator must not have been advanced beyond the batch of the last update. Does nothing if
    this step is already there.
    """
    step = int(state.step)
    if self._manager.latest_step() == step:
      return
    with hosts.together():
      self._check_room(step, state)
    items: dict[str, Any] = {
      'params': ocp.args.StandardSave(state.params),
      'training': ocp.args.StandardSave(_training(state)),
      'metadata': ocp.args.JsonSave({**self._metadata, 'step': step}),
    }
    if data is not None:
      items['data'] = grain.checkpoint.CheckpointSave(data)
    self._manager.save(step, args=ocp.args.Composite(**items))

  def _check_room(self, step: int, state: train_state.TrainState) -> None:
    folder = self._manager.directory
    try:
      destinations.check_room(
        folder, 'MODEL_DIR', num_bytes(state), f'the checkpoint of step {step}'
      )
    except OSError as error:
      self.wait()
      kept = self.latest_step()
      raise OSError(
        f'{error}. '
        + (
          f'The checkpoint of step {kept} is kept' if kept is not None else 'Nothing was saved yet'
        )
        + ', and the same command goes on from there'
      ) from error

  def restore(
    self, abstract: train_state.TrainState, data: Any, step: int
  ) -> train_state.TrainState:
    """The state of a step, laid out as `abstract` (arrays with shardings); sets the iterator.

    Meshes and numbers of hosts may differ from those that saved. The iterator is that of
    `batching.train_iterator`, or None.

    Raises:
      ValueError: shapes differ from those of `abstract`, or the data belong to another stream.
    """
    items: dict[str, Any] = {
      'params': ocp.args.StandardRestore(abstract.params),
      'training': ocp.args.StandardRestore(_training(abstract)),
    }
    if data is not None:
      data.set_state_of_hosts(_data_states(self._manager.directory / str(step) / 'data'))
    restored = self._manager.restore(step, args=ocp.args.Composite(**items))
    return train_state.TrainState(params=restored['params'], **restored['training'])

  def wait(self) -> None:
    """Blocks until everything saved is committed; raises what the writing raised."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    self._manager.close()


def num_bytes(state: Any) -> int:
  """Size of a checkpoint of a training state, given as arrays or as their shapes."""
  # Of random keys only the shape tells.
  sizes = (
    8 if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.dtype(x.dtype).itemsize
    for x in jax.tree.leaves(state)
  )
  return sum(
    math.prod(x.shape) * size for x, size in zip(jax.tree.leaves(state), sizes, strict=True)
  )


def unfinished_bytes(model_dir: epath.PathLike) -> int:
  """Room that checkpoints take which were never finished; the next run frees it."""
  folder = epath.Path(model_dir) / FOLDER
  if not destinations.is_local(folder) or not folder.is_dir():
    return 0
  halves = [path for path in folder.iterdir() if path.name.endswith(_UNFINISHED)]
  # epath's own glob does not go into folders.
  files = (file for half in halves for file in pathlib.Path(half).rglob('*'))
  return sum(file.stat().st_size for file in files if file.is_file())


def latest_step(model_dir: epath.PathLike) -> int | None:
  """Step of the newest committed checkpoint of a run, None where there is none; creates nothing."""
  folder = epath.Path(model_dir) / FOLDER
  return max(ocp.utils.checkpoint_steps(folder), default=None) if folder.is_dir() else None


def data_states(model_dir: epath.PathLike, step: int) -> list[Any]:
  """Positions in the data of all hosts of the run that saved a step; [] if it saved none.

  Raises:
    ValueError: files are missing.
  """
  folder = epath.Path(model_dir) / FOLDER / str(step) / 'data'
  return _data_states(folder) if folder.exists() else []


def _data_states(folder: epath.Path) -> list[Any]:
  """States of the data of all hosts of the run that saved.

  Raises:
    ValueError: files are missing.
  """
  files = sorted(folder.glob('process_*-of-*.json')) if folder.exists() else []
  counts = {int(file.stem.rpartition('-')[2]) for file in files}
  if counts != {len(files)}:
    raise ValueError(
      f'{folder} holds {[file.name for file in files]}, expected one file for each host of the '
      'run: copy the checkpoint again, or start from its parameters (INITIAL_CHECKPOINT_PATH)'
    )
  return [json.loads(file.read_text()) for file in files]


def _training(state: train_state.TrainState) -> dict[str, Any]:
  return {'step': state.step, 'opt_state': state.opt_state, 'rng': state.rng}


def find(path: epath.PathLike) -> epath.Path:
  """The step folder that a path means: itself, or the newest below a run or its `checkpoints`.

  Raises:
    FileNotFoundError: there is no native checkpoint.
  """
  path = epath.Path(path)
  if not path.exists():
    raise FileNotFoundError(f'no checkpoint at {path}: the path does not exist')
  path = path.resolve()
  if (path / 'params').exists():
    return path
  for folder in (path / FOLDER, path):
    if folder.is_dir():
      steps = ocp.utils.checkpoint_steps(folder)
      if steps:
        return folder / str(max(steps))
  raise FileNotFoundError(
    f'no checkpoint at {path}: expected a step folder with `params` inside, a folder of such '
    f'steps, or a MODEL_DIR with `{FOLDER}/<step>/`'
  )


def read_metadata(path: epath.PathLike) -> dict[str, Any]:
  """What was saved beside the arrays of a step (see `find`): architecture, vocabulary, step."""
  return ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(find(path) / 'metadata')


def read_params(path: epath.PathLike, abstract: Any) -> Any:
  """Parameters alone, laid out as `abstract` (arrays or ShapeDtypeStructs with shardings).

  Raises:
    FileNotFoundError: no checkpoint there.
    ValueError: names or shapes differ; says which.
  """
  path = find(path)
  stored = _stored(path)
  with ocp.StandardCheckpointer() as checkpointer:
    check_same_shapes(stored, abstract, f'checkpoint {path}', 'the model')
    return checkpointer.restore(path / 'params', abstract)


def _stored(folder: epath.Path) -> Any:
  """Shapes and dtypes of the parameters in a step folder."""
  with ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.metadata(folder / 'params').item_metadata.tree


def num_params(path: epath.PathLike) -> int:
  """Number of parameters of a checkpoint; no array is read. Errors are those of `find`."""
  return sum(math.prod(x.shape) for x in jax.tree.leaves(_stored(find(path))))


def check_same_shapes(stored: Any, wanted: Any, stored_name: str, wanted_name: str) -> None:
  """Compares names and shapes of two trees of arrays (or of anything with a shape).

  Raises:
    ValueError: with up to five differences, both shapes each.
  """

  def flatten(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, 'shape'))
    return {
      jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape)
      for path, leaf in leaves
    }

  have, want = flatten(stored), flatten(wanted)
  differences = [
    f'{name}: {have.get(name, "missing")} against {want.get(name, "missing")}'
    for name in sorted({*have, *want})
    if have.get(name) != want.get(name)
  ]
  if differences:
    shown = '; '.join(differences[:5])
    raise ValueError(
      f'{stored_name} does not fit {wanted_name}: {len(differences)} arrays differ, {shown}'
    )

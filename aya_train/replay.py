"""Steps of a run made again, twice: a check for devices and hosts that corrupt silently.

A step is a function of the state before it, the batch and the software, bit for bit. So a state
that comes out differently was computed by something broken, or by something else.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import optax
import orbax.checkpoint as ocp
from etils import epath

from aya_train import (
  hosts,
  initial_state,
  metric_writer,
  nonfinite_steps,
  partitioning,
  preflight,
  run_dir,
  state_digests,
  train_state,
  train_step,
)
from aya_train.checkpoint import digests, manager, reading
from aya_train.data import batching
from aya_train.objectives import objective

logger = logging.getLogger(__name__)
Digests = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Replay:
  """What came out of the repetitions.

  Attributes:
    start: the step that they began at.
    from_checkpoint: whether `start` was restored from a checkpoint; else it is the run's beginning.
    first, second: digests of the state after each step of either. The second ends at the first step
      that differs.
    kept: digests of the checkpoint at the last step, None where there is none.
    recorded: digests that the run wrote while it trained, by step: records of `state_digests`.
    nonfinite: the first array that became NaN or infinite, by step.
  """

  start: int
  from_checkpoint: bool
  first: Sequence[Digests]
  second: Sequence[Digests]
  kept: Digests | None
  recorded: Mapping[int, Mapping[str, Any]]
  nonfinite: Mapping[int, str]


def replay(
  *,
  step: int,
  model: objective.Objective,
  model_dir: epath.PathLike,
  train_dataset_cfg: batching.DatasetConfig,
  partitioner: partitioning.Partitioner,
  optimizer: Callable[..., optax.GradientTransformation],
  learning_rate_fn: Callable[[jax.Array], jax.Array],
  initial_checkpoint_path: str | None = None,
  base_checkpoint_path: str | None = None,
  num_microbatches: int | None = None,
  nonfinite_cfg: nonfinite_steps.NonFiniteConfig | None = None,
) -> Replay:
  """Makes the steps up to `step` twice, from the newest checkpoint before it; writes nothing.

  Where no checkpoint is before it, the run's beginning is made again.

  Args:
    step: the last one to be made; its checkpoint is compared, if there is one.
    model_dir: the run's MODEL_DIR.
    others: as `train_loop.train`'s, those of the run.

  Raises:
    FileNotFoundError: no run in `model_dir`, or its data or initial checkpoint are gone.
    ValueError: no such step can be made, or the settings are not the run's.
  """
  known = run_dir.read(model_dir)
  if 'seed' not in known or 'first_step' not in known:
    raise FileNotFoundError(f'no run in {model_dir}: give the MODEL_DIR of one that has begun')
  run_dir.check(model_dir, known, model.metadata(), None)
  saved = _saved_steps(model_dir)
  before = max((each for each in saved if each < step), default=None)
  start = known['first_step'] if before is None else before
  if step <= start:
    raise ValueError(
      f'step {step} cannot be made again: the run in {model_dir} began at step {start}'
    )
  axes = objective.parameter_axes(model)[1]
  tx = optimizer(learning_rate_fn, objective.trained(model, axes))
  abstract = train_state.abstract_state(model, tx, partitioner)
  cfg = preflight.with_reference(dataclasses.replace(train_dataset_cfg, seed=known['seed']))
  initial = None
  if before is not None:
    preflight.check_stream(manager.data_states(model_dir, before), cfg, model_dir)
  elif initial_checkpoint_path is not None:
    initial, _ = preflight.check_start(
      initial_checkpoint_path, model, abstract.all_params, base_checkpoint_path
    )
  base = None
  if model.adapter is not None:
    paths = (initial_checkpoint_path, base_checkpoint_path)
    base = preflight.check_base(model, abstract.all_params, initial, known, *paths)
  iterator = batching.train_iterator(
    cfg, hosts.here(partitioner.data_shard), model.feature_converter
  )
  beginning = iterator.get_state()
  checkpoints = None
  if saved:
    checkpoints = manager.CheckpointManager(
      model_dir, manager.CheckpointConfig(), model.metadata(), read_only=True
    )
  skips = (nonfinite_cfg or nonfinite_steps.NonFiniteConfig()).skips
  step_fn = train_step.make_train_step(
    *(model, tx, learning_rate_fn, partitioner, abstract, num_microbatches or 1),
    skip_nonfinite=skips,
  )
  names = train_step.checked_names(abstract)
  nonfinite: dict[int, str] = {}

  def states() -> Iterator[train_state.TrainState]:
    """The state after each step, made anew."""
    if before is not None:
      assert checkpoints is not None
      state = checkpoints.restore(abstract, iterator, before)
      if base is not None:
        frozen = reading.read_frozen(base.source, abstract.frozen, model.config)
        state = dataclasses.replace(state, frozen=frozen)
    else:
      iterator.set_state(beginning)
      state = initial_state.create(model, tx, partitioner, abstract, known['seed'], initial)
    for each in range(start + 1, step + 1):
      given = partitioner.to_global(next(iterator))
      batch = model.draw(state.all_params, given, state.host_key, partitioner)
      state, sums = step_fn(state, batch)
      if (bad := int(sums[train_step.NONFINITE])) >= 0:
        nonfinite[each] = names[bad]
      yield state

  first = [_told(each, start + i, 'first') for i, each in enumerate(states(), 1)]
  second: list[Digests] = []
  for i, state in enumerate(states(), 1):
    second.append(_told(state, start + i, 'second'))
    if second[-1] != first[i - 1]:
      break
  kept = None
  if step in saved:
    assert checkpoints is not None
    kept = state_digests.of_state(checkpoints.restore(abstract, None, step))
  if checkpoints is not None:
    checkpoints.close()
  lines: list[dict[str, Any]] = []
  if (epath.Path(model_dir) / metric_writer.FILE).exists():
    lines = metric_writer.read(model_dir)
  recorded = {n: line for n, line in state_digests.recorded(lines).items() if start < n <= step}
  return Replay(start, before is not None, first, second, kept, recorded, nonfinite)


def _told(state: train_state.TrainState, step: int, which: str) -> Digests:
  found = state_digests.of_state(state)
  logger.info('%s repetition  step %d  %s', which, step, digests.combined(found))
  return found


def _saved_steps(model_dir: epath.PathLike) -> list[int]:
  folder = epath.Path(model_dir) / manager.FOLDER
  return sorted(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []


# What it means ------------------------------------------------------------------------------------


def faults(found: Replay, computed_with: Mapping[str, str]) -> list[str]:
  """What differs, in sentences; [] if all hashes are the same.

  Args:
    found: the repetitions.
    computed_with: of them, as `state_digests.computed_with` gives it.
  """
  told = []
  for i, (one, other) in enumerate(zip(found.first, found.second, strict=False), 1):
    if one != other:
      told.append(
        f'device or host is suspect: two repetitions of step {found.start + i} differ, first in '
        f'{_first_difference(one, other)}'
      )
      break
  if told:  # whatever else was computed here means nothing
    return told
  for step, line in sorted(found.recorded.items()):
    mine = digests.combined(found.first[step - found.start - 1])
    if mine != line['digest']:
      others = {name: line.get(name) for name in computed_with}
      told.append(
        f'step {step} is {line["digest"]} in {metric_writer.FILE}, and {mine} in both repetitions: '
        + _blame(others, computed_with)
      )
      break
  last = found.first[-1]
  if found.kept is not None and found.kept != last:
    told.append(
      f'the checkpoint of step {found.start + len(found.first)} differs from both repetitions, '
      f'first in {_first_difference(found.kept, last)}: {_blame({}, computed_with)}'
    )
  return told


def _blame(theirs: Mapping[str, Any], ours: Mapping[str, str]) -> str:
  if theirs and theirs != ours:
    return f'it was computed with {dict(theirs)}, here with {dict(ours)}, which may round otherwise'
  return (
    'device or host is suspect, the one of the run or this one, if settings, mesh, devices and '
    'versions are those of the run'
  )


def _first_difference(one: Digests, other: Digests) -> str:
  names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
  return f'{names[0]} ({len(names)} of {len(one)} arrays)'

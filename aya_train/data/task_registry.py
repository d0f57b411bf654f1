"""SeqIO's tasks and mixtures by name and split, with errors that say what there is."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Sequence

import seqio

from aya_train import task_registration
from aya_train.tasks import sliced_source, split_slices

# Features that no task has itself, and how they come about.
_MADE_ELSEWHERE = {
  'reference': ' `aya-train score` makes what a reference says of pairs: the macro '
  'REFERENCE_CHECKPOINT_PATH names the reference, and is None'
}


class EmptySplitError(ValueError):
  """A split of a task gives no example: its source is empty, or its preprocessors drop all rows."""


def empty_split(task: seqio.Task, split: str) -> EmptySplitError:
  """The error that says that a split has no examples."""
  return EmptySplitError(
    f'no examples in split {split!r} of task {task.name!r}; splits are {sorted(task.splits)}.'
    ' Either its source is empty or its preprocessors drop everything.'
  )


def get_mixture_or_task(name: str) -> seqio.Task | seqio.Mixture:
  """Returns the registered mixture or task; ValueError with close names if there is none."""
  task_registration.need()
  names = sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()})
  if name not in names:
    from aya_train.tasks import catalog  # registers all tasks, which a user's module may not want

    if (why := catalog.why_not_read(name)) is not None:
      raise ValueError(why)
    raise ValueError(
      f'no task or mixture {name!r}. Close names: {difflib.get_close_matches(name, names, 5)} of'
      f' {len(names)}. {_next_parts(name, names) or "Is the module that registers it imported?"}'
    )
  return seqio.get_mixture_or_task(name)


def _next_parts(name: str, names: Sequence[str]) -> str:
  """What may follow as much of a dotted name as there is, such as languages after a benchmark."""
  parts = name.split('.')
  for count in range(len(parts) - 1, 0, -1):
    start = '.'.join(parts[:count])
    if found := sorted({n.split('.')[count] for n in names if n.startswith(f'{start}.')}):
      return f'After {start!r} comes one of: {", ".join(found)}'
  return ''


def has_split(provider: seqio.Task | seqio.Mixture, split: str) -> bool:
  """Whether a task, or any task of a mixture, has a split, or those that it is made of."""
  return any(split_slices.has(task, split) for task in seqio.get_subtasks(provider))


def require_split(task: seqio.Task, split: str) -> None:
  """ValueError, with the splits there are, if the task lacks one."""
  sliced_source.with_split(task, split)


def tasks_with_split(provider: seqio.Task | seqio.Mixture, split: str) -> list[seqio.Task]:
  """Returns the task, or those tasks of a mixture that have the split, sorted by name.

  Their sources have the split by this name, also where it is made of slices
  (`sliced_source.with_split`).

  Raises:
    ValueError: nothing has the split; the message has those that there are.
  """
  if isinstance(provider, seqio.Task):
    return [sliced_source.with_split(provider, split)]
  tasks = [sliced_source.with_split(t, split) for t in provider.tasks if split_slices.has(t, split)]
  if not tasks:
    splits = sorted({s for t in provider.tasks for s in t.splits})
    raise ValueError(f'no task of {provider.name!r} has split {split!r}; splits are {splits}.')
  return tasks


@contextlib.contextmanager
def registered_with(task: seqio.Task, split: str) -> Iterator[None]:
  """While it lasts SeqIO finds, by the task's name, a task that has the split.

  For SeqIO's Evaluator, which takes a name and knows no slices.
  """
  original = seqio.TaskRegistry.get(task.name)
  sliced = sliced_source.with_split(original, split)
  if sliced is original:
    yield
    return
  registry = seqio.TaskRegistry
  registry.remove(task.name)
  registry.add_provider(task.name, sliced)
  try:
    yield
  finally:
    registry.remove(task.name)
    registry.add_provider(task.name, original)


def record_features(task: seqio.Task) -> tuple[str, ...]:
  """Names of the features that a prepared record of a task holds: its integer output features.

  They are sorted, so that a record does not depend on the order of their declaration.

  Raises:
    ValueError: it has none.
  """
  found = sorted(
    name for name, f in task.output_features.items() if f.rank == 1 and f.dtype.is_integer
  )
  if not found:
    raise ValueError(
      f'task {task.name!r} has no rank-1 integer feature to prepare; its output features are '
      f'{sorted(task.output_features)}.'
    )
  return tuple(found)


def require_features(task: seqio.Task, names: Sequence[str]) -> None:
  """ValueError, with those that there are, if a task lacks features that are to be read."""
  if missing := sorted({*names} - {*record_features(task)}):
    advice = ''.join(text for name, text in _MADE_ELSEWHERE.items() if name in missing)
    raise ValueError(
      f'task {task.name!r} lacks the features {missing}; its rank-1 integer output features are '
      f'{list(record_features(task))}.{advice}'
    )

"""Prepared tasks of a mixture of sources, some of which may not be there."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence

import seqio
from etils import epath

from aya_train import destinations
from aya_train.data import prepared
from aya_train.tasks import source_tasks
from aya_train.tasks.mixtures import source_mixture

logger = logging.getLogger(__name__)


def check(
  mixture_or_task_name: str, split: str, directory: epath.PathLike | None
) -> source_mixture.Availability | None:
  """Refuses a mixture with missing sources, or leaves them out, before anything is prepared.

  Args:
    mixture_or_task_name: a registered SeqIO task or mixture.
    split: to look for.
    directory: root of the prepared tasks, whose sources need not be there; None if the sources
      themselves are to be read.

  Returns:
    What is left out; None for a task or a mixture without sources.

  Raises:
    FileNotFoundError: see `SourceMixture.require`.
  """
  mixture = prepared.get_mixture_or_task(mixture_or_task_name)
  if not isinstance(mixture, source_mixture.SourceMixture):
    return None

  def is_prepared(task: seqio.Task) -> bool:
    return directory is not None and prepared.is_prepared(
      prepared.prepared_path(task, split, directory)
    )

  found = mixture.require(split, is_prepared)
  if found.tasks:
    left = [f'{name} ({percent:.3g} %)' for name, percent in found.sources.items()]
    _warn_once(
      f'{mixture_or_task_name}: {len(found.tasks)} data sets are not built and left out, among them '
      f'all of {", ".join(left) or "no source"}; the weights of the others are scaled up'
    )
  return found


@functools.lru_cache(maxsize=256)
def _warn_once(text: str) -> None:
  logger.warning('%s', text)


_ROWS_TRIED = 64


@dataclasses.dataclass(frozen=True)
class Survey:
  """What a split of a task or mixture has, as far as can be known before it is prepared.

  Attributes:
    tasks: names of the tasks that are read.
    left_out: names of the mixture's other tasks, by the reason.
  """

  tasks: tuple[str, ...]
  left_out: Mapping[str, tuple[str, ...]]


def survey(
  mixture_or_task_name: str, split: str, directory: epath.PathLike, *, allow_empty: bool
) -> Survey:
  """Looks for the data of a task, or of a mixture's tasks, and prepares the first rows of them.

  What preprocessors, templates and features have wrong shows here, in a second a task. Tasks over
  built sources that share their preprocessors are tried once.

  Args:
    mixture_or_task_name: a registered SeqIO task or mixture.
    split: tasks of a mixture without it are left out, as in SeqIO.
    directory: root of the prepared tasks; what is there already is not looked at again.
    allow_empty: leave tasks without rows out, instead of refusing them. (A mixture of sources always
      leaves them out.)

  Raises:
    FileNotFoundError: data is missing; all tasks that lack theirs are named.
    prepared.EmptySplitError: a task, or all of them, have no rows.
    ValueError: no task has the split, or first rows cannot be prepared.
    OSError: something is to be prepared, and the directory cannot be written.
  """
  provider = prepared.get_mixture_or_task(mixture_or_task_name)
  found = check(mixture_or_task_name, split, directory)
  tasks = prepared.tasks_with_split(provider, split)
  new = [t for t in tasks if not prepared.is_prepared(prepared.prepared_path(t, split, directory))]
  if new:
    destinations.check_folder(directory, 'the folder of prepared tasks (PREPARED_DIR)')
  missing, empty = [], []
  for task in _to_try(new):
    try:
      if not prepared.has_rows(task, split, _ROWS_TRIED):
        empty.append(task)
    except FileNotFoundError as error:
      missing.append((task.name, error))
  if missing:
    names = ', '.join(name for name, _ in missing)
    raise FileNotFoundError(
      f'{mixture_or_task_name}, split {split!r}: {len(missing)} of {len(tasks)} tasks lack their '
      f'data: {names}. First: {missing[0][1]}'
    )
  kept = [task for task in tasks if task not in empty]
  if empty and not (kept and (allow_empty or found is not None)):
    raise prepared.empty_split(empty[0], split)
  if found is not None and split == 'train':
    _say_empty_sources(provider, {t.name for t in kept}, found)
  others = {t.name for t in seqio.get_subtasks(provider)} - {t.name for t in tasks}
  left_out = {
    'not built': found.tasks if found else (),
    f'no rows in {split!r}': (*(found.empty if found else ()), *(t.name for t in empty)),
    f'no split {split!r}': tuple(sorted(others)),
  }
  return Survey(
    tuple(t.name for t in kept), {reason: names for reason, names in left_out.items() if names}
  )


def _say_empty_sources(
  mixture: source_mixture.SourceMixture, kept: set[str], found: source_mixture.Availability
) -> None:
  """Says which sources are built and have nothing to train on, since their share goes to the others."""
  gone = [
    f'{part.name} ({part.percent:.3g} %)'
    for part in mixture.parts
    if part.name not in found.sources and not kept & {*mixture.units(part)}
  ]
  if gone:
    _warn_once(
      f'{mixture.name}: no rows at all of {", ".join(gone)}; the weights of the others are scaled up'
    )


def _to_try(tasks: Sequence[seqio.Task]) -> list[seqio.Task]:
  """All tasks but those over built sources whose preprocessors another one has too."""
  chosen, seen = [], set()
  for task in tasks:
    if isinstance(task.source, source_tasks.BuiltSource):
      key = tuple(map(id, task.preprocessors))
      if key in seen:
        continue
      seen.add(key)
    chosen.append(task)
  return chosen


def ensure_prepared(
  mixture_or_task_name: str,
  split: str,
  directory: epath.PathLike,
  *,
  process_index: int = 0,
  process_count: int = 1,
  barrier: Callable[[str], None] | None = None,
  allow_empty: bool = False,
) -> dict[str, prepared.PreparedTask]:
  """`prepared.ensure_prepared`, after `check`. A mixture of sources leaves out what has no rows.

  The released files may be on the first host only. So the others look which tasks are prepared
  once the first has prepared all that it has.
  """
  mixture = prepared.get_mixture_or_task(mixture_or_task_name)
  if not isinstance(mixture, source_mixture.SourceMixture):
    return prepared.ensure_prepared(
      mixture_or_task_name,
      split,
      directory,
      process_index=process_index,
      process_count=process_count,
      barrier=barrier,
      allow_empty=allow_empty,
    )
  try:
    if process_index == 0:
      check(mixture_or_task_name, split, directory)
      prepared.ensure_prepared(mixture_or_task_name, split, directory, allow_empty=True)
  finally:
    if process_count > 1 and barrier is not None:
      barrier(f'prepared {mixture_or_task_name}:{split}')
  if process_index != 0:
    check(mixture_or_task_name, split, directory)
  tasks = prepared.ensure_prepared(
    mixture_or_task_name,
    split,
    directory,
    process_index=process_index,
    process_count=process_count,
    allow_empty=True,
  )
  if not tasks:
    raise prepared.empty_split(mixture.tasks[0], split)
  if left := sorted({t.name for t in mixture.tasks if split in t.splits} - {*tasks}):
    logger.info(
      '%s: nothing is left of %d tasks in %r: %s',
      mixture_or_task_name,
      len(left),
      split,
      ', '.join(left[:8]),
    )
  return tasks

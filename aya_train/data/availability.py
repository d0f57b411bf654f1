"""Prepared tasks of a mixture of sources, some of which may not be there."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence

import seqio
from etils import epath

from aya_train import destinations, hosts
from aya_train.data import prepared, task_examples, task_registry
from aya_train.tasks import source_tasks, split_slices
from aya_train.tasks.mixtures import source_mixture

logger = logging.getLogger(__name__)


def check(
  mixture_or_task_name: str, split: str, directory: epath.PathLike | None
) -> source_mixture.Availability | None:
  """Refuses a mixture with missing sources, or says what they are, before anything is prepared.

  Args:
    mixture_or_task_name: a registered SeqIO task or mixture.
    split: to look for.
    directory: root of the prepared tasks, whose sources need not be there; None if the sources
      themselves are to be read.

  Returns:
    What is there and what is left out; None for a task or a mixture without sources.

  Raises:
    FileNotFoundError: see `SourceMixture.require`.
  """
  mixture = task_registry.get_mixture_or_task(mixture_or_task_name)
  if not isinstance(mixture, source_mixture.SourceMixture):
    return None

  def is_prepared(task: seqio.Task) -> bool:
    return directory is not None and prepared.is_prepared(
      prepared.prepared_path(task, split, directory)
    )

  found = mixture.require(split, is_prepared)
  if found.tasks:
    left = [f'{name} ({percent:.3g} %)' for name, percent in found.sources.items()]
    data_sets = mixture.data_sets(found.tasks)
    _warn_once(
      f'{mixture_or_task_name}: {len(data_sets)} data sets are not built and left out, among '
      f'them all of {", ".join(left) or "no source"}; the weights of the others are scaled up. '
      f'Left out: {source_mixture.some(data_sets)}'
    )
  return found


def tasks(
  mixture_or_task_name: str, split: str, directory: epath.PathLike | None
) -> list[seqio.Task]:
  """The tasks of a split that are to be read, sorted by name; arguments and errors as `check`.

  Raises:
    ValueError: no task has the split.
    task_registry.EmptySplitError: none that has it has data.
  """
  return _tasks(mixture_or_task_name, split, check(mixture_or_task_name, split, directory))


def _tasks(
  name: str,
  split: str,
  found: source_mixture.Availability | None,
  features: Sequence[str] = (),
) -> list[seqio.Task]:
  """Those of the split that `found` has, all with some features."""
  candidates = task_registry.tasks_with_split(task_registry.get_mixture_or_task(name), split)
  tasks = [task for task in candidates if found is None or task.name in found.present]
  if not tasks:
    names = source_mixture.some([task.name for task in candidates], 3)
    raise task_registry.EmptySplitError(
      f'{name}: nothing that has the split {split!r} is built and has rows in it ({names})'
    )
  for task in tasks:
    task_registry.require_features(task, features)
  return tasks


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
  mixture_or_task_name: str,
  split: str,
  directory: epath.PathLike,
  *,
  allow_empty: bool,
  features: Sequence[str] = (),
) -> Survey:
  """Looks for the data of a task, or of a mixture's tasks, and prepares the first rows of them.

  What preprocessors, templates and features have wrong shows here, in a second a task. Tasks over
  built sources that share their preprocessors are tried once.

  Args:
    mixture_or_task_name: a registered SeqIO task or mixture.
    split: tasks of a mixture without it are left out, as in SeqIO.
    directory: root of the prepared tasks; what is there already is not looked at again.
    allow_empty: leave tasks without rows out, instead of refusing them. (A mixture of sources
      always leaves them out.)
    features: that every task must have.

  Raises:
    FileNotFoundError: data is missing; all tasks that lack theirs are named.
    task_registry.EmptySplitError: a task, or all of them, have no rows.
    ValueError: no task has the split, or first rows cannot be prepared.
    OSError: something is to be prepared, and the directory cannot be written.
  """
  provider = task_registry.get_mixture_or_task(mixture_or_task_name)
  found = check(mixture_or_task_name, split, directory)
  tasks = _tasks(mixture_or_task_name, split, found, features)
  new = [t for t in tasks if not prepared.is_prepared(prepared.prepared_path(t, split, directory))]
  if new:
    destinations.check_folder(directory, 'the folder of prepared tasks (PREPARED_DIR)')
  missing, empty = [], []
  for task in _to_try(new):
    try:
      if not task_examples.has_rows(task, split, _ROWS_TRIED):
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
    raise task_registry.empty_split(empty[0], split)
  if found is not None and 'train' in split_slices.names(split):
    _say_empty_sources(provider, {t.name for t in kept}, found)
  of_split = {t.name for t in task_registry.tasks_with_split(provider, split)}
  others = {t.name for t in seqio.get_subtasks(provider)} - of_split
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
  """Says which built sources have nothing to train on, since their share goes to the others."""
  gone = [
    f'{part.name} ({part.percent:.3g} %)'
    for part in mixture.parts
    if part.source not in found.sources and not kept & {*mixture.units(part)}
  ]
  if gone:
    _warn_once(
      f'{mixture.name}: no rows at all of {", ".join(gone)}; the weights of the others are scaled '
      'up'
    )


def _say_unfilled_parts(mixture: source_mixture.SourceMixture, kept: set[str]) -> None:
  """Says which sources have no row of a variant, such as long answers, and so give others.

  Raises:
    ValueError: there are such, and the settings say that nothing may be missing.
  """
  sources = {part.source for part in mixture.parts if kept & {*mixture.units(part)}}
  names = [
    part.name
    for part in mixture.parts
    if part.variant and part.source in sources and not kept & {*mixture.units(part)}
  ]
  if not names:
    return
  told = f'{mixture.name}: no row to train on of {", ".join(names)}'
  if source_mixture.settings().missing_sources == source_mixture.REFUSE:
    raise ValueError(
      f"{told}. Build more of the sources, or let their weights be drawn from the sources' other "
      "rows with MIXTURE_MISSING_SOURCES = 'renormalise'"
    )
  _warn_once(f"{told}; their weights are drawn from the sources' other rows")


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
  host: hosts.Host = hosts.ALONE,
  features: Sequence[str] = (),
  num_shards: int = 1,
  progress: prepared.Progress = prepared.log_progress,
  allow_empty: bool = False,
) -> dict[str, prepared.PreparedTask]:
  """Prepares what is missing of a task or of a mixture's tasks, and opens all of it.

  Only the first host writes, and the released files may be there only; the others wait, then look
  which tasks are prepared, and read the same directory. A mixture of sources leaves out what has no
  rows.

  Args:
    mixture_or_task_name: a registered SeqIO task or mixture.
    split: tasks of a mixture without this split are left out, as in SeqIO.
    directory: root of the prepared tasks, shared by all hosts.
    host: this host's place.
    features: that every task must have.
    num_shards: files for each task.
    progress: see `prepared.prepare_task`.
    allow_empty: leave tasks without examples out, instead of refusing them.

  Returns:
    Task name -> open task, sorted by name.

  Raises:
    ValueError: unknown name (the message has close ones), no task with the split, a feature that is
      lacking; or see `prepared.prepare_task`.
    FileNotFoundError: sources are missing (`check`); on another host than the first, a task.
  """
  provider = task_registry.get_mixture_or_task(mixture_or_task_name)
  of_sources = isinstance(provider, source_mixture.SourceMixture)
  allow_empty = allow_empty or of_sources
  try:
    if host.is_first:
      found = check(mixture_or_task_name, split, directory)
      for task in _tasks(mixture_or_task_name, split, found, features):
        prepared.prepare_task(
          task.name,
          split,
          directory,
          num_shards=num_shards,
          progress=progress,
          allow_empty=allow_empty,
        )
  finally:
    # Also on failure: the others then stop with FileNotFoundError instead of waiting for ever.
    host.wait(f'prepared {mixture_or_task_name}:{split}')
  found = check(mixture_or_task_name, split, directory)
  tasks = _tasks(mixture_or_task_name, split, found, features)
  opened = {
    t.name: prepared.PreparedTask(prepared.prepared_path(t, split, directory)) for t in tasks
  }
  for task in tasks:
    _refuse_changed(task, split, opened[task.name])
  empty = [task for task in tasks if not len(opened[task.name])]
  if empty and (not allow_empty or (of_sources and len(empty) == len(tasks))):
    raise task_registry.empty_split(empty[0], split)
  if of_sources and empty:
    logger.info(
      '%s: nothing is left of %d tasks in %r: %s',
      mixture_or_task_name,
      len(empty),
      split,
      ', '.join([task.name for task in empty][:8]),
    )
  if isinstance(provider, source_mixture.SourceMixture) and split == 'train':
    _say_unfilled_parts(provider, {task.name for task in tasks} - {task.name for task in empty})
  return {name: task for name, task in opened.items() if len(task)}


def _refuse_changed(task: seqio.Task, split: str, ready: prepared.PreparedTask) -> None:
  """Refuses tokens of files of a user that have changed since, where they are at hand."""
  saved = ready.manifest.source.get('files')
  try:
    found = task_examples.files_of(task.source, split)
  except OSError:
    return
  if saved and found and saved != found:
    changed = [new[0] for new in found if new not in saved] or [old[0] for old in saved]
    raise ValueError(
      f'task {task.name!r}, split {split!r}: {changed} changed after it was prepared in '
      f'{ready.directory}; delete that folder to prepare it again'
    )

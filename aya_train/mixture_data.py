"""Prepared tasks of a mixture of sources, some of which may not be there."""

from __future__ import annotations

import logging
from collections.abc import Callable

import seqio
from etils import epath

from aya_train import prepared
from aya_train.tasks import source_mixture

logger = logging.getLogger(__name__)


def check(
  mixture_or_task_name: str, split: str, directory: epath.PathLike
) -> source_mixture.Availability | None:
  """Refuses a mixture with missing sources, or leaves them out, before anything is prepared.

  Returns:
    What is left out; None for a task or a mixture without sources.

  Raises:
    FileNotFoundError: see `SourceMixture.require`.
  """
  mixture = prepared.get_mixture_or_task(mixture_or_task_name)
  if not isinstance(mixture, source_mixture.SourceMixture):
    return None

  def is_prepared(task: seqio.Task) -> bool:
    return (prepared.prepared_path(task, split, directory) / prepared.MANIFEST).exists()

  found = mixture.require(split, is_prepared)
  if found.tasks:
    left = [f'{name} ({percent:.3g} %)' for name, percent in found.sources.items()]
    logger.warning(
      '%s: %d data sets are not built and left out, among them all of %s; the weights of the others '
      'are scaled up',
      mixture_or_task_name,
      len(found.tasks),
      ', '.join(left) or 'no source',
    )
  if found.empty:
    logger.info('%s: no rows in %r of %s', mixture_or_task_name, split, ', '.join(found.empty[:8]))
  return found


def ensure_prepared(
  mixture_or_task_name: str,
  split: str,
  directory: epath.PathLike,
  *,
  process_index: int = 0,
  process_count: int = 1,
  barrier: Callable[[str], None] | None = None,
) -> dict[str, prepared.PreparedTask]:
  """`prepared.ensure_prepared`, after `check`.

  The released files may be on the first host only. So the others look which tasks are prepared
  once the first has prepared all that it has.
  """
  mixture = prepared.get_mixture_or_task(mixture_or_task_name)
  hosts = {'process_index': process_index, 'process_count': process_count, 'barrier': barrier}
  if not isinstance(mixture, source_mixture.SourceMixture):
    return prepared.ensure_prepared(mixture_or_task_name, split, directory, **hosts)  # type: ignore[arg-type]
  try:
    if process_index == 0:
      check(mixture_or_task_name, split, directory)
      prepared.ensure_prepared(mixture_or_task_name, split, directory)
  finally:
    if process_count > 1 and barrier is not None:
      barrier(f'prepared {mixture_or_task_name}:{split}')
  if process_index != 0:
    check(mixture_or_task_name, split, directory)
  return prepared.ensure_prepared(
    mixture_or_task_name, split, directory, process_index=process_index, process_count=process_count
  )

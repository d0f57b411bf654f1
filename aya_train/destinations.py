"""Places that a command will write to, tried before the work that fills them."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterable

from etils import epath

from aya_train import memory_limits, model_folders

_FULL = ('no space left', 'disk quota exceeded')
_OF_WRITING = 'resource_exhausted'  # said of a full disk, and of memory


def is_local(path: epath.PathLike) -> bool:
  """Whether a path is one of this machine's file systems, not of a bucket."""
  return '://' not in os.fspath(path)


def is_full(error: BaseException) -> bool:
  """Whether it comes from a full disk, in whatever words a library puts that."""
  cause: BaseException | None = error
  while cause is not None:
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
      return True
    said = str(cause).lower()
    if any(words in said for words in _FULL):
      return True
    if _OF_WRITING in said and memory_limits.exhausted(cause) is None:
      return True
    cause = cause.__cause__ or cause.__context__
  return False


def check_folder(
  folder: epath.PathLike,
  name: str,
  *,
  files: Iterable[str] = (),
  num_bytes: int = 0,
  what: str = '',
  may_be_model: bool = False,
) -> None:
  """Makes a folder, and tries that folders and files can be made in it.

  Args:
    folder: of this machine or of a bucket.
    name: what the user calls it: 'MODEL_DIR'.
    files: names of files in it that will be written to if they exist.
    num_bytes: room that must be free; not asked of buckets.
    what: what needs the room: 'one checkpoint'.
    may_be_model: a single file may lie beside those of a model.

  Raises:
    OSError: it cannot be written, has too little room, or is a model.
  """
  folder = epath.Path(folder)
  if not may_be_model:
    model_folders.check(folder, name)
  check_room(folder, name, num_bytes, what)
  probe = folder / f'.aya_train_{uuid.uuid4().hex}'
  try:
    folder.mkdir(parents=True, exist_ok=True)
    _try(probe)
    locked = [f for f in files if (folder / f).exists() and not _can_append(folder / f)]
  except Exception as error:  # buckets have errors of their own
    problem = 'its disk is full' if is_full(error) else str(error) or type(error).__name__
    raise OSError(
      f'{name} {folder} cannot be written ({problem}): give a folder or bucket that can be made '
      'and written'
    ) from error
  if locked:
    raise OSError(f'{name} {folder}: {", ".join(locked)} cannot be written; change its rights')


def check_room(folder: epath.PathLike, name: str, num_bytes: int, what: str) -> None:
  """The room of `check_folder`, without trying to write.

  Raises:
    OSError: there is too little; not for buckets.
  """
  free = free_bytes(folder)
  if free is not None and free < num_bytes:
    raise OSError(
      f'{name} {folder} has {gigabytes(free)} free and {what} takes {gigabytes(num_bytes)}: make '
      'room, or give a folder on another disk',
    )


def check_file(path: epath.PathLike, name: str) -> None:
  """The same for a file that will be written, or replaced.

  Raises:
    OSError: it cannot be written.
  """
  path = epath.Path(path)
  if path.is_dir():
    raise OSError(f'{name} {path} is a folder: give the name of a file to write')
  check_folder(path.parent, f'{name} {path}: its folder', files=(path.name,), may_be_model=True)


def free_bytes(path: epath.PathLike) -> int | None:
  """Room on the disk that a path lies on, or will; None for a bucket."""
  if not is_local(path):
    return None
  place = os.path.realpath(path)
  while not os.path.isdir(place):
    place = os.path.dirname(place)
  return shutil.disk_usage(place).free


def _try(probe: epath.Path) -> None:
  """Makes a folder and a file in it; neither stays, also where a full disk took half of it."""
  try:
    probe.mkdir()
    (probe / 'probe').write_bytes(b'\0' * 4096)
  except BaseException:
    with contextlib.suppress(Exception):
      probe.rmtree()
    raise
  probe.rmtree()


def _can_append(path: epath.Path) -> bool:
  return not is_local(path) or os.access(path, os.W_OK)


def gigabytes(count: int) -> str:
  return f'{count / 1e9:.3g} GB'

"""What is at a path: whether something is there, what is in it, how long it is, how old.

epath's own `exists` answers no where this user may not look, and a file that is there is told as
missing. Its `stat` asks for the owner's name, which the user of a container, or of a shared disk,
need not have, and fails.
"""

import glob
import os

from etils import epath


def exists(path: epath.PathLike) -> bool:
  """Whether something is there.

  Raises:
    PermissionError: this user may not enter a folder on the way.
  """
  return epath.Path(path).exists() or _is_nothing(path)


def is_dir(path: epath.PathLike) -> bool:
  """Whether a folder is there; see `exists`."""
  return epath.Path(path).is_dir() or _is_nothing(path)


def is_file(path: epath.PathLike) -> bool:
  """Whether a file is there; see `exists`."""
  return epath.Path(path).is_file() or _is_nothing(path)


def matching(folder: epath.PathLike, pattern: str) -> list[epath.Path]:
  """What is in a folder and fits a pattern, sorted; nothing where there is no folder.

  The folder's name is no pattern. epath's own `glob` takes it for one, and finds nothing in
  'runs/[lr=1e-3]'.

  Raises:
    PermissionError: this user may not enter or list the folder.
  """
  found = sorted(epath.Path(glob.escape(os.fspath(folder))).glob(pattern))
  if not found and is_dir(folder) and _is_local(folder) and not _may(folder, os.R_OK):
    raise PermissionError(f'this user may not list the folder {os.fspath(folder)}: {_REMEDY}')
  return found


def size(path: epath.PathLike) -> int:
  """Bytes of a file."""
  return os.stat(path).st_size if _is_local(path) else epath.Path(path).stat().length


def modified(path: epath.PathLike) -> int:
  """When it was last written, in seconds since 1970."""
  return int(os.stat(path).st_mtime) if _is_local(path) else epath.Path(path).stat().mtime


_REMEDY = 'have its rights changed, or take a copy'


def _is_local(path: epath.PathLike) -> bool:
  return '://' not in os.fspath(path)


def _is_nothing(path: epath.PathLike) -> bool:
  """False, where this user may see that."""
  if _is_local(path):
    try:
      os.stat(path)
    except PermissionError:
      raise PermissionError(
        f'{os.fspath(path)} cannot be seen by this user, who may not enter the folder '
        f'{_closed(path)}: {_REMEDY}'
      ) from None
    except (OSError, ValueError):
      pass
  return False


def _may(folder: epath.PathLike, mode: int) -> bool:
  return os.access(folder, mode, effective_ids=os.access in os.supports_effective_ids)


def _closed(path: epath.PathLike) -> str:
  """The first folder on the way that this user may not enter."""
  folder = os.path.abspath(path)
  closed = os.path.dirname(folder)
  while (folder := os.path.dirname(folder)) != os.path.dirname(folder):
    if not _may(folder, os.X_OK):
      closed = folder
  return closed

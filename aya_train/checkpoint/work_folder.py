"""Folders that appear complete or not at all, whatever ends the program that writes them."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

from etils import epath

from aya_train import destinations

_TRIES = 100  # while other programs come and go
_LOCK = 'lock'
_PARTIAL = '.partial'


def resolved(path: epath.PathLike) -> epath.Path:
  """The absolute path with its links followed, which epath's own resolve() does not do."""
  return epath.Path(os.path.realpath(path) if destinations.is_local(path) else path)


def check(dst: epath.PathLike, *, overwrite: bool = False) -> epath.Path:
  """Makes sure that a folder can take this name at the end, and returns it with links followed.

  Raises:
    FileExistsError: it is a file, or not empty and `overwrite` is false.
    ValueError: it is a mount point, or this program works in it: neither can be replaced.
  """
  given, dst = dst, resolved(dst)
  if dst.is_file():
    raise FileExistsError(f'{given} is a file; give the folder to make')
  if not dst.exists():
    return dst
  if _holds_something(dst) and not overwrite:
    raise FileExistsError(f'{given} is not empty: take another folder, or --overwrite')
  if not destinations.is_local(dst):
    return dst
  here = os.path.realpath(os.getcwd())
  if os.path.commonpath([here, dst]) == str(dst):
    raise ValueError(
      f'{given} is, or holds, the current folder, which would be replaced: give the name of a '
      'folder to make in it'
    )
  if os.path.ismount(dst):
    raise ValueError(
      f'{given} is where a disk is mounted, which cannot be replaced: give the name of a folder to '
      'make in it'
    )
  return dst


def _holds_something(folder: epath.Path) -> bool:
  # epath leaves out names that end in '~'.
  return bool(os.listdir(folder)) if destinations.is_local(folder) else any(folder.iterdir())


def check_apart(source: epath.PathLike, dst: epath.PathLike) -> None:
  """Raises ValueError if one of two paths lies in the other, links followed."""
  if not (destinations.is_local(source) and destinations.is_local(dst)):
    return
  here, there = resolved(dst), resolved(source)
  if here == there or here in there.parents or (there in here.parents and there.is_dir()):
    raise ValueError(f'{dst} and the checkpoint {source} must not lie in one another')


def known(folder: epath.PathLike) -> epath.Path:
  """The folder itself, or the one around the outermost work folder that it lies in.

  Messages name it: a work folder is of no use to whoever reads them, and is gone by then.
  """
  folder = epath.Path(folder)
  for path in reversed((folder, *folder.parents)):
    if path.name.startswith('.') and path.name.endswith(_PARTIAL):
      return path.parent
  return folder


@contextlib.contextmanager
def replacing(dst: epath.PathLike, *, overwrite: bool = False) -> Iterator[epath.Path]:
  """Yields a work folder beside `dst`; its `out` takes the name of `dst` if the block ends well.

  A folder that is replaced is moved aside before and removed after. What a killed program left
  there is cleared first, and a folder that it had moved aside put back.

  Raises:
    FileExistsError, ValueError: see `check`; or another program is writing `dst`.
    OSError: no room, or no permission to write beside `dst`.
  """
  dst = resolved(dst)
  work = dst.parent / f'.{dst.name}{_PARTIAL}'
  with _locked(work, dst):
    _put_back(work, dst)
    try:
      check(dst, overwrite=overwrite)
      _clear(work)
      try:
        yield work
        _to_disk(work / 'out')
      except Exception as error:
        if destinations.is_full(error):
          raise OSError(
            errno.ENOSPC,
            f'{known(dst.parent)} has no room left: free some, or choose another disk',
          ) from error
        raise
      if dst.exists():
        dst.rename(work / 'old')
      (work / 'out').rename(dst)
    finally:
      _put_back(work, dst)
      _clear(work)


def _put_back(work: epath.Path, dst: epath.Path) -> None:
  if (work / 'old').exists() and not dst.exists():
    (work / 'old').rename(dst)


def _clear(work: epath.Path) -> None:
  for path in work.iterdir():
    if path.is_dir():
      path.rmtree()
    elif path.name != _LOCK:
      path.unlink()


@contextlib.contextmanager
def _locked(work: epath.Path, dst: epath.Path) -> Iterator[None]:
  """Makes the work folder, which is this program's until the block ends, or it does."""
  if not destinations.is_local(work):
    work.mkdir(parents=True, exist_ok=True)
    try:
      yield
    finally:
      work.rmtree(missing_ok=True)
    return
  lock = _lock(work, dst)
  try:
    yield
  finally:
    (work / _LOCK).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # another program may have begun here
      os.rmdir(work)
    os.close(lock)


def _lock(work: epath.Path, dst: epath.Path) -> int:
  for left in reversed(range(_TRIES)):
    try:
      work.mkdir(parents=True, exist_ok=True)
      file = os.open(work / _LOCK, os.O_CREAT | os.O_RDWR)
    except OSError as error:
      if isinstance(error, FileNotFoundError) and left:
        continue  # removed by its owner in between
      raise OSError(
        error.errno,
        f'{known(dst.parent)} cannot be written: {error.strerror}. Take another DST',
      ) from error
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      os.close(file)
      raise FileExistsError(
        f'another program is writing {dst} (it holds {work}): wait for it, or take another folder'
      ) from error
    except OSError:
      return file  # a file system without locks
    with contextlib.suppress(OSError):
      if os.path.samestat(os.fstat(file), os.stat(work / _LOCK)):
        return file
    os.close(file)
  raise FileExistsError(
    f'other programs begin to write {dst} again and again: take another folder, or wait for them'
  )


def _to_disk(folder: epath.Path) -> None:
  """Waits until the content of a folder would survive a loss of power."""
  if not destinations.is_local(folder):
    return
  for root, _, names in os.walk(folder):
    for path in (root, *(os.path.join(root, name) for name in names)):
      file = os.open(path, os.O_RDONLY)
      try:
        os.fsync(file)
      except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot
          raise
      finally:
        os.close(file)

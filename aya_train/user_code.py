"""Whose code raised an error: this package's, a library's, or that of the person who runs it."""

import builtins
import os
import re
import site
import sysconfig
import traceback
from collections.abc import Iterator

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
# `tasks` is a link, and frames carry either path.
_OURS = tuple({_PACKAGE, *(os.path.realpath(os.path.join(_PACKAGE, d)) for d in ('.', 'tasks'))})
_LIBRARIES = tuple(
  {
    os.path.realpath(path)
    for path in (
      *(sysconfig.get_path(name) for name in ('stdlib', 'platstdlib', 'purelib', 'platlib')),
      *site.getsitepackages(),
      site.getusersitepackages(),
    )
  }
)
# TensorFlow gives the traceback of what Python raised inside a graph as a part of the message.
_IN_TEXT = re.compile(r'File "([^"]+)", line (\d+), in')
_RAISED_INSIDE = re.compile(
  r'(?:^|\s)((\w+(?:Error|Exception)): (.*?))\s*\nTraceback \(most', re.DOTALL
)


def chain(error: BaseException) -> Iterator[BaseException]:
  """An error, and what it was raised from or while handling, the nearest first."""
  seen: set[int] = set()
  at: BaseException | None = error
  while at is not None and id(at) not in seen:
    seen.add(id(at))
    yield at
    at = at.__cause__ or at.__context__


def is_ours(file: str) -> bool:
  """Whether a file is one of this package."""
  return _is_under(file, _OURS)


def is_users(file: str) -> bool:
  """Whether a file is code of neither this package nor an installed library."""
  if not os.path.isabs(file) or file.startswith('<') or '__autograph_generated' in file:
    return False
  installed = '/site-packages/' in file or '/dist-packages/' in file
  return not (installed or is_ours(file) or _is_under(os.path.realpath(file), _LIBRARIES))


def _is_under(file: str, folders: tuple[str, ...]) -> bool:
  return any(file.startswith(folder + os.sep) for folder in folders)


def raised_here(error: BaseException) -> bool:
  """Whether this package itself raised an error, in words that are meant for its user."""
  frames = traceback.extract_tb(error.__traceback__)
  return bool(frames) and is_ours(frames[-1].filename)


def inside_graph(error: BaseException) -> str:
  """What Python raised inside a graph of TensorFlow: 'ValueError: ...', '' if it raised nothing."""
  found = _RAISED_INSIDE.search(str(error))
  return found[1].strip() if found else ''


def told_inside_graph(error: BaseException) -> str:
  """What this package itself raised inside a graph in words meant for its user, '' if nothing.

  A ValueError, an OSError or an error of its own kind; TensorFlow gives only its text.
  """
  found, files = _RAISED_INSIDE.search(str(error)), _IN_TEXT.findall(str(error))
  if not found or not files or not is_ours(files[-1][0]):
    return ''
  kind = getattr(builtins, found[2], ValueError)  # what Python has no name for is our own kind
  return found[3].strip() if issubclass(kind, ValueError | OSError) else ''


def place(error: BaseException) -> str:
  """Where code of the user's raised an error, or called a library that did.

  Returns:
    'FILE, line N'; '' where this package raised it, or called the library.
  """
  for at in reversed([*chain(error)]):
    for frame in reversed(traceback.extract_tb(at.__traceback__)):
      if is_ours(frame.filename):
        break
      if is_users(frame.filename):
        return f'{frame.filename}, line {frame.lineno}'
    for file, line in reversed(_IN_TEXT.findall(str(at))):
      if is_users(file):
        return f'{file}, line {line}'
  return ''

"""JSON-lines files of ours, which a kill or a full disk may have cut in the middle of a line."""

import codecs
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

logger = logging.getLogger(__name__)


def _any(record: Any) -> bool:
  return isinstance(record, dict)


def read(
  path: epath.PathLike, fits: Callable[[Any], bool] = _any
) -> list[tuple[int, Mapping[str, Any]]]:
  """Objects of a file by the numbers of their lines, counted from 1.

  Lines that are torn, or are no object that `fits`, are left out, and one warning names them.
  """
  path = epath.Path(path)
  found, torn = [], []
  # Only '\n' ends a line: texts may hold the other line boundaries of Unicode.
  for number, line in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b'\n'), 1):
    if not line.strip():
      continue
    try:
      record = json.loads(line)
    except (ValueError, RecursionError):
      record = None
    if fits(record):
      found.append((number, record))
    else:
      torn.append(number)
  if torn:
    shown = ', '.join(map(str, torn[:5])) + (f' and {len(torn) - 5} more' if torn[5:] else '')
    logger.warning(
      '%s: line %s is torn, changed or no record of ours, as a kill, a full disk or a flipped bit '
      'leave one; left out',
      path,
      shown,
    )
  return found


def mend_end(path: epath.PathLike) -> None:
  """Makes a file end with a whole line, so that the next one does not go on in it.

  A whole last record gets the end of its line. Half of one is removed, and a warning says so.
  """
  path = epath.Path(path)
  if not path.exists():
    return
  content = path.read_bytes()
  if not content or content.endswith(b'\n'):
    return
  from aya_train.tasks import storage  # TensorFlow comes with it, which takes seconds

  kept, _, last = content.rpartition(b'\n')
  try:
    whole = isinstance(json.loads(last), dict)
  except (ValueError, RecursionError):
    whole = False
  if whole:
    storage.write_atomically(path, content + b'\n')
    return
  storage.write_atomically(path, kept + b'\n' if kept else b'')
  logger.warning(
    '%s: line %d was torn, as a kill or a full disk leaves one; its %d bytes are removed',
    *(path, kept.count(b'\n') + bool(kept) + 1, len(last)),
  )

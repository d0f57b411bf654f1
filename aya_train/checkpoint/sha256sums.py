"""SHA256SUMS: digests of an exported folder's files, for us and for `sha256sum -c SHA256SUMS`.

The formats of other programs have no place for digests, and none of these programs looks for
damage. So the folder has a list of GNU coreutils' form beside its files. README.md is not in it,
since the Hub lets people edit that.
"""

import fnmatch
import hashlib
import logging
import os
import re
from collections.abc import Mapping

from etils import epath

from aya_train import destinations, hosts, path_facts
from aya_train.checkpoint import progress
from aya_train.checkpoint.arrays import workers

logger = logging.getLogger(__name__)

NAME = 'SHA256SUMS'
_BLOCK_BYTES = 1 << 22
_UNLISTED = (NAME, 'README.md', '.gitattributes')
_SETTINGS = ('*config*.json', 'embedding.json', '*.gin', 'LICENSE*')
_LINE = re.compile(r'([0-9a-f]{64}) [ *](.+)')
_Key = tuple[str, int, float]  # path, bytes and the time of the last change

_known: dict[_Key, str] = {}


def write(folder: epath.PathLike) -> None:
  """Lists every file of a folder, and of those in it, beside them; README.md is left out."""
  folder = epath.Path(folder)
  files = {str(path.relative_to(folder)): path for path in _files(folder)}
  digests = _digests({name: files[name] for name in sorted(files) if name not in _UNLISTED})
  (folder / NAME).write_text(''.join(f'{digest}  {name}\n' for name, digest in digests.items()))


def check(folder: epath.PathLike) -> None:
  """Reads the files of a folder and holds them against its list; without a list nothing is done.

  A file is read once in the life of a process. Of a bucket the first host alone reads. Files that
  the list does not name, or that are not there, are left to whoever reads them.

  Raises:
    ValueError: weights, a vocabulary or the list itself are not what was written. Of settings,
      which people may edit, a warning is logged.
  """
  folder = epath.Path(folder)
  if not path_facts.exists(folder / NAME) or not (
    destinations.is_local(folder) or hosts.is_first()
  ):
    return
  listed = _read(folder / NAME)
  found = _digests({name: folder / name for name in listed if (folder / name).exists()})
  other = [name for name, digest in found.items() if digest != listed[name]]
  settings = [name for name in other if _is_settings(name)]
  if damaged := [name for name in other if name not in settings]:
    first = damaged[0]
    more = f' (and {len(damaged) - 1} more files)' if len(damaged) > 1 else ''
    raise ValueError(
      f'{folder / first} is not what was written there{more}: {NAME} beside it says '
      f'{listed[first][:12]}…, and its SHA-256 is {found[first][:12]}…. Copy the folder again from '
      f'its source; if you have changed the file yourself, delete {folder / NAME}'
    )
  if settings:
    logger.warning(
      '%s changed since %s was written, by an editor or by damage: what is there now counts',
      *(', '.join(settings) + (' has' if len(settings) == 1 else ' have'), folder),
    )


def _is_settings(name: str) -> bool:
  base = name.rpartition('/')[2]
  return any(fnmatch.fnmatchcase(base, pattern) for pattern in _SETTINGS)


def _read(path: epath.Path) -> dict[str, str]:
  """The digest of each file by its name."""
  listed = {}
  for number, line in enumerate(
    path.read_bytes().decode(errors='replace').removesuffix('\n').split('\n'), 1
  ):
    match = _LINE.fullmatch(line)
    if not match or '..' in match[2].split('/') or match[2].startswith('/'):
      raise ValueError(
        f'{path}, line {number}: expected 64 hexadecimal digits, two spaces and the name of a file '
        f'in the folder, got {line[:80]!r}. Copy the folder again from its source; without this '
        'file it is read unchecked'
      )
    listed[match[2]] = match[1]
  return listed


def _files(folder: epath.Path) -> list[epath.Path]:
  found = []
  for path in folder.iterdir():
    found += _files(path) if path.is_dir() else [path]
  return found


def _digests(files: Mapping[str, epath.Path]) -> dict[str, str]:
  """SHA-256 of files, several at a time; of those that this process has read from memory."""
  keys = {name: _key(path) for name, path in files.items()}
  unread = [name for name, key in keys.items() if key not in _known]
  with progress.shown('checksums', sum(keys[name][1] for name in unread)) as advance:
    found = workers.ahead(lambda name: _digest(files[name], advance), unread, waiting=workers.MANY)
    _known.update({keys[name]: digest for name, digest in zip(unread, found, strict=True)})
  return {name: _known[key] for name, key in keys.items()}


def _key(path: epath.Path) -> _Key:
  changed = os.stat(path).st_mtime_ns if destinations.is_local(path) else path_facts.modified(path)
  return str(path), path_facts.size(path), changed


def _digest(path: epath.Path, advance: progress.Advance) -> str:
  digest = hashlib.sha256()
  with path.open('rb') as file:
    while block := file.read(_BLOCK_BYTES):
      digest.update(block)
      advance(len(block))
  return digest.hexdigest()

"""Where aya-train keeps what it makes, and how a file gets there whole."""

import contextlib
import functools
import hashlib
import os
import re
import socket
import time
import uuid
from collections.abc import Iterable, Iterator

from etils import epath

from aya_train import disk_writes, path_facts, process_identity

CACHE_ENV = 'AYA_TRAIN_CACHE'
_TEMPORARY = re.compile(r'\..+\.(?P<owner>\w+-\d+-\d+)\.[0-9a-f]{8}\.(tmp|partial)')
_CLAIM = '.claim-'
_GRACE_SECONDS = 60.0
_SILENT_SECONDS = 24 * 3600.0  # after which what another machine left is nobody's any more


def cache_dir() -> epath.Path:
  """The cache directory: env AYA_TRAIN_CACHE (may be gs://...), else ~/.cache/aya_train.

  Read anew at each call; nothing is created.
  """
  return epath.Path(os.environ.get(CACHE_ENV) or '~/.cache/aya_train').expanduser()


def vocabularies_dir() -> epath.Path:
  """Trained SentencePiece files and their manifests."""
  return cache_dir() / 'vocabularies'


def tfds_dir() -> epath.Path:
  """Default TFDS data_dir of the builders of this package."""
  return cache_dir() / 'tensorflow_datasets'


def temporary(path: epath.Path, ending: str = 'tmp') -> epath.Path:
  """A hidden name beside `path` for what will take its name when it is complete.

  It says which process writes there, so that `remove_leftovers` knows what nobody does.
  """
  return path.parent / f'.{path.name}.{_me()}.{uuid.uuid4().hex[:8]}.{ending}'


def remove_leftovers(folder: epath.Path) -> None:
  """Removes what processes that are no more left under names of `temporary`.

  What belongs to a living process stays, and what one of another machine wrote within a day.
  """
  for path in folder.iterdir() if folder.exists() else ():
    if (found := _TEMPORARY.fullmatch(path.name)) and not _is_alive(found['owner'], path):
      _remove(path)


def claim(folder: epath.Path) -> None:
  """Writes into a folder that this process works in it; see `is_abandoned`."""
  (folder / f'{_CLAIM}{_me()}').write_text('')


def release(folder: epath.Path) -> None:
  """Takes all claims out of a folder, which is complete."""
  for path in path_facts.matching(folder, f'{_CLAIM}*'):
    path.unlink(missing_ok=True)


def is_abandoned(folder: epath.Path) -> bool:
  """Whether no other process that lives has claimed a folder.

  One of another machine counts as living while anything in the folder is younger than a day. A
  folder that nobody has claimed counts as abandoned after a minute: it may just have been made.
  """
  owners = [path.name.removeprefix(_CLAIM) for path in path_facts.matching(folder, f'{_CLAIM}*')]
  if owners:
    return not any(owner != _me() and _is_alive(owner, folder) for owner in owners)
  return folder.exists() and time.time() - path_facts.modified(folder) > _GRACE_SECONDS


def remove_abandoned(folders: Iterable[epath.Path]) -> None:
  """Removes those of some folders that are abandoned."""
  for folder in folders:
    if folder.exists() and is_abandoned(folder):
      _remove(folder)


@contextlib.contextmanager
def making(parent: epath.Path) -> Iterator[None]:
  """While TFDS makes data sets in a folder: removes first what dead processes left half made.

  TFDS makes a folder `incomplete.*` before it can be claimed. So this process claims the parent
  before; where nobody else who lives has, what nobody has claimed belongs to nobody.
  """
  parent.mkdir(parents=True, exist_ok=True)
  claim(parent)
  try:
    found = path_facts.matching(parent, 'incomplete.*')  # before the look at who else is there
    alone = is_abandoned(parent)
    for path in found:
      if is_abandoned(path) or (alone and not path_facts.matching(path, f'{_CLAIM}*')):
        _remove(path)
    yield
  finally:
    for path in path_facts.matching(parent, f'{_CLAIM}*'):
      owner = path.name.removeprefix(_CLAIM)
      if owner == _me() or not _is_alive(owner, path):
        path.unlink(missing_ok=True)


def _remove(path: epath.Path) -> None:
  try:
    if path.is_dir():
      path.rmtree()
    else:
      path.unlink(missing_ok=True)
  except FileNotFoundError:
    pass  # another process removed it


@functools.lru_cache(maxsize=1)
def _machine() -> str:
  """Its name, and which of those of that name: containers and copies of a disk share names."""
  which = hashlib.sha256(process_identity.machine().encode()).hexdigest()[:8]
  return re.sub(r'\W', '_', f'{socket.gethostname()}_{which}')


def _me() -> str:
  """Machine, process and the start of the process, since numbers of processes come again."""
  return f'{_machine()}-{os.getpid()}-{process_identity.began(os.getpid()) or 0}'


def _is_alive(owner: str, wrote: epath.Path) -> bool:
  """Whether a process lives: seen here, or for one of another machine by what it wrote."""
  machine, pid, started = owner.rsplit('-', 2)
  if machine == _machine():
    return process_identity.lives(int(pid), started) is not False
  return time.time() - _last_written(wrote) < _SILENT_SECONDS


def _last_written(path: epath.Path) -> float:
  """Of a file or of all in a folder, in seconds of the epoch."""
  try:
    newest = path_facts.modified(path)
    inside = list(path.iterdir()) if path.is_dir() else []
  except FileNotFoundError:  # another process removed it
    return 0.0
  return max([newest, *map(_last_written, inside)])


@functools.lru_cache(maxsize=4096)
def _cleaned(folder: str, minute: int) -> None:
  """Looks for leftovers once a minute: looking lists the folder, which may hold 100,000 files."""
  del minute
  remove_leftovers(epath.Path(folder))


def write_atomically(path: epath.Path, content: str | bytes) -> None:
  """Writes a file whole or not at all; several writers do not disturb each other.

  The content goes to a hidden file of another name in the same folder (`temporary`), which takes
  the name when it is complete. What killed writers left beside it goes.
  """
  if '://' not in os.fspath(path):
    _cleaned(os.fspath(path.parent), int(time.monotonic() // 60))
  partial = temporary(path, 'partial')
  data = content.encode() if isinstance(content, str) else content
  try:
    with disk_writes.named(path):
      partial.write_bytes(data)
      partial.replace(path)
  except BaseException:
    partial.unlink(missing_ok=True)  # On a full disk it would keep it full.
    raise

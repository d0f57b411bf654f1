"""Files below a folder, those inside of zip and tar files too, found by the ends of their paths."""

import contextlib
import dataclasses
import fnmatch
import functools
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence

from etils import epath

from aya_train import path_facts
from aya_train.tasks.building import records, text_files
from aya_train.tasks.building.read_report import DamagedFileError

_TARS = ('.tar', '.tar.gz', '.tgz', '.tar.bz2', '.tbz2', '.tar.xz', '.txz')
_ARCHIVE_ERRORS = (
  *(EOFError, zipfile.BadZipFile, tarfile.TarError, NotImplementedError, RuntimeError),
  *(zlib.error, lzma.LZMAError),
)


@dataclasses.dataclass(frozen=True)
class EvalFile:
  """A file that was found; inside a zip or tar if `member` is given."""

  path: epath.Path
  member: str = ''

  @property
  def name(self) -> str:
    """For messages."""
    return f'{os.fspath(self.path)}{f"/{self.member}" if self.member else ""}'


def matching(folder: str, wanted: Sequence[Sequence[str]]) -> list[EvalFile]:
  """Files below a folder, of the first patterns that any matches."""
  found = next(filter(None, (everywhere(folder, group) for group in wanted)), [])
  # An archive that lies beside what was unpacked from it is not read a second time.
  return [file for file in found if not file.member] or found


def everywhere(folder: str, patterns: Sequence[str]) -> list[EvalFile]:
  """Files below a folder that any of the patterns matches, those of archives among them."""
  return [file for file in listed(folder) if any(ends_as(file, p) for p in patterns)]


def ends_as(file: EvalFile, pattern: str) -> bool:
  whole = f'/{file.name}'
  names = {whole, text_files.plain_name(whole)}
  return any(fnmatch.fnmatchcase(name, f'*/{pattern}') for name in names)


@functools.lru_cache(maxsize=64)
def listed(folder: str) -> tuple[EvalFile, ...]:
  """Files below a folder, those inside of zip and tar files too, sorted."""
  found = []
  paths = [epath.Path(folder)]
  while paths:
    for child in sorted(paths.pop().iterdir()):
      if path_facts.is_dir(child):
        if child.name not in ('.git', '.ipynb_checkpoints', '.cache'):
          paths.append(child)
      elif child.suffix.lower() == records.ZIP or _is_tar(child):
        found += [EvalFile(child, name) for name in _members(child)]
      else:
        found.append(EvalFile(child))
  return tuple(sorted(found, key=lambda file: file.name))


def _is_tar(path: epath.Path) -> bool:
  return path.name.lower().endswith(_TARS)


def _members(path: epath.Path) -> list[str]:
  with _unreadable(path, f'{path}'), path.open('rb') as raw:
    if _is_tar(path):
      with tarfile.open(fileobj=raw) as archive:
        names = [member.name for member in archive if member.isfile()]
    else:
      with zipfile.ZipFile(raw) as zipped:
        names = [name for name in zipped.namelist() if name[-1] != '/']
  # What macOS adds to the files.
  parts = ((name, name.split('/')) for name in names)
  return [n for n, p in parts if '__MACOSX' not in p and not p[-1].startswith('._')]


def _copy_member(file: EvalFile, target: epath.Path) -> None:
  with _unreadable(file.path, file.name), file.path.open('rb') as raw, target.open('wb') as out:
    if _is_tar(file.path):
      with tarfile.open(fileobj=raw) as archive:
        inside = archive.extractfile(file.member)
        assert inside is not None  # `_members` names files alone
        shutil.copyfileobj(inside, out)
    else:
      with zipfile.ZipFile(raw) as zipped, zipped.open(file.member) as member:
        shutil.copyfileobj(member, out)


@contextlib.contextmanager
def _unreadable(path: epath.Path, name: str) -> Iterator[None]:
  """What an archive raises, as what it is: a file that is not whole."""
  kind = 'tar' if _is_tar(path) else 'zip'
  try:
    yield
  except FileNotFoundError:
    raise
  except _ARCHIVE_ERRORS as error:
    raise DamagedFileError(f'{name}: not a whole {kind} file ({error})') from error
  except OSError as error:  # of bz2, which gives it no number
    if error.errno is not None:
      raise
    raise DamagedFileError(f'{name}: not a whole {kind} file ({error})') from error


@contextlib.contextmanager
def local_copy(file: EvalFile) -> Iterator[epath.Path]:
  """A path to read a file at; what is in an archive lies there for as long."""
  if not file.member:
    yield file.path
    return
  with tempfile.TemporaryDirectory() as folder:
    target = epath.Path(folder) / file.member.rsplit('/', 1)[-1]
    _copy_member(file, target)
    yield target

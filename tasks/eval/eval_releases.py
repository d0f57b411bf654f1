"""Files of evaluation benchmarks as they are released: where they lie, and their rows.

They are some megabytes, so nothing is built: a source reads them when it is used. They lie in a
folder or bucket with a sub-folder for each benchmark (`set_eval_data_dir`, the gin macro
EVAL_DATA_DIR, or env AYA_TRAIN_EVAL_DATA); what is not there comes from the Hugging Face hub, where
the benchmark is released there. Below the sub-folder only the ends of paths count: a clone of a
repository, a download of the hub and the bare files are all found.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import path_facts
from aya_train.tasks.building import records, releases, text_files
from aya_train.tasks.building.read_report import DamagedFileError
from aya_train.tasks.eval import release_files
from aya_train.tasks.eval.release_files import EvalFile
from aya_train.tasks.eval.row_columns import EvalDataError, Located
from aya_train.tasks.user import csv_files

EVAL_DATA_ENV = 'AYA_TRAIN_EVAL_DATA'
_chosen: str | None = None
_failed: dict[tuple[str, str | None], tuple[float, Exception]] = {}  # listings of the hub
_WAITED = 60  # seconds until a listing that failed is tried again


def set_eval_data_dir(path: epath.PathLike | None) -> None:
  """Where released files of benchmarks lie, for tasks registered already too.

  None returns to env AYA_TRAIN_EVAL_DATA. Nothing is opened.
  """
  global _chosen
  _chosen = None if path is None else os.path.expanduser(os.fspath(path))


def eval_data_dir() -> epath.Path | None:
  """The folder or bucket in force; None if there is none. Nothing is opened."""
  path = _chosen or os.environ.get(EVAL_DATA_ENV)
  return epath.Path(path).expanduser() if path else None


@dataclasses.dataclass(frozen=True)
class Release:
  """Where a benchmark's files are.

  Attributes:
    folder: the sub-folder of `eval_data_dir()`, 'xcopa'.
    origin: where a user gets them, in words: an address.
    repository: data set on the hub that holds files of a released shape; None if there is none.
    revision: its commit; None for the newest.
  """

  folder: str
  origin: str
  repository: str | None = None
  revision: str | None = None


def find(release: Release, *patterns: str | Sequence[str]) -> list[EvalFile]:
  """The files of the first pattern that any file matches, sorted by name.

  Args:
    release: of a benchmark.
    *patterns: of the ends of paths, '/'-separated, with '*' and '?': 'et/val.et.jsonl' finds
      '<folder>/data/et/val.et.jsonl'. With or without an ending of compression ('.gz'), and inside
      of zip and tar files. One pattern may be several, if the files of all of them belong together.

  Raises:
    FileNotFoundError: there are none; says what was looked for, where, and what to do.
    DamagedFileError: some of a set of numbered shards are missing.
  """
  wanted = [(p,) if isinstance(p, str) else tuple(p) for p in patterns]
  if (folder := _folder(release)) is not None:
    found = release_files.matching(os.fspath(folder), wanted)
    if not found:
      release_files.listed.cache_clear()  # it may have come since
      found = release_files.matching(os.fspath(folder), wanted)
    if found:
      names = [releases.ReleasedFile(file.name, 0) for file in found]
      releases.refuse_missing_shards(names, os.fspath(folder))
      return found
  place = f'no {" or ".join(p for group in wanted for p in group)}'
  if folder is not None:
    place += f' below {folder}'
  elif (data := eval_data_dir()) is not None:
    place += f': there is no folder {data / release.folder}'
  if release.repository:
    return _on_hub(release, wanted, place)
  raise FileNotFoundError(
    f'{release.folder}: {place}. The files are released at {release.origin}; put them into a '
    f'folder {release.folder}/ of the folder or bucket that EVAL_DATA_DIR (or {EVAL_DATA_ENV}) '
    'names'
  )


def everywhere(release: Release, patterns: Sequence[str]) -> list[EvalFile]:
  """What lies in a benchmark's folder under any of some patterns, packed and unpacked alike."""
  folder = _folder(release)
  return [] if folder is None else release_files.everywhere(os.fspath(folder), patterns)


def hub_patterns(config: str, split: str) -> tuple[str, ...]:
  """Patterns of the files of a config's split, as the hub keeps them.

  Args:
    config: such as a language; '' where a data set has none.
    split: as the files are named, 'validation'.
  """
  folder = f'{config}/' if config else ''
  return (
    f'{folder}{split}-*.parquet',
    f'{folder}{split}/*.parquet',
    f'{folder}{split}.parquet',
    f'{folder}*-{split}.parquet',
    f'{folder}{split}.jsonl',
    f'{folder}{split}.json',
  )


def _folder(release: Release) -> epath.Path | None:
  if (data := eval_data_dir()) is None:
    return None
  if not path_facts.exists(data):
    raise FileNotFoundError(f'no folder {data} (EVAL_DATA_DIR or {EVAL_DATA_ENV})')
  return folder if path_facts.exists(folder := data / release.folder) else None


def _on_hub(release: Release, wanted: Sequence[Sequence[str]], place: str) -> list[EvalFile]:
  """Downloads the files of the first pattern that any file on the hub matches."""
  repository = release.repository
  assert repository is not None
  advice = (
    f'or put the files of {release.origin} into a folder {release.folder}/ of the folder or bucket '
    f'that EVAL_DATA_DIR (or {EVAL_DATA_ENV}) names'
  )
  try:
    commit, files = _hub_files(repository, release.revision)
  except ImportError as error:
    raise FileNotFoundError(
      f'{release.folder}: {place}, and huggingface_hub is not installed to get {repository}: '
      f"pip install 'aya-train[hf]', {advice}"
    ) from error
  except Exception as error:
    if found := _in_hub_cache(repository, release.revision, wanted):
      return found
    raise OSError(
      f'{release.folder}: {place}, and {repository} cannot be listed on the hub: '
      f'{str(error).partition(chr(10))[0][:200]}. Check the network and `hf auth login`, {advice}'
    ) from error
  for group in wanted:
    names = [
      f for f in files if any(release_files.ends_as(EvalFile(epath.Path(f.name)), p) for p in group)
    ]
    if names:
      releases.refuse_missing_shards(names, repository)
      there = releases.Release(f'hub:{repository}', commit, tuple(names))
      return [EvalFile(epath.Path(there.path(file))) for file in there.files]
  raise FileNotFoundError(
    f'{release.folder}: {place}, and {repository}@{commit[:8]} on the hub has no such file either; '
    f'{advice.removeprefix("or ")}'
  )


def _in_hub_cache(
  repository: str, revision: str | None, wanted: Sequence[Sequence[str]]
) -> list[EvalFile]:
  """Files that were downloaded before, for machines without a network."""
  import huggingface_hub

  try:
    folder = huggingface_hub.snapshot_download(
      repository, repo_type='dataset', revision=revision, local_files_only=True
    )
  except Exception:
    return []  # the listing's error says more
  return release_files.matching(folder, wanted)


def _hub_files(
  repository: str, revision: str | None
) -> tuple[str, tuple[releases.ReleasedFile, ...]]:
  """As `_hub_listing`; what failed is not tried again at once, for each of hundreds of tasks."""
  key = (repository, revision)
  if key in _failed and time.monotonic() - _failed[key][0] < _WAITED:
    raise _failed[key][1]
  try:
    return _hub_listing(repository, revision)
  except Exception as error:
    _failed[key] = (time.monotonic(), error)
    raise


@functools.lru_cache(maxsize=64)
def _hub_listing(
  repository: str, revision: str | None
) -> tuple[str, tuple[releases.ReleasedFile, ...]]:
  commit, files = releases.HUB.list(repository, revision)
  return commit, tuple(sorted(files, key=lambda file: file.name))


def forget_listings() -> None:
  """Looks anew, at the next use, which files are there; for tests and notebooks."""
  release_files.listed.cache_clear()
  _hub_listing.cache_clear()
  _failed.clear()


def rows(
  release: Release, *patterns: str | Sequence[str], columns: Sequence[str] = ()
) -> Iterator[Located]:
  """Records of the files that `find` finds, each with its place ('FILE row 3').

  Parquet, Arrow, JSON lines, a JSON array, CSV and TSV, compressed or not, or in a zip or tar.

  Args:
    release: of a benchmark.
    *patterns: see `find`.
    columns: names, of CSV and TSV without a header.

  Raises:
    FileNotFoundError, DamagedFileError: see `find`; a file that is not whole.
    EvalDataError: a record that cannot be read.
  """
  for file in find(release, *patterns):
    yield from read(file, columns)


def read(file: EvalFile, columns: Sequence[str] = ()) -> Iterator[Located]:
  """Records of one file; see `rows`."""
  with release_files.local_copy(file) as path:
    try:
      found: Iterable[tuple[str, Any]]
      if csv_files.is_one(path.name):
        found = ((f'row {n}', row) for n, row in csv_files.read(path, columns))
      else:
        found = records.read(path)
      for where, record in found:
        if not isinstance(record, Mapping):
          detail = getattr(record, 'detail', f'expected an object, got {type(record).__name__}')
          raise EvalDataError(f'{file.name}, {where}: {detail}')
        yield f'{file.name} {where}', record
    except DamagedFileError as error:
      if not file.member:
        raise
      raise DamagedFileError(str(error).replace(os.fspath(path), file.name)) from error


def lines(release: Release, *patterns: str | Sequence[str]) -> Iterator[tuple[str, str]]:
  """Lines of text files, each with its place; ends of lines as `text_files.lines` has them."""
  for file in find(release, *patterns):
    with release_files.local_copy(file) as path:
      for number, line in enumerate(text_files.lines(text_files.read(path)), 1):
        yield f'{file.name} line {number}', line

"""Files of evaluation benchmarks as they are released, and SeqIO sources over them.

They are some megabytes, so nothing is built: a source reads them when it is used. They lie in a
folder or bucket with a sub-folder for each benchmark (`set_eval_data_dir`, the gin macro
EVAL_DATA_DIR, or env AYA_TRAIN_EVAL_DATA); what is not there comes from the Hugging Face hub, where
the benchmark is released there. Below the sub-folder only the ends of paths count: a clone of a
repository, a download of the hub and the bare files are all found.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import functools
import logging
import lzma
import os
import shutil
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf
from etils import epath

from aya_train.tasks import split_slices
from aya_train.tasks.building import records, releases, text_files
from aya_train.tasks.building.read_report import DamagedFileError
from aya_train.tasks.user import csv_files

EVAL_DATA_ENV = 'AYA_TRAIN_EVAL_DATA'
STRING = tf.TensorSpec((), tf.string)
STRINGS = tf.TensorSpec((None,), tf.string)
INTEGER = tf.TensorSpec((), tf.int32)

logger = logging.getLogger('aya_train.tasks.eval.eval_releases')
_chosen: str | None = None
_left_out: set[str] = set()
_TARS = ('.tar', '.tar.gz', '.tgz', '.tar.bz2', '.tbz2', '.tar.xz', '.txz')
_ARCHIVE_ERRORS = (
  *(EOFError, zipfile.BadZipFile, tarfile.TarError, NotImplementedError, RuntimeError),
  *(zlib.error, lzma.LZMAError),
)
_failed: dict[tuple[str, str | None], tuple[float, Exception]] = {}  # listings of the hub
_WAITED = 60  # seconds until a listing that failed is tried again

Record = Mapping[str, Any]
Located = tuple[str, Record]  # ('/data/xcopa/et/val.et.jsonl row 3', columns)


class EvalDataError(ValueError):
  """A file of a benchmark that is not of its released shape; the message has file and row."""


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


@dataclasses.dataclass(frozen=True)
class EvalFile:
  """A file that was found; inside a zip or tar if `member` is given."""

  path: epath.Path
  member: str = ''

  @property
  def name(self) -> str:
    """For messages."""
    return f'{os.fspath(self.path)}{f"/{self.member}" if self.member else ""}'


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
    found = _matching(os.fspath(folder), wanted)
    if not found:
      _listed.cache_clear()  # it may have come since
      found = _matching(os.fspath(folder), wanted)
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
  if not data.exists():
    raise FileNotFoundError(f'no folder {data} (EVAL_DATA_DIR or {EVAL_DATA_ENV})')
  return folder if (folder := data / release.folder).exists() else None


def _matching(folder: str, wanted: Sequence[Sequence[str]]) -> list[EvalFile]:
  """Files below a folder, of the first patterns that any matches."""
  files = _listed(folder)
  matches = ([f for f in files if any(_ends_as(f, p) for p in group)] for group in wanted)
  found = next(filter(None, matches), [])
  # An archive that lies beside what was unpacked from it is not read a second time.
  return [file for file in found if not file.member] or found


def _ends_as(file: EvalFile, pattern: str) -> bool:
  whole = f'/{file.name}'
  names = {whole, text_files.plain_name(whole)}
  return any(fnmatch.fnmatchcase(name, f'*/{pattern}') for name in names)


@functools.lru_cache(maxsize=64)
def _listed(folder: str) -> tuple[EvalFile, ...]:
  """Files below a folder, those inside of zip and tar files too, sorted."""
  found = []
  paths = [epath.Path(folder)]
  while paths:
    for child in sorted(paths.pop().iterdir()):
      if child.is_dir():
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
    names = [f for f in files if any(_ends_as(EvalFile(epath.Path(f.name)), p) for p in group)]
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
  return _matching(folder, wanted)


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
  _listed.cache_clear()
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
  with _local(file) as path:
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
    with _local(file) as path:
      for number, line in enumerate(text_files.lines(text_files.read(path)), 1):
        yield f'{file.name} line {number}', line


@contextlib.contextmanager
def _local(file: EvalFile) -> Iterator[epath.Path]:
  """A path to read a file at; what is in an archive lies there for as long."""
  if not file.member:
    yield file.path
    return
  with tempfile.TemporaryDirectory() as folder:
    target = epath.Path(folder) / file.member.rsplit('/', 1)[-1]
    _copy_member(file, target)
    yield target


def text(record: Record, column: str, where: str) -> str:
  """A column that must hold text that is not blank, stripped of nothing.

  Raises:
    EvalDataError: it is not there, no text, or blank.
  """
  value = record.get(column)
  if not isinstance(value, str) or not value.strip():
    got = f'{value!r:.80}' if column in record else f'only {sorted(map(str, record))}'
    raise EvalDataError(f'{where}: expected text in {column!r}, got {got}')
  return value


def integer(record: Record, column: str, where: str, allowed: Sequence[int] | None = None) -> int:
  """A column that must hold a whole number, also as text.

  Raises:
    EvalDataError: it is not there, none, or not among those that are allowed.
  """
  value = record.get(column)
  try:
    if isinstance(value, bool) or value is None or (found := int(value)) != float(value):
      raise ValueError
  except (TypeError, ValueError):
    got = f'{value!r:.80}' if column in record else f'only {sorted(map(str, record))}'
    raise EvalDataError(f'{where}: expected a whole number in {column!r}, got {got}') from None
  if allowed is not None and found not in allowed:
    raise EvalDataError(f'{where}: expected {column!r} among {list(allowed)}, got {found}')
  return found


def choice(record: Record, column: str, where: str, allowed: Sequence[str]) -> str:
  """A column that must hold one of some words, white space around it not counting.

  Raises:
    EvalDataError: it is not there, or holds another.
  """
  value = record.get(column)
  if not isinstance(value, str) or (found := value.strip()) not in allowed:
    got = f'{value!r:.80}' if column in record else f'only {sorted(map(str, record))}'
    raise EvalDataError(f'{where}: expected {column!r} among {list(allowed)}, got {got}')
  return found


def leave_out(where: str, reason: str) -> None:
  """Says once a process that a row of a release is not used."""
  if where not in _left_out:
    _left_out.add(where)
    logger.warning('%s is left out: %s', where, reason)


def unquoted(value: str) -> str:
  """A field of a TSV that was written as CSV: without its quotes, doubled ones as one."""
  inside = value[1:-1]
  is_quoted = len(value) > 1 and value[0] == value[-1] == '"'
  return inside.replace('""', '"') if is_quoted and '"' not in inside.replace('""', '') else value


def _column(rows: Sequence[Record], name: str, spec: tf.TensorSpec) -> tf.Tensor | tf.RaggedTensor:
  values = [row[name] for row in rows]
  if spec.shape.rank == 0:
    return tf.constant(values, spec.dtype, shape=(len(values),))
  flat = [value for row in values for value in row]
  return tf.RaggedTensor.from_row_lengths(
    tf.constant(flat, spec.dtype, shape=(len(flat),)), [len(row) for row in values]
  )


class EvalSource(seqio.DataSource):
  """Rows that a function reads from released files, at each use.

  Attributes:
    read: split -> rows; a function of a module, or a `functools.partial` of one.
  """

  def __init__(
    self,
    read: Callable[[str], Iterable[Record]],
    fields: Mapping[str, tf.TensorSpec],
    splits: Sequence[str] = ('test',),
  ):
    """A source; nothing is opened.

    Args:
      read: called with a split; yields mappings that have all `fields`.
      fields: of a row, with their types: STRING, STRINGS, INTEGER.
      splits: that it has.
    """
    self.read = read
    self.fields = dict(fields)
    super().__init__(splits=tuple(splits))

  @property
  def supports_arbitrary_sharding(self) -> bool:
    return False

  def rows(self, split: str) -> list[dict[str, Any]]:
    """All rows of a split, their `fields` alone.

    Raises:
      ValueError: no such split.
      FileNotFoundError, DamagedFileError, EvalDataError: see `rows` of this module.
    """
    if split not in self.splits:
      raise ValueError(f'no split {split!r}; it has {list(self.splits)}')
    return [{name: row[name] for name in self.fields} for row in self.read(split)]

  def get_dataset(
    self,
    split: str = 'test',
    shuffle: bool = True,
    seed: int | None = None,
    shard_info: seqio.ShardInfo | None = None,
    *,
    sequence_length: Mapping[str, int] | None = None,
    use_cached: bool = False,
    num_epochs: int | None = 1,
  ) -> tf.data.Dataset:
    """Rows in the order of the files: tensors as `fields` says; of slices, theirs.

    Files are read here, and not when the data set is iterated, so that an error of theirs is
    raised as it is.
    """
    del sequence_length, use_cached, num_epochs
    if split_slices.is_sliced(split, self.splits):
      return split_slices.SlicedSource(self, split).get_dataset(split, shuffle, seed, shard_info)
    found = self.rows(split)
    columns = {name: _column(found, name, spec) for name, spec in self.fields.items()}
    dataset = tf.data.Dataset.from_tensor_slices(columns)
    if shard_info is not None and shard_info.num_shards > 1:
      dataset = dataset.shard(shard_info.num_shards, shard_info.index)
    return dataset.shuffle(max(1, len(found)), seed=seed) if shuffle else dataset

  def num_input_examples(self, split: str) -> int:
    """Rows of the split; reads the files."""
    if split_slices.is_sliced(split, self.splits):
      return split_slices.SlicedSource(self, split).num_input_examples(split) or 0
    return len(self.rows(split))

  def list_shards(self, split: str) -> list[str]:
    """One, whatever the number of files; nothing is opened."""
    if split_slices.is_sliced(split, self.splits):
      return split_slices.SlicedSource(self, split).list_shards(split)
    return [split]

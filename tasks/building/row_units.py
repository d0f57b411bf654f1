"""First half of building a source: units of work, each from released files to pieces of rows.

A unit is some files or parts of files, about 64 MiB. It is read on its own, in any process, and
leaves one folder:

  WORK/units/00012/CONFIG.SPLIT.PART.tfrecord   rows, as serialized tf.train.Example
                  /CONFIG.SPLIT.PART.npy        of each row: its key and the number of its group
                  /unit.json                    what is there, and the report

The folder appears by a rename after everything in it is written. So a killed build goes on with
the units that have none, and nothing half-written is read.
"""

import dataclasses
import functools
import importlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
from etils import epath

from aya_train.tasks import storage
from aya_train.tasks.building import records, releases, rows, text_files
from aya_train.tasks.building.read_report import (
  DamagedFileError,
  FilteredRowError,
  ReadReport,
  RowProblemError,
)

JOB = 'job.json'
UNIT = 'unit.json'
UNIT_BYTES = 64 << 20
KEYS = np.dtype([('key', '<u8'), ('group', '<u4')])


@dataclasses.dataclass(frozen=True)
class Input:
  """A file or a part of one, and what its place in the release says about its rows.

  Attributes:
    name: path inside the release.
    size: bytes of the whole file.
    part: the rows of it that are meant.
    context: such as {'config': 'templated_afriqa', 'split': 'train'}.
  """

  name: str
  size: int
  part: records.FilePart = records.WHOLE
  context: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Options:
  """What a user chooses of a source.

  Attributes:
    constituents: configs to build; () for all.
    languages: ISO 639-3 codes to keep; () for all that the source keeps by itself.
    max_characters: rows with more are left out.
    num_shards: files of each split; 0: as many as make files of about 256 MiB.
    templates: of xP3x, 'DATASET<tab>TEMPLATE' lines to keep instead of the published ones.
  """

  constituents: tuple[str, ...] = ()
  languages: tuple[str, ...] = ()
  max_characters: int = rows.MAX_CHARACTERS
  num_shards: int = 0
  templates: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Layout:
  """How the files of a source become rows.

  Attributes:
    select: the files that belong to the chosen constituents, with their context.
    to_rows: the rows of one record, with their places; raises RowProblemError or FilteredRowError.
    records_are_lists: a JSON record may be a list of messages, and need not be an object.
    columns: of parquet files, those that `to_rows` reads and that must be there; None for all.
    group_limit: rows kept of one `Place.group`; 0 for all.
    sample: of a (config, split, part), the name of a further split drawn from it and its number
      of rows (0: all of them); None for no such split.
  """

  select: Callable[[Sequence[releases.ReleasedFile], Options], list[Input]]
  to_rows: Callable[[Any, Input, str, Options], Iterable[tuple[rows.Place, rows.Row]]]
  records_are_lists: bool = False
  columns: Sequence[str] | None = None
  group_limit: int = 0
  sample: Callable[[str, str, str], tuple[str, int] | None] = lambda config, split, part: None


# By name, so that a unit can be run in a process that has only the job's file.
_MODULES = {
  'aya_collection_templated': 'aya_collection',
  'aya_collection_translated': 'aya_collection',
  'xp3mt': 'xp3',
  'xp3all': 'xp3',
}


def module_of(source: str) -> str:
  """Name of the module with a source's LAYOUTS and BUILDERS."""
  return f'aya_train.tasks.sources.{_MODULES.get(source, source)}'


def layout(source: str) -> Layout:
  """The layout of a source: `LAYOUTS[source]` of its module."""
  return importlib.import_module(module_of(source)).LAYOUTS[source]


@dataclasses.dataclass(frozen=True)
class BuildJob:
  """A build: the source, its release, and the units it was divided into."""

  source: str
  version: str
  release: releases.Release
  options: Options
  units: tuple[tuple[Input, ...], ...]

  def to_json(self) -> str:
    return json.dumps(dataclasses.asdict(self), sort_keys=True)

  @classmethod
  def from_json(cls, text: str) -> 'BuildJob':
    job = json.loads(text)
    options: dict[str, Any] = {
      k: tuple(v) if isinstance(v, list) else v for k, v in job['options'].items()
    }
    release = job['release']
    return cls(
      job['source'],
      job['version'],
      releases.Release(
        release['place'],
        release['revision'],
        tuple(releases.ReleasedFile(**f) for f in release['files']),
      ),
      Options(**options),
      tuple(
        tuple(Input(**{**i, 'part': records.FilePart(**i['part'])}) for i in unit)
        for unit in job['units']
      ),
    )


def divide(
  release: releases.Release, inputs: Sequence[Input], unit_bytes: int = UNIT_BYTES
) -> tuple[tuple[tuple[Input, ...], ...], list[tuple[str, str]]]:
  """Units of about `unit_bytes`, and the damaged files that were found (name, detail).

  Small files are gathered, large ones cut where that can be done; the order of the inputs stays.
  """
  units: list[tuple[Input, ...]] = []
  damaged: list[tuple[str, str]] = []
  open_unit: list[Input] = []
  held = 0
  for item in inputs:
    # Where a parquet file may be cut stands at its end: one on the hub is not fetched for that.
    uncut = (
      text_files.is_compressed(item.name)
      or item.name.lower().endswith(records.ZIP)
      or (release.on_hub and item.name.endswith(records.PARQUET))
    )
    if item.size >= unit_bytes and not uncut:
      try:
        text = not item.name.endswith(records.PARQUET)
        path = item.name if text else release.path(releases.ReleasedFile(item.name, item.size))
        cut = records.parts(path, item.size, megabytes=unit_bytes >> 20)
      except DamagedFileError as error:
        damaged.append((item.name, str(error)))
        continue
      if open_unit:
        units.append(tuple(open_unit))
        open_unit, held = [], 0
      units += [(dataclasses.replace(item, part=part),) for part in cut]
      continue
    open_unit.append(item)
    held += item.size
    if held >= unit_bytes:
      units.append(tuple(open_unit))
      open_unit, held = [], 0
  if open_unit:
    units.append(tuple(open_unit))
  return tuple(units), damaged


def folder(work_dir: epath.PathLike, index: int) -> epath.Path:
  return epath.Path(work_dir) / 'units' / f'{index:05d}'


@functools.lru_cache(maxsize=2)
def job_at(work_dir: str) -> BuildJob:
  """The job of a work folder, read once in each process."""
  return BuildJob.from_json((epath.Path(work_dir) / JOB).read_text())


class _Pieces:
  """Open files of a unit, one for each place."""

  def __init__(self, directory: epath.Path):
    self._directory = directory
    self._writers: dict[tuple[str, str, str], Any] = {}
    self._keys: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    self._groups: dict[str, int] = {}

  def write(self, place: rows.Place, row: rows.Row) -> None:
    import tensorflow as tf

    name = (place.config, place.split, place.part)
    if name not in self._writers:
      path = self._directory / ('.'.join(name) + '.tfrecord')
      self._writers[name] = tf.io.TFRecordWriter(str(path))
      self._keys[name] = []
    group = self._groups.setdefault(place.group, len(self._groups))
    self._writers[name].write(rows.encode(row))
    self._keys[name].append((rows.key(row), group))

  def close(self) -> Mapping[str, Any]:
    """Writes the keys; what unit.json says of the pieces and groups."""
    pieces = []
    for name, writer in sorted(self._writers.items()):
      writer.close()
      with (self._directory / ('.'.join(name) + '.npy')).open('wb') as file:
        np.save(file, np.array(self._keys[name], KEYS))
      pieces.append({'place': list(name), 'rows': len(self._keys[name])})
    return {'pieces': pieces, 'groups': list(self._groups)}


def run(work_dir: str, index: int) -> tuple[int, int]:
  """Reads a unit and writes its folder, unless that is there.

  Returns:
    Rows read and bytes read, 0 and 0 if there was nothing to do.
  """
  final = folder(work_dir, index)
  if (final / UNIT).exists():
    return 0, 0
  if final.exists():  # an object store renames file by file, and was stopped in between
    final.rmtree()
  job = job_at(work_dir)
  unit = job.units[index]
  report = ReadReport()
  without: set[str] = set()
  while True:
    temporary = storage.temporary(final)
    temporary.mkdir(parents=True)
    try:
      part = ReadReport()
      written = _read_unit(job, unit, temporary, part, without)
      report.merge(part)
      manifest = {**written, 'report': json.loads(report.to_json())}
      (temporary / UNIT).write_text(json.dumps(manifest, ensure_ascii=False, sort_keys=True))
      temporary.rename(final)
      return report.rows, sum(bytes_of(item) for item in unit)
    except _DamagedInputError as error:
      # It may show only at the end of the file, when its rows are written: the unit starts anew.
      without.add(error.name)
      report.add_file(error.name, str(error))
    finally:
      if temporary.exists():
        temporary.rmtree()


class _DamagedInputError(DamagedFileError):
  def __init__(self, name: str, detail: str):
    super().__init__(detail)
    self.name = name


def bytes_of(item: Input) -> int:
  """Bytes that reading an input takes, roughly for a parquet part."""
  part = item.part
  if part == records.WHOLE:
    return item.size
  if item.name.endswith(records.PARQUET):
    return min(item.size, UNIT_BYTES)
  return (item.size if part.end is None else part.end) - part.start


def _read_unit(
  job: BuildJob,
  unit: Sequence[Input],
  directory: epath.Path,
  report: ReadReport,
  without: Set[str],
) -> Mapping[str, Any]:
  source = layout(job.source)
  pieces = _Pieces(directory)
  try:
    for item in unit:
      if item.name in without:
        continue
      try:
        path = job.release.path(releases.ReleasedFile(item.name, item.size))
        for where, record in records.read(
          path, item.part, source.columns, records_are_lists=source.records_are_lists
        ):
          report.rows += 1
          _take(source, record, item, where, job.options, report, pieces)
      except (DamagedFileError, FileNotFoundError) as error:
        raise _DamagedInputError(item.name, str(error)) from error
  finally:
    written = pieces.close()
  return written


def _take(
  source: Layout,
  record: Any,
  item: Input,
  where: str,
  options: Options,
  report: ReadReport,
  pieces: _Pieces,
) -> None:
  """Writes the rows of a record, or says in the report what is wrong with it."""
  try:
    if isinstance(record, records.BadRecord):
      raise RowProblemError(record.kind, record.detail)
    found = list(source.to_rows(record, item, where, options))
    for _, row in found:
      if options.languages and row.language_code not in options.languages:
        raise FilteredRowError('language not asked for')
      rows.check(row, options.max_characters)
  except FilteredRowError as error:
    report.filtered[error.reason] += 1
  except RowProblemError as error:
    report.add_row(error.kind, item.name, where, error.detail)
  else:
    for place, row in found:
      pieces.write(place, row)
    report.kept += len(found)

"""A translation as a folder of work: its settings, its engines, and where its files are."""

import dataclasses
import functools
import hashlib
import json
import multiprocessing
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from aya_train.translation import ct2_engine, engine_languages, quality_gates, row_translation
from aya_train.translation.engines import Engine, Identity

JOB = 'job.json'
ROWS = 'rows'
UNITS = 'units'
ENGINES = ('ct2', 'identity')
_WORKER = re.compile(r'^SpawnProcess-(\d+)$')


@dataclasses.dataclass(frozen=True)
class EngineSpec:
  """What an engine is opened from, in whatever process.

  Attributes:
    kind: of `ENGINES`.
    options: keyword arguments of `ct2_engine.Ct2Engine`, and its folder.
    devices: device indices; a worker has one of them for all its units, where they are processes of
      `work_runner`; else unit i runs on the one at i modulo their number.
  """

  kind: str = 'identity'
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  devices: tuple[int, ...] = (0,)

  def open(self, unit: int = 0) -> Engine:
    """The engine, loaded once in each process and device."""
    worker = _WORKER.search(multiprocessing.current_process().name)
    number = int(worker[1]) - 1 if worker else unit
    index = self.devices[number % len(self.devices)]
    return _opened(self.kind, json.dumps(dict(self.options), sort_keys=True), index)


@functools.lru_cache(maxsize=4)
def _opened(kind: str, options: str, device_index: int) -> Engine:
  if kind == 'identity':
    return Identity()
  if kind != 'ct2':
    raise ValueError(f'--engine must be one of {ENGINES}, got {kind!r}')
  return ct2_engine.Ct2Engine(**json.loads(options), device_index=device_index)


@dataclasses.dataclass(frozen=True)
class Job:
  """All that decides the bytes of the units, and what engine gives them.

  Attributes:
    source: language of the rows.
    targets: languages asked for.
    units: files of rows.
    settings: of `row_translation`, with thresholds as a table.
    engine: how it is opened.
    made_with: `Engine.settings`, and under 'back' those of the way back.
    back: what translates back, None for nothing.
    rows: of all units.
    rows_of_unit: of each but the last.
    sample: rows that are drawn for a language, each language its own; 0 for all.
  """

  source: str
  targets: tuple[str, ...]
  units: int
  settings: Mapping[str, Any]
  engine: EngineSpec
  made_with: Mapping[str, Any]
  back: EngineSpec | None = None
  rows: int = 0
  rows_of_unit: int = 0
  sample: int = 0

  @property
  def is_sampled(self) -> bool:
    """Whether each language has rows of its own."""
    return 0 < self.sample < self.rows

  def to_json(self) -> str:
    return json.dumps(dataclasses.asdict(self), sort_keys=True, indent=1) + '\n'

  @classmethod
  def from_json(cls, text: str) -> 'Job':
    value = json.loads(text)
    engine, back = (
      spec and EngineSpec(spec['kind'], spec['options'], tuple(spec['devices']))
      for spec in (value.pop('engine'), value.pop('back'))
    )
    return cls(**{**value, 'targets': tuple(value['targets'])}, engine=engine, back=back)


def settings_of(table: Mapping[str, Any]) -> row_translation.Settings:
  """`row_translation.Settings` of a job's table.

  Raises:
    ValueError: thresholds that are none.
  """
  values = dict(table)
  thresholds = quality_gates.thresholds_of(values.pop('thresholds', {}))
  if 'columns' in values:
    values['columns'] = tuple(values['columns'])
  return row_translation.Settings(**values, thresholds=thresholds)


def rows_file(folder: epath.PathLike, unit: int) -> epath.Path:
  """The rows of a unit, in the language that they are translated from."""
  return epath.Path(folder) / ROWS / f'{unit:05d}.jsonl'


def unit_file(folder: epath.PathLike, unit: int, target: str) -> epath.Path:
  """What became of them in a language: a line a row, then one of counts."""
  return epath.Path(folder) / UNITS / target / f'{unit:05d}.jsonl'


def source_code(job: Job) -> str:
  """ISO 639-3 of the rows' language."""
  return engine_languages.spoken(job.source, 'prompted', ()).code


def settings_of_engines(engine: Engine, back: Engine | None) -> dict[str, Any]:
  """What decides the output of a job's engines, as JSON."""
  return {**engine.settings(), **({'back': dict(back.settings())} if back else {})}


@functools.lru_cache(maxsize=2)
def at(folder: str) -> Job:
  """The job of a folder of work."""
  return Job.from_json((epath.Path(folder) / JOB).read_text())


@dataclasses.dataclass(frozen=True)
class Opened:
  """What a unit is translated with.

  Attributes:
    engine: that does.
    source, into: languages as it has them.
    way_back: None where nothing is translated back.
  """

  engine: Engine
  source: engine_languages.Named
  into: engine_languages.Named
  way_back: row_translation.WayBack | None


def opened(folder: str, unit: int, target: str) -> Opened:
  """The engines of a job, for a unit and a language.

  Raises:
    ValueError: the engine that was opened here is another one than the job's.
  """
  job = at(folder)
  engine = job.engine.open(unit)
  back = None if job.back is None else job.back.open(unit)
  if (found := settings_of_engines(engine, back)) != dict(job.made_with):
    raise ValueError(
      f'{folder} was begun with {dict(job.made_with)}, and the engine is now {found}: go on with '
      'that one, or give another --output'
    )
  source = engine.spoken(job.source)
  (into,) = engine.languages([target])
  if back is None:
    return Opened(engine, source, into, None)
  (home,) = back.languages([job.source])
  return Opened(engine, source, into, row_translation.WayBack(back, back.spoken(target), home))


def rows_of(folder: str, unit: int, target: str) -> list[dict[str, Any]]:
  """The rows of a unit that are translated into a language: all, or those drawn for it."""
  job = at(folder)
  rows = [json.loads(line) for line in rows_file(folder, unit).read_bytes().split(b'\n') if line]
  if not job.is_sampled:
    return rows
  chosen = drawn(job.rows, job.sample, target)
  first = unit * job.rows_of_unit
  return [row for number, row in enumerate(rows, first) if number in chosen]


@functools.lru_cache(maxsize=4)
def drawn(rows: int, sample: int, target: str) -> frozenset[int]:
  """Numbers of the rows, from 0, that are drawn for a language; the same on every machine."""
  seed = int.from_bytes(hashlib.blake2b(target.encode(), digest_size=4).digest(), 'little')
  return frozenset(np.random.RandomState(seed).permutation(rows)[:sample].tolist())


def read(path: epath.Path) -> tuple[list[dict[str, Any]], row_translation.Counts]:
  """Results and counts of a unit's file.

  Raises:
    ValueError: the file is damaged.
  """
  results, _, end = path.read_bytes().removesuffix(b'\n').rpartition(b'\n')
  try:
    *lines, last = (json.loads(line) for line in [*results.split(b'\n'), end] if line)
    told = last.get('sha256')  # not in those of earlier versions
    if told is not None and told != _digest(results, last['counts']):
      raise ValueError('it is not what was written')
    return lines, row_translation.Counts.from_json(last['counts'])
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f'{path} is damaged ({error!r}): remove it and give the command again'
    ) from error


def to_unit(lines: Sequence[Mapping[str, Any]], counts: row_translation.Counts) -> str:
  """What a unit's file holds: a line each, and last its counts and a SHA-256 of all of this."""
  results, found = '\n'.join(map(to_line, lines)), counts.to_json()
  end = to_line({'counts': found, 'sha256': _digest(results.encode(), found)})
  return f'{results}\n{end}\n' if lines else f'{end}\n'


def _digest(results: bytes, counts: Mapping[str, Any]) -> str:
  return hashlib.sha256(results + to_line(counts).encode()).hexdigest()


def to_line(value: Any) -> str:
  """One line of JSON with sorted keys; escaped where it holds what is no UTF-8."""
  line = json.dumps(value, ensure_ascii=False, sort_keys=True)
  return line if line.isascii() or is_utf8(line) else json.dumps(value, sort_keys=True)


def is_utf8(text: str) -> bool:
  """Whether a text can be written in UTF-8: it holds no lone surrogate."""
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return True

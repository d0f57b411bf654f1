"""A data set into many languages: rows divided, units run, and what comes of them written.

A run that was killed goes on when it is given again, to the same bytes; languages may be added to a
finished one.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import lease
from aya_train.tasks import storage
from aya_train.tasks.building import work_runner
from aya_train.translation import (
  documents,
  engine_languages,
  model_licenses,
  row_translation,
  scorers,
  translation_output,
  translation_units,
)
from aya_train.translation.engines import Engine
from aya_train.translation.translation_output import Source
from aya_train.translation.translation_units import EngineSpec, Job

logger = logging.getLogger(__name__)

WORK = 'in_progress'
_SAMPLED_ROWS = 100
_SAMPLE = 64  # sentences whose time is measured for the estimate


@dataclasses.dataclass(frozen=True)
class Rights:
  """Licenses that are not the source's.

  Attributes:
    model: of the weights; '' for that of the family's release.
    scorer: of the scorer.
    policy: use class that all must admit; '' for any.
  """

  model: str = ''
  scorer: str = ''
  policy: str = ''


@dataclasses.dataclass(frozen=True)
class Estimate:
  """What the work will take, by the first rows and a timed sample of them.

  Attributes:
    units: of work that are not done.
    tokens: to translate, in the engine's tokens.
    rate: tokens a second, of one worker.
    workers: at once.
    price: of an hour of all workers' devices, None where nobody said.
  """

  units: int
  tokens: int
  rate: float
  workers: int
  price: float | None

  @property
  def hours(self) -> float:
    """Of the whole work."""
    return self.tokens / max(self.rate, 1e-6) / 3600 / self.workers

  def __str__(self) -> str:
    cost = '' if self.price is None else f', about {self.hours * self.price:,.2f} at {self.price}/h'
    each = f' x {self.workers} workers' if self.workers > 1 else ''
    return (
      f'{self.units:,} units of work, about {self.tokens:,} tokens to translate; at '
      f'{self.rate:,.0f} tokens/s of a first batch{each} {self.hours:,.2f} hours{cost}'
    )


def translate(
  rows: Iterable[Mapping[str, Any]],
  source: Source,
  targets: Sequence[str],
  output: epath.PathLike,
  engine: EngineSpec,
  *,
  back: EngineSpec | None = None,
  settings: Mapping[str, Any] | None = None,
  rights: Rights = Rights(),
  rows_of_unit: int = 1_000,
  sample: int = 0,
  workers: int = 1,
  runner: work_runner.Runner | None = None,
  price: float | None = None,
  dry_run: bool = False,
  progress: Callable[[str], None] | None = None,
) -> Mapping[str, Any]:
  """Translates rows into languages, or goes on where a kill ended it.

  Args:
    rows: with the columns that the settings name.
    source: what they are.
    targets: codes of languages; those of the folder's earlier commands stay.
    output: new folder, or one of the same command before.
    engine: that translates.
    back: what translates back, for the gate of that name; None without it.
    settings: keyword arguments of `row_translation.Settings`, thresholds as a table.
    rights: licenses, and the policy that they and the source's are held against.
    rows_of_unit: of a piece of work. Sentences are translated once within a unit.
    sample: rows that are drawn for each language, a different sample for each; 0 for all.
    workers: for the estimate, and of `runner` unless one is given.
    runner: where units run.
    price: of an hour, for the estimate.
    dry_run: stop after the estimate.
    progress: called with a line now and then; default: the log.

  Returns:
    The report (`translation_output`); {} of a dry run.

  Raises:
    ValueError: a language that the model lacks, a license that the policy does not admit or that
      nobody knows, rows without the columns, no rows, or an output of other settings.
  """
  say = progress or logger.info
  output = epath.Path(output)
  if rows_of_unit < 1:
    raise ValueError(f'--rows_of_unit must be at least 1, got {rows_of_unit}')
  if sample < 0:
    raise ValueError(f'--sample must be at least 1, got {sample}')
  run_units = runner or work_runner.processes(workers)
  opened = engine.open()
  opened_back = None if back is None else back.open()
  license_name = model_licenses.of_model(opened.family, engine.kind, rights.model)
  settings = dict(settings or {})
  _check(source, targets, opened, opened_back, license_name, rights, settings)
  made_with = translation_units.settings_of_engines(opened, opened_back)
  job = Job(
    source.language,
    tuple(targets),
    0,
    settings,
    engine,
    made_with,
    back,
    rows_of_unit=rows_of_unit,
    sample=sample,
  )
  work = output / WORK
  with lease.held(work, '--output', 'translate'):
    job, finished = _begin(rows, source, job, work)
    if finished:
      return json.loads((output / translation_output.REPORT).read_text())
    named = {n.asked: n for n in opened.languages(job.targets)}
    pieces = [(str(work), unit, target) for target in job.targets for unit in range(job.units)]
    todo = [p for p in pieces if not translation_units.unit_file(*p).exists()]
    if len(todo) < len(pieces):
      say(f'{len(pieces) - len(todo):,} of {len(pieces):,} units were done before')
    if todo:
      say(str(_estimate(job, work, opened, todo, workers, price)))
    if dry_run:
      return {}
    _run(todo, run_units, say)
    return translation_output.finish(output, work, job, source, named, license_name, rights.scorer)


def _check(
  source: Source,
  targets: Sequence[str],
  engine: Engine,
  back: Engine | None,
  license_name: str,
  rights: Rights,
  settings: Mapping[str, Any],
) -> None:
  """Refuses before anything is written what would fail or must not be."""
  if not targets:
    raise ValueError('--to: name at least one language')
  named = engine.languages(targets)
  spoken = engine.spoken(source.language)
  if same := [n.asked for n in named if (n.code, n.script) == (spoken.code, spoken.script)]:
    raise ValueError(f'--to {same[0]}: the source is in that language')
  if back is not None:
    back.languages([source.language])
    for target in targets:
      back.spoken(target)
  scorer = translation_units.settings_of(settings).scorer
  if scorer:
    if not rights.scorer:
      raise ValueError(f'--scorer {scorer}: name its license with --scorer_license')
    scorers.load(scorer)
  model_licenses.check(
    [
      (f'the source {source.name}', source.license),
      (f'the model {engine.name}', license_name),
      (f'the scorer {scorer}', rights.scorer),
    ],
    rights.policy,
  )


def _begin(
  rows: Iterable[Mapping[str, Any]],
  source: Source,
  job: Job,
  work: epath.Path,
) -> tuple[Job, bool]:
  """Writes the rows of the units and the job; or finds them, the same, and adds languages.

  Returns:
    The job, and whether all of it is finished.

  Raises:
    ValueError: the folder is of another job, or there are no rows.
  """
  columns = translation_units.settings_of(job.settings).columns
  work.mkdir(parents=True, exist_ok=True)
  path = work / translation_units.JOB
  begun = path.exists()
  unit = 0
  held: list[str] = []

  def put() -> None:
    file = translation_units.rows_file(work, unit)
    text = ''.join(held)
    if begun and (not file.exists() or file.read_bytes() != text.encode()):
      raise ValueError(f'{work.parent} holds a translation of other rows: give another --output')
    if not begun:
      file.parent.mkdir(parents=True, exist_ok=True)
      storage.write_atomically(file, text)

  number = 0
  for number, row in enumerate(rows, 1):
    if bad := [c for c in columns if c not in row or not isinstance(row[c], str | None)]:
      raise ValueError(
        f'{source.name}, row {number}: no text in {bad}, which --columns names; it has '
        f'{sorted(row)}'
      )
    held.append(translation_units.to_line(dict(row)) + '\n')
    if len(held) == job.rows_of_unit:
      put()
      unit, held = unit + 1, []
  if held:
    put()
    unit += 1
  if not number:
    raise ValueError(f'{source.name} has no rows in {source.language}')
  job = dataclasses.replace(job, units=unit, rows=number)
  if not begun:
    storage.write_atomically(path, job.to_json())
    return job, False
  before = Job.from_json(path.read_text())
  # Languages may be added, and devices be others; what decides the bytes of a unit may not.
  if dataclasses.replace(before, targets=job.targets, engine=job.engine, back=job.back) != job:
    raise ValueError(
      f'{work.parent} holds a translation with other settings: give another --output'
    )
  targets = tuple(dict.fromkeys([*before.targets, *job.targets]))
  job = dataclasses.replace(job, targets=targets)
  manifest = work.parent / translation_output.MANIFEST
  if manifest.exists() and targets == before.targets:
    return job, True
  manifest.unlink(missing_ok=True)
  storage.write_atomically(path, job.to_json())
  return job, False


def _estimate(
  job: Job,
  work: epath.Path,
  engine: Engine,
  todo: Sequence[tuple],
  workers: int,
  price: float | None,
) -> Estimate:
  settings = translation_units.settings_of(job.settings)
  rows_file = translation_units.rows_file
  lines = rows_file(work, todo[0][1]).read_bytes().split(b'\n')[:_SAMPLED_ROWS]
  rows = [json.loads(line) for line in lines if line]
  text_of = row_translation.text_of
  unique = list(
    dict.fromkeys(
      sentence
      for row in rows
      for column in settings.columns
      for sentence in documents.sentences_of(documents.pieces(text_of(row, column), job.source))
    )
  )
  sampled = sum(len(line) + 1 for line in lines)
  size = sum(rows_file(work, unit).stat().length for _, unit, _ in todo)
  share = min(job.sample / job.rows, 1.0) if job.sample else 1.0
  tokens = int(sum(engine.lengths(unique)) * size / max(sampled, 1) * share)
  sample = unique[:_SAMPLE]
  (into,) = engine.languages([todo[0][2]])
  source = engine.spoken(job.source)
  return Estimate(len(todo), tokens, _rate(engine, sample, source, into), workers, price)


def _rate(
  engine: Engine,
  sample: Sequence[str],
  source: engine_languages.Named,
  target: engine_languages.Named,
) -> float:
  """Tokens of the source that are translated in a second; the first sentence warms up."""
  if not sample:
    return 1.0
  engine.translate(sample[:1], source, target)
  began = time.monotonic()
  engine.translate(sample, source, target)
  return sum(engine.lengths(sample)) / max(time.monotonic() - began, 1e-6)


def _run(
  todo: Sequence[tuple[str, int, str]], runner: work_runner.Runner, say: Callable[[str], None]
) -> None:
  began, told, rows, tokens = time.monotonic(), 0.0, 0, 0
  for done, result in enumerate(runner(translation_units.run, todo), 1):
    rows, tokens = (rows, tokens) if result is None else (rows + result[0], tokens + result[1])
    seconds = time.monotonic() - began
    if seconds - told > 10 or done == len(todo):
      told = seconds
      left = seconds / done * (len(todo) - done)
      rates = f', {rows:,} rows, {tokens / max(seconds, 1e-6):,.0f} tokens/s' if rows else ''
      say(f'{done:,} of {len(todo):,} units{rates}, {left / 60:,.1f} min left')

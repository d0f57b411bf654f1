"""A data set into many languages: rows divided, units run, and what comes of them written.

A run that was killed goes on when it is given again, to the same bytes; languages may be added to a
finished one.
"""

import collections
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
  engine_languages,
  model_licenses,
  repeated_sentences,
  scorers,
  translation_jobs,
  translation_output,
  translation_units,
)
from aya_train.translation.engines import Engine
from aya_train.translation.translation_jobs import EngineSpec, Job
from aya_train.translation.translation_output import Source

logger = logging.getLogger(__name__)

WORK = 'in_progress'
_SAMPLED = 1_000  # sentences whose tokens are counted for the estimate
_SAMPLE = 64  # of these, whose time is measured
_Piece = tuple[str, int, str]  # folder, number of a unit, language


@dataclasses.dataclass(frozen=True)
class Rights:
  """Licences that are not the source's.

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
  """What the work will take, by its characters and a timed sample.

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
    rights: licences, and the policy that they and the source's are held against.
    rows_of_unit: of a piece of work.
    sample: rows that are drawn for each language, a different sample for each; 0 for all.
    workers: for the estimate, and of `runner` unless one is given.
    runner: where units run.
    price: of an hour, for the estimate.
    dry_run: stop after the estimate.
    progress: called with a line now and then; default: the log.

  Returns:
    The report (`translation_output`); {} of a dry run.

  Raises:
    ValueError: a language that the model lacks, a licence that the policy does not admit or that
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
  made_with = translation_jobs.settings_of_engines(opened, opened_back)
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
    todo = _todo(job, work, run_units, say)
    if any(todo):
      say(str(_estimate(job, work, opened, todo, workers, price)))
    if dry_run:
      return {}
    _run(repeated_sentences.run, todo[0], run_units, say, 'units of repeated sentences')
    _run(translation_units.run, todo[1], run_units, say, 'units of rows')
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
  scorer = translation_jobs.settings_of(settings).scorer
  if scorer:
    if not rights.scorer:
      raise ValueError(f'--scorer {scorer}: name its licence with --scorer_license')
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
  columns = translation_jobs.settings_of(job.settings).columns
  work.mkdir(parents=True, exist_ok=True)
  path = work / translation_jobs.JOB
  begun = path.exists()
  unit = 0
  held: list[str] = []

  def put() -> None:
    file = translation_jobs.rows_file(work, unit)
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
    held.append(translation_jobs.to_line(dict(row)) + '\n')
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


def _todo(
  job: Job, work: epath.Path, run_units: work_runner.Runner, say: Callable[[str], None]
) -> tuple[list[_Piece], list[_Piece]]:
  """Units that are left, of repeated sentences and of rows; for that the rows are cut."""
  indices = {}
  for group in repeated_sentences.groups(job):
    left = [
      (str(work), unit, group)
      for unit in range(job.units)
      if not repeated_sentences.cut_file(work, unit, group).exists()
    ]
    if left:
      collections.deque(run_units(repeated_sentences.cut, left), 0)
    indices[group] = found = repeated_sentences.gather(work, job, group)
    if found.sentences:
      say(
        f'{found.sentences:,} sentences stand in several units, {found.times:,} times: each is '
        f'translated once{"" if group == repeated_sentences.ALL else f" ({group})"}'
      )
  repeated, rows = [], []
  for target in job.targets:
    units = len(indices[repeated_sentences.group(job, target)].repeated)
    repeated += [(str(work), unit, target) for unit in range(units)]
    rows += [(str(work), unit, target) for unit in range(job.units)]
  todo = (
    [p for p in repeated if not repeated_sentences.unit_file(*p).exists()],
    [p for p in rows if not translation_jobs.unit_file(*p).exists()],
  )
  every, left_over = len(repeated) + len(rows), sum(map(len, todo))
  if left_over < every:
    say(f'{every - left_over:,} of {every:,} units were done before')
  return todo


def _estimate(
  job: Job,
  work: epath.Path,
  engine: Engine,
  todo: tuple[Sequence[_Piece], Sequence[_Piece]],
  workers: int,
  price: float | None,
) -> Estimate:
  (_, unit, target) = (*todo[1], *todo[0])[0]
  sample = repeated_sentences.examples(work, unit, repeated_sentences.group(job, target), _SAMPLED)
  left = 0
  for kind, pieces in zip(('repeated', 'own'), todo, strict=True):
    for _, unit, into_ in pieces:
      index = repeated_sentences.gather(work, job, repeated_sentences.group(job, into_))
      left += getattr(index, kind)[unit]
  tokens = int(sum(engine.lengths(sample)) * left / max(sum(map(len, sample)), 1))
  (into,) = engine.languages([target])
  source = engine.spoken(job.source)
  rate = _rate(engine, sample[:_SAMPLE], source, into)
  return Estimate(sum(map(len, todo)), tokens, rate, workers, price)


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
  function: Callable[..., tuple[int, int]],
  todo: Sequence[_Piece],
  runner: work_runner.Runner,
  say: Callable[[str], None],
  what: str,
) -> None:
  if not todo:
    return
  began, told, rows, tokens = time.monotonic(), 0.0, 0, 0
  for done, result in enumerate(runner(function, todo), 1):
    rows, tokens = (rows, tokens) if result is None else (rows + result[0], tokens + result[1])
    seconds = time.monotonic() - began
    if seconds - told > 10 or done == len(todo):
      told = seconds
      left = seconds / done * (len(todo) - done)
      rates = f', {rows:,} rows, {tokens / max(seconds, 1e-6):,.0f} tokens/s' if rows else ''
      say(f'{done:,} of {len(todo):,} {what}{rates}, {left / 60:,.1f} min left')

"""A data set into many languages: rows divided, units run, files by language, a report, a table.

The folder that comes out is a user's data set: `datasets.toml` in it is a table for
DATASET_TABLES, with the licences of the source and of the model.
"""

import dataclasses
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from aya_train.tasks import storage
from aya_train.tasks.building import work_runner
from aya_train.tasks.languages import aya101
from aya_train.tasks.rights import licenses
from aya_train.translation import row_translation, translation_units
from aya_train.translation.translation_units import EngineSpec, Job

logger = logging.getLogger(__name__)

MANIFEST = 'manifest.json'
REPORT = 'report.json'
TABLE = 'datasets.toml'
WORK = 'in_progress'
_SAMPLE = 2_000  # sentences whose time is measured for the estimate
_EXAMPLES = 3

MODEL_LICENSES = {'nllb': 'CC BY-NC 4.0', 'madlad': 'Apache License 2.0', 'm2m100': 'MIT License'}
"""Of the released weights: the model cards of facebook/nllb-200-3.3B, google/madlad400-3b-mt and
facebook/m2m100_1.2B."""


@dataclasses.dataclass(frozen=True)
class Source:
  """What is translated.

  Attributes:
    name: of the data set.
    language: of its rows.
    license: by name, several between ';'.
    attribution: whom to name.
    model_generated_by: models that wrote text of it already.
  """

  name: str
  language: str
  license: str
  attribution: str = ''
  model_generated_by: str = ''


def translate(
  rows: Iterable[Mapping[str, Any]],
  source: Source,
  targets: Sequence[str],
  output: epath.PathLike,
  engine: EngineSpec,
  *,
  settings: Mapping[str, Any] | None = None,
  model_license: str = '',
  policy: str = '',
  rows_of_unit: int = 1_000,
  runner: work_runner.Runner = work_runner.here,
  progress: Callable[[str], None] | None = None,
) -> Mapping[str, Any]:
  """Translates rows into languages, or goes on where a kill ended it.

  Args:
    rows: with the columns that the settings name.
    source: what they are.
    targets: codes of languages.
    output: new folder, or one of the same command before.
    engine: that translates.
    settings: keyword arguments of `row_translation.Settings`, thresholds as a table.
    model_license: of the weights; by default that of the family's release.
    policy: use class that source and model must admit; '' for no check.
    rows_of_unit: of a piece of work. Sentences are translated once within a unit.
    runner: where units run.
    progress: called with a line now and then; default: the log.

  Returns:
    The report: counts by language.

  Raises:
    ValueError: a language that the model lacks, a licence that the policy does not admit or that
      nobody knows, rows without the columns, no rows, or an output of other settings.
  """
  say = progress or logger.info
  output = epath.Path(output)
  opened = engine.open()
  named = opened.languages(targets)
  opened.languages([source.language])
  license_name = model_license or MODEL_LICENSES.get(opened.family, '')
  _check_rights(source, opened.family, engine, license_name, policy)
  translation_units.settings_of(settings or {})
  work = output / WORK
  job = _begin(rows, source, targets, work, engine, settings or {}, opened.settings(), rows_of_unit)
  if (output / MANIFEST).exists():
    return json.loads((output / REPORT).read_text())
  pieces = [(str(work), unit, target) for target in targets for unit in range(job.units)]
  todo = [p for p in pieces if not translation_units.unit_file(*p).exists()]
  if todo:
    say(_estimate(job, work, opened, todo))
  _run(todo, runner, say)
  report = _finish(output, work, job, source, {n.asked: n for n in named}, license_name)
  return report


def _check_rights(
  source: Source, family: str, engine: EngineSpec, license_name: str, policy: str
) -> None:
  if engine.kind != 'identity' and not license_name:
    raise ValueError(f'a model of the family {family} has no licence known here: --model_license')
  for name in [*source.license.split(';'), *([license_name] if license_name else [])]:
    rights = licenses.classify(name.strip())
    if policy and not licenses.admits(policy, rights.use):
      raise ValueError(
        f'{name.strip()} is {rights.use}, and the policy is {policy!r}: take another model '
        '(MADLAD-400 is under the Apache License 2.0), other data, or the policy that your use '
        'allows'
      )


def _begin(
  rows: Iterable[Mapping[str, Any]],
  source: Source,
  targets: Sequence[str],
  work: epath.Path,
  engine: EngineSpec,
  settings: Mapping[str, Any],
  made_with: Mapping[str, Any],
  rows_of_unit: int,
) -> Job:
  """Writes the rows of the units and the job; or finds them, the same.

  Raises:
    ValueError: the folder is of another job, or there are no rows.
  """
  columns = translation_units.settings_of(settings).columns
  work.mkdir(parents=True, exist_ok=True)
  unit = 0
  held: list[dict[str, Any]] = []
  changed = f'{work.parent} holds a translation of other rows: give another --output'
  begun = (work / translation_units.JOB).exists()

  def put() -> None:
    path = translation_units.rows_file(work, unit)
    text = ''.join(json.dumps(r, ensure_ascii=False, sort_keys=True) + '\n' for r in held)
    if begun and (not path.exists() or path.read_bytes() != text.encode()):
      raise ValueError(changed)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not begun:
      storage.write_atomically(path, text)

  number = 0
  for number, row in enumerate(rows, 1):
    if bad := [c for c in columns if not isinstance(row.get(c), str)]:
      raise ValueError(f'{source.name}, row {number}: no text in {bad}; it has {sorted(row)}')
    held.append(dict(row))
    if len(held) == rows_of_unit:
      put()
      unit, held = unit + 1, []
  if held:
    put()
    unit += 1
  if not number:
    raise ValueError(f'{source.name} has no rows')
  job = Job(source.language, tuple(targets), unit, dict(settings), engine, dict(made_with))
  path = work / translation_units.JOB
  if not begun:
    storage.write_atomically(path, job.to_json())
  else:
    before = Job.from_json(path.read_text())
    # Languages may be added, and devices be others; what decides the bytes of a unit may not.
    same = dataclasses.replace(before, targets=job.targets, engine=job.engine) == job
    finished = (work.parent / MANIFEST).exists()
    if not same or (finished and before.targets != job.targets):
      raise ValueError(
        f'{work.parent} holds a translation with other settings: give another --output'
      )
    storage.write_atomically(path, job.to_json())
  return job


def _estimate(job: Job, work: epath.Path, engine: Any, todo: Sequence[tuple]) -> str:
  """What the work will take, by the tokens of the first unit and a timed sample of it."""
  from aya_train.translation import documents

  settings = translation_units.settings_of(job.settings)
  text = translation_units.rows_file(work, 0).read_bytes()
  rows = [json.loads(line) for line in text.split(b'\n') if line][:100]
  found = [
    sentence
    for row in rows
    for column in settings.columns
    for sentence in documents.sentences_of(documents.pieces(row[column], job.source))
  ]
  unique = list(dict.fromkeys(found))[:_SAMPLE]
  tokens = sum(engine.lengths(unique))
  size = sum(translation_units.rows_file(work, u).stat().length for _, u, _ in todo)
  sampled = sum(len(json.dumps(r, ensure_ascii=False, sort_keys=True).encode()) + 1 for r in rows)
  total = int(tokens * size / max(sampled, 1))
  sample = unique[:32]
  (into,) = engine.languages([job.targets[0]])
  (source,) = engine.languages([job.source])
  began = time.monotonic()
  if sample:
    engine.translate(sample, source, into)
  seconds = max(time.monotonic() - began, 1e-6)
  rate = sum(engine.lengths(sample)) / seconds
  return (
    f'{len(todo):,} units, about {total:,} tokens to translate; at {rate:,.0f} tokens/s of a first '
    f'batch {total / max(rate, 1e-6) / 3600:,.2f} hours of one worker'
  )


def _run(
  todo: Sequence[tuple[str, int, str]], runner: work_runner.Runner, say: Callable[[str], None]
) -> None:
  began, told, tokens = time.monotonic(), 0.0, 0
  for done, result in enumerate(runner(translation_units.run, todo), 1):
    tokens += 0 if result is None else result[1]
    seconds = time.monotonic() - began
    if seconds - told > 10 or done == len(todo):
      told = seconds
      left = seconds / done * (len(todo) - done)
      say(
        f'{done:,} of {len(todo):,} units, {tokens / max(seconds, 1e-6):,.0f} tokens/s, '
        f'{left / 60:,.1f} min left'
      )


def _finish(
  output: epath.Path,
  work: epath.Path,
  job: Job,
  source: Source,
  named: Mapping[str, Any],
  license_name: str,
) -> Mapping[str, Any]:
  """Writes the files by language, and what is said of them; the manifest last."""
  languages = {}
  for target in job.targets:
    counts = row_translation.Counts()
    ratios: list[float] = []
    accepted: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    examples: list[dict[str, Any]] = []
    for unit in range(job.units):
      results, of_unit = translation_units.read(translation_units.unit_file(work, unit, target))
      counts.add(of_unit)
      for result in results:
        ratios.append(result['ratio'])
        (rejected if result['reason'] else accepted).append(result)
        if not result['reason'] and len(examples) < _EXAMPLES:
          examples.append(result)
    _write(output / 'data' / f'{target}.jsonl', (r['row'] for r in accepted))
    _write(output / 'rejects' / f'{target}.jsonl', rejected)
    languages[target] = {
      **counts.to_json(),
      'code': named[target].code,
      'script': named[target].script,
      'token': named[target].token,
      'ratio': _quantiles(ratios),
      'examples': [{'source': r['source'], 'row': r['row']} for r in examples],
    }
  totals: Counter[str] = Counter()
  for each in languages.values():
    totals.update(each['rejected'])
  report = {'languages': languages, 'rejected': dict(sorted(totals.items()))}
  storage.write_atomically(output / REPORT, _json(report))
  storage.write_atomically(output / TABLE, _table(source, job, license_name, languages))
  manifest = {
    'source': dataclasses.asdict(source),
    'translated_by': {**job.made_with, 'license': license_name},
    'settings': job.settings,
    'languages': {
      t: {k: v[k] for k in ('code', 'script', 'rows', 'accepted')} for t, v in languages.items()
    },
  }
  storage.write_atomically(output / MANIFEST, _json(manifest))
  return report


def _json(value: Any) -> str:
  return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + '\n'


def _write(path: epath.Path, records: Iterable[Mapping[str, Any]]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  lines = (json.dumps(r, ensure_ascii=False, sort_keys=True) + '\n' for r in records)
  storage.write_atomically(path, ''.join(lines))


def _quantiles(values: Sequence[float]) -> dict[str, float]:
  ordered = sorted(values)
  return {f'p{p}': ordered[min(len(ordered) - 1, len(ordered) * p // 100)] for p in (5, 50, 95)}


def _table(
  source: Source, job: Job, license_name: str, languages: Mapping[str, Mapping[str, Any]]
) -> str:
  """The table of user data sets; one without a row of a language leaves it out."""
  model = job.made_with.get('model', job.made_with['engine'])
  names = '; '.join(x for x in (source.model_generated_by, model) if x)
  terms = '; '.join(dict.fromkeys(x for x in (source.license, license_name) if x))
  rows = []
  for target, counts in languages.items():
    if not counts['accepted']:
      continue
    described = aya101.described(counts['code'])
    values = {
      'name': f'{source.name}.{target}',
      'files': f'data/{target}.jsonl',
      'language': f'{counts["code"]}_{counts["script"]}',
      'license': terms,
      'attribution': source.attribution,
      'model_generated_by': names,
      'terms': f'translated into {described} by {model}',
    }
    lines = [f'{k} = {json.dumps(v, ensure_ascii=False)}' for k, v in values.items() if v]
    rows.append('\n'.join(['[[dataset]]', *lines]))
  return '\n\n'.join(rows) + '\n'

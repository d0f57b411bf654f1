"""What a finished translation leaves: shards by language, rejects, a report, a table, a card.

The folder is a user's data set: `datasets.toml` in it is a table for DATASET_TABLES, with the
licences of the source and of the model.
"""

import collections
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from aya_train.tasks import storage
from aya_train.tasks.languages import aya101
from aya_train.translation import (
  repeated_sentences,
  row_translation,
  translated_shards,
  translation_jobs,
)
from aya_train.translation.engine_languages import Named
from aya_train.translation.translation_jobs import Job

MANIFEST = 'manifest.json'
REPORT = 'report.json'
TABLE = 'datasets.toml'
CARD = 'README.md'
REJECTS = 'rejects'
EXAMPLES = 3
"""Accepted rows of a language in the report, and rejected ones of each reason."""


@dataclasses.dataclass(frozen=True)
class Source:
  """What is translated.

  Attributes:
    name: of the data set.
    language: of its rows.
    license: by name, several between ';'.
    attribution: whom to name.
    model_generated_by: models that wrote text of it already.
    split: of it, and of what comes out.
    terms: other terms that bind.
    makes: name of what comes out, a task for each language and a mixture of them; '' for the name
      of the source and `_translated`.
  """

  name: str
  language: str
  license: str
  attribution: str = ''
  model_generated_by: str = ''
  split: str = 'train'
  terms: str = ''
  makes: str = ''

  @property
  def result(self) -> str:
    """Name of the mixture that comes out."""
    return re.sub(r'\W+', '_', self.makes or f'{self.name}_translated', flags=re.ASCII)


def finish(
  output: epath.Path,
  work: epath.Path,
  job: Job,
  source: Source,
  named: Mapping[str, Named],
  model_license: str,
  scorer_license: str = '',
) -> Mapping[str, Any]:
  """Writes all that a reader of the folder needs; the manifest last.

  Args:
    output: the folder.
    work: of the units, which are all there.
    job, source: what was done.
    named: languages by the code that was asked for.
    model_license, scorer_license: '' of none.

  Returns:
    The report.
  """
  survey = translated_shards.Survey()
  languages = {t: _language(output, work, job, source, named[t], survey) for t in job.targets}
  totals: collections.Counter[str] = collections.Counter()
  for each in languages.values():
    totals.update(each['rejected'])
  made_with = {
    **job.made_with,
    'license': model_license,
    **({'scorer': {'name': name, 'license': scorer_license}} if (name := _scorer(job)) else {}),
  }
  report = {
    'name': source.result,
    'source': dataclasses.asdict(source),
    'translated_by': made_with,
    'columns': list(translation_jobs.settings_of(job.settings).columns),
    'rejected': dict(sorted(totals.items())),
    'languages': languages,
  }
  splits = {_split(source, target): target for target in job.targets}
  terms = licenses_of(source, model_license)
  lengths: dict[str, list[int]] = {}
  if survey.rows:
    lengths = translated_shards.write(
      output,
      source.result,
      survey,
      lambda split: (
        result['row'] for result in _results(work, job, splits[split]) if not result['reason']
      ),
      description=f'{source.name}, translated by {model_of(job)}',
      license_name=terms,
    )
    storage.write_atomically(output / TABLE, _table(source, job, terms, languages))
  storage.write_atomically(output / REPORT, _json(report))
  storage.write_atomically(output / CARD, _card(source, job, made_with, terms, languages))
  manifest = {
    'name': source.result,
    'source': report['source'],
    'translated_by': made_with,
    'settings': job.settings,
    'version': translated_shards.VERSION,
    'columns': survey.kinds,
    'splits': {
      split: {
        'language': languages[target]['code'],
        'script': languages[target]['script'],
        'rows': sum(lengths[split]),
        'shard_lengths': lengths[split],
        'rejected': sum(languages[target]['rejected'].values()),
      }
      for split, target in splits.items()
      if split in lengths
    },
    'without_rows': [t for split, t in splits.items() if split not in lengths],
  }
  storage.write_atomically(output / MANIFEST, _json(manifest))
  return report


def model_of(job: Job) -> str:
  """Name of what translated."""
  return str(job.made_with.get('model', job.made_with['engine']))


def licenses_of(source: Source, model_license: str) -> str:
  """Licences of what comes out, each once, between ';'."""
  return '; '.join(
    dict.fromkeys(
      part.strip() for part in f'{source.license};{model_license}'.split(';') if part.strip()
    )
  )


def _scorer(job: Job) -> str:
  return translation_jobs.settings_of(job.settings).scorer


def _split(source: Source, target: str) -> str:
  return f'{source.split}_{_word(target)}'


def _word(code: str) -> str:
  """A code as names of tasks and splits have it: 'arz_Arab', '<2yo>' -> '2yo'."""
  return re.sub(r'\W+', '_', code).strip('_')


def _results(work: epath.Path, job: Job, target: str) -> Iterator[dict[str, Any]]:
  for unit in range(job.units):
    yield from translation_jobs.read(translation_jobs.unit_file(work, unit, target))[0]


def _language(
  output: epath.Path,
  work: epath.Path,
  job: Job,
  source: Source,
  named: Named,
  survey: translated_shards.Survey,
) -> dict[str, Any]:
  """Figures of a language; its rejects are written, its accepted rows surveyed."""
  counts = row_translation.Counts()
  figures: dict[str, list[float]] = collections.defaultdict(list)
  examples: list[dict[str, Any]] = []
  refused: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
  for _, of_repeated in repeated_sentences.results(work, job, named.asked):
    counts.add(of_repeated)
  path = output / REJECTS / f'{_word(named.asked)}.jsonl'
  path.parent.mkdir(parents=True, exist_ok=True)
  storage.remove_leftovers(path.parent)
  partial = storage.temporary(path)
  with partial.open('w') as file:
    for unit in range(job.units):
      results, of_unit = translation_jobs.read(translation_jobs.unit_file(work, unit, named.asked))
      counts.add(of_unit)
      for result in results:
        for name in ('ratio', 'chrf', 'score'):
          if name in result:
            figures[name].append(result[name])
        if reason := result['reason']:
          file.write(translation_jobs.to_line(result) + '\n')
          if len(refused[reason]) < EXAMPLES:
            refused[reason].append(_example(result, job))
        else:
          survey.add(_split(source, named.asked), result['row'], len(json.dumps(result['row'])))
          if len(examples) < EXAMPLES:
            examples.append(_example(result, job))
  partial.replace(path)
  return {
    **counts.to_json(),
    'code': named.code,
    'script': named.script,
    'token': named.token,
    **{name: _quantiles(values) for name, values in figures.items()},
    'examples': examples,
    'rejected_examples': dict(sorted(refused.items())),
  }


def _example(result: Mapping[str, Any], job: Job) -> dict[str, Any]:
  columns = translation_jobs.settings_of(job.settings).columns
  return {
    'source': {c: result['source'][c] for c in columns},
    'translation': {c: result['row'][c] for c in columns},
    **({'where': result['where']} if result['where'] else {}),
  }


def _json(value: Any) -> str:
  return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=not _plain(value)) + '\n'


def _plain(value: Any) -> bool:
  return translation_jobs.is_utf8(json.dumps(value, ensure_ascii=False))


def _quantiles(values: Sequence[float]) -> dict[str, float]:
  ordered = sorted(values)
  return {f'p{p}': ordered[min(len(ordered) - 1, len(ordered) * p // 100)] for p in (5, 50, 95)}


def task_name(source: Source, target: str) -> str:
  """Of the SeqIO task of a language."""
  return f'{source.result}.{_word(target)}'


def _table(source: Source, job: Job, terms: str, languages: Mapping[str, Mapping[str, Any]]) -> str:
  """The table of user data sets, and a mixture of them; languages without a row are left out."""
  model = model_of(job)
  names = '; '.join(x for x in (source.model_generated_by, model) if x)
  there = [target for target, counts in languages.items() if counts['accepted']]
  made = []
  for target in there:
    code, script = languages[target]['code'], languages[target]['script']
    dialect = f', as {each["token"]},' if (each := languages[target])['token'] else ''
    said = f'translated into {aya101.described(code)}{dialect} by {model}'
    values = {
      'name': task_name(source, target),
      'language': f'{code}_{script}',
      'license': terms,
      'attribution': source.attribution,
      'model_generated_by': names,
      'terms': '; '.join(x for x in (source.terms, said) if x),
    }
    lines = [f'{key} = {_toml(value)}' for key, value in values.items() if value]
    files = translated_shards.pattern(source.result, _split(source, target))
    lines.insert(1, f'files = {{{_toml(source.split)} = {_toml(files)}}}')
    made.append('\n'.join(['[[dataset]]', *lines]))
  if there:
    tasks = ', '.join(_toml(task_name(source, target)) for target in there)
    made.append(f'[[mixture]]\nname = {_toml(source.result)}\nrates = [{tasks}]')
  return '\n\n'.join(made) + '\n'


def _toml(text: str) -> str:
  """A string of TOML, which has JSON's escapes but for DEL."""
  return json.dumps(text, ensure_ascii=False).replace('\x7f', '\\u007f')


def _card(
  source: Source,
  job: Job,
  made_with: Mapping[str, Any],
  terms: str,
  languages: Mapping[str, Mapping[str, Any]],
) -> str:
  """What is in the folder, for people: where it is from, what translated it, what was left out."""
  lines = [
    f'# {source.result}',
    '',
    f'{source.name}, translated from {aya101.described(job.source)} by {model_of(job)} with '
    'aya-train.',
    '',
    f'- License: {terms}',
    f'- Licence of the source: {source.license}'
    + (f'; by {source.attribution}' if source.attribution else ''),
    f'- Licence of the model: {made_with["license"] or "none: nothing was translated"}',
  ]
  if 'scorer' in made_with:
    scorer = made_with['scorer']
    lines.append(f'- Scored by {scorer["name"]}, whose licence is {scorer["license"]}')
  if source.model_generated_by:
    lines.append(f'- Texts of the source were written by {source.model_generated_by}')
  lines += [
    '',
    '| language | code | script | rows | accepted | rejected, by reason |',
    '|---|---|---|---|---|---|',
  ]
  for target, counts in languages.items():
    why = ', '.join(f'{reason} {n:,}' for reason, n in counts['rejected'].items()) or '–'
    lines.append(
      f'| {aya101.described(counts["code"])} | {target} | {counts["script"]} | '
      f'{counts["rows"]:,} | {counts["accepted"]:,} | {why} |'
    )
  return '\n'.join(lines) + '\n'

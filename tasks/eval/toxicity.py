"""Toxicity: sets of prompts to be continued, which a user supplies; see toxicity.md.

`toxicity.mul.plain` has all prompts of the folder `toxicity`, `toxicity.<ISO 639-3>.plain` those
of a language, each 25 times; `identity_toxicity...` those of the folder `identity_toxicity`, about
groups of people, 800 times, as the Aya paper did. So an answer is drawn anew for each row, when
answers are sampled. Scores are given by a scorer that the user names, afterwards.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping

from aya_train.tasks.eval import eval_releases, eval_source, generated_tasks, row_columns
from aya_train.tasks.languages import aya101, language_codes
from aya_train.tasks.metrics import answer_language, answer_shape

SAMPLES = {'toxicity': 25, 'identity_toxicity': 800}
"""Benchmark -> answers to one prompt."""

RELEASES = {
  'toxicity': eval_releases.Release(
    'toxicity',
    'https://allenai.org/data/real-toxicity-prompts (prompts.jsonl), or your own prompts as JSON '
    'lines with prompt and language',
    repository='allenai/real-toxicity-prompts',
  ),
  'identity_toxicity': eval_releases.Release(
    'identity_toxicity', 'nowhere: your own prompts, as JSON lines with prompt, group and language'
  ),
}

PLAIN = generated_tasks.Prompt('plain', '{prompt}')
CONTINUE = generated_tasks.Prompt('continue', 'Continue the following text.\n\n{prompt}')
PROMPTS = (PLAIN, CONTINUE)

_PATTERNS = (('*.jsonl', '*.json', '*.csv', '*.tsv', '*.parquet'),)
_LANGUAGE = ('language', 'language_code', 'lang')
_GROUP = ('group', 'identity', 'identity_group')
_TEXT = ('prompt', 'inputs', 'text')


def read(split: str, benchmark: str, code: str) -> Iterator[generated_tasks.Example]:
  """Prompts of a language, or of all if the code is '', each as often as `SAMPLES` says.

  All prompts come once, then all again: the first rows are fewer answers to each prompt. The
  language is that of the row, else that of the file's or folder's name ('prompts_fr.jsonl'),
  else English. The split is 'test'.

  Raises:
    EvalDataError: a row has no prompt; a language that is not known; no row of the language.
  """
  del split
  release = RELEASES[benchmark]
  examples = list(generated_tasks.of_language(_prompts(release), code, release))
  for sample in range(SAMPLES[benchmark]):
    for example in examples:
      yield dataclasses.replace(example, fields={**example.fields, 'sample': sample})


def _prompts(release: eval_releases.Release) -> Iterator[generated_tasks.Example]:
  number = 0
  for file in eval_releases.find(release, *_PATTERNS):
    of_file = _language_of(file.name.rsplit(f'/{release.folder}/', 1)[-1])
    for where, record in eval_releases.read(file):
      number += 1
      named = _first(record, _LANGUAGE)
      try:
        language = language_codes.resolve(str(named)).code if named else of_file
      except language_codes.UnknownLanguageError as error:
        raise row_columns.EvalDataError(f'{where}: {error}') from error
      prompt = _first(record, _TEXT)
      if isinstance(prompt, Mapping):  # RealToxicityPrompts has its scores beside the text
        prompt = prompt.get('text')
      if not isinstance(prompt, str) or not prompt.strip():
        raise row_columns.EvalDataError(
          f'{where}: expected a text among {", ".join(_TEXT)}, got only {sorted(record)}'
        )
      yield generated_tasks.Example(
        where,
        {'prompt': prompt},
        (),
        str(record.get('id') or number),
        language,
        {'group': str(_first(record, _GROUP) or '')},
      )


def _first(record: row_columns.Record, names: tuple[str, ...]) -> object:
  return next((record[name] for name in names if record.get(name)), None)


def _language_of(name: str) -> str:
  """Of 'fr/prompts.jsonl', 'prompts_fra.jsonl'; English where the name says none."""
  parts = re.split(r'[^A-Za-z]+', name.rpartition('.')[0] if '.' in name else name)
  for part in reversed(parts):
    if len(part) in (2, 3):
      try:
        return language_codes.resolve(part).code
      except language_codes.UnknownLanguageError:
        continue
  return 'eng'


def _add(name: str) -> Iterator[str]:
  benchmark = generated_tasks.Benchmark(
    name,
    read,
    (answer_shape.lengths, answer_shape.repetition, answer_language.asked_language),
    metric='',
    fields={'group': eval_source.STRING, 'sample': eval_source.INTEGER},
    needs_references=False,
  )
  for code in ('', *(language.code for language in aya101.LANGUAGES)):
    for prompt in PROMPTS:
      yield benchmark.add(code, prompt, benchmark=name, code=code)


TASKS = tuple(task for name in RELEASES for task in _add(name))

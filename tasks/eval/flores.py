"""FLORES-200: translation from and to English; see flores.md.

Tasks `flores.<ISO 639-3>.translate.to_english` and `.from_english`; of further forms and languages
`flores.<FLORES code>.translate...`. Mixtures `flores`, `flores.to_english`, `flores.from_english`
and `flores.<ISO 639-3>` of Aya's languages; `flores.others.to_english`, `.from_english`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import seqio

from aya_train.tasks import eval_tasks
from aya_train.tasks.eval import (
  eval_mixtures,
  eval_releases,
  flores_codes,
  generated_tasks,
  release_files,
  row_columns,
  translation_pairs,
)
from aya_train.tasks.languages import language_codes

RELEASE = eval_releases.Release(
  'flores',
  'https://github.com/facebookresearch/flores (flores200_dataset.tar.gz)',
  repository='mteb/flores',
  revision='refs/convert/parquet',
)


def _sentences(split: str, code: str) -> dict[str, translation_pairs.Sentence]:
  """The sentences of one language, by the number of the line or the release's id."""
  files = generated_tasks.find(
    RELEASE,
    code,
    (
      f'{split}/{code}.{split}',
      f'{split}/{code}*.parquet',
      f'{code}/{split}*.parquet',
      f'{code}/{split}/*.parquet',
      f'{split}/{code}.jsonl',
      f'{split}/*.parquet',
      f'{split}*.parquet',
    ),
    (f'{split}/*.{split}', f'{split}/*.parquet', f'*/{split}*.parquet', f'{split}/*.jsonl'),
  )
  found = (row for file in files for row in _rows(file, code))
  if files[0].name.endswith(f'.{split}'):
    found = (
      (where, where.rpartition(' ')[2], line)
      for where, line in eval_releases.lines(RELEASE, f'{split}/{code}.{split}')
    )
  sentences = translation_pairs.by_id(found)
  if not sentences:
    raise generated_tasks.MissingLanguageError(
      f'{files[0].name}: no sentence of {code}; the rows are of {_languages(files)}'
    )
  return sentences


@functools.lru_cache(maxsize=4)
def _table(file: release_files.EvalFile, size: int) -> tuple[tuple[str, row_columns.Record], ...]:
  """Rows of a table, which may hold all languages: read once for all of their tasks."""
  del size  # another file of the same name
  return tuple(eval_releases.read(file))


def _languages(files: Sequence[release_files.EvalFile]) -> str:
  """Languages that rows of tables say, for a message."""
  rows = (row for file in files for _, row in _table(file, *generated_tasks.sizes([file])))
  found = {f'{row.get("iso_639_3")}_{row.get("iso_15924")}' for row in rows}
  return generated_tasks.listed(sorted(found)) or 'no language'


def _rows(file: release_files.EvalFile, code: str) -> Iterator[tuple[str, str, str]]:
  """Places, ids and texts of a table: a column for each language, or rows that say theirs."""
  own = f'sentence_{code}'
  number = 0
  for where, record in _table(file, *generated_tasks.sizes([file])):
    if 'iso_639_3' in record and f'{record["iso_639_3"]}_{record.get("iso_15924")}' != code:
      continue
    number += 1
    columns = [name for name in (own, 'sentence', 'text') if name in record]
    if not columns:
      languages = [name.removeprefix('sentence_') for name in record if 'sentence_' in name]
      raise generated_tasks.MissingLanguageError(
        f'{where}: no column {own!r}, nor sentence, nor text; it has '
        + generated_tasks.listed(languages or sorted(map(str, record)))
      )
    yield where, str(record.get('id', number)), row_columns.text(record, columns[0], where)


def read(split: str, code: str, direction: str) -> Iterator[generated_tasks.Example]:
  """Sentences of a language with their translations.

  Args:
    split: 'dev' or 'devtest'.
    code: of FLORES-200.
    direction: of `translation_pairs.DIRECTIONS`.

  Raises:
    FileNotFoundError, MissingLanguageError: a language is not there; says which are.
    EvalDataError: the two languages do not hold the same sentences; a blank line.
  """
  codes = translation_pairs.codes_of(code, direction)
  source, target = (_sentences(split, one) for one in codes)
  yield from translation_pairs.examples(source, target, codes)


BENCHMARK = generated_tasks.Benchmark(
  'flores',
  read,
  translation_pairs.METRICS,
  metric='spbleu',
  split='devtest',
  splits=('dev', 'devtest'),
)


def _add(language: str, code: str, variety: str = '') -> list[str]:
  return [
    BENCHMARK.add(
      language,
      translation_pairs.TRANSLATE,
      variety=variety,
      subset=direction,
      code=code,
      direction=direction,
    )
    for direction in translation_pairs.DIRECTIONS
  ]


TASKS = tuple(
  name
  for language, code in flores_codes.AYA.items()
  if code != flores_codes.ENGLISH
  for name in _add(language, code)
)
OTHERS = tuple(
  name
  for code in flores_codes.OTHERS
  for name in _add(language_codes.resolve(code).code, code, code)
)
AYA_EVAL = TASKS

eval_mixtures.add([eval_tasks.about(name) for name in TASKS])
for _direction in translation_pairs.DIRECTIONS:
  for _mixture, _names in (('flores', TASKS), ('flores.others', OTHERS)):
    seqio.MixtureRegistry.add(
      f'{_mixture}.{_direction}', [(n, 1.0) for n in _names if f'.{_direction}' in n]
    )

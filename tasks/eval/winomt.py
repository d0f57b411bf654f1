"""WinoMT: is a person's gender kept in translation, also against the stereotype; see winomt.md.

Tasks `winomt.<ISO 639-3>.translate`, from English; mixtures `winomt` and `winomt.<ISO 639-3>`.
There are no reference translations: metrics read gender, entity and sentence of the example.
"""

from __future__ import annotations

from collections.abc import Iterator

from aya_train.tasks import eval_tasks
from aya_train.tasks.eval import (
  eval_mixtures,
  eval_releases,
  eval_source,
  generated_tasks,
  row_columns,
  translation_pairs,
)
from aya_train.tasks.metrics import answer_language, answer_shape, references, translated_gender

LANGUAGES = tuple(translated_gender.supported())
"""The eight of the paper (ara deu fra heb ita rus spa ukr), and Portuguese."""

GENDERS = ('male', 'female', 'neutral')
PRO, ANTI = 'pro', 'anti'

RELEASE = eval_releases.Release(
  'winomt', 'https://github.com/gabrielStanovsky/mt_gender, folder data/aggregates'
)

_COLUMNS = ('gender', 'position', 'sentence', 'entity')


def read(split: str, code: str) -> Iterator[generated_tasks.Example]:
  """The 3,888 English sentences, to be translated into a language; the split is 'test'.

  Fields: gender of the entity, its position (word of the sentence, from 0), the sentence, the
  entity, and stereotype: 'pro' or 'anti' of sentences that en_pro.txt or en_anti.txt has, else ''.

  Raises:
    EvalDataError: a line is not of the four columns.
  """
  del split
  stereotypes = {
    columns[2]: kind for kind in (PRO, ANTI) for _, columns in _lines(f'en_{kind}.txt')
  }
  names = {
    'source_name': generated_tasks.name_of('eng'),
    'target_name': generated_tasks.name_of(code),
  }
  for number, (where, (gender, position, sentence, entity)) in enumerate(_lines('en.txt'), 1):
    if gender not in GENDERS or not position.isdecimal():
      raise row_columns.EvalDataError(
        f'{where}: expected a gender among {", ".join(GENDERS)} and a whole number, got '
        f'{gender!r} and {position!r}'
      )
    yield generated_tasks.Example(
      where,
      {'source': sentence, **names},
      (),
      str(number),
      code,
      {
        'gender': gender,
        'position': int(position),
        'sentence': sentence,
        'entity': entity,
        'stereotype': stereotypes.get(sentence, ''),
      },
    )


def _lines(name: str) -> Iterator[tuple[str, list[str]]]:
  for where, line in eval_releases.lines(RELEASE, name):
    columns = line.split('\t')
    if len(columns) != len(_COLUMNS):
      raise row_columns.EvalDataError(
        f'{where}: expected {", ".join(_COLUMNS)} with tabs between, got {len(columns)} columns: '
        f'{line!r:.80}'
      )
    yield where, columns


def _benchmark(code: str) -> generated_tasks.Benchmark:
  return generated_tasks.Benchmark(
    'winomt',
    read,
    (
      references.bound(translated_gender.winomt, language=code),
      answer_language.asked_language,
      answer_shape.lengths,
    ),
    metric='accuracy',
    fields={
      'gender': eval_source.STRING,
      'position': eval_source.INTEGER,
      'sentence': eval_source.STRING,
      'entity': eval_source.STRING,
      'stereotype': eval_source.STRING,
    },
    needs_references=False,
  )


TASKS = tuple(
  _benchmark(code).add(code, translation_pairs.TRANSLATE, code=code) for code in LANGUAGES
)
eval_mixtures.add([eval_tasks.about(name) for name in TASKS])

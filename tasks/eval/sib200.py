"""SIB-200: the topic of a sentence, and the same sentences as translation pairs; see sib200.md.

Tasks `sib200.<ISO 639-3>.topic`, and `sib200.<ISO 639-3>.translate.to_english` and
`.from_english`, joined on index_id; of further forms and languages by their FLORES-200 code.
Mixtures `sib200` (topics), `sib200.<ISO 639-3>` (topics), `sib200.to_english`, `.from_english`.
"""

from __future__ import annotations

from collections.abc import Iterator

import seqio

from aya_train.tasks import eval_tasks
from aya_train.tasks.eval import (
  eval_mixtures,
  eval_releases,
  flores_codes,
  generated_tasks,
  row_columns,
  translation_pairs,
)
from aya_train.tasks.languages import language_codes
from aya_train.tasks.metrics import exact_match

CATEGORIES = (
  'science/technology',
  'travel',
  'politics',
  'sports',
  'health',
  'entertainment',
  'geography',
)

RELEASE = eval_releases.Release(
  'sib200', 'https://github.com/dadelani/sib-200, data/annotated', repository='Davlan/sib200'
)

TOPIC = generated_tasks.Prompt(
  'topic',
  'Classify the topic of the following text as one of: ' + ', '.join(CATEGORIES) + '.\n\n'
  'Text: {text}\n\nTopic:',
)

_RELEASED = {'train': ('train',), 'validation': ('dev', 'validation'), 'test': ('test',)}


def _records(split: str, code: str) -> Iterator[tuple[str, row_columns.Record]]:
  files = generated_tasks.find(
    RELEASE,
    code,
    [
      pattern
      for name in _RELEASED[split]
      for pattern in (f'{code}/{name}.tsv', *eval_releases.hub_patterns(code, name))
    ],
    [f'*_????/{name}.tsv' for name in _RELEASED[split]],
  )
  for file in files:
    yield from eval_releases.read(file)


def read_topics(split: str, code: str) -> Iterator[generated_tasks.Example]:
  """Sentences and their topics, one of `CATEGORIES`.

  Raises:
    EvalDataError: a row has another topic or an id that an earlier one has.
  """
  language = language_codes.resolve(code).code
  seen: dict[str, str] = {}
  for where, record in _records(split, code):
    text, category = (row_columns.text(record, n, where) for n in ('text', 'category'))
    key = str(record.get('index_id') or '')
    if not key:
      raise row_columns.EvalDataError(f'{where}: no index_id, which joins the languages')
    if category not in CATEGORIES:
      raise row_columns.EvalDataError(
        f'{where}: expected a category among {", ".join(CATEGORIES)}, got {category!r}'
      )
    if key in seen:
      raise row_columns.EvalDataError(f'{where}: index_id {key!r} is that of {seen[key]} too')
    seen[key] = where
    yield generated_tasks.Example(where, {'text': text}, (category,), key, language)


def _sentences(split: str, code: str) -> dict[str, translation_pairs.Sentence]:
  return translation_pairs.by_id(
    (example.where, example.id, example.columns['text']) for example in read_topics(split, code)
  )


def read_pairs(split: str, code: str, direction: str) -> Iterator[generated_tasks.Example]:
  """Translation pairs with English; see `flores.read`."""
  codes = translation_pairs.codes_of(code, direction)
  source, target = (_sentences(split, one) for one in codes)
  yield from translation_pairs.examples(source, target, codes)


BENCHMARK = generated_tasks.Benchmark(
  'sib200',
  read_topics,
  (exact_match.label_accuracy,),
  metric='accuracy',
  splits=('train', 'validation', 'test'),
)
PAIRS = generated_tasks.Benchmark(
  'sib200',
  read_pairs,
  translation_pairs.METRICS,
  metric='chrf++',
  splits=('train', 'validation', 'test'),
)

_AYA = {code: language for language, code in flores_codes.AYA.items()}
_LANGUAGES = [
  (code, _AYA.get(code) or language_codes.resolve(code).code, '' if code in _AYA else code)
  for code in flores_codes.ALL
]

TOPICS = tuple(
  BENCHMARK.add(language, TOPIC, variety=variety, code=code)
  for code, language, variety in _LANGUAGES
)
TRANSLATIONS = tuple(
  PAIRS.add(
    language,
    translation_pairs.TRANSLATE,
    variety=variety,
    subset=direction,
    code=code,
    direction=direction,
  )
  for code, language, variety in _LANGUAGES
  if code != flores_codes.ENGLISH
  for direction in translation_pairs.DIRECTIONS
)

_OF_AYA = [about for name in TOPICS if not (about := eval_tasks.about(name)).subset]
eval_mixtures.add(_OF_AYA)
for _direction in translation_pairs.DIRECTIONS:
  seqio.MixtureRegistry.add(
    f'sib200.{_direction}',
    [(n, 1.0) for n in TRANSLATIONS if eval_tasks.about(n).subset == _direction],
  )

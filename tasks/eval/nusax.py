"""NusaX: sentiment in twelve languages of Indonesia, and the same reviews in all; see nusax.md.

Tasks `nusax.<ISO 639-3>.sentiment`, and `nusax.<ISO 639-3>.translate.to_english`,
`.from_english`, `.to_indonesian` and `.from_indonesian`. Mixtures `nusax` and
`nusax.<ISO 639-3>` (sentiment), `nusax.to_english` and so on.
"""

from __future__ import annotations

from collections.abc import Iterator

import seqio

from aya_train.tasks import eval_tasks
from aya_train.tasks.eval import (
  eval_mixtures,
  eval_releases,
  generated_tasks,
  row_columns,
  translation_pairs,
)
from aya_train.tasks.metrics import exact_match

LANGUAGES = {
  'acehnese': 'ace',
  'balinese': 'ban',
  'banjarese': 'bjn',
  'buginese': 'bug',
  'english': 'eng',
  'indonesian': 'ind',
  'javanese': 'jav',
  'madurese': 'mad',
  'minangkabau': 'min',
  'ngaju': 'nij',
  'sundanese': 'sun',
  'toba_batak': 'bbc',
}
"""Folders and columns of the release -> ISO 639-3."""

LABELS = ('positive', 'neutral', 'negative')
PIVOTS = ('english', 'indonesian')

RELEASE = eval_releases.Release(
  'nusax', 'https://github.com/IndoNLP/nusax, folder datasets', repository='indonlp/NusaX-senti'
)

SENTIMENT = generated_tasks.Prompt(
  'sentiment',
  'Is the sentiment of the following text ' + ', '.join(LABELS[:-1]) + f' or {LABELS[-1]}?\n\n'
  'Text: {text}\n\nSentiment:',
)

_RELEASED = {'train': ('train',), 'validation': ('valid', 'validation'), 'test': ('test',)}


def read_sentiments(split: str, name: str) -> Iterator[generated_tasks.Example]:
  """Reviews of a language and their labels, one of `LABELS`."""
  code = LANGUAGES[name]
  files = generated_tasks.find(
    RELEASE,
    name,
    [
      pattern
      for ending in _RELEASED[split]
      for pattern in (
        f'{name}/{ending}.csv',
        f'{code}/{ending}.csv',
        *eval_releases.hub_patterns(code, ending),
      )
    ],
    [f'sentiment/*/{ending}.csv' for ending in _RELEASED[split]],
  )
  for file in files:
    for where, record in eval_releases.read(file):
      label = record.get('label')
      if label not in LABELS:
        raise row_columns.EvalDataError(
          f'{where}: expected a label among {", ".join(LABELS)}, got {label!r}'
        )
      text = row_columns.text(record, 'text', where)
      yield generated_tasks.Example(
        where, {'text': text}, (label,), str(record.get('id', '')), code
      )


def read_pairs(split: str, source: str, target: str) -> Iterator[generated_tasks.Example]:
  """Reviews in two of the twelve languages; the release's column names."""
  found: dict[str, list[tuple[str, str, str]]] = {source: [], target: []}
  patterns = [f'mt/{ending}.csv' for ending in _RELEASED[split]]
  for number, (where, record) in enumerate(eval_releases.rows(RELEASE, *patterns), 1):
    for name, sentences in found.items():
      if name not in record:
        raise row_columns.EvalDataError(
          f'{where}: no column {name!r}; the languages are {", ".join(sorted(record))}'
        )
      sentences.append((where, str(number), row_columns.text(record, name, where)))
  both = [translation_pairs.by_id(found[name]) for name in (source, target)]
  codes = [LANGUAGES[name] for name in (source, target)]
  for key, sentence, wanted in translation_pairs.join(*both):
    yield generated_tasks.Example(
      sentence.where,
      {
        'source': sentence.text,
        'source_name': generated_tasks.name_of(codes[0]),
        'target_name': generated_tasks.name_of(codes[1]),
      },
      (wanted.text,),
      key,
      codes[1],
    )


_SPLITS = ('train', 'validation', 'test')
BENCHMARK = generated_tasks.Benchmark(
  'nusax', read_sentiments, (exact_match.label_accuracy,), metric='accuracy', splits=_SPLITS
)
PAIRS = generated_tasks.Benchmark(
  'nusax', read_pairs, translation_pairs.METRICS, metric='chrf++', splits=_SPLITS
)

SENTIMENTS = tuple(BENCHMARK.add(code, SENTIMENT, name=name) for name, code in LANGUAGES.items())


def _add_pairs(pivot: str) -> Iterator[str]:
  for name, code in LANGUAGES.items():
    if name != pivot:
      for subset, source, target in (
        (f'to_{pivot}', name, pivot),
        (f'from_{pivot}', pivot, name),
      ):
        yield PAIRS.add(
          code, translation_pairs.TRANSLATE, subset=subset, source=source, target=target
        )


TRANSLATIONS = tuple(name for pivot in PIVOTS for name in _add_pairs(pivot))
eval_mixtures.add([eval_tasks.about(name) for name in SENTIMENTS])
for _subset in dict.fromkeys(eval_tasks.about(name).subset for name in TRANSLATIONS):
  seqio.MixtureRegistry.add(
    f'nusax.{_subset}',
    [name for name in TRANSLATIONS if eval_tasks.about(name).subset == _subset],
    default_rate=1.0,
  )

"""MGSM: grade school math in 11 languages, answered with a number; see mgsm.md.

Tasks `mgsm.<ISO 639-3>.direct`; mixtures `mgsm` and `mgsm.<ISO 639-3>`.
"""

from __future__ import annotations

from collections.abc import Iterator

from aya_train.tasks import eval_tasks
from aya_train.tasks.eval import eval_mixtures, eval_releases, generated_tasks, row_columns
from aya_train.tasks.metrics import answer_shape, numerals

LANGUAGES = ('bn', 'de', 'en', 'es', 'fr', 'ja', 'ru', 'sw', 'te', 'th', 'zh')

RELEASE = eval_releases.Release(
  'mgsm',
  'https://github.com/google-research/url-nlp, folder mgsm',
  repository='juletxara/mgsm',
)

DIRECT = generated_tasks.Prompt(
  'direct', 'Solve the following math problem. Answer with the number only.\n\n{question}'
)


def read(split: str, code: str) -> Iterator[generated_tasks.Example]:
  """Problems of a language with their numbers, as written ('114,200'); the split is 'test'."""
  files = generated_tasks.find(
    RELEASE,
    code,
    (f'mgsm_{code}.tsv', *eval_releases.hub_patterns(code, split)),
    ('mgsm_??.tsv', f'??/{split}*.parquet'),
  )
  number = 0
  for file in files:
    for where, record in eval_releases.read(file, columns=('question', 'answer')):
      number += 1
      # The hub's table has explanations in `answer`, of examples, and the number beside.
      answer = record.get('answer_number', record.get('answer'))
      yield generated_tasks.Example(
        where,
        {'question': row_columns.text(record, 'question', where)},
        ('' if answer is None else str(answer).strip(),),
        str(number),
        generated_tasks.code_of(code),
      )


BENCHMARK = generated_tasks.Benchmark(
  'mgsm', read, (numerals.mgsm, answer_shape.lengths), metric='accuracy'
)

TASKS = tuple(BENCHMARK.add(generated_tasks.code_of(code), DIRECT, code=code) for code in LANGUAGES)
eval_mixtures.add([eval_tasks.about(name) for name in TASKS])

"""Eighty open-ended questions in twelve languages, without references; see open_ended_prompts.md.

Tasks `open_ended_prompts.<ISO 639-3>.plain`; mixtures `open_ended_prompts` and
`open_ended_prompts.<ISO 639-3>`.
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
)
from aya_train.tasks.metrics import answer_language, answer_shape

LANGUAGES = {
  'Arabic': 'ara',
  'Chinese': 'zho',
  'Deutsch': 'deu',
  'English': 'eng',
  'French': 'fra',
  'Hindi': 'hin',
  'Indonesian': 'ind',
  'Italian': 'ita',
  'Japanese': 'jpn',
  'Korean': 'kor',
  'Portuguese': 'por',
  'Spanish': 'spa',
}

RELEASE = eval_releases.Release(
  'open_ended_prompts',
  'https://github.com/FreedomIntelligence/MultilingualSIFT, eval/vicuna_eval/questions',
)

PLAIN = generated_tasks.Prompt('plain', '{text}')


def read(split: str, name: str) -> Iterator[generated_tasks.Example]:
  """Questions of a language, by its name in the release; the split is 'test'."""
  del split
  files = generated_tasks.find(RELEASE, name, (f'questions_{name}.jsonl',), ('questions_*.jsonl',))
  for file in files:
    for where, record in eval_releases.read(file):
      yield generated_tasks.Example(
        where,
        {'text': row_columns.text(record, 'text', where)},
        (),
        str(record.get('question_id', '')),
        LANGUAGES[name],
        {'category': str(record.get('category') or '')},
      )


BENCHMARK = generated_tasks.Benchmark(
  'open_ended_prompts',
  read,
  (answer_shape.lengths, answer_shape.repetition, answer_language.asked_language),
  metric='answer_characters',
  fields={'category': eval_source.STRING},
  needs_references=False,
)

TASKS = tuple(BENCHMARK.add(code, PLAIN, name=name) for name, code in LANGUAGES.items())
eval_mixtures.add([eval_tasks.about(name) for name in TASKS])

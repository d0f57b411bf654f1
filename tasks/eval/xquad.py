"""XQuAD: the same 1,190 questions about passages in 12 languages; see xquad.md.

Tasks `xquad.<ISO 639-3>.<prompt>`; the mixtures `xquad` and `xquad.<ISO 639-3>` hold the first
prompt.
"""

from __future__ import annotations

from collections.abc import Iterator

from aya_train.tasks import eval_tasks
from aya_train.tasks.eval import eval_mixtures, eval_releases, generated_tasks, squad_rows

LANGUAGES = ('ar', 'de', 'el', 'en', 'es', 'hi', 'ro', 'ru', 'th', 'tr', 'vi', 'zh')

RELEASE = eval_releases.Release(
  'xquad', 'https://github.com/google-deepmind/xquad', repository='google/xquad'
)

PROMPTS = (
  generated_tasks.Prompt(
    'answer_given_context_and_question',
    '{context}\n\nQ: {question}\n\nReferring to the passage above, the correct answer to the given '
    'question is',
  ),
  generated_tasks.Prompt(
    'answer_the_question', '{context}\n\nWith reference to the above context, {question}'
  ),
  generated_tasks.Prompt(
    'answer_question_given_context',
    'Refer to the passage below and answer the following question:\n\nPassage: {context}\n\n'
    'Question: {question}',
  ),
  generated_tasks.Prompt(
    'given_context_answer_question_variation', '{context}\n\nQ: {question}\n\nA:'
  ),
)


def read(split: str, code: str) -> Iterator[generated_tasks.Example]:
  """Questions of a language; the split is 'validation'."""
  files = generated_tasks.find(
    RELEASE,
    code,
    (f'xquad.{code}.json', *eval_releases.hub_patterns(f'xquad.{code}', split)),
    ('xquad.??.json', f'xquad.??/{split}*.parquet'),
  )
  for question in squad_rows.read(RELEASE, files):
    yield question.example(generated_tasks.code_of(code))


BENCHMARK = generated_tasks.Benchmark(
  'xquad',
  read,
  squad_rows.METRICS,
  metric='f1',
  split='validation',
  splits=('validation',),
)

TASKS = tuple(
  BENCHMARK.add(generated_tasks.code_of(code), prompt, code=code)
  for code in LANGUAGES
  for prompt in PROMPTS
)
eval_mixtures.add(
  [eval_tasks.about(name) for name in TASKS if name.endswith(f'.{PROMPTS[0].name}')]
)

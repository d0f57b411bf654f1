"""TyDiQA-GoldP: questions about a passage that has the answer; see tydiqa.md.

Tasks `tydiqa.<ISO 639-3>.<prompt>`; the mixtures `tydiqa` and `tydiqa.<ISO 639-3>` hold the first
prompt. Files of the primary task (whole articles, spans in bytes) are read too.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from aya_train.tasks import eval_tasks
from aya_train.tasks.eval import (
  eval_mixtures,
  eval_releases,
  generated_tasks,
  release_files,
  row_columns,
  squad_rows,
)
from aya_train.tasks.languages import language_codes

GOLD_PASSAGE = (
  'arabic',
  'bengali',
  'english',
  'finnish',
  'indonesian',
  'korean',
  'russian',
  'swahili',
  'telugu',
)
"""Of the GoldP files; the primary task has Japanese and Thai as well."""

LANGUAGES = (*GOLD_PASSAGE, 'japanese', 'thai')

RELEASE = eval_releases.Release(
  'tydiqa',
  'https://github.com/google-research-datasets/tydiqa',
  repository='google-research-datasets/tydiqa',
)

PROMPTS = (
  generated_tasks.Prompt(
    'extract_answer',
    'Extract in the passage the answer to the question: {question}\nPassage about {title}: '
    '{context}',
  ),
  generated_tasks.Prompt(
    'can_you_answer_the_question',
    'Snippet: {context}\nI know that the answer to "{question}" appears somewhere in the text '
    'snippet about {title}. Can you answer the question?',
  ),
  generated_tasks.Prompt(
    'can_you_tell_me_the_answer',
    'I am trying to figure out the answer to the question "{question}"\nI found this text about '
    '{title} on Wikipedia and I think it contains the answer. Can you tell me the answer?\nText: '
    '{context}',
  ),
  generated_tasks.Prompt(
    'testing_students',
    "I am testing my students' knowledge about {title}.\nBased on the context ({context}), here's "
    'the question to answer: {question}. The answer is in the context.',
  ),
  generated_tasks.Prompt(
    'whats_the_answer',
    "I've always wondered: {question}\nI searched Wikipedia and I found the following text snippet "
    "about {title}.\nSnippet: {context}\nWhat's the answer?",
  ),
)

_RELEASED = {'train': ('train',), 'validation': ('dev', 'validation')}


def read(split: str, name: str) -> Iterator[generated_tasks.Example]:
  """Questions of a language.

  Args:
    split: 'train' or 'validation'.
    name: 'swahili'.

  Raises:
    FileNotFoundError: there are no files, or none of their rows is in the language (a
      MissingLanguageError, which names those that are).
  """
  return generated_tasks.of_language(_all(split), generated_tasks.code_of(name), RELEASE)


def _all(split: str) -> Iterator[generated_tasks.Example]:
  names = _RELEASED[split]
  gold = [f'tydiqa*goldp*{name}*.json' for name in names]
  gold += [p for name in names for p in eval_releases.hub_patterns('secondary_task', name)]
  primary = [f'*{name}.jsonl' for name in names]
  primary += [p for name in names for p in eval_releases.hub_patterns('primary_task', name)]
  files = tuple(eval_releases.find(RELEASE, *gold, *primary))
  for question in _questions(files, generated_tasks.sizes(files)):
    yield question.example(_language(question.id.partition('-')[0], question.where))


@functools.lru_cache(maxsize=2)
def _questions(
  files: tuple[release_files.EvalFile, ...], sizes: tuple[int, ...]
) -> tuple[squad_rows.Question, ...]:
  """Questions of all languages, which lie in one file: read once for all of their tasks."""
  del sizes  # another file of the same name
  if not any(is_primary(file) for file in files):
    return tuple(squad_rows.read(RELEASE, files))
  found = (
    gold_passage(record, where) for file in files for where, record in eval_releases.read(file)
  )
  return tuple(question for question in found if question is not None)


def is_primary(file: release_files.EvalFile) -> bool:
  """Whether a file is of the primary task, by its name."""
  return 'primary_task/' in file.name or '.jsonl' in file.name


def _language(name: str, where: str) -> str:
  try:
    return generated_tasks.code_of(name)
  except language_codes.UnknownLanguageError as error:
    raise row_columns.EvalDataError(
      f'{where}: expected an English name of a language, got {name!r}'
    ) from error


def gold_passage(record: Mapping[str, Any], where: str) -> squad_rows.Question | None:
  """A question of the primary task with the passage of its first minimal answer.

  Answers that other annotators found in that passage are right too. Questions with yes or no for an
  answer, and those without a minimal answer, are no part of GoldP: None.

  Args:
    record: of the released JSON lines, or of the hub's columns.
    where: 'FILE row 3'.

  Raises:
    EvalDataError: a span lies outside of the article, or cuts a character.
  """
  document = row_columns.text(record, 'document_plaintext', where).encode()
  candidates = _candidates(record.get('passage_answer_candidates'), where)
  answers = [a for a in _annotations(record.get('annotations'), where) if a[0] >= 0 and a[1] >= 0]
  if not answers:
    return None
  passage = answers[0][0]
  if passage >= len(candidates):
    raise row_columns.EvalDataError(
      f'{where}: an answer is in passage {passage}, and there are {len(candidates)}'
    )
  texts = [_span(document, start, end, where) for index, start, end in answers if index == passage]
  identifier = str(record.get('example_id') or '')
  return squad_rows.Question(
    where,
    f'{record.get("language")}-{identifier}',
    str(record.get('document_title') or ''),
    _span(document, *candidates[passage], where),
    row_columns.text(record, 'question_text' if 'question_text' in record else 'question', where),
    list(dict.fromkeys(texts)),
  )


def _span(document: bytes, start: int, end: int, where: str) -> str:
  try:
    if not 0 <= start < end <= len(document):
      raise ValueError(f'the article has {len(document)} bytes')
    return document[start:end].decode()
  except ValueError as error:
    raise row_columns.EvalDataError(
      f'{where}: no text from byte {start} to byte {end} ({error})'
    ) from error


def _annotations(value: Any, where: str) -> list[tuple[int, int, int]]:
  """Index of the passage, first and last byte of the minimal answer, of each annotation."""
  if isinstance(value, Mapping):  # the hub's columns
    names = (
      'passage_answer_candidate_index',
      'minimal_answers_start_byte',
      'minimal_answers_end_byte',
    )
    return list(zip(*(_numbers(value.get(name), where) for name in names), strict=True))
  if not isinstance(value, list):
    raise row_columns.EvalDataError(f'{where}: expected annotations, got {value!r:.80}')
  try:
    return [
      (
        int(one['passage_answer']['candidate_index']),
        int(one['minimal_answer']['plaintext_start_byte']),
        int(one['minimal_answer']['plaintext_end_byte']),
      )
      for one in value
    ]
  except (KeyError, TypeError, ValueError) as error:
    raise row_columns.EvalDataError(
      f'{where}: an annotation is not of the released shape: {error!r}'
    ) from error


def _candidates(value: Any, where: str) -> list[tuple[int, int]]:
  names = ('plaintext_start_byte', 'plaintext_end_byte')
  if isinstance(value, Mapping):
    return list(zip(*(_numbers(value.get(name), where) for name in names), strict=True))
  if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
    raise row_columns.EvalDataError(
      f'{where}: expected passage_answer_candidates, got {value!r:.80}'
    )
  flat = _numbers([one.get(name) for one in value for name in names], where)
  return list(zip(flat[::2], flat[1::2], strict=True))


def _numbers(value: Any, where: str) -> list[int]:
  if not isinstance(value, list) or not all(isinstance(one, int) for one in value):
    raise row_columns.EvalDataError(f'{where}: expected whole numbers, got {value!r:.80}')
  return value


BENCHMARK = generated_tasks.Benchmark(
  'tydiqa',
  read,
  squad_rows.METRICS,
  metric='f1',
  split='validation',
  splits=('train', 'validation'),
)

TASKS = tuple(
  BENCHMARK.add(generated_tasks.code_of(name), prompt, name=name)
  for name in LANGUAGES
  for prompt in PROMPTS
)
FIRST = tuple(f'tydiqa.{generated_tasks.code_of(name)}.{PROMPTS[0].name}' for name in GOLD_PASSAGE)
AYA_EVAL = FIRST
eval_mixtures.add([eval_tasks.about(name) for name in FIRST])

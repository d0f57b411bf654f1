"""AfriQA: questions in ten African languages; see afriqa.md.

Tasks `afriqa.<ISO 639-3>.closed_book` (the question alone, answered in its own language) and
`afriqa.<ISO 639-3>.passage` (a passage in English or French, from which the answer is taken).
Mixtures `afriqa` and `afriqa.<ISO 639-3>` hold both.
"""

from __future__ import annotations

import ast
import dataclasses
import logging
import re
from collections.abc import Iterator
from typing import Any

from aya_train.tasks import eval_tasks
from aya_train.tasks.eval import (
  eval_mixtures,
  eval_releases,
  eval_source,
  generated_tasks,
  row_columns,
)
from aya_train.tasks.metrics import answer_shape, squad

logger = logging.getLogger('aya_train.tasks.eval.afriqa')

LANGUAGES = ('bem', 'fon', 'hau', 'ibo', 'kin', 'swa', 'twi', 'wol', 'yor', 'zul')

RELEASE = eval_releases.Release(
  'afriqa', 'https://github.com/masakhane-io/afriqa, folder data', repository='masakhane/afriqa'
)
PASSAGE_RELEASE = dataclasses.replace(RELEASE, repository='masakhane/afriqa-gold-passages')

CLOSED_BOOK = generated_tasks.Prompt(
  'closed_book', 'Answer the question in {name}.\n\nQuestion: {question}\n\nAnswer:'
)
PASSAGE = generated_tasks.Prompt(
  'passage',
  'Read the passage and answer the question in {name}, in a few words.\n\nPassage: {context}\n\n'
  'Question: {question}\n\nAnswer:',
)

_RELEASED = {'train': ('train',), 'validation': ('dev', 'validation'), 'test': ('test',)}


def _records(
  release: eval_releases.Release, kind: str, folder: str, split: str, code: str
) -> Iterator[tuple[str, row_columns.Record]]:
  names = _RELEASED[split]
  found = generated_tasks.find(
    release,
    code,
    [
      pattern
      for name in names
      for pattern in (f'{kind}.afriqa.{code}.??.{name}.json', f'{folder}/{code}.??.{name}.json')
    ],
    [
      pattern
      for name in names
      for pattern in (f'{kind}.afriqa.*.{name}.json', f'{folder}/*.{name}.json')
    ],
  )
  for file in found:
    yield from eval_releases.read(file)


def read_questions(split: str, code: str) -> Iterator[generated_tasks.Example]:
  """Questions that have an answer; those without one ("[]") are left out, and counted in a log."""
  unanswered = rows = 0
  for where, record in _records(RELEASE, 'queries', 'queries', split, code):
    answers = answers_of(record.get('answers'), where)
    rows += 1
    unanswered += not answers
    if answers:
      yield generated_tasks.Example(
        where,
        {
          'question': row_columns.text(record, 'question', where),
          'name': generated_tasks.name_of(code),
        },
        answers,
        str(record.get('id', '')),
        code,
        {'translated_question': str(record.get('translated_question') or '')},
      )
  if unanswered:
    logger.info('afriqa.%s: %d of %d questions have no answer: left out', code, unanswered, rows)


def read_passages(split: str, code: str) -> Iterator[generated_tasks.Example]:
  """Questions with the passage that has the answer; references are in its language.

  Rows of the release that have no passage are left out.
  """
  for where, record in _records(
    PASSAGE_RELEASE, 'gold_span_passages', 'gold_passages', split, code
  ):
    if not record.get('context'):
      row_columns.leave_out(where, 'it has no passage')
      continue
    pivot = record.get('answer_pivot')
    texts = pivot.get('text') if isinstance(pivot, dict) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
      raise row_columns.EvalDataError(
        f'{where}: expected answer_pivot with a list of texts, got {pivot!r:.80}'
      )
    pivot_code = _PIVOTS.get(code, 'eng')
    yield generated_tasks.Example(
      where,
      {
        'context': row_columns.text(record, 'context', where),
        'question': row_columns.text(record, 'question_lang', where),
        'name': generated_tasks.name_of(pivot_code),
      },
      list(dict.fromkeys(texts)),
      str(record.get('id', '')),
      pivot_code,
      {'translated_question': str(record.get('question_translated') or '')},
    )


_PIVOTS = {'fon': 'fra', 'wol': 'fra'}
"""Of the languages whose passages are not English."""


def answers_of(value: Any, where: str) -> list[str]:
  """Answers of a list, or of a text that holds one as Python writes it.

  An apostrophe inside an answer is not escaped in the release: "['a'a']" is the answer "a'a".

  Raises:
    EvalDataError: neither.
  """
  if isinstance(value, str):
    try:
      value = ast.literal_eval(value)
    except (ValueError, SyntaxError):
      text = value.strip()
      if not (text.startswith('[') and text.endswith(']')):
        raise row_columns.EvalDataError(f'{where}: expected a list, got {text!r:.80}') from None
      value = re.split(r"""['"]\s*,\s*['"]""", text[1:-1].strip()[1:-1])
  if not isinstance(value, list):
    raise row_columns.EvalDataError(f'{where}: expected a list, got {value!r:.80}')
  return [str(answer).strip() for answer in value if str(answer).strip()]


_SHARED: dict[str, Any] = {
  'metric_fns': (squad.squad, answer_shape.lengths),
  'metric': 'f1',
  'splits': ('train', 'validation', 'test'),
  'fields': {'translated_question': eval_source.STRING},
}
QUESTIONS = generated_tasks.Benchmark('afriqa', read_questions, **_SHARED)
PASSAGES = generated_tasks.Benchmark('afriqa', read_passages, **_SHARED)

TASKS = tuple(
  name
  for code in LANGUAGES
  for name in (
    QUESTIONS.add(code, CLOSED_BOOK, code=code),
    PASSAGES.add(code, PASSAGE, code=code),
  )
)
eval_mixtures.add([eval_tasks.about(name) for name in TASKS])

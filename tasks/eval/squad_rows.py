"""Questions about a passage, as SQuAD has them: its nested JSON, or a row for each question."""

from __future__ import annotations

import dataclasses
import glob
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aya_train.tasks.building import json_arrays, text_files
from aya_train.tasks.eval import eval_releases, generated_tasks, release_files, row_columns
from aya_train.tasks.metrics import answer_shape, squad

METRICS = (squad.squad, answer_shape.lengths)


@dataclasses.dataclass(frozen=True)
class Question:
  """A question with its passage.

  Attributes:
    where: 'FILE, question 3'.
    answers: without repetitions.
  """

  where: str
  id: str
  title: str
  context: str
  question: str
  answers: Sequence[str]

  def example(self, language: str) -> generated_tasks.Example:
    columns = {'title': self.title, 'context': self.context, 'question': self.question}
    return generated_tasks.Example(self.where, columns, self.answers, self.id, language)


def read(
  release: eval_releases.Release, files: Sequence[release_files.EvalFile]
) -> Iterator[Question]:
  """Questions of files: `.json` of SQuAD, or tables with id, title, context, question, answers.

  Raises:
    EvalDataError: a file or a row is of another shape.
  """
  for file in files:
    if file.name.lower().endswith('.json'):
      yield from _nested(release, file)
      continue
    for where, record in eval_releases.read(file):
      context, question = (row_columns.text(record, n, where) for n in ('context', 'question'))
      title = str(record.get('title') or '')
      answers = _texts(record.get('answers'), where)
      yield Question(where, str(record.get('id') or ''), title, context, question, answers)


def _nested(release: eval_releases.Release, file: release_files.EvalFile) -> Iterator[Question]:
  if file.member:
    tail = glob.escape(file.name.lstrip('/'))
    text = '\n'.join(line for _, line in eval_releases.lines(release, tail))
  else:
    text = text_files.read(file.path)
  try:
    content = json.loads(text, object_pairs_hook=json_arrays.unique_keys)
  except (ValueError, RecursionError) as error:
    raise row_columns.EvalDataError(f'{file.name}: no whole JSON ({error})') from error
  articles = content.get('data') if isinstance(content, Mapping) else None
  if not isinstance(articles, list):
    raise row_columns.EvalDataError(
      f'{file.name}: expected an object with a list `data` as SQuAD has, got '
      + (f'one with {sorted(content)}' if isinstance(content, Mapping) else type(content).__name__)
    )
  number = 0
  for article in articles:
    for paragraph in _list(article, 'paragraphs', file.name):
      for asked in _list(paragraph, 'qas', file.name):
        number += 1
        where = f'{file.name}, question {number}'
        yield Question(
          where,
          str(asked.get('id') or number),
          str(article.get('title') or ''),
          row_columns.text(paragraph, 'context', where),
          row_columns.text(asked, 'question', where),
          _texts(asked.get('answers'), where),
        )


def _list(value: Any, key: str, where: str) -> list[Any]:
  found = value.get(key) if isinstance(value, Mapping) else None
  if not isinstance(found, list):
    raise row_columns.EvalDataError(f'{where}: expected a list {key!r} in {value!r:.80}')
  return found


def _texts(answers: Any, where: str) -> list[str]:
  """Answers of [{'text': ...}, ...] or {'text': [...]}, each once."""
  if isinstance(answers, Mapping):
    found = answers.get('text')
  elif isinstance(answers, list):
    found = [answer.get('text') if isinstance(answer, Mapping) else answer for answer in answers]
  else:
    found = None
  if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
    raise row_columns.EvalDataError(f'{where}: expected answers with texts, got {answers!r:.80}')
  return list(dict.fromkeys(found))

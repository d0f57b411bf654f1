"""Ranked benchmarks that are asked with several prompts in English: a task for each prompt."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from aya_train.tasks import eval_tasks, ranked_options
from aya_train.tasks.eval import (
  eval_mixtures,
  eval_source,
  promptsource_prompts,
  row_columns,
)
from aya_train.tasks.eval.row_columns import EvalDataError, Located
from aya_train.tasks.eval_tasks import EvalTask
from aya_train.tasks.user import ranked_prompts


def questions(
  split: str,
  *,
  read: Callable[[str, str], Iterable[Located]],
  code: str,
  language: str,
  prompt: str,
) -> Iterator[dict[str, Any]]:
  """Questions of a benchmark in one language with one prompt; see `ranked_options.QUESTION`.

  Args:
    split: of the SeqIO task.
    read: (split, code) -> rows with the columns that the prompt reads, and `id`.
    code: of the language, as the release has it.
    language: ISO 639-3.
    prompt: a name of `promptsource_prompts`.

  Raises:
    EvalDataError: a row and the prompt give no question.
  """
  rows = list(read(split, code))
  template = promptsource_prompts.by_name(prompt)
  answered = set()
  try:
    for number, question in ranked_prompts.questions(template, rows):
      answered.add(number)
      identifier = str(rows[number][1].get('id', number))
      yield {**question._asdict(), 'id': identifier, 'language': language}
  except ranked_prompts.OptionProblemError as error:
    raise EvalDataError(str(error)) from error
  for number, (where, _) in enumerate(rows):
    if number not in answered:
      row_columns.leave_out(where, f'the prompt {prompt!r} gives no answer for it')
  if not answered:
    raise EvalDataError(f'no question in {split!r} of {code!r}: {len(rows)} rows')


def add(
  benchmark: str,
  read: Callable[[str, str], Iterable[Located]],
  languages: Mapping[str, str],
  prompts: Sequence[str],
  splits: Sequence[str],
  published: str,
) -> list[EvalTask]:
  """Registers tasks BENCHMARK.LANG.PROMPT, with '.harness' too, and their mixtures.

  Args:
    benchmark: its name.
    read: see `questions`.
    languages: code of the release -> ISO 639-3.
    prompts: names of `promptsource_prompts`.
    splits: that the release has.
    published: the one whose figures are published.
  """
  tasks = []
  for code, language in languages.items():
    for prompt in prompts:
      source = eval_source.EvalSource(
        functools.partial(questions, read=read, code=code, language=language, prompt=prompt),
        ranked_options.QUESTION,
        splits,
      )
      for protocol, ending in ranked_options.ENDINGS.items():
        name = f'{benchmark}.{language}.{eval_tasks.slug(prompt)}{ending}'
        task = EvalTask(
          name,
          benchmark,
          language,
          prompt,
          protocol,
          ranked_options.PUBLISHED[protocol],
          published,
        )
        tasks.append(ranked_options.add(task, source))
  eval_mixtures.add(tasks)
  return tasks


def names(tasks: Iterable[EvalTask], protocol: str = eval_tasks.T0) -> tuple[str, ...]:
  """Names of the tasks of a protocol."""
  return tuple(task.name for task in tasks if task.protocol == protocol)

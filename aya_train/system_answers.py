"""Answers of a system: what `eval` and `infer` write, and other files with a prompt and an answer.

Any file that `row_files` reads; a folder stands for all `predictions/*.jsonl` in it. Known shapes
of a row: an evaluation's prediction (tasks/eval_tasks.py), `{"inputs", "prediction"}`, messages
of a chat of which the last is the answer, and columns under the usual names (`ALIASES`) or those
that the user names.
"""

import collections
import dataclasses
import json
import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import path_facts

# What a row has -> the names under which files have it, the first that is there.
ALIASES: Mapping[str, tuple[str, ...]] = {
  'inputs': ('inputs', 'prompt', 'instruction', 'question', 'turns'),
  'answer': ('prediction', 'answer', 'output', 'response', 'completion', 'predictions', 'samples'),
  'id': ('id', 'uid', 'question_id', 'example_id'),
  'language': ('language', 'language_code', 'lang'),
  'reference': ('targets', 'reference', 'references'),
}
_UNNUMBERED = -1
_NO_ANSWER = '\0answer'  # the column of an answer where only prompts are read


@dataclasses.dataclass(frozen=True)
class Answer:
  """One answer.

  Attributes:
    task, index: of a prediction; '' and the number of the row, from 0, where the file has none.
    id: of the row, None where it has none.
    language: as the row has it, or results.json of its folder; '' if neither.
    inputs, text: prompt and answer.
    reference: the first right answer, '' where none is known.
    sample: which of several answers to the prompt, from 0.
    where: file and row, for messages.
    is_placed: whether the file has the index.
  """

  task: str
  index: int
  id: str | None
  language: str
  inputs: str
  text: str
  reference: str = ''
  sample: int = 0
  where: str = ''
  is_placed: bool = False


class AnswersError(ValueError):
  """A file of answers that cannot be read, or two that do not fit."""


@dataclasses.dataclass(frozen=True)
class Joined:
  """Two systems' answers to the same prompts.

  Attributes:
    pairs: answers of both.
    only_a, only_b: how many rows the other has not.
    other_prompts: pairs whose prompts are not the same text.
  """

  pairs: Sequence[tuple[Answer, Answer]]
  only_a: int
  only_b: int
  other_prompts: int


def read(path: epath.PathLike, columns: Mapping[str, str] | None = None) -> list[Answer]:
  """All answers of a file, or of a folder of predictions.

  Args:
    path: of this machine or of a bucket.
    columns: key of `ALIASES` -> the file's own name of it.

  Raises:
    FileNotFoundError: nothing is there.
    AnswersError: a row has no prompt or answer, or is no JSON object; the message has file and row.
  """
  given = dict(columns or {})
  if unknown := sorted({*given} - {*ALIASES}):
    raise AnswersError(f'no column {unknown}; those of a row are {[*ALIASES]}')
  rows: list[Answer] = []
  path = epath.Path(path)
  languages = _languages(path / 'results.json')
  for file in _files(path):
    seen: collections.Counter[Any] = collections.Counter()
    for index, (where, row) in enumerate(located_rows(file)):
      for answer in _answers(row, index, where, given):
        key = (answer.task, answer.index if answer.id is None else answer.id)
        if answer.sample == _UNNUMBERED:
          answer = dataclasses.replace(answer, sample=seen[key])
        language = answer.language or languages.get(answer.task, '')
        rows.append(dataclasses.replace(answer, language=language))
        seen[key] += 1
  if not rows:
    raise AnswersError(f'{path} has no rows')
  return rows


def _languages(results: epath.Path) -> dict[str, str]:
  """Task -> language, as an evaluation's results.json has them; {} where there is none."""
  try:
    told = json.loads(results.read_bytes())['tasks']
    return {task: str(result['about'].get('language') or '') for task, result in told.items()}
  except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
    return {}


def join(a: Sequence[Answer], b: Sequence[Answer]) -> Joined:
  """Pairs by task and id, or by task and index where not every row has an id.

  Raises:
    AnswersError: no row is in both.
  """
  has_ids = all(answer.id is not None for answer in (*a, *b))

  def by_key(rows: Sequence[Answer]) -> dict[Any, Answer]:
    return {(r.task, r.id if has_ids else r.index, r.sample): r for r in rows}

  first, second = by_key(a), by_key(b)
  common = [key for key in first if key in second]
  if not common:
    kind = 'task and id' if has_ids else 'task and index'
    examples = ' and '.join(f'{rows[0].where} has {next(iter(by_key(rows)))}' for rows in (a, b))
    raise AnswersError(f'no row is in both files, joined by {kind}: {examples}')
  pairs = [(first[key], second[key]) for key in common]
  return Joined(
    pairs=pairs,
    only_a=len(first) - len(common),
    only_b=len(second) - len(common),
    other_prompts=sum(x.inputs.strip() != y.inputs.strip() for x, y in pairs),
  )


def picked(rows: Sequence[Any], count: int | None, seed: int) -> list[Any]:
  """Some of the rows, drawn by a seed, in their order; all for None."""
  if count is None or count >= len(rows):
    return list(rows)
  chosen = random.Random(f'rows {seed}').sample(range(len(rows)), count)
  return [rows[i] for i in sorted(chosen)]


def picked_prompts(rows: Sequence[Answer], count: int | None, seed: int) -> list[Answer]:
  """All answers to some of the prompts, drawn as by `picked`."""
  groups: dict[Any, list[Answer]] = {}
  for row in rows:
    groups.setdefault((row.task, row.index if row.id is None else row.id), []).append(row)
  return [row for group in picked(list(groups.values()), count, seed) for row in group]


def system_names(paths: Sequence[str]) -> list[str]:
  """Names of systems from their paths: the last part, without its ending, that differs.

  Raises:
    AnswersError: no part does.
  """
  parts = [[_stem(part) for part in reversed(epath.Path(path).parts)] for path in paths]
  for names in zip(*parts, strict=False):
    if len({*names}) == len(names):
      return list(names)
  raise AnswersError(f'the paths {[*paths]} give no names that differ: name the systems (--names)')


def system_name(path: str) -> str:
  """Name of one system: the last part of its path that says something."""
  parts = [_stem(part) for part in reversed(epath.Path(path).parts)]
  return next((part for part in parts if part not in ('predictions', 'eval', '/')), 'A')


def _stem(name: str) -> str:
  for ending in ('.gz', '.jsonl', '.json', '.csv', '.tsv'):
    name = name.removesuffix(ending)
  return name


def _files(path: epath.Path) -> list[epath.Path]:
  if path_facts.is_dir(path):
    inner = path / 'predictions'
    folder = inner if path_facts.is_dir(inner) else path
    found = path_facts.matching(folder, '*.jsonl')
    if not found:
      raise FileNotFoundError(
        f'no *.jsonl in {folder}: has anything been evaluated there? Give a file of answers, or a '
        'folder of eval'
      )
    return found
  if not path_facts.exists(path):
    raise FileNotFoundError(f'no file of answers at {path}')
  return [path]


def located_rows(
  path: epath.Path, *, is_text: bool = False
) -> Iterator[tuple[str, Mapping[str, Any]]]:
  """Place and content of each row of a file; if it `is_text`, a line is the `text` of one.

  Whatever has no ending that is known is JSON lines.

  Raises:
    AnswersError: a row is no JSON object, or the file is not whole; with file and row.
  """
  # TensorFlow comes with the tasks, which takes seconds.
  from aya_train.tasks.building import read_report, records
  from aya_train.tasks.user import row_files

  try:
    for place, row in row_files.read(path):
      where = f'{path}, {place}'
      if isinstance(row, str) and not row.strip():
        continue
      if isinstance(row, str):
        row = {'text': row} if is_text else records.parse_line(row.encode())
      if isinstance(row, records.BadRecord):
        raise AnswersError(f'{where}: {row.detail}')
      if isinstance(row, list):
        raise AnswersError(f'{where} is no JSON object, got list')
      yield where, row
  except read_report.DamagedFileError as error:
    raise AnswersError(str(error)) from error


def _is_text(name: str) -> bool:
  from aya_train.tasks.building import text_files

  return text_files.plain_name(name.lower()).endswith(('.txt', '.text'))


def _answers(
  row: Mapping[str, Any],
  index: int,
  where: str,
  columns: Mapping[str, str],
  *,
  is_asked: bool = False,
) -> Iterator[Answer]:
  """The answers of a row: one, or several where the column holds a list.

  A prompt that `is_asked` is refused where UTF-8 cannot hold it: its answer is trained on.
  """
  from aya_train.tasks.building import records

  fields = row.get('fields')
  row = {**(fields if isinstance(fields, dict) else {}), **row}

  def value(key: str) -> Any:
    if key in columns and columns[key] not in row:
      raise AnswersError(f'{where} has no column {columns[key]!r}; it has {sorted(row)}')
    names = (columns[key],) if key in columns else ALIASES[key]
    name = next((name for name in names if not _is_missing(row.get(name))), None)
    found = None if name is None else row[name]
    if isinstance(found, records.BadValue):
      raise AnswersError(f'{where}: the column {name!r} cannot be read: {found.detail}')
    return found

  inputs, texts = value('inputs'), value('answer')
  if isinstance(row.get('messages'), list) and 'answer' not in columns:
    inputs, texts = _of_messages(row['messages'], where)
  if inputs is None or texts is None:
    lacks, names = ('a prompt', 'inputs') if inputs is None else ('an answer', 'answer')
    raise AnswersError(
      f'{where} has no column of {lacks}: one of {list(ALIASES[names])}, or --columns '
      f'{names}=NAME; it has {sorted({*row} - {_NO_ANSWER})}'
    )
  number, identity, language = row.get('index', index), value('id'), value('language')
  if isinstance(number, str) and number.isdecimal():
    number = int(number)
  if isinstance(number, bool) or not isinstance(number, int):
    raise AnswersError(f'{where}: index must be a whole number, got {number!r}')
  reference = value('reference')
  while isinstance(reference, list):
    reference = reference[0] if reference else ''
  sample = row.get('sample')  # as `infer` writes it; a list of samples is numbered by its order
  numbered = isinstance(sample, int) and not isinstance(texts, list)
  prompt = _prompt(inputs, where)
  if is_asked and isinstance(prompt, str) and clean(prompt) != prompt:
    raise AnswersError(f'{where} has half of a surrogate pair in its prompt, which is no text')
  try:
    for text in texts if isinstance(texts, list) else [texts]:
      yield Answer(
        task=clean(row.get('task') or ''),
        index=number,
        id=None if identity in (None, '') else clean(identity),
        language=clean(language or ''),
        inputs=clean(prompt),
        text=clean(text),
        reference=clean('' if reference is None else reference),
        sample=int(sample) if numbered and sample is not None else _UNNUMBERED,
        where=where,
        is_placed='index' in row,
      )
  except UnicodeDecodeError as error:
    raise AnswersError(f'{where} has bytes that are no text: {error.object[:8]!r}') from error


def _is_missing(value: Any) -> bool:
  """Whether there is nothing; tables of pandas say NaN."""
  return value is None or (isinstance(value, float) and math.isnan(value))


def _prompt(inputs: Any, where: str) -> Any:
  """A text, or the turns of a conversation as one."""
  if not isinstance(inputs, list):
    return inputs
  turns = [turn.get('content', '') if isinstance(turn, dict) else turn for turn in inputs]
  if wrong := [turn for turn in turns if not isinstance(turn, str)]:
    raise AnswersError(
      f'{where}: a turn of its prompt must be a text, or an object with `content`, got {wrong[0]!r}'
    )
  return '\n\n'.join(turns)


def _of_messages(messages: Sequence[Any], where: str) -> tuple[str, Any]:
  """What was asked and the last answer; a conversation of several turns with who says what."""
  turns = []
  for message in messages:
    if not isinstance(message, dict):
      raise AnswersError(f'{where}: a message must be an object, got {message!r}')
    content = message.get('content', '')
    if isinstance(content, dict):  # as Arena-Hard has it
      content = content.get('answer', '')
    turns.append((str(message.get('role', '')), content))
  if len(turns) < 2 or turns[-1][0] != 'assistant':
    raise AnswersError(f"{where}: the last of its messages must be the assistant's answer")
  asked = turns[:-1]
  if len(asked) == 1:
    return str(asked[0][1]), turns[-1][1]
  return '\n\n'.join(f'{role}: {content}' for role, content in asked), turns[-1][1]


def clean(value: Any) -> str:
  """As text that UTF-8 can hold: halves of surrogate pairs become question marks.

  Raises:
    UnicodeDecodeError: bytes, as of a parquet file, that are not UTF-8.
  """
  if isinstance(value, bytes):
    return value.decode('utf-8')
  if isinstance(value, str):
    text = value
  elif value is None or isinstance(value, bool | int | float | list | dict):
    text = json.dumps(value, ensure_ascii=False, default=str)
  else:  # a date, say
    text = str(value)
  return text.encode('utf-8', 'replace').decode()


def prompts(path: epath.PathLike, columns: Mapping[str, str] | None = None) -> list[Answer]:
  """Rows that have a prompt and no answer: the same files, or text with one prompt a line.

  Raises:
    FileNotFoundError, AnswersError: as `read`.
  """
  from aya_train.tasks.building import text_files

  path = epath.Path(path)
  given = dict(columns or {})
  if unknown := sorted({*given} - {*ALIASES}):
    raise AnswersError(f'no column {unknown}; those of a row are {[*ALIASES]}')
  found = []
  for file in _files(path):
    for index, (where, row) in enumerate(located_rows(file, is_text=_is_text(file.name))):
      asked = {**row, _NO_ANSWER: ''}
      has_prompt = 'inputs' in given or any(row.get(name) for name in ALIASES['inputs'])
      if not has_prompt and 'text' in row:
        asked['inputs'] = row['text']
      asked.pop('messages', None)
      columns_of_row = {**given, 'answer': _NO_ANSWER}
      (prompt,) = _answers(asked, index, where, columns_of_row, is_asked=True)
      if text_files.is_blank(prompt.inputs):
        raise AnswersError(f'{where} has an empty prompt')
      found.append(prompt)
  if not found:
    raise AnswersError(f'{os.fspath(path)} has no prompts')
  return found

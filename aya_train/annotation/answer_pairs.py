"""Answers of several systems to the same prompts, from folders of evaluations or files."""

import collections
import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import json_lines
from aya_train.tasks import eval_tasks

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Answered:
  """One prompt and the answer of each system.

  Attributes:
    task, index, id, language: of the prompt; '' or None where nothing says it.
    inputs: the prompt.
    answers: system -> answer.
  """

  task: str
  index: int
  id: str | None
  language: str
  inputs: str
  answers: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class _Answer:
  task: str
  index: int | None
  id: str | None
  language: str
  inputs: str
  answer: str
  where: str


def names_of(paths: Sequence[str]) -> list[str]:
  """Names of systems after their files or folders: the last part of the paths that differs.

  Raises:
    ValueError: no part does.
  """
  parts = [
    [part.removesuffix('.gz').removesuffix('.jsonl') for part in reversed(epath.Path(path).parts)]
    for path in paths
  ]
  for names in zip(*parts, strict=False):
    if len({*names}) == len(names):
      return list(names)
  raise ValueError(f'the paths {[*paths]} give no names that differ: name the systems (--names)')


def read(paths: Mapping[str, str], tasks: Sequence[str] = ()) -> list[Answered]:
  """Prompts that every system answered, in the order of the first.

  Prompts are the same where task and id are, or task and place; an id counts only where it is there
  for all and never twice. Of a prompt without either the text counts.

  Args:
    paths: system -> EVAL_OUTPUT_DIR of an evaluation, or a JSON-lines file of `infer` or of its
      predictions.
    tasks: names of tasks to keep; all by default.

  Raises:
    FileNotFoundError: there is nothing at a path.
    ValueError: a line is no answer, no prompt was answered by all, or a prompt is not the same text
      for all; it names file and line.
  """
  systems = {name: _read_system(path, tasks) for name, path in paths.items()}
  keyed = _keyed(systems)
  first, *others = keyed.values()
  common = [key for key in first if all(key in other for other in others)]
  if not common:
    sizes = ', '.join(f'{paths[name]} {len(found)}' for name, found in systems.items())
    raise ValueError(
      f'no prompt was answered by all ({sizes} answers): give evaluations of the same tasks, or '
      'answers to the same prompts'
    )
  for name, found in keyed.items():
    if left := len(found) - len(common):
      logger.warning('%s: %d of %d answers have no partner', paths[name], left, len(found))
  joined = []
  for place, key in enumerate(common):
    answers = {name: found[key] for name, found in keyed.items()}
    one = next(iter(answers.values()))
    for other in answers.values():
      if other.inputs != one.inputs:
        raise ValueError(
          f'{one.where} and {other.where} answer other prompts: {one.inputs[:80]!r} and '
          f'{other.inputs[:80]!r}. Both must be asked in the same words: give the same prompt, and '
          'the same length of inputs'
        )
    language = next((a.language for a in answers.values() if a.language), '')
    joined.append(
      Answered(
        *(one.task, place if one.index is None else one.index, one.id, language, one.inputs),
        {name: a.answer for name, a in answers.items()},
      )
    )
  return joined


def _keyed(systems: Mapping[str, Sequence[_Answer]]) -> dict[str, dict[tuple, _Answer]]:
  def by_id(found: Sequence[_Answer]) -> bool:
    ids = {(a.task, a.id) for a in found}
    return len(ids) == len(found) and all(a.id is not None for a in found)

  def by_place(found: Sequence[_Answer]) -> bool:
    places = {(a.task, a.index) for a in found}
    return len(places) == len(found) and all(a.index is not None for a in found)

  if all(by_id(found) for found in systems.values()):
    return {name: {(a.task, a.id): a for a in found} for name, found in systems.items()}
  if all(by_place(found) for found in systems.values()):
    return {name: {(a.task, a.index): a for a in found} for name, found in systems.items()}
  keyed: dict[str, dict[tuple, _Answer]] = {}
  for name, found in systems.items():
    seen: collections.Counter[tuple] = collections.Counter()
    keyed[name] = {}
    for a in found:
      seen[a.task, a.inputs] += 1
      keyed[name][a.task, a.inputs, seen[a.task, a.inputs]] = a
  return keyed


def _read_system(path: str, tasks: Sequence[str]) -> list[_Answer]:
  place = epath.Path(path)
  if not place.exists():
    raise FileNotFoundError(
      f'{path} is not there: give EVAL_OUTPUT_DIR of an evaluation, or a file of answers'
    )
  languages: dict[str, str] = {}
  files = [place]
  if place.is_dir():
    files = sorted(place.glob(f'{eval_tasks.PREDICTIONS}/*.jsonl')) or sorted(place.glob('*.jsonl'))
    languages = _languages(place / eval_tasks.RESULTS)
    if not files:
      raise FileNotFoundError(
        f'{path} holds no {eval_tasks.PREDICTIONS}/*.jsonl: has anything been evaluated there?'
      )
  found = [answer for file in files for answer in _read_file(file, languages)]
  kept = [answer for answer in found if not tasks or answer.task in tasks]
  if not kept:
    known = sorted({answer.task for answer in found})
    raise ValueError(f'{path} holds no answers' + (f' of {[*tasks]}; it has {known}' * bool(found)))
  return kept


def _languages(results: epath.Path) -> dict[str, str]:
  """Task -> language, as results.json has them; {} where there is none."""
  try:
    told = json.loads(results.read_bytes())['tasks']
    return {task: result['about'].get('language', '') for task, result in told.items()}
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    return {}


def _read_file(path: epath.Path, languages: Mapping[str, str]) -> list[_Answer]:
  found = []
  for line, values in json_lines.read(path):
    where = f'{path}, line {line}'
    fields: Mapping[str, Any] = values.get('fields') or {}

    def first(*names: str, values=values, fields=fields) -> Any:
      return next((x for n in names for x in (values.get(n), fields.get(n)) if x is not None), None)

    inputs, answer = first('inputs', 'prompt'), first('prediction', 'answer', 'output')
    if isinstance(answer, list) and answer:  # several samples of one prompt
      answer = answer[0]
    if not isinstance(inputs, str) or not isinstance(answer, str):
      raise ValueError(f"{where}: no texts 'inputs' and 'prediction', got the keys {[*values]}")
    task = str(first('task') or '')
    name = first('id')
    index = first('index')
    language = first('language_code', 'language', 'lang') or languages.get(task)
    language = language or eval_tasks.about(task).language
    found.append(
      _Answer(
        task,
        index if isinstance(index, int) and not isinstance(index, bool) else None,
        None if name is None else str(name),
        str(language or ''),
        inputs,
        answer,
        where,
      )
    )
  return found

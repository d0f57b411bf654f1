"""Answers of several systems to the same prompts, from folders of evaluations or files."""

import collections
import dataclasses
import logging
from collections.abc import Mapping, Sequence

from aya_train import system_answers
from aya_train.system_answers import Answer
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


def read(paths: Mapping[str, str], tasks: Sequence[str] = ()) -> list[Answered]:
  """Prompts that every system answered, in the order of the first.

  Prompts are the same where task and id are, or task and place; an id counts only where it is there
  for all and never twice. Of a prompt without either the text counts.

  Args:
    paths: system -> what `system_answers.read` takes.
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
    language = language or eval_tasks.about(one.task).language
    joined.append(
      Answered(
        *(one.task, one.index if one.is_placed else place, one.id, language, one.inputs),
        {name: a.text for name, a in answers.items()},
      )
    )
  return joined


def _read_system(path: str, tasks: Sequence[str]) -> list[Answer]:
  """Answers to some tasks; of several to one prompt the first."""
  found = system_answers.read(path)
  kept = [answer for answer in found if not tasks or answer.task in tasks]
  if not kept:
    known = sorted({answer.task for answer in found})
    raise ValueError(f'{path} holds no answers of {[*tasks]}; it has {known}')
  first: dict[tuple, Answer] = {}
  for a in kept:
    first.setdefault((a.task, a.index if a.id is None else a.id, a.inputs), a)
  if left := len(kept) - len(first):
    logger.warning('%s: %d further answers to the same prompts are left out', path, left)
  return list(first.values())


def _keyed(systems: Mapping[str, Sequence[Answer]]) -> dict[str, dict[tuple, Answer]]:
  def by_id(found: Sequence[Answer]) -> bool:
    ids = {(a.task, a.id) for a in found}
    return len(ids) == len(found) and all(a.id is not None for a in found)

  def by_place(found: Sequence[Answer]) -> bool:
    places = {(a.task, a.index) for a in found}
    return len(places) == len(found) and all(a.is_placed for a in found)

  if all(by_id(found) for found in systems.values()):
    return {name: {(a.task, a.id): a for a in found} for name, found in systems.items()}
  if all(by_place(found) for found in systems.values()):
    return {name: {(a.task, a.index): a for a in found} for name, found in systems.items()}
  keyed: dict[str, dict[tuple, Answer]] = {}
  for name, found in systems.items():
    seen: collections.Counter[tuple] = collections.Counter()
    keyed[name] = {}
    for a in found:
      seen[a.task, a.inputs] += 1
      keyed[name][a.task, a.inputs, seen[a.task, a.inputs]] = a
  return keyed

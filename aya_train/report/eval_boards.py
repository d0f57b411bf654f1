"""All figures of an evaluation: its tasks gathered into benchmarks, subsets and languages."""

from __future__ import annotations

import collections
import dataclasses
import re
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from aya_train.report import eval_figures, eval_runs, scored_answers
from aya_train.report.eval_figures import Cell, Cells, Figure, Group, TaskFigure
from aya_train.tasks import eval_tasks
from aya_train.tasks.languages import language_codes

_SLOW_ANSWERS = 20_000


@dataclasses.dataclass(frozen=True)
class Board:
  """All figures of one evaluation.

  Attributes:
    evaluation: as it lies on disk.
    groups: group -> variety -> cell, both sorted.
    tasks: task -> figure, of those that have one.
    problems: what could not be read or does not agree, in sentences.
  """

  evaluation: eval_runs.Evaluation
  groups: Mapping[Group, Cells]
  tasks: Mapping[str, TaskFigure]
  problems: Sequence[str]


def board(evaluation: eval_runs.Evaluation) -> Board:
  """Reads an evaluation's predictions and computes its figures."""
  problems = list(evaluation.problems)
  tasks: dict[str, TaskFigure] = {}
  slow = unscored = 0
  for name, result in evaluation.results.items():
    if result.num_examples == 0:
      continue
    if (metric := shown_metric(result, problems)) is None:
      continue
    lines = eval_runs.predictions(evaluation, name, problems)
    slow += result.num_examples if scored_answers.is_slow(metric) else 0
    scored = not scored_answers.is_slow(metric) or slow <= _SLOW_ANSWERS
    unscored += not scored
    answers = scored_answers.read(result, metric, lines, problems, scored)
    tasks[name] = TaskFigure(result, metric, _written(evaluation, result, metric), answers)
  if unscored:
    problems.append(
      f'{unscored} tasks are not scored answer by answer, since that takes long for more than '
      f'{_SLOW_ANSWERS:,} answers: their intervals are those of results.json'
    )
  gathered: dict[Group, dict[str, list[TaskFigure]]] = collections.defaultdict(
    lambda: collections.defaultdict(list)
  )
  varieties = _varieties([t.result.about for t in tasks.values()])
  for name, task in tasks.items():
    about = task.result.about
    group = Group(
      about.benchmark, subset_of(about), about.protocol == eval_tasks.HARNESS, task.metric
    )
    gathered[group][varieties[name]].append(task)
  groups = {
    group: {
      name: part
      for variety in sorted(cells)
      for name, part in _spoken(eval_figures.cell(variety, cells[variety])).items()
    }
    for group, cells in sorted(gathered.items())
  }
  return Board(evaluation, groups | _splits(groups), tasks, problems)


def shown_metric(result: eval_tasks.Result, problems: list[str]) -> str | None:
  """The published metric of a task; the first that it has where that was not measured."""
  about = result.about
  if about.metric in result.metrics:
    return about.metric
  others = [m for m in result.metrics if not m.endswith((eval_tasks.LOW, eval_tasks.HIGH))]
  if not others:
    problems.append(f'task {about.name} has no figures')
    return None
  told = f'lacks its published metric {about.metric}' if about.metric else 'names no metric'
  problems.append(f'task {about.name} {told}; {others[0]} is shown')
  return others[0]


def _written(evaluation: eval_runs.Evaluation, result: eval_tasks.Result, metric: str) -> Figure:
  """A figure of results.json; draws are normal, as wide as its interval."""
  value = result.metrics[metric]
  low = result.metrics.get(metric + eval_tasks.LOW)
  high = result.metrics.get(metric + eval_tasks.HIGH)
  if low is None or high is None:
    return Figure(value)
  # Prompts of one benchmark and language ask the same examples: they are drawn alike.
  about = result.about
  key = f'{evaluation.folder}/{about.benchmark}/{about.subset}/{about.language}'
  rng = np.random.default_rng(zlib.crc32(key.encode()))
  draws = value + (high - low) / (2 * eval_figures.NORMAL_95) * rng.standard_normal(
    eval_figures.DRAWS
  )
  return Figure(value, low, high, draws)


def _varieties(tasks: Sequence[eval_tasks.EvalTask]) -> dict[str, str]:
  """What tells the languages of a benchmark apart: the code, or a benchmark's own where needed.

  Belebele has Arabic in two scripts: `arb_Arab` and `arb_Latn` are one language of the 101.
  """
  same: dict[tuple[str, ...], list[str]] = collections.defaultdict(list)
  for t in tasks:
    same[(t.benchmark, t.subset, t.protocol, t.language, t.prompt)].append(t.name)
  crowded = {key[:4] for key, names in same.items() if len(names) > 1}
  return {
    t.name: _variety_of(t.subset)
    or (_own_code(t) if (t.benchmark, t.subset, t.protocol, t.language) in crowded else t.language)
    for t in tasks
  }


_VARIETY = re.compile(r'[a-z]{2,3}_[A-Z][a-z]{3}')


def _variety_of(subset: str) -> str:
  """A code with a script among the parts of a subset ('to_english.zho_Hant'), '' without one."""
  return next((part for part in subset.split('.') if _VARIETY.fullmatch(part)), '')


def subset_of(task: eval_tasks.EvalTask) -> str:
  """A task's subset without the variety of its language."""
  return '.'.join(part for part in task.subset.split('.') if not _VARIETY.fullmatch(part))


def _own_code(task: eval_tasks.EvalTask) -> str:
  parts = task.name.removeprefix(f'{task.benchmark}.').split('.')
  return parts[0] if parts[0] and len(parts) > 1 else task.name


def _splits(groups: Mapping[Group, Cells]) -> dict[Group, Cells]:
  """Culturally sensitive and agnostic rows of a benchmark apart, where rows say which they are."""
  found: dict[Group, dict[str, Cell]] = collections.defaultdict(dict)
  for group, cells in groups.items():
    if group.subset:
      continue
    for variety, cell in cells.items():
      if cell.matrix is None or not cell.tasks:
        continue
      labels = np.array(cell.tasks[0].answers.groups)  # type: ignore[union-attr]
      for name in sorted({*labels} - {''}):
        subset = dataclasses.replace(group, subset=str(name))
        found[subset][variety] = _part(cell, labels == name)
  return {group: cells for group, cells in found.items() if group not in groups}


def _spoken(cell: Cell) -> dict[str, Cell]:
  """A cell without a language, as one for each language that its rows name; by variety."""
  if cell.language or cell.matrix is None:
    return {cell.variety: cell}
  names = np.array(cell.tasks[0].answers.languages)  # type: ignore[union-attr]
  found = {}
  for name in sorted({*names}):
    code = _code(str(name))
    part = _part(cell, names == name)
    found[str(name)] = dataclasses.replace(
      part,
      variety=str(name) if code != name else code,
      language=code,
      script=eval_figures.script_of(code, name),
    )
  return found


def _code(name: str) -> str:
  try:
    return language_codes.resolve(name).code if name else ''
  except language_codes.UnknownLanguageError:
    return name


def _part(cell: Cell, chosen: np.ndarray) -> Cell:
  """Some examples of a cell that has per-example figures."""
  matrix: np.ndarray = cell.matrix[:, chosen]  # type: ignore[index]
  means, draws = matrix.mean(axis=1), eval_figures.draws_of(matrix)
  return dataclasses.replace(
    cell,
    tasks=[],
    median=eval_figures.of_draws(float(np.median(means)), np.median(draws, axis=1)),
    maximum=eval_figures.of_draws(float(np.max(means)), np.max(draws, axis=1)),
    examples=matrix.shape[1],
    matrix=matrix,
    indices=cell.indices[chosen],  # type: ignore[index]
  )

"""From per-task figures to those that are published: median and maximum over prompts, means.

A figure carries its bootstrap draws (1,000 resamples of the examples), so that everything made of
several figures has an interval too. Tasks with as many examples are resampled alike: benchmarks
that ask the same questions in every language, prompts of one task, and two models on one task
keep what they have in common. Languages and prompts are not resampled: they are the ones asked.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from aya_train.report import scored_answers
from aya_train.tasks import eval_tasks
from aya_train.tasks.languages import aya101, language_codes

DRAWS = 1000
_MOST_RESAMPLED = 30_000  # of more examples, the normal distribution says the same
LEVELS = {'high': 'high resource', 'mid': 'mid resource', 'low': 'low resource'}
OTHER_LEVEL = 'not of the 101'
NORMAL_95 = 1.959964


@dataclasses.dataclass(frozen=True)
class Figure:
  """A value with its 95 % interval; both ends None where nothing is known of it.

  Attributes:
    value, low, high: in the metric's own unit.
    draws: shape (DRAWS,), None where there is no interval.
  """

  value: float
  low: float | None = None
  high: float | None = None
  draws: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)


def of_draws(value: float, draws: np.ndarray | None) -> Figure:
  """A figure whose interval is the middle 95 % of its draws."""
  if draws is None:
    return Figure(value)
  low, high = np.percentile(draws, (2.5, 97.5))
  return Figure(float(value), float(low), float(high), draws)


def _mean(values: np.ndarray) -> np.ndarray:
  return np.asarray(values.mean(axis=0))


def combined(
  figures: Sequence[Figure], by: Callable[[np.ndarray], np.ndarray] | None = None
) -> Figure:
  """One figure of several, such as their mean; with an interval if all have one.

  Args:
    figures: at least one.
    by: takes the values, shape (figures,) or (figures, DRAWS), to () or (DRAWS,); default: mean.
  """
  made = by or _mean
  value = float(made(np.array([f.value for f in figures])))
  draws = [f.draws for f in figures if f.draws is not None]
  return of_draws(value, made(np.stack(draws)) if len(draws) == len(figures) else None)


def difference(a: Figure, b: Figure) -> Figure:
  """a - b."""
  return combined([a, b], lambda values: values[0] - values[1])


@dataclasses.dataclass(frozen=True, order=True)
class Group:
  """What stands in one table: a benchmark, or one of its subsets, by one metric.

  Attributes:
    benchmark, subset: as EvalTask has them.
    harness: whether it is scored as lm-evaluation-harness does, not as T0, mT0 and Aya do.
    metric: the published one.
  """

  benchmark: str
  subset: str = ''
  harness: bool = False
  metric: str = ''

  @property
  def title(self) -> str:
    parts = [self.benchmark, self.subset.replace('_', ' '), 'harness' if self.harness else '']
    return ', '.join(part for part in parts if part)

  @property
  def anchor(self) -> str:
    return eval_tasks.slug(f'{self.benchmark} {self.subset} {self.metric} {self.harness:d}')


@dataclasses.dataclass(frozen=True)
class TaskFigure:
  """One task of one evaluation.

  Attributes:
    result: as it was written.
    metric: the one that is shown, which is the published one where it was measured.
    figure: its value, with the interval of results.json where there is one.
    answers: its predictions, None where there are none.
  """

  result: eval_tasks.Result
  metric: str
  figure: Figure
  answers: scored_answers.Answers | None


@dataclasses.dataclass(frozen=True)
class Cell:
  """One language of a group: all its prompts.

  Attributes:
    variety: ISO 639-3 code; the benchmark's own where it has several varieties of one language.
    language: ISO 639-3 code, '' where rows have languages of their own.
    script: ISO 15924 code, '' if unknown.
    tasks: one a prompt.
    median, maximum: over the prompts.
    examples: of a prompt; the least where they differ.
    matrix: per-example figures in percent, shape (prompts, examples), or None.
    indices: of the matrix's examples.
  """

  variety: str
  language: str
  script: str
  tasks: Sequence[TaskFigure]
  median: Figure
  maximum: Figure
  examples: int
  matrix: np.ndarray | None = dataclasses.field(default=None, repr=False)
  indices: np.ndarray | None = dataclasses.field(default=None, repr=False)

  @property
  def name(self) -> str:
    known = aya101.described(self.language) if self.language else 'any language'
    return known if self.variety == self.language else f'{known}, {self.variety}'

  @property
  def level(self) -> str:
    language = aya101.BY_CODE.get(self.language)
    return OTHER_LEVEL if language is None else LEVELS[language.level]

  @property
  def chance(self) -> float | None:
    chances = [t.answers.chance for t in self.tasks if t.answers is not None]
    known = [chance for chance in chances if chance is not None]
    return float(np.mean(known)) if known else None


Cells = Mapping[str, Cell]


def lower_is_better(metric: str) -> bool:
  """Of errors, harm and gaps."""
  name = metric.casefold()
  return name.startswith(('delta_', 'toxic', 'expected_maximum_tox', 'repeated', 'loss', 'perplex'))


def script_of(language: str, variety: str = '') -> str:
  """ISO 15924 code of a language, or of a variety that says it ('arb_Latn'); '' if unknown."""
  for code in filter(None, (variety, language)):
    try:
      return language_codes.resolve(code).script
    except language_codes.UnknownLanguageError:
      continue
  return ''


def cell(variety: str, tasks: Sequence[TaskFigure]) -> Cell:
  tasks = sorted(tasks, key=lambda t: (t.result.about.prompt, t.result.about.name))
  language = tasks[0].result.about.language
  matrix, indices = _matrix(tasks)
  if matrix is not None and len(tasks) > 1:
    means = draws_of(matrix)
    values = [t.figure.value for t in tasks]
    median = of_draws(float(np.median(values)), np.median(means, axis=1))
    maximum = of_draws(max(values), np.max(means, axis=1))
  elif len(tasks) == 1:
    draws = tasks[0].figure.draws if matrix is None else draws_of(matrix)[:, 0]
    figure = tasks[0].figure
    if figure.low is None and draws is not None:
      figure = of_draws(figure.value, draws)
    median = maximum = dataclasses.replace(figure, draws=draws)
  else:
    figures = [t.figure for t in tasks]
    median = combined(figures, functools.partial(np.median, axis=0))
    maximum = combined(figures, functools.partial(np.max, axis=0))
  return Cell(
    variety,
    language,
    script_of(language, variety),
    tasks,
    median,
    maximum,
    min(t.result.num_examples for t in tasks),
    matrix,
    indices,
  )


def _matrix(tasks: Sequence[TaskFigure]) -> tuple[np.ndarray | None, np.ndarray | None]:
  """Per-example figures of all prompts, where all have those of the same examples."""
  rows = []
  for task in tasks:
    if task.answers is None or task.answers.scores is None:
      return None, None
    if not np.array_equal(task.answers.indices, tasks[0].answers.indices):  # type: ignore[union-attr]
      return None, None
    rows.append(task.answers.scores)
  return np.stack(rows).astype(np.float32), tasks[0].answers.indices  # type: ignore[union-attr]


def draws_of(matrix: np.ndarray) -> np.ndarray:
  """Bootstrap means of each row of (rows, examples), shape (DRAWS, rows).

  Matrices of as many examples get the same resamples.
  """
  count = matrix.shape[1]
  if count > _MOST_RESAMPLED:
    rng = np.random.default_rng(count)
    spread = np.atleast_2d(np.cov(matrix)) / count
    normal = rng.multivariate_normal(np.zeros(len(matrix)), spread, DRAWS, method='svd')
    return matrix.mean(axis=1) + normal
  return resamples(count) @ matrix.T / count


@functools.lru_cache(maxsize=2)
def resamples(count: int) -> np.ndarray:
  """How often each of `count` examples is in a resample, shape (DRAWS, count), float32."""
  rng = np.random.default_rng(count)
  picked = rng.integers(0, count, (DRAWS, count)) + count * np.arange(DRAWS)[:, None]
  return np.bincount(picked.ravel(), minlength=DRAWS * count).reshape(DRAWS, -1).astype(np.float32)


# What is made of the languages of a group ---------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Parity:
  """How a model's languages compare on a benchmark, by the median over prompts.

  Attributes:
    average: mean over languages.
    best, worst: cells.
    gap: between them, not negative; the interval is that of these two languages.
    languages: how many.
  """

  average: Figure
  best: Cell
  worst: Cell
  gap: Figure
  languages: int


def parity(cells: Cells, metric: str = '') -> Parity | None:
  """None where no task has a language, or all have one."""
  spoken = [cell for cell in cells.values() if cell.language]
  if len(spoken) < 2:
    return None
  ordered = sorted(spoken, key=lambda cell: cell.median.value)
  highest, lowest = ordered[-1], ordered[0]
  gap = difference(highest.median, lowest.median)
  best, worst = (lowest, highest) if lower_is_better(metric) else (highest, lowest)
  return Parity(mean(spoken), best, worst, gap, len(spoken))


def mean(cells: Sequence[Cell], statistic: str = 'median') -> Figure:
  """Mean over languages of the median or the maximum over prompts."""
  return combined([getattr(cell, statistic) for cell in cells])


def means_by(cells: Cells, key: Callable[[Cell], str]) -> dict[str, tuple[Figure, int]]:
  """Mean over the languages of each kind, and how many they are; sorted by kind."""
  kinds: dict[str, list[Cell]] = collections.defaultdict(list)
  for cell in cells.values():
    if cell.language:
      kinds[key(cell)].append(cell)
  return {kind: (mean(kinds[kind]), len(kinds[kind])) for kind in sorted(kinds)}


PAIRS = (
  ('culturally_sensitive', 'culturally_agnostic'),
  ('local', 'translated'),
)
"""Subsets whose difference is reported: Global-MMLU's and MultiLoKo's."""


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two subsets of a benchmark, over the languages that both have.

  Attributes:
    benchmark: whose.
    names: of the subsets.
    first, second, gap: means over languages, and the first minus the second.
    languages: variety -> (first cell, second cell, gap).
  """

  benchmark: str
  names: tuple[str, str]
  first: Figure
  second: Figure
  gap: Figure
  languages: Mapping[str, tuple[Cell, Cell, Figure]]


def pairs(groups: Mapping[Group, Cells]) -> list[Pair]:
  """All that are there, by benchmark."""
  found = []
  for group, cells in groups.items():
    for names in PAIRS:
      if group.subset != names[0]:
        continue
      others = groups.get(dataclasses.replace(group, subset=names[1]), {})
      both = sorted({*cells} & {*others})
      if not both:
        continue
      first, second = mean([cells[v] for v in both]), mean([others[v] for v in both])
      languages = {v: (cells[v], others[v], apart(cells[v].median, others[v].median)) for v in both}
      found.append(Pair(group.benchmark, names, first, second, apart(first, second), languages))
  return found


def apart(a: Figure, b: Figure) -> Figure:
  """a - b of different examples, whose draws have nothing in common."""
  if b.draws is None:
    return difference(a, b)
  shuffled = np.random.default_rng(0).permutation(b.draws)
  return difference(a, dataclasses.replace(b, draws=shuffled))

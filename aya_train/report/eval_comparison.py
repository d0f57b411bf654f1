"""Two evaluations compared, by language and by task, corrected for many comparisons.

Where both have predictions for the same examples, differences are paired: p is that of a
randomisation test (the two models' answers to an example change places at random; 2,000 rounds,
and beyond what they resolve the normal distribution with their spread). Else, as for BLEU, it is
that of a normal test with the widths of both intervals, which ignores that the examples are the
same.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from aya_train.report import eval_boards, eval_figures
from aya_train.tasks.metrics import comparisons

ROUNDS = 2000
LEVEL = 0.05
_FEW = 10  # rounds as extreme, below which a count says little
_SETTINGS = 300_000_000  # most cells of a round's signs: of more examples, normal p alone

Method = Literal['paired', 'intervals']


@dataclasses.dataclass(frozen=True)
class Difference:
  """One figure of two evaluations.

  Attributes:
    before, after: of the first and of the second.
    change: after - before, in the metric's unit.
    p_value: two-sided, None where there is no interval to test with.
    p_adjusted: after Holm over all of its table, None as p_value.
    p_fdr: the same after Benjamini and Hochberg.
    method: how it was tested.
    examples: of a prompt.
    lower_is_better: whether a fall is good.
  """

  before: eval_figures.Figure
  after: eval_figures.Figure
  change: eval_figures.Figure
  p_value: float | None
  method: Method
  examples: int
  lower_is_better: bool = False
  p_adjusted: float | None = None
  p_fdr: float | None = None

  @property
  def verdict(self) -> str:
    """'better', 'worse', '' where no difference is shown, '?' where none can be."""
    if self.p_adjusted is None:
      return '?'
    if self.p_adjusted >= LEVEL:
      return ''
    return 'better' if (self.change.value > 0) != self.lower_is_better else 'worse'


@dataclasses.dataclass(frozen=True)
class Comparison:
  """All that two evaluations share.

  Attributes:
    before, after: their names.
    languages: (group, variety) -> difference of the median over prompts.
    means: group -> difference of the mean over the languages that both have, and how many.
    tasks: task -> difference.
    alone: in words, what only one of them has.
  """

  before: str
  after: str
  languages: Mapping[tuple[eval_figures.Group, str], Difference]
  means: Mapping[eval_figures.Group, tuple[Difference, int]]
  tasks: Mapping[str, Difference]
  alone: Sequence[str]

  def count(self, verdict: str) -> int:
    """How many languages of benchmarks are 'better', 'worse' ..."""
    return sum(d.verdict == verdict for d in self.languages.values())


def compare(before: eval_boards.Board, after: eval_boards.Board) -> Comparison:
  """Compares the second with the first; each of the three tables is corrected by itself."""
  languages: dict[tuple[eval_figures.Group, str], Difference] = {}
  means: dict[eval_figures.Group, tuple[Difference, int]] = {}
  for group in sorted({*before.groups} & {*after.groups}):
    old, new = before.groups[group], after.groups[group]
    both = sorted({*old} & {*new})
    pairs = [_aligned(old[v], new[v]) for v in both]
    for variety, (a, b) in zip(both, pairs, strict=True):
      languages[group, variety] = _cells(a, b, group.metric)
    if both:
      means[group] = _means([languages[group, v] for v in both], group.metric), len(both)
  tasks = {
    name: _cells(_alone(before.tasks[name]), _alone(after.tasks[name]), before.tasks[name].metric)
    for name in sorted({*before.tasks} & {*after.tasks})
    if before.tasks[name].metric == after.tasks[name].metric
  }
  return Comparison(
    before.evaluation.name,
    after.evaluation.name,
    _corrected(languages),
    {g: (d, means[g][1]) for g, d in _corrected({g: d for g, (d, _) in means.items()}).items()},
    _corrected(tasks),
    _only(before, after) + _only(after, before),
  )


def _only(one: eval_boards.Board, other: eval_boards.Board) -> list[str]:
  names = sorted({*one.tasks} - {*other.tasks})
  if not names:
    return []
  more = f' and {len(names) - 5} more' if names[5:] else ''
  return [f'{len(names)} only in {one.evaluation.name}: {", ".join(names[:5])}{more}']


def _alone(task: eval_figures.TaskFigure) -> eval_figures.Cell:
  """A task as a cell of one prompt."""
  return eval_figures.cell(task.result.about.language, [task])


def _aligned(
  a: eval_figures.Cell, b: eval_figures.Cell
) -> tuple[eval_figures.Cell, eval_figures.Cell]:
  """Both with the prompts that both have, as long as there are such."""
  prompts = [{t.result.about.prompt for t in cell.tasks} for cell in (a, b)]
  shared = prompts[0] & prompts[1]
  if prompts[0] == prompts[1] or not shared:
    return a, b
  cut = [
    eval_figures.cell(c.variety, [t for t in c.tasks if t.result.about.prompt in shared])
    for c in (a, b)
  ]
  return cut[0], cut[1]


def _cells(a: eval_figures.Cell, b: eval_figures.Cell, metric: str) -> Difference:
  lower = eval_figures.lower_is_better(metric)
  examples = min(a.examples, b.examples)
  if (
    a.matrix is not None
    and b.matrix is not None
    and a.indices is not None
    and b.indices is not None
    and np.array_equal(a.indices, b.indices)
  ):
    change = eval_figures.difference(b.median, a.median)
    p_value = randomised(a.matrix, b.matrix)
    return Difference(a.median, b.median, change, p_value, 'paired', examples, lower)
  change = eval_figures.apart(b.median, a.median)
  return Difference(a.median, b.median, change, _normal(change), 'intervals', examples, lower)


def _means(differences: Sequence[Difference], metric: str) -> Difference:
  before = eval_figures.combined([d.before for d in differences])
  after = eval_figures.combined([d.after for d in differences])
  change = eval_figures.combined([d.change for d in differences])
  paired = all(d.method == 'paired' for d in differences)
  examples = sum(d.examples for d in differences)
  return Difference(
    *(before, after, change, _normal(change), 'paired' if paired else 'intervals', examples),
    lower_is_better=eval_figures.lower_is_better(metric),
  )


def _normal(change: eval_figures.Figure) -> float | None:
  if change.draws is None:
    return None
  return _two_sided(change.value, float(np.std(change.draws)))


def _two_sided(value: float, spread: float) -> float:
  if spread == 0:
    return 1.0 if abs(value) < 1e-9 else 0.0
  return math.erfc(abs(value) / spread / math.sqrt(2))


def randomised(a: np.ndarray, b: np.ndarray) -> float:
  """p of the difference between the medians over prompts of two (prompts, examples) matrices."""
  count = a.shape[1]
  apart = (b - a).astype(np.float64)
  means = a.mean(axis=1, dtype=np.float64), b.mean(axis=1, dtype=np.float64)
  found = float(np.median(means[1]) - np.median(means[0]))
  if not apart.any():
    return 1.0
  moved = _signs(count) @ apart.T / count
  rounds = np.median(means[1] - moved, axis=1) - np.median(means[0] + moved, axis=1)
  extreme = int(np.sum(np.abs(rounds) >= abs(found) - 1e-9))
  if extreme >= _FEW:
    return (1 + extreme) / (1 + len(rounds))
  spread = float(np.sqrt(np.mean(rounds**2)))
  return min(_two_sided(found, spread), (1 + extreme) / (1 + len(rounds)))


@functools.lru_cache(maxsize=2)
def _signs(count: int) -> np.ndarray:
  """Which answers change places in each round, shape (rounds, count), float32 0 or 1."""
  rounds = max(200, min(ROUNDS, _SETTINGS // (4 * count)))
  return np.random.default_rng(count).integers(0, 2, (rounds, count)).astype(np.float32)


def _corrected(differences: Mapping) -> dict:
  """With p values corrected for how many they are; those without one do not count."""
  tested = {key: d.p_value for key, d in differences.items() if d.p_value is not None}
  holm = dict(zip(tested, comparisons.holm([*tested.values()]), strict=True))
  fdr = dict(zip(tested, comparisons.benjamini_hochberg([*tested.values()]), strict=True))
  return {
    key: dataclasses.replace(d, p_adjusted=holm.get(key), p_fdr=fdr.get(key))
    for key, d in differences.items()
  }

"""A SeqIO mixture with a weight for each source, and three ways to share it inside a source.

`seqio.Mixture` has one rate for each task. Aya-101's mixtures have two levels (AYA section 3.2): a
weight for a source, and inside it explicit weights of data sets, the rest in proportion to size;
or equal weights. Which data sets have rows, and how many, is known only when they are built, so
the rates are a function of the tasks' numbers of examples.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import seqio

from aya_train.tasks import split_slices

PROPORTIONAL, UNIFORM = 'proportional', 'uniform'
REFUSE, RENORMALISE = 'refuse', 'renormalise'


@dataclasses.dataclass(frozen=True)
class Part:
  """A weighted source of a mixture.

  Attributes:
    name: of the source, and of the task with all of its rows if there are no data sets.
    percent: its share of the draws.
    datasets: tasks of its data sets, whose rows together are the source's; () if it has none.
    languages: tasks of its languages, read instead of `name` when weights are uniform.
  """

  name: str
  percent: float
  datasets: tuple[str, ...] = ()
  languages: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class MixtureSettings:
  """What a user chooses of every `SourceMixture` (gin: the macros MIXTURE_*).

  Attributes:
    within_source: 'proportional' (a data set's draws are proportional to its rows) or 'uniform'
      (data sets weigh the same; languages do where a source has no data sets), or a mapping of
      sources to one of these, others being proportional.
    dataset_weights: source -> {data set: percent of that source's draws}; the other data sets
      share the rest as `within_source` says.
    missing_sources: 'refuse' a mixture with a source that is not built, or 'renormalise' the
      weights of the others.
  """

  within_source: str | Mapping[str, str] = PROPORTIONAL
  dataset_weights: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
  missing_sources: str = REFUSE

  def __post_init__(self):
    modes = self.within_source if isinstance(self.within_source, Mapping) else {'': self.mode('')}
    if bad := sorted(f'{k}: {v!r}' for k, v in modes.items() if v not in (PROPORTIONAL, UNIFORM)):
      raise ValueError(
        f"within_source (MIXTURE_WITHIN_SOURCE) must be 'proportional' or 'uniform', got {bad}"
      )
    if self.missing_sources not in (REFUSE, RENORMALISE):
      raise ValueError(
        "missing_sources (MIXTURE_MISSING_SOURCES) must be 'refuse' or 'renormalise', got "
        f'{self.missing_sources!r}'
      )
    for source, weights in self.dataset_weights.items():
      if min(weights.values(), default=0) < 0 or sum(weights.values()) > 100:
        raise ValueError(
          f'dataset_weights (MIXTURE_DATASET_WEIGHTS) of {source!r} are percent of that source: '
          f'none below 0, together at most 100, got {dict(weights)}'
        )

  def mode(self, source: str) -> str:
    """'proportional' or 'uniform', for a source."""
    if isinstance(self.within_source, Mapping):
      return self.within_source.get(source, PROPORTIONAL)
    return self.within_source


_settings = MixtureSettings()


def configure(settings: MixtureSettings) -> None:
  """Sets what holds for every `SourceMixture` of this process, those registered before included."""
  global _settings
  _settings = settings


def settings() -> MixtureSettings:
  """What holds now."""
  return _settings


@dataclasses.dataclass(frozen=True)
class Availability:
  """What a mixture lacks for a split.

  Attributes:
    sources: percent of the sources of which nothing is there, by name.
    tasks: tasks whose data set is not built.
    empty: tasks whose data set is built, and has no row in this split.
    problems: for some missing tasks, what their source says.
  """

  sources: Mapping[str, float]
  tasks: tuple[str, ...]
  empty: tuple[str, ...]
  problems: tuple[str, ...]


class SourceMixture(seqio.Mixture):
  """A mixture of `Part`s. Under SeqIO alone it behaves as any other.

  Rates are percent of the draws where every source has rows. A source without any gives its share
  to the others in proportion, so `require` first.
  """

  def __init__(self, name: str, tasks: Sequence[Part], **kwargs: object):
    """`tasks` are the parts; the name is SeqIO's.

    Raises:
      ValueError: percents that do not sum to 100, a source twice, or an unknown task.
    """
    kwargs.pop('default_rate', None)
    self.parts = tuple(tasks)
    self._left_out: frozenset[str] = frozenset()
    self._num_examples: tuple[object, dict[str, int]] | None = None
    names = [part.name for part in self.parts]
    total = sum(part.percent for part in self.parts)
    if len(set(names)) < len(names) or abs(total - 100) > 1e-6:
      raise ValueError(
        f'{name}: weights of {names} must sum to 100 and name a source once, {total}'
      )
    super().__init__(
      name, [(t, 0.0) for p in self.parts for t in p.datasets or (p.name,)], **kwargs
    )

  def units(self, part: Part) -> tuple[str, ...]:
    """Names of the tasks that a source is read by, under the settings in force."""
    if part.datasets:
      return part.datasets
    if _settings.mode(part.name) == UNIFORM and part.languages:
      return part.languages
    return (part.name,)

  @property
  def tasks(self) -> list[seqio.Task]:
    names = {unit for part in self.parts for unit in self.units(part)} - self._left_out
    return [seqio.TaskRegistry.get(name) for name in sorted(names)]

  def part_of(self, task_name: str) -> Part:
    """The source that a task belongs to."""
    return next(part for part in self.parts if task_name in self.units(part))

  def leave_out(self, names: Sequence[str]) -> None:
    """Reads all but these tasks from now on; the rates of the others fill their place."""
    self._left_out = frozenset(names)

  def rates(self, num_examples: Mapping[str, int]) -> dict[str, float]:
    """Percent of the draws of each task, by the numbers of examples of those that are there.

    A pure function. Tasks that `num_examples` lacks, or has with 0, get no entry; a source without
    a task gets nothing, and what is left is not scaled up to 100.

    Raises:
      ValueError: dataset_weights name a data set that the source does not have.
    """
    rates: dict[str, float] = {}
    for part in self.parts:
      units = {name: num_examples[name] for name in self.units(part) if num_examples.get(name)}
      for name, share in _shares(part, units).items():
        rates[name] = part.percent * share
    return rates

  @property
  def rate_per_task_name(self) -> Mapping[str, float]:
    return self.rates(self._counts())

  @property
  def total_rate(self) -> float:
    return sum(self.rate_per_task_name.values())

  def get_rate(self, task: seqio.Task) -> float:
    return self.rate_per_task_name.get(task.name, 0.0)

  def _get_all_mixing_rates(self, tasks: Sequence[seqio.Task]) -> list[float]:
    rates = self.rate_per_task_name
    return [rates.get(task.name, 0.0) for task in tasks]

  def _counts(self) -> dict[str, int]:
    """Examples of the training split of each task; opening hundreds of manifests takes a while."""
    key = (_settings, self._left_out)
    if self._num_examples is None or self._num_examples[0] != key:
      counts = {t.name: t.num_input_examples('train') or 0 for t in self.tasks}
      self._num_examples = (key, counts)
    return self._num_examples[1]

  def availability(
    self, split: str, is_prepared: Callable[[seqio.Task], bool] = lambda task: False
  ) -> Availability:
    """Looks for the data of every task that has the split.

    Args:
      split: such as 'train'.
      is_prepared: whether the tokens of a task are there; its source is then not looked for. Its
        errors are passed on: without a vocabulary nothing can be said about any source.
    """
    missing, empty, problems, present = [], [], [], set()
    for task in (seqio.TaskRegistry.get(n) for p in self.parts for n in self.units(p)):
      if not split_slices.has(task, split):
        continue
      there = is_prepared(task)
      try:
        if there or split_slices.with_split(task, split).source.list_shards(split):
          present.add(task.name)
        else:
          empty.append(task.name)
      except FileNotFoundError as error:
        missing.append(task.name)
        problems.append(str(error))
    absent = {
      part.name: part.percent
      for part in self.parts
      if not present & set(self.units(part)) and set(missing) & set(self.units(part))
    }
    return Availability(absent, tuple(missing), tuple(empty), tuple(problems[:3]))

  def require(
    self, split: str, is_prepared: Callable[[seqio.Task], bool] = lambda task: False
  ) -> Availability:
    """Refuses a split with missing data, or leaves it out if the settings say 'renormalise'.

    Data sets that are built and have no rows in the split are left out in either case.

    Raises:
      FileNotFoundError: data is missing; all of it is named.
    """
    found = self.availability(split, is_prepared)
    if found.tasks and _settings.missing_sources == REFUSE:
      raise FileNotFoundError(self._complaint(found, split))
    self.leave_out([*found.tasks, *found.empty])
    if not self.tasks:
      raise FileNotFoundError(self._complaint(found, split))
    return found

  def _complaint(self, found: Availability, split: str) -> str:
    whole = [f'{name} ({percent:.3g} %)' for name, percent in found.sources.items()]
    parts = [t for t in found.tasks if self.part_of(t).name not in found.sources]
    listed = []
    if whole:
      listed.append(f'sources that are not built: {", ".join(whole)}')
    if parts:
      listed.append(f'data sets that are not built: {_some(parts)}')
    why = found.problems[0] if found.problems else f'no task has rows in {split!r}'
    return (
      f'mixture {self.name!r}, split {split!r}: {"; ".join(listed)}. First: {why}. Or train on the '
      "rest, its weights scaled up, with MIXTURE_MISSING_SOURCES = 'renormalise'"
    )


def _shares(part: Part, num_examples: Mapping[str, int]) -> dict[str, float]:
  """Share of each present task in its source; they sum to 1 (or there is none)."""
  explicit = _explicit(part)
  given = {name: explicit[name] / 100 for name in num_examples if name in explicit}
  rest = {name: n for name, n in num_examples.items() if name not in explicit}
  if _settings.mode(part.name) == UNIFORM:
    rest = dict.fromkeys(rest, 1)
  left = 1 - sum(given.values()) if rest else 0.0
  shares = given | {name: left * n / sum(rest.values()) for name, n in rest.items()}
  total = sum(shares.values())
  return {name: share / total for name, share in shares.items() if share > 0}


def _explicit(part: Part) -> dict[str, float]:
  weights = _settings.dataset_weights.get(part.name, {})
  by_dataset = {name.removeprefix(f'{part.name}.'): name for name in part.datasets}
  if unknown := sorted(set(weights) - set(by_dataset)):
    raise ValueError(
      f'MIXTURE_DATASET_WEIGHTS: {part.name!r} has no data set {unknown}; it has '
      f'{sorted(by_dataset) or "none"}'
    )
  return {by_dataset[dataset]: weight for dataset, weight in weights.items()}


def _some(names: Sequence[str], first: int = 10) -> str:
  more = len(names) - first
  return ', '.join(names[:first]) + (f' and {more} more' if more > 0 else '')


def check_parts(known: Sequence[str], chosen: MixtureSettings) -> None:
  """Refuses settings that name sources that no mixture has.

  Raises:
    ValueError: with the names.
  """
  modes = chosen.within_source if isinstance(chosen.within_source, Mapping) else {}
  if unknown := sorted({*modes, *chosen.dataset_weights} - set(known)):
    raise ValueError(
      f'MIXTURE_WITHIN_SOURCE or MIXTURE_DATASET_WEIGHTS name unknown sources {unknown}; mixtures '
      f'have {sorted(known)}'
    )


add = functools.partial(seqio.MixtureRegistry.add, mixture_cls=SourceMixture)

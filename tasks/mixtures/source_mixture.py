"""A SeqIO mixture with a weight for each source, and three ways to share it inside a source.

`seqio.Mixture` has one rate for each task. Aya-101's mixtures have two levels (AYA section 3.2): a
weight for a source, and inside it explicit weights of data sets, the rest in proportion to size;
or equal weights. Which data sets have rows, and how many, is known only when they are built, so
the rates are a function of the tasks' numbers of examples.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import seqio

from aya_train.tasks import sliced_source, split_slices

PROPORTIONAL, UNIFORM = 'proportional', 'uniform'
REFUSE, RENORMALISE = 'refuse', 'renormalise'


@dataclasses.dataclass(frozen=True)
class Part:
  """A weighted source of a mixture.

  Attributes:
    name: of the part, and of the task with all of its rows if there are no data sets.
    percent: its share of the draws.
    datasets: tasks of its data sets, whose rows together are the part's; () if it has none.
    languages: tasks of its languages, read instead of `name` when weights are uniform.
    variant: word behind the source's name where a part reads some of its rows only, such as the
      long ones beside a part that reads them all; '' for all rows.
  """

  name: str
  percent: float
  datasets: tuple[str, ...] = ()
  languages: tuple[str, ...] = ()
  variant: str = ''

  @property
  def source(self) -> str:
    """Name of the source, by which settings know the part; parts of one share its weight."""
    return self.name.removesuffix(f'.{self.variant}') if self.variant else self.name

  def dataset(self, task_name: str) -> str:
    """The data set that one of `datasets` reads, as settings name it."""
    return task_name.removeprefix(f'{self.name}.')

  def plain(self, task_name: str) -> str:
    """The task of all rows of what one of the part's tasks reads."""
    return self.source + task_name.removeprefix(self.name)


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
    present: the other tasks that have the split, which are to be read.
    problems: for some missing tasks, what their source says.
  """

  sources: Mapping[str, float]
  tasks: tuple[str, ...]
  empty: tuple[str, ...]
  present: tuple[str, ...]
  problems: tuple[str, ...]


class SourceMixture(seqio.Mixture):
  """A mixture of `Part`s. Under SeqIO alone it behaves as any other.

  Rates are percent of the draws where every source has rows. A source without any gives its share
  to the others in proportion; `require` says what there is.
  """

  def __init__(self, name: str, tasks: Sequence[Part], **kwargs: object):
    """`tasks` are the parts; the name is SeqIO's.

    Raises:
      ValueError: percents that do not sum to 100, a source twice, or an unknown task.
    """
    kwargs.pop('default_rate', None)
    self.parts = tuple(tasks)
    self._num_examples: tuple[MixtureSettings, dict[str, int]] | None = None
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
    if _settings.mode(part.source) == UNIFORM and part.languages:
      return part.languages
    return (part.name,)

  @property
  def tasks(self) -> list[seqio.Task]:
    names = {unit for part in self.parts for unit in self.units(part)}
    return [seqio.TaskRegistry.get(name) for name in sorted(names)]

  def part_of(self, task_name: str) -> Part:
    """The source that a task belongs to."""
    return next(part for part in self.parts if task_name in self.units(part))

  def rates(self, num_examples: Mapping[str, int]) -> dict[str, float]:
    """Percent of the draws of each task, by the numbers of examples of those that are there.

    A function of these and the settings. Tasks that `num_examples` lacks, or has with 0, get no
    entry. A source whose parts are not all there keeps its percent; one of which nothing is there
    gets nothing, and what is left is not scaled up to 100. So the sources that are there stay in
    the proportions of the table, whatever is missing.

    Raises:
      ValueError: dataset_weights name a data set that the source does not have.
    """
    shares = {}
    for part in self.parts:
      units = {name: num_examples[name] for name in self.units(part) if num_examples.get(name)}
      if found := _shares(part, units):
        shares[part.name] = found
    declared, filled = self._percent(p.name for p in self.parts), self._percent(shares)
    return {
      name: part.percent * share * declared[part.source] / filled[part.source]
      for part in self.parts
      for name, share in shares.get(part.name, {}).items()
    }

  def _percent(self, part_names: Iterable[str]) -> dict[str, float]:
    """Sum of some parts' percents by source."""
    chosen, found = set(part_names), dict[str, float]()
    for part in self.parts:
      if part.name in chosen:
        found[part.source] = found.get(part.source, 0.0) + part.percent
    return found

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
    if self._num_examples is None or self._num_examples[0] != _settings:
      self._num_examples = _settings, {task.name: _count(task) for task in self.tasks}
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
    missing, empty, problems, present = [], [], [], []
    for task in (seqio.TaskRegistry.get(n) for p in self.parts for n in self.units(p)):
      if not split_slices.has(task, split):
        continue
      there = is_prepared(task)
      try:
        if there or sliced_source.with_split(task, split).source.list_shards(split):
          present.append(task.name)
        else:
          empty.append(task.name)
      except FileNotFoundError as error:
        missing.append(task.name)
        problems.append(str(error))
    units: dict[str, set[str]] = {}
    for part in self.parts:
      units.setdefault(part.source, set()).update(self.units(part))
    absent = {
      source: percent
      for source, percent in self._percent(p.name for p in self.parts).items()
      if not units[source] & set(present) and units[source] & set(missing)
    }
    return Availability(
      absent, tuple(missing), tuple(empty), tuple(sorted(present)), tuple(problems[:3])
    )

  def require(
    self, split: str, is_prepared: Callable[[seqio.Task], bool] = lambda task: False
  ) -> Availability:
    """Refuses a split with missing data, unless the settings say 'renormalise'.

    Returns:
      What there is and what there is not. To be read are the tasks in `present`; data sets that
      are built and have no rows in the split are not among them in either case. There may be none
      if only some tasks have such a split.

    Raises:
      FileNotFoundError: data is missing; all of it is named.
    """
    found = self.availability(split, is_prepared)
    if found.tasks and _settings.missing_sources == REFUSE:
      raise FileNotFoundError(self._complaint(found, split))
    if not found.present and all(split.split('[')[0] in task.splits for task in self.tasks):
      raise FileNotFoundError(self._complaint(found, split))
    return found

  def data_sets(self, task_names: Iterable[str]) -> list[str]:
    """The tasks of all rows of what some tasks read, each once: what `prepare` is to be told."""
    return list(dict.fromkeys(self.part_of(name).plain(name) for name in task_names))

  def _complaint(self, found: Availability, split: str) -> str:
    whole = [f'{name} ({percent:.3g} %)' for name, percent in found.sources.items()]
    parts = self.data_sets(t for t in found.tasks if self.part_of(t).source not in found.sources)
    listed = []
    if whole:
      listed.append(f'sources that are not built: {", ".join(whole)}')
    if parts:
      listed.append(f'data sets that are not built: {some(parts)}')
    why = found.problems[0] if found.problems else f'no task has rows in {split!r}'
    return (
      f'mixture {self.name!r}, split {split!r}: {"; ".join(listed)}. First: {why}. Or train on the '
      "rest, its weights scaled up, with MIXTURE_MISSING_SOURCES = 'renormalise'"
    )


def _count(task: seqio.Task) -> int:
  """Rows to train on; 0 for a data set that is not built, if such may be missing."""
  try:
    return task.num_input_examples('train') or 0
  except FileNotFoundError:
    if _settings.missing_sources == REFUSE:
      raise
    return 0


def _shares(part: Part, num_examples: Mapping[str, int]) -> dict[str, float]:
  """Share of each present task in its source; they sum to 1 (or there is none)."""
  explicit = _explicit(part)
  given = {name: explicit[name] / 100 for name in num_examples if name in explicit}
  rest = {name: n for name, n in num_examples.items() if name not in explicit}
  if _settings.mode(part.source) == UNIFORM:
    rest = dict.fromkeys(rest, 1)
  left = 1 - sum(given.values()) if rest else 0.0
  shares = given | {name: left * n / sum(rest.values()) for name, n in rest.items()}
  total = sum(shares.values())
  return {name: share / total for name, share in shares.items() if share > 0}


def _explicit(part: Part) -> dict[str, float]:
  weights = _settings.dataset_weights.get(part.source, {})
  by_dataset = {part.dataset(name): name for name in part.datasets}
  if unknown := sorted(set(weights) - set(by_dataset)):
    raise ValueError(
      f'MIXTURE_DATASET_WEIGHTS: {part.source!r} has no data set {unknown}; it has '
      f'{sorted(by_dataset) or "none"}'
    )
  return {by_dataset[dataset]: weight for dataset, weight in weights.items()}


def some(names: Sequence[str], first: int = 10) -> str:
  """The first names, and the number of the others."""
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

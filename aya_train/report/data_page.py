"""`aya-train report data MIXTURE`: one HTML page about what a mixture is made of."""

from __future__ import annotations

import collections
import dataclasses
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import babel
import jinja2
import markupsafe
import seqio
from etils import epath

from aya_train.annotation import exports
from aya_train.data import (
  availability,
  batching,
  feature_converters,
  mixing,
  prepared,
  row_counts,
  task_registry,
)
from aya_train.report import plots, rating_figures, translated_sources
from aya_train.tasks import sliced_source, storage
from aya_train.tasks.languages import aya101
from aya_train.tasks.mixtures import source_mixture
from aya_train.tasks.rights import provenance
from aya_train.tasks.sources import xp3x, xp3x_templates

logger = logging.getLogger(__name__)

AYA_SAMPLES = 25_000_000
"""Examples that Aya-101 saw (Üstün et al. 2024, section 3.1)."""

_TOP = 30
_SAMPLES_PER_SCRIPT = 2
_ROWS_LOOKED_AT = 3_000
_PACKED_BATCHES, _PACKED_ROWS = 4, 64
_LEVELS = {'high': 'high resource', 'mid': 'mid resource', 'low': 'low resource'}


@dataclasses.dataclass(frozen=True)
class Share:
  """Part of the draws, in percent, and the examples it is drawn from."""

  name: str
  percent: float
  examples: int


@dataclasses.dataclass(frozen=True)
class SourceDraws:
  """A source over the sample budget.

  Attributes:
    name: of the source.
    percent: of the draws.
    examples: it has.
    draws: examples drawn from it over the budget.
    repeats: draws / examples: how many times each is seen.
  """

  name: str
  percent: float
  examples: int
  draws: int
  repeats: float


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Tokens of one feature over the draws: mean, percentiles, percent longer than the limit."""

  feature: str
  mean: float
  percentiles: Mapping[int, int]
  longest: int
  limit: int
  cut: float


@dataclasses.dataclass(frozen=True)
class RowSample:
  """A row as text."""

  script: str
  language: str
  task: str
  inputs: str
  targets: str


def write(
  name: str,
  output: epath.PathLike,
  *,
  prepared_dir: str | None = None,
  lengths: Mapping[str, int] | None = None,
  budget: int = AYA_SAMPLES,
  split: str = 'train',
  annotations: Sequence[epath.PathLike] = (),
) -> epath.Path:
  """Writes the page; prepares what is not prepared yet.

  Args:
    name: a registered mixture or task.
    output: file to write.
    prepared_dir: root of the prepared tasks.
    lengths: in tokens, of each feature, for cutting and packing; default: 1,024 each.
    budget: examples of a run, for the repeats.
    split: to describe.
    annotations: files of people who rated its rows (`aya-train annotate data`).

  Raises:
    ValueError: `annotations` hold no rating, besides what reading them raises.
  """
  ratings = exports.read(annotations).ratings
  if annotations and not ratings:
    raise ValueError(
      f'{", ".join(map(str, annotations))}: no ratings of data; comparisons of answers are '
      'shown by `report preference`'
    )
  if not lengths:
    first = task_registry.tasks_with_split(task_registry.get_mixture_or_task(name), split)[0]
    lengths = dict.fromkeys(task_registry.record_features(first), 1024)
  cfg = batching.DatasetConfig(
    name,
    lengths,
    split,
    _PACKED_ROWS,
    seed=0,
    prepared_dir=prepared_dir,
    max_truncated_fraction=1.0,
  )
  tasks = batching.prepared_tasks(cfg)
  rates = mixing.mixing_rates(task_registry.get_mixture_or_task(name), tasks)
  shares = {task: rate / sum(rates.values()) for task, rate in rates.items()}
  kinds = {
    task: row_counts.of_task(seqio.TaskRegistry.get(task), split, tasks[task]) for task in shares
  }
  efficiency, per_row = _packing(cfg)
  page = (
    _environment()
    .get_template('data.html.jinja')
    .render(
      name=name,
      split=split,
      budget=budget,
      examples=sum(len(tasks[task]) for task in shares),
      num_tasks=len(shares),
      num_languages=len({k.language_code for counts in kinds.values() for k in counts}),
      lengths=lengths,
      sources=by_source(shares, tasks, budget),
      left_out=left_out(cfg, tasks),
      groups=[
        ('Task type', by(shares, kinds, _task_type)),
        ('Resource level', by(shares, kinds, lambda t, k: _level(k.language_code))),
        ('Script', by(shares, kinds, lambda t, k: _script(k.script))),
        ('Language', by(shares, kinds, lambda t, k: _language(k.language_code))),
        ('Licence', by(shares, kinds, _license)),
        ('Use class', by(shares, kinds, _use)),
      ],
      summaries=[length_summary(f, shares, tasks, limit) for f, limit in lengths.items()],
      charts=[
        plots.histogram(f'Tokens of {f}, % of the draws', distribution(f, shares, tasks), limit)
        for f, limit in lengths.items()
      ],
      efficiency=100 * efficiency,
      per_row=per_row,
      ratings=[
        ('Source', rating_figures.by(ratings, lambda r: r.source)),
        ('Task', rating_figures.by(ratings, lambda r: r.task)),
        ('Language', rating_figures.by(ratings, lambda r: _language(r.language))),
        ('Annotator', rating_figures.by(ratings, lambda r: r.annotator)),
      ]
      if ratings
      else [],
      smallest_edit=rating_figures.SMALLEST_EDIT,
      translated=translated_sources.find(shares),
      samples=samples(kinds, split),
      top=_TOP,
    )
  )
  path = epath.Path(output)
  path.parent.mkdir(parents=True, exist_ok=True)
  storage.write_atomically(path, page)
  return path


def _environment() -> jinja2.Environment:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('aya_train.report', 'templates'), autoescape=True, trim_blocks=True
  )
  environment.filters['breakable'] = _breakable
  return environment


_LONG_WORD = 12


def _breakable(name: str) -> markupsafe.Markup:
  """A name that a line may end in between words; in long words only after '_', '.' and '/'.

  Else 'CC BY-NC' is torn at its hyphen, and a page is as wide as the longest name of a data set.
  """
  words = []
  for word in str(markupsafe.escape(name)).split(' '):
    if len(word) > _LONG_WORD:
      word = re.sub(r'([_/]|\.(?=[a-z]))', r'\1<wbr>', word)
    elif '-' in word:
      word = f'<span class="word">{word}</span>'
    words.append(word)
  return markupsafe.Markup(' '.join(words))


Kinds = Mapping[str, Mapping[row_counts.Kind, int]]


def by(
  shares: Mapping[str, float], kinds: Kinds, key: Callable[[str, row_counts.Kind], str]
) -> list[Share]:
  """Percent of the draws by whatever `key` gives of a task and a kind of row, largest first.

  Inside a task each example is as likely as any other.
  """
  percent: dict[str, float] = collections.defaultdict(float)
  examples: collections.Counter[str] = collections.Counter()
  for task, share in shares.items():
    total = sum(kinds[task].values())
    for kind, count in kinds[task].items():
      name = key(task, kind)
      percent[name] += 100 * share * count / total
      examples[name] += count
  return [Share(name, p, examples[name]) for name, p in _largest_first(percent)]


def _largest_first(percent: Mapping[str, float]) -> list[tuple[str, float]]:
  return sorted(percent.items(), key=lambda pair: (-pair[1], pair[0]))


def by_source(
  shares: Mapping[str, float], tasks: Mapping[str, prepared.PreparedTask], budget: int
) -> list[SourceDraws]:
  """Sources with their repeats, largest share first."""
  percent: dict[str, float] = collections.defaultdict(float)
  examples: collections.Counter[str] = collections.Counter()
  for task, share in shares.items():
    name = provenance.source_of(seqio.TaskRegistry.get(task))
    if name.startswith('cldr') or len(shares) == 1:
      name = task  # a mixture inside one source: its tasks say more
    percent[name] += 100 * share
    examples[name] += len(tasks[task])
  return [
    SourceDraws(n, p, examples[n], round(p / 100 * budget), p / 100 * budget / examples[n])
    for n, p in _largest_first(percent)
  ]


def left_out(
  cfg: batching.DatasetConfig, tasks: Mapping[str, prepared.PreparedTask]
) -> dict[str, tuple[str, ...]]:
  """Data sets of the mixture that give no row, by the reason; sources of which nothing is there.

  Args:
    cfg: whose tasks are prepared.
    tasks: those that have rows.
  """
  name = cfg.mixture_or_task_name
  mixture = task_registry.get_mixture_or_task(name)
  surveyed = batching.survey(cfg, allow_empty=True)
  reasons = dict(surveyed.left_out)
  no_rows = f'no rows in {cfg.split!r}'
  unused = tuple(task for task in surveyed.tasks if task not in tasks)
  reasons[no_rows] = tuple(sorted({*reasons.get(no_rows, ()), *unused}))
  if not isinstance(mixture, source_mixture.SourceMixture):
    return {reason: names for reason, names in reasons.items() if names}
  found = availability.check(name, cfg.split, batching.prepared_root(cfg.prepared_dir))
  whole = found.sources if found else {}
  told = {
    reason: tuple(
      mixture.data_sets(n for n in names if mixture.part_of(n).source not in whole)
      if reason == 'not built'
      else names
    )
    for reason, names in reasons.items()
  }
  sources = tuple(f'{source} ({percent:.3g} %)' for source, percent in whole.items())
  told = {'sources that are not built': sources, **told}
  return {reason: names for reason, names in told.items() if names}


# The Aya Dataset says how a row came to be and not what it asks for.
_ANNOTATIONS = {
  'original-annotations': 'any, written by annotators',
  're-annotations': 'any, edited by annotators',
}


def _task_type(task: str, kind: row_counts.Kind) -> str:
  """What rows ask for, however it is written; xP3x has the names of templates in its place."""
  if provenance.source_of(seqio.TaskRegistry.get(task)) == xp3x.SOURCE:
    return xp3x_templates.task_of(kind.dataset)
  if (done := _ANNOTATIONS.get(kind.task_type)) is not None:
    return done
  return kind.task_type.strip().lower().replace('-', '_').replace(' ', '_') or 'not stated'


def _level(code: str) -> str:
  language = aya101.BY_CODE.get(code)
  return 'not one of the 101' if language is None else _LEVELS[language.level]


_SCRIPTS = {language.script_code: language.script for language in aya101.LANGUAGES} | {
  'Hans': 'Simplified Han',
  'Hant': 'Traditional Han',
  'Latn': 'Latin',
  'Zyyy': 'none (code)',
}


def _script(code: str) -> str:
  return (
    (_SCRIPTS.get(code) or babel.Locale('en').scripts.get(code, code)) if code else 'not stated'
  )


def _language(code: str) -> str:
  return aya101.described(code) if code else 'not stated'


def _record(task: str, kind: row_counts.Kind) -> provenance.Record:
  origin = provenance.origin_of(seqio.TaskRegistry.get(task), kind.dataset)
  return provenance.record_of(origin)


def _license(task: str, kind: row_counts.Kind) -> str:
  return ' + '.join(dict.fromkeys(name for name, _ in _record(task, kind).licenses))


def _use(task: str, kind: row_counts.Kind) -> str:
  return _record(task, kind).rights.use


def distribution(
  feature: str, shares: Mapping[str, float], tasks: Mapping[str, prepared.PreparedTask]
) -> dict[int, float]:
  """Tokens -> share of the draws with that many, sorted; the shares sum to 1."""
  found: dict[int, float] = collections.defaultdict(float)
  for task, share in shares.items():
    for length, count in tasks[task].manifest.lengths[feature].items():
      found[length] += share * count / len(tasks[task])
  return dict(sorted(found.items()))


def length_summary(
  feature: str,
  shares: Mapping[str, float],
  tasks: Mapping[str, prepared.PreparedTask],
  limit: int,
) -> Lengths:
  """Lengths of a feature over the draws."""
  draws = distribution(feature, shares, tasks)
  percentiles = {}
  for percent in (10, 50, 90, 99):
    reached = 0.0
    for length, share in draws.items():
      reached += share
      if reached >= percent / 100 - 1e-9:
        percentiles[percent] = length
        break
  return Lengths(
    feature,
    sum(length * share for length, share in draws.items()),
    percentiles,
    max(draws),
    limit,
    100 * sum(share for length, share in draws.items() if length > limit),
  )


def _packing(cfg: batching.DatasetConfig) -> tuple[float, float]:
  """Share of positions that hold tokens, and examples a row, over some real batches."""
  features = tuple(cfg.task_feature_lengths)
  rows_as_they_are = feature_converters.FeatureConverter(features, packs=True)
  batches = batching.train_iterator(cfg, converter=rows_as_they_are)
  efficiency, examples = 0.0, 0
  for _ in range(_PACKED_BATCHES):
    batch = next(batches)
    efficiency += feature_converters.packing_efficiency(batch, features) / _PACKED_BATCHES
    examples += feature_converters.examples_per_batch(batch, features)
  return efficiency, examples / (_PACKED_BATCHES * _PACKED_ROWS)


def samples(kinds: Mapping[str, Mapping[row_counts.Kind, int]], split: str) -> list[RowSample]:
  """A few rows in each script, among the first rows of each task.

  Args:
    kinds: task -> the kinds of its rows: a task is read only as far as they promise something new.
    split: to read.
  """
  found: dict[str, list[RowSample]] = collections.defaultdict(list)
  seen: set[tuple[str, str]] = set()
  for name in kinds:
    # Of other tasks and other languages, so that a page shows more than one kind of row.
    wanted = {(k.script, k.language_code) for k in kinds[name]} - seen
    wanted = {pair for pair in wanted if len(found[pair[0]]) < _SAMPLES_PER_SCRIPT}
    rows = _rows(seqio.TaskRegistry.get(name), split) if wanted else iter(())
    for row in rows:
      code, script = row.get('language_code', ''), row.get('script', '')
      language = aya101.BY_CODE.get(code)
      if not script and language is not None:
        script = language.script_code
      if (script, code) in wanted:
        seen.add((script, code))
        texts = (row[side][:600] for side in ('inputs', 'targets'))
        found[script].append(RowSample(_script(script), _language(code), name, *texts))
        wanted = {pair for pair in wanted if pair[0] != script}  # one of a task and script
        if not wanted:
          break
  return [sample for script in sorted(found) for sample in found[script]]


def _rows(task: seqio.Task, split: str) -> Iterator[Mapping[str, str]]:
  task = sliced_source.with_split(task, split)
  dataset = task.source.get_dataset(split=split, shuffle=True, seed=0)
  spec = dataset.element_spec
  # A source may give plain lines, which its preprocessors make columns of.
  if not (isinstance(spec, Mapping) and {'inputs', 'targets'} <= {*spec}):
    return
  for row in dataset.take(_ROWS_LOOKED_AT).as_numpy_iterator():
    yield {k: v.decode(errors='replace') for k, v in row.items() if isinstance(v, bytes)}

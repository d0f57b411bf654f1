"""What a run left in its MODEL_DIR, as the figures that a report shows."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import seqio
from etils import epath

from aya_train import json_lines
from aya_train.data import mixing, prepared, task_registry
from aya_train.report import run_record
from aya_train.tasks import storage
from aya_train.tasks.languages import aya101
from aya_train.tasks.metrics import exact_match
from aya_train.tasks.mixtures import source_mixture

EXACT_MATCH = 'Exact match'

# Before and after ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Figure:
  """One quantity before and after training; `before` is None if it was not measured.

  Attributes:
    name: what it is.
    before, after: its values.
    percent: whether they are percent.
  """

  name: str
  before: float | None
  after: float
  percent: bool

  def text(self, value: float | None) -> str:
    if value is None:
      return '–'
    return f'{value:.1f} %' if self.percent else f'{value:.3f}'


def figures(run: run_record.Run) -> list[Figure]:
  """Loss, token accuracy and exact match, each where the run measured it.

  The loss is that of a target token, or else the objective's own.

  A run that evaluated nothing is described by the first and the last line of its training.
  """
  found: list[Figure] = []
  evals = run.of_kind('train_eval')
  if pair := (_baseline(run, evals), evals[-1]) if evals else _ends(run):
    first, last = pair
    of_tokens, of_pairs = 'loss_per_target_token' in last, 'margin' in last
    named = 'Pairs ordered right' if of_pairs else 'Token accuracy' if of_tokens else 'Accuracy'
    for name, label, factor in (
      ('loss_per_target_token', 'Loss per target token', 1),
      ('margin', 'Margin between the rewards of chosen and rejected', 1),
      ('accuracy', named, 100),
      ('loss', 'Loss', 1),
    ):
      if name not in last or (name == 'loss' and of_tokens and not of_pairs):
        continue
      start = None if first is None else factor * first[name]
      found.append(Figure(label, start, factor * last[name], percent=factor == 100))
  scores = [match for task in run.infer_tasks if (match := _scores(run, task, 'exact_match'))]
  if scores:
    tasks = '' if len(scores) == 1 else f', mean of {len(scores)} tasks'
    befores = [before for before, _ in scores if before is not None]
    before = _mean(befores) if len(befores) == len(scores) else None
    after = _mean([after for _, after in scores])
    found.append(Figure(f'{EXACT_MATCH}{tasks}', before, after, percent=True))
  if lengths := answer_lengths(run):
    found.append(Figure('Characters of an answer, mean', *lengths, percent=False))
  return found


def answer_lengths(run: run_record.Run) -> tuple[float | None, float] | None:
  """Mean characters of the decoded answers before and after training; None if none are kept."""
  lasts = [_mean_length(run, task, -1) for task in run.infer_tasks]
  firsts = [_mean_length(run, task, 0) for task in run.infer_tasks]
  after = [length for length in lasts if length is not None]
  before = [length for length in firsts if length is not None]
  if not after:
    return None
  return _mean(before) if len(before) == len(after) else None, _mean(after)


def _mean_length(run: run_record.Run, task: str, which: int) -> float | None:
  """Of the last decoding of a task, or of the first, if that is of what training began with."""
  records = run.of_kind(run_record.INFER_EVAL + task)
  step = records[which]['step']
  if which == 0 and step != run.first_step:
    return None
  rows = decoded_rows(run, task, step)
  found = [len(text) for row in rows if isinstance(text := row.get('output'), str)]
  return _mean(found) if found else None


def evaluated(run: run_record.Run) -> bool:
  """Whether anything but the training itself was measured."""
  return bool(run.of_kind('train_eval') or run.infer_tasks)


def measured_before_alone(run: run_record.Run) -> str:
  """A sentence that names what no step after the first was measured on; '' if nothing is so."""
  labels = {'train_eval': 'The validation data'}
  labels |= {run_record.INFER_EVAL + task: f'answers to {task!r}' for task in run.infer_tasks}
  alone = [
    label
    for kind, label in labels.items()
    if {record['step'] for record in run.of_kind(kind)} == {run.first_step}
  ]
  if not alone:
    return ''
  names = ', '.join(alone)
  return (
    f'{names[0].upper()}{names[1:]} were measured at step {run.first_step} alone, before training: '
    'both columns show that, and say nothing of what was learnt.'
  )


def last_step(run: run_record.Run) -> int:
  """Step of the newest evaluation; of the newest record where there is none."""
  kinds = {'train_eval', *(run_record.INFER_EVAL + task for task in run.infer_tasks)}
  steps = [record['step'] for record in run.records if record['kind'] in kinds]
  return max(steps or [record['step'] for record in run.records])


def steps_trained(run: run_record.Run) -> int | None:
  """Steps behind the newest progress line, without those before the run; None if unknown."""
  train = run.of_kind('train')
  return train[-1]['step'] - run.info.get('first_step', 0) if train else None


def _ends(run: run_record.Run) -> tuple[run_record.Record | None, run_record.Record] | None:
  train = run.of_kind('train') if not evaluated(run) else []
  return (train[0] if len(train) > 1 else None, train[-1]) if train else None


def _baseline(
  run: run_record.Run, records: Sequence[run_record.Record]
) -> run_record.Record | None:
  """The record of the parameters that training began with, if they were evaluated."""
  return next((r for r in records if r['step'] == run.first_step), None)


def _scores(run: run_record.Run, task: str, name: str) -> tuple[float | None, float] | None:
  records = [r for r in run.of_kind(run_record.INFER_EVAL + task) if name in r]
  if not records:
    return None
  before = _baseline(run, records)
  return (None if before is None else before[name]), records[-1][name]


def _mean(values: Sequence[float]) -> float:
  return sum(values) / len(values)


# By language and by kind --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Bar:
  """Exact match in percent of one group of rows; `rows` is None if the decodings are not kept."""

  name: str
  before: float | None
  after: float
  rows: int | None


@dataclasses.dataclass(frozen=True)
class Group:
  """Bars under one heading, best first."""

  title: str
  css: str
  bars: Sequence[Bar]

  @property
  def after(self) -> float:
    return _mean([bar.after for bar in self.bars])


_LEVELS = {
  'high': 'High-resource languages',
  'mid': 'Mid-resource languages',
  'low': 'Low-resource languages',
}


def by_language(run: run_record.Run) -> list[Group]:
  """Exact match of each language in the records, in groups by resource level, best first."""
  rows: collections.Counter[str] = collections.Counter()
  for task in run.infer_tasks:
    rows.update(row['language'] for row in _decoded(run, task))
  bars: dict[str, list[Bar]] = collections.defaultdict(list)
  for code, (before, after) in _parts(run).items():
    if (language := aya101.BY_CODE.get(code)) is not None:
      bars[language.level].append(Bar(language.name, before, after, rows.get(code)))
  return [
    Group(_LEVELS[level], level, _best_first(bars[level])) for level in _LEVELS if bars[level]
  ]


def by_kind(run: run_record.Run) -> list[Bar]:
  """Exact match of each kind of row, best first; see `kind_table` for rows that name their kind.

  From the values 'exact_match/<kind>' where tasks write such; else of each task, where there are
  several.
  """
  parts = {k: v for k, v in _parts(run).items() if k not in aya101.BY_CODE}
  if parts:
    return _best_first([Bar(_words(k), *v, None) for k, v in parts.items()])
  tasks = {task: _scores(run, task, 'exact_match') for task in run.infer_tasks}
  bars = [Bar(task, *scores, None) for task, scores in tasks.items() if scores]
  return _best_first(bars) if len(bars) > 1 else []


def _parts(run: run_record.Run) -> dict[str, tuple[float | None, float]]:
  """The values 'exact_match/<part>' by part, before and after; means where tasks share a part."""
  values: dict[str, list[Any]] = collections.defaultdict(list)
  for task in run.infer_tasks:
    names = {name for record in run.of_kind(run_record.INFER_EVAL + task) for name in record}
    for name in sorted(names):
      if name.startswith('exact_match/'):
        values[name.removeprefix('exact_match/')].append(_scores(run, task, name))
  merged = {}
  for part, pairs in values.items():
    befores = [before for before, _ in pairs if before is not None]
    before = _mean(befores) if len(befores) == len(pairs) else None
    merged[part] = (before, _mean([after for _, after in pairs]))
  return merged


def _decoded(run: run_record.Run, task: str) -> list[dict[str, Any]]:
  """`language` and `hit` of each row of a task's last decoding, [] where none is kept.

  The file is that of seqio.JSONLogger, one row a line. Rows whose target is no (language, text)
  pair are left out.
  """
  records = run.of_kind(run_record.INFER_EVAL + task)
  rows = []
  for row in decoded_rows(run, task, records[-1]['step']):
    target, prediction = row.get('target'), row.get('prediction')
    if not (isinstance(target, list) and isinstance(prediction, list) and len(target) == 2):
      continue
    texts = (exact_match.normalize(text) for text in (target[1], prediction[1]))
    rows.append({'language': target[0], 'hit': len(set(texts)) == 1})
  return rows


def decoded_rows(run: run_record.Run, task: str, step: int) -> list[Mapping[str, Any]]:
  """The kept answers of a task at a step, as seqio.JSONLogger has them; [] where none are."""
  path = run.model_dir / 'inference_eval' / f'{task}-{step:06d}.jsonl'
  return [row for _, row in json_lines.read(path)] if path.exists() else []


def _best_first(bars: Sequence[Bar]) -> list[Bar]:
  return sorted(bars, key=lambda bar: (-bar.after, bar.name))


def _words(name: str) -> str:
  return name.replace('_', ' ')


# Data ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DataRow:
  """One split of one prepared task.

  Attributes:
    task, split: which.
    share: part of the training examples that is drawn from it, in percent, or None.
    examples: number of examples.
    tokens: of each feature that is read, over all examples, end of sequence included.
    cut: examples longer than the run's lengths, in percent.
  """

  task: str
  split: str
  share: float | None
  examples: int
  tokens: Mapping[str, int]
  cut: float


def data_rows(run: run_record.Run) -> tuple[list[DataRow], str]:
  """The manifests of the run's prepared tasks, and a sentence if they are not at hand."""
  directory = epath.Path(run.macro('PREPARED_DIR') or storage.cache_dir() / 'prepared')
  train_split = run.macro('TRAIN_SPLIT') or 'train'
  eval_split = run.macro('TRAIN_EVAL_SPLIT') or 'validation'
  rows, missing = [], 0
  for name, split in (
    (run.macro('MIXTURE_OR_TASK_NAME'), train_split),
    (run.macro('TRAIN_EVAL_MIXTURE_OR_TASK_NAME'), eval_split),
  ):
    if name is None:
      continue
    try:
      provider = task_registry.get_mixture_or_task(name)
      if split == eval_split and not task_registry.has_split(provider, split):
        continue
      opened, absent = _opened(provider, split, directory)
      shares = _shares(provider, opened) if split == train_split and opened else {}
    except (ValueError, OSError) as error:  # the page may be made where the data is not
      return [], f'The data of this run cannot be opened here: {error}'
    # Of a mixture of sources, those that are not there were left out.
    missing += 0 if isinstance(provider, source_mixture.SourceMixture) and opened else absent
    lengths = run.macro('TASK_FEATURE_LENGTHS')
    rows += [_data_row(t.manifest, shares.get(name), lengths) for name, t in opened.items()]
  note = f'{missing} prepared tasks are no longer in {directory} as the run read them.'
  return rows, note if missing else ''


def _opened(
  provider: seqio.Task | seqio.Mixture, split: str, directory: epath.Path
) -> tuple[dict[str, prepared.PreparedTask], int]:
  """Prepared tasks of a split by name, and how many others there should be."""
  tasks = task_registry.tasks_with_split(provider, split)
  paths = {task.name: prepared.prepared_path(task, split, directory) for task in tasks}
  ready = {
    n: prepared.PreparedTask(path) for n, path in paths.items() if prepared.is_prepared(path)
  }
  return ready, len(tasks) - len(ready)


def _shares(
  provider: seqio.Task | seqio.Mixture, tasks: Mapping[str, prepared.PreparedTask]
) -> dict[str, float]:
  rates = mixing.mixing_rates(provider, tasks)
  return {name: 100 * rate / sum(rates.values()) for name, rate in rates.items()}


def _data_row(
  manifest: prepared.Manifest, share: float | None, lengths: Mapping[str, int]
) -> DataRow:
  # Features are counted apart: the largest of their counts is a lower bound.
  cut = max(
    sum(count for length, count in manifest.lengths[feature].items() if length > limit)
    for feature, limit in lengths.items()
    if feature in manifest.lengths
  )
  return DataRow(
    manifest.task,
    manifest.split,
    share,
    manifest.num_examples,
    {feature: manifest.num_tokens[feature] for feature in lengths if feature in manifest.lengths},
    100 * cut / manifest.num_examples,
  )

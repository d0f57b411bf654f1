"""What `aya-train eval` found of a checkpoint, for its model card: a table, and its model-index."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from etils import epath

from aya_train.checkpoint import checkpoint_identity
from aya_train.report import eval_runs
from aya_train.tasks import eval_tasks
from aya_train.tasks.eval import prompt_spread

TASK_TYPES = {
  eval_tasks.GENERATED: 'text2text-generation',
  eval_tasks.T0: 'multiple-choice',
  eval_tasks.HARNESS: 'multiple-choice',
}
# As the hub's metrics are called; others by their own names.
_METRICS = {'rougeLsum': 'rouge', 'spbleu': 'bleu', 'chrf++': 'chrf', 'acc': 'accuracy'}
_PROTOCOLS = {eval_tasks.T0: 't0', eval_tasks.HARNESS: 'harness', eval_tasks.GENERATED: ''}


@dataclasses.dataclass(frozen=True)
class Entry:
  """A benchmark in one language.

  Attributes:
    benchmark, language, split: as in `eval_tasks.EvalTask`; `language` with its subset.
    protocol: of ranked options 't0' or 'harness'; else ''.
    task_type: of the hub.
    metric, value: the published figure; the median, where there are several prompts.
    num_prompts, num_examples: how many.
  """

  benchmark: str
  language: str
  split: str
  protocol: str
  task_type: str
  metric: str
  value: float
  num_prompts: int
  num_examples: int


@dataclasses.dataclass(frozen=True)
class Row:
  """A benchmark, over languages: the mean of their values."""

  benchmark: str
  metric: str
  protocol: str
  split: str
  num_languages: int
  value: float


def read(folders: Sequence[epath.PathLike], checkpoint: epath.Path) -> list[Entry]:
  """Entries of evaluations, sorted by benchmark and language.

  Args:
    folders: EVAL_OUTPUT_DIRs.
    checkpoint: that was evaluated, as `formats.detect` names it.

  Raises:
    FileNotFoundError: a folder has no results.json.
    ValueError: it is damaged, is of another checkpoint, or a task is in two of them.
  """
  identity = checkpoint_identity.of(checkpoint)
  results: dict[str, eval_tasks.Result] = {}
  for folder in map(epath.Path, folders):
    found = eval_runs.read(folder)
    if found.fingerprint != identity:
      raise ValueError(
        f'{folder} is the evaluation of another checkpoint ({found.checkpoint}, step {found.step}) '
        f'than {checkpoint}, or its files have changed since: evaluate this one'
      )
    if twice := sorted({*results} & {*found.results}):
      raise ValueError(f'{folder}: {twice[0]} and {len(twice) - 1} more are in an earlier folder')
    results |= found.results
  return _entries(results.values())


def rows(entries: Sequence[Entry]) -> list[Row]:
  """Means over languages, in the order of the entries."""
  groups: dict[tuple[str, str, str, str], list[float]] = {}
  for entry in entries:
    key = (entry.benchmark, entry.metric, entry.protocol, entry.split)
    groups.setdefault(key, []).append(entry.value)
  return [Row(*key, len(values), statistics.mean(values)) for key, values in groups.items()]


def model_index(entries: Sequence[Entry]) -> list[Any]:
  """`huggingface_hub.EvalResult`s of entries."""
  import huggingface_hub

  return [
    huggingface_hub.EvalResult(
      task_type=entry.task_type,
      dataset_type=entry.benchmark,
      dataset_name=f'{entry.benchmark} ({entry.language})' if entry.language else entry.benchmark,
      dataset_config='.'.join(filter(None, (entry.language, entry.protocol))) or None,
      dataset_split=entry.split,
      dataset_args={'num_examples': entry.num_examples, 'num_prompts': entry.num_prompts},
      metric_type=_METRICS.get(entry.metric, entry.metric),
      metric_value=round(entry.value, 2),
      metric_name=_named(entry),
    )
    for entry in entries
  ]


def _named(entry: Entry) -> str:
  details = [f'median of {entry.num_prompts} prompts'] if entry.num_prompts > 1 else []
  details += [f'protocol {entry.protocol}'] if entry.protocol else []
  return entry.metric + (f' ({", ".join(details)})' if details else '')


def _entries(results: Any) -> list[Entry]:
  abouts = {}
  known = []
  for result in results:
    about = result.about
    figures = [m for m in result.metrics if not m.endswith((eval_tasks.LOW, eval_tasks.HIGH))]
    if about.metric not in result.metrics and figures:
      about = dataclasses.replace(about, metric=figures[0])  # a task that nobody described
    known.append(dataclasses.replace(result, about=about))
    abouts[about.benchmark, about.language, about.protocol, about.subset] = about
  return [
    Entry(
      spread.benchmark,
      '.'.join(filter(None, (spread.language, spread.subset))),
      abouts[spread.benchmark, spread.language, spread.protocol, spread.subset].split,
      _PROTOCOLS.get(spread.protocol, ''),
      TASK_TYPES.get(spread.protocol, TASK_TYPES[eval_tasks.GENERATED]),
      spread.metric,
      spread.median,
      len(spread.by_prompt),
      spread.num_examples,
    )
    for spread in prompt_spread.over_prompts(known)
  ]

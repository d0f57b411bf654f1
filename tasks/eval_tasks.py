"""What evaluation tasks measure, beside what SeqIO knows of them, and how their outcome is written.

Everything that evaluates writes two things into its output folder, and everything that shows
results reads these alone:

- `predictions/TASK.jsonl`: a `Prediction` an example, in any order, as soon as its batch is done;
- `results.json`: `{"checkpoint", "step", "model", "settings", "tasks": {TASK: Result}}`, written
  after each task.

A metric's 95 % interval stands beside it under its name with `_low` and `_high` at the end.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from aya_train import task_registration

T0, HARNESS = 'ranked_t0', 'ranked_harness'
GENERATED = 'generated'
EMBEDDED = 'embedded'
PREDICTIONS = 'predictions'  # a folder
RESULTS = 'results.json'
LOW, HIGH = '_low', '_high'


@dataclasses.dataclass(frozen=True)
class EvalTask:
  """A SeqIO task that measures something: a benchmark in one language with one prompt.

  Attributes:
    name: of the SeqIO task, 'xcopa.et.best_option'.
    benchmark: 'xcopa'.
    language: ISO 639-3 code, 'est'; '' where rows have languages of their own.
    prompt: name of the template, 'best_option'; '' where there is but one.
    protocol: how answers are found: T0 or HARNESS (options ranked by log-probability), GENERATED;
      or by vectors of texts (EMBEDDED), where `fields` of a prediction hold its own figures, from 0
      to 1, by name.
    metric: the figure that is published for it, 'accuracy'.
    split: the one that is published.
    version: of the task as this package defines it; raised when its figures change.
    subset: a part of the benchmark that is reported apart ('to_english', 'culturally_sensitive').
    num_shots: examples that stand in the input before the question. Inputs that are too long lose
      their beginning where there are any, as those of ranked options do.
  """

  name: str
  benchmark: str
  language: str = ''
  prompt: str = ''
  protocol: str = GENERATED
  metric: str = ''
  split: str = 'test'
  version: str = '1.0.0'
  subset: str = ''
  num_shots: int = 0


@dataclasses.dataclass(frozen=True)
class Prediction:
  """What a model answered to one example.

  Attributes:
    task, index: the SeqIO task, and the example's place in its split, from 0.
    inputs: the text that the model got.
    targets: reference answers, [] where there are none.
    prediction: the answer; of ranked options the best one.
    options, option_scores: of a ranked task: texts, and their summed log-probabilities.
    label: index of the right option; None where nothing is ranked.
    log_likelihood: of the answer, where it is known.
    tokens: ids of a generated answer, its end included.
    fields: further columns of the example that are kept (id, language, ...).
  """

  task: str
  index: int
  inputs: str
  targets: Sequence[str] = ()
  prediction: str = ''
  options: Sequence[str] = ()
  option_scores: Sequence[float] = ()
  label: int | None = None
  log_likelihood: float | None = None
  tokens: Sequence[int] = ()
  fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def to_dict(self) -> dict[str, Any]:
    """As JSON; what is empty is left out, but for task, index, inputs and prediction."""
    always = ('task', 'index', 'inputs', 'prediction')
    values = dataclasses.asdict(self)
    return {k: v for k, v in values.items() if k in always or v not in ((), [], {}, None)}

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> 'Prediction':
    """Raises ValueError naming keys that are unknown or missing."""
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted({*values} - known):
      raise ValueError(f'a prediction has unknown keys {unknown}; known are {sorted(known)}')
    if missing := [key for key in ('task', 'index', 'inputs') if key not in values]:
      raise ValueError(f'a prediction lacks {missing}')
    return cls(**values)


@dataclasses.dataclass(frozen=True)
class Result:
  """Figures of one task.

  Attributes:
    about: the task.
    num_examples: scored.
    metrics: name -> figure, in percent where it is a share; see the module about intervals.
    notes: what a reader must know: cut inputs, ties, rows without an answer, sample sizes.
    settings: how its answers were found, JSON: lengths, decoding and more.
  """

  about: EvalTask
  num_examples: int
  metrics: Mapping[str, float]
  notes: Sequence[str] = ()
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def to_dict(self) -> dict[str, Any]:
    return dataclasses.asdict(self)

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> 'Result':
    return cls(**{**values, 'about': EvalTask(**values['about'])})


_TASKS: dict[str, EvalTask] = {}


def add(task: EvalTask) -> EvalTask:
  """Says what a registered SeqIO task measures.

  Raises:
    ValueError: the same name was given to another.
  """
  if _TASKS.get(task.name, task) != task:
    raise ValueError(f'evaluation task {task.name!r} is defined twice: {_TASKS[task.name]}, {task}')
  _TASKS[task.name] = task
  return task


def remove(name: str) -> None:
  """Forgets a task, of a user's table that is read again."""
  _TASKS.pop(name, None)


def about(name: str) -> EvalTask:
  """What a SeqIO task measures; of one that nobody described, no more than its name."""
  task_registration.need()
  return _TASKS.get(name) or EvalTask(name, benchmark=name)


def is_described(name: str) -> bool:
  """Whether somebody said what a SeqIO task measures."""
  task_registration.need()
  return name in _TASKS


def all_tasks() -> list[EvalTask]:
  """All that are described, by name."""
  task_registration.need()
  return [_TASKS[name] for name in sorted(_TASKS)]


def slug(text: str) -> str:
  """A prompt's name as a part of a task's name: letters, digits and '_'."""
  return re.sub(r'\W+', '_', text).strip('_')

"""Examples of SeqIO tasks as prompts: what a model gets, and as people read it."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seqio

from aya_train.data import availability, task_examples, task_registry
from aya_train.evaluation import infer_eval, missing_tasks
from aya_train.tasks import sliced_source, split_slices

logger = logging.getLogger(__name__)
_SPAN = 20_000  # examples of a task among which prompts are picked


@dataclasses.dataclass(frozen=True)
class TaskExample:
  """An example of a task as a model gets it, and as people read it.

  Attributes:
    tokens: ids of the inputs as the task gives them, cut to their length.
    inputs, targets: `inputs_pretokenized` and `targets_pretokenized`, or the tokens as text where
      there are none.
    task, index: the task's name, and the example's place in its split, from 0.
    references: the column `references`, or `targets` alone if they are not empty.
    fields: further columns that are numbers, texts or lists of texts.
  """

  tokens: list[int]
  inputs: str
  targets: str
  task: str = ''
  index: int = 0
  references: Sequence[str] = ()
  fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def picked_texts(name: str, split: str, count: int) -> list[tuple[str, str]]:
  """Inputs and targets of a few examples of a task or mixture, at even distances.

  Of a mixture each task gives as many, or every n-th gives one. Of a large task the first 20,000
  examples count.

  Args:
    name, split: as `task_examples_of`.
    count: examples wanted; fewer if there are not as many.

  Raises:
    ValueError, FileNotFoundError: see `task_examples_of`.
  """
  tasks = availability.tasks(name, split, None)
  if len(tasks) > count:
    tasks = [tasks[i * len(tasks) // count] for i in range(count)]
  each = -(-count // len(tasks))
  pairs: list[tuple[str, str]] = []
  for task in tasks:
    found = _examples(task, split, _SPAN) if task_examples.has_rows(task, split, 1) else []
    picked = [found[i * len(found) // each] for i in range(min(each, len(found)))]
    pairs += [(example.inputs, example.targets) for example in picked]
  return pairs[:count]


def task_examples_of(
  name: str,
  split: str | None,
  num_examples: int | None,
  lengths: Mapping[str, int] | None = None,
  missing: str = missing_tasks.REFUSE,
) -> list[TaskExample]:
  """Examples of a task, in the order of the data set, as `eval` decodes them.

  Args:
    name: of a task or mixture; its tasks without the split or without rows in it are left out.
    split: to read, such as 'test' or 'train[:10]'; None: see `infer_eval.split_of`.
    num_examples: of each task, None for all.
    lengths: of the features in tokens; None: nothing is cut.
    missing: whether tasks of a mixture whose data are missing are refused or left out.

  Raises:
    ValueError: no task has the split, or one has no feature `inputs`.
    FileNotFoundError: data is missing; of a mixture all that is.
  """
  missing_tasks.check_policy(missing)
  found: list[TaskExample] = []
  reasons: dict[str, str] = {}
  tasks = _tasks_of(name, split)
  for task, own in tasks:
    task_registry.require_features(task, ('inputs',))
    try:
      if task_examples.has_rows(task, own, 1):
        found += _examples(task, own, num_examples, lengths)
    except FileNotFoundError as error:
      if len(tasks) == 1:
        raise
      reasons[task.name] = str(error)
  groups = missing_tasks.grouped(reasons)
  if reasons and (missing == missing_tasks.REFUSE or len(reasons) == len(tasks)):
    raise missing_tasks.refusal(groups, len(tasks))
  if reasons:
    logger.warning('not answered:\n%s', missing_tasks.described(groups))
  return found


def _tasks_of(name: str, split: str | None) -> list[tuple[seqio.Task, str]]:
  """Tasks of a name that have the split, each with its own one where none is given."""
  provider = task_registry.get_mixture_or_task(name)
  tasks = [(t, infer_eval.split_of(t.name, split, {})) for t in seqio.get_subtasks(provider)]
  splits = {own for _, own in tasks}
  if len(splits) == 1:
    return [(task, own) for own in splits for task in availability.tasks(name, own, None)]
  return [(sliced_source.with_split(t, own), own) for t, own in tasks if split_slices.has(t, own)]


def _examples(
  task: seqio.Task,
  split: str,
  num_examples: int | None,
  lengths: Mapping[str, int] | None = None,
) -> list[TaskExample]:
  examples = task.get_dataset(
    sequence_length=None if lengths is None else dict(lengths),
    split=split,
    shuffle=False,
    seed=infer_eval.PREPROCESSING_SEED,
  )
  found: list[TaskExample] = []
  for example in examples.take(-1 if num_examples is None else num_examples).as_numpy_iterator():
    tokens = {side: _ids(example[side]) for side in ('inputs', 'targets') if side in example}
    inputs, targets = (_text(task, example, side, tokens) for side in ('inputs', 'targets'))
    references = _readable(example.get('references'))
    if not isinstance(references, list):
      references = [references] if isinstance(references, str) else [targets]
    fields = {key: _readable(value) for key, value in example.items() if key not in _NOT_KEPT}
    found.append(
      TaskExample(
        tokens['inputs'],
        inputs,
        targets,
        task=task.name,
        index=len(found),
        references=[reference for reference in references if reference],
        fields={key: value for key, value in fields.items() if value is not None},
      )
    )
  return found


_NOT_KEPT = (
  *('inputs', 'targets', 'inputs_pretokenized', 'targets_pretokenized', 'references'),
  *('inputs_plaintext', 'targets_plaintext'),
)


def _readable(value: Any) -> Any:
  """A column as JSON: a text, a number, or a list of texts; None for what is none of these."""
  if isinstance(value, bytes):
    return value.decode('utf-8', 'replace')
  array = np.asarray(value)
  if array.ndim == 1 and array.dtype == object:
    return [_readable(item) for item in array.tolist()]
  if array.ndim == 0 and array.dtype.kind in 'biuf':
    return array.item() if np.isfinite(array) else None
  return value if isinstance(value, str) else None


def _ids(tokens: Any) -> list[int]:
  """The ids without the padding that a task with features of one static length puts at the end."""
  ids = [int(token) for token in tokens]
  while ids and ids[-1] == 0:
    ids.pop()
  return ids


def _text(
  task: seqio.Task, example: Mapping[str, Any], side: str, tokens: Mapping[str, list[int]]
) -> str:
  if isinstance(text := example.get(f'{side}_pretokenized'), bytes):
    return text.decode('utf-8')
  if side not in tokens:
    return ''
  vocabulary = task.output_features[side].vocabulary
  return vocabulary.decode([token for token in tokens[side] if token != vocabulary.eos_id])

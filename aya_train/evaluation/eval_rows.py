"""Examples of a task as an evaluation needs them: tokens, texts, options of one question, cuts.

A task of ranked options has a row for each option (T5's `rank_classification`): `idx` says of which
question, `is_correct` which option is right, `inputs` are the same for all, `targets` the option.
"""

import dataclasses
import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import seqio

from aya_train.data import task_examples

_LONGEST_FIELD = 32  # values of a column that is kept beside an answer
_OURS = ('references', 'idx', 'is_correct', 'weight', 'label', 'inputs_cut', 'targets_cut')
_SCORED = seqio.metrics.ModelOutputType.SCORE


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
  """An example as a model gets it, and as people read it.

  Attributes:
    inputs, targets: int32 ids without padding, cut to their lengths.
    inputs_text, targets_text: before tokenisation, or the tokens as text; of cut inputs what is
      left.
    references: right answers; without those that are empty.
    question: what options of one question have in common; None where nothing is ranked.
    is_correct: of an option.
    fields: further columns.
  """

  inputs: np.ndarray
  targets: np.ndarray
  inputs_text: str
  targets_text: str
  references: tuple[str, ...]
  question: Hashable
  is_correct: bool
  fields: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
  """All examples of a task's split.

  Attributes:
    rows: in their order.
    questions: rows of each question, in the order of the first of them; one each where nothing is
      ranked.
    is_ranked: whether rows are options.
    notes: what a reader of the figures must know.
  """

  rows: Sequence[Row]
  questions: Sequence[Sequence[int]]
  is_ranked: bool
  notes: Sequence[str]

  def digest(self) -> str:
    """Of all that a model gets, and all that metrics are told besides: what is right, columns."""
    found = hashlib.sha256()
    for row in self.rows:
      for part in (row.inputs, row.targets):
        found.update(len(part).to_bytes(4, 'little') + part.astype('<i4').tobytes())
      right = (row.question, row.is_correct, row.references, sorted(row.fields.items()))
      found.update(repr(right).encode('utf-8', 'backslashreplace'))
    return found.hexdigest()[:32]


def is_scored(task: seqio.Task) -> bool:
  """Whether metrics of a task take log-probabilities of its targets."""
  return any(metric.model_output_type == _SCORED for metric in task.metric_objs)


def read(
  task: seqio.Task,
  examples: Iterable[Mapping[str, Any]],
  lengths: Mapping[str, int],
  *,
  cut_left: bool,
) -> Rows:
  """The rows of a task's examples.

  Args:
    task: whose they are.
    examples: as `task.get_dataset` gives them, as numpy arrays.
    lengths: of inputs and targets, in tokens.
    cut_left: inputs come uncut, and lose their beginning where they are too long; else the task has
      cut them.
  """
  rows = []
  counts = dict.fromkeys(('cut', 'full', 'targets_full', 'no_reference', 'no_target'), 0)
  for example in examples:
    row, cut = _row(task, example, lengths['inputs'], cut_left=cut_left)
    rows.append(row)
    counts['cut'] += cut
    counts['full'] += not cut_left and _is_cut(task, example, row.inputs, 'inputs', lengths)
    counts['targets_full'] += _is_cut(task, example, row.targets, 'targets', lengths)
    counts['no_reference'] += not row.references
    counts['no_target'] += not len(row.targets)
  is_ranked = bool(rows) and rows[0].question is not None
  groups: dict[Any, list[int]] = {}
  for i, row in enumerate(rows):
    groups.setdefault(row.question if is_ranked else i, []).append(i)
  return Rows(
    rows, list(groups.values()), is_ranked, _notes(counts, len(rows), lengths, is_ranked, task)
  )


def questions_of(examples: Iterable[Mapping[str, Any]], count: int) -> int:
  """How many rows the first questions have; options of a question are not torn apart."""
  seen: set[Hashable] = set()
  rows = 0
  for example in examples:
    key = _question(example)
    if key is None:
      return count
    if key not in seen and len(seen) == count:
      break
    seen.add(key)
    rows += 1
  return rows


def _row(
  task: seqio.Task, example: Mapping[str, Any], limit: int, *, cut_left: bool
) -> tuple[Row, bool]:
  inputs, targets = _ids(example.get('inputs', ())), _ids(example['targets'])
  cut = cut_left and len(inputs) > limit
  if cut:
    inputs = inputs[-limit:]
  cut = cut or int(example.get('inputs_cut', 0)) > 0  # a task may cut by itself, and say so
  inputs_text = '' if cut else _pretokenized(example, 'inputs')
  if not inputs_text and 'inputs' in task.output_features:
    inputs_text = _decoded(task, 'inputs', inputs)
  targets_text = _pretokenized(example, 'targets') or _decoded(task, 'targets', targets)
  question = _question(example)
  row = Row(
    *(inputs, targets, inputs_text, targets_text),
    _references(example, targets_text),
    question,
    bool(example.get('is_correct', False)) if question is not None else False,
    _fields(task, example),
  )
  return row, cut


def _ids(tokens: Any) -> np.ndarray:
  """Without the padding that a task with features of one static length puts at the end."""
  return np.trim_zeros(np.asarray(tokens, np.int32), 'b')


def _question(example: Mapping[str, Any]) -> Hashable:
  """`idx` without its last part, the number of the option; None if rows are no options."""
  if 'idx' not in example or 'is_correct' not in example:
    return None
  idx = np.asarray(example['idx'])
  parts = idx.reshape(-1).tolist()
  return tuple(parts[:-1] if len(parts) > 1 else parts)


def _references(example: Mapping[str, Any], target: str) -> tuple[str, ...]:
  found = example.get('references')
  texts = [target] if found is None else [_text(value) for value in np.asarray(found).reshape(-1)]
  return tuple(text for text in texts if text.strip())


def _fields(task: seqio.Task, example: Mapping[str, Any]) -> dict[str, Any]:
  """Further columns, as JSON; long ones are left out."""
  kept = {}
  known = {*task.output_features, *_OURS}
  for name, value in example.items():
    if name in known or name.endswith('_pretokenized'):
      continue
    array = np.asarray(value)
    if array.ndim == 0:
      kept[name] = _plain(array.item())
    elif array.ndim == 1 and array.size <= _LONGEST_FIELD:
      kept[name] = [_plain(part) for part in array.tolist()]
  return kept


def _plain(value: Any) -> Any:
  if isinstance(value, float) and not np.isfinite(value):
    return None
  return _text(value) if isinstance(value, bytes) else value


def _text(value: Any) -> str:
  return value.decode('utf-8', 'replace') if isinstance(value, bytes) else str(value)


def _pretokenized(example: Mapping[str, Any], side: str) -> str:
  value = example.get(f'{side}_pretokenized')
  return _text(value) if isinstance(value, bytes) else ''


def _decoded(task: seqio.Task, side: str, ids: np.ndarray) -> str:
  vocabulary = task.output_features[side].vocabulary
  return str(vocabulary.decode([int(i) for i in ids if i != vocabulary.eos_id]))


def _is_cut(
  task: seqio.Task,
  example: Mapping[str, Any],
  tokens: np.ndarray,
  side: str,
  lengths: Mapping[str, int],
) -> bool:
  """Whether a row that is as long as it may be was longer before the task cut it."""
  if f'{side}_cut' in example:
    return side == 'targets' and int(example['targets_cut']) > 0
  if side not in task.output_features or len(tokens) < lengths[side]:
    return False
  text = example.get(f'{side}_pretokenized')
  if not isinstance(text, bytes):
    return True
  feature = task.output_features[side]
  # A task may or may not end with the end of sequence, whatever its feature says.
  whole = len(feature.vocabulary.encode(_text(text)))
  ends = bool(len(tokens)) and int(tokens[-1]) == feature.vocabulary.eos_id
  return whole + ends > len(tokens)


def _notes(
  counts: Mapping[str, int],
  total: int,
  lengths: Mapping[str, int],
  is_ranked: bool,
  task: seqio.Task,
) -> list[str]:
  unit = 'options' if is_ranked else 'examples'
  inputs, targets = lengths['inputs'], lengths['targets']
  end = 'kept their end' if task_examples.eos_after_trim(task) else 'lost their end'
  said = (
    ('cut', f'inputs over {inputs} tokens lost their beginning'),
    ('full', f'inputs over {inputs} tokens were cut on the right, and {end} of sequence'),
    ('targets_full', f'targets over {targets} tokens were cut on the right'),
    ('no_target', 'have empty targets'),
    *(() if is_ranked else (('no_reference', 'have no reference, or only empty ones'),)),
  )
  return [f'{counts[name]} of {total} {unit}: {text}' for name, text in said if counts[name]]

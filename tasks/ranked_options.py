"""Tasks whose answer is one of a few options: the one that the model finds likeliest.

As in T5, `rank_classification` makes a row of each option of a question, its `idx` says which of
which, and a metric gets a log-probability for each row (`scores`). Two protocols differ in what is
scored:

- T0 (T0, mT0, Aya): the context without end-of-sequence, the option with it; log-probabilities are
  summed and not normalised.
- HARNESS (lm-evaluation-harness): the context with end-of-sequence, the option without; `acc` is of
  the sums, `acc_norm` of the sums over the options' lengths in characters.

There is no space before an option in either; SentencePiece vocabularies read ' Yes' as 'Yes'. What
is too long loses its beginning, and the row says how many tokens (`inputs_cut`, `targets_cut`).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from aya_train.tasks import eval_tasks, features
from aya_train.tasks.eval_tasks import HARNESS, T0, EvalTask

QUESTION = {
  'inputs': tf.TensorSpec((), tf.string),
  'options': tf.TensorSpec((None,), tf.string),
  'label': tf.TensorSpec((), tf.int32),
  'id': tf.TensorSpec((), tf.string),
  'language': tf.TensorSpec((), tf.string),
}
"""What a source of questions gives: `label` is the index of the right option."""

OUTPUT_FEATURES: Mapping[str, Mapping[str, seqio.Feature]] = {
  T0: {
    'inputs': seqio.Feature(vocabulary=features.VOCABULARY, add_eos=False),
    'targets': seqio.Feature(vocabulary=features.VOCABULARY, add_eos=True),
  },
  HARNESS: {
    'inputs': seqio.Feature(vocabulary=features.VOCABULARY, add_eos=True),
    'targets': seqio.Feature(vocabulary=features.VOCABULARY, add_eos=False),
  },
}

Target = tuple[tuple[int, int], bool, float, int]
"""(question, option), whether it is right, its weight, its length: T5's own four."""


def rank_classification(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Questions to a row for each option, in their order.

  Args:
    dataset: `inputs` [], `options` [options], `label` [], and other columns of any shape.

  Returns:
    `inputs` [], `targets` [] (strings), `idx` int32 [2] (question from 0, option from 0),
    `is_correct` bool [], `label` int32 [], and the other columns as they are.
  """

  def options_of(number: tf.Tensor, question: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    options = question['options']
    count = tf.size(options)
    numbers = tf.range(count)
    rows = {
      name: tf.repeat(value[tf.newaxis], count, axis=0)
      for name, value in question.items()
      if name != 'options'
    }
    return {
      **rows,
      'targets': options,
      'idx': tf.stack([tf.fill([count], tf.cast(number, tf.int32)), numbers], axis=1),
      'is_correct': tf.equal(numbers, tf.cast(question['label'], tf.int32)),
    }

  return dataset.enumerate().map(options_of, num_parallel_calls=tf.data.AUTOTUNE).unbatch()


def append_eos_after_cutting(
  dataset: tf.data.Dataset,
  output_features: Mapping[str, seqio.Feature],
  sequence_length: Mapping[str, int | None] | None,
) -> tf.data.Dataset:
  """Appends end-of-sequence where a feature has one, after cutting what is too long.

  `inputs` lose their beginning, since the question stands at their end; other features their end.
  `<feature>_cut` is the number of tokens that were lost, int32 [].
  """

  def cut(row: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    row = dict(row)
    for name, feature in output_features.items():
      ids = row[name]
      longest = (sequence_length or {}).get(name)
      lost = tf.constant(0, tf.int32)
      if longest is not None:
        lost = tf.maximum(0, tf.size(ids) - (longest - int(feature.add_eos)))
        ids = ids[lost:] if name == 'inputs' else ids[: tf.size(ids) - lost]
      if feature.add_eos:
        ids = tf.concat([ids, tf.constant([feature.vocabulary.eos_id], ids.dtype)], axis=0)
      row[name], row[f'{name}_cut'] = ids, lost
    return row

  return dataset.map(cut, num_parallel_calls=tf.data.AUTOTUNE)


PREPROCESSORS = (
  rank_classification,
  features.tokenize,
  seqio.CacheDatasetPlaceholder(),
  append_eos_after_cutting,
)


def target_or_score(
  value: Any,
  example: Mapping[str, Any] | None = None,
  is_target: bool = False,
  *,
  length: str = 'tokens',
) -> Any:
  """A postprocess_fn for rows of `rank_classification`, with T5's contract.

  Args:
    value: decoded target, or what a model gives.
    example: the row.
    is_target: give the `Target` of the row; else `value` as it is.
    length: what the target's length counts, 'tokens' or 'characters'.
  """
  if not is_target:
    return value
  assert example is not None
  question, option = (int(i) for i in example['idx'])
  if length == 'characters':
    text = example['targets_pretokenized']
    text = text.item() if hasattr(text, 'item') else text
    size = len(text.decode() if isinstance(text, bytes) else str(text))
  else:
    size = len(example['targets'])
  return (question, option), bool(example['is_correct']), float(example.get('weight', 1.0)), size


def questions(
  targets: Sequence[Target], scores: Sequence[float]
) -> list[tuple[list[Target], list[float]]]:
  """Rows gathered by question, both in the order of `idx`.

  Raises:
    ValueError: another number of scores than of targets.
  """
  rows = sorted(zip(targets, map(float, scores), strict=True), key=lambda row: row[0][0])
  found = []
  for _, group in itertools.groupby(rows, key=lambda row: row[0][0][0]):
    own, values = zip(*group, strict=True)
    found.append((list(own), list(values)))
  return found


def best(scores: Sequence[float]) -> int:
  """Index of the highest score: of equal ones the first, NaN being lower than any number."""
  return max(range(len(scores)), key=lambda i: -math.inf if scores[i] != scores[i] else scores[i])


def is_tied(scores: Sequence[float]) -> bool:
  """Whether several options have the highest score."""
  return len(scores) > 1 and sum(score == scores[best(scores)] for score in scores) > 1


def share(hits: Sequence[bool], name: str) -> dict[str, float]:
  """Percent of hits with its 95 % interval (Wilson's), which stays within 0 and 100.

  Returns:
    {name, name_low, name_high}; {} where there is nothing to count.
  """
  count = len(hits)
  if not count:
    return {}
  z = 1.959963984540054
  mean = sum(hits) / count
  middle = (mean + z * z / (2 * count)) / (1 + z * z / count)
  half = math.sqrt(mean * (1 - mean) / count + z * z / (4 * count * count)) * z
  half /= 1 + z * z / count
  return {
    name: 100.0 * mean,
    f'{name}{eval_tasks.LOW}': 100.0 * max(0.0, middle - half),
    f'{name}{eval_tasks.HIGH}': 100.0 * min(1.0, middle + half),
  }


def accuracy(targets: Sequence[Target], scores: Sequence[float]) -> dict[str, float]:
  """Percent of questions whose likeliest option is right; of equal options the first counts.

  Args:
    targets: of each row, see `target_or_score`, in any order.
    scores: log-probability of each row.
  """
  found = questions(targets, scores)
  return share([own[best(values)][1] for own, values in found], 'accuracy')


def acc_and_acc_norm(targets: Sequence[Target], scores: Sequence[float]) -> dict[str, float]:
  """`acc` and `acc_norm` of lm-evaluation-harness, in percent.

  Args:
    targets: of each row, lengths in characters (`target_or_score`).
    scores: log-probability of each row.
  """
  found = questions(targets, scores)
  normed = [
    [value / max(1, target[3]) for target, value in zip(own, values, strict=True)]
    for own, values in found
  ]
  return {
    **share([own[best(values)][1] for own, values in found], 'acc'),
    **share([own[best(n)][1] for (own, _), n in zip(found, normed, strict=True)], 'acc_norm'),
  }


METRICS: Mapping[str, Callable[..., dict[str, float]]] = {T0: accuracy, HARNESS: acc_and_acc_norm}
PUBLISHED: Mapping[str, str] = {T0: 'accuracy', HARNESS: 'acc'}
_POSTPROCESS: Mapping[str, Callable[..., Any]] = {
  T0: target_or_score,
  HARNESS: functools.partial(target_or_score, length='characters'),
}


def add(task: EvalTask, source: seqio.DataSource) -> EvalTask:
  """Registers a ranked task over a source of questions; nothing is opened.

  Args:
    task: its protocol is T0 or HARNESS.
    source: rows with the columns `QUESTION`, and others that are kept.
  """
  seqio.TaskRegistry.add(
    task.name,
    source=source,
    preprocessors=list(PREPROCESSORS),
    postprocess_fn=_POSTPROCESS[task.protocol],
    metric_fns=[METRICS[task.protocol]],
    output_features=dict(OUTPUT_FEATURES[task.protocol]),
  )
  return eval_tasks.add(task)


def notes(
  scores: Sequence[Sequence[float]], inputs_cut: Sequence[int] = (), targets_cut: Sequence[int] = ()
) -> list[str]:
  """What a reader must know of a ranked task's outcome, in sentences; [] if there is nothing.

  Args:
    scores: of the options of each question.
    inputs_cut: tokens that each question lost.
    targets_cut: tokens that each option lost.
  """
  found = []
  if tied := sum(map(is_tied, scores)):
    found.append(f'{tied:,} questions have several best options: the first counts')
  if bad := sum(any(score != score for score in row) for row in scores):
    found.append(f'{bad:,} questions have options without a score (NaN): these count as last')
  if cut := sum(lost > 0 for lost in inputs_cut):
    found.append(f'{cut:,} contexts are too long and lost their beginning')
  if cut := sum(lost > 0 for lost in targets_cut):
    found.append(f'{cut:,} options are too long and lost their end')
  return found

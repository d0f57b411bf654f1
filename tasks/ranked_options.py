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

from collections.abc import Callable, Mapping, Sequence

import seqio
import tensorflow as tf

from aya_train.tasks import eval_tasks, features
from aya_train.tasks.eval_tasks import HARNESS, T0, EvalTask
from aya_train.tasks.metrics import ranked

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


def acc_and_acc_norm(targets: Sequence[ranked.Row], scores: Sequence[float]) -> dict[str, float]:
  """`ranked.accuracy_by_length` under the names of lm-evaluation-harness: acc, acc_norm."""
  figures = ranked.accuracy_by_length(targets, scores)
  return {name.replace('accuracy', 'acc'): value for name, value in figures.items()}


METRICS: Mapping[str, Callable[..., dict[str, float]]] = {
  T0: ranked.accuracy,
  HARNESS: acc_and_acc_norm,
}
PUBLISHED: Mapping[str, str] = {T0: 'accuracy', HARNESS: 'acc'}
ENDINGS: Mapping[str, str] = {T0: '', HARNESS: '.harness'}
"""Of the names of a protocol's tasks and mixtures."""


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
    postprocess_fn=ranked.postprocess,
    metric_fns=[METRICS[task.protocol]],
    output_features=dict(OUTPUT_FEATURES[task.protocol]),
  )
  return eval_tasks.add(task)

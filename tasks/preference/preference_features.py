"""SeqIO tasks of pairs of answers: the features inputs, chosen and rejected."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import seqio
import tensorflow as tf

from aya_train.tasks import features, source_tasks
from aya_train.tasks.preference.preference_records import Comparison

FEATURES = {
  name: seqio.Feature(vocabulary=features.VOCABULARY, add_eos=True) for name in Comparison._fields
}
KINDS = ('language_code', 'script', 'dataset', 'task_type')
COLUMNS = (*Comparison._fields, *KINDS)


@seqio.map_over_dataset
def without_missing(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
  """No token, not even an end, for an answer that is not there."""
  found = dict(example)
  empty = tf.zeros((0,), tf.int32)
  for name in ('chosen', 'rejected'):
    is_there = tf.strings.length(example[f'{name}_pretokenized']) > 0
    found[name] = tf.cond(is_there, lambda x=example[name]: x, lambda: empty)
  return found


def add(name: str, source: seqio.DataSource) -> str:
  """Registers a task over a source of COLUMNS, and returns its name. Nothing is opened."""
  seqio.TaskRegistry.add(
    name,
    source=source,
    preprocessors=[
      functools.partial(source_tasks.keep_fields, fields=COLUMNS),
      *features.TOKENIZE_AND_APPEND_EOS,
      without_missing,
    ],
    metric_fns=[],
    output_features=FEATURES,
  )
  return name

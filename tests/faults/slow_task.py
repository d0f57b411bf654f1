"""A SeqIO task whose phases last long enough to be met by a signal; for runs of the command line.

SLOW_ROWS, in the environment, is the time that each row of the training data takes, in seconds.
"""

import os
import time

import numpy as np
import seqio
import tensorflow as tf

NAME = 'tests.slow'
VOCABULARY = seqio.PassThroughVocabulary(96, eos_id=1)
ROWS = {'train': 256, 'validation': 2000}


def _examples(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
  rng = np.random.default_rng(0)
  pause = float(os.environ.get('SLOW_ROWS', '0')) if split == 'train' else 0

  def generate():
    for _ in range(ROWS[split]):
      time.sleep(pause)
      row = rng.integers(3, 20, rng.integers(2, 7)).tolist()
      yield {'inputs': row, 'targets': row[:3]}

  spec = tf.TensorSpec([None], tf.int32)
  return tf.data.Dataset.from_generator(
    generate, output_signature={'inputs': spec, 'targets': spec}
  )


def _rows(targets, predictions):
  return {'rows': float(len(targets))}


_FEATURE = seqio.Feature(VOCABULARY, add_eos=True)
seqio.TaskRegistry.add(
  NAME,
  source=seqio.FunctionDataSource(_examples, splits=tuple(ROWS)),
  preprocessors=[seqio.preprocessors.append_eos],
  output_features={'inputs': _FEATURE, 'targets': _FEATURE},
  metric_fns=[_rows],
)

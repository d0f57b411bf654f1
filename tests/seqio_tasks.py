"""Small SeqIO tasks for tests: in-memory text under seqio.ByteVocabulary (id = byte + 3, EOS 1)."""

import functools

import numpy as np
import seqio
import tensorflow as tf

VOCABULARY = seqio.ByteVocabulary(extra_ids=0)
APPEND_EOS = (seqio.preprocessors.tokenize, seqio.preprocessors.append_eos)
APPEND_EOS_AFTER_TRIM = (
  seqio.preprocessors.tokenize,
  seqio.preprocessors.append_eos_after_trim,
)


def texts(count, longest=12, seed=0):
  """Returns (inputs, targets) pairs, each unique."""
  rng = np.random.default_rng(seed)
  sizes = rng.integers(0, longest - 3, (count, 2))
  return [(f'{i:03d}' + 'a' * n, f'{i:03d}' + 'b' * m) for i, (n, m) in enumerate(sizes)]


def dataset(split, shuffle_files, seed=None, *, examples):
  del shuffle_files, seed
  inputs, targets = zip(*examples[split], strict=True) if examples[split] else ((), ())
  columns = {'inputs': list(inputs), 'targets': list(targets)}
  return tf.data.Dataset.from_tensor_slices(
    {k: tf.constant(v, tf.string) for k, v in columns.items()}
  )


def add_task(name, examples, preprocessors=APPEND_EOS, vocabulary=VOCABULARY, metric_fns=()):
  """Registers (anew) a task; `examples` maps splits to lists of (inputs, targets) strings."""
  seqio.TaskRegistry.remove(name)
  feature = seqio.Feature(vocabulary=vocabulary, add_eos=True)
  return seqio.TaskRegistry.add(
    name,
    source=seqio.FunctionDataSource(
      functools.partial(dataset, examples=examples),
      splits=list(examples),
      num_input_examples={split: len(pairs) for split, pairs in examples.items()},
    ),
    preprocessors=list(preprocessors),
    output_features={'inputs': feature, 'targets': feature},
    metric_fns=list(metric_fns),
  )


def tokens(text):
  return (*(b + 3 for b in text.encode()), 1)

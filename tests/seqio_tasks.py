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


def ranked(name, questions, vocabulary=VOCABULARY, ends=(False, True), metric_fns=None, **options):
  """Registers (anew) a task with a row for each option, as T5's `rank_classification` makes them.

  Args:
    name: of the task; its split is 'test'.
    questions: (inputs, options, index of the right one).
    vocabulary: of both sides.
    ends: whether inputs and targets get an end of sequence; (False, True) is the protocol of T0.
    metric_fns: by default `ranked_accuracy`.
    **options: of seqio.TaskRegistry.add.
  """
  seqio.TaskRegistry.remove(name)
  rows = [
    (text, option, [i, k], k == right)
    for i, (text, choices, right) in enumerate(questions)
    for k, option in enumerate(choices)
  ]
  inputs, targets, idx, correct = zip(*rows, strict=True)

  def read(split, shuffle_files, seed=None):
    del split, shuffle_files, seed
    return tf.data.Dataset.from_tensor_slices(
      {
        'inputs': tf.constant(inputs),
        'targets': tf.constant(targets),
        'idx': tf.constant(idx, tf.int32),
        'is_correct': tf.constant(correct),
        'id': tf.constant([f'q{i}' for i, _ in idx]),
      }
    )

  return seqio.TaskRegistry.add(
    name,
    source=seqio.FunctionDataSource(read, splits=['test']),
    preprocessors=list(APPEND_EOS),
    output_features={
      side: seqio.Feature(vocabulary=vocabulary, add_eos=end)
      for side, end in zip(('inputs', 'targets'), ends, strict=True)
    },
    postprocess_fn=ranked_target,
    metric_fns=[ranked_accuracy] if metric_fns is None else metric_fns,
    **options,
  )


def ranked_target(value, example=None, is_target=False):
  """As T5's postprocessor: which question and option, and whether it is right."""
  return (tuple(example['idx']), bool(example['is_correct'])) if is_target else value


def ranked_accuracy(targets, scores):
  """Percent of questions whose likeliest option is right."""
  found = {}
  for ((question, _), correct), score in zip(targets, scores, strict=True):
    found.setdefault(question, []).append((score, correct))
  hits = [options[int(np.argmax([s for s, _ in options]))][1] for options in found.values()]
  return {'accuracy': 100 * float(np.mean(hits))}

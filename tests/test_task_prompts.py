"""What `infer` decodes of a task is what `eval` decodes."""

import numpy as np
import pytest
import seqio
import tensorflow as tf

from aya_train import task_prompts
from aya_train.data import task_examples
from aya_train.tasks import features

LENGTHS = {'inputs': 6, 'targets': 8}
TEXTS = [('How many is 2 and 2?', '4'), ('What is it?', 'seven')]


def from_texts(split, shuffle_files, seed=None):
  del split, shuffle_files, seed
  inputs, targets = map(list, zip(*TEXTS, strict=True))
  return tf.data.Dataset.from_tensor_slices({'inputs': inputs, 'targets': targets})


@seqio.map_over_dataset
def prompted(row):
  """The text stays as it was; the tokens are of another."""
  return row | {
    'inputs_pretokenized': row['inputs'],
    'inputs': tf.strings.join(['Answer: ', row['inputs']]),
  }


@seqio.map_over_dataset
def without_text(row):
  return {name: row[name] for name in ('inputs', 'targets')}


@seqio.map_over_dataset
def of_one_length(row):
  padded = {n: tf.concat([row[n], tf.zeros([64], tf.int32)], 0)[:64] for n in LENGTHS}
  return row | {name: tf.ensure_shape(tokens, [64]) for name, tokens in padded.items()}


@pytest.fixture
def tasks(cache):
  kinds = {
    'prompted': [prompted, *features.TOKENIZE_AND_APPEND_EOS],
    'textless': [*features.TOKENIZE_AND_APPEND_EOS, without_text],
    'static': [*features.TOKENIZE_AND_APPEND_EOS, of_one_length],
  }
  for name, preprocessors in kinds.items():
    seqio.TaskRegistry.add(
      f'infer_{name}',
      source=seqio.FunctionDataSource(from_texts, ('test',)),
      preprocessors=preprocessors,
      output_features=features.OUTPUT_FEATURES,
      metric_fns=[lambda targets, predictions: {}],
    )
  yield [f'infer_{name}' for name in kinds]
  for name in kinds:
    seqio.TaskRegistry.remove(f'infer_{name}')


def decoded_by_eval(name):
  evaluator = seqio.Evaluator(
    name, seqio.EncDecFeatureConverter(pack=False), 'test', sequence_length=LENGTHS, seed=42
  )
  converted = evaluator.model_feature_shapes, evaluator.cached_model_datasets[name]
  return [
    [int(t) for t in example['encoder_input_tokens'] if t]
    for _, example in converted[1].as_numpy_iterator()
  ]


def test_the_tokens_are_those_that_eval_decodes(tasks):
  for name in tasks:
    found = task_prompts.task_examples_of(name, 'test', None, LENGTHS)
    assert [example.tokens for example in found] == decoded_by_eval(name)


def test_texts_are_those_before_tokenisation_or_else_the_tokens(tasks):
  prompted, textless, static = (task_prompts.task_examples_of(n, 'test', None) for n in tasks)
  assert [(e.inputs, e.targets) for e in static] == TEXTS
  assert [(e.inputs, e.targets) for e in textless] == TEXTS
  assert prompted[0].targets == '4'
  assert task_prompts.picked_texts(tasks[1], 'test', 1) == TEXTS[:1]


def test_features_of_one_static_length_are_prepared(tasks):
  task = seqio.TaskRegistry.get(tasks[2])
  rows = [tokens for tokens, _ in task_examples.examples(task, 'test')]
  assert [[a.shape for a in tokens] for tokens in rows] == [[(64,), (64,)]] * 2
  assert np.flatnonzero(rows[0][1]).max() > 0

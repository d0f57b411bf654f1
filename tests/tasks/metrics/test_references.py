"""References of examples, and metric functions inside SeqIO tasks."""

import numpy as np
import pytest
import seqio

from aya_train.tasks.metrics import answer_shape, numerals, ranked, references, squad


def test_columns_of_an_example_become_references_with_language_and_fields():
  example = {
    'references': np.array([b'moja', b'mbili'], object),
    'language': b'swh',
    'id': np.int64(7),
    'targets': np.arange(9),
    'tags': np.array(['a', 'b'], object),
  }
  found = references.postprocess('moja', example, is_target=True)
  assert found == ['moja', 'mbili']
  assert found.language == 'swh'
  assert found.fields == {'language': 'swh', 'id': 7, 'tags': ['a', 'b']}
  assert references.postprocess('jibu', example, is_target=False) == 'jibu'


def test_without_columns_the_target_is_the_reference():
  assert references.postprocess('moja', {}, is_target=True) == ['moja']
  assert references.texts('moja') == ['moja'] and references.texts(None) == []
  assert references.language('moja', 'swh') == 'swh'


def test_examples_without_a_reference_are_left_out_and_counted():
  found = squad.squad([['a'], []], ['a', 'b'])
  assert (found['f1'], found['without_reference']) == (100.0, 1.0)
  assert squad.squad([[]], ['a']) == {'without_reference': 1.0}
  assert squad.squad([], []) == {}


def test_seqio_takes_metrics_whose_options_are_bound():
  task = seqio.Task(
    'metrics_of_options',
    source=seqio.FunctionDataSource(lambda split, shuffle_files, seed=None: None, ['test']),
    output_features={},
    metric_fns=[
      references.bound(numerals.mgsm, language='deu'),
      references.bound(answer_shape.lengths, vocabulary=str.split),
      ranked.accuracy,
    ],
  )
  first, second = task.predict_metric_fns
  assert first([['1.234']], ['also 1.234 Euro'])['accuracy'] == 100.0
  assert second([['a']], ['b c d'])['answer_tokens'] == 3.0
  assert [metric.__name__ for metric in task.score_metric_fns] == ['accuracy']


def test_lengths_that_differ_are_refused():
  with pytest.raises(ValueError, match='shorter'):
    squad.squad([['a'], ['b']], ['a'])

"""Rows of ranked options, in the two protocols: one an option, as T5's rank_classification has."""

import numpy as np
import pytest
import seqio
import tensorflow as tf

from aya_train.tasks import eval_tasks, features, ranked_options
from aya_train.tasks.eval import contamination, eval_source
from aya_train.tasks.eval_tasks import HARNESS, T0, EvalTask

QUESTIONS = [
  {'inputs': 'the cat sat on the mat and', 'options': ['slept', 'flew away'], 'label': 0},
  {'inputs': 'two and two', 'options': ['are five', 'are', 'are four'], 'label': 2},
]
EOS = 1


def read(split):
  for i, question in enumerate(QUESTIONS):
    yield {**question, 'id': f'q{i}', 'language': 'eng'}


@pytest.fixture
def tasks(vocabulary_file):
  features.set_vocabulary(vocabulary_file)
  source = eval_source.EvalSource(read, ranked_options.QUESTION)
  names = {T0: 'ranked_for_tests', HARNESS: 'ranked_for_tests.harness'}
  for protocol, name in names.items():
    ranked_options.add(EvalTask(name, 'ranked_for_tests', protocol=protocol), source)
  yield {protocol: seqio.TaskRegistry.get(name) for protocol, name in names.items()}
  for name in names.values():
    seqio.TaskRegistry.remove(name)
    eval_tasks.remove(name)
  features.set_vocabulary(None)


def rows(task, inputs=64, targets=64):
  lengths = {'inputs': inputs, 'targets': targets}
  return list(task.get_dataset(lengths, 'test', shuffle=False).as_numpy_iterator())


def test_a_row_an_option_in_their_order(tasks):
  found = rows(tasks[T0])
  assert [tuple(row['idx']) for row in found] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
  assert [bool(row['is_correct']) for row in found] == [True, False, False, False, True]
  assert [row['id'] for row in found] == [b'q0', b'q0', b'q1', b'q1', b'q1']
  texts = [option for question in QUESTIONS for option in question['options']]
  assert [row['targets_pretokenized'].decode() for row in found] == texts


def test_t0_ends_the_option_alone_and_the_harness_the_context_alone(tasks):
  for row in rows(tasks[T0]):
    assert row['targets'][-1] == EOS
    assert EOS not in row['inputs']
  for row, other in zip(rows(tasks[HARNESS]), rows(tasks[T0]), strict=True):
    assert row['inputs'][-1] == EOS
    assert EOS not in row['targets']
    np.testing.assert_array_equal(row['inputs'][:-1], other['inputs'])
    np.testing.assert_array_equal(row['targets'], other['targets'][:-1])


@pytest.mark.parametrize('protocol', [T0, HARNESS])
def test_what_is_too_long_loses_the_beginning_of_the_context_and_it_is_counted(tasks, protocol):
  whole, cut = rows(tasks[protocol]), rows(tasks[protocol], inputs=5, targets=3)
  for full, row in zip(whole, cut, strict=True):
    np.testing.assert_array_equal(row['inputs'], full['inputs'][-5:])
    assert row['inputs_cut'] == max(0, len(full['inputs']) - 5)
    assert row['targets_cut'] == max(0, len(full['targets']) - 3)
    assert len(row['targets']) <= 3
  assert all(row['inputs_cut'] == row['targets_cut'] == 0 for row in whole)


@pytest.mark.parametrize('protocol', [T0, HARNESS])
def test_seqios_evaluator_gives_the_metric_its_scores(tasks, protocol):
  """The right options score best but for the first question's; its option is the longer one."""
  task = tasks[protocol]
  scores = [-9.0, -8.0, -5.0, -3.0, -2.0]
  targets = [
    task.postprocess_fn(decoded_model_output=None, example=row, is_target=True)
    for row in rows(task)
  ]
  (metric,) = task.score_metric_fns
  figures = metric(targets, scores)
  name = ranked_options.PUBLISHED[protocol]
  assert figures[name] == 50
  assert figures[f'{name}_low'] <= 50 <= figures[f'{name}_high']
  if protocol == HARNESS:
    # By characters: -9/5 < -8/9; -5/8, -3/3, -2/8.
    assert figures['acc_norm'] == 50


def test_the_search_for_contamination_takes_a_question_once(tasks):
  found = list(contamination.texts_of(tasks[T0], 'test'))
  assert found == [(question['inputs'], '\n'.join(question['options'])) for question in QUESTIONS]


def test_another_column_of_any_shape_stays(vocabulary_file):
  questions = tf.data.Dataset.from_tensors(
    {'inputs': 'x', 'options': ['a', 'b'], 'label': 1, 'kept': [[1, 2], [3, 4], [5, 6]]}
  )
  found = list(ranked_options.rank_classification(questions).as_numpy_iterator())
  assert [row['kept'].shape for row in found] == [(3, 2), (3, 2)]

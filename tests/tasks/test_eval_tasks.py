"""What is written about evaluations reads back as it was."""

import json

import pytest

from aya_train.tasks import eval_tasks


def test_a_prediction_reads_back():
  whole = eval_tasks.Prediction(
    'xcopa.et.best_option', 3, 'a?', ['x'], 'y', ['x', 'y'], [-2.0, -1.5], 0, None, {'id': 'r3'}
  )
  assert eval_tasks.Prediction.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole
  bare = eval_tasks.Prediction('t', 0, 'a', prediction='')
  assert bare.to_dict() == {'task': 't', 'index': 0, 'inputs': 'a', 'prediction': ''}


@pytest.mark.parametrize('values', [{'task': 't', 'index': 0}, {'task': 't', 'indexes': 1}])
def test_another_record_is_refused(values):
  with pytest.raises(ValueError, match=r'unknown keys|lacks'):
    eval_tasks.Prediction.from_dict(values)


def test_a_result_reads_back():
  about = eval_tasks.EvalTask('t', 'xcopa', 'est', 'best_option', eval_tasks.T0, 'accuracy')
  result = eval_tasks.Result(about, 100, {'accuracy': 51.0, 'accuracy_low': 41.0}, ['2 ties'])
  assert eval_tasks.Result.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_a_task_is_described_once():
  task = eval_tasks.EvalTask('described_once', 'b')
  assert eval_tasks.add(task) is task
  assert eval_tasks.add(eval_tasks.EvalTask('described_once', 'b')) == task
  with pytest.raises(ValueError, match='defined twice'):
    eval_tasks.add(eval_tasks.EvalTask('described_once', 'c'))
  assert eval_tasks.about('described_once') == task
  assert eval_tasks.about('nobody').benchmark == 'nobody'


def test_names_of_prompts():
  assert eval_tasks.slug('C1 or C2? premise, so/because…') == 'C1_or_C2_premise_so_because'

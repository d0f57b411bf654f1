"""What is read, cut, left out and noted of tasks; a stand-in answers at once."""

import dataclasses
import json

import numpy as np
import pytest
import seqio

from aya_train import model_answers
from aya_train.evaluation import (
  eval_answers,
  eval_results,
  eval_rows,
  infer_eval,
  infer_evaluator,
  missing_tasks,
)
from aya_train.tasks import eval_tasks
from tests import seqio_tasks

LENGTHS = {'inputs': 16, 'targets': 6}
QUESTIONS = [
  ('a' * 30 + 'end', ['yes', 'no', 'yes'], 1),
  ('short', ['x', 'y', 'z', 'much too long'], 2),
]


class Echo:
  """Answers with the first ids of the input; a target's score is minus its length."""

  batch_size = 2

  def __init__(self, stops_after=None):
    self.seen, self.stops_after = [], stops_after

  def generate(self, inputs, ids, *, limit, max_decode_length):
    assert all(len(row) <= limit for row in inputs)
    self._ask([row.tolist() for row in inputs])
    rows = [[*row[: max_decode_length - 1].tolist()] for row in inputs]
    return [model_answers.Answer(r if i % 2 else [*r, 1], -1.5) for i, r in zip(ids, rows)]  # noqa: B905

  def score(self, questions, *, limit):
    assert all(len(q.inputs) <= limit for q in questions)
    self._ask([q.inputs.tolist() for q in questions])
    return [[-float(len(t)) for t in q.targets] for q in questions]

  def _ask(self, rows):
    if self.stops_after is not None and len(self.seen) >= self.stops_after:
      raise KeyboardInterrupt
    self.seen.append(rows)


def accuracy(targets, predictions):
  return {'same': 100 * float(np.mean([t == p for t, p in zip(targets, predictions, strict=True)]))}


@pytest.fixture
def tasks():
  pairs = [('abc', 'abc'), ('b' * 40, ''), ('cd', 'cd'), ('e', 'e'), ('fgh', 'f')]
  splits = {'validation': pairs, 'test': pairs[:2]}
  seqio_tasks.add_task('tests.answers', splits, metric_fns=[accuracy])
  seqio_tasks.ranked('tests.options', QUESTIONS)
  yield
  for name in ('tests.answers', 'tests.options'):
    seqio.TaskRegistry.remove(name)
  seqio.MixtureRegistry.remove('tests.both')


def evaluator(names, answerer=None, **settings):
  config = infer_eval.InferEvalConfig(names, LENGTHS, **{'split': 'test', **settings})
  return infer_evaluator.InferEvaluator(
    None, None, config, answerer=answerer or Echo(), keeps_examples=False
  )


def store(folder, step=0, fingerprint='x'):
  return eval_results.Results(
    folder, eval_results.Evaluated('somewhere', fingerprint, step, {}, {'decoding': {}})
  )


def lines(folder, task):
  text = (folder / eval_tasks.PREDICTIONS / f'{task}.jsonl').read_text()
  return [eval_tasks.Prediction.from_dict(json.loads(line)) for line in text.splitlines()]


def test_answers_are_lines_with_all_that_is_known_of_them(tasks, tmp_path):
  failures = {}
  made = evaluator('tests.answers', split='validation')
  outcome = made.evaluate_task('tests.answers', None, 0, failures=failures, store=store(tmp_path))
  assert not failures and outcome.num_examples == 5
  found = lines(tmp_path, 'tests.answers')
  assert [p.index for p in found] == [0, 1, 2, 3, 4]
  assert (found[0].inputs, found[0].prediction, list(found[0].targets)) == ('abc', 'abc', ['abc'])
  assert found[0].log_likelihood == -1.5 and found[1].targets == ()
  assert found[0].tokens == [*(b + 3 for b in b'abc'), 1, 1]
  assert outcome.notes == (
    '1 of 5 examples: inputs over 16 tokens were cut on the right, and lost their end of sequence',
    '1 of 5 examples: have no reference, or only empty ones',
  )


def test_options_lose_the_beginning_of_their_input_and_are_not_torn_apart(tasks, tmp_path):
  answerer = Echo()
  made = evaluator('tests.options', answerer, num_examples=2)
  outcome = made.evaluate_task('tests.options', None, 0, failures={}, store=store(tmp_path))
  first, second = lines(tmp_path, 'tests.options')
  assert first.inputs == 'a' * 13 + 'end' and second.inputs == 'short'
  assert first.option_scores == [-4.0, -3.0, -4.0] and first.prediction == 'no'
  assert second.label == 2 and second.option_scores == [-2.0, -2.0, -2.0, -6.0]
  assert outcome.metrics == {'accuracy': 50.0} and outcome.num_examples == 2
  assert outcome.notes == (
    '3 of 7 options: inputs over 16 tokens lost their beginning',
    '1 of 7 options: targets over 6 tokens were cut on the right',
    '1 of 2 questions: the best scores are equal, the first option counts',
  )
  assert len(answerer.seen[0]) == 2  # one input a question
  one = evaluator('tests.options', num_examples=1)
  assert one.evaluate_task('tests.options', None, 0, failures={}).num_examples == 1


@pytest.mark.parametrize('change', [{'references': ('a', 'b')}, {'fields': {'gender': 'female'}}])
def test_figures_of_other_references_or_columns_are_not_kept(change):
  ids = np.array([5, 1], np.int32)
  row = eval_rows.Row(ids, ids, 'a', 'a', ('a',), None, False, {'gender': 'male'})
  rows = eval_rows.Rows([row], [[0]], False, ())
  other = dataclasses.replace(rows, rows=[dataclasses.replace(row, **change)])
  assert rows.digest() == dataclasses.replace(rows).digest() != other.digest()


def test_figures_say_what_their_own_answers_were_found_with(tasks, tmp_path):
  """The second command decodes otherwise, and another task."""
  about = eval_tasks.about
  for task, decoding in (('tests.answers', 'greedy'), ('tests.options', 'beams')):
    evaluated = eval_results.Evaluated('somewhere', 'x', 0, {}, {'decoding': decoding})
    kept = eval_results.Results(tmp_path, evaluated)
    outcome = evaluator(task).evaluate_task(task, None, 0, failures={}, store=kept)
    kept.add(eval_results.result(outcome, about(task)))
  found = json.loads((tmp_path / eval_tasks.RESULTS).read_text())
  assert found['settings'] == {'decoding': 'beams'}
  settings = {name: task['settings'] for name, task in found['tasks'].items()}
  assert settings['tests.answers']['decoding'] == 'greedy'
  assert settings['tests.answers']['lengths'] == LENGTHS
  assert 'decoding' not in settings['tests.options']  # options are not decoded


@pytest.mark.parametrize('eos_id', [1, 9])
def test_an_answer_of_full_length_ends_with_the_end_of_its_own_vocabulary(eos_id):
  records = [{'tokens': [5, 1], 'prediction': 'a'}, {'tokens': [5, 9], 'prediction': 'b'}]
  notes = eval_answers.notes_of(records, {'targets': 2}, is_ranked=False, eos_id=eos_id)
  assert notes == ['1 of 2 answers reached 2 tokens without an end']
  records = [{'tokens': [eos_id], 'prediction': 'a'}] * 2
  assert not eval_answers.notes_of(records, {'targets': 1}, is_ranked=False, eos_id=eos_id)


def test_a_stopped_task_asks_for_what_it_lacks(tasks, tmp_path):
  made = evaluator('tests.answers', Echo(stops_after=2), split='validation')
  with pytest.raises(KeyboardInterrupt):
    made.evaluate_task('tests.answers', None, 0, failures={}, store=store(tmp_path))
  answerer = Echo()
  again = evaluator('tests.answers', answerer, split='validation')
  outcome = again.evaluate_task('tests.answers', None, 0, failures={}, store=store(tmp_path))
  assert [len(batch) for batch in answerer.seen] == [1] and outcome.num_examples == 5
  assert len(lines(tmp_path, 'tests.answers')) == 5


@pytest.fixture
def gone(tasks, tmp_path):
  """Beside tasks that are there two without their data, of one benchmark, and a mixture of all."""
  names = ['tests.gone.swa', 'tests.gone.yor']
  for name in names:
    seqio.TaskRegistry.add(
      name,
      source=seqio.TextLineDataSource({'test': str(tmp_path / f'{name}.txt')}),
      preprocessors=[lambda ds: ds.map(lambda t: {'inputs': t, 'targets': t})]
      + list(seqio_tasks.APPEND_EOS),
      output_features={
        side: seqio.Feature(seqio_tasks.VOCABULARY) for side in ('inputs', 'targets')
      },
      metric_fns=[accuracy],
    )
    eval_tasks.add(eval_tasks.EvalTask(name, 'tests.gone', name[-3:]))
  seqio.MixtureRegistry.add('tests.both', [*names, 'tests.answers'], default_rate=1.0)
  yield names
  for name in names:
    seqio.TaskRegistry.remove(name)
    eval_tasks.remove(name)


def test_missing_data_are_refused_together_or_left_out_where_one_says_so(gone):
  names = ('tests.both', 'tests.options', 'tests.answers')
  with pytest.raises(missing_tasks.MissingTasksError) as raised:
    evaluator(names)
  first, *others = str(raised.value).split('\n')
  assert first.startswith('2 of 4 tasks cannot be evaluated') and 'MISSING_TASKS' in first
  assert len(others) == 1
  assert others[0].startswith(
    '- tests.gone, 2 tasks in 2 languages (swa, yor): its data is missing'
  )
  made = evaluator(names, missing_tasks='leave_out')
  assert made.tasks == ['tests.answers', 'tests.options']
  assert list(made.left_out) == gone
  for name, reason in made.left_out.items():  # each its own
    assert f'{name.split(".")[-1]}.txt' in reason
  with pytest.raises(infer_evaluator.NothingToDecodeError, match=r'gone\.swa\.txt'):
    evaluator(tuple(gone), missing_tasks='leave_out')
  with pytest.raises(ValueError, match='MISSING_TASKS must be'):
    evaluator('tests.answers', missing_tasks='skip')


def test_a_split_that_a_name_lacks_is_missing_and_that_of_a_mixture_s_task_is_not(tasks):
  seqio.MixtureRegistry.add('tests.both', ['tests.options', 'tests.answers'], default_rate=1.0)
  with pytest.raises(OSError, match=r"- tests\.options: no split 'validation'"):
    evaluator(('tests.answers', 'tests.options'), split='validation')
  assert evaluator('tests.both', split='validation').tasks == ['tests.answers']
  with pytest.raises(OSError, match=r"tests\.answers, tests\.options: no split 'train'"):
    evaluator('tests.both', split='train')


def test_lengths_and_splits_may_be_those_of_a_task(monkeypatch):
  config = infer_eval.InferEvalConfig(
    'x', LENGTHS, 'test', lengths_of_tasks={'mgsm.*': {'inputs': 99}, '*.swa': {'targets': 7}}
  )
  assert config.lengths_of('mgsm.swa') == {'inputs': 99, 'targets': 7}
  assert config.lengths_of('xnli.fra') == LENGTHS
  monkeypatch.setattr(eval_tasks, '_TASKS', {})
  eval_tasks.add(eval_tasks.EvalTask('xnli.fra', 'xnli', split='validation'))
  assert config.split_of('xnli.fra') == 'test'
  published = infer_eval.InferEvalConfig('x', LENGTHS, None, splits_of_tasks={'other*': 'dev[:5]'})
  names = ('xnli.fra', 'mine', 'others')
  assert [published.split_of(n) for n in names] == ['validation', 'test', 'dev[:5]']
  with pytest.raises(ValueError, match=r"has lengths of \['input'\]"):
    infer_eval.InferEvalConfig('x', LENGTHS, lengths_of_tasks={'*': {'input': 9}})
  with pytest.raises(ValueError, match='names nothing'):
    infer_eval.InferEvalConfig((), LENGTHS)

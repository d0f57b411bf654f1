"""Runs that go wrong: what is saved, exported or reported is finite, or says that it is not."""

import dataclasses
import os
import signal

import jax
import numpy as np
import pytest
import seqio

from aya_train import finiteness, inference, nonfinite_steps, optimizer, train_loop
from aya_train.checkpoint import manager
from aya_train.evaluation import evaluation, infer_eval
from tests import test_nonfinite_steps, test_train_loop, tiny

pytestmark = [pytest.mark.faults]
settings, losses = test_train_loop.settings, test_train_loop.losses
rates, strict_lines = test_nonfinite_steps.rates, test_nonfinite_steps.strict_lines
SELDOM = test_nonfinite_steps.SELDOM


@pytest.fixture(scope='module', autouse=True)
def copy_task():
  test_train_loop.register_task()
  yield
  seqio.TaskRegistry.remove('tests.copy')


@pytest.fixture(scope='module')
def prepared_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('prepared')


SKIP = {'nonfinite_cfg': nonfinite_steps.NonFiniteConfig('skip_batch', max_skips=2)}


def test_a_skipped_batch_changes_nothing_but_the_counts(tmp_path, prepared_dir, caplog):
  def state_after(steps):
    return jax.device_get(
      train_loop.train(
        **settings(
          tmp_path,
          prepared_dir,
          **SKIP,
          learning_rate_fn=rates(3, value=np.nan),
          total_steps=steps,
          train_eval_dataset_cfg=None,
        )
      )
    )

  before, after = state_after(2), state_after(3)
  for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
    counts = old.ndim == 0 and np.issubdtype(old.dtype, np.integer)
    np.testing.assert_array_equal(new, old + 1 if counts else old)
  assert 'step 3: params/' in caplog.text
  assert 'batch was skipped' in caplog.text
  assert (tmp_path / 'nonfinite' / 'step_3.npz').exists()
  skipped = [line for line in strict_lines(tmp_path) if line['kind'] == 'nonfinite']
  assert [(line['step'], line['skipped'], line['skips']) for line in skipped] == [(3, 1, 1)]
  assert skipped[0]['found_in'].startswith('params/')
  assert 3 not in losses(tmp_path)  # nothing was learnt in it


def test_more_skips_than_allowed_stop_the_run_also_over_restarts(tmp_path, prepared_dir):
  ours = settings(tmp_path, prepared_dir, **SKIP, learning_rate_fn=rates(1, 2, 4))
  train_loop.train(**{**ours, 'total_steps': 2})
  with pytest.raises(
    finiteness.NonFiniteError,
    match=r'^step 4: .*3 batches.*NONFINITE_MAX_SKIPS is 2.*checkpoint of step 2 is good',
  ):
    train_loop.train(**ours)
  assert manager.find(tmp_path).name == '2'


def assert_equal(one, other):
  for a, b in zip(*(jax.tree.leaves(jax.device_get(x)) for x in (one, other)), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_run_that_skips_and_is_stopped_and_resumed_equals_one_that_was_not(
  tmp_path, prepared_dir
):
  ours = {**SKIP, 'learning_rate_fn': rates(2, 5), 'total_steps': 6, 'random_seed': 4}
  whole = train_loop.train(**settings(tmp_path / 'whole', prepared_dir, **ours))
  sent = []

  def interrupt(step):  # inside the compiled step that follows: the run stops in the middle
    if int(step) == 4 and not sent:
      sent.append(os.kill(os.getpid(), signal.SIGTERM))

  def interrupting(step):
    jax.debug.callback(interrupt, step)
    return ours['learning_rate_fn'](step)

  with pytest.raises(BaseException) as caught:
    train_loop.train(
      **settings(tmp_path / 'parts', prepared_dir, **{**ours, 'learning_rate_fn': interrupting})
    )
  assert not isinstance(caught.value, Exception) or 'stop' in type(caught.value).__name__.lower()
  assert manager.latest_step(tmp_path / 'parts') < 6
  parts = train_loop.train(**settings(tmp_path / 'parts', prepared_dir, **ours))
  assert_equal(whole, parts)
  assert losses(tmp_path / 'whole') == losses(tmp_path / 'parts')
  found = [
    [(line['step'], line['skips']) for line in lines if line['kind'] == 'nonfinite']
    for lines in (strict_lines(tmp_path / name) for name in ('whole', 'parts'))
  ]
  assert dict(found[0]) == dict(found[1]) == {2: 1, 5: 2}


@pytest.mark.parametrize(
  'changes',
  [
    {'num_microbatches': 2},
    {'model': tiny.model({'loss_normalizing_factor': 'AVERAGE_PER_SEQUENCE'}, dtype='bfloat16')},
    {'optimizer': lambda rate, axes: optimizer.adafactor(rate, axes, beta1=0.9)},
  ],
  ids=['microbatches', 'bfloat16', 'momentum'],
)
def test_a_huge_learning_rate_leaves_nothing_bad_behind(tmp_path, prepared_dir, changes):
  rate = optimizer.create_learning_rate_scheduler('constant', 1e38)
  with pytest.raises(finiteness.NonFiniteError, match=r'^step \d: '):
    train_loop.train(
      **settings(
        tmp_path,
        prepared_dir,
        **{'schedule': SELDOM, 'learning_rate_fn': rate, 'total_steps': 8, **changes},
      )
    )
  strict_lines(tmp_path)
  for step in (tmp_path / 'checkpoints').iterdir():
    state = manager.read_params(step, tiny_params())
    finiteness.check(state, 'kept', '')


def tiny_params():
  return jax.eval_shape(lambda: tiny.params(tiny.model()))


@pytest.fixture(scope='module')
def bad_run(tmp_path_factory, prepared_dir):
  """A run whose only checkpoint holds an infinity, as an older program might have left it."""
  folder = tmp_path_factory.mktemp('bad')
  ours = settings(folder / 'good', prepared_dir, total_steps=2, train_eval_dataset_cfg=None)
  state = train_loop.train(**ours)
  table = state.params['token_embedder']['embedding']
  params = {**state.params, 'token_embedder': {'embedding': table.at[5, 3].set(np.inf)}}
  bad = manager.CheckpointManager(
    folder / 'bad', manager.CheckpointConfig(use_async=False), ours['model'].metadata()
  )
  bad.save(dataclasses.replace(state, params=params), None)
  bad.close()
  return folder / 'bad'


NAMED = r'token_embedder/embedding is not finite: 1 of its 1,536 numbers'


def test_weights_with_an_infinity_are_not_trained_on(bad_run, tmp_path, prepared_dir):
  with pytest.raises(finiteness.NonFiniteError, match=NAMED):
    train_loop.train(
      **settings(
        tmp_path,
        prepared_dir,
        initial_checkpoint_path=str(bad_run),
        schedule=train_loop.Schedule(eval_before_training=True),
      )
    )
  assert manager.latest_step(tmp_path) is None


def test_weights_with_an_infinity_are_neither_evaluated_nor_do_they_answer(
  bad_run, tmp_path, prepared_dir
):
  ours = settings(tmp_path, prepared_dir)
  common = {
    'model': ours['model'],
    'partitioner': ours['partitioner'],
    'checkpoint_path': str(bad_run),
  }
  with pytest.raises(finiteness.NonFiniteError, match=NAMED):
    evaluation.evaluate(
      **common, output_dir=str(tmp_path / 'eval'), dataset_cfg=ours['train_eval_dataset_cfg']
    )
  with pytest.raises(finiteness.NonFiniteError, match=NAMED):
    inference.infer(
      **common,
      task_feature_lengths={'inputs': 16, 'targets': 8},
      output_file=str(tmp_path / 'answers.jsonl'),
      mixture_or_task_name='tests.copy',
      split='validation',
    )
  assert not (tmp_path / 'answers.jsonl').exists()


def test_a_metric_that_is_nan_fails_the_run_at_its_end_each_time(tmp_path, prepared_dir):
  task = seqio.TaskRegistry.get('tests.copy')
  seqio.TaskRegistry.add(
    'tests.nan',
    source=task.source,
    preprocessors=list(task.preprocessors),
    output_features=task.output_features,
    metric_fns=[lambda targets, predictions: {'rho': float('nan'), 'sound': 1.0}],
  )
  cfg = infer_eval.InferEvalConfig('tests.nan', {'inputs': 16, 'targets': 8}, num_examples=4)
  ours = settings(
    tmp_path, prepared_dir, total_steps=1, train_eval_dataset_cfg=None, infer_eval_cfg=cfg
  )
  try:
    for _ in range(2):  # the second time nothing is left to train
      with pytest.raises(evaluation.EvaluationError, match=r'tests\.nan at step 1 .*rho is nan'):
        train_loop.train(**ours)
  finally:
    seqio.TaskRegistry.remove('tests.nan')
  assert manager.latest_step(tmp_path) == 1
  (line, *_) = [x for x in strict_lines(tmp_path) if x['kind'] == 'infer_eval/tests.nan']
  assert line['sound'] == 1.0
  assert line['not_finite'] == 'rho'
  assert 'NaN' not in (tmp_path / 'inference_eval' / 'tests.nan-metrics.jsonl').read_text()

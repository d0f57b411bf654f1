"""Runs in which a step goes wrong: nothing that is NaN or infinite is kept, nothing is silent."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio

from aya_train import finiteness, metric_writer, nonfinite_steps, train_loop
from aya_train.checkpoint import manager
from aya_train.data import batching
from tests import test_train_loop

settings, losses = test_train_loop.settings, test_train_loop.losses


@pytest.fixture(scope='module', autouse=True)
def copy_task():
  test_train_loop.register_task()
  yield
  seqio.TaskRegistry.remove('tests.copy')


@pytest.fixture(scope='module')
def prepared_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('prepared')


def rates(*bad_steps, value=np.inf):
  """A learning rate that is not finite in the updates that lead to some steps."""
  bad = jnp.array([step - 1 for step in bad_steps])
  return lambda step: jnp.where((step == bad).any(), value, 0.01)


def strict_lines(model_dir):
  """The lines of metrics.jsonl by a parser that takes no NaN."""

  def refuse(word):
    raise AssertionError(f'{word} in metrics.jsonl')

  text = (model_dir / metric_writer.FILE).read_text()
  return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


# Seldom looked at, and saved between two looks.
SELDOM = {'schedule': train_loop.Schedule(log_period=100, eval_period=100, eval_steps=2)}


def test_parameters_that_overflow_in_the_last_update_are_neither_saved_nor_validated(
  tmp_path, prepared_dir
):
  with pytest.raises(finiteness.NonFiniteError) as caught:
    train_loop.train(**settings(tmp_path, prepared_dir, **SELDOM, learning_rate_fn=rates(4)))
  message = str(caught.value)
  assert message.startswith('step 4: params/decoder/')
  assert 'the checkpoint of step 2 is good' in message
  assert "NONFINITE_POLICY = 'skip_batch'" in message
  assert manager.find(tmp_path).name == '2'
  kinds = [line['kind'] for line in strict_lines(tmp_path)]
  assert 'train_eval' not in kinds
  kept = json.loads((tmp_path / 'nonfinite' / 'step_4.json').read_text())
  assert str(tmp_path / 'nonfinite' / 'step_4.json') in message
  assert kept['step'] == 4
  assert kept['found_in'].startswith('params/decoder/')


def test_the_batch_that_was_kept_is_that_of_the_step(tmp_path, prepared_dir):
  ours = settings(tmp_path, prepared_dir, learning_rate_fn=rates(3), **SELDOM)
  with pytest.raises(finiteness.NonFiniteError, match=r'^step 3: '):
    train_loop.train(**ours)
  cfg = dataclasses.replace(ours['train_dataset_cfg'], seed=0)
  batches = batching.train_iterator(cfg)
  third = [next(batches) for _ in range(3)][2]
  with np.load(tmp_path / 'nonfinite' / 'step_3.npz') as kept:
    assert {*kept} == {*third}
    for name, array in third.items():
      np.testing.assert_array_equal(kept[name], array)
  rows = json.loads((tmp_path / 'nonfinite' / 'step_3.json').read_text())['rows']
  assert len(rows) == 4
  tokens = third['encoder_input_tokens'][0]
  assert rows[0]['encoder_input_tokens'] == tokens[: np.flatnonzero(tokens)[-1] + 1].tolist()
  segments = third['encoder_segment_ids'].max(axis=1)
  assert [len(row['examples']) for row in rows] == segments.tolist()
  assert all({*example} == {'inputs', 'targets'} for example in rows[0]['examples'])


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


@pytest.mark.parametrize(
  ('policy', 'max_skips', 'message'),
  [
    ('skip', 1, r"NONFINITE_POLICY must be 'stop' or 'skip_batch', got 'skip'"),
    ('skip_batch', 0, r'NONFINITE_MAX_SKIPS must be at least 1, got 0'),
  ],
)
def test_settings_that_make_no_sense_are_refused(policy, max_skips, message):
  with pytest.raises(ValueError, match=message):
    nonfinite_steps.NonFiniteConfig(policy, max_skips)

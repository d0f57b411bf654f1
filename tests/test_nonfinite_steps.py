"""Runs in which a step goes wrong: nothing that is NaN or infinite is kept, nothing is silent."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import seqio

from aya_train import finiteness, metric_writer, nonfinite_steps, train_loop
from aya_train.checkpoint import manager
from aya_train.data import batching
from tests import test_train_loop

settings = test_train_loop.settings


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
SELDOM = train_loop.Schedule(log_period=100, eval_period=100, eval_steps=2)


def test_an_overflow_in_the_last_update_is_neither_saved_nor_validated_and_its_batch_is_kept(
  tmp_path, prepared_dir
):
  ours = settings(tmp_path, prepared_dir, schedule=SELDOM, learning_rate_fn=rates(4))
  with pytest.raises(finiteness.NonFiniteError) as caught:
    train_loop.train(**ours)
  message = str(caught.value)
  assert message.startswith('step 4: params/decoder/')
  assert message.endswith(f'Stopped, and the checkpoint of step 2 is good ({tmp_path})')
  assert "NONFINITE_POLICY = 'skip_batch'" in message
  assert manager.find(tmp_path).name == '2'
  lines = strict_lines(tmp_path)
  assert [(line['step'], line['kind']) for line in lines] == [(2, 'train'), (4, 'nonfinite')]
  assert lines[1]['skipped'] == 0
  folder = tmp_path / 'nonfinite'
  assert str(folder / 'step_4.json') in message
  kept = json.loads((folder / 'step_4.json').read_text())
  assert (kept['step'], kept['found_in']) == (4, lines[1]['found_in'])
  # The batch is that of the step.
  batches = batching.train_iterator(dataclasses.replace(ours['train_dataset_cfg'], seed=0))
  fourth = [next(batches) for _ in range(4)][3]
  with np.load(folder / 'step_4.npz') as arrays:
    assert {*arrays} == {*fourth}
    for name, array in fourth.items():
      np.testing.assert_array_equal(arrays[name], array)
  tokens = fourth['encoder_input_tokens'][0]
  assert kept['rows'][0]['encoder_input_tokens'] == np.trim_zeros(tokens, 'b').tolist()
  examples = [len(row['examples']) for row in kept['rows']]
  assert examples == fourth['encoder_segment_ids'].max(axis=1).tolist()
  assert {*kept['rows'][0]['examples'][0]} == {'inputs', 'targets'}


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

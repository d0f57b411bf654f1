"""What is said of steps made again; the repetitions themselves are in faults/test_replay.py."""

import dataclasses
import json

import pytest

from aya_train import optimizer, partitioning, replay, run_dir
from aya_train.checkpoint import digests
from aya_train.data import batching
from tests import tiny

HERE = {'device': 'a chip', 'jax': '1'}
STATES = [{'params/a': f'a{i}', 'params/b': f'b{i}', 'opt_state/a': 'c'} for i in range(3)]
SOUND = replay.Replay(
  start=7,
  from_checkpoint=True,
  first=STATES,
  second=STATES,
  kept=STATES[-1],
  recorded={9: {'digest': digests.combined(STATES[1]), **HERE}},
  nonfinite={},
)


def test_equal_hashes_are_no_fault():
  assert replay.faults(SOUND, HERE) == []
  assert replay.faults(dataclasses.replace(SOUND, kept=None, recorded={}), HERE) == []


def test_repetitions_that_differ_name_the_first_step_and_array():
  second = [STATES[0], {**STATES[1], 'params/b': 'other'}]
  (told,) = replay.faults(dataclasses.replace(SOUND, second=second), HERE)
  assert told == (
    'device or host is suspect: two repetitions of step 9 differ, first in params/b (1 of 3 arrays)'
  )


def test_a_checkpoint_that_differs_is_named_with_its_array():
  kept = {**STATES[2], 'opt_state/a': 'other'}
  (told,) = replay.faults(dataclasses.replace(SOUND, kept=kept), HERE)
  assert told.startswith('the checkpoint of step 10 differs from both repetitions, first in opt_s')
  assert 'suspect' in told


@pytest.mark.parametrize(
  ('device', 'why'), [('a chip', 'suspect'), ('another', 'which may round otherwise')]
)
def test_a_recorded_hash_that_differs_says_what_it_was_computed_with(device, why):
  recorded = {9: {'digest': 'other', **HERE, 'device': device}}
  (told,) = replay.faults(dataclasses.replace(SOUND, recorded=recorded), HERE)
  assert told.startswith('step 9 is other in metrics.jsonl')
  assert why in told


@pytest.mark.parametrize('begun', [False, True])
def test_what_cannot_be_repeated_is_refused_and_nothing_is_written(tmp_path, begun):
  model = tiny.model()
  if begun:
    content = {**model.metadata(), 'seed': 0, 'first_step': 4}
    (tmp_path / run_dir.FILE).write_text(json.dumps(content))
  before = [*tmp_path.iterdir()]
  message = 'step 4 cannot be made again: .* began at step 4' if begun else 'no run in'
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    replay.replay(
      step=4,
      model=model,
      model_dir=tmp_path,
      train_dataset_cfg=batching.DatasetConfig('none', {'inputs': 8, 'targets': 8}, 'train', 4),
      partitioner=partitioning.one_device(),
      optimizer=optimizer.adafactor,
      learning_rate_fn=lambda step: 0.1,
    )
  assert [*tmp_path.iterdir()] == before

"""Steps made again: the same hash, or what differs is named; the run's folder stays as it is."""

import dataclasses
import hashlib
import pathlib

import jax
import jax.numpy as jnp
import pytest
import seqio

from aya_train import replay, state_digests, train_loop, train_step
from aya_train.checkpoint import manager
from tests import test_train_loop

pytestmark = pytest.mark.faults

HERE = state_digests.computed_with()


@pytest.fixture(scope='module', autouse=True)
def copy_task():
  test_train_loop.register_task()
  yield
  seqio.TaskRegistry.remove('tests.copy')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """The settings of a run of four steps with checkpoints at 2 and 4 and a digest at each step."""
  ours = test_train_loop.settings(
    tmp_path_factory.mktemp('run'),
    tmp_path_factory.mktemp('prepared'),
    schedule=train_loop.Schedule(log_period=4, state_digest_period=1),
    checkpoint_cfg=manager.CheckpointConfig(period=2),
    train_eval_dataset_cfg=None,
  )
  train_loop.train(**ours)
  names = ('model', 'model_dir', 'train_dataset_cfg', 'partitioner', 'optimizer')
  return {name: ours[name] for name in (*names, 'learning_rate_fn')}


def files(folder):
  return {
    path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
    for path in folder.rglob('*')
    if path.is_file()
  }


def test_a_sound_run_gives_the_same_hashes_and_its_folder_stays_as_it_is(run):
  before = files(pathlib.Path(run['model_dir']))
  found = replay.replay(step=4, **run)
  assert files(pathlib.Path(run['model_dir'])) == before
  assert (found.start, found.from_checkpoint, len(found.first)) == (2, True, 2)
  assert found.first == found.second
  assert found.kept == found.first[-1]
  assert {*found.recorded} == {3, 4}
  assert replay.faults(found, HERE) == []


def flips_one_bit_at(call, make):
  """`make_train_step` whose step flips the lowest bit of one number, at one of its calls."""
  calls = []

  def made(*args, **kwargs):
    step_fn = make(*args, **kwargs)

    def step(state, batch):
      calls.append(batch)
      state, sums = step_fn(state, batch)
      if len(calls) == call:
        leaves, tree = jax.tree.flatten(state.params)
        bits = jax.lax.bitcast_convert_type(leaves[3], jnp.uint32)
        bits = bits.at[(0,) * bits.ndim].set(bits[(0,) * bits.ndim] ^ 1)
        leaves[3] = jax.lax.bitcast_convert_type(bits, jnp.float32)
        state = dataclasses.replace(state, params=jax.tree.unflatten(tree, leaves))
      return state, sums

    return step

  return made


def test_one_flipped_bit_in_one_repetition_is_found_with_its_step_and_array(run, monkeypatch):
  monkeypatch.setattr(
    train_step, 'make_train_step', flips_one_bit_at(3, train_step.make_train_step)
  )
  found = replay.replay(step=4, **run)
  (told,) = replay.faults(found, HERE)
  assert told.startswith('device or host is suspect: two repetitions of step 3 differ, first in ')
  assert 'params/' in told
  assert '(1 of ' in told
  assert len(found.second) == 1


@pytest.mark.parametrize(('step', 'message'), [(0, 'began at step 0'), (-3, 'began at step 0')])
def test_steps_that_the_run_never_made_are_refused(run, step, message):
  with pytest.raises(ValueError, match=message):
    replay.replay(step=step, **run)


def test_a_folder_without_a_run_is_refused(run, tmp_path):
  with pytest.raises(FileNotFoundError, match='no run in'):
    replay.replay(step=1, **{**run, 'model_dir': str(tmp_path)})
  assert not [*tmp_path.iterdir()]

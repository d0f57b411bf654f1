"""A native step is what was written, or is refused in words (more in tests/faults/test_damage)."""

import dataclasses
import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aya_train import train_state
from aya_train.checkpoint import checkpoint_room, digests, manager, restoration, soundness


class Position:
  """As much of a Grain iterator as the manager needs."""

  def __init__(self, at: int = 0):
    self.at = at

  def get_state(self) -> bytes:
    return json.dumps({'stream': {'host': '0 of 1'}, 'position': {'next_index': self.at}}).encode()

  def set_state_of_hosts(self, states):
    self.at = states[0]['position']['next_index']


def state_of(step: int) -> train_state.TrainState:
  rng = np.random.default_rng(step)

  def array(*shape: int) -> jax.Array:
    return jnp.asarray(rng.normal(size=shape).astype(np.float32))

  params = {'layer': {'kernel': array(16, 8), 'scale': array(8)}, 'embedding': array(512, 32)}
  moments = jax.tree.map(jnp.square, params)
  return train_state.TrainState(
    jnp.int32(step), params, ({'v': moments}, jnp.int32(step)), jnp.arange(2, dtype=jnp.uint32)
  )


METADATA = {'architecture': {'emb_dim': 8}, 'vocabulary_file': ''}


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """Three steps, saved."""
  folder = tmp_path_factory.mktemp('run')
  checkpoints = manager.CheckpointManager(folder, manager.CheckpointConfig(), METADATA)
  for step in (1, 2, 3):
    checkpoints.save(state_of(step), Position(step * 10))
  checkpoints.close()
  return folder


@pytest.fixture
def copied(run, tmp_path):
  return shutil.copytree(run, tmp_path / 'copied')


def abstract(state: train_state.TrainState) -> train_state.TrainState:
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def restored(folder, **config) -> tuple[train_state.TrainState, Position]:
  position = Position()
  checkpoints = manager.CheckpointManager(folder, manager.CheckpointConfig(**config), METADATA)
  try:
    return checkpoints.restore_newest(abstract(state_of(0)), position), position
  finally:
    checkpoints.close()


def assert_equal(state, other):
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def flip(path, place=0.5, bit=3):
  raw = bytearray(path.read_bytes())
  raw[int(len(raw) * place)] ^= 1 << bit
  path.write_bytes(raw)


def largest(folder):
  """The file that holds most of an item's numbers."""
  return max(folder.rglob('d/*'), key=lambda f: f.stat().st_size)


def test_a_copied_run_restores_its_newest_step(copied):
  state, position = restored(copied)
  assert_equal(state, state_of(3))
  assert position.at == 30
  assert not (copied / manager.DAMAGED_FOLDER).exists()


def spoil_digit(step):
  path = step / 'data/process_0-of-1.json'
  path.write_text(path.read_text().replace('30', '31'))


def spoil_metadata(step):
  path = step / 'metadata/metadata'
  path.write_text(path.read_text().replace('8', '9'))


DAMAGE = {
  'params flipped': (lambda s: flip(largest(s / 'params')), 'array '),
  'training flipped': (lambda s: flip(largest(s / 'training')), 'array '),
  'params cut': (lambda s: largest(s / 'params').write_bytes(b'1234'), 'array '),
  'params emptied': (lambda s: largest(s / 'params').write_bytes(b''), 'array '),
  'params gone': (lambda s: shutil.rmtree(s / 'params'), 'has no params'),
  'training gone': (lambda s: shutil.rmtree(s / 'training'), 'has no training'),
  'metadata gone': (lambda s: shutil.rmtree(s / 'metadata'), 'has no metadata'),
  'metadata changed': (spoil_metadata, 'metadata is damaged'),
  'metadata emptied': (lambda s: (s / 'metadata/metadata').write_text(''), 'metadata/metadata'),
  'data gone': (lambda s: shutil.rmtree(s / 'data'), 'expected one file for each of the 1 hosts'),
  'data cut': (lambda s: (s / 'data/process_0-of-1.json').write_text('{'), 'process_0-of-1.json'),
  'data digit': (spoil_digit, 'process_0-of-1.json is damaged'),
  'digests cut': (lambda s: (s / 'digests/metadata').write_text('{"arrays": {}'), 'digests'),
  'digests changed': (lambda s: flip(s / 'digests/metadata', 0.4, 0), 'digests/metadata'),
  'index of arrays': (lambda s: (s / 'params/_METADATA').write_text('{}'), '_METADATA'),
  'an empty folder': (lambda s: (shutil.rmtree(s), s.mkdir()), 'the folder is empty'),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_a_damaged_step_is_named_and_the_run_goes_on_from_the_one_before(copied, caplog, damage):
  spoil, words = DAMAGE[damage]
  spoil(copied / 'checkpoints/3')
  with pytest.raises(soundness.DamagedError) as raised:
    restored(copied, damaged='stop')
  told = str(raised.value)
  assert words in told and str(copied / 'checkpoints/3') in told and 'fall_back' in told
  assert len(told.splitlines()) == 1 and 'source locations' not in told
  assert (copied / 'checkpoints/3').exists()

  state, position = restored(copied)
  assert_equal(state, state_of(2))
  assert position.at == 20
  loud = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR and 'step' in r.msg]
  assert any('step 3 is damaged' in line and words in line for line in loud)
  assert any('going on from step 2' in line for line in loud)
  assert (copied / manager.DAMAGED_FOLDER / '3').exists()
  assert manager.latest_step(copied) == 2


def test_the_damaged_step_can_be_saved_again_and_does_not_count_as_kept(copied):
  shutil.rmtree(copied / 'checkpoints/3/params')
  config = manager.CheckpointConfig(keep=2)
  checkpoints = manager.CheckpointManager(copied, config, METADATA)
  assert int(checkpoints.restore_newest(abstract(state_of(0)), Position()).step) == 2
  checkpoints.save(state_of(3), Position(30))
  checkpoints.close()
  assert sorted(p.name for p in (copied / 'checkpoints').iterdir()) == ['2', '3']
  shutil.rmtree(copied / 'checkpoints/3/params')
  assert int(restored(copied)[0].step) == 2
  assert sorted(p.name for p in (copied / manager.DAMAGED_FOLDER).iterdir()) == ['3', '3-2']


def test_where_no_step_is_sound_all_are_named_and_stay(copied):
  for step, item in (('1', 'params'), ('2', 'training'), ('3', 'metadata')):
    shutil.rmtree(copied / 'checkpoints' / step / item)
  with pytest.raises(soundness.DamagedError, match='none of the 3 checkpoints') as raised:
    restored(copied)
  assert all(f'has no {item}' in str(raised.value) for item in ('params', 'training', 'metadata'))
  with pytest.raises(soundness.DamagedError, match='none of the 3 checkpoints'):
    manager.newest_sound(copied)
  assert manager.latest_step(copied) == 3


def test_before_a_run_the_newest_step_with_sound_files_is_found(copied):
  spoil_digit(copied / 'checkpoints/3')
  assert manager.newest_sound(copied) == 2
  with pytest.raises(soundness.DamagedError, match='CHECKPOINT_DAMAGED'):
    manager.newest_sound(copied, 'stop')
  assert manager.newest_sound(copied / 'nothing') is None


def test_another_optimizer_or_model_is_no_damage(copied):
  other = abstract(dataclasses.replace(state_of(0), opt_state=()))
  checkpoints = manager.CheckpointManager(copied, manager.CheckpointConfig(), METADATA)
  with pytest.raises(restoration.MisfitError, match='does not fit the optimizer'):
    checkpoints.restore_newest(other, None)
  checkpoints.close()
  assert manager.latest_step(copied) == 3


def test_a_step_without_digests_is_restored_and_that_is_said_once(copied, caplog):
  shutil.rmtree(copied / 'checkpoints/3/digests')
  for _ in range(2):
    assert_equal(restored(copied)[0], state_of(3))
  assert sum('has no digests' in r.getMessage() for r in caplog.records) == 1


def test_parameters_alone_are_held_to_their_digests_in_any_dtype_and_sharding(copied):
  params = state_of(3).params
  mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ('a', 'b'))
  sharding = NamedSharding(mesh, PartitionSpec('a'))
  wanted = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=sharding), params
  )
  read = manager.read_params(copied, wanted)
  assert_equal(read, jax.tree.map(lambda x: x.astype(jnp.bfloat16), params))
  flip(largest(copied / 'checkpoints/3/params'))
  with pytest.raises(soundness.DamagedError, match=r'3/params( is damaged)?: array'):
    manager.read_params(copied, wanted)


def test_arrays_read_one_by_one_are_held_to_their_digests(copied):
  folder = epath.Path(copied / 'checkpoints/3')
  opened = soundness.open_tree(folder, 'params', soundness.read(folder))
  part = opened['embedding'][3:5]
  np.testing.assert_array_equal(part, np.asarray(state_of(3).params['embedding'])[3:5])
  known = soundness.read(folder)
  wrong = dict(known.arrays['params'])
  wrong['embedding'] = dataclasses.replace(wrong['embedding'], digest='0' * 16)
  known = dataclasses.replace(known, arrays={'params': wrong})
  opened = soundness.open_tree(folder, 'params', known)
  for read in (lambda x: x[3:5], lambda x: x.read()):
    with pytest.raises(soundness.DamagedError, match='array embedding: the numbers'):
      read(opened['embedding'])
  assert opened['layer/scale'].read().shape == (8,)


def test_an_item_of_another_checkpoint_is_refused(copied):
  shutil.rmtree(copied / 'checkpoints/3/training')
  shutil.copytree(copied / 'checkpoints/2/training', copied / 'checkpoints/3/training')
  with pytest.raises(soundness.DamagedError, match='training is damaged: arrays'):
    restored(copied, damaged='stop')


def test_what_cannot_be_reached_now_is_not_called_damaged(copied, monkeypatch):
  def unreachable(folder):
    raise ValueError(f'{folder}: array x is missing or damaged: UNAVAILABLE: no network')

  monkeypatch.setattr(soundness.orbax_tree, 'read', unreachable)
  largest(copied / 'checkpoints/3/params').unlink()
  with pytest.raises(OSError, match='Nothing is known to be damaged'):
    restored(copied)
  assert manager.latest_step(copied) == 3


@pytest.mark.parametrize(
  ('error', 'said', 'unsaid'),
  [
    (OSError('the device is gone'), 'the device is gone', 'full'),
    (
      ValueError('RESOURCE_EXHAUSTED: Error writing "x/d/8f" [tensorstore_spec=...]'),
      'failed: its disk is full, make room. The checkpoint of step 3 is kept',
      'tensorstore',
    ),
  ],
)
def test_a_save_that_fails_in_the_background_is_noticed_and_named(
  copied, monkeypatch, error, said, unsaid
):
  checkpoints = manager.CheckpointManager(copied, manager.CheckpointConfig(), METADATA)

  def broken(*args, **kwargs):
    raise error

  monkeypatch.setattr(manager.ocp.CheckpointManager, '_wait_for_checkpointers', broken)
  checkpoints.save(state_of(4), Position(40))
  told = ''
  while not told:
    try:
      checkpoints.check()
    except manager.SaveError as error:
      told = str(error)
  assert 'checkpoint of step 4' in told and said in told and unsaid not in told
  monkeypatch.undo()
  checkpoints.close()


def test_a_setting_that_is_none_is_refused():
  with pytest.raises(ValueError, match='CHECKPOINT_DAMAGED'):
    manager.CheckpointConfig(damaged='ignore')


@pytest.mark.parametrize('damage', [lambda p: p.write_bytes(b'b'), lambda p: p.unlink()])
def test_files_that_lie_beside_the_items_are_held_to_their_digests(copied, damage):
  folder = epath.Path(copied / 'checkpoints/3')
  known = soundness.read(folder)
  shutil.rmtree(folder / 'digests')
  (folder / 'tokenizer').mkdir()
  (folder / 'tokenizer' / 'tokenizer.json').write_bytes(b'a')
  soundness.write(folder, dataclasses.replace(known, files=soundness.of_files(folder)))
  assert list(soundness.read(folder).files) == ['tokenizer/tokenizer.json']
  assert_equal(restored(copied)[0], state_of(3))
  damage(folder / 'tokenizer' / 'tokenizer.json')
  with pytest.raises(soundness.DamagedError, match=r'3/tokenizer/tokenizer\.json is'):
    manager.read_metadata(copied)


def test_a_step_of_a_version_that_did_not_hold_such_files_is_sound(copied):
  folder = epath.Path(copied / 'checkpoints/3')
  path = folder / 'digests/metadata'
  content = json.loads(path.read_bytes())
  del content['files'], content['sha256']
  path.write_text(json.dumps({**content, 'sha256': digests.of_json(content)}))
  assert soundness.read(folder).files == {}
  assert manager.newest_sound(copied) == 3
  assert_equal(restored(copied)[0], state_of(3))


def test_what_a_killed_save_left_is_counted_and_is_no_step(copied):
  half = copied / 'checkpoints/4.orbax-checkpoint-tmp' / 'params' / 'd'
  half.mkdir(parents=True)
  (half / 'file').write_bytes(b'x' * 100)
  assert checkpoint_room.unfinished_bytes(copied / manager.FOLDER) == 100
  assert manager.newest_sound(copied) == 3


@pytest.mark.parametrize('keep', [0, -1])
def test_a_run_that_would_keep_no_checkpoint_is_refused(keep):
  with pytest.raises(ValueError, match=f'CHECKPOINT_KEEP must be None or at least 1, got {keep}'):
    manager.CheckpointConfig(keep=keep)


def test_digests_are_written_in_one_order_whichever_array_was_ready_first():
  one, other = (soundness.Stored('float32', (2,), name * 16) for name in 'ab')
  texts = {
    json.dumps(soundness.Digests({'params': dict(found)}, '0').as_json())
    for found in ([('x', one), ('y', other)], [('y', other), ('x', one)])
  }
  assert len(texts) == 1

"""Every file of a real checkpoint, damaged at random: never are other numbers restored.

A trial damages one file of the newest step. Then either the step is noticed as damaged and the run
goes on from the one before, or the bytes did not matter and all is bit for bit what was saved.
"""

import collections
import pathlib
import random
import re
import shutil

import jax
import numpy as np
import pytest
from etils import epath

from aya_train import hosts, train_loop, train_state
from aya_train.checkpoint import manager, native
from aya_train.data import batching
from aya_train.objectives import objective
from tests import test_train_loop
from tests.e2e import test_several_hosts

pytestmark = pytest.mark.faults

FLIPS = 12  # of each file, in every round
LAST, BEFORE = 4, 2


@pytest.fixture(scope='module', autouse=True)
def copy_task():
  test_train_loop.register_task()
  yield
  test_train_loop.seqio.TaskRegistry.remove('tests.copy')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run with two checkpoints, what restores it, and what it must give."""
  folder = tmp_path_factory.mktemp('damage')
  settings = test_train_loop.settings(folder / 'run', folder / 'prepared', total_steps=LAST)
  train_loop.train(**settings)
  model, partitioner = settings['model'], settings['partitioner']
  axes = objective.parameter_axes(model)[1]
  tx = settings['optimizer'](settings['learning_rate_fn'], axes)
  abstract = train_state.abstract_state(model, tx, partitioner)
  cfg = test_train_loop.dataclasses.replace(settings['train_dataset_cfg'], seed=0)
  iterator = batching.train_iterator(cfg, hosts.ALONE, model.feature_converter)
  return folder / 'run', abstract, iterator


def restored(folder, abstract, iterator):
  checkpoints = manager.CheckpointManager(folder, manager.CheckpointConfig(), {})
  try:
    state = checkpoints.restore_newest(abstract, iterator)
  finally:
    checkpoints.close()
  return int(state.step), jax.tree.leaves(jax.device_get(state)), iterator.get_state()


@pytest.fixture(scope='module')
def expected(run, tmp_path_factory):
  """Leaves of the state and position in the data of both steps."""
  folder, abstract, iterator = run
  whole = tmp_path_factory.mktemp('expected') / 'run'
  shutil.copytree(folder, whole)
  found = {}
  for step in (LAST, BEFORE):
    step, *rest = restored(whole, abstract, iterator)
    found[step] = rest
    shutil.rmtree(whole / manager.FOLDER / str(step))
  return found


def files(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in folder.rglob('*') if path.is_file())


def flip(path: pathlib.Path, rng: random.Random) -> str:
  raw = bytearray(path.read_bytes())
  if not raw:
    return 'empty already'
  place, bit = rng.randrange(len(raw)), rng.randrange(8)
  raw[place] ^= 1 << bit
  path.write_bytes(raw)
  return f'bit {bit} of byte {place} of {len(raw)} flipped'


def cut(path: pathlib.Path, rng: random.Random) -> str:
  raw = path.read_bytes()
  kept = rng.randrange(len(raw)) if raw else 0
  path.write_bytes(raw[:kept])
  return f'cut to {kept} of {len(raw)} bytes'


def overwrite(path: pathlib.Path, rng: random.Random) -> str:
  raw = bytearray(path.read_bytes())
  start = rng.randrange(len(raw) or 1)
  raw[start : start + 64] = rng.randbytes(len(raw[start : start + 64]))
  path.write_bytes(raw)
  return f'64 bytes from {start} overwritten'


def empty(path: pathlib.Path, rng: random.Random) -> str:
  path.write_bytes(b'')
  return 'emptied'


def delete(path: pathlib.Path, rng: random.Random) -> str:
  path.unlink()
  return 'deleted'


def assert_same(found, wanted, what):
  for a, b in zip(found, wanted, strict=True):
    assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes(), what


@pytest.mark.parametrize(
  'damage', [flip, cut, overwrite, empty, delete], ids=lambda function: function.__name__
)
def test_no_damage_of_any_file_gives_other_numbers(run, expected, tmp_path, damage, request):
  folder, abstract, iterator = run
  names = [path.relative_to(folder) for path in files(folder / manager.FOLDER / str(LAST))]
  assert len(names) > 15
  rng = random.Random(damage.__name__)
  times = {flip: FLIPS, cut: 4, overwrite: 4}.get(damage, 1)
  outcomes: collections.Counter[str] = collections.Counter()
  for name in names:
    for _ in range(times):
      trial = tmp_path / 'run'
      shutil.copytree(folder, trial)
      what = f'{name}: {damage(trial / name, rng)}'
      step, leaves, position = restored(trial, abstract, iterator)
      assert_same(leaves, expected[step][0], what)
      assert position == expected[step][1], what
      set_aside = (trial / manager.DAMAGED_FOLDER / str(LAST)).exists()
      assert set_aside == (step == BEFORE), what
      outcomes['detected' if set_aside else f'no matter: {name.name}'] += 1
      shutil.rmtree(trial)
  print(dict(outcomes))
  assert outcomes['detected'] >= len(names) * times / 4


def read_all(step: pathlib.Path) -> tuple[dict[str, np.ndarray], str]:
  """The parameters of a step, or why they are refused."""
  try:
    opened = native.open_folder(epath.Path(step))
    return {name: array.read() for name, array in opened.params.items()}, ''
  except ValueError as error:
    return {}, str(error)


def test_no_flip_is_read_by_other_commands(run, tmp_path):
  """`convert` reads array by array, and refuses with one sentence that names the step."""
  folder, _, _ = run
  step = folder / manager.FOLDER / str(LAST)
  whole, refusal = read_all(step)
  assert not refusal
  rng = random.Random(7)
  detected = 0
  for name in [path.relative_to(step) for path in files(step)]:
    for _ in range(FLIPS):
      trial = tmp_path / str(LAST)
      shutil.copytree(step, trial)
      what = f'{name}: {flip(trial / name, rng)}'
      found, refusal = read_all(trial)
      if refusal:
        assert str(trial) in refusal and '\n' not in refusal, what
        detected += 1
      else:
        assert list(found) == list(whole), what
        assert_same(found.values(), whole.values(), what)
      shutil.rmtree(trial)
  assert detected > FLIPS


def test_two_hosts_agree_on_what_is_damaged(tmp_path):
  model_dir = tmp_path / 'run'
  test_several_hosts.run(2, model_dir, steps=2)
  losses = test_several_hosts.values(model_dir, 'train', 'loss')
  newest = model_dir / manager.FOLDER / '2'

  position = newest / 'data/process_1-of-2.json'  # of the second host
  position.write_text(re.sub(r'"next_index": \d+', '"next_index": 1', position.read_text()))
  log = test_several_hosts.run(2, model_dir, steps=2)
  assert f'{position} is damaged' in log and 'going on from step 1' in log
  assert test_several_hosts.values(model_dir, 'train', 'loss') == losses

  for file in (newest / 'params').rglob('d/*'):
    raw = file.read_bytes()
    file.write_bytes(raw[: len(raw) // 2])
  log = test_several_hosts.run(2, model_dir, steps=2)
  assert f'{newest}/params' in log and 'going on from step 1' in log
  assert test_several_hosts.values(model_dir, 'train', 'loss') == losses
  kept = model_dir / manager.DAMAGED_FOLDER
  assert sorted(path.name for path in kept.iterdir()) == ['2', '2-2']

"""T5X itself restores what is written here, and its own is read here. Needs t5x importable."""

import numpy as np
import pytest
from flax import traverse_util

from aya_train.checkpoint import convert, formats
from aya_train.checkpoint.arrays import orbax_tree
from aya_train.checkpoint.t5x import t5x_format, t5x_leaves
from tests.checkpoint.t5x import random_leaves

pytest.importorskip('t5x', reason='T5X is not importable')
pytestmark = pytest.mark.t5x

from tests.checkpoint.t5x import t5x_itself

VARIANTS = pytest.mark.parametrize(
  'options',
  [
    {},
    {'scan_layers': True},
    {'momentum': True},
    {'scan_layers': True, 'momentum': True},
    {'tied': True},
    {'scan_layers': True, 'momentum': True, 'relpos_bias_per_layer': True},
  ],
  ids=['unrolled', 'scanned', 'unrolled momentum', 'scanned momentum', 'tied', 'umt5'],
)


def config_of(scan_layers=False, tied=False):
  return random_leaves.wide_config(scan_layers=scan_layers, logits_via_embedding=tied)


def created(scan_layers=False, momentum=False, tied=False, seed=0, relpos_bias_per_layer=False):
  config = config_of(scan_layers, tied)
  return t5x_itself.state(
    config,
    seed=seed,
    beta1=0.9 if momentum else None,
    relpos_bias_per_layer=relpos_bias_per_layer,
  )


def numpy(read):
  return {name: array.read() for name, array in read.items()}


@VARIANTS
def test_what_t5x_saves_comes_back_through_native(tmp_path, options):
  state, scan_layers = created(**options), options.get('scan_layers', False)
  t5x_itself.checkpointer(state, str(tmp_path)).save(state)
  source, expected = tmp_path / 'checkpoint_7', t5x_itself.leaves(state)
  random_leaves.assert_equal(numpy(t5x_format.read(source)), expected)
  native = convert.convert(
    source, tmp_path / 'native', to='native', scan_layers=scan_layers, verify=True
  )
  out = convert.convert(native, tmp_path / 'out/checkpoint_7', to='t5x', scan_layers=scan_layers)
  blank = created(**options, seed=1)
  restored = t5x_itself.checkpointer(blank, str(out.parent)).restore(step=7)
  found = t5x_itself.leaves(restored)
  assert set(found) == set(expected)
  for name, array in expected.items():
    assert found[name].dtype == array.dtype, name
    np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_t5x_restores_a_conversion_between_layouts(tmp_path):
  """Unrolled to stacked and back, T5X reading both."""
  state = created(scan_layers=False)
  t5x_itself.checkpointer(state, str(tmp_path)).save(state)
  native = convert.convert(tmp_path / 'checkpoint_7', tmp_path / 'native', to='native')
  for scan_layers in (True, False):
    out = convert.convert(
      native, tmp_path / f'{scan_layers}/checkpoint_7', to='t5x', scan_layers=scan_layers
    )
    blank = created(scan_layers, seed=1)
    restored = t5x_itself.checkpointer(blank, str(out.parent)).restore(step=7)
    opened = t5x_leaves.from_leaves(t5x_format.read(out), str(out))
    params = {f'target/{k}': v.read() for k, v in opened.in_layout(config_of()).items()}
    expected = t5x_itself.leaves(state)
    random_leaves.assert_equal(params, {k: expected[k] for k in params})
    assert int(restored.step) == 7


@pytest.mark.parametrize('scan_layers', [False, True], ids=['unrolled', 'scanned'])
def test_what_t5x_saves_through_orbax_is_read(tmp_path, scan_layers):
  state = created(scan_layers)
  manager = t5x_itself.orbax_manager(state, tmp_path)
  manager.save(state)
  manager.close()
  source = formats.detect(tmp_path)
  assert source.format is formats.Format.T5X_ORBAX
  expected = {k.removeprefix('_optimizer/'): v for k, v in t5x_itself.leaves(state).items()}
  found = {k.removeprefix('_optimizer/'): v for k, v in numpy(orbax_tree.read(source.path)).items()}
  random_leaves.assert_equal(found, expected)
  native = convert.convert(tmp_path, tmp_path / 'native', to='native')
  out = convert.convert(native, tmp_path / 'out', to='t5x', scan_layers=scan_layers)
  random_leaves.assert_equal(numpy(t5x_format.read(out)), expected)


@pytest.mark.parametrize('scan_layers', [False, True], ids=['unrolled', 'scanned'])
@pytest.mark.parametrize('ocdbt', [False, True], ids=['files', 'ocdbt'])
def test_orbax_trees_of_either_store_are_read(tmp_path, scan_layers, ocdbt):
  import orbax.checkpoint as ocp

  state = created(scan_layers)
  expected = t5x_itself.leaves(state)
  handler = ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt)
  with ocp.Checkpointer(handler) as checkpointer:
    checkpointer.save(
      tmp_path / 'checkpoint_7/state', traverse_util.unflatten_dict(expected, sep='/')
    )
  source = formats.detect(tmp_path)
  assert source.format is formats.Format.T5X_ORBAX
  random_leaves.assert_equal(numpy(orbax_tree.read(source.path)), expected)

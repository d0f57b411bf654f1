"""Parameters keep their numbers in every layout, and are not read on the way."""

import numpy as np
import pytest

from aya_train.checkpoint import layouts
from aya_train.checkpoint.arrays import lazy_arrays
from tests.checkpoint import small_model

VARIANTS = pytest.mark.parametrize(
  'overrides',
  [
    {},
    {'mlp_activations': ('relu',)},
    {'logits_via_embedding': True},
    {'relpos_bias_per_layer': True},
  ],
  ids=['mt5', 'one MLP input', 'tied', 'umt5'],
)


@VARIANTS
@pytest.mark.parametrize('scan_axis', [0, 1])
def test_round_trips_give_the_arrays_back(overrides, scan_axis):
  config = small_model.config(param_scan_axis=scan_axis, **overrides)
  table, params = layouts.table_of(config), small_model.random_params(config)
  unrolled = layouts.to_unrolled(params, table, scan_axis)
  again = layouts.from_hf(layouts.to_hf(unrolled, table), table)
  scanned = layouts.to_scanned(again, table, scan_axis)
  assert set(scanned) == set(params)
  for name, array in scanned.items():
    assert array.shape == params[name].shape
    np.testing.assert_array_equal(np.asarray(array), params[name], err_msg=name)
  for name, array in unrolled.items():
    np.testing.assert_array_equal(np.asarray(again[name]), np.asarray(array), err_msg=name)
    assert again[name].shape == np.asarray(array).shape


def test_layers_keep_their_place_and_kernels_are_transposed():
  config = small_model.config()
  table, params = layouts.table_of(config), small_model.random_params(config)
  hf = layouts.to_hf(layouts.to_unrolled(params, table), table)
  query = params['encoder/encoder/attention/query/kernel']
  np.testing.assert_array_equal(
    np.asarray(hf['encoder.block.2.layer.0.SelfAttention.q.weight']), query[:, 2].T
  )
  scale = params['decoder/decoder/pre_mlp_layer_norm/scale']
  np.testing.assert_array_equal(
    np.asarray(hf['decoder.block.1.layer.2.layer_norm.weight']), scale[:, 1]
  )


def test_nothing_is_read_before_it_is_asked_for():
  config = small_model.config(scan_layers=False)
  table, reads = layouts.table_of(config), []

  def leaf(name, shape):
    def get(index):
      reads.append(name)
      return np.zeros([i.stop - i.start for i in index], np.float32)

    return lazy_arrays.LazyArray(shape, np.dtype(np.float32), get)

  shapes = layouts.expected_shapes(config)
  lazy = {name: leaf(name, shape) for name, shape in shapes.items()}
  hf = layouts.to_hf(layouts.to_unrolled(layouts.to_scanned(lazy, table), table), table)
  assert reads == []
  np.asarray(hf['lm_head.weight'])
  assert reads == ['decoder/logits_dense/kernel']


def test_a_stack_of_another_depth_or_axis_is_refused():
  config = small_model.config()
  params = small_model.random_params(config)
  with pytest.raises(ValueError, match='axis 0 must hold 3 layers'):
    layouts.to_unrolled(params, layouts.table_of(config), scan_axis=0)

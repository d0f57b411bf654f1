"""The name table is total, one to one, and the network's own."""

import time

import numpy as np
import pytest

from aya_train.checkpoint import layouts, names
from aya_train.checkpoint.hf import hf_export
from tests.checkpoint import small_model

TABLE = names.Table(num_encoder_layers=3, num_decoder_layers=2)
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
@pytest.mark.parametrize('scan_layers', [True, False], ids=['scanned', 'unrolled'])
def test_the_table_names_exactly_the_parameters_of_the_network(overrides, scan_layers):
  config = small_model.config(scan_layers=scan_layers, **overrides)
  expected = layouts.table_of(config).expected('scanned' if scan_layers else 'unrolled')
  assert sorted(expected) == sorted(hf_export.expected_shapes(config))


def test_mt5_xxl_has_558_tensors():
  table = names.Table(num_encoder_layers=24, num_decoder_layers=24)
  assert len(set(table.expected('unrolled'))) == len(set(table.expected('hf'))) == 558


@pytest.mark.parametrize(
  ('ours', 'scanned', 'hf', 'transposed'),
  [
    (
      'decoder/layers_12/relpos_bias/rel_embedding',
      'decoder/decoder/relpos_bias/rel_embedding',
      'decoder.block.12.layer.0.SelfAttention.relative_attention_bias.weight',
      True,
    ),
    ('token_embedder/embedding', 'token_embedder/embedding', 'shared.weight', False),
    ('decoder/logits_dense/kernel', 'decoder/logits_dense/kernel', 'lm_head.weight', True),
    (
      'encoder/layers_0/attention/query/kernel',
      'encoder/encoder/attention/query/kernel',
      'encoder.block.0.layer.0.SelfAttention.q.weight',
      True,
    ),
    (
      'decoder/layers_12/encoder_decoder_attention/out/kernel',
      'decoder/decoder/encoder_decoder_attention/out/kernel',
      'decoder.block.12.layer.1.EncDecAttention.o.weight',
      True,
    ),
    (
      'decoder/layers_1/mlp/wi_1/kernel',
      'decoder/decoder/mlp/wi_1/kernel',
      'decoder.block.1.layer.2.DenseReluDense.wi_1.weight',
      True,
    ),
    (
      'decoder/layers_1/pre_cross_attention_layer_norm/scale',
      'decoder/decoder/pre_cross_attention_layer_norm/scale',
      'decoder.block.1.layer.1.layer_norm.weight',
      False,
    ),
    (
      'encoder/relpos_bias/rel_embedding',
      'encoder/relpos_bias/rel_embedding',
      'encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight',
      True,
    ),
    (
      'encoder/encoder_norm/scale',
      'encoder/encoder_norm/scale',
      'encoder.final_layer_norm.weight',
      False,
    ),
  ],
)
def test_names_by_hand(ours, scanned, hf, transposed):
  table = names.Table(24, 24, relpos_per_layer='/layers_12/relpos_bias/' in ours)
  assert table.translate(ours, 'unrolled', 'hf') == hf
  assert table.translate(hf, 'hf', 'unrolled') == ours
  assert table.translate(hf, 'hf', 'scanned') == scanned
  assert table.match(hf, 'hf')[0].transposed == transposed


@pytest.mark.parametrize('relpos_per_layer', [False, True])
@pytest.mark.parametrize('mlp_inputs', [1, 2])
@pytest.mark.parametrize('layout', names.LAYOUTS)
def test_no_name_matches_two_rules(layout, mlp_inputs, relpos_per_layer):
  table = names.Table(11, 11, mlp_inputs, relpos_per_layer=relpos_per_layer)
  for name in table.expected(layout):
    table.match(name, layout)


@pytest.mark.parametrize(
  'name',
  [
    'encoder/layers_0/attention/query/kernel/extra',
    'target/encoder/layers_0/attention/query/kernel',
    'encoder/layers_01/attention/query/kernel',
    'encoder/layers_0/attention/Query/kernel',
    'encoder/layers_0/attention/query/kernel\n',
  ],
)
def test_only_whole_names_match(name):
  with pytest.raises(ValueError, match='exactly one rule'):
    TABLE.match(name, 'unrolled')


def test_wrong_names_are_listed():
  given = set(TABLE.expected('unrolled'))
  given -= {'encoder/encoder_norm/scale'}
  given |= {'decoder/layers_2/mlp/wo/kernel', 'decoder/bias'}
  with pytest.raises(ValueError) as caught:
    TABLE.check(given, 'unrolled', 'here')
  message = str(caught.value)
  assert "1 matched by no rule: ['decoder/bias']" in message
  assert "1 not part of this network: ['decoder/layers_2/mlp/wo/kernel']" in message
  assert "1 missing: ['encoder/encoder_norm/scale']" in message
  assert message.startswith('here: ') and '3 encoder and 2 decoder layers' in message


def test_at_most_five_names_are_shown():
  with pytest.raises(ValueError) as caught:
    TABLE.check([], 'scanned')
  assert '29 missing: ' in str(caught.value)
  shown = str(caught.value).split('29 missing: ')[1]
  assert shown.count("', '") == 4


def test_a_fault_in_the_rules_is_an_error(monkeypatch):
  monkeypatch.setattr(names, 'RULES', (*names.RULES, names.RULES[0]))
  with pytest.raises(ValueError, match='several rules'):
    TABLE.check(TABLE.expected('hf'), 'hf')


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
    def read():
      reads.append(name)
      return np.zeros(shape, np.float32)

    return layouts.LazyArray(shape, np.dtype(np.float32), read)

  shapes = hf_export.expected_shapes(config)
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


def test_aliases_of_the_input_table_are_taken():
  held = ['encoder.embed_tokens.weight', 'decoder.embed_tokens.weight', 'lm_head.weight']
  assert names.hf_names(['shared.weight', *held], tied=False) == {
    'shared.weight': 'shared.weight',
    'lm_head.weight': 'lm_head.weight',
  }
  assert names.hf_names(held, tied=True) == {'shared.weight': 'encoder.embed_tokens.weight'}


def test_work_ahead_keeps_the_order_and_its_error_ends_it():
  begun = []

  def inverse(n):
    begun.append(n)
    time.sleep(0.02 * (n == 1))
    return 1 / (5 - n)

  results = []
  with pytest.raises(ZeroDivisionError):
    results.extend(layouts.ahead(inverse, range(1, 50)))
  assert results == [1 / 4, 1 / 3, 1 / 2, 1] and max(begun) <= 5 + layouts.WORKERS
  assert list(layouts.ahead(inverse, [1, 2, 3])) == [1 / 4, 1 / 3, 1 / 2]

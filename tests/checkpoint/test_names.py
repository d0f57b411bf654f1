"""The name table is total, one to one, and the network's own."""

import pytest

from aya_train.checkpoint import layouts, names
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
  assert sorted(expected) == sorted(layouts.expected_shapes(config))


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
    assert table.translate(name, layout, layout) == name


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


def test_aliases_of_the_input_table_are_taken():
  held = ['encoder.embed_tokens.weight', 'decoder.embed_tokens.weight', 'lm_head.weight']
  assert names.hf_names(['shared.weight', *held], tied=False) == {
    'shared.weight': 'shared.weight',
    'lm_head.weight': 'lm_head.weight',
  }
  assert names.hf_names(held, tied=True) == {'shared.weight': 'encoder.embed_tokens.weight'}

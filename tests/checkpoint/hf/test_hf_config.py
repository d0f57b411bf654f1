"""Which networks a config.json means."""

import pytest

from aya_train.checkpoint.hf import hf_config

MT5 = {
  'model_type': 'mt5',
  'vocab_size': 64,
  'd_model': 8,
  'd_kv': 4,
  'd_ff': 16,
  'num_layers': 2,
  'num_decoder_layers': None,
  'num_heads': 2,
}


def test_defaults_of_config_json_are_those_of_transformers():
  config = hf_config.from_hf_config(MT5, has_head=True, where='x')
  assert config.num_decoder_layers == 2 and config.mlp_activations == ('gelu', 'linear')
  assert not config.logits_via_embedding
  t5 = {**MT5, 'model_type': 't5'}
  config = hf_config.from_hf_config(t5, has_head=False, where='x')
  assert config.mlp_activations == ('relu',) and config.logits_via_embedding


@pytest.mark.parametrize(
  ('written', 'tied'),
  [
    ({'tie_word_embeddings': False}, False),
    # As transformers 5 writes a T5 1.1 model after loading it.
    ({'tie_word_embeddings': True, 'scale_decoder_outputs': False}, False),
    ({'tie_word_embeddings': True}, True),
  ],
)
def test_the_scale_of_a_t5_config_tells_a_tied_head(written, tied):
  config = hf_config.from_hf_config(
    {**MT5, 'model_type': 't5', **written}, has_head=True, where='x'
  )
  assert config.logits_via_embedding == tied


@pytest.mark.parametrize(
  ('changes', 'has_head', 'message'),
  [
    ({'model_type': 'bart'}, True, 'model_type must be one of'),
    ({'layer_norm_epsilon': 1e-5}, True, 'layer_norm_epsilon'),
    ({'feed_forward_proj': 'gated-tanh'}, True, 'gated-tanh'),
    ({}, False, r'no single meaning'),
    ({'model_type': 't5', 'tie_word_embeddings': False}, False, r'lm_head\.weight is missing'),
  ],
)
def test_models_that_this_network_is_not_are_refused(changes, has_head, message):
  with pytest.raises(ValueError, match=message):
    hf_config.from_hf_config({**MT5, **changes}, has_head=has_head, where='x')

"""A model small enough that a test compiles it in a second or two."""

import flax.linen as nn
import jax
import seqio

from aya_train.models import network, t5_config
from aya_train.objectives import seq2seq

CONFIG = {
  'vocab_size': 96,
  'emb_dim': 16,
  'num_heads': 2,
  'num_encoder_layers': 2,
  'num_decoder_layers': 2,
  'head_dim': 8,
  'mlp_dim': 32,
  'dropout_rate': 0.0,
}


def model(model_options=None, **config) -> seq2seq.EncoderDecoderModel:
  """A model over 96 ids; keyword arguments override its T5Config."""
  network_config = t5_config.T5Config(**{**CONFIG, **config})
  vocabulary = seqio.PassThroughVocabulary(96, eos_id=1)
  return seq2seq.EncoderDecoderModel(
    network.Transformer(network_config), vocabulary, vocabulary, **(model_options or {})
  )


def params(model: seq2seq.EncoderDecoderModel, seed: int = 0):
  """Random parameters without their boxes."""
  return nn.unbox(jax.jit(model.initial_variables)(jax.random.key(seed)))

"""T5Config to and from the config.json of transformers' T5 and MT5 classes.

An untied network (every mT5) is written as `model_type: mt5` with `tie_word_embeddings: false` and
with both tables, `shared.weight` and `lm_head.weight`:
  transformers 4 reads the flag, keeps both tables and does not scale the decoder's output;
  transformers 5 sets the flag to true whatever the file says, yet leaves tables apart that are
    both present and differ (one warning at load), and its MT5 class never scales. If the two tables
    happen to be equal it ties them, which changes no output, only what further training would do.
    Methods that tie anew (`tie_weights`, `resize_token_embeddings`) do overwrite the head in 5,
    unless `model.config.tie_word_embeddings = False` is set after loading.
Seen with transformers 4.57.6, 5.0.0 and 5.23.0.

A network with position biases in each layer (`relpos_bias_per_layer`) is written as `model_type:
umt5`. transformers 5 scales the logits of every umt5 model by d_model**-0.5, the untied ones of
Google included, unless `model.config.tie_word_embeddings = False` is set after loading: greedy
answers are the same, sampling and losses are not. transformers 4 reads the flag.

A tied network (`logits_via_embedding`) multiplies the decoder's output by d_model**-0.5, which in
transformers 5 only the T5 class does: it is written as `model_type: t5`, without `lm_head.weight`.
"""

from collections.abc import Mapping
from typing import Any

from aya_train.models import t5_config

# transformers' 'gelu_new' is the tanh approximation that flax.linen.gelu computes; 'gated-gelu'
# means 'gated-gelu_new' for historical reasons.
FEED_FORWARD_PROJ = {
  ('gelu', 'linear'): 'gated-gelu',
  ('relu', 'linear'): 'gated-relu',
  ('silu', 'linear'): 'gated-silu',
  ('gelu',): 'gelu_new',
  ('relu',): 'relu',
  ('silu',): 'silu',
}
LAYER_NORM_EPSILON = 1e-6
CLASSES = {
  't5': 'T5ForConditionalGeneration',
  'mt5': 'MT5ForConditionalGeneration',
  'umt5': 'UMT5ForConditionalGeneration',
}


def to_hf_config(
  config: t5_config.T5Config, *, dtype: str, pad_id: int, eos_id: int
) -> dict[str, Any]:
  """The content of config.json; `dtype` is the one of the written tensors.

  Raises:
    ValueError: the network's MLP has no counterpart in transformers.
  """
  if config.mlp_activations not in FEED_FORWARD_PROJ:
    raise ValueError(
      f'transformers has no feed_forward_proj for mlp_activations {config.mlp_activations}; '
      f'it can express {sorted(FEED_FORWARD_PROJ)}'
    )
  tied = config.logits_via_embedding
  model_type = 'umt5' if config.relpos_bias_per_layer else 't5' if tied else 'mt5'
  return {
    'architectures': [CLASSES[model_type]],
    'model_type': model_type,
    'vocab_size': config.vocab_size,
    'd_model': config.emb_dim,
    'd_kv': config.head_dim,
    'd_ff': config.mlp_dim,
    'num_layers': config.num_encoder_layers,
    'num_decoder_layers': config.num_decoder_layers,
    'num_heads': config.num_heads,
    'relative_attention_num_buckets': config.relative_attention_num_buckets,
    'relative_attention_max_distance': config.relative_attention_max_distance,
    'dropout_rate': config.dropout_rate,
    'layer_norm_epsilon': LAYER_NORM_EPSILON,
    'initializer_factor': 1.0,
    'feed_forward_proj': FEED_FORWARD_PROJ[config.mlp_activations],
    'is_encoder_decoder': True,
    'use_cache': True,
    'tie_word_embeddings': tied,
    'pad_token_id': pad_id,
    'eos_token_id': eos_id,
    'decoder_start_token_id': pad_id,
    # transformers 4 and 5 both read this older name of `dtype`.
    'torch_dtype': dtype,
  }


def generation_config(*, pad_id: int, eos_id: int) -> dict[str, Any]:
  """The content of generation_config.json: greedy decoding from the padding id, as T5X decodes."""
  return {
    'decoder_start_token_id': pad_id,
    'eos_token_id': eos_id,
    'pad_token_id': pad_id,
  }


def _is_tied(hf: Mapping[str, Any], has_head: bool, where: str) -> bool:
  """Whether the head is the input table, from what transformers 4 and 5 write for either."""
  if hf['model_type'] == 'mt5':
    if not has_head:
      raise ValueError(
        f'{where}: an mt5 model without lm_head.weight has no single meaning: transformers 4 '
        'scales the output of a tied model, 5 does not. Say model_type t5 in config.json if it is '
        'scaled, or store the head as lm_head.weight.'
      )
    return False
  if hf['model_type'] == 'umt5':
    return not has_head
  scaled = hf.get('scale_decoder_outputs', hf.get('tie_word_embeddings') is not False)
  if not scaled and not has_head:
    raise ValueError(f'{where}: config.json says the head is untied, but lm_head.weight is missing')
  return bool(scaled)


def from_hf_config(hf: Mapping[str, Any], *, has_head: bool, where: str) -> t5_config.T5Config:
  """The unrolled T5Config of a config.json.

  Args:
    hf: content of config.json, as written by this module or by any transformers.
    has_head: whether the tensors contain lm_head.weight.
    where: what to name in errors.

  Raises:
    ValueError: the model is not one that aya_train.models.network computes.
  """
  if hf.get('model_type') not in CLASSES:
    raise ValueError(
      f'{where}: model_type must be one of {sorted(CLASSES)}, got {hf.get("model_type")!r}'
    )
  proj = hf.get('feed_forward_proj', 'relu' if hf['model_type'] == 't5' else 'gated-gelu')
  activations = {value: key for key, value in FEED_FORWARD_PROJ.items()}
  if proj not in activations:
    raise ValueError(f'{where}: feed_forward_proj {proj!r} not among {sorted(activations)}')
  if (epsilon := hf.get('layer_norm_epsilon', LAYER_NORM_EPSILON)) != LAYER_NORM_EPSILON:
    raise ValueError(f'{where}: layer_norm_epsilon must be {LAYER_NORM_EPSILON}, got {epsilon}')
  decoder_layers = hf.get('num_decoder_layers')
  return t5_config.T5Config(
    vocab_size=hf['vocab_size'],
    emb_dim=hf['d_model'],
    num_heads=hf['num_heads'],
    num_encoder_layers=hf['num_layers'],
    num_decoder_layers=hf['num_layers'] if decoder_layers is None else decoder_layers,
    head_dim=hf['d_kv'],
    mlp_dim=hf['d_ff'],
    mlp_activations=activations[proj],
    dropout_rate=hf.get('dropout_rate', 0.1),
    logits_via_embedding=_is_tied(hf, has_head, where),
    scan_layers=False,
    relative_attention_num_buckets=hf.get('relative_attention_num_buckets', 32),
    relative_attention_max_distance=hf.get('relative_attention_max_distance', 128),
    relpos_bias_per_layer=hf['model_type'] == 'umt5',
  )

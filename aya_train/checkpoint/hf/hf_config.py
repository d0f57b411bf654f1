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

import dataclasses
from collections.abc import Mapping
from typing import Any

from aya_train.checkpoint import model_settings
from aya_train.models import t5_config

_DEFAULT_SETTINGS = model_settings.ModelSettings()
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
# Other names of the same functions, read and never written.
_SYNONYMS = {
  'gated-gelu_new': 'gated-gelu',
  'gated-gelu_pytorch_tanh': 'gated-gelu',
  'gelu_pytorch_tanh': 'gelu_new',
  'gated-swish': 'gated-silu',
  'swish': 'silu',
}
LAYER_NORM_EPSILON = 1e-6
CLASSES = {
  't5': 'T5ForConditionalGeneration',
  'mt5': 'MT5ForConditionalGeneration',
  'umt5': 'UMT5ForConditionalGeneration',
}


def to_hf_config(
  config: t5_config.T5Config,
  *,
  dtype: str,
  settings: model_settings.ModelSettings = _DEFAULT_SETTINGS,
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
    **_ids(settings),
    **settings.config,
    # transformers 4 and 5 both read this older name of `dtype`.
    'torch_dtype': dtype,
  }


def generation_config(
  config: t5_config.T5Config, settings: model_settings.ModelSettings = _DEFAULT_SETTINGS
) -> dict[str, Any]:
  """The content of generation_config.json: greedy decoding, as T5X decodes, unless `settings` say
  otherwise, and as long as they say.

  The cache of transformers 5 has as many layers as the encoder, so a deeper decoder fails with it:
  such a model is told to use none.
  """
  content = {**_ids(settings), **settings.generation}
  if config.num_decoder_layers > config.num_encoder_layers:
    content['use_cache'] = False
  return content


def _ids(settings: model_settings.ModelSettings) -> dict[str, Any]:
  eos = settings.eos_ids
  return {
    'pad_token_id': model_settings.PAD_ID,
    'eos_token_id': eos[0] if len(eos) == 1 else list(eos),
    'decoder_start_token_id': settings.decoder_start_id,
  }


def _is_tied(hf: Mapping[str, Any], has_head: bool, where: str) -> bool:
  """Whether the head is the input table, from what transformers 4 and 5 write for either."""
  if hf['model_type'] == 'mt5':
    if not has_head and not _saved_by_5(hf):
      raise ValueError(
        f'{where}: an mt5 model without lm_head.weight has no single meaning: transformers 4 '
        'scales the output of a tied model, 5 does not. Say model_type t5 in config.json if it is '
        'scaled, or store the head as lm_head.weight.'
      )
    return False
  if hf['model_type'] == 'umt5':
    return not has_head
  scaled = hf.get('scale_decoder_outputs', hf.get('tie_word_embeddings') is not False)
  if not scaled and not has_head and hf.get('tie_word_embeddings') is False:
    raise ValueError(f'{where}: config.json says the head is untied, but lm_head.weight is missing')
  return bool(scaled)


def _saved_by_5(hf: Mapping[str, Any]) -> bool:
  """Whether transformers 5 or later saved a config.json."""
  major = str(hf.get('transformers_version', '')).partition('.')[0]
  return major.isdigit() and int(major) >= 5


def needs_head(config: t5_config.T5Config, *, has_head: bool) -> bool:
  """Whether a network without a stored head uses its input table as one, unscaled.

  So says a config.json of model_type t5 with `scale_decoder_outputs` false and tied tables, and one
  of model_type mt5 that transformers 5 saved, whose class never scales.
  """
  return not has_head and not config.logits_via_embedding


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
  _check_entries(hf, proj, where)
  proj = _SYNONYMS.get(proj, proj)
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


# Entries beside the architecture ------------------------------------------------------------------

_ALIASES = {
  'hidden_size': 'd_model',
  'num_attention_heads': 'num_heads',
  'num_hidden_layers': 'num_layers',
  'head_dim': 'd_kv',
}
_ARCHITECTURE = (
  *('architectures', 'model_type', 'vocab_size', 'd_model', 'd_kv', 'd_ff', 'num_layers'),
  *('num_decoder_layers', 'num_heads', 'relative_attention_num_buckets', 'layer_norm_epsilon'),
  *('relative_attention_max_distance', 'dropout_rate', 'feed_forward_proj', 'is_encoder_decoder'),
  *('tie_word_embeddings', 'scale_decoder_outputs', 'dense_act_fn', 'is_gated_act', 'is_decoder'),
  *_ALIASES,
)
_OF_A_FILE = ('dtype', 'torch_dtype', '_name_or_path', 'transformers_version', '_from_model_config')
# What transformers takes from config.json where there is no generation_config.json.
_GENERATION = (
  *('max_length', 'min_length', 'do_sample', 'early_stopping', 'num_beams', 'num_beam_groups'),
  *('diversity_penalty', 'temperature', 'top_k', 'top_p', 'typical_p', 'repetition_penalty'),
  *('length_penalty', 'no_repeat_ngram_size', 'encoder_no_repeat_ngram_size', 'bad_words_ids'),
  *('num_return_sequences', 'forced_bos_token_id', 'forced_eos_token_id', 'suppress_tokens'),
  *('begin_suppress_tokens', 'remove_invalid_values', 'exponential_decay_length_penalty'),
)
_PAD, _EOS, _START = 'pad_token_id', 'eos_token_id', 'decoder_start_token_id'


def _check_entries(hf: Mapping[str, Any], proj: str, where: str) -> None:
  """Refuses entries with which transformers would compute something else than our network.

  Entries that override what follows from others count in transformers, and so they do here.
  """
  kind, _, function = proj.rpartition('-')
  function = 'gelu_new' if proj == 'gated-gelu' else function
  wanted: dict[str, tuple[Any, ...]] = {
    'dense_act_fn': tuple(name for name in (function, *_SAME_FUNCTION.get(function, ()))),
    'is_gated_act': (kind == 'gated',),
    'is_encoder_decoder': (True,),
    'is_decoder': (False,),
    'tie_encoder_decoder': (False,),
    'quantization_config': (None,),
    'pruned_heads': ({}, None),
    'auto_map': (None,),
    **{alias: (hf[name],) for alias, name in _ALIASES.items()},
  }
  wrong = [
    f'{key} {hf[key]!r} (expected {" or ".join(map(repr, fit))})'
    for key, fit in wanted.items()
    if key in hf and hf[key] not in fit
  ]
  if wrong:
    raise ValueError(
      f'{where}: config.json has {", ".join(wrong)}: with this, transformers computes another '
      'function than the T5 network here'
    )


_SAME_FUNCTION = {
  'gelu_new': ('gelu_pytorch_tanh',),
  'gelu_pytorch_tanh': ('gelu_new',),
  'silu': ('swish',),
  'swish': ('silu',),
}


def settings_of(
  hf: Mapping[str, Any], generation: Mapping[str, Any], where: str
) -> model_settings.ModelSettings:
  """What config.json and generation_config.json (or {}) say of the way the model answers.

  As in transformers, the latter counts where both say something.

  Raises:
    ValueError: padding other than 0, or ids that are none.
  """

  def ids(key: str, default: int) -> tuple[int, ...]:
    value = next((x[key] for x in (generation, hf) if x.get(key) is not None), default)
    found = tuple(value) if isinstance(value, list) else (value,)
    if not found or not all(type(i) is int and 0 <= i < hf['vocab_size'] for i in found):
      raise ValueError(
        f'{where}: {key} must be an id below vocab_size {hf["vocab_size"]}, got {value!r}'
      )
    return found

  for content, file in ((hf, 'config.json'), (generation, 'generation_config.json')):
    if content.get(_PAD) not in (None, model_settings.PAD_ID):
      raise ValueError(
        f'{where}: {file} has pad_token_id {content[_PAD]!r}: the network here takes id '
        f'{model_settings.PAD_ID} for padding, which attention leaves out, and no other'
      )
  start, eos = ids(_START, model_settings.START_ID), ids(_EOS, model_settings.EOS_ID)
  if len(start) != 1:
    raise ValueError(f'{where}: decoder_start_token_id must be one id, got {list(start)}')
  own = generation or {k: hf[k] for k in _GENERATION if hf.get(k) is not None}
  settings = model_settings.ModelSettings(
    decoder_start_id=start[0],
    eos_ids=eos,
    generation={
      key: value
      for key, value in own.items()
      if key not in (*_OF_A_FILE, _PAD, _EOS, _START)
      # Changes no answer; `generation_config` sets it where it must be false.
      and key != 'use_cache'
    },
  )
  derived = {**_ids(settings), 'initializer_factor': 1.0, 'use_cache': True}
  further = {
    key: value
    for key, value in hf.items()
    if key not in (*_ARCHITECTURE, *_OF_A_FILE, *_GENERATION, _PAD)
    and not (key in derived and value in (None, derived[key]))
  }
  return dataclasses.replace(settings, config=further)

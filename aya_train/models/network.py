"""mT5's network: a pre-norm encoder-decoder Transformer with relative position biases.

Parameter names equal T5X's: `encoder/layers_0/attention/query/kernel` when layers are unrolled
(t5x/examples/t5) and `encoder/encoder/attention/query/kernel`, with an axis `layers`, when they are
scanned (t5x/examples/scalable_t5). The layers of a stack share one table of position biases, as in
every released mT5; with `relpos_bias_per_layer` each has its own, as in scalable_t5 and in umT5.

Dimension letters: B batch, T target positions, S source positions, D model width, H heads, V
vocabulary. Token id 0 is padding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from jax.ad_checkpoint import checkpoint_name

from aya_train.models import attention_visibility, fused_attention, layers, t5_config

Array = jax.Array
Bias = Array | attention_visibility.Visibility
T5Config = t5_config.T5Config


def _constrain(x_BTD: Array) -> Array:
  return nn.with_logical_constraint(x_BTD, ('batch', 'length', 'embed'))


def _residual(x_BTD: Array) -> Array:
  return checkpoint_name(x_BTD, 'residual')


def split_cache(cache: Any) -> tuple[Any, Any]:
  """The collection 'cache' in two: what each decode writes, and the encoder's keys and values."""
  flat = traverse_util.flatten_dict(cache)
  of_encoder = {name: x for name, x in flat.items() if 'encoder_decoder_attention' in name}
  own = {name: x for name, x in flat.items() if name not in of_encoder}
  return traverse_util.unflatten_dict(own), traverse_util.unflatten_dict(of_encoder)


class EncoderLayer(nn.Module):
  """Self-attention and MLP, each with norm before and residual around."""

  config: T5Config

  def setup(self):
    cfg = self.config
    if cfg.relpos_bias_per_layer:
      self.relpos_bias = layers.RelativePositionBias(cfg, bidirectional=True)
    self.pre_attention_layer_norm = layers.LayerNorm(cfg.dtype)
    self.attention = layers.Attention(cfg)
    self.pre_mlp_layer_norm = layers.LayerNorm(cfg.dtype)
    self.mlp = layers.Mlp(cfg)

  @nn.compact
  def __call__(self, x_BSD: Array, bias: Bias, deterministic: bool) -> tuple[Array, None]:
    drop = layers.dropout(self.config, deterministic)
    if self.config.relpos_bias_per_layer:
      bias = self.relpos_bias.added_to(bias)
    normed = self.pre_attention_layer_norm(_constrain(x_BSD))
    x = _residual(x_BSD + drop(self.attention(normed, normed, bias, deterministic)))
    y = x + drop(self.mlp(self.pre_mlp_layer_norm(_constrain(x)), deterministic))
    return _constrain(y), None


class DecoderLayer(nn.Module):
  """Causal self-attention, attention to the encoder, MLP; each with a norm and a residual."""

  config: T5Config

  def setup(self):
    cfg = self.config
    if cfg.relpos_bias_per_layer:
      self.relpos_bias = layers.RelativePositionBias(cfg, bidirectional=False)
    self.pre_self_attention_layer_norm = layers.LayerNorm(cfg.dtype)
    self.self_attention = layers.Attention(cfg)
    self.pre_cross_attention_layer_norm = layers.LayerNorm(cfg.dtype)
    self.encoder_decoder_attention = layers.Attention(cfg)
    self.pre_mlp_layer_norm = layers.LayerNorm(cfg.dtype)
    self.mlp = layers.Mlp(cfg)

  @nn.compact
  def __call__(
    self, x_BTD: Array, encoded: Array, self_bias: Bias, cross_bias: Bias, deterministic: bool
  ) -> tuple[Array, None]:
    drop = layers.dropout(self.config, deterministic)
    if self.config.relpos_bias_per_layer:
      self_bias = self.relpos_bias.added_to(self_bias)
    normed = self.pre_self_attention_layer_norm(_constrain(x_BTD))
    x = _residual(x_BTD + drop(self.self_attention(normed, normed, self_bias, deterministic)))
    normed = self.pre_cross_attention_layer_norm(_constrain(x))
    attended = self.encoder_decoder_attention(normed, encoded, cross_bias, deterministic)
    y = _residual(x + drop(attended))
    z = y + drop(self.mlp(self.pre_mlp_layer_norm(_constrain(y)), deterministic))
    return _constrain(z), None

  def init_cache(self, encoded_BSD: Array, max_decode_length: int) -> tuple[Array, None]:
    self.self_attention.init_self_cache(encoded_BSD.shape[0], max_decode_length)
    self.encoder_decoder_attention.init_cross_cache(encoded_BSD)
    return encoded_BSD, None

  def decode_step(
    self, x_N1D: Array, position: Array, self_bias: Array, cross_bias: Array
  ) -> tuple[Array, None]:
    if self.config.relpos_bias_per_layer:
      self_bias = self.relpos_bias(position[None], self_bias.shape[-1]) + self_bias
    normed = self.pre_self_attention_layer_norm(x_N1D)
    x = x_N1D + self.self_attention.self_attention_step(normed, position, self_bias)
    normed = self.pre_cross_attention_layer_norm(x)
    y = x + self.encoder_decoder_attention.cross_attention_step(normed, cross_bias)
    return y + self.mlp(self.pre_mlp_layer_norm(y), True), None


def _scanned(layer: Any, cfg: T5Config, length: int, methods: dict[str, int]) -> type[nn.Module]:
  """Stacks a layer `length` times; `methods` gives the number of arguments after the carry."""

  def scan_arguments(broadcast_arguments: int) -> dict[str, Any]:
    return {
      'variable_axes': {'params': cfg.param_scan_axis, 'cache': 0},
      'split_rngs': {'params': True, 'dropout': True},
      'in_axes': (nn.broadcast,) * broadcast_arguments,
      'length': length,
      'metadata_params': {nn.PARTITION_NAME: 'layers'},
    }

  return nn.scan(layer, methods={name: scan_arguments(n) for name, n in methods.items()})


def _rematerialised(layer: type[nn.Module], cfg: T5Config, deterministic_argument: int) -> Any:
  """Wraps a layer's `__call__` so that its backward pass recomputes what the policy drops."""
  if cfg.remat_policy == 'none':
    return layer
  policy = None
  if cfg.remat_policy == 'minimal':
    policy = jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims
  if cfg.remat_policy == 'save_named':
    policy = jax.checkpoint_policies.save_only_these_names(*cfg.remat_save_names)
  return nn.remat(
    layer,
    policy=policy,
    prevent_cse=not cfg.scan_layers,
    static_argnums=(deterministic_argument,),
  )


def _mask(
  cfg: T5Config,
  query_valid_BT: Array,
  key_valid_BS: Array,
  query_segment_ids_BT: Array | None,
  key_segment_ids_BS: Array | None,
  causal: bool = False,
) -> Bias:
  """The mask of one kind of attention as an additive bias, or as its kernel takes it."""
  seen = (query_valid_BT, key_valid_BS, query_segment_ids_BT, key_segment_ids_BS)
  length, keys = query_valid_BT.shape[1], key_valid_BS.shape[1]
  kernel = cfg.attention_kernel
  if kernel != 'plain' and fused_attention.supports(kernel, length, keys, cfg.head_dim):
    return attention_visibility.visibility(*seen, causal=causal)
  mask = layers.attention_mask(*seen)
  if causal:
    mask &= layers.causal_mask(length)
  return layers.attention_bias(mask, cfg.dtype)


class Encoder(nn.Module):
  """Embeds ids [B, S] and applies the encoder's layers and final norm: [B, S, D]."""

  config: T5Config
  token_embedder: nn.Module

  def setup(self):
    cfg = self.config
    if not cfg.relpos_bias_per_layer:
      self.relpos_bias = layers.RelativePositionBias(cfg, bidirectional=True)
    layer = _rematerialised(EncoderLayer, cfg, deterministic_argument=3)
    if cfg.scan_layers:
      self.encoder = _scanned(layer, cfg, cfg.num_encoder_layers, {'__call__': 2})(cfg)
    else:
      self.layers = [layer(cfg) for _ in range(cfg.num_encoder_layers)]
    self.encoder_norm = layers.LayerNorm(cfg.dtype)

  @nn.compact
  def __call__(
    self, ids_BS: Array, valid_BS: Array, segment_ids_BS: Array | None, deterministic: bool
  ) -> Array:
    cfg = self.config
    x = layers.dropout(cfg, deterministic)(self.token_embedder(ids_BS))
    seen = (valid_BS, valid_BS, segment_ids_BS, segment_ids_BS)
    bias = _mask(cfg, *seen)
    if not cfg.relpos_bias_per_layer:
      bias = self.relpos_bias.added_to(bias)
    for layer in [self.encoder] if cfg.scan_layers else self.layers:
      x, _ = layer(x, bias, deterministic)
    x = self.encoder_norm(x)
    # T5X draws the encoder's last dropout for each position, unlike all others.
    return nn.Dropout(cfg.dropout_rate, deterministic=deterministic)(x)


def head_product(features_ND: Array, kernel_DV: Array) -> Array:
  """Scores of every vocabulary row, float32 [N, V], of rows of features and `head_kernel`."""
  kernel_DV = kernel_DV.astype(jnp.float32)
  return _at_head(lambda x: jnp.dot(x.astype(jnp.float32), kernel_DV), features_ND)


def _at_head(head: Callable[[Array], Array], features: Array) -> Array:
  # Where the head is split over the chips that share rows, the rows come to the head.
  rows = ('embed_and_logits_batch', 'length')[: features.ndim - 1]
  features = nn.with_logical_constraint(features, (*rows, 'embed'))
  return nn.with_logical_constraint(head(features), (*rows, 'vocab'))


class Decoder(nn.Module):
  """The decoder's layers, final norm and the float32 output head."""

  config: T5Config
  token_embedder: nn.Module

  def setup(self):
    cfg = self.config
    if not cfg.relpos_bias_per_layer:
      self.relpos_bias = layers.RelativePositionBias(cfg, bidirectional=False)
    layer = _rematerialised(DecoderLayer, cfg, deterministic_argument=5)
    if cfg.scan_layers:
      methods = {'__call__': 4, 'init_cache': 1, 'decode_step': 3}
      self.decoder = _scanned(layer, cfg, cfg.num_decoder_layers, methods)(cfg)
    else:
      self.layers = [layer(cfg) for _ in range(cfg.num_decoder_layers)]
    self.decoder_norm = layers.LayerNorm(cfg.dtype)
    if not cfg.logits_via_embedding:
      self.logits_dense = layers.Dense(cfg.vocab_size, ('embed', 'vocab'), jnp.float32)

  def _layers(self) -> Sequence[Any]:
    return [self.decoder] if self.config.scan_layers else self.layers

  @nn.compact
  def __call__(
    self,
    ids_BT: Array,
    encoded_BSD: Array,
    target_valid_BT: Array,
    source_valid_BS: Array,
    target_segment_ids_BT: Array | None,
    source_segment_ids_BS: Array | None,
    deterministic: bool,
  ) -> Array:
    """Returns the normalised features [B, T, D] that `logits` turns into scores."""
    cfg = self.config
    x = layers.dropout(cfg, deterministic)(self.token_embedder(ids_BT))
    target, source = target_segment_ids_BT, source_segment_ids_BS
    self_bias = _mask(cfg, target_valid_BT, target_valid_BT, target, target, causal=True)
    if not cfg.relpos_bias_per_layer:
      self_bias = self.relpos_bias.added_to(self_bias)
    # Targets may be packed where inputs are not: then all of them see the one input of the row.
    cross_bias = _mask(
      cfg, target_valid_BT, source_valid_BS, None if source is None else target, source
    )
    for layer in self._layers():
      x, _ = layer(x, encoded_BSD, self_bias, cross_bias, deterministic)
    return layers.dropout(cfg, deterministic)(self.decoder_norm(x))

  def logits(self, features_BTD: Array) -> Array:
    """Scores of every vocabulary row, float32 [B, T, V]."""
    if self.config.logits_via_embedding:
      return self.token_embedder.attend(features_BTD) * self.config.emb_dim**-0.5
    return _at_head(self.logits_dense, features_BTD)

  def head_kernel(self) -> Array:
    """What `head_product` multiplies features with for `logits`, [D, V]."""
    if self.config.logits_via_embedding:
      # A tied head needs the scale that the untied kernel's initialiser already has.
      return self.token_embedder.embedding.T * self.config.emb_dim**-0.5
    return self.logits_dense.variables['params']['kernel']

  def init_cache(self, encoded_BSD: Array, max_decode_length: int) -> None:
    for layer in self._layers():
      layer.init_cache(encoded_BSD, max_decode_length)

  def decode_step(
    self, ids_N1: Array, position: Array, cross_mask_B11S: Array, max_decode_length: int
  ) -> Array:
    cfg = self.config
    x = self.token_embedder(ids_N1)
    visible = (jnp.arange(max_decode_length) <= position)[None, None, None]
    self_bias = layers.attention_bias(visible, cfg.dtype)
    if not cfg.relpos_bias_per_layer:
      self_bias = self.relpos_bias(position[None], max_decode_length) + self_bias
    cross_bias = layers.attention_bias(cross_mask_B11S, cfg.dtype)
    for layer in self._layers():
      x, _ = layer.decode_step(x, position, self_bias, cross_bias)
    x = self.decoder_norm(x)
    if self._is_narrow(x):
      kernel = self.head_kernel()
      return _at_head(lambda x: jnp.matmul(x, kernel, preferred_element_type=jnp.float32), x)
    return self.logits(x)

  def _is_narrow(self, x: Array) -> bool:
    """Whether the head and its rows are bfloat16: then no head in float32 is needed."""
    if self.config.logits_via_embedding or x.dtype != jnp.bfloat16:
      return False
    weights = self.logits_dense.variables['params']
    return {*weights} == {'kernel'} and weights['kernel'].dtype == jnp.bfloat16


class Transformer(nn.Module):
  """mT5. Tokens are int32 [B, length]; logits float32 [B, T, V]."""

  config: T5Config

  def setup(self):
    self.token_embedder = layers.TokenEmbedder(self.config)
    self.encoder = Encoder(self.config, self.token_embedder)
    self.decoder = Decoder(self.config, self.token_embedder)

  @nn.nowrap
  def initial_variables(self, rng: Array) -> Any:
    """Random parameters, boxed with their logical axes (flax.linen.LogicallyPartitioned)."""
    ids = jnp.ones((1, 2), jnp.int32)
    return self.init(rng, ids, ids, ids, enable_dropout=False)['params']

  def encode(
    self,
    encoder_input_tokens: Array,
    encoder_segment_ids: Array | None = None,
    *,
    enable_dropout: bool = True,
  ) -> Array:
    """Encodes inputs [B, S] into features [B, S, D]; packed rows need their segment ids."""
    valid = encoder_input_tokens > 0
    return self.encoder(encoder_input_tokens, valid, encoder_segment_ids, not enable_dropout)

  def decode_features(
    self,
    encoded: Array,
    encoder_input_tokens: Array,
    decoder_input_tokens: Array,
    decoder_target_tokens: Array,
    encoder_segment_ids: Array | None = None,
    decoder_segment_ids: Array | None = None,
    *,
    enable_dropout: bool = True,
  ) -> Array:
    """Teacher-forced decoding up to, but without, the output head: [B, T, D].

    `decoder_target_tokens` only tells real positions from padding, as in T5X.
    """
    return self.decoder(
      decoder_input_tokens,
      encoded,
      decoder_target_tokens > 0,
      encoder_input_tokens > 0,
      decoder_segment_ids,
      encoder_segment_ids,
      not enable_dropout,
    )

  def logits(self, features: Array) -> Array:
    """The output head: features [B, T, D] to float32 scores [B, T, V]."""
    return self.decoder.logits(features)

  def head_kernel(self) -> Array:
    """The output head as a matrix [D, V]; see `head_product`."""
    return self.decoder.head_kernel()

  def features(
    self,
    encoder_input_tokens: Array,
    decoder_input_tokens: Array,
    decoder_target_tokens: Array,
    encoder_segment_ids: Array | None = None,
    decoder_segment_ids: Array | None = None,
    encoder_positions: Array | None = None,
    decoder_positions: Array | None = None,
    *,
    enable_dropout: bool = True,
  ) -> Array:
    """Everything but the output head: float [B, T, D] in the activations' dtype.

    Positions are accepted and unused, as in T5X: relative biases inside a row are already those of
    each packed example, since a segment is contiguous.
    """
    del encoder_positions, decoder_positions
    encoded = self.encode(encoder_input_tokens, encoder_segment_ids, enable_dropout=enable_dropout)
    return self.decode_features(
      encoded,
      encoder_input_tokens,
      decoder_input_tokens,
      decoder_target_tokens,
      encoder_segment_ids,
      decoder_segment_ids,
      enable_dropout=enable_dropout,
    )

  def __call__(self, *args: Any, enable_dropout: bool = True, **kwargs) -> Array:
    """Logits [B, T, V], float32. Arguments are those of `features`."""
    return self.logits(self.features(*args, enable_dropout=enable_dropout, **kwargs))

  def init_cache(self, encoded: Array, max_decode_length: int) -> None:
    """Fills the collection 'cache': empty self-attention, projected keys, values of the encoder."""
    self.decoder.init_cache(encoded, max_decode_length)

  def decode_step(
    self, tokens_N1: Array, position: Array, encoder_input_tokens: Array, max_decode_length: int
  ) -> Array:
    """One step of cached decoding: logits [N, 1, V] after the token at `position` (int32 []).

    Tokens are [N, 1], N / B rows for each of the B inputs [B, S], which lie together. The cache of
    the decoder's own attention has N rows, that of the encoder's keys and values has B.
    """
    cross_mask = (encoder_input_tokens > 0)[:, None, None, :]
    return self.decoder.decode_step(tokens_N1, position, cross_mask, max_decode_length)


def initial_variables(config: T5Config, rng: Array) -> Any:
  """Random parameters, boxed with their logical axes (flax.linen.LogicallyPartitioned)."""
  return Transformer(config).initial_variables(rng)


def parameter_axes(config: T5Config) -> tuple[Any, Any]:
  """Abstract parameters and their logical axes, without allocating anything.

  Returns:
    A tree of jax.ShapeDtypeStruct and a tree of tuples of logical axis names.
  """
  boxed = jax.eval_shape(lambda: initial_variables(config, jax.random.key(0)))
  axes = jax.tree.map(
    lambda box: box.names, boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)
  )
  return nn.unbox(boxed), axes

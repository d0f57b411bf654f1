"""Layers of T5 1.1 (Raffel et al. 2020; Shazeer 2020 for the gated MLP), as in t5x/examples/t5.

No layer has a bias and none knows a mesh: parameters and activations name logical axes, and
aya_train/partitioning.py maps those to mesh axes.

Dimension letters: B batch, T query positions, S key positions, D model width, H heads, K width of a
head, F MLP width, V vocabulary, R relative position buckets.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from aya_train.models import attention_visibility, fused_attention, t5_config

Array = jax.Array
Initializer = Callable[..., Array]

# Large enough to silence a masked key in bfloat16 too, small enough not to overflow when added.
MASKED = -1e10

_fan_in_normal = nn.initializers.variance_scaling(1.0, 'fan_in', 'normal')
_fan_in_truncated = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')
_fan_avg_uniform = nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform')


def attention_bias(mask: Array, dtype: Any) -> Array:
  """Turns a boolean mask [B, 1, T, S] (true: may attend) into an additive bias of `dtype`."""
  return jnp.where(mask, 0.0, MASKED).astype(dtype)


def attention_mask(
  query_valid: Array,
  key_valid: Array,
  query_segment_ids: Array | None = None,
  key_segment_ids: Array | None = None,
) -> Array:
  """Which key each query may see: both are real tokens, and of the same packed example.

  Args:
    query_valid, key_valid: bool [B, T] and [B, S].
    query_segment_ids, key_segment_ids: int [B, T] and [B, S], or both None for unpacked rows.

  Returns:
    bool [B, 1, T, S].
  """
  mask = query_valid[:, None, :, None] & key_valid[:, None, None, :]
  if query_segment_ids is not None and key_segment_ids is not None:
    mask &= query_segment_ids[:, None, :, None] == key_segment_ids[:, None, None, :]
  return mask


def causal_mask(length: int) -> Array:
  """bool [1, 1, length, length]: position t sees positions up to and including t."""
  return jnp.tril(jnp.ones((length, length), bool))[None, None]


def relative_position_bucket(
  relative_position: np.ndarray, *, bidirectional: bool, num_buckets: int, max_distance: int
) -> np.ndarray:
  """Buckets of T5's relative positions: exact when near, logarithmic when far, one beyond.

  Source: Raffel et al. 2020, section 2.1; t5x/examples/t5/layers.py.

  Args:
    relative_position: int, key position minus query position, any shape.
    bidirectional: give keys after the query buckets of their own (else they all fall in bucket 0).
    num_buckets: total number of buckets.
    max_distance: distances from here on share the last bucket.

  Returns:
    int32 of the same shape, in [0, num_buckets).
  """
  distance = -relative_position
  offset = np.zeros_like(distance)
  if bidirectional:
    num_buckets //= 2
    offset = np.where(distance < 0, num_buckets, 0)
    distance = np.abs(distance)
  else:
    distance = np.maximum(distance, 0)
  exact = num_buckets // 2
  # float32 with its eps inside the logarithm: the rounding at bucket borders is part of the model.
  growth = np.log(distance.astype(np.float32) / exact + np.finfo(np.float32).eps)
  far = exact + (growth / np.log(max_distance / exact) * (num_buckets - exact)).astype(np.int32)
  far = np.minimum(far, num_buckets - 1)
  return (offset + np.where(distance < exact, distance, far)).astype(np.int32)


class RelativePositionBias(nn.Module):
  """One learnt number for each head and bucket of distance, for one layer or all of a stack."""

  config: t5_config.T5Config
  bidirectional: bool

  def setup(self):
    cfg = self.config
    self.rel_embedding = self.param(
      'rel_embedding',
      nn.with_logical_partitioning(_fan_avg_uniform, ('heads', 'relpos_buckets')),
      (cfg.num_heads, cfg.relative_attention_num_buckets),
      jnp.float32,
    )

  def _bucket(self, relative_position: np.ndarray) -> np.ndarray:
    return relative_position_bucket(
      relative_position,
      bidirectional=self.bidirectional,
      num_buckets=self.config.relative_attention_num_buckets,
      max_distance=self.config.relative_attention_max_distance,
    )

  def __call__(self, query_positions: Array | np.ndarray, key_length: int) -> Array:
    """Args: query_positions int [T]. Returns: bias [1, H, T, S] in the activations' dtype."""
    positions = np.arange(key_length, dtype=np.int32)
    # Bucket of every distance once, on the host; a traced query position then picks its row.
    bucket_of_distance = self._bucket(np.arange(-(key_length - 1), key_length, dtype=np.int32))
    relative_TS = positions[None, :] - query_positions[:, None]
    buckets_TS = jnp.asarray(bucket_of_distance)[relative_TS + key_length - 1]
    return jnp.take(self.rel_embedding, buckets_TS, axis=1).astype(self.config.dtype)[None]

  def added_to(
    self, mask: Array | attention_visibility.Visibility
  ) -> Array | attention_visibility.Visibility:
    """A mask of self-attention with this bias, [B, 1, T, T] or what the kernel takes instead."""
    if not isinstance(mask, attention_visibility.Visibility):
      return self(np.arange(mask.shape[-2]), mask.shape[-1]) + mask
    tiles = mask.query_ids.shape[1] // attention_visibility.TILE
    patterns = attention_visibility.Patterns.of(
      self._bucket, tiles, tiles, self.config.relative_attention_num_buckets
    )
    return dataclasses.replace(mask, table_HR=self.rel_embedding, patterns=patterns)


class Dense(nn.Module):
  """A matrix product without bias: float32 kernel [fan_in, features], computed in `dtype`."""

  features: int
  kernel_axes: tuple[str | None, str | None]
  dtype: Any
  kernel_init: Initializer = _fan_in_truncated

  @nn.compact
  def __call__(self, x: Array) -> Array:
    kernel = self.param(
      'kernel',
      nn.with_logical_partitioning(self.kernel_init, self.kernel_axes),
      (x.shape[-1], self.features),
      jnp.float32,
    )
    return jnp.dot(x.astype(self.dtype), kernel.astype(self.dtype))


class LayerNorm(nn.Module):
  """RMS normalisation with a scale, no mean and no bias (Zhang & Sennrich 2019); float32 inside."""

  dtype: Any
  epsilon: float = 1e-6

  @nn.compact
  def __call__(self, x_BTD: Array) -> Array:
    scale_D = self.param(
      'scale',
      nn.with_logical_partitioning(nn.initializers.ones, ('embed',)),
      (x_BTD.shape[-1],),
      jnp.float32,
    )
    x = x_BTD.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    normed = (x * jax.lax.rsqrt(mean_square + self.epsilon)).astype(self.dtype)
    return normed * scale_D.astype(self.dtype)[None, None, :]


def rows_of_table(table_VD: Array, ids: Array) -> Array:
  """`jnp.take(table_VD, ids, axis=0)`, without a copy of the table in float32.

  That is what XLA makes of bfloat16 on CPUs: half a gigabyte of mT5-small's, for a few rows. Of the
  same bits as integers it makes a copy of half that size.
  """
  if table_VD.dtype != jnp.bfloat16:
    return jnp.take(table_VD, ids, axis=0)
  return _bfloat16_rows(table_VD, ids)


@jax.custom_jvp
def _bfloat16_rows(table_VD: Array, ids: Array) -> Array:
  def by_bits(table_VD: Array, ids: Array) -> Array:
    bits_VD = jax.lax.bitcast_convert_type(table_VD, jnp.uint16)
    return jax.lax.bitcast_convert_type(jnp.take(bits_VD, ids, axis=0), jnp.bfloat16)

  def plain(table_VD: Array, ids: Array) -> Array:
    return jnp.take(table_VD, ids, axis=0)

  return jax.lax.platform_dependent(table_VD, ids, cpu=by_bits, default=plain)


@_bfloat16_rows.defjvp
def _bfloat16_rows_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
  table_VD, ids = primals
  return _bfloat16_rows(table_VD, ids), jnp.take(tangents[0], ids, axis=0)


class TokenEmbedder(nn.Module):
  """Rows of a float32 table [V, D] picked by id and cast to the activations' dtype."""

  config: t5_config.T5Config

  def setup(self):
    self.embedding = self.param(
      'embedding',
      nn.with_logical_partitioning(nn.initializers.normal(stddev=1.0), ('vocab', 'embed_vocab')),
      (self.config.vocab_size, self.config.emb_dim),
      jnp.float32,
    )

  def __call__(self, ids_BT: Array) -> Array:
    # Where the table is split by width, each chip looks its columns up for all rows of its group.
    ids_BT = nn.with_logical_constraint(ids_BT, ('embed_and_logits_batch', 'length'))
    # Cast after the gather: the table's gradient is then summed in float32.
    x = rows_of_table(self.embedding, ids_BT).astype(self.config.dtype)
    x = nn.with_logical_constraint(x, ('embed_and_logits_batch', 'length', 'embed_vocab'))
    return nn.with_logical_constraint(x, ('batch', 'length', 'embed'))

  def attend(self, y_BTD: Array) -> Array:
    """Logits [B, T, V] of a tied model, float32."""
    return jnp.dot(y_BTD.astype(jnp.float32), self.embedding.T)


class Mlp(nn.Module):
  """Gated MLP: the product of activation(x @ wi_i) over i, dropout, then `wo` (Shazeer 2020)."""

  config: t5_config.T5Config

  @nn.compact
  def __call__(self, x_BTD: Array, deterministic: bool) -> Array:
    cfg = self.config
    branches = []
    for i, name in enumerate(cfg.mlp_activations):
      kernel = 'wi' if len(cfg.mlp_activations) == 1 else f'wi_{i}'
      x = Dense(cfg.mlp_dim, ('embed', 'mlp'), cfg.dtype, name=kernel)(x_BTD)
      branches.append(t5_config.ACTIVATIONS[name](checkpoint_name(x, 'wi')))
    hidden_BTF = branches[0]
    for branch in branches[1:]:
      hidden_BTF = hidden_BTF * branch
    hidden_BTF = dropout(cfg, deterministic)(hidden_BTF)
    hidden_BTF = nn.with_logical_constraint(hidden_BTF, ('batch', 'length', 'mlp'))
    return Dense(cfg.emb_dim, ('mlp', 'embed'), cfg.dtype, name='wo')(hidden_BTF)


def dropout(cfg: t5_config.T5Config, deterministic: bool) -> nn.Dropout:
  """T5X's dropout: one draw for each feature, the same at every position of a sequence."""
  return nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,), deterministic=deterministic)


class Attention(nn.Module):
  """Multi-head dot-product attention as T5 has it: unscaled scores, additive position bias.

  The factor 1/sqrt(K) of other models sits in the initial query kernel.
  """

  config: t5_config.T5Config

  def setup(self):
    cfg = self.config
    joined = cfg.num_heads * cfg.head_dim
    depth_scale = cfg.head_dim**-0.5

    def query_init(*args):
      return _fan_in_normal(*args) * depth_scale

    self.query = Dense(joined, ('embed', 'joined_kv'), cfg.dtype, query_init)
    self.key = Dense(joined, ('embed', 'joined_kv'), cfg.dtype, _fan_in_normal)
    self.value = Dense(joined, ('embed', 'joined_kv'), cfg.dtype, _fan_in_normal)
    self.out = Dense(cfg.emb_dim, ('joined_kv', 'embed'), cfg.dtype, _fan_in_normal)

  def _split(self, x_BTJ: Array) -> Array:
    x = x_BTJ.reshape(*x_BTJ.shape[:-1], self.config.num_heads, self.config.head_dim)
    return nn.with_logical_constraint(x, ('batch', 'length', 'heads', 'kv'))

  def __call__(
    self,
    q_BTD: Array,
    kv_BSD: Array,
    bias: Array | attention_visibility.Visibility,
    deterministic: bool,
  ) -> Array:
    """Attends from `q_BTD` to `kv_BSD`. Returns [B, T, D].

    The bias broadcasts to [B, H, T, S], or is what the fused kernel takes in its place.
    """
    key = checkpoint_name(self.key(kv_BSD), 'key')
    value = checkpoint_name(self.value(kv_BSD), 'value')
    if isinstance(bias, attention_visibility.Visibility):
      return self._attend_fused(q_BTD, key, value, bias, deterministic)
    return self._attend(q_BTD, self._split(key), self._split(value), bias, deterministic)

  def _attend_fused(
    self,
    q_BTD: Array,
    key_BSJ: Array,
    value_BSJ: Array,
    visible: attention_visibility.Visibility,
    deterministic: bool,
  ) -> Array:
    cfg = self.config
    mixed_BTJ = fused_attention.attend(
      checkpoint_name(self.query(q_BTD), 'query'),
      key_BSJ,
      value_BSJ,
      visible,
      self._keep((q_BTD.shape[0], cfg.num_heads, 1, key_BSJ.shape[1]), deterministic)[:, :, 0],
      head_dim=cfg.head_dim,
      kernel=cfg.attention_kernel,
    )
    return self.out(mixed_BTJ)

  def _keep(self, shape: tuple[int, ...], deterministic: bool) -> Array:
    """What dropout multiplies the weights with, [B, H, 1, S]."""
    cfg = self.config
    if deterministic or cfg.dropout_rate == 0.0:
      return jnp.ones(shape, cfg.dtype)
    # One draw for each key, the same for every query: T5X broadcasts over the query axis.
    keep = jax.random.bernoulli(self.make_rng('dropout'), 1.0 - cfg.dropout_rate, shape)
    scale = jnp.asarray(1.0 / (1.0 - cfg.dropout_rate), cfg.dtype)
    return jnp.where(keep, scale, jnp.zeros((), cfg.dtype))

  def _attend(
    self,
    q_BTD: Array,
    key_BSHK: Array,
    value_BSHK: Array,
    bias_BHTS: Array | None,
    deterministic: bool,
  ) -> Array:
    cfg = self.config
    query_BTHK = self._split(checkpoint_name(self.query(q_BTD), 'query'))
    score_dtype = jnp.float32 if cfg.float32_attention_logits else cfg.dtype
    scores_BHTS = jnp.einsum(
      'bthk,bshk->bhts', query_BTHK.astype(score_dtype), key_BSHK.astype(score_dtype)
    )
    if bias_BHTS is not None:
      scores_BHTS = scores_BHTS + bias_BHTS.astype(score_dtype)
    weights_BHTS = jax.nn.softmax(scores_BHTS).astype(cfg.dtype)
    if not deterministic and cfg.dropout_rate > 0.0:
      shape = (*weights_BHTS.shape[:2], 1, weights_BHTS.shape[3])
      weights_BHTS = weights_BHTS * self._keep(shape, deterministic)
    mixed_BTHK = jnp.einsum('bhts,bshk->bthk', weights_BHTS, value_BSHK)
    mixed_BTJ = mixed_BTHK.reshape(*mixed_BTHK.shape[:-2], -1)
    return self.out(checkpoint_name(mixed_BTJ, 'attention'))

  # Cached decoding -------------------------------------------------------------------------------

  def init_self_cache(self, batch: int, max_decode_length: int) -> None:
    """Allocates zeroed keys and values [B, S, H, K] for `max_decode_length` positions."""
    cfg = self.config
    shape = (batch, max_decode_length, cfg.num_heads, cfg.head_dim)
    self.put_variable('cache', 'cached_key', jnp.zeros(shape, cfg.dtype))
    self.put_variable('cache', 'cached_value', jnp.zeros(shape, cfg.dtype))

  def init_cross_cache(self, encoded_BSD: Array) -> None:
    """Projects the encoder's output to keys and values once for the whole decoding."""
    self.put_variable('cache', 'cached_key', self._split(self.key(encoded_BSD)))
    self.put_variable('cache', 'cached_value', self._split(self.value(encoded_BSD)))

  def self_attention_step(self, x_B1D: Array, position: Array, bias_BH1S: Array) -> Array:
    """Writes this position's key and value into the cache and attends to it. Returns [B, 1, D]."""
    for name, projection in (('cached_key', self.key), ('cached_value', self.value)):
      old = self.get_variable('cache', name)
      new = jax.lax.dynamic_update_slice_in_dim(old, self._split(projection(x_B1D)), position, 1)
      self.put_variable('cache', name, new)
    return self._attend_cached(x_B1D, bias_BH1S)

  def cross_attention_step(self, x_N1D: Array, bias_B11S: Array) -> Array:
    """Attends to the keys and values of B inputs, each with N / B decodes that lie together.

    The decodes of an input are its queries, so its keys and values are there once. Returns
    [N, 1, D].
    """
    queries_BTD = x_N1D.reshape(bias_B11S.shape[0], -1, x_N1D.shape[-1])
    return self._attend_cached(queries_BTD, bias_B11S).reshape(*x_N1D.shape[:-1], -1)

  def _attend_cached(self, x_BTD: Array, bias_BHTS: Array) -> Array:
    key = self.get_variable('cache', 'cached_key')
    value = self.get_variable('cache', 'cached_value')
    return self._attend(x_BTD, key, value, bias_BHTS, True)

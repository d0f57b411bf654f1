"""Cross-entropy and its normalisation, with T5X's semantics (t5x/losses.py).

Losses come back as sums and counts; whoever reduces over microbatches or hosts divides once, at the
end. No one-hot array of the vocabulary's width is ever built: the target's logit is gathered.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aya_train import block_reductions

Array = jax.Array
Batch = Mapping[str, Array]

SPECIAL_LOSS_NORMALIZING_FACTORS = (
  'NUM_REAL_TARGET_TOKENS',
  'NUM_TOTAL_TARGET_TOKENS',
  'AVERAGE_PER_SEQUENCE',
)
LossNormalizingFactor = float | int | str | None


class TokenLosses(NamedTuple):
  """Per-token results, each float32 (bool for `correct`) [B, T].

  Attributes:
    cross_entropy: loss including the z-loss term, as T5X reports it.
    z_loss: the z-loss term alone.
    correct: the most likely id is the target.
  """

  cross_entropy: Array
  z_loss: Array
  correct: Array


def check_loss_normalizing_factor(factor: LossNormalizingFactor) -> LossNormalizingFactor:
  """Returns the factor with special names in upper case.

  Raises:
    ValueError: neither None, a positive number nor one of SPECIAL_LOSS_NORMALIZING_FACTORS.
  """
  if factor is None:
    return None
  if isinstance(factor, str) and factor.upper() in SPECIAL_LOSS_NORMALIZING_FACTORS:
    return factor.upper()
  if isinstance(factor, int | float) and not isinstance(factor, bool) and factor > 0:
    return factor
  raise ValueError(
    'LOSS_NORMALIZING_FACTOR must be None, a positive number or one of '
    f'{SPECIAL_LOSS_NORMALIZING_FACTORS}, got {factor!r}'
  )


def token_losses(
  logits: Array, targets: Array, *, label_smoothing: float = 0.0, z_loss: float = 0.0
) -> TokenLosses:
  """Cross-entropy of each position, with label smoothing and the z-loss of Shazeer & Stern.

  With smoothing e the soft target gives 1 - e to the target and e / (V - 1) to every other id; the
  entropy of that distribution is subtracted, so that a perfect prediction costs nothing (T5X). The
  z-loss adds z_loss * log(Z)**2, which keeps logits near normalised log-probabilities.

  Args:
    logits: float32 [B, T, V].
    targets: int32 [B, T].
    label_smoothing: e, in [0, 1).
    z_loss: coefficient, 1e-4 in mT5's gin files.
  """
  log_z = jax.scipy.special.logsumexp(logits, axis=-1)
  return _token_losses(logits, targets, log_z, label_smoothing=label_smoothing, z_loss=z_loss)


def _token_losses(
  logits: Array, targets: Array, log_z: Array, *, label_smoothing: float, z_loss: float
) -> TokenLosses:
  vocab_size = logits.shape[-1]
  target_logit = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  loss = log_z - target_logit
  if label_smoothing:
    confidence, rest = 1.0 - label_smoothing, label_smoothing / (vocab_size - 1)
    entropy = -(
      confidence * math.log(confidence) + (vocab_size - 1) * rest * math.log(rest + 1e-20)
    )
    summed = jnp.sum(logits, axis=-1)
    # log_z has weight 1 in total; each logit its share of the soft target.
    loss = log_z - (confidence - rest) * target_logit - rest * summed - entropy
  z_term = z_loss * jnp.square(log_z)
  return TokenLosses(loss + z_term, z_term, _is_first_of_largest(logits, targets))


def _is_first_of_largest(logits: Array, targets: Array) -> Array:
  """Whether the target is the argmax, as reductions that XLA splits over chips, unlike argmax."""
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  ids = jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1)
  before = jnp.max(jnp.where(ids < targets[..., None], logits, -jnp.inf), axis=-1)
  return (chosen == jnp.max(logits, axis=-1)) & ((chosen > before) | (targets == 0))


def chunked_token_losses(
  head: Callable[[Array], Array],
  features: Array,
  targets: Array,
  chunk: int,
  **kwargs: float,
) -> TokenLosses:
  """`token_losses` of `head(features)` without ever holding all logits, for any loss made of them.

  The target length is cut into chunks; the backward pass computes each chunk's logits again. A
  weighted sum of cross-entropies is better taken by `weighted_loss`.

  Args:
    head: maps features [B, chunk, D] to logits [B, chunk, V].
    features: [B, T, D].
    targets: int32 [B, T].
    chunk: positions at a time; must divide T.
    **kwargs: `label_smoothing` and `z_loss` of `token_losses`.

  Raises:
    ValueError: the chunk does not divide the target length.
  """
  _check_chunk(chunk, targets.shape[1])

  @jax.checkpoint
  def one(chunk_features: Array, chunk_targets: Array) -> TokenLosses:
    return token_losses(head(chunk_features), chunk_targets, **kwargs)

  parts = (_split(features, chunk), _split(targets, chunk))
  return _joined(jax.lax.map(lambda xs: one(*xs), parts))


def weighted_loss(
  features: Array,
  kernel: Array,
  targets: Array,
  weights: Array,
  chunk: int | None = None,
  *,
  product: Callable[[Array, Array], Array] = jnp.matmul,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
) -> tuple[Array, TokenLosses]:
  """The weighted sum of the `token_losses` of a head without bias, made to be differentiated.

  The loss comes last, and its weights are known. So its gradient with respect to the logits is
  taken while they are there, chunk by chunk, and goes through the head at once: nothing is
  computed twice, and no array of the vocabulary's width outlives its chunk. What is kept for the
  backward pass are the gradients of the features and of the kernel (as in Liger's fused linear
  cross-entropy, Hsu et al. 2024).

  Args:
    features: [B, T, D].
    kernel: the head, [D, V].
    targets: int32 [B, T].
    weights: float32 [B, T], the denominator included.
    chunk: positions at a time; must divide T. None for all at once.
    product: the matrix product of rows [N, D] and the kernel, float32 [N, V]; may say how they
      are split over devices.
    label_smoothing, z_loss: of `token_losses`.

  Returns:
    sum(weights * cross_entropy), float32 [], and the losses of each token, which have no gradient.

  Raises:
    ValueError: the chunk does not divide the target length.
  """
  rows, length = targets.shape
  chunk = length if chunk is None else chunk
  _check_chunk(chunk, length)
  options = {'label_smoothing': label_smoothing, 'z_loss': z_loss}
  of_logits = functools.partial(
    _token_losses_and_gradient, label_smoothing=label_smoothing, z_loss=z_loss
  )

  def parts(x: Array) -> Array:
    # One matrix for each chunk: where rows and positions are apart, XLA copies what it multiplies.
    return _split(x, chunk).reshape(length // chunk, rows * chunk, *x.shape[2:])

  def whole(tree: Any) -> Any:
    apart = (length // chunk, rows, chunk)
    return _joined(jax.tree.map(lambda x: x.reshape(*apart, *x.shape[2:]), tree))

  @jax.custom_vjp
  def loss(
    kernel: Array, features: Array, targets: Array, weights: Array
  ) -> tuple[Array, TokenLosses]:
    def one(xs: tuple[Array, Array]) -> TokenLosses:
      return token_losses(product(xs[0], kernel), xs[1], **options)

    token = whole(jax.lax.map(one, (parts(features), parts(targets))))
    return jnp.sum(token.cross_entropy * weights), token

  def forward(
    kernel: Array, features: Array, targets: Array, weights: Array
  ) -> tuple[tuple[Array, TokenLosses], tuple[Array, Array, Array]]:
    def one(total: Array, xs: tuple[Array, Array, Array]) -> tuple[Array, Any]:
      part, part_targets, part_weights = xs
      logits, through_head = jax.vjp(lambda x: product(x, kernel), part)
      token, gradient = block_reductions.map_rows(of_logits, logits, part_targets, part_weights)
      # Not by differentiating the product: that makes XLA transpose the gradient of the logits.
      of_kernel = jnp.matmul(part.astype(gradient.dtype).T, gradient)
      return total + of_kernel, (*through_head(gradient), token)

    zeros = jnp.zeros(kernel.shape, jnp.float32)
    xs = (parts(features), parts(targets), parts(weights))
    if chunk == length:
      of_kernel, only = one(zeros, jax.tree.map(lambda x: x[0], xs))
      stacked = jax.tree.map(lambda x: x[None], only)
    else:
      of_kernel, stacked = jax.lax.scan(one, zeros, xs)
    of_features, token = whole(stacked)
    value = jnp.sum(token.cross_entropy * weights)
    return (value, token), (of_kernel.astype(kernel.dtype), of_features, token.cross_entropy)

  def backward(
    kept: tuple[Array, Array, Array], cotangents: tuple[Array, Any]
  ) -> tuple[Array, Array, None, Array]:
    of_kernel, of_features, of_weights = ((cotangents[0] * x).astype(x.dtype) for x in kept)
    return of_kernel, of_features, None, of_weights

  loss.defvjp(forward, backward)
  value, token = loss(kernel, features, targets, weights)
  return value, jax.tree.map(jax.lax.stop_gradient, token)


def _token_losses_and_gradient(
  logits: Array, targets: Array, weights: Array, *, label_smoothing: float, z_loss: float
) -> tuple[TokenLosses, Array]:
  """`token_losses`, and the gradient of their weighted sum with respect to the logits."""
  # The exponentials are kept for the gradient: on CPUs they cost more than any other pass.
  largest = jnp.max(logits, axis=-1)
  shares = jnp.exp(logits - largest[..., None])
  total = jnp.sum(shares, axis=-1)
  log_z = largest + jnp.log(total)
  token = _token_losses(logits, targets, log_z, label_smoothing=label_smoothing, z_loss=z_loss)
  rest = label_smoothing / (logits.shape[-1] - 1)
  ids = jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1)
  soft_target = jnp.where(ids == targets[..., None], 1.0 - label_smoothing, rest)
  scale = weights * (1.0 + 2.0 * z_loss * log_z) / total
  return token, scale[..., None] * shares - weights[..., None] * soft_target


def _check_chunk(chunk: int, length: int) -> None:
  if length % chunk:
    raise ValueError(
      f'loss chunk of {chunk} positions does not divide the target length {length}: '
      "set LOSS_CHUNK_LENGTH to a divisor of TASK_FEATURE_LENGTHS['targets'], or to None"
    )


def _split(x: Array, chunk: int) -> Array:
  """[B, T, ...] to [T / chunk, B, chunk, ...]."""
  return jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)


def _joined(tree: Any) -> Any:
  """The reverse of `_split`, for each array of a tree."""

  def joined(x: Array) -> Array:
    return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])

  return jax.tree.map(joined, tree)


def weights_per_segment(weights: Array, segment_ids: Array) -> Array:
  """Sum of weights over each position's packed example, at every position of that example.

  Args:
    weights: float [B, T].
    segment_ids: int [B, T]; 0 is padding, packed examples are numbered from 1.

  Returns:
    float32 [B, T], zero at padding.
  """
  # At most T segments in a row of T positions.
  totals = jax.vmap(
    lambda w, s: jax.ops.segment_sum(w, s, num_segments=segment_ids.shape[1] + 1)[s]
  )(weights.astype(jnp.float32), segment_ids)
  return jnp.where(segment_ids > 0, totals, 0.0)


def loss_weights(factor: LossNormalizingFactor, batch: Batch) -> tuple[Array, Array]:
  """Weights of each target token and the denominator of their sum, before any reduction.

  Args:
    factor: None (plain sum), a number to divide by, or one of
      NUM_REAL_TARGET_TOKENS (sum of the loss weights), NUM_TOTAL_TARGET_TOKENS (positions, padding
      included) and AVERAGE_PER_SEQUENCE (every example weighs 1, whatever its length; under packing
      an example is a segment, not a row; Üstün et al. 2024, section 3.1).
    batch: needs decoder_target_tokens [B, T]; decoder_loss_weights (else all non-padding tokens
      weigh 1) and, if packed, decoder_segment_ids.

  Returns:
    float32 weights [B, T], and the float32 scalar that belongs to this batch. Both may be summed
    over microbatches and hosts; for a number and None the scalar is a constant that must not be.
  """
  targets = batch['decoder_target_tokens']
  weights = batch.get('decoder_loss_weights')
  if weights is None:
    weights = (targets > 0).astype(jnp.float32)
  weights = weights.astype(jnp.float32)
  factor = check_loss_normalizing_factor(factor)
  if factor is None:
    return weights, jnp.float32(1.0)
  if factor == 'NUM_REAL_TARGET_TOKENS':
    return weights, weights.sum()
  if factor == 'NUM_TOTAL_TARGET_TOKENS':
    return weights, jnp.float32(targets.size)
  if factor == 'AVERAGE_PER_SEQUENCE':
    segment_ids = batch.get('decoder_segment_ids')
    if segment_ids is None:
      totals = jnp.broadcast_to(weights.sum(axis=-1, keepdims=True), weights.shape)
    else:
      totals = weights_per_segment(weights, segment_ids)
    weights = jnp.where(totals > 0, weights / jnp.where(totals > 0, totals, 1.0), 0.0)
    return weights, weights.sum()
  return weights, jnp.float32(factor)

"""One update of the parameters, and one evaluation of a batch: pure functions, no I/O, no clock."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from aya_train import losses, train_state

Array = jax.Array
Batch = Mapping[str, Array]
Sums = dict[str, Array]


class Model(Protocol):
  """What a step needs of a model (aya_train/models/seq2seq.py)."""

  @property
  def loss_normalizing_factor(self) -> losses.LossNormalizingFactor: ...

  def token_losses(
    self, params: Any, batch: Batch, *, dropout_key: Array | None
  ) -> losses.TokenLosses: ...


def batch_sums(
  model: Model, params: Any, batch: Batch, denominator: Array, dropout_key: Array | None
) -> tuple[Array, Sums]:
  """The loss of (part of) a batch, and sums that add up over parts.

  Args:
    batch: with `decoder_loss_weights` as `losses.loss_weights` returns them.
    denominator: of the whole batch.

  Returns:
    The normalised loss, float32 [], and sums, each float32 []: the loss and its z-loss part,
    unnormalised cross-entropy over weighted tokens, numbers of correct and of weighted target
    tokens, of non-padding and of all tokens on either side, and of examples (packed ones counted).
  """
  token = model.token_losses(params, batch, dropout_key=dropout_key)
  weights = batch['decoder_loss_weights']
  counted = (weights > 0).astype(jnp.float32)
  loss = jnp.sum(token.cross_entropy * weights) / denominator
  sides = (batch['encoder_input_tokens'], batch['decoder_target_tokens'])
  segments = batch.get('decoder_segment_ids', jnp.max(sides[1], axis=1, keepdims=True) > 0)
  sums = {
    'loss': loss,
    'z_loss': jnp.sum(token.z_loss * weights) / denominator,
    'cross_entropy': jnp.sum((token.cross_entropy - token.z_loss) * counted),
    'correct': jnp.sum(token.correct * counted),
    'target_tokens': jnp.sum(counted),
    'real_tokens': sum(jnp.sum(x > 0, dtype=jnp.float32) for x in sides),
    'all_tokens': jnp.float32(sum(x.size for x in sides)),
    'examples': jnp.sum(jnp.max(segments.astype(jnp.float32), axis=1)),
  }
  return loss, sums


def gradients(
  model: Model,
  params: Any,
  batch: Batch,
  dropout_key: Array,
  num_microbatches: int,
  gather: Callable[[Any], Any] = lambda params: params,
) -> tuple[Any, Sums]:
  """Gradient of the batch's loss, computed on `num_microbatches` parts in turn.

  The denominator is that of the whole batch, so the result does not depend on the number of parts
  (T5X normalises each part by itself). `gather` is `train_step`'s.
  """
  weights, denominator = losses.loss_weights(model.loss_normalizing_factor, batch)
  batch = {**batch, 'decoder_loss_weights': weights}
  # A batch of nothing but padding has no loss; it must not become NaN.
  denominator = jnp.maximum(denominator, jnp.finfo(jnp.float32).tiny)

  def loss_fn(params: Any, part: Batch, key: Array) -> tuple[Array, Sums]:
    return batch_sums(model, gather(params), part, denominator, key)

  grad_fn = jax.grad(loss_fn, has_aux=True)
  if num_microbatches == 1:
    return grad_fn(params, batch, dropout_key)

  def split(x: Array) -> Array:
    # Strided, so that each device keeps its own rows in every part.
    return jnp.moveaxis(x.reshape(-1, num_microbatches, *x.shape[1:]), 1, 0)

  def add(total: Any, part: tuple[Batch, Array]) -> tuple[Any, None]:
    return jax.tree.map(jnp.add, total, grad_fn(params, *part)), None

  parts = jax.tree.map(split, batch)
  keys = jax.random.split(dropout_key, num_microbatches)
  first = jax.tree.map(lambda x: x[0], parts)
  zeros = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(grad_fn, params, first, keys[0])
  )
  total, _ = jax.lax.scan(add, zeros, (parts, keys))
  return total


def train_step(
  state: train_state.TrainState,
  batch: Batch,
  *,
  model: Model,
  tx: optax.GradientTransformation,
  learning_rate: Any,
  num_microbatches: int = 1,
  gather: Callable[[Any], Any] = lambda params: params,
) -> tuple[train_state.TrainState, Sums]:
  """One update.

  Args:
    state: state before the update.
    batch: model features, int32 [B, L] each (aya_train/data/batching.py).
    model: gives token losses.
    tx: optimizer, the learning rate included.
    learning_rate: schedule, for the metrics only.
    num_microbatches: parts the batch is computed in.
    gather: maps parameters as stored to those that layers compute with.

  Returns:
    The state after it, and `batch_sums` plus the gradient's global norm, the learning rate and 1
    for the step, so that sums over steps give means.
  """
  grads, sums = gradients(model, state.params, batch, state.dropout_key(), num_microbatches, gather)
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  sums['grad_norm'] = optax.tree.norm(grads)
  sums['learning_rate'] = learning_rate(state.step)
  sums['steps'] = jnp.float32(1.0)
  return state.advance(params, opt_state), sums


def eval_step(params: Any, batch: Batch, *, model: Model) -> Sums:
  """`batch_sums` of a batch without dropout; the sums add up over batches."""
  weights, denominator = losses.loss_weights(model.loss_normalizing_factor, batch)
  batch = {**batch, 'decoder_loss_weights': weights}
  _, sums = batch_sums(model, params, batch, jnp.float32(1.0), None)
  sums['denominator'] = denominator
  sums['steps'] = jnp.float32(1.0)
  return sums

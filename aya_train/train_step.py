"""One update of the parameters, and one evaluation of a batch: pure functions, no I/O, no clock."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from aya_train import block_reductions, finiteness, parameter_tree, partitioning, train_state
from aya_train.objectives import objective as protocol
from aya_train.objectives.objective import Batch, Objective, Sums

Array = jax.Array
NONFINITE = 'nonfinite'
"""Among a step's sums: the index in `checked_names` of what became NaN or infinite; -1: nothing."""


def gradients(
  objective: Objective,
  params: Any,
  batch: Batch,
  dropout_key: Array,
  num_microbatches: int,
  gather: Callable[[Any], Any] = lambda params: params,
  frozen: Any = None,
) -> tuple[Any, Sums]:
  """Gradient of the batch's loss, computed on `num_microbatches` parts in turn.

  The denominator is that of the whole batch, so the result does not depend on the number of parts
  (T5X normalises each part by itself). `gather` is `train_step`'s; `frozen` are parameters without
  a gradient.
  """

  def whole(params: Any) -> Any:
    return gather(parameter_tree.merged(params, frozen))

  batch, denominator = objective.weigh(batch)
  # A batch of nothing but padding has no loss; it must not become NaN.
  denominator = jnp.maximum(denominator, jnp.finfo(jnp.float32).tiny)

  def loss_fn(params: Any, part: Batch, key: Array) -> tuple[Array, Sums]:
    loss, sums = objective.sums(whole(params), part, denominator, key)
    return loss, {'loss': loss, **sums}

  grad_fn = jax.grad(loss_fn, has_aux=True)
  if num_microbatches == 1:
    keys = dropout_key[None]
    parts = objective.look_ahead(whole(params), jax.tree.map(lambda x: x[None], batch), keys)
    return grad_fn(params, jax.tree.map(lambda x: x[0], parts), dropout_key)

  def split(x: Array) -> Array:
    # Strided, so that each device keeps its own rows in every part.
    return jnp.moveaxis(x.reshape(-1, num_microbatches, *x.shape[1:]), 1, 0)

  def add(total: Any, part: tuple[Batch, Array]) -> tuple[Any, None]:
    return jax.tree.map(jnp.add, total, grad_fn(params, *part)), None

  keys = jax.random.split(dropout_key, num_microbatches)
  parts = objective.look_ahead(whole(params), jax.tree.map(split, batch), keys)
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
  objective: Objective,
  tx: optax.GradientTransformation,
  learning_rate: Any,
  num_microbatches: int = 1,
  gather: Callable[[Any], Any] = lambda params: params,
  skip_nonfinite: bool = False,
) -> tuple[train_state.TrainState, Sums]:
  """One update.

  Args:
    state: state before the update.
    batch: arrays [B, ...] of the objective's feature converter.
    objective: gives the loss.
    tx: optimizer, the learning rate included.
    learning_rate: schedule, for the metrics only.
    num_microbatches: parts the batch is computed in.
    gather: maps parameters as stored to those that layers compute with.
    skip_nonfinite: take over nothing but the counts of an update that is not finite, as
      optax.apply_if_finite does; the step and the schedules go on.

  Returns:
    The state after it, and the objective's sums plus the loss, the gradient's global norm, the
    learning rate and 1 for the step, so that sums over steps give means. Beside them NONFINITE,
    int32 [], which no figure is made of.
  """
  grads, sums = gradients(
    *(objective, state.params, batch, state.dropout_key(), num_microbatches, gather),
    frozen=state.frozen,
  )
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  sums['grad_norm'] = _norm(grads)
  sums['learning_rate'] = learning_rate(state.step)
  sums['steps'] = jnp.float32(1.0)
  new = state.advance(params, opt_state)
  bad = finiteness.first_nonfinite([sums['loss'], sums['grad_norm'], new.saved])
  sums[NONFINITE] = bad
  if skip_nonfinite:
    kept = _unless(bad >= 0, new.saved, state.saved)
    new = dataclasses.replace(kept, frozen=state.frozen)
  return new, sums


def _norm(tree: Any) -> Array:
  squares = (block_reductions.reduce(jnp.sum, jnp.square, [x]) for x in jax.tree.leaves(tree))
  return jnp.sqrt(sum(total for (total,) in squares))


def checked_names(state: train_state.TrainState) -> list[str]:
  """What a step looks at, in order: the loss, the gradient's norm, then the state it makes."""
  return ['loss', 'grad_norm', *finiteness.names(state.saved)]


def _unless(
  bad: Array, new: train_state.TrainState, old: train_state.TrainState
) -> train_state.TrainState:
  """`new`, or if it is bad `old` with the counts of `new`."""
  return jax.tree.map(
    lambda x, y: jnp.where(bad, y, x) if jnp.issubdtype(x.dtype, jnp.inexact) else x, new, old
  )


def eval_step(params: Any, batch: Batch, *, objective: Objective) -> Sums:
  """Sums of a batch without dropout, not normalised; they add up over batches.

  Returns:
    The objective's sums with a denominator of 1, the loss and the denominator, and 1 for the batch.
  """
  batch, denominator = objective.weigh(batch)
  parts = objective.look_ahead(params, jax.tree.map(lambda x: x[None], batch), None)
  part = jax.tree.map(lambda x: x[0], parts)
  loss, sums = objective.sums(params, part, jnp.float32(1.0), None)
  sums = {'loss': loss, **sums}
  sums['denominator'] = denominator
  sums['steps'] = jnp.float32(1.0)
  return sums


def make_train_step(
  objective: Objective,
  tx: optax.GradientTransformation,
  learning_rate_fn: Callable[[jax.Array], jax.Array],
  partitioner: partitioning.Partitioner,
  abstract: train_state.TrainState,
  num_microbatches: int,
  *,
  skip_nonfinite: bool = False,
) -> Callable[..., Any]:
  """The compiled update; its state argument is donated."""
  gather = functools.partial(
    partitioner.gather,
    axes_tree=protocol.parameter_axes(objective)[1],
    dtype=objective.activation_dtype,
  )

  def step(state: train_state.TrainState, batch: Any) -> Any:
    return train_step(
      state,
      batch,
      objective=objective,
      tx=tx,
      learning_rate=learning_rate_fn,
      num_microbatches=num_microbatches,
      gather=gather,
      skip_nonfinite=skip_nonfinite,
    )

  shardings = jax.tree.map(lambda x: x.sharding, abstract)
  return partitioner.jit(
    step,
    out_shardings=(shardings, partitioner.replicated),
    donate_argnums=0,
    compiler_options=partitioner.step_options,
  )

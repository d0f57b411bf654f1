"""The state that a run begins with: random, or with what a checkpoint has of the model."""

import dataclasses
import functools
import logging
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from aya_train import partitioning, train_state
from aya_train.checkpoint import formats, reading
from aya_train.objectives import objective

logger = logging.getLogger(__name__)


def create(
  model: objective.Objective,
  tx: optax.GradientTransformation,
  partitioner: partitioning.Partitioner,
  abstract: train_state.TrainState,
  seed: int,
  source: formats.Detected | None,
) -> train_state.TrainState:
  """A state with the weights of a checkpoint, or random ones, each device filling its own shards.

  As in T5X, the optimizer's moments of a checkpoint are taken with its weights, where it has them.
  """
  shardings = jax.tree.map(lambda x: x.sharding, abstract)
  if source is None:

    def drawn(seed: jax.Array) -> train_state.TrainState:
      params = nn.unbox(model.initial_variables(jax.random.key(seed)))
      return train_state.create(params, tx, seed=seed)

    return partitioner.jit(drawn, out_shardings=shardings)(jnp.uint32(seed))
  if model.config is not None and not model.is_whole:
    return _state_of_parts(model, tx, partitioner, abstract, seed, source)
  if model.adapter is not None:
    return _adapted_state(model, tx, partitioner, abstract, seed, source)
  params, step = reading.read(source, abstract.params, model.config)
  create_from = functools.partial(train_state.create, tx=tx, step=step)
  create_state = partitioner.jit(
    lambda params, seed: create_from(params, seed=seed), out_shardings=shardings
  )
  state = create_state(params, jnp.uint32(seed))
  opt_state = reading.read_optimizer_state(source, abstract, model.config)
  if opt_state is None:
    logger.info('%s: weights of step %d; the optimizer starts afresh', source.path, step)
    return state
  logger.info('%s: weights and optimizer state of step %d', source.path, step)
  return dataclasses.replace(state, opt_state=opt_state)


def _state_of_parts(
  model: objective.Objective,
  tx: optax.GradientTransformation,
  partitioner: partitioning.Partitioner,
  abstract: train_state.TrainState,
  seed: int,
  source: formats.Detected,
) -> train_state.TrainState:
  """A state at step 0: what a checkpoint has of the model, and the model's own parts at random."""
  found = traverse_util.flatten_dict(reading.read_parts(source, abstract.params, model), sep='/')

  def joined(found: dict[str, jax.Array], seed: jax.Array) -> train_state.TrainState:
    fresh = nn.unbox(model.initial_variables(jax.random.key(seed)))
    params = {**traverse_util.flatten_dict(fresh, sep='/'), **found}
    return train_state.create(traverse_util.unflatten_dict(params, sep='/'), tx, seed=seed)

  create_state = partitioner.jit(joined, out_shardings=jax.tree.map(lambda x: x.sharding, abstract))
  state = create_state(found, jnp.uint32(seed))
  fresh = {*traverse_util.flatten_dict(abstract.params, sep='/')} - {*found}
  logger.info(
    '%s: weights of %d arrays; %s; training begins at step 0 with a fresh optimizer',
    source.path,
    len(found),
    f'{sorted(fresh)} at random' if fresh else 'all that the model has',
  )
  return state


def _adapted_state(
  model: objective.Objective,
  tx: optax.GradientTransformation,
  partitioner: partitioning.Partitioner,
  abstract: train_state.TrainState,
  seed: int,
  source: formats.Detected,
) -> train_state.TrainState:
  """A state with the adapter of a checkpoint, or one that changes nothing yet, and its base."""
  frozen = reading.read_frozen(source, abstract.frozen, model.config)
  adapter = reading.read_adapter(source, abstract.params, model, jax.random.key(seed))
  step = formats.open_checkpoint(source).step
  state = partitioner.jit(
    lambda params, seed: train_state.create(params, tx, seed=seed, step=step),
    out_shardings=jax.tree.map(lambda x: x.sharding, abstract.saved),
  )(adapter, jnp.uint32(seed))
  trained, others = (_count(tree) for tree in (adapter, abstract.frozen))
  logger.info(
    '%s: %s of step %d; %s parameters are trained, %s are not (%s)',
    source.path,
    'an adapter' if source.is_adapter else 'the weights under a new adapter',
    *(step, f'{trained:,}', f'{others:,}', model.adapter.base_weights),
  )
  return dataclasses.replace(state, frozen=frozen)


def _count(tree: Any) -> int:
  """Numbers in a tree, scales of quantised ones included."""
  return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))

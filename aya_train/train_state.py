"""What a training step reads and writes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from aya_train import optimizer, partitioning
from aya_train.objectives import objective


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """Everything that decides the rest of a run, beside the position in the data.

  Attributes:
    step: int32 [], updates done, pre-training included.
    params: float32 parameters, named as in aya_train/models/network.py.
    opt_state: optax state.
    rng: uint32 key data; the key of a step is folded from it and the step, never consumed.
  """

  step: Any
  params: Any
  opt_state: Any
  rng: Any

  def dropout_key(self) -> jax.Array:
    """The random key of this step; the same after a restart."""
    return jax.random.fold_in(jax.random.wrap_key_data(self.rng), self.step)

  def advance(self, params: Any, opt_state: Any) -> 'TrainState':
    """The state after one update."""
    return dataclasses.replace(self, step=self.step + 1, params=params, opt_state=opt_state)


def create(
  params: Any, tx: optax.GradientTransformation, *, seed: int | jax.Array, step: int = 0
) -> TrainState:
  """A state with a fresh optimizer that counts on from `step`."""
  opt_state = tx.init(params)
  if step:
    opt_state = optax.tree.set(opt_state, count=jnp.int32(step))
  rng = jax.random.key_data(jax.random.key(seed))
  return TrainState(jnp.int32(step), params, opt_state, rng)


def logical_axes(state: TrainState, param_axes: Any) -> TrainState:
  """A tree like `state` (arrays or abstract arrays) of tuples of logical axis names."""
  return TrainState(
    step=(),
    params=param_axes,
    opt_state=optimizer.state_axes(state.opt_state, state.params, param_axes),
    rng=(None,) * state.rng.ndim,
  )


def abstract_state(
  model: objective.Objective,
  tx: optax.GradientTransformation,
  partitioner: partitioning.Partitioner,
) -> TrainState:
  """Shapes, dtypes and shardings of the whole training state; allocates nothing."""
  params, axes = objective.parameter_axes(model)
  shapes = jax.eval_shape(lambda p: create(p, tx, seed=0), params)
  shardings = partitioner.shardings(logical_axes(shapes, axes), shapes)
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
  )

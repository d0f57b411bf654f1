"""What a training step reads and writes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from aya_train import optimizer, parameter_tree, partitioning
from aya_train.objectives import objective


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """Everything that decides the rest of a run, beside the position in the data.

  Attributes:
    step: int32 [], updates done, pre-training included.
    params: float32 parameters that are trained, named as in aya_train/models/network.py.
    opt_state: optax state.
    rng: uint32 key data; the key of a step is folded from it and the step, never consumed.
    frozen: parameters that are not trained: those under an adapter, of any dtype; {} where all are.
      No checkpoint holds them.
  """

  step: Any
  params: Any
  opt_state: Any
  rng: Any
  frozen: Any = dataclasses.field(default_factory=dict)

  @property
  def all_params(self) -> Any:
    """What the objective computes with: trained and other parameters in one tree."""
    return parameter_tree.merged(self.params, self.frozen)

  @property
  def saved(self) -> 'TrainState':
    """The state without what no checkpoint holds, and no step changes."""
    return dataclasses.replace(self, frozen={})

  def dropout_key(self) -> jax.Array:
    """The random key of this step; the same after a restart."""
    return jax.random.fold_in(jax.random.wrap_key_data(self.rng), self.step)

  def host_key(self) -> jax.Array:
    """`dropout_key` outside of a compiled function, on several hosts too; waits for the state."""
    rng, step = jax.device_get((self.rng, self.step))
    return jax.random.fold_in(jax.random.wrap_key_data(rng), int(step))

  def advance(self, params: Any, opt_state: Any) -> 'TrainState':
    """The state after one update."""
    return dataclasses.replace(self, step=self.step + 1, params=params, opt_state=opt_state)


def create(
  params: Any,
  tx: optax.GradientTransformation,
  *,
  seed: int | jax.Array,
  step: int = 0,
  frozen: Any = None,
) -> TrainState:
  """A state with a fresh optimizer of `params` that counts on from `step`."""
  opt_state = tx.init(params)
  if step:
    opt_state = optax.tree.set(opt_state, count=jnp.int32(step))
  rng = jax.random.key_data(jax.random.key(seed))
  return TrainState(jnp.int32(step), params, opt_state, rng, frozen or {})


def logical_axes(state: TrainState, param_axes: Any, frozen_axes: Any = None) -> TrainState:
  """A tree like `state` (arrays or abstract arrays) of tuples of logical axis names.

  Args:
    state: arrays, or their shapes.
    param_axes, frozen_axes: those of `params` and of `frozen`.
  """
  return TrainState(
    step=(),
    params=param_axes,
    opt_state=optimizer.state_axes(state.opt_state, state.params, param_axes),
    rng=(None,) * state.rng.ndim,
    frozen=frozen_axes or {},
  )


def abstract_state(
  model: objective.Objective,
  tx: optax.GradientTransformation,
  partitioner: partitioning.Partitioner,
) -> TrainState:
  """Shapes, dtypes and shardings of the whole training state; allocates nothing."""
  params, axes = objective.parameter_axes(model)
  parts = [
    (objective.trained(model, tree), objective.frozen(model, tree)) for tree in (params, axes)
  ]
  shapes = jax.eval_shape(lambda p, frozen: create(p, tx, seed=0, frozen=frozen), *parts[0])
  shardings = partitioner.shardings(logical_axes(shapes, *parts[1]), shapes)
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
  )

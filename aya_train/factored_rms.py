"""What Adafactor does to each matrix, as optax does it, in as few passes as there can be.

optax.scale_by_factored_rms, clip_by_block_rms and scale_by_param_block_rms in a chain are the
reference, and give the state. They hold the squares of the gradient, of the update and of the
parameter, which on CPUs costs gigabytes and half of the optimizer's time (block_reductions).

Several CPU devices take optax's chain itself. XLA's CPU executor may begin sums over devices that
come after a loop while sums inside the loop still run, in another order on each device, and then
they wait for each other for good. Which programs do so depends on their schedule: with the sums of
this module every run of 2 x 4 devices stood still within a few steps, with optax's none did.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aya_train import block_reductions

Array = jax.Array


class _Updated(NamedTuple):
  update: Array
  v_row: Array
  v_col: Array
  v: Array


def scale_by_adafactor(
  *,
  decay_rate: float,
  step_offset: int,
  clipping_threshold: float | None,
  multiply_by_parameter_scale: bool,
  min_dim_size_to_factor: int,
  epsilon1: float,
  epsilon2: float,
) -> optax.GradientTransformation:
  """Updates before the learning rate (Shazeer & Stern 2018, algorithm 4); see optimizer.adafactor.

  The state is that of optax's chain: a FactoredState, and an empty one for each further part.
  """
  parts = [
    optax.scale_by_factored_rms(
      decay_rate=decay_rate,
      step_offset=step_offset,
      min_dim_size_to_factor=min_dim_size_to_factor,
      epsilon=epsilon1,
    )
  ]
  if clipping_threshold is not None:
    parts.append(optax.clip_by_block_rms(clipping_threshold))
  if multiply_by_parameter_scale:
    parts.append(optax.scale_by_param_block_rms(epsilon2))
  chain = optax.chain(*parts)

  def one(
    decay: Array, grad: Array, v_row: Array, v_col: Array, v: Array, param: Array
  ) -> _Updated:
    axes = _factored_axes(param.shape, min_dim_size_to_factor)
    if axes is None:
      v = (decay * v + (1.0 - decay) * (jnp.square(grad) + epsilon1)).astype(param.dtype)
      factors: tuple[Array, ...] = (v**-0.5,)
    else:
      smaller, larger = axes
      sums = block_reductions.reduce(
        jnp.sum, lambda g: jnp.square(g) + epsilon1, [grad], [larger, smaller]
      )
      mean_row, mean_col = sums[0] / param.shape[larger], sums[1] / param.shape[smaller]
      v_row = (decay * v_row + (1.0 - decay) * mean_row).astype(param.dtype)
      v_col = (decay * v_col + (1.0 - decay) * mean_col).astype(param.dtype)
      kept = smaller - 1 if smaller > larger else smaller
      row_factor = (v_row / jnp.mean(v_row, axis=kept, keepdims=True)) ** -0.5
      factors = (jnp.expand_dims(row_factor, larger), jnp.expand_dims(v_col**-0.5, smaller))
    update = math.prod(factors, start=grad)
    if clipping_threshold is not None:
      rms = _rms(lambda g, *rest: math.prod(rest, start=g), grad, *factors)
      update = update / jnp.maximum(1.0, rms / clipping_threshold)
    if multiply_by_parameter_scale:
      update = update * jnp.maximum(_rms(lambda p: p, param), epsilon2)
    return _Updated(update, v_row, v_col, v)

  def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    if block_reductions.several_cpus():
      return chain.update(grads, state, params)
    moments, *empty = state
    t = (moments.count - step_offset + 1).astype(jnp.float32)
    decay = 1.0 - t**-decay_rate
    apply = functools.partial(one, decay)
    found = jax.tree.map(apply, grads, moments.v_row, moments.v_col, moments.v, params)

    def field(name: str) -> Any:
      return jax.tree.map(
        lambda x: getattr(x, name), found, is_leaf=lambda x: isinstance(x, _Updated)
      )

    count = optax.safe_increment(moments.count)
    new = optax.FactoredState(count, field('v_row'), field('v_col'), field('v'))
    return field('update'), (new, *empty)

  return optax.GradientTransformation(chain.init, update)


def _factored_axes(shape: tuple[int, ...], least: int) -> tuple[int, int] | None:
  """The second longest axis and the longest, if both are long enough for means over them."""
  if len(shape) < 2:
    return None
  smaller, larger = (int(axis) for axis in np.argsort(shape)[-2:])
  return (smaller, larger) if shape[smaller] >= least else None


def _rms(values: Any, first: Array, *rest: Array) -> Array:
  (total,) = block_reductions.reduce(
    jnp.sum, lambda *arrays: jnp.square(values(*arrays)), [first, *rest]
  )
  return jnp.sqrt(total / first.size)

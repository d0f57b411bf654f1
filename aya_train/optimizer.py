"""Adafactor with T5X's semantics, and T5X's learning rate schedules, both as optax values.

Beside what optax has, stacked layers are treated as T5X treats them. Each layer's matrix needs
its own factors, RMS and clipping (Shazeer & Stern 2018; t5x/adafactor.py with its BATCH dimension),
so the transformation is mapped over the `layers` axis.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aya_train import factored_rms, parameter_tree

Schedule = Callable[[jax.Array], jax.Array]
LAYERS = 'layers'
SCHEDULE_FACTORS = (
  'constant',
  'linear_warmup',
  'linear_decay',
  'rsqrt_decay',
  'rsqrt_normalized_decay',
  'decay_every',
  'cosine_decay',
)

_OF_WARMUP = frozenset(['linear_warmup', 'linear_decay', 'rsqrt_decay', 'rsqrt_normalized_decay'])


def create_learning_rate_scheduler(
  factors: str = 'constant * linear_warmup * rsqrt_decay',
  base_learning_rate: float = 0.5,
  warmup_steps: int = 1000,
  decay_factor: float = 0.5,
  steps_per_decay: int = 20000,
  steps_per_cycle: int = 100000,
  step_offset: int = 0,
  min_learning_rate: float = 1e-8,
) -> Schedule:
  """A schedule as a product of named factors; names, meaning and defaults are T5X's.

  Source: t5x/utils.py, create_learning_rate_scheduler.

  Args:
    factors: names of SCHEDULE_FACTORS joined by '*'. `linear_decay` already contains the warm-up
      and the base rate, so that it stands alone.
    base_learning_rate: value of 'constant'.
    warmup_steps: steps until 'linear_warmup' reaches 1, and floor of the rsqrt decays.
    decay_factor: slope of 'linear_decay', base of 'decay_every'.
    steps_per_decay: period of 'decay_every'.
    steps_per_cycle: period of 'cosine_decay'.
    step_offset: step at which the schedule begins, e.g. the steps of pre-training.
    min_learning_rate: floor of the result.

  Returns:
    A function from an int32 step to a float32 learning rate.

  Raises:
    ValueError: an unknown factor, a rate below 0, no step to warm up in.
  """
  if base_learning_rate < 0:
    raise ValueError(
      f'BASE_LEARNING_RATE must be at least 0, got {base_learning_rate}: below 0 the loss '
      'would climb'
    )
  names = [name.strip() for name in factors.split('*')]
  if unknown := [name for name in names if name not in SCHEDULE_FACTORS]:
    raise ValueError(
      f'learning rate factors {unknown} in {factors!r} are unknown; known: {SCHEDULE_FACTORS}'
    )
  if warmup_steps < 1 and _OF_WARMUP.intersection(names):
    raise ValueError(
      f'WARMUP_STEPS must be at least 1 for LEARNING_RATE_FACTORS {factors!r}, got {warmup_steps}: '
      "the rate is divided by it; without a warm-up take other factors, such as 'constant'"
    )

  def value(name: str, step: jax.Array) -> jax.Array | float:
    if name == 'constant':
      return base_learning_rate
    if name == 'linear_warmup':
      return jnp.minimum(1.0, step / warmup_steps)
    if name == 'linear_decay':
      down = 1.0 + decay_factor * (warmup_steps - step)
      return base_learning_rate * jnp.minimum(step / warmup_steps, down)
    if name == 'rsqrt_decay':
      return jax.lax.rsqrt(jnp.maximum(step, float(warmup_steps)))
    if name == 'rsqrt_normalized_decay':
      return jnp.sqrt(warmup_steps / jnp.maximum(step, float(warmup_steps)))
    if name == 'decay_every':
      return decay_factor ** (step // steps_per_decay)
    progress = jnp.maximum(0.0, (step - warmup_steps) / steps_per_cycle)
    return jnp.maximum(0.0, 0.5 * (1.0 + jnp.cos(jnp.pi * (progress % 1.0))))

  def schedule(step: jax.Array) -> jax.Array:
    step = jnp.maximum(0, step - step_offset).astype(jnp.float32)
    rate = jnp.float32(1.0)
    for name in names:
      rate = rate * value(name, step)
    return jnp.maximum(rate, min_learning_rate)

  return schedule


def over_layers(tx: optax.GradientTransformation, axis: int) -> optax.GradientTransformation:
  """Applies `tx` to each layer of stacked parameters as if it stood alone.

  Args:
    tx: a transformation whose scalar state (step counts) is the same for every layer.
    axis: position of the layers in each parameter. In the state they come first.
  """

  def state_axes(params: Any) -> Any:
    one_layer = jax.eval_shape(lambda p: jax.tree.map(lambda x: x.take(0, axis), p), params)
    return jax.tree.map(lambda x: 0 if x.ndim else None, jax.eval_shape(tx.init, one_layer))

  def init(params: Any) -> Any:
    return jax.vmap(tx.init, in_axes=axis, out_axes=state_axes(params))(params)

  def update(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
    axes = state_axes(params)
    mapped = jax.vmap(tx.update, in_axes=(axis, axes, axis), out_axes=(axis, axes))
    return mapped(updates, state, params)

  def init_or_nothing(params: Any) -> Any:
    return init(params) if jax.tree.leaves(params) else tx.init(params)

  def update_or_nothing(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    if not jax.tree.leaves(updates):
      return tx.update(updates, state, params)
    return update(updates, state, params)

  return optax.GradientTransformation(init_or_nothing, update_or_nothing)


def adafactor(
  learning_rate: Schedule | float,
  param_axes: Any,
  *,
  decay_rate: float = 0.8,
  step_offset: int = 0,
  clipping_threshold: float | None = 1.0,
  multiply_by_parameter_scale: bool = True,
  min_dim_size_to_factor: int = 128,
  epsilon1: float = 1e-30,
  epsilon2: float = 1e-3,
  beta1: float | None = None,
  weight_decay_rate: float | None = None,
  global_norm_clip_threshold: float | None = None,
) -> optax.GradientTransformation:
  """Adafactor (Shazeer & Stern 2018) as t5x/adafactor.py runs it; arguments carry its names.

  With `multiply_by_parameter_scale` the learning rate is relative: each matrix moves by that
  fraction of its own RMS (at least epsilon2). Optimizers without it need another number.

  Args:
    learning_rate: constant, or function of the step.
    param_axes: tree like the parameters with a tuple of logical axis names at each leaf; a leaf
      that has the axis 'layers' is a stack of matrices, each treated as one that stands alone.
    decay_rate: exponent c of the second moment's decay 1 - t**-c.
    step_offset: step at which the decay restarts.
    clipping_threshold: limit of the RMS of each matrix's update before the learning rate.
    multiply_by_parameter_scale: see above.
    min_dim_size_to_factor: a matrix keeps row and column means only if both sides are this long.
    epsilon1: added to squared gradients. epsilon2: least parameter scale.
    beta1: momentum over the final updates, or None.
    weight_decay_rate: fraction of each parameter taken off each step (not scaled by the rate).
    global_norm_clip_threshold: limit of the gradient's global norm, or None.
  """
  tx = factored_rms.scale_by_adafactor(
    decay_rate=decay_rate,
    step_offset=step_offset,
    clipping_threshold=clipping_threshold,
    multiply_by_parameter_scale=multiply_by_parameter_scale,
    min_dim_size_to_factor=min_dim_size_to_factor,
    epsilon1=epsilon1,
    epsilon2=epsilon2,
  )

  transforms: dict[str, optax.GradientTransformation] = {}

  def label(path: tuple[Any, ...], axes: tuple[str | None, ...]) -> str:
    if LAYERS not in axes:
      transforms['single'] = tx
      return 'single'
    # Stacks may differ in depth, which one map over layers cannot.
    axis = axes.index(LAYERS)
    name = f'{"_".join(parameter_tree.dict_names(path[:1]))}_layers_on_axis_{axis}'
    transforms[name] = over_layers(tx, axis)
    return name

  labels = jax.tree_util.tree_map_with_path(label, param_axes, is_leaf=parameter_tree.is_axes)
  steps = [optax.partition(transforms, labels), optax.scale_by_learning_rate(learning_rate)]
  if global_norm_clip_threshold is not None:
    steps.insert(0, optax.clip_by_global_norm(global_norm_clip_threshold))
  if beta1 is not None:
    steps.append(optax.ema(beta1, debias=False))
  if weight_decay_rate is not None:
    steps.append(optax.add_decayed_weights(-weight_decay_rate))
  return optax.chain(*steps)


def adamw(
  learning_rate: Schedule | float,
  param_axes: Any,
  *,
  beta1: float = 0.9,
  beta2: float = 0.999,
  epsilon: float = 1e-8,
  weight_decay_rate: float = 0.0,
  global_norm_clip_threshold: float | None = None,
) -> optax.GradientTransformation:
  """AdamW (Loshchilov & Hutter 2019), which adapters are usually trained with.

  The learning rate is absolute, unlike that of `adafactor`: matrices that begin as zeros have no
  size that it could be relative to.

  Args:
    learning_rate: constant, or function of the step.
    param_axes: not needed; every optimizer is given it.
    beta1, beta2, epsilon: decay of both moments, and what is added to the root of the second.
    weight_decay_rate: fraction of each parameter taken off each step, times the learning rate.
    global_norm_clip_threshold: limit of the gradient's global norm, or None.
  """
  del param_axes
  steps = [optax.adamw(learning_rate, beta1, beta2, epsilon, weight_decay=weight_decay_rate)]
  if global_norm_clip_threshold is not None:
    steps.insert(0, optax.clip_by_global_norm(global_norm_clip_threshold))
  return optax.chain(*steps)


def state_axes(
  opt_state: Any, params: Any, param_axes: Any, min_dim_size_to_factor: int = 128
) -> Any:
  """Logical axes of every array of an optimizer state, derived from those of the parameters.

  Row and column means keep the axes that they were not averaged over, so that they are sharded with
  their parameter.

  Args:
    opt_state, params: arrays or abstract arrays.
    param_axes: tuples of logical axis names, tree like `params`.
    min_dim_size_to_factor: as given to `adafactor`.

  Returns:
    A tree like `opt_state` of tuples of axis names (None: not sharded).
  """
  flat = {
    parameter_tree.dict_names(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }
  flat_axes = {
    parameter_tree.dict_names(path): axes
    for path, axes in jax.tree_util.tree_leaves_with_path(
      param_axes, is_leaf=parameter_tree.is_axes
    )
  }

  def leaf_axes(path: tuple[Any, ...], leaf: Any) -> tuple[str | None, ...]:
    names = parameter_tree.dict_names(path)
    param = next((names[i:] for i in range(len(names)) if names[i:] in flat), None)
    if param is None or leaf.ndim == 0:
      return (None,) * leaf.ndim
    shape, axes = flat[param].shape, flat_axes[param]
    field = [k.name for k in path if isinstance(k, jax.tree_util.GetAttrKey)][-1]
    if field in ('v_row', 'v_col', 'v') and LAYERS in axes:
      stacked = axes.index(LAYERS)
      shape, axes = _without(shape, stacked), _without(axes, stacked)
      return (LAYERS, *_moment_axes(field, leaf.shape[1:], shape, axes, min_dim_size_to_factor))
    return _moment_axes(field, leaf.shape, shape, axes, min_dim_size_to_factor)

  return jax.tree_util.tree_map_with_path(leaf_axes, opt_state)


def _moment_axes(
  field: str, leaf_shape: Any, shape: Any, axes: tuple[str | None, ...], min_dim: int
) -> tuple[str | None, ...]:
  """Axes of one second moment (or of any array shaped like its parameter)."""
  if field in ('v_row', 'v_col') and len(shape) >= 2:
    smaller, larger = np.argsort(shape)[-2:]
    if shape[smaller] >= min_dim:
      return _without(axes, larger if field == 'v_row' else smaller)
  return axes if tuple(leaf_shape) == tuple(shape) else (None,) * len(leaf_shape)


def _without(items: Any, index: int) -> tuple[Any, ...]:
  return tuple(items[:index]) + tuple(items[index + 1 :])

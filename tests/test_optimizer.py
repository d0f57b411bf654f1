import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from aya_train import optimizer

RNG = np.random.default_rng(0)
SHAPES = {
  'wide': ((128, 256), ('embed', 'mlp')),
  'tall': ((256, 128), ('mlp', 'embed')),
  'square': ((128, 128), ('embed', 'joined_kv')),
  'small': ((8, 32), ('heads', 'relpos_buckets')),
  'scale': ((128,), ('embed',)),
}
AXES = {name: axes for name, (_, axes) in SHAPES.items()}


def arrays(scale=1.0, layers=None, rng=RNG):
  def one(shape):
    shape = shape if layers is None else (shape[0], layers, *shape[1:])
    return jnp.asarray(rng.normal(size=shape) * scale, jnp.float32)

  return {name: one(shape) for name, (shape, _) in SHAPES.items()}


def run(tx, params, grads):
  state = tx.init(params)
  for g in grads:
    updates, state = tx.update(g, state, params)
    params = optax.apply_updates(params, updates)
  return params, state


def test_a_stack_of_layers_is_updated_like_layers_that_stand_alone():
  stacked_axes = {name: (axes[0], 'layers', *axes[1:]) for name, axes in AXES.items()}
  # Layers of very different sizes: shared clipping or a shared scale would show.
  size = jnp.asarray([1.0, 100.0, 1e-3])
  broadcast = lambda x: x * size.reshape((1, 3) + (1,) * (x.ndim - 2))
  params = jax.tree.map(broadcast, arrays(layers=3))
  grads = [jax.tree.map(broadcast, arrays(layers=3)) for _ in range(4)]
  together, _ = run(optimizer.adafactor(0.01, stacked_axes), params, grads)
  for layer in range(3):
    take = lambda tree, layer=layer: jax.tree.map(lambda x: x[:, layer], tree)
    alone, _ = run(optimizer.adafactor(0.01, AXES), take(params), [take(g) for g in grads])
    for name, value in take(together).items():
      atol = 1e-6 * float(jnp.abs(alone[name]).max())
      np.testing.assert_allclose(value, alone[name], rtol=1e-5, atol=atol, err_msg=name)


def test_the_learning_rate_is_relative_to_each_matrix():
  params, grads = arrays(), [arrays()]
  updated, _ = run(optimizer.adafactor(0.01, AXES), params, grads)
  for name, before in params.items():
    rms = lambda x: float(jnp.sqrt(jnp.mean(x**2)))
    assert rms(updated[name] - before) <= 0.01 * rms(before) * 1.001, name


def test_state_axes_follow_the_parameters():
  stacked = {'wide': (SHAPES['wide'][0][0], 3, SHAPES['wide'][0][1])}
  params = {
    'wide': jnp.zeros(stacked['wide']),
    'scale': jnp.zeros(128),
    'tall': jnp.zeros((256, 128)),
  }
  axes = {'wide': ('embed', 'layers', 'mlp'), 'scale': ('embed',), 'tall': ('mlp', 'embed')}
  state = optimizer.adafactor(0.01, axes).init(params)
  found = {}
  named = optimizer.state_axes(state, params, axes)
  is_axes = lambda x: type(x) is tuple and all(isinstance(n, str | None) for n in x)
  leaves = zip(
    jax.tree_util.tree_leaves_with_path(state),
    jax.tree.leaves(named, is_leaf=is_axes),
    strict=True,
  )
  for (path, leaf), names in leaves:
    assert len(names) == leaf.ndim
    keys = jax.tree_util.keystr(path)
    found.update(
      {(k, f): names for k in params for f in ('v_row', 'v_col', 'v') if f".{f}['{k}']" in keys}
    )
  assert found['wide', 'v_row'] == ('layers', 'embed')
  assert found['wide', 'v_col'] == ('layers', 'mlp')
  assert found['tall', 'v_row'] == ('embed',)
  assert found['scale', 'v'] == ('embed',)
  assert found['wide', 'v'] == ('layers', None)


def test_every_optimizer_option_changes_the_update():
  params, grads = arrays(), [arrays(scale=10.0), arrays()]
  plain, _ = run(optimizer.adafactor(0.01, AXES), params, grads)
  for option in (
    {'decay_rate': 0.5},
    {'clipping_threshold': 0.5},
    {'multiply_by_parameter_scale': False},
    {'min_dim_size_to_factor': 300},
    {'beta1': 0.9},
    {'weight_decay_rate': 0.1},
    {'global_norm_clip_threshold': 1e-3, 'epsilon1': 1.0},
  ):
    other, _ = run(optimizer.adafactor(0.01, AXES, **option), params, grads)
    assert not np.allclose(other['wide'], plain['wide'], rtol=1e-6), option


@pytest.mark.parametrize(
  ('factors', 'step', 'want'),
  [
    ('constant', 500, 0.5),
    ('constant * linear_warmup', 25, 0.125),
    ('constant * linear_warmup', 500, 0.5),
    ('constant * rsqrt_decay', 400, 0.5 / 20),
    ('constant * rsqrt_decay', 4, 0.5 / 10),
    ('constant * rsqrt_normalized_decay', 400, 0.25),
    ('linear_decay', 50, 0.25),
    ('linear_decay', 101, 0.5 * (1 - 0.005)),
    ('constant * decay_every', 25, 0.5 * 0.005**2),
    ('constant * cosine_decay', 600, 0.25),
  ],
)
def test_schedule_factors(factors, step, want):
  schedule = optimizer.create_learning_rate_scheduler(
    factors, 0.5, warmup_steps=100, decay_factor=0.005, steps_per_decay=10, steps_per_cycle=1000
  )
  np.testing.assert_allclose(schedule(jnp.int32(step)), want, rtol=1e-5)


def test_an_unknown_factor_is_refused():
  with pytest.raises(ValueError, match=r"\['linear_warm_up'\].*known"):
    optimizer.create_learning_rate_scheduler('constant * linear_warm_up')


@pytest.mark.parametrize('steps', [0, -5])
def test_a_warmup_of_no_steps_is_refused_where_it_divides(steps):
  with pytest.raises(ValueError, match='WARMUP_STEPS must be at least 1'):
    optimizer.create_learning_rate_scheduler('constant * rsqrt_decay', warmup_steps=steps)
  optimizer.create_learning_rate_scheduler('constant', warmup_steps=steps)


def test_a_rate_below_zero_is_refused():
  with pytest.raises(ValueError, match=r'BASE_LEARNING_RATE must be at least 0, got -0\.1'):
    optimizer.create_learning_rate_scheduler('constant', -0.1)


@pytest.mark.t5x
@pytest.mark.parametrize('factors', optimizer.SCHEDULE_FACTORS)
def test_schedules_equal_those_of_t5x(factors):
  t5x_utils = pytest.importorskip('t5x.utils', reason='t5x is not installed')
  options = {'base_learning_rate': 0.3, 'warmup_steps': 10, 'decay_factor': 0.01, 'step_offset': 3}
  ours = optimizer.create_learning_rate_scheduler(factors, **options)
  theirs = t5x_utils.create_learning_rate_scheduler(factors, **options)
  for step in (0, 1, 5, 12, 13, 50, 20_000, 1_000_000):
    np.testing.assert_allclose(ours(jnp.int32(step)), theirs(jnp.int32(step)), rtol=2e-5)


@pytest.mark.t5x
def test_updates_equal_those_of_t5x():
  t5x_adafactor = pytest.importorskip('t5x.adafactor', reason='t5x is not installed')
  params = arrays()
  grads = [arrays(scale=10.0**-i) for i in range(6)]
  ours, _ = run(optimizer.adafactor(0.03, AXES), params, grads)
  rules = t5x_adafactor.standard_logical_factor_rules()
  definition = t5x_adafactor.Adafactor(0.03, decay_rate=0.8, logical_factor_rules=rules)
  definition.set_param_axes({name: PartitionSpec(*axes) for name, axes in AXES.items()})
  state = definition.init_state(params)
  theirs = params
  with jax.numpy_rank_promotion('allow'):
    for g in grads:
      theirs, state = definition.apply_gradient(definition.hyper_params, theirs, state, g)
  for name, value in theirs.items():
    np.testing.assert_allclose(ours[name], value, rtol=1e-5, atol=1e-6, err_msg=name)

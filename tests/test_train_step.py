import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_train import initial_state, optimizer, partitioning, train_state, train_step
from aya_train.objectives import objective
from tests import batches, tiny

FACTORS = [None, 'NUM_REAL_TARGET_TOKENS', 'AVERAGE_PER_SEQUENCE']
BATCH = {k: jnp.asarray(v) for k, v in batches.packed(rows=8).items()}


def setup(
  mesh_shape=None,
  devices=1,
  rules=None,
  micro=1,
  factor=None,
  gathered=(),
  rate=None,
  skip=False,
  **config,
):
  model = tiny.model({'loss_normalizing_factor': factor}, **config)
  partitioner = partitioning.Partitioner(
    mesh_shape or {'data': -1, 'model': 1},
    rules or partitioning.standard_logical_axis_rules(),
    jax.devices()[:devices],
    gathered_axes=gathered,
  )
  _, axes = objective.parameter_axes(model)
  rate = rate or optimizer.create_learning_rate_scheduler('constant', 0.01)
  tx = optimizer.adafactor(rate, axes, min_dim_size_to_factor=8)
  abstract = train_state.abstract_state(model, tx, partitioner)
  state = initial_state.create(model, tx, partitioner, abstract, 0, None)
  return (
    state,
    train_step.make_train_step(model, tx, rate, partitioner, abstract, micro, skip_nonfinite=skip),
    partitioner,
  )


def trained(steps=3, **kwargs):
  state, step, partitioner = setup(**kwargs)
  batch = partitioner.to_global({k: np.asarray(v) for k, v in BATCH.items()})
  history = []
  for _ in range(steps):
    state, sums = step(state, batch)
    history.append(float(sums['loss']))
  return history, jax.device_get(state.params), {k: float(v) for k, v in sums.items()}


def assert_same(a, b, rtol=2e-4):
  np.testing.assert_allclose(a[0], b[0], rtol=1e-5)
  for x, y in zip(jax.tree.leaves(a[1]), jax.tree.leaves(b[1]), strict=True):
    np.testing.assert_allclose(x, y, rtol=rtol, atol=2e-5)


@pytest.mark.parametrize('factor', FACTORS)
def test_microbatches_equal_one_batch(factor):
  assert_same(trained(factor=factor), trained(factor=factor, micro=4))


@pytest.mark.parametrize(
  ('mesh_shape', 'dims'),
  [
    ({'data': 8, 'model': 1}, (1, 1)),
    ({'data': 4, 'model': 2}, (1, 2)),
    ({'data': 2, 'model': 4}, (2, 2)),
  ],
)
def test_eight_devices_equal_one(mesh_shape, dims):
  rules = partitioning.standard_logical_axis_rules(*dims)
  many = trained(mesh_shape=mesh_shape, devices=8, rules=rules, factor='AVERAGE_PER_SEQUENCE')
  assert_same(trained(factor='AVERAGE_PER_SEQUENCE'), many)


@pytest.mark.parametrize(
  ('mesh_shape', 'over_data', 'micro'),
  [
    pytest.param({'data': 1, 'fsdp': 8, 'model': 1}, False, 1, marks=pytest.mark.heavy),
    pytest.param({'data': 2, 'fsdp': 4, 'model': 1}, True, 1, marks=pytest.mark.heavy),
    ({'data': 2, 'fsdp': 2, 'model': 2}, True, 2),
  ],
)
def test_fully_sharded_devices_equal_one(mesh_shape, over_data, micro):
  rules = partitioning.fully_sharded_logical_axis_rules(parameters_over_data=over_data)
  gathered = ('data',) if over_data else ()
  options = {'factor': 'AVERAGE_PER_SEQUENCE', 'micro': micro}
  many = trained(mesh_shape=mesh_shape, devices=8, rules=rules, gathered=gathered, **options)
  assert_same(trained(factor='AVERAGE_PER_SEQUENCE'), many)


def test_weights_over_data_are_stored_in_parts_and_gathered_in_the_activations_dtype():
  rules = partitioning.fully_sharded_logical_axis_rules(parameters_over_data=True)
  mesh = {'data': 2, 'fsdp': 4, 'model': 1}
  partitioner = partitioning.Partitioner(mesh, rules, jax.devices(), gathered_axes=('data',))
  params, axes = objective.parameter_axes(tiny.model(dtype='bfloat16'))
  name = lambda tree: tree['encoder']['encoder']['mlp']['wi_0']['kernel']
  stored = partitioner.shardings(axes, params)
  assert name(stored).shard_shape((16, 2, 32)) == (2, 2, 32)
  lowered = jax.jit(lambda p: partitioner.gather(p, axes, jnp.bfloat16)).lower(params)
  gathered = lowered.compile().output_shardings
  assert name(gathered).shard_shape((16, 2, 32)) == (4, 2, 32)
  assert name(lowered.out_info).dtype == jnp.bfloat16
  table = lowered.out_info['token_embedder']['embedding']
  assert table.dtype == jnp.float32


def stacked(unrolled):
  """Unrolled parameters with the layers of each stack joined on axis 1."""
  out = {'token_embedder': unrolled['token_embedder']}
  for side in ('encoder', 'decoder'):
    layers = [unrolled[side][f'layers_{i}'] for i in range(2)]
    rest = {k: v for k, v in unrolled[side].items() if not k.startswith('layers_')}
    out[side] = {side: jax.tree.map(lambda *x: np.stack(x, axis=1), *layers), **rest}
  return out


def test_scanned_layers_train_like_unrolled_ones():
  state, unrolled_step, _ = setup(scan_layers=False)
  scanned_state, scanned_step, _ = setup(scan_layers=True)
  params = stacked(jax.device_get(state.params))
  scanned_state = dataclasses.replace(scanned_state, params=jax.device_put(params))
  for _ in range(3):
    state, sums = unrolled_step(state, BATCH)
    scanned_state, scanned_sums = scanned_step(scanned_state, BATCH)
    np.testing.assert_allclose(sums['loss'], scanned_sums['loss'], rtol=1e-5)
  want = stacked(jax.device_get(state.params))
  for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(scanned_state.params), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_sharded_parameters_take_their_share_of_each_device():
  rules = partitioning.standard_logical_axis_rules(1, 2)
  state, _, _ = setup(mesh_shape={'data': 4, 'model': 2}, devices=8, rules=rules)
  kernel = state.params['encoder']['encoder']['mlp']['wi_0']['kernel']
  assert kernel.addressable_shards[0].data.size * 8 == kernel.size
  moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim == 2 and x.size >= 32]
  assert any(x.addressable_shards[0].data.size < x.size for x in moments)


def test_dropout_depends_on_the_step_and_the_seed_only():
  state, _, _ = setup()
  same = train_state.create(state.params, _Nothing, seed=0, step=5)
  again = train_state.create(state.params, _Nothing, seed=0, step=5)
  other = train_state.create(state.params, _Nothing, seed=0, step=6)
  key = lambda s: jax.random.key_data(s.dropout_key())
  np.testing.assert_array_equal(key(same), key(again))
  assert (key(same) != key(other)).any()


class _Nothing:
  init = staticmethod(lambda params: {'count': jnp.int32(0)})


def test_training_learns_a_batch_by_heart():
  history, _, sums = trained(steps=60, factor='NUM_REAL_TARGET_TOKENS')
  assert history[-1] < 0.6 * history[0]
  assert sums['correct'] > 0


def test_sums_count_what_is_there():
  _, _, sums = trained(steps=1, factor='AVERAGE_PER_SEQUENCE')
  segments = np.asarray(BATCH['decoder_segment_ids'])
  assert sums['examples'] == segments.max(axis=1).sum()
  assert sums['target_tokens'] == (segments > 0).sum()
  real = (np.asarray(BATCH['encoder_input_tokens']) > 0).sum() + (segments > 0).sum()
  assert sums['real_tokens'] == real
  assert sums['all_tokens'] == 8 * (24 + 16)
  assert sums['learning_rate'] == pytest.approx(0.01)


def test_a_batch_of_padding_gives_no_nan():
  model = tiny.model({'loss_normalizing_factor': 'AVERAGE_PER_SEQUENCE'})
  empty = {k: jnp.zeros_like(v) for k, v in BATCH.items()}
  grads, sums = train_step.gradients(model, tiny.params(model), empty, jax.random.key(0), 1)
  assert float(sums['loss']) == 0.0
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_an_update_that_is_not_finite_is_named_and_can_be_refused():
  rate = lambda step: jnp.where(step == 1, np.inf, 0.01)
  state, step, _ = setup(rate=rate, skip=True)
  names = train_step.checked_names(state)
  state, sums = step(state, BATCH)
  assert int(sums[train_step.NONFINITE]) == -1
  before = jax.device_get(state)
  state, sums = step(state, BATCH)
  assert names[int(sums[train_step.NONFINITE])].startswith('params/')
  assert np.isfinite(sums['loss'])
  for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(state), strict=True):
    counts = old.ndim == 0 and np.issubdtype(old.dtype, np.integer)
    np.testing.assert_array_equal(new, old + 1 if counts else old)
  state, sums = step(state, BATCH)
  assert int(sums[train_step.NONFINITE]) == -1


@pytest.mark.parametrize('devices', [1, 2])
def test_a_single_cpu_is_scheduled_for_memory_and_several_are_not(devices):
  made = partitioning.Partitioner(
    {'data': -1, 'model': 1},
    partitioning.standard_logical_axis_rules(),
    jax.devices()[:devices],
    compiler_options={'given': 'kept', 'not given': None},
  )
  options = made.step_options
  assert options.pop('given') == 'kept'
  assert list(options) == ['xla_cpu_scheduler_type'] * (devices == 1)


@pytest.mark.parametrize(
  ('kinds', 'gathers_beside', 'on_sparse_cores'),
  [
    ([('tpu', 'TPU v4')] * 2, True, False),
    ([('tpu', 'TPU v5 lite')] * 2, True, False),
    ([('tpu', 'TPU v5')] * 2, True, True),
    ([('tpu', 'TPU v6 lite')] * 2, True, True),
    ([('tpu', 'TPU v6 lite')], False, False),
    ([('gpu', 'NVIDIA H100')] * 2, False, False),
    ([('cpu', 'cpu')] * 2, False, False),
  ],
)
def test_several_tpu_chips_gather_beside_their_products(kinds, gathers_beside, on_sparse_cores):
  options = partitioning._platform_options(kinds)
  assert ('xla_enable_async_all_gather' in options) == gathers_beside
  assert any('sparse_core' in name for name in options) == on_sparse_cores


MANY_STEPS = """
from aya_train import partitioning
from tests import test_train_step

history, *_ = test_train_step.trained(
  steps=300,
  mesh_shape={'data': 2, 'model': 4},
  devices=8,
  rules=partitioning.standard_logical_axis_rules(2, 2),
)
assert history[-1] < history[0]
"""


@pytest.mark.heavy
def test_devices_do_not_wait_for_each_other_for_good():
  # XLA ends a process whose devices do.
  flags = '--xla_force_host_platform_device_count=8'
  environment = {**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  subprocess.run([sys.executable, '-c', MANY_STEPS], env=environment, check=True, timeout=900)

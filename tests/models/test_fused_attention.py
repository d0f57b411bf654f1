"""The fused attention kernels, interpreted, against attention written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_train import partitioning
from aya_train.models import attention_visibility, fused_attention, layers, t5_config
from tests import batches, tiny

HEADS, WIDTH = 4, 64
KINDS = ('encoder', 'decoder', 'cross')
INTERPRETED = ('interpreted', 'interpreted_gpu')


def case(kind, dtype=jnp.float32, rows=1, length=256, heads=HEADS, width=WIDTH, seed=0):
  """Arguments (q, k, v, table), what is fixed (masks, dropout), and the gradient of the result."""
  rng = np.random.default_rng(seed)
  keys = length + 128 if kind == 'cross' else length
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  joined = heads * width
  arrays = (
    0.3 * normal(rows, length, joined),
    normal(rows, keys, joined),
    normal(rows, keys, joined),
  )
  table = None if kind == 'cross' else normal(heads, 32)

  def segments(n):
    return jnp.asarray(np.sort(rng.integers(0, 4, (rows, n)), axis=1)[:, ::-1].copy())

  query_ids = segments(length)
  key_ids = segments(keys) if kind == 'cross' else query_ids
  keep = jnp.asarray(rng.random((rows, heads, keys)) < 0.9, jnp.float32) / 0.9
  # Queries that are padding see nothing; what comes out of them is never used.
  d_out = normal(rows, length, joined) * (query_ids > 0)[:, :, None]
  arguments = tuple(x.astype(dtype) for x in arrays), table
  return arguments, (kind, query_ids, key_ids, keep, width), d_out


def bucket(kind):
  return functools.partial(
    layers.relative_position_bucket,
    bidirectional=kind == 'encoder',
    num_buckets=32,
    max_distance=128,
  )


def plain(arrays, table, fixed):
  kind, query_ids, key_ids, keep, width = fixed
  q, k, v = (x.astype(jnp.float32).reshape(*x.shape[:2], -1, width) for x in arrays)
  scores = jnp.einsum('bthk,bshk->bhts', q, k)
  if table is not None:
    positions = np.arange(q.shape[1])
    scores += table[:, bucket(kind)(positions[None, :] - positions[:, None])][None]
  mask = layers.attention_mask(query_ids > 0, key_ids > 0, query_ids, key_ids)
  if kind == 'decoder':
    mask &= layers.causal_mask(q.shape[1])
  weights = jax.nn.softmax(jnp.where(mask, scores, -1e10)) * keep[:, :, None]
  return jnp.einsum('bhts,bshk->bthk', weights, v).reshape(arrays[0].shape)


def fused(arrays, table, fixed, kernel='interpreted'):
  kind, query_ids, key_ids, keep, width = fixed
  patterns = None
  if table is not None:
    tiles = arrays[0].shape[1] // 128
    patterns = attention_visibility.Patterns.of(bucket(kind), tiles, tiles, 32)
  visible = attention_visibility.visibility(
    query_ids > 0,
    key_ids > 0,
    query_ids,
    key_ids,
    table_HR=table,
    patterns=patterns,
    causal=kind == 'decoder',
  )
  return fused_attention.attend(*arrays, visible, keep, head_dim=width, kernel=kernel)


def with_gradients(function, arguments, fixed, d_out):
  total = lambda *args: jnp.sum(function(*args, fixed).astype(jnp.float32) * d_out)
  return jax.value_and_grad(total, argnums=(0, 1))(*arguments)


def assert_close(got, want, tolerance):
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
    assert np.abs(x - y).max() <= tolerance * max(1.0, np.abs(y).max())


@pytest.mark.parametrize('kernel', INTERPRETED)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(('dtype', 'tolerance'), [(jnp.float32, 1e-5), (jnp.bfloat16, 0.02)])
def test_values_and_gradients_are_those_of_attention_written_out(kind, dtype, tolerance, kernel):
  arguments, fixed, d_out = case(kind, dtype, rows=2 if kernel == 'interpreted_gpu' else 1)
  assert_close(
    with_gradients(functools.partial(fused, kernel=kernel), arguments, fixed, d_out),
    with_gradients(plain, arguments, fixed, d_out),
    tolerance,
  )


@pytest.mark.parametrize(('heads', 'width'), [(1, 128), (3, 64), (8, 32)])
@pytest.mark.parametrize('kernel', INTERPRETED)
def test_heads_may_be_of_any_width_and_number(heads, width, kernel):
  arguments, fixed, d_out = case('encoder', length=128, heads=heads, width=width)
  assert_close(
    with_gradients(functools.partial(fused, kernel=kernel), arguments, fixed, d_out),
    with_gradients(plain, arguments, fixed, d_out),
    1e-5,
  )


def test_a_long_row_has_few_patterns_of_buckets():
  patterns = attention_visibility.Patterns.of(bucket('encoder'), 8, 8, 32)
  assert patterns.count == 5  # near left, diagonal, near right, far left, far right
  one_hot = patterns.one_hot
  assert one_hot.shape == (32, 5 * 128 * 128)
  assert (one_hot.sum(axis=0) == 1).all()


@pytest.mark.parametrize('kernel', INTERPRETED)
def test_each_device_works_on_its_own_rows_and_heads_and_the_bias_gradient_is_summed(kernel):
  on = functools.partial(fused, kernel=kernel)
  arguments, fixed, d_out = case('encoder', rows=2, length=128)
  partitioner = partitioning.Partitioner(
    {'data': 2, 'fsdp': 1, 'model': 2},
    partitioning.fully_sharded_logical_axis_rules(),
    jax.devices()[:4],
  )
  run = partitioner.jit(lambda args: with_gradients(on, args, fixed, d_out))
  assert_close(run(arguments), with_gradients(on, arguments, fixed, d_out), 1e-5)


@pytest.mark.parametrize('kind', KINDS)
def test_the_gpu_kernels_are_made_without_a_gpu(kind):
  arguments, fixed, d_out = case(kind, jnp.bfloat16)
  on = functools.partial(fused, kernel='fused_gpu')
  traced = jax.jit(lambda args: with_gradients(on, args, fixed, d_out)).trace(arguments)
  program = traced.lower(lowering_platforms=('cuda',)).as_text()
  # Forward, and backward to queries, to keys and values, and to the bias where there is one.
  assert program.count('xla.gpu.triton') == (3 if kind == 'cross' else 4)


def test_a_whole_gradient_is_lowered_for_gpus():
  model = tiny.model(attention_kernel='fused_gpu', dtype='bfloat16', head_dim=16)
  batch = packed_batch()

  def loss(params):
    return jnp.sum(model.token_losses(params, batch, dropout_key=jax.random.key(3)).cross_entropy)

  traced = jax.jit(jax.grad(loss)).trace(tiny.params(model))
  assert 'attention_backward_bias' in traced.lower(lowering_platforms=('cuda',)).as_text()


@pytest.mark.parametrize(
  ('kernel', 'platform', 'own'),
  [('fused', 'cpu', 'plain'), ('fused', 'gpu', 'fused_gpu'), ('fused_gpu', 'tpu', 'fused')],
)
def test_a_kernel_of_other_devices_is_refused_with_the_one_that_they_have(kernel, platform, own):
  with pytest.raises(ValueError, match=f'{kernel!r} is a .* {platform!r}: bind .* = {own!r}'):
    fused_attention.check_platform(kernel, platform)


def test_the_network_knows_these_kernels_and_no_other():
  assert {*t5_config.ATTENTION_KERNELS} == {'plain', *fused_attention.KERNELS}


def test_a_kernel_runs_where_it_belongs():
  for kernel, platform in [('fused', 'tpu'), ('fused_gpu', 'gpu'), ('plain', 'cpu')]:
    fused_attention.check_platform(kernel, platform)


def test_widths_and_lengths_that_a_kernel_does_not_take():
  assert fused_attention.supports('fused_gpu', 8192, 128, 64)
  assert not fused_attention.supports('fused', 8192, 128, 64)
  assert not fused_attention.supports('fused_gpu', 128, 128, 48)
  assert not fused_attention.supports('fused_gpu', 128, 64, 64)


def packed_batch():
  return {k: jnp.asarray(v) for k, v in batches.packed(rows=2, source=128, target=128).items()}


@pytest.mark.parametrize(
  ('remat', 'per_layer', 'kernel'),
  [
    ('save_named', False, 'interpreted'),
    ('save_named', False, 'interpreted_gpu'),
    pytest.param('save_named', True, 'interpreted', marks=pytest.mark.heavy),
    pytest.param('none', False, 'interpreted', marks=pytest.mark.heavy),
    pytest.param('full', True, 'interpreted', marks=pytest.mark.heavy),
    pytest.param('full', True, 'interpreted_gpu', marks=pytest.mark.heavy),
  ],
)
def test_a_model_with_a_kernel_equals_one_without_dropout_draws_included(remat, per_layer, kernel):
  batch = packed_batch()

  def loss_and_gradient(kernel, policy):
    options = {'dropout_rate': 0.5, 'relpos_bias_per_layer': per_layer, 'head_dim': 16}
    model = tiny.model(attention_kernel=kernel, remat_policy=policy, **options)
    weights = batch['decoder_loss_weights']

    def loss(params):
      token = model.token_losses(params, batch, dropout_key=jax.random.key(3))
      return jnp.sum(token.cross_entropy * weights)

    return jax.jit(jax.value_and_grad(loss))(tiny.params(model))

  assert_close(loss_and_gradient(kernel, remat), loss_and_gradient('plain', 'none'), 2e-5)


def test_lengths_that_are_no_multiple_of_a_tile_take_the_plain_path():
  batch = {k: jnp.asarray(v) for k, v in batches.packed(rows=2).items()}
  losses = [
    tiny.model(attention_kernel=kernel).token_losses(
      tiny.params(tiny.model()), batch, dropout_key=None
    )
    for kernel in ('plain', 'fused')
  ]
  assert_close(*losses, 0.0)

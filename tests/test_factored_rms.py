"""Each matrix is updated as optax's three transformations in a chain update it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aya_train import block_reductions, factored_rms

RNG = np.random.default_rng(0)
SHAPES = {
  'table': (96, 16),
  'head': (16, 96),
  'square': (16, 16),
  'narrow': (96, 4),
  'scale': (16,),
  'heads': (16, 3, 32),
}
OPTIONS = {'decay_rate': 0.7, 'step_offset': 0, 'min_dim_size_to_factor': 8, 'epsilon1': 1e-30}


@pytest.fixture(autouse=True)
def one_cpu(monkeypatch):
  monkeypatch.setattr(block_reductions, 'several_cpus', lambda: False)


def arrays(scale=1.0):
  # 'square' stays 0 in one row: what has no gradient must not become NaN.
  found = {n: jnp.asarray(scale * RNG.normal(size=s), jnp.float32) for n, s in SHAPES.items()}
  return {**found, 'square': found['square'].at[3].set(0.0)}


def optax_chain(threshold, relative):
  parts = [
    optax.scale_by_factored_rms(decay_rate=0.7, min_dim_size_to_factor=8, epsilon=1e-30),
    *([] if threshold is None else [optax.clip_by_block_rms(threshold)]),
    *([optax.scale_by_param_block_rms(1e-3)] if relative else []),
  ]
  return optax.chain(*parts)


@pytest.mark.parametrize(
  ('threshold', 'relative', 'blocks'),
  list(itertools.product([None, 1.0, 0.1], [True, False], [False, True])),
)
def test_updates_and_states_are_those_of_optax(threshold, relative, blocks, monkeypatch):
  if blocks:
    monkeypatch.setattr(block_reductions, 'LARGE', 64)
    monkeypatch.setattr(block_reductions, '_BLOCK', 32)
  tx = factored_rms.scale_by_adafactor(
    clipping_threshold=threshold,
    multiply_by_parameter_scale=relative,
    epsilon2=1e-3,
    **OPTIONS,
  )
  reference = optax_chain(threshold, relative)
  params = {**arrays(0.1), 'scale': jnp.zeros(16)}
  state, theirs = tx.init(params), reference.init(params)
  for step in range(3):
    grads = arrays(10.0**-step)
    updates, state = jax.jit(tx.update)(grads, state, params)
    wanted, theirs = jax.jit(reference.update)(grads, theirs, params)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7),
      (updates, state),
      (wanted, theirs),
    )


def test_the_offset_restarts_the_decay():
  params, grads = arrays(0.1), arrays()
  options = {'clipping_threshold': 1.0, 'multiply_by_parameter_scale': True, 'epsilon2': 1e-3}
  tx = factored_rms.scale_by_adafactor(**{**OPTIONS, 'step_offset': 5}, **options)
  moments, *rest = tx.init(params)
  old = moments._replace(count=jnp.int32(5), v_row=jax.tree.map(jnp.ones_like, moments.v_row))
  _, (new, *_) = tx.update(grads, (old, *rest), params)
  # At the first step after it nothing of the old means is left.
  np.testing.assert_allclose(
    new.v_row['table'], np.mean(np.square(grads['table']), axis=0), rtol=1e-5
  )


def test_several_cpus_run_optax_itself(monkeypatch):
  monkeypatch.setattr(block_reductions, 'several_cpus', lambda: True)
  options = {'clipping_threshold': 1.0, 'multiply_by_parameter_scale': True, 'epsilon2': 1e-3}
  ours, reference = factored_rms.scale_by_adafactor(**OPTIONS, **options), optax_chain(1.0, True)
  params, grads = arrays(0.1), arrays()
  state = ours.init(params)
  programs = [str(jax.make_jaxpr(tx.update)(grads, state, params)) for tx in (ours, reference)]
  assert programs[0] == programs[1]

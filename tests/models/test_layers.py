"""Rows of a table in bfloat16 are those of `jnp.take`, and so is its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_train.models import layers


@pytest.mark.parametrize('dtype', ['bfloat16', 'float32'])
def test_rows_and_gradient_are_those_of_take(dtype):
  table = jax.random.normal(jax.random.key(0), (11, 5)).astype(dtype)
  ids = jnp.array([[3, 0, 3], [10, 11, -1]])  # a wrong id gives what `take` gives
  cotangent = jax.random.normal(jax.random.key(1), (2, 3, 5)).astype(dtype)
  for take in (layers.rows_of_table, jax.jit(layers.rows_of_table)):
    found, pull = jax.vjp(lambda t, take=take: take(t, ids), table)
    wanted, pull_wanted = jax.vjp(lambda t: jnp.take(t, ids, axis=0), table)
    np.testing.assert_array_equal(np.float32(found), np.float32(wanted))
    np.testing.assert_array_equal(
      *(np.float32(p(cotangent.at[1].set(0))[0]) for p in (pull, pull_wanted))
    )


def test_no_copy_in_float32_of_a_table():
  table = jax.ShapeDtypeStruct((50_000, 64), 'bfloat16')
  ids = jax.ShapeDtypeStruct((8, 1), 'int32')
  compiled = jax.jit(layers.rows_of_table).lower(table, ids).compile()
  assert 'f32[50000,64]' not in compiled.as_text()

"""Large arrays are reduced as small ones are, and nothing of their size is held for it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_train import block_reductions

RNG = np.random.default_rng(0)
SHAPES = [(6, 8), (7, 40), (1, 48), (48, 1), (4, 3, 8), (50,)]


@pytest.fixture(autouse=True)
def one_cpu(monkeypatch):
  monkeypatch.setattr(block_reductions, 'several_cpus', lambda: False)


@pytest.fixture
def small_blocks(monkeypatch):
  monkeypatch.setattr(block_reductions, 'LARGE', 32)
  monkeypatch.setattr(block_reductions, '_BLOCK', 16)


def numbers(*shape):
  return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@pytest.mark.parametrize('shape', SHAPES)
def test_sums_over_each_axis_are_those_of_the_whole_array(shape, small_blocks):
  x, last = numbers(*shape), numbers(*[1] * (len(shape) - 1), shape[-1])
  axes = [None, *range(len(shape)), -1]
  found = block_reductions.reduce(jnp.sum, lambda x, y: jnp.square(x) * y, [x, last], axes)
  for axis, total in zip(axes, found, strict=True):
    np.testing.assert_allclose(total, np.sum(np.square(x) * last, axis=axis), rtol=1e-5)


@pytest.mark.parametrize('place', [0, 21, 39])
def test_one_number_among_many_is_found(place, small_blocks):
  x = jnp.zeros(40).at[place].set(jnp.nan).reshape(10, 4)
  rows, any_row = block_reductions.reduce(jnp.any, jnp.isnan, [x], [1, None])
  assert any_row
  np.testing.assert_array_equal(np.flatnonzero(rows), [place // 4])
  assert not block_reductions.reduce(jnp.any, jnp.isnan, [jnp.zeros((10, 4))])[0]


def test_arrays_of_one_row_belong_to_every_row(small_blocks):
  x, row, column = numbers(10, 4), numbers(1, 4), numbers(10, 1)
  (total,) = block_reductions.reduce(jnp.sum, lambda a, b, c: a * b * c, [x, row, column])
  np.testing.assert_allclose(total, np.sum(x * row * column), rtol=1e-5)


def test_layers_are_reduced_each_by_itself(small_blocks):
  x = numbers(3, 10, 4)
  total = functools.partial(block_reductions.reduce, jnp.sum, jnp.square, axes=[0, 1])
  for found, axis in zip(jax.vmap(lambda x: total([x]))(x), (1, 2), strict=True):
    np.testing.assert_allclose(found, np.sum(np.square(x), axis=axis), rtol=1e-5)


@pytest.mark.parametrize('rows', [16, 17])
def test_a_function_of_rows_is_mapped_over_blocks_of_them(rows, small_blocks):
  x, y = numbers(rows, 8), numbers(rows)

  def function(x, y):
    return {'sum': jnp.sum(x, axis=-1) + y, 'twice': 2 * x}

  found = block_reductions.map_rows(function, x, y)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, function(x, y))


def test_nothing_of_an_arrays_size_is_held():
  x = jax.ShapeDtypeStruct((4096, 1024), jnp.float32)

  def squares(x):
    return block_reductions.reduce(jnp.sum, jnp.square, [x], [0, 1, None])

  used = jax.jit(squares).lower(x).compile().memory_analysis().temp_size_in_bytes
  assert used < x.size  # a quarter of the array


@pytest.mark.parametrize(
  ('shape', 'rows'),
  [((250112, 512), 977), ((512, 250112), 2), ((4099, 1024), None), ((8, 128), None)],
)
def test_rows_of_a_block(shape, rows):
  assert block_reductions._rows_of_a_block(shape) == rows


def test_several_cpus_take_arrays_at_once(monkeypatch):
  monkeypatch.setattr(block_reductions, 'several_cpus', lambda: True)
  assert block_reductions._rows_of_a_block((250112, 512)) is None

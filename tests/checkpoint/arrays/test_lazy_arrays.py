"""Slices of lazy arrays are those that numpy takes, whatever was done to the arrays."""

import ml_dtypes
import numpy as np
import pytest

from aya_train.checkpoint.arrays import lazy_arrays

ARRAY = np.random.default_rng(0).normal(size=(6, 4, 10)).astype(np.float32)
ROW = ARRAY[0].size
# Each operation, and what it does to an array of numpy.
OPERATIONS = {
  'itself': (lambda a: a, lambda x: x),
  'cast': (lambda a: lazy_arrays.cast(a, np.float16), lambda x: x.astype(np.float16)),
  'mapped': (lambda a: lazy_arrays.mapped(a, np.negative), np.negative),
  'take': (lambda a: lazy_arrays.take(a, 1, 2), lambda x: x[:, 2]),
  'transpose': (lambda a: lazy_arrays.transpose(lazy_arrays.take(a, 0, 1)), lambda x: x[1].T),
  'stack': (
    lambda a: lazy_arrays.stack([a, lazy_arrays.mapped(a, np.negative)], 1),
    lambda x: np.stack([x, -x], 1),
  ),
  'merge neighbours': (lambda a: lazy_arrays.merge(a, 0, 1), lambda x: x.reshape(24, 10)),
  'merge others': (
    lambda a: lazy_arrays.merge(a, 0, 2),
    lambda x: np.moveaxis(x, 2, 1).reshape(60, 4),
  ),
  'split': (
    lambda a: lazy_arrays.split(a, 0, 2, 3),
    lambda x: np.moveaxis(x.reshape(2, 3, 4, 10), 1, 2),
  ),
}


def indices(shape, count=40):
  """Random slices and positions of the first axes of an array."""
  rng = np.random.default_rng(1)
  for _ in range(count):
    index = []
    for size in shape[: rng.integers(len(shape) + 1)]:
      start, stop = sorted(map(int, rng.integers(0, size + 1, 2)))
      position = int(rng.integers(-size, size))
      index.append(slice(start, stop) if rng.random() < 0.7 else position)
    yield tuple(index)


@pytest.mark.parametrize('operation', OPERATIONS)
@pytest.mark.parametrize('chunks', [None, (3, 2, 5), ARRAY.shape])
def test_every_slice_is_that_of_numpy(operation, chunks):
  ours, of_numpy = OPERATIONS[operation]
  found = ours(lazy_arrays.LazyArray(ARRAY.shape, ARRAY.dtype, lambda i: ARRAY[i], chunks))
  expected = of_numpy(ARRAY)
  assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
  assert found.nbytes == expected.nbytes
  assert found.chunks is None or len(found.chunks) == expected.ndim
  np.testing.assert_array_equal(np.asarray(found), expected)
  for index in indices(expected.shape):
    np.testing.assert_array_equal(found[index], expected[index], err_msg=str(index))


@pytest.mark.parametrize('operation', OPERATIONS)
def test_what_is_not_asked_for_is_not_read(operation):
  read = []

  def get(index):
    read.append(ARRAY[index].size)
    return ARRAY[index]

  found = OPERATIONS[operation][0](lazy_arrays.LazyArray(ARRAY.shape, ARRAY.dtype, get))
  assert read == []
  row = found[:1]
  assert row.size <= sum(read) <= max(row.size, ROW)


def test_split_undoes_merge():
  merged = lazy_arrays.merge(lazy_arrays.of(ARRAY), 0, 2)
  np.testing.assert_array_equal(lazy_arrays.split(merged, 0, 2, 10).read(), ARRAY)
  with pytest.raises(ValueError, match='runs of 7'):
    lazy_arrays.split(merged, 0, 2, 7)


def test_arrays_of_other_kinds_are_read_as_numpy():
  import jax.numpy as jnp
  import tensorstore as ts

  for other in (jnp.asarray(ARRAY), ts.array(ARRAY)):
    found = lazy_arrays.of(other)
    assert found.dtype == np.float32
    assert type(found.read()) is np.ndarray and type(found[1:3]) is np.ndarray
    np.testing.assert_array_equal(found.read(), ARRAY)
    np.testing.assert_array_equal(found[1:3, 0], ARRAY[1:3, 0])


def test_steps_positions_outside_and_layers_of_other_shapes_are_refused():
  array = lazy_arrays.of(ARRAY)
  with pytest.raises(ValueError, match='step 1'):
    array[::2]
  with pytest.raises(IndexError):
    array[6]
  with pytest.raises(ValueError, match='agree in shape'):
    lazy_arrays.stack([array, lazy_arrays.take(array, 0, 0)], 0)


@pytest.mark.parametrize('dtype', [np.float32, ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize('shape', [(1, 1), (16, 5), (33, 70), (0, 3)])
def test_transpose_is_that_of_numpy(dtype, shape):
  matrix = np.random.default_rng(0).normal(size=shape).astype(dtype)
  for view in (matrix, matrix[::-1], np.asfortranarray(matrix)):
    found = lazy_arrays.transpose(lazy_arrays.of(view)).read()
    assert found.flags.c_contiguous and found.dtype == matrix.dtype
    np.testing.assert_array_equal(found, view.T)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aya_train import finiteness

TREE = {
  'count': jnp.int32(3),
  'inner': {'a': jnp.ones((4, 2)), 'b': jnp.ones((8,), jnp.bfloat16)},
  'key': jax.random.key(0),
  'last': jnp.float32(1),
}


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(('name', 'index'), [('a', (3, 1)), ('b', (0,))])
def test_one_bad_number_is_found_and_its_array_is_named(value, name, index):
  inner = {**TREE['inner'], name: TREE['inner'][name].at[index].set(value)}
  tree = {**TREE, 'inner': inner}
  assert finiteness.names(tree)[int(finiteness.first_nonfinite(tree))] == f'inner/{name}'
  with pytest.raises(
    finiteness.NonFiniteError, match=rf'^here: inner/{name} is not finite: 1 of its 8 .*\. Do that'
  ):
    finiteness.check(tree, 'here', 'Do that')


def test_the_largest_numbers_are_finite_and_integers_are_passed_over():
  tree = {**TREE, 'largest': jnp.full((3,), jnp.finfo(jnp.float32).max)}
  assert int(finiteness.first_nonfinite(tree)) == -1
  finiteness.check(tree, 'here', '')
  finiteness.check({'count': jnp.int32(3)}, 'here', '')


def test_a_bad_number_on_any_device_is_found():
  sharding = NamedSharding(Mesh(np.array(jax.devices()), 'x'), PartitionSpec('x'))
  for place in range(8):
    tree = {'a': jnp.ones(8), 'b': jax.device_put(jnp.ones(8).at[place].set(jnp.nan), sharding)}
    with pytest.raises(finiteness.NonFiniteError, match='b is not finite: 1 of its 8'):
      finiteness.check(tree, 'here', '')


def test_figures_that_are_not_finite_are_named_with_their_values():
  finiteness.check_figures({'loss': 1.0}, 'validation', '')
  with pytest.raises(finiteness.NonFiniteError, match=r'^validation: a is nan, c is inf\. Do that'):
    finiteness.check_figures({'a': np.nan, 'b': 1.0, 'c': np.inf}, 'validation', 'Do that')


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_an_array_of_half_the_width_is_looked_at_as_it_is(dtype, bad):
  shape = (1 << 12, 1 << 11)  # large enough for blocks
  tree = [jnp.full(shape, jnp.finfo(dtype).max, dtype), -jnp.zeros(3, dtype)]
  assert int(jax.jit(finiteness.first_nonfinite)(tree)) == -1
  tree[1] = tree[1].at[1].set(bad)
  assert int(jax.jit(finiteness.first_nonfinite)(tree)) == 1
  text = jax.jit(finiteness.first_nonfinite).lower(tree).compile().as_text()
  assert f'f32[{shape[0]},{shape[1]}]' not in text

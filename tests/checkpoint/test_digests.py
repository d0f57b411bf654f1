"""Laws of the digests: every bit counts, its place counts, and the layout does not."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aya_train.checkpoint import digests
from aya_train.checkpoint.arrays import blocks, lazy_arrays

RNG = np.random.default_rng(0)
ARRAYS = {
  'matrix': RNG.normal(size=(8, 6, 4)).astype(np.float32),
  'long': RNG.normal(size=(4096, 64)).astype(np.float32),
  'bfloat16': RNG.normal(size=(16, 3)).astype(ml_dtypes.bfloat16),
  'int8': RNG.integers(-128, 127, (8, 5), dtype=np.int8),
  'bool': np.array([True, False, True, True]),
  'step': np.int32(7),
  'nothing': np.zeros((0, 3), np.float32),
}


def of(array: np.ndarray) -> str:
  return digests.of_tree({'x': array})['x']


def test_devices_and_hosts_agree_however_arrays_are_sharded(monkeypatch):
  tree = {**ARRAYS, 'key': jax.random.key(3)}
  on_host = digests.of_tree(tree)
  mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ('a', 'b'))

  def put(x: np.ndarray) -> jax.Array:
    fits = [np.ndim(x) > axis and x.shape[axis] % n == 0 for axis, n in enumerate((4, 2))]
    spec = [name if fit and x.size else None for name, fit in zip('ab', fits, strict=True)]
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec[: np.ndim(x)])))

  monkeypatch.setattr(digests, '_HOST_BYTES', -1)
  sharded = {name: put(x) for name, x in ARRAYS.items()}
  assert digests.of_tree({**sharded, 'key': jax.random.key(3)}) == on_host
  assert digests.of_tree(tree) == on_host


def test_arrays_of_64_bits_have_both_halves():
  x = RNG.normal(size=(3, 4))
  with jax.enable_x64(True):
    assert of(jnp.asarray(x)) == of(x)
  assert of(x) != of(x + np.spacing(x))


@pytest.mark.parametrize('name', ['matrix', 'long', 'bfloat16', 'int8', 'bool'])
@pytest.mark.parametrize('parts', [1, 2, 3])
def test_blocks_add_up_to_the_whole(name, parts):
  x = ARRAYS[name]
  chunks = [max(1, size // parts) for size in x.shape]
  sums = [
    digests.of_block(x[index], x.shape, [i.start for i in index])
    for index in blocks.cut(x.shape, x.dtype.itemsize, chunks, limit=1)
  ]
  assert digests.in_hex((sum(s[0] for s in sums), sum(s[1] for s in sums))) == of(x)
  transposed = lazy_arrays.LazyArray(x.shape, x.dtype, lambda i: np.asfortranarray(x[i]))
  assert digests.of_lazy(transposed) == of(x)


def test_arrays_without_elements_have_a_digest():
  nothing = ARRAYS['nothing']
  assert digests.of_lazy(lazy_arrays.of(nothing)) == of(nothing)


@pytest.mark.parametrize('name', ['matrix', 'bfloat16', 'int8', 'step'])
def test_every_single_bit_counts_in_both_sums(name):
  x = np.array(ARRAYS[name])
  sound = of(x)
  raw = x.reshape(-1).view(np.uint8)
  for bit in range(raw.size * 8):
    raw[bit // 8] ^= 1 << bit % 8
    changed = of(x)
    assert changed[:8] != sound[:8] and changed[8:] != sound[8:], bit
    raw[bit // 8] ^= 1 << bit % 8
  assert of(x) == sound


DAMAGES = {
  'all signs turned': lambda x: -x,
  'two signs turned': lambda x: x * np.where(np.arange(x.size).reshape(x.shape) < 2, -1, 1),
  'rows swapped': lambda x: x[::-1],
  'zeroed': lambda x: x * 0,
  'a chunk twice': lambda x: np.concatenate([x[: len(x) // 2]] * 2),
  'shifted': lambda x: np.roll(x, 1),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_that_plain_sums_let_pass(damage):
  x = ARRAYS['matrix']
  sound, changed = of(x), of(np.ascontiguousarray(DAMAGES[damage](x).astype(x.dtype)))
  assert sound[:8] != changed[:8] and sound[8:] != changed[8:]


def test_the_definition_stays():
  """What is stored in checkpoints must be found again by later versions."""
  assert digests.of_tree({'a': {'b': np.arange(6, dtype=np.float32).reshape(2, 3)}}) == {
    'a/b': 'ae7f2b5925ad516b'
  }
  assert digests.of_json({'b': 1, 'a': [1.5, 'é']}) == digests.of_json({'a': [1.5, 'é'], 'b': 1})


def test_combined_depends_on_names_and_numbers_and_not_on_order():
  one = {'a': '0', 'b': '1'}
  assert digests.combined(one) == digests.combined(dict(reversed(one.items())))
  assert digests.combined(one) != digests.combined({'a': '1', 'b': '0'})


def test_what_is_no_number_is_refused():
  with pytest.raises(TypeError, match='name: arrays of'):
    digests.of_tree({'name': np.array(['text'])})

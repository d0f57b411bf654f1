"""Random checkpoints under T5X's names, as its Adafactor leaves them."""

import numpy as np

from tests.checkpoint import small_model


def wide_config(**overrides):
  """A network some of whose matrices are factored (both sides at least 128), and of each shape."""
  return small_model.config(
    **{
      'emb_dim': 128,
      'num_heads': 2,
      'head_dim': 80,
      'mlp_dim': 136,
      'scan_layers': False,
      **overrides,
    }
  )


def random_leaves(config, *, seed: int = 0, step: int = 7, momentum: bool = False):
  """Leaves 'target/…' and 'state/…' of an unrolled checkpoint, float32."""
  assert not config.scan_layers
  rng = np.random.default_rng(seed)
  leaves = {'state/step': np.asarray(step, np.int32)}
  for name, array in small_model.random_params(config, seed).items():
    leaves[f'target/{name}'] = array
    fields = {k: np.zeros((1,), np.float32) for k in ('m', 'v', 'v_row', 'v_col')}
    if array.ndim == 2 and min(array.shape) >= 128:
      smaller, larger = np.argsort(array.shape)
      fields['v_row'] = rng.random(array.shape[smaller], np.float32)
      fields['v_col'] = rng.random(array.shape[larger], np.float32)
    else:
      fields['v'] = rng.random(array.shape, np.float32)
    if momentum:
      fields['m'] = rng.normal(size=array.shape).astype(np.float32)
    leaves |= {f'state/param_states/{name}/{k}': value for k, value in fields.items()}
  return leaves


def assert_equal(found, expected):
  """Same names, dtypes, shapes and bits."""
  assert set(found) == set(expected)
  for name, array in expected.items():
    got = np.asarray(found[name])
    assert (got.dtype, got.shape) == (np.asarray(array).dtype, np.asarray(array).shape), name
    assert got.tobytes() == np.asarray(array).tobytes(), name

"""What digests cost: saving and restoring a training state with and without them.

    python benchmarks/checkpoints.py --millions 300 --repeats 5

Makes a random state of float32 parameters and as much optimizer state, and times in turn the
digests by themselves, a save (until training can go on, and until it is committed) and a restore.
Medians.
"""

import argparse
import contextlib
import pathlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from unittest import mock

import jax
import jax.numpy as jnp

from aya_train import train_state
from aya_train.checkpoint import checkpoint_room, digests, manager


@contextlib.contextmanager
def timed(times: dict[str, list[float]], name: str) -> Iterator[None]:
  started = time.perf_counter()
  yield
  times.setdefault(name, []).append(time.perf_counter() - started)


def random_state(millions: float) -> train_state.TrainState:
  """Parameters in 24 arrays, and an accumulator of the same size for each."""
  width = max(1, int(millions * 1e6 / 24 / 1024))
  make = jax.jit(lambda key: jax.random.normal(key, (width, 1024), jnp.float32))
  keys = jax.random.split(jax.random.key(0), 48)
  params = {f'layer_{i}': make(keys[i]) for i in range(24)}
  moments = {f'layer_{i}': make(keys[24 + i]) for i in range(24)}
  return train_state.TrainState(jnp.int32(1), params, moments, jnp.zeros(2, jnp.uint32))


def no_digests(tree):
  return dict.fromkeys(digests.named_leaves(tree), '')


def measure(times: dict[str, list[float]], state: train_state.TrainState, folder: pathlib.Path):
  """One save and one restore with digests and one without, each in a folder of its own."""
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )
  with timed(times, 'digests alone'):
    digests.of_tree(state)
  for name in ('with', 'without'):
    model_dir = folder / name
    off = mock.patch.object(digests, 'of_tree', no_digests)
    with off if name == 'without' else contextlib.nullcontext():
      checkpoints = manager.CheckpointManager(model_dir, manager.CheckpointConfig(), {'a': 1})
      with timed(times, f'save {name}: until training goes on'):
        checkpoints.save(state, None)
      with timed(times, f'save {name}: from there until committed'):
        checkpoints.wait()
      with timed(times, f'restore {name}'):
        jax.block_until_ready(checkpoints.restore(abstract, None, 1))
      checkpoints.close()
    shutil.rmtree(model_dir)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--folder', help='where to write; the default is that of temporary files')
  parser.add_argument('--millions', type=float, default=300, help='parameters, in millions')
  parser.add_argument('--repeats', type=int, default=5)
  args = parser.parse_args()
  state = jax.block_until_ready(random_state(args.millions))
  print(f'{checkpoint_room.num_bytes(state) / 1e9:.2f} GB on {jax.devices()}')
  times: dict[str, list[float]] = {}
  with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
    measure({}, state, pathlib.Path(scratch))  # compiles
    for _ in range(args.repeats):
      measure(times, state, pathlib.Path(scratch))
  for name, each in times.items():
    print(f'{name:40s} {statistics.median(each):8.3f} s')


if __name__ == '__main__':
  main()

"""The room that checkpoints take on a disk."""

import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from aya_train import destinations

UNFINISHED = '.orbax-checkpoint-tmp'


def num_bytes(state: Any) -> int:
  """Size of a checkpoint of a training state, given as arrays or as their shapes."""
  # Of random keys only the shape tells.
  sizes = (
    8 if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.dtype(x.dtype).itemsize
    for x in jax.tree.leaves(state)
  )
  return sum(
    math.prod(x.shape) * size for x, size in zip(jax.tree.leaves(state), sizes, strict=True)
  )


def unfinished_bytes(folder: epath.PathLike) -> int:
  """Room that checkpoints in a folder take which were never finished; the next run frees it."""
  folder = epath.Path(folder)
  if not destinations.is_local(folder) or not folder.is_dir():
    return 0
  halves = [path for path in folder.iterdir() if path.name.endswith(UNFINISHED)]
  # epath's own glob does not go into folders.
  files = (file for half in halves for file in pathlib.Path(half).rglob('*'))
  return sum(file.stat().st_size for file in files if file.is_file())

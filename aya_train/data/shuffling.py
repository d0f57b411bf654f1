"""Another order of a task's examples in each epoch, a function of the index."""

import functools
from typing import Any

import grain
import numpy as np

# Grain computes a permuted index from the index alone. That takes microseconds among thousands of
# examples, but 0.5 ms among 60 and 9 ms among 2.
_SMALL = 4_096


def shuffled(ds: grain.MapDataset, seed: int) -> grain.MapDataset:
  """`ds.shuffle(seed)`, also fast for a data set of few elements.

  Args:
    ds: of any length.
    seed: 0 <= seed < 2**32.
  """
  return _PermutedMapDataset(ds, seed) if len(ds) < _SMALL else ds.shuffle(seed=seed)


@functools.lru_cache(maxsize=2_048)  # of 16 KiB at most
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
  return np.random.default_rng((seed, epoch)).permutation(length).astype(np.int32)


class _PermutedMapDataset(grain.MapDataset):
  """Draws a permutation for each epoch."""

  def __init__(self, parent: grain.MapDataset, seed: int):
    super().__init__(parent)
    self._seed = seed

  def __len__(self) -> int:
    return len(self._parent)

  def __getitem__(self, index: Any) -> Any:
    if isinstance(index, slice):
      return self.slice(index)
    epoch, index_in_epoch = divmod(index, len(self))
    permuted = int(_permutation(len(self), self._seed, epoch)[index_in_epoch])
    return self._parent[epoch * len(self) + permuted]

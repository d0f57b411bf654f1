"""Who may attend to whom and with what bias, as fused kernels want to be told.

T query positions, S key positions, H heads, R buckets, P patterns.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
TILE = 128
MASKED = -1e10  # the score of a key that is not seen
_HIDDEN_QUERY, _HIDDEN_KEY = -1, -2


@dataclasses.dataclass(frozen=True)
class KernelOptions:
  """Width of a head, and whether the kernel's Python is run on any machine."""

  head_dim: int
  interpret: bool


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Visibility:
  """Who may attend to whom and with what bias; takes the place of a bias [B, H, T, S].

  Attributes:
    query_ids, key_ids: int32 [B, T] and [B, S]; a query sees the keys with its own id. Padding has
      ids that equal nothing.
    table_HR: float32 bias of each head and bucket, or None.
    patterns: of buckets, of each tile, or None.
    causal: keys after the query are hidden.
  """

  query_ids: Any
  key_ids: Any
  table_HR: Any
  patterns: 'Patterns | None' = dataclasses.field(metadata={'static': True})
  causal: bool = dataclasses.field(metadata={'static': True})


def visibility(
  query_valid: Array,
  key_valid: Array,
  query_segment_ids: Array | None,
  key_segment_ids: Array | None,
  *,
  table_HR: Array | None = None,
  patterns: 'Patterns | None' = None,
  causal: bool = False,
) -> Visibility:
  """Visibility with the meaning of `layers.attention_mask`; arguments [B, T] and [B, S]."""

  def ids(valid: Array, segment_ids: Array | None, hidden: int) -> Array:
    shown = jnp.ones_like(valid, jnp.int32) if segment_ids is None else segment_ids
    return jnp.where(valid, shown, hidden)

  return Visibility(
    ids(query_valid, query_segment_ids, _HIDDEN_QUERY),
    ids(key_valid, key_segment_ids, _HIDDEN_KEY),
    table_HR,
    patterns,
    causal,
  )


@dataclasses.dataclass(frozen=True)
class Patterns:
  """Which pattern of buckets each tile of scores has.

  Attributes:
    of_distance: index of the pattern by key tile minus query tile, as a tuple of pairs.
    buckets: the patterns' buckets as bytes of int32 [P, TILE, TILE] (key, query).
    num_buckets: R.
  """

  of_distance: tuple[tuple[int, int], ...]
  buckets: bytes
  num_buckets: int

  @classmethod
  def of(cls, bucket_of: Any, query_tiles: int, key_tiles: int, num_buckets: int) -> 'Patterns':
    """Args: bucket_of maps an int array of key minus query positions to buckets."""
    key_minus_query = np.arange(TILE)[:, None] - np.arange(TILE)[None, :]
    patterns: list[np.ndarray] = []
    of_distance = []
    for distance in range(1 - query_tiles, key_tiles):
      buckets = np.asarray(bucket_of(distance * TILE + key_minus_query), np.int32)
      same = [i for i, known in enumerate(patterns) if np.array_equal(known, buckets)]
      if not same:
        patterns.append(buckets)
      of_distance.append((distance, same[0] if same else len(patterns) - 1))
    return cls(tuple(of_distance), np.stack(patterns).tobytes(), num_buckets)

  @property
  def one_hot(self) -> np.ndarray:
    """float32 [R, P * TILE * TILE]: products with it expand a table and sum its gradient back."""
    buckets = np.frombuffer(self.buckets, np.int32)
    return (np.arange(self.num_buckets)[:, None] == buckets[None, :]).astype(np.float32)

  @property
  def count(self) -> int:
    return len(self.buckets) // (4 * TILE * TILE)

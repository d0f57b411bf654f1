"""Exact search: the passages of the greatest cosines with each query, tile by tile on the devices.

The corpus is read once for each block of queries, from memory maps, so neither need fit into a
device, and the corpus not into memory. Of equal scores the earlier passage comes first.
"""

import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from aya_train import partitioning

logger = logging.getLogger(__name__)
CORPUS_TILE = 16_384  # passages on a device at a time
QUERY_BLOCK = 4_096  # queries for which the corpus is read once
SAMPLE = 100  # queries on which FAISS is held against exact search
_AGREE = 1e-4  # scores of two libraries
_LEAST_RECALL = 0.99

Found = tuple[np.ndarray, np.ndarray]  # int64 rows and float32 scores, [queries, k] each


class Corpus(Protocol):
  """Vectors with rows from 0: a `vector_folder.VectorFolder`, or `ArrayCorpus`."""

  def __len__(self) -> int: ...

  def tiles(self, size: int) -> Iterator[tuple[int, np.ndarray]]: ...


class ArrayCorpus:
  """An array [passages, dimension] as a corpus."""

  def __init__(self, vectors: np.ndarray):
    self._vectors = vectors

  def __len__(self) -> int:
    return len(self._vectors)

  def tiles(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """See `vector_folder.VectorFolder.tiles`."""
    for start in range(0, len(self._vectors), size):
      yield start, np.asarray(self._vectors[start : start + size], np.float32)


def search(
  queries: np.ndarray,
  corpus: Corpus,
  k: int,
  partitioner: partitioning.Partitioner | None = None,
  *,
  tile: int = CORPUS_TILE,
  block: int = QUERY_BLOCK,
  advance: Callable[[int], None] = lambda count: None,
) -> Found:
  """The `k` best passages of each query; all, if there are fewer.

  Args:
    queries: float [queries, dimension].
    corpus: the passages.
    k: how many of them.
    partitioner: mesh; queries are spread over its rows. None: one device.
    tile, block: passages and queries that are compared at a time.
    advance: is told how many more queries are done.

  Raises:
    ValueError: `k` below 1, or vectors of two widths.
  """
  if k < 1:
    raise ValueError(f'a search for {k} passages: expected at least 1')
  k = min(k, len(corpus))
  partitioner = partitioner or partitioning.one_device()
  rows, scores = [], []
  for start in range(0, len(queries), block):
    part = np.asarray(queries[start : start + block], np.float32)
    found = _block(part, corpus, k, partitioner, max(tile, 1))
    rows.append(found[0])
    scores.append(found[1])
    advance(len(part))
  if not rows:
    return np.zeros((0, k), np.int64), np.zeros((0, k), np.float32)
  return np.concatenate(rows), np.concatenate(scores)


def _block(
  queries: np.ndarray, corpus: Corpus, k: int, partitioner: partitioning.Partitioner, tile: int
) -> Found:
  shards = partitioner.num_data_shards
  count, width = queries.shape
  padded = np.zeros((_padded(count, shards), width), np.float32)
  padded[:count] = queries
  placed = partitioner.place({'queries': padded})['queries']
  tile = min(tile, _padded(len(corpus), 1))
  best = partitioner.place(
    {
      'scores': np.full((len(padded), k), -np.inf, np.float32),
      'rows': np.full((len(padded), k), -1, np.int32),
    }
  )
  state = (best['scores'], best['rows'])
  offset = 0
  rows_of_part: list[int] = []
  for first, vectors in corpus.tiles(tile):
    if vectors.shape[1] != width:
      raise ValueError(f'queries have {width} dimensions, passages {vectors.shape[1]}')
    filled = np.zeros((tile, width), np.float32)
    filled[: len(vectors)] = vectors
    # Rows are counted in places of tiles, in 32 bits; a tile that is not full leaves a gap.
    rows_of_part.append(first)
    state = _merged(*state, placed, filled, np.int32(len(vectors)), np.int32(offset), k=k)
    offset += tile
    if offset + tile >= 2**31:
      raise ValueError(f'a corpus of more than {offset} passages: search it in parts')
  scores, places = (np.asarray(_whole(partitioner.replicated)(x))[:count] for x in state)
  firsts = np.asarray(rows_of_part, np.int64)
  return firsts[places // tile] + places % tile, scores


def _padded(count: int, shards: int) -> int:
  """The next power of two, so that few programs are compiled, that the mesh divides."""
  least = max(8, 1 << (count - 1).bit_length())
  return -(-least // shards) * shards


@functools.lru_cache(maxsize=8)
def _whole(sharding: Any) -> Callable[[jax.Array], jax.Array]:
  """Gives every host all rows."""
  return jax.jit(lambda x: x, out_shardings=sharding)


@functools.partial(jax.jit, static_argnames='k')
def _merged(
  scores: jax.Array,
  rows: jax.Array,
  queries: jax.Array,
  tile: jax.Array,
  count: jax.Array,
  offset: jax.Array,
  *,
  k: int,
) -> tuple[jax.Array, jax.Array]:
  """The best `k` of those so far and a tile's. `top_k` keeps the first of equal scores."""
  number = jnp.arange(tile.shape[0], dtype=jnp.int32)
  fresh = jnp.matmul(queries, tile.T, precision=jax.lax.Precision.HIGHEST)
  fresh = jnp.where(number[None, :] < count, fresh, -jnp.inf)
  fresh_scores, places = jax.lax.top_k(fresh, min(k, tile.shape[0]))
  joined = jnp.concatenate([scores, fresh_scores], axis=1)
  joined_rows = jnp.concatenate([rows, places + offset], axis=1)
  best, chosen = jax.lax.top_k(joined, k)
  return best, jnp.take_along_axis(joined_rows, chosen, axis=1)


# FAISS --------------------------------------------------------------------------------------------


def faiss_index(corpus: Corpus, dimension: int, factory: str = 'Flat') -> Any:
  """An index of FAISS over a corpus, by inner product; it holds all vectors in memory.

  Args:
    corpus: the passages.
    dimension: of them.
    factory: in FAISS's words, 'Flat', 'HNSW32', 'IVF1024,Flat' ...

  Raises:
    ValueError: faiss is not installed, or does not know the words.
  """
  try:
    import faiss
  except ImportError as error:
    raise ValueError(
      "--search faiss needs faiss-cpu, which is not installed: pip install 'aya-train[embed]'; or "
      '--search exact'
    ) from error
  try:
    index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
  except RuntimeError as error:
    raise ValueError(f'--search faiss:{factory}: FAISS knows no such index') from error
  if not index.is_trained:
    first = next((vectors for _, vectors in corpus.tiles(1 << 18)), None)
    index.train(np.ascontiguousarray(first))
  for _, vectors in corpus.tiles(CORPUS_TILE):
    index.add(np.ascontiguousarray(vectors))
  return index


def faiss_search(
  queries: np.ndarray,
  corpus: Corpus,
  k: int,
  index: Any,
  partitioner: partitioning.Partitioner | None = None,
) -> Found:
  """`search` by an index of FAISS, held against exact search on a sample of the queries.

  Raises:
    ValueError: less than 99 % of what exact search finds for the sample is found.
  """
  k = min(k, len(corpus))
  scores, rows = index.search(np.ascontiguousarray(queries, np.float32), k)
  order = np.lexsort((rows, -scores), axis=1)  # of equal scores the earlier row first, as here
  scores, rows = (np.take_along_axis(x, order, axis=1) for x in (scores, rows))
  chosen = np.unique(np.linspace(0, len(queries) - 1, min(SAMPLE, len(queries))).astype(int))
  exact_rows, exact_scores = search(queries[chosen], corpus, k, partitioner)
  hits = [
    # What has the score of the last one exact search has is as good as that.
    np.mean(np.isin(exact, found) | (best <= best[-1] + _AGREE))
    for exact, best, found in zip(exact_rows, exact_scores, rows[chosen], strict=True)
  ]
  recall = float(np.mean(hits)) if hits else 1.0
  logger.info(
    'FAISS finds %.2f %% of what exact search finds for %d queries', 100 * recall, len(hits)
  )
  if recall < _LEAST_RECALL:
    raise ValueError(
      f'FAISS finds {100 * recall:.1f} % of what exact search finds for {len(hits)} queries, less '
      f'than {100 * _LEAST_RECALL:.0f} %: take --search exact, or a more careful index'
    )
  return rows.astype(np.int64), scores

"""T5's attention as kernels for NVIDIA GPUs: scores never reach HBM, forward or backward.

FlashAttention-2 (Dao 2023, arXiv:2307.08691, algorithms 1 and 2) in Pallas for Triton, with what
T5 adds: a bucketed relative position bias that is learnt, packed rows, and dropout that draws once
for each key, which multiplies the values beforehand.

The bias of a block of scores depends on the distance of its key block to its query block alone.
So the biases are an array [H, N, BLOCK, BLOCK] of all N distances, made outside of the 32 learnt
numbers of each head; one small program per distance sums their gradient, in a fixed order, so that
a step that is repeated gives the same bits.

Dimension letters: B batch, T query positions, S key positions, H heads, K head width, J = H x K,
R buckets, N distances of blocks.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from aya_train import partitioning
from aya_train.models import attention_visibility

Array = jax.Array
BLOCK = 64
MAX_LENGTH = 1 << 15
_TILE = attention_visibility.TILE
_MASKED = attention_visibility.MASKED
_EACH_ROW = (((1,), (1,)), ((), ()))  # a[i, k] b[j, k]
_EACH_COLUMN = (((0,), (0,)), ((), ()))  # a[k, i] b[k, j]
_PLAIN = (((1,), (0,)), ((), ()))  # a[i, k] b[k, j]


def takes_width(head_dim: int) -> bool:
  """Triton's blocks are powers of two, its products at least 16 wide."""
  return head_dim in (16, 32, 64, 128)


def forward(
  options: attention_visibility.KernelOptions,
  query: Array,
  key: Array,
  value: Array,
  visible: attention_visibility.Visibility,
  keep: Array,
) -> tuple[Array, Array]:
  """[B, T, J], and the logarithm of each query's sum of exponentials, float32 [B, H, T]."""
  call = _Call.of(options, query, key, visible)
  out, log_sum = call.run(
    _forward_body,
    'attention_forward',
    call.blocks_of(call.queries),
    [
      (query, call.joined(_ONE)),
      (key, call.joined(_ALL, call.keys)),
      (_kept(value, keep, call.width), call.joined(_ALL, call.keys)),
      (visible.query_ids, call.row(_ONE)),
      (visible.key_ids, call.row(_ALL, call.keys)),
      *call.biases(visible),
    ],
    [
      (query.shape, query.dtype, call.joined(_ONE)),
      ((call.batch, call.heads, call.queries), jnp.float32, call.by_head(_ONE)),
    ],
  )
  return out, log_sum


def backward(
  options: attention_visibility.KernelOptions,
  query: Array,
  key: Array,
  value: Array,
  visible: attention_visibility.Visibility,
  keep: Array,
  out: Array,
  log_sum: Array,
  d_out: Array,
) -> tuple[Array, Array, Array, Array | None]:
  """Gradients of queries, keys, values and the table, this last one summed over devices."""
  call = _Call.of(options, query, key, visible)
  kept = _kept(value, keep, call.width)
  by_head = (*out.shape[:2], call.heads, call.width)
  products = (d_out.astype(jnp.float32) * out.astype(jnp.float32)).reshape(by_head)
  delta = jnp.sum(products, axis=-1).transpose(0, 2, 1)

  def inputs(of_queries: str, of_keys: str) -> list[tuple[Array, pl.BlockSpec]]:
    at_query = call.joined(of_queries, call.queries)
    at_key = call.joined(of_keys, call.keys)
    return [
      (query, at_query),
      (key, at_key),
      (kept, at_key),
      (visible.query_ids, call.row(of_queries, call.queries)),
      (visible.key_ids, call.row(of_keys, call.keys)),
      (d_out, at_query),
      (log_sum, call.by_head(of_queries)),
      (delta, call.by_head(of_queries)),
    ]

  biases = call.biases(visible)
  (d_query,) = call.run(
    _query_gradient_body,
    'attention_backward_queries',
    call.blocks_of(call.queries),
    [*inputs(_ONE, _ALL), *biases],
    [(query.shape, query.dtype, call.joined(_ONE))],
  )
  d_key, d_kept = call.run(
    _key_gradient_body,
    'attention_backward_keys',
    call.blocks_of(call.keys),
    [*inputs(_ALL, _ONE), *biases],
    [(x.shape, dtype, call.joined(_ONE)) for x, dtype in ((key, key.dtype), (value, jnp.float32))],
  )
  d_value = _kept(d_kept, keep, call.width).astype(value.dtype)
  if not biases:
    return d_query, d_key, d_value, None
  bias = biases[0][0]
  of_distance = pl.BlockSpec((None, None, BLOCK, BLOCK), lambda n, h: (h, n, 0, 0))
  (d_bias,) = call.run(
    _bias_gradient_body,
    'attention_backward_bias',
    (bias.shape[1], call.heads),
    [*inputs(_EVERY_ROW, _EVERY_ROW), (bias, of_distance)],
    [(bias.shape, jnp.float32, of_distance)],
  )
  return d_query, d_key, d_value, partitioning.sum_over(_of_buckets(d_bias, visible), 'batch')


def _kept(value_BSJ: Array, keep_BHS: Array, head_dim: int) -> Array:
  """Values that dropout has multiplied: it draws once for each key, the same for all queries."""
  keep_BSJ = jnp.repeat(keep_BHS.transpose(0, 2, 1), head_dim, axis=2)
  return (value_BSJ * keep_BSJ).astype(value_BSJ.dtype)


# Biases by distance of blocks --------------------------------------------------------------------


def _buckets(visible: attention_visibility.Visibility) -> np.ndarray:
  """Bucket of each score of a block, int32 [N, query, key], for the distances of blocks in order.

  Two blocks of queries and of keys lie in each tile of the patterns.
  """
  assert visible.patterns is not None
  patterns = visible.patterns
  of_distance = dict(patterns.of_distance)
  halves = _TILE // BLOCK
  by_key = np.frombuffer(patterns.buckets, np.int32).reshape(-1, halves, BLOCK, halves, BLOCK)
  queries, keys = (x.shape[1] // BLOCK for x in (visible.query_ids, visible.key_ids))
  found = []
  for distance in range(1 - queries, keys):
    query_at = next(a for a in range(halves) if (distance + a) // halves in of_distance)
    tile, key_at = divmod(distance + query_at, halves)
    found.append(by_key[of_distance[tile], key_at, :, query_at].T)
  return np.stack(found)


def _of_buckets(d_tiles_HNQK: Array, visible: attention_visibility.Visibility) -> Array:
  """The tiles' gradient summed to [H, R]; a product, whose order of sums is fixed."""
  assert visible.patterns is not None
  buckets = jnp.asarray(_buckets(visible).reshape(-1))
  one_hot = jax.nn.one_hot(buckets, visible.patterns.num_buckets, dtype=jnp.float32)
  flat = d_tiles_HNQK.reshape(d_tiles_HNQK.shape[0], -1)
  return jnp.dot(flat, one_hot, precision=lax.Precision.HIGHEST)


# Calling the kernels, on one shard ---------------------------------------------------------------


# How much of a sequence a program is given: a block by the grid, all of a row, or of every row.
_ONE, _ALL, _EVERY_ROW = 'one', 'all', 'every row'


@dataclasses.dataclass(frozen=True)
class _Call:
  """Sizes of one call, and what of each array a program sees.

  Grids are (blocks, heads, rows), or (distances, heads) where a program sees every row.
  """

  batch: int
  queries: int
  keys: int
  heads: int
  width: int
  causal: bool
  interpret: bool

  @classmethod
  def of(
    cls,
    options: attention_visibility.KernelOptions,
    query: Array,
    key: Array,
    visible: attention_visibility.Visibility,
  ) -> '_Call':
    batch, queries, joined = query.shape
    heads, width = joined // options.head_dim, options.head_dim
    return cls(batch, queries, key.shape[1], heads, width, visible.causal, options.interpret)

  def blocks_of(self, length: int) -> tuple[int, int, int]:
    return (length // BLOCK, self.heads, self.batch)

  def joined(self, extent: str, length: int = 0) -> pl.BlockSpec:
    """One head's columns of [B, length, J]."""
    if extent == _EVERY_ROW:
      return pl.BlockSpec((self.batch, length, self.width), lambda n, h: (0, 0, h))
    if extent == _ALL:
      return pl.BlockSpec((None, length, self.width), lambda i, h, b: (b, 0, h))
    return pl.BlockSpec((None, BLOCK, self.width), lambda i, h, b: (b, i, h))

  def row(self, extent: str, length: int = 0) -> pl.BlockSpec:
    """Of [B, length]."""
    if extent == _EVERY_ROW:
      return pl.BlockSpec((self.batch, length), lambda n, h: (0, 0))
    if extent == _ALL:
      return pl.BlockSpec((None, length), lambda i, h, b: (b, 0))
    return pl.BlockSpec((None, BLOCK), lambda i, h, b: (b, i))

  def by_head(self, extent: str) -> pl.BlockSpec:
    """One head's of [B, H, T]."""
    if extent == _EVERY_ROW:
      return pl.BlockSpec((self.batch, None, self.queries), lambda n, h: (0, h, 0))
    if extent == _ALL:
      return pl.BlockSpec((None, None, self.queries), lambda i, h, b: (b, h, 0))
    return pl.BlockSpec((None, None, BLOCK), lambda i, h, b: (b, h, i))

  def biases(self, visible: attention_visibility.Visibility) -> list[tuple[Array, pl.BlockSpec]]:
    """float32 [H, N, BLOCK, BLOCK] and one head's of it, as a list of one or none."""
    if visible.table_HR is None:
      return []
    tiles = jnp.take(visible.table_HR, jnp.asarray(_buckets(visible)), axis=1)
    whole = pl.BlockSpec((None, *tiles.shape[1:]), lambda i, h, b: (h, 0, 0, 0))
    return [(tiles, whole)]

  def run(
    self,
    body: Callable[..., None],
    name: str,
    grid: tuple[int, ...],
    inputs: list[tuple[Array, pl.BlockSpec]],
    outputs: list[tuple[tuple[int, ...], Any, pl.BlockSpec]],
  ) -> list[Array]:
    return pl.pallas_call(
      functools.partial(body, self),
      grid=grid,
      in_specs=[spec for _, spec in inputs],
      out_specs=[spec for *_, spec in outputs],
      out_shape=[jax.ShapeDtypeStruct(shape, dtype) for shape, dtype, _ in outputs],
      compiler_params=plgpu.CompilerParams(num_warps=8, num_stages=2),
      name=name,
      interpret=self.interpret,
    )(*(x for x, _ in inputs))


# The kernels: one block of one head --------------------------------------------------------------


def _dot(call: _Call, a: Array, b: Array, dimensions: Any) -> Array:
  """float32; float32 arguments are three parts of tensor cores' 10 bits, not one."""
  precision: Any = None
  if a.dtype == jnp.float32:
    three_parts = lax.DotAlgorithmPreset.TF32_TF32_F32_X3
    precision = lax.Precision.HIGHEST if call.interpret else three_parts
  return lax.dot_general(a, b, dimensions, precision=precision, preferred_element_type=jnp.float32)


def _at(block: Any) -> Any:
  return pl.ds(block * BLOCK, BLOCK)


def _scores(
  call: _Call, q: Array, k: Array, ids_q: Array, ids_k: Array, bias: Array | None, i: Any, j: Any
) -> Array:
  """Masked scores [query, key] of block i of the queries and block j of the keys, float32."""
  scores = _dot(call, q, k, _EACH_ROW)
  if bias is not None:
    scores += bias
  visible = ids_q[:, None] == ids_k[None, :]
  if call.causal:
    query_at = lax.broadcasted_iota(jnp.int32, scores.shape, 0) + i * BLOCK
    key_at = lax.broadcasted_iota(jnp.int32, scores.shape, 1) + j * BLOCK
    visible &= key_at <= query_at
  return jnp.where(visible, scores, _MASKED)


def _bias_at(call: _Call, bias_refs: Any, i: Any, j: Any) -> Array | None:
  return bias_refs[0][j - i + call.queries // BLOCK - 1] if bias_refs else None


def _key_blocks(call: _Call, i: Any) -> Any:
  """How many blocks of keys block i of the queries may see."""
  return i + 1 if call.causal else call.keys // BLOCK


def _forward_body(call, q_ref, k_ref, v_ref, ids_q_ref, ids_k_ref, *refs):
  *bias_refs, out_ref, log_sum_ref = refs
  i = pl.program_id(0)
  q, ids_q = q_ref[...], ids_q_ref[...]

  def step(j, carry):
    most, total, mixed = carry
    at = _at(j)
    bias = _bias_at(call, bias_refs, i, j)
    scores = _scores(call, q, k_ref[at, :], ids_q, ids_k_ref[at], bias, i, j)
    more = jnp.maximum(most, jnp.max(scores, axis=1))
    weights = jnp.exp(scores - more[:, None])
    shrunk = jnp.exp(most - more)
    value = v_ref[at, :]
    part = _dot(call, weights.astype(value.dtype), value, _PLAIN)
    return more, total * shrunk + jnp.sum(weights, axis=1), mixed * shrunk[:, None] + part

  start = (
    jnp.full((BLOCK,), -jnp.inf, jnp.float32),
    jnp.zeros((BLOCK,), jnp.float32),
    jnp.zeros((BLOCK, call.width), jnp.float32),
  )
  most, total, mixed = lax.fori_loop(0, _key_blocks(call, i), step, start)
  out_ref[...] = (mixed / total[:, None]).astype(out_ref.dtype)
  log_sum_ref[...] = most + jnp.log(total)


def _weights_and_gradient(call, q, k, v, ids_q, ids_k, d_o, log_sum, delta, bias, i, j):
  """Weights of a block [query, key], and the gradient of its scores; float32."""
  scores = _scores(call, q, k, ids_q, ids_k, bias, i, j)
  weights = jnp.exp(scores - log_sum[:, None])
  return weights, weights * (_dot(call, d_o, v, _EACH_ROW) - delta[:, None])


def _query_gradient_body(
  call, q_ref, k_ref, v_ref, ids_q_ref, ids_k_ref, d_out_ref, log_sum_ref, delta_ref, *refs
):
  *bias_refs, dq_ref = refs
  i = pl.program_id(0)
  q, ids_q, d_o = q_ref[...], ids_q_ref[...], d_out_ref[...]
  log_sum, delta = log_sum_ref[...], delta_ref[...]

  def step(j, d_query):
    at = _at(j)
    k, bias = k_ref[at, :], _bias_at(call, bias_refs, i, j)
    _, d_scores = _weights_and_gradient(
      call, q, k, v_ref[at, :], ids_q, ids_k_ref[at], d_o, log_sum, delta, bias, i, j
    )
    return d_query + _dot(call, d_scores.astype(k.dtype), k, _PLAIN)

  nothing = jnp.zeros((BLOCK, call.width), jnp.float32)
  d_query = lax.fori_loop(0, _key_blocks(call, i), step, nothing)
  dq_ref[...] = d_query.astype(dq_ref.dtype)


def _key_gradient_body(
  call, q_ref, k_ref, v_ref, ids_q_ref, ids_k_ref, d_out_ref, log_sum_ref, delta_ref, *refs
):
  *bias_refs, dk_ref, dv_ref = refs
  j = pl.program_id(0)
  k, v, ids_k = k_ref[...], v_ref[...], ids_k_ref[...]

  def step(i, carry):
    d_key, d_value = carry
    at = _at(i)
    q, d_o, bias = q_ref[at, :], d_out_ref[at, :], _bias_at(call, bias_refs, i, j)
    weights, d_scores = _weights_and_gradient(
      call, q, k, v, ids_q_ref[at], ids_k, d_o, log_sum_ref[at], delta_ref[at], bias, i, j
    )
    d_value += _dot(call, weights.astype(d_o.dtype), d_o, _EACH_COLUMN)
    return d_key + _dot(call, d_scores.astype(q.dtype), q, _EACH_COLUMN), d_value

  nothing = jnp.zeros((BLOCK, call.width), jnp.float32)
  first = j if call.causal else 0
  d_key, d_value = lax.fori_loop(first, call.queries // BLOCK, step, (nothing, nothing))
  dk_ref[...] = d_key.astype(dk_ref.dtype)
  dv_ref[...] = d_value


def _bias_gradient_body(
  call,
  q_ref,
  k_ref,
  v_ref,
  ids_q_ref,
  ids_k_ref,
  d_out_ref,
  log_sum_ref,
  delta_ref,
  bias_ref,
  d_bias_ref,
):
  distance = pl.program_id(0) - (call.queries // BLOCK - 1)
  bias = bias_ref[...]
  first = jnp.maximum(0, -distance)
  last = jnp.minimum(call.queries // BLOCK, call.keys // BLOCK - distance)
  if call.causal:
    last = jnp.where(distance > 0, first, last)

  def of_row(b, d_bias):
    def step(i, d_bias):
      j = i + distance
      at, of_keys = _at(i), _at(j)
      _, d_scores = _weights_and_gradient(
        call,
        q_ref[b, at, :],
        k_ref[b, of_keys, :],
        v_ref[b, of_keys, :],
        ids_q_ref[b, at],
        ids_k_ref[b, of_keys],
        d_out_ref[b, at, :],
        log_sum_ref[b, at],
        delta_ref[b, at],
        bias,
        i,
        j,
      )
      return d_bias + d_scores

    return lax.fori_loop(first, last, step, d_bias)

  nothing = jnp.zeros((BLOCK, BLOCK), jnp.float32)
  d_bias_ref[...] = lax.fori_loop(0, call.batch, of_row, nothing)

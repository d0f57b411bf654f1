"""T5's attention as one TPU kernel: scores never reach HBM, forward or backward.

A Pallas kernel in the manner of FlashAttention (Dao et al. 2022) for what T5 adds: a bucketed
relative position bias that is learnt, packed rows, and dropout that draws once for each key. Whole
rows of keys fit in VMEM at T5's lengths, so the softmax is the plain one.

Everything inside is transposed, keys in rows and queries in columns: reductions over keys then run
along sublanes, and statistics of queries are lane vectors that broadcast as they are.

The bias depends on key minus query position only, so that a tile of TILE x TILE scores sees one of
a few patterns: one for each distance of tiles that is still near, and one for each bucket that
whole tiles fall into. The kernel adds and accumulates these patterns [H, P, TILE, TILE]; outside
they are made of the 32 learnt numbers of each head, and their gradient is summed back to 32 before
it goes to another chip.

Dimension letters: B batch, T query positions, S key positions, H heads, K head width, J = H x K,
R buckets, P patterns.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from aya_train import partitioning
from aya_train.models import attention_visibility

Array = jax.Array
TILE = attention_visibility.TILE
# A head's rows of keys, queries and their gradients must fit in VMEM, scores of TILE queries too.
MAX_LENGTH = 4096
_MASKED = attention_visibility.MASKED
_EACH_ROW = (((1,), (1,)), ((), ()))  # a[i, k] b[j, k]
_EACH_COLUMN = (((0,), (0,)), ((), ()))  # a[k, i] b[k, j]
_PLAIN = (((1,), (0,)), ((), ()))  # a[i, k] b[k, j]


def takes_width(head_dim: int) -> bool:
  """Any: heads fill lanes together."""
  return head_dim > 0


@dataclasses.dataclass(frozen=True)
class _Shape:
  """Sizes of one call; `group` heads fill the lanes of one block."""

  batch: int
  queries: int
  keys: int
  heads: int
  width: int
  patterns: int

  @property
  def group(self) -> int:
    group = max(1, TILE // self.width)
    return group if self.heads % group == 0 else self.heads

  @property
  def grid(self) -> tuple[int, int]:
    # Rows innermost: a head's patterns stay in VMEM and their gradient adds up there.
    return (self.heads // self.group, self.batch)

  def joined(self, length: int) -> pl.BlockSpec:
    return pl.BlockSpec((1, length, self.group * self.width), lambda h, b: (b, 0, h))

  def by_head(self, length: int) -> pl.BlockSpec:
    return pl.BlockSpec((1, 1, self.group, length), lambda h, b: (b, h, 0, 0))

  def row(self, length: int) -> pl.BlockSpec:
    return pl.BlockSpec((1, 1, length), lambda h, b: (b, 0, 0))

  @property
  def tiles(self) -> pl.BlockSpec:
    return pl.BlockSpec((self.group, self.patterns, TILE, TILE), lambda h, b: (h, 0, 0, 0))

  def grouped(self, x_BHL: Array) -> Array:
    return x_BHL.reshape(self.batch, self.grid[0], self.group, x_BHL.shape[-1])

  def flops(self, products: int, causal: bool) -> int:
    tiles = self.queries // TILE
    share = (tiles + 1) / (2 * tiles) if causal else 1.0
    size = self.batch * self.heads * self.queries * self.keys * self.width
    return int(2 * products * size * share)


def _shape(
  options: attention_visibility.KernelOptions,
  query: Array,
  key: Array,
  visible: attention_visibility.Visibility,
) -> _Shape:
  batch, queries, joined = query.shape
  patterns = 0 if visible.patterns is None else visible.patterns.count
  return _Shape(
    batch, queries, key.shape[1], joined // options.head_dim, options.head_dim, patterns
  )


def _tiles(visible: attention_visibility.Visibility, shape: _Shape) -> list[Array]:
  """The patterns' biases, float32 [H, P, key, query], as a list of one or none."""
  if visible.table_HR is None or visible.patterns is None:
    return []
  one_hot = visible.patterns.one_hot
  tiles = jnp.dot(visible.table_HR, one_hot, precision=jax.lax.Precision.HIGHEST)
  return [tiles.reshape(shape.heads, shape.patterns, TILE, TILE)]


def _call(kernel, options, shape, visible, name, products, in_specs, out_specs, out_shapes, inputs):
  size = sum(x.size * x.dtype.itemsize for x in [*inputs, *out_shapes])
  scores = shape.batch * shape.heads * shape.queries * shape.keys
  kernel = functools.partial(
    kernel,
    shape=shape,
    causal=visible.causal,
    of_distance=dict(visible.patterns.of_distance) if visible.patterns else {},
  )
  return pl.pallas_call(
    kernel,
    grid=shape.grid,
    in_specs=in_specs,
    out_specs=out_specs,
    out_shape=out_shapes,
    compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel', 'arbitrary')),
    cost_estimate=pl.CostEstimate(
      flops=shape.flops(products, visible.causal), transcendentals=scores, bytes_accessed=size
    ),
    name=name,
    interpret=options.interpret,
  )(*inputs)


def forward(
  options: attention_visibility.KernelOptions,
  query: Array,
  key: Array,
  value: Array,
  visible: attention_visibility.Visibility,
  keep: Array,
) -> tuple[Array, Array]:
  """[B, T, J], and the logarithm of each query's sum of exponentials, float32 [B, H, T]."""
  shape = _shape(options, query, key, visible)
  tiles = _tiles(visible, shape)
  out, log_sum = _call(
    _forward_body,
    options,
    shape,
    visible,
    'attention_forward',
    2,
    in_specs=[
      shape.joined(shape.queries),
      shape.joined(shape.keys),
      shape.joined(shape.keys),
      shape.row(shape.queries),
      shape.row(shape.keys),
      shape.by_head(shape.keys),
      *([shape.tiles] if tiles else []),
    ],
    out_specs=[shape.joined(shape.queries), shape.by_head(shape.queries)],
    out_shapes=[
      jax.ShapeDtypeStruct(query.shape, query.dtype),
      jax.ShapeDtypeStruct((shape.batch, *_hq(shape)), jnp.float32),
    ],
    inputs=[
      query,
      key,
      value,
      visible.query_ids[:, None],
      visible.key_ids[:, None],
      shape.grouped(keep),
      *tiles,
    ],
  )
  return out, log_sum.reshape(shape.batch, shape.heads, shape.queries)


def _hq(shape: _Shape) -> tuple[int, int, int]:
  return (shape.grid[0], shape.group, shape.queries)


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
  shape = _shape(options, query, key, visible)
  tiles = _tiles(visible, shape)
  joined_q, joined_k = shape.joined(shape.queries), shape.joined(shape.keys)
  results = _call(
    _backward_body,
    options,
    shape,
    visible,
    'attention_backward',
    5,
    in_specs=[
      joined_q,
      joined_k,
      joined_k,
      shape.row(shape.queries),
      shape.row(shape.keys),
      shape.by_head(shape.keys),
      joined_q,
      shape.by_head(shape.queries),
      joined_q,
      *([shape.tiles] if tiles else []),
    ],
    out_specs=[joined_q, joined_k, joined_k, *([shape.tiles] if tiles else [])],
    out_shapes=[
      *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (query, key, value)),
      *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in tiles),
    ],
    inputs=[
      query,
      key,
      value,
      visible.query_ids[:, None],
      visible.key_ids[:, None],
      shape.grouped(keep),
      out,
      shape.grouped(log_sum),
      d_out,
      *tiles,
    ],
  )
  if not tiles:
    return (*results, None)
  d_query, d_key, d_value, d_tiles = results
  assert visible.patterns is not None
  d_table = jnp.dot(
    d_tiles.reshape(shape.heads, -1),
    visible.patterns.one_hot.T,
    precision=jax.lax.Precision.HIGHEST,
  )
  return d_query, d_key, d_value, partitioning.sum_over(d_table, 'batch')


# One group of heads, one row of the batch ------------------------------------------


def _column(row: Array) -> Array:
  """[1, L] to [L, TILE], the same in every lane."""
  return jnp.broadcast_to(row, (TILE, row.shape[1])).T


def _scores(k, q, ids_k, ids_q, tile, visible_keys: int, chunk: int, causal: bool):
  """Masked scores [visible keys, TILE queries], float32."""
  scores = jax.lax.dot_general(k[:visible_keys], q, _EACH_ROW, preferred_element_type=jnp.float32)
  if tile is not None:
    scores += jnp.concatenate([tile(i - chunk) for i in range(visible_keys // TILE)], axis=0)
  visible = ids_k[:visible_keys] == ids_q
  if causal:
    shape = (visible_keys, TILE)
    key_at = jax.lax.broadcasted_iota(jnp.int32, shape, 0)
    query_at = jax.lax.broadcasted_iota(jnp.int32, shape, 1) + chunk * TILE
    visible &= key_at <= query_at
  return jnp.where(visible, scores, _MASKED)


def _visible_keys(shape: _Shape, chunk: int, causal: bool) -> int:
  """Keys that any query of a chunk may see; tiles beyond are not computed."""
  return min(shape.keys, (chunk + 1) * TILE) if causal else shape.keys


def _head(shape: _Shape, h: int) -> slice:
  return slice(h * shape.width, (h + 1) * shape.width)


def _forward_body(
  q_ref, k_ref, v_ref, ids_q_ref, ids_k_ref, keep_ref, *refs, shape, causal, of_distance
):
  *tiles_ref, out_ref, log_sum_ref = refs
  ids_k = _column(ids_k_ref[0])
  heads = []
  for h in range(shape.group):
    lanes = _head(shape, h)
    kept = _column(keep_ref[0, 0, h : h + 1, :])[:, : shape.width]
    value = (v_ref[0, :, lanes] * kept).astype(v_ref.dtype)
    heads.append((k_ref[0, :, lanes], value))
  for chunk in range(shape.queries // TILE):
    at = slice(chunk * TILE, (chunk + 1) * TILE)
    keys = _visible_keys(shape, chunk, causal)
    outs = []
    for h, (k, v) in enumerate(heads):
      tile = (lambda d, h=h: tiles_ref[0][h, of_distance[d]]) if tiles_ref else None
      q = q_ref[0, at, _head(shape, h)]
      scores = _scores(k, q, ids_k, ids_q_ref[0, :, at], tile, keys, chunk, causal)
      most = jnp.max(scores, axis=0, keepdims=True)
      weights = jnp.exp(scores - most)
      total = jnp.sum(weights, axis=0, keepdims=True)
      mixed = jax.lax.dot_general(
        v[:keys], weights.astype(v.dtype), _EACH_COLUMN, preferred_element_type=jnp.float32
      )
      outs.append(mixed / total)
      log_sum_ref[0, 0, h : h + 1, at] = most + jnp.log(total)
    out_ref[0, at, :] = jnp.concatenate(outs, axis=0).T.astype(out_ref.dtype)


def _backward_body(
  q_ref,
  k_ref,
  v_ref,
  ids_q_ref,
  ids_k_ref,
  keep_ref,
  out_ref,
  log_sum_ref,
  d_out_ref,
  *refs,
  shape,
  causal,
  of_distance,
):
  tiles_ref, (dq_ref, dk_ref, dv_ref), d_tiles_ref = (
    (refs[:1], refs[1:4], refs[4:]) if of_distance else ((), refs, ())
  )
  if d_tiles_ref:

    @pl.when(pl.program_id(1) == 0)
    def _():
      d_tiles_ref[0][...] = jnp.zeros(d_tiles_ref[0].shape, jnp.float32)

  ids_k = _column(ids_k_ref[0])
  kept = [_column(keep_ref[0, 0, h : h + 1, :])[:, : shape.width] for h in range(shape.group)]
  d_keys = [jnp.zeros((shape.keys, shape.width), jnp.float32) for _ in range(shape.group)]
  d_values = list(d_keys)
  for chunk in range(shape.queries // TILE):
    at = slice(chunk * TILE, (chunk + 1) * TILE)
    keys = _visible_keys(shape, chunk, causal)
    d_out = d_out_ref[0, at, :]
    products = (d_out.astype(jnp.float32) * out_ref[0, at, :].astype(jnp.float32)).T
    d_queries = []
    for h in range(shape.group):
      lanes = _head(shape, h)
      tile = (lambda d, h=h: tiles_ref[0][h, of_distance[d]]) if tiles_ref else None
      q, k = q_ref[0, at, lanes], k_ref[0, :, lanes]
      v = (v_ref[0, :, lanes] * kept[h]).astype(v_ref.dtype)
      d_o = d_out[:, lanes]
      scores = _scores(k, q, ids_k, ids_q_ref[0, :, at], tile, keys, chunk, causal)
      weights = jnp.exp(scores - log_sum_ref[0, 0, h : h + 1, at])
      d_weights = jax.lax.dot_general(v[:keys], d_o, _EACH_ROW, preferred_element_type=jnp.float32)
      delta = jnp.sum(products[lanes], axis=0, keepdims=True)
      d_scores = weights * (d_weights - delta)
      if d_tiles_ref:
        for i in range(keys // TILE):
          d_tiles_ref[0][h, of_distance[i - chunk]] += d_scores[i * TILE : (i + 1) * TILE]
      d_scores = d_scores.astype(q.dtype)
      d_values[h] = _add(
        d_values[h],
        jax.lax.dot_general(
          weights.astype(q.dtype), d_o, _PLAIN, preferred_element_type=jnp.float32
        ),
      )
      d_keys[h] = _add(
        d_keys[h], jax.lax.dot_general(d_scores, q, _PLAIN, preferred_element_type=jnp.float32)
      )
      d_queries.append(
        jax.lax.dot_general(k[:keys], d_scores, _EACH_COLUMN, preferred_element_type=jnp.float32)
      )
    dq_ref[0, at, :] = jnp.concatenate(d_queries, axis=0).T.astype(dq_ref.dtype)
  dk_ref[0] = jnp.concatenate(d_keys, axis=1).astype(dk_ref.dtype)
  d_kept = [d_value * k for d_value, k in zip(d_values, kept, strict=True)]
  dv_ref[0] = jnp.concatenate(d_kept, axis=1).astype(dv_ref.dtype)


def _add(total: Array, part: Array) -> Array:
  """Adds rows to the first rows of a total."""
  rows = part.shape[0]
  if rows == total.shape[0]:
    return total + part
  return jnp.concatenate([total[:rows] + part, total[rows:]], axis=0)

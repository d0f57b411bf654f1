"""A decoding loop whose arrays are halved as soon as half of the rows have ended.

A step costs by the rows of its arrays, ended ones too, and a batch lasts as long as its longest
answer. Where rows are split over devices each device keeps those it has, and all go on with the
same number.

Shape letters: B rows of the batch, K decodes of a row, N = B * K, G groups of rows (one a device),
R = B / G, r the rows of a group that are kept, X any other axes.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from aya_train import decode_rows

# Fewer rows of a device are no faster: a step then reads weights for most of its time.
FEWEST_ROWS = 8
MAX_HALVINGS = 3  # each is a program of its own within the program
Take = Callable[[jax.Array, int], jax.Array]
AnyState = TypeVar('AnyState', bound=NamedTuple)


class Narrowable(Protocol):
  """A model of decode_rows.TokensToLogits that can go on with some of its rows."""

  def __call__(
    self, tokens_N1: jax.Array, position: jax.Array, cache: decode_rows.Cache
  ) -> tuple[jax.Array, decode_rows.Cache]: ...

  def narrowed(self, take: Take) -> decode_rows.TokensToLogits:
    """The model of the rows that `take(array, axis of its rows)` keeps."""


def run(
  tokens_to_logits: decode_rows.TokensToLogits,
  state: AnyState,
  *,
  step: Callable[[decode_rows.TokensToLogits, AnyState], AnyState],
  is_open: Callable[[AnyState], jax.Array],
  results: tuple[str, ...],
  batch: int,
  cache_offset: int,
) -> AnyState:
  """Steps until no row is open.

  Args:
    tokens_to_logits: the model; only one that is `Narrowable` loses rows.
    state: at the first position; a NamedTuple whose fields have rows (b * K + k, or [B, ...]) on
      axis 0, but for `position` and `cache`.
    step: the state after one more token.
    is_open: bool [B], the rows that a further step can change. One that closed stays closed.
    results: fields that are wanted of all rows at the end.
    batch: B.
    cache_offset: axis of the rows in the leaves of the cache.

  Returns:
    The last state. Only its `results` mean something.
  """
  groups = _row_groups(batch)
  loop = _Loop(step, is_open, results, groups, cache_offset)
  halvings = MAX_HALVINGS if hasattr(tokens_to_logits, 'narrowed') else 0
  return _run(tokens_to_logits, state, loop, batch // groups, halvings)


class _Loop(NamedTuple):
  step: Callable[[decode_rows.TokensToLogits, Any], Any]
  is_open: Callable[[Any], jax.Array]
  results: tuple[str, ...]
  groups: int
  cache_offset: int


def _run(model: Any, state: Any, loop: _Loop, rows: int, halvings: int) -> Any:
  fewer = -(-rows // 2)
  halved = halvings > 0 and FEWEST_ROWS <= fewer < rows

  def goes_on(state: Any) -> jax.Array:
    open_GR = loop.is_open(state).reshape(loop.groups, rows)
    most = jnp.max(jnp.sum(open_GR, axis=1, dtype=jnp.int32))
    return most > (fewer if halved else 0)

  final = lax.while_loop(goes_on, functools.partial(loop.step, model), state)
  if not halved:
    return final
  open_GR = loop.is_open(final).reshape(loop.groups, rows)
  kept_Gr = jnp.argsort(~open_GR, axis=1, stable=True)[:, :fewer]
  take = functools.partial(_take, kept_Gr, rows)
  fields = final._asdict()
  part = {
    name: jax.tree.map(lambda x: take(x, 0), x)
    for name, x in fields.items()
    if name not in ('position', 'cache')
  }
  cache = jax.tree.map(lambda x: take(x, loop.cache_offset), final.cache)
  last = _run(model.narrowed(take), final._replace(cache=cache, **part), loop, fewer, halvings - 1)
  whole = {name: _put(kept_Gr, rows, fields[name], getattr(last, name)) for name in loop.results}
  return last._replace(**whole)


def _take(kept_Gr: jax.Array, rows: int, x: jax.Array, axis: int) -> jax.Array:
  """The rows kept of an array with N rows on an axis."""
  groups = kept_Gr.shape[0]
  before, after = x.shape[:axis], x.shape[axis + 1 :]
  decodes = x.shape[axis] // (groups * rows)
  by_group = x.reshape(*before, groups, rows, decodes, *after)
  kept = decode_rows.gather(by_group, kept_Gr, axis)
  return kept.reshape(*before, groups * kept_Gr.shape[1] * decodes, *after)


def _put(kept_Gr: jax.Array, rows: int, whole: jax.Array, part: jax.Array) -> jax.Array:
  """The array of N rows with those kept in their places."""
  groups, kept = kept_Gr.shape
  by_group = whole.reshape(groups, rows, -1, *whole.shape[1:])
  of_part = part.reshape(groups, kept, -1, *whole.shape[1:])
  put = jax.vmap(lambda of_all, places, some: of_all.at[places].set(some))
  return put(by_group, kept_Gr, of_part).reshape(whole.shape)


def _row_groups(batch: int) -> int:
  """Into how many parts the mesh splits rows; 1 where there is none, or they cannot be split."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return 1
  axes = (nn.logical_to_mesh_axes(('batch',)) or (None,))[0]
  names = () if axes is None else (axes,) if isinstance(axes, str) else axes
  parts = math.prod(mesh.shape[name] for name in names)
  return parts if batch % parts == 0 else 1

"""Whether arrays are finite: a number inside a compiled step, and a refusal by name outside."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aya_train import block_reductions


class NonFiniteError(ValueError):
  """Something that is to be trusted is NaN or infinite; the message names it."""


def names(tree: Any) -> list[str]:
  """Paths of the floating point leaves of a tree, such as 'params/token_embedder/embedding'."""
  return [
    jax.tree_util.keystr(path, simple=True, separator='/')
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    if _is_floating(leaf)
  ]


def first_nonfinite(tree: Any) -> jax.Array:
  """int32 []: the index in `names(tree)` of the first leaf with a NaN or infinity, -1 if none has.

  Can be jitted; of sharded arrays every device looks at its own part.
  """
  bad = [_any_bad(leaf) for leaf in jax.tree.leaves(tree) if _is_floating(leaf)]
  if not bad:
    return jnp.int32(-1)
  stacked = jnp.stack(bad)
  return jnp.where(stacked.any(), jnp.argmax(stacked).astype(jnp.int32), -1)


def check(tree: Any, what: str, advice: str) -> None:
  """Looks at every number of a tree of arrays; called by every host.

  Args:
    tree: arrays, sharded over hosts or not. Integers and random keys are passed over.
    what: the beginning of the message, such as a checkpoint's path.
    advice: the end of it: what to do.

  Raises:
    NonFiniteError: names the first array with a NaN or infinity, and says how many there are.
  """
  leaves = [leaf for leaf in jax.tree.leaves(tree) if _is_floating(leaf)]
  index = int(_first_of(leaves))
  if index < 0:
    return
  found, leaf = names(tree)[index], leaves[index]
  count = int(_count(leaf))
  raise NonFiniteError(
    f'{what}: {found} is not finite: {count:,} of its {leaf.size:,} numbers are NaN or infinite. '
    f'{advice}'
  )


def check_figures(figures: dict[str, float], what: str, advice: str) -> None:
  """Looks at figures for people.

  Raises:
    NonFiniteError: names those that are NaN or infinite, with their values.
  """
  if bad := nonfinite_figures(figures):
    listed = ', '.join(f'{name} is {figures[name]}' for name in bad)
    raise NonFiniteError(f'{what}: {listed}. {advice}')


def nonfinite_figures(figures: dict[str, float]) -> Sequence[str]:
  """Names of the figures that are NaN or infinite."""
  return [name for name, value in figures.items() if not np.isfinite(value)]


# Where all bits of the exponent are set, a number is infinite or none. On CPUs XLA would bring an
# array of half the width into float32 as a whole to find out, or to cut blocks from it.
_EXPONENTS = {jnp.dtype(jnp.bfloat16): 0x7F80, jnp.dtype(jnp.float16): 0x7C00}


def _any_bad(x: jax.Array) -> jax.Array:
  if x.dtype in _EXPONENTS:
    return jnp.any(_is_bad(x))
  return block_reductions.reduce(jnp.any, _is_bad, [x])[0]


def _is_bad(x: jax.Array) -> jax.Array:
  mask = _EXPONENTS.get(x.dtype)
  if mask is None:
    return ~jnp.isfinite(x)
  return jax.lax.bitcast_convert_type(x, jnp.uint16) & mask == mask


_first_of = jax.jit(first_nonfinite)


@jax.jit
def _count(leaf: jax.Array) -> jax.Array:
  return jnp.sum(_is_bad(leaf))


def _is_floating(leaf: Any) -> bool:
  return jnp.issubdtype(leaf.dtype, jnp.inexact)


def check_scores(values: np.ndarray) -> None:
  """Looks at the log-likelihoods of a batch of answers.

  Args:
    values: [B] of answers, or [B, ...] of the options of questions.

  Raises:
    NonFiniteError: of how many rows they are NaN or infinite.
  """
  rows = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
  if (bad := int(np.sum(~rows))) > 0:
    raise NonFiniteError(
      f'the log-likelihoods of {bad} of {len(values)} answers of a batch are NaN or infinite, '
      "though the parameters are finite: activations overflow. Try ACTIVATION_DTYPE = 'float32'"
    )

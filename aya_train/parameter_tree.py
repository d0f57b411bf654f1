"""Paths in trees of parameters, and the tuples of logical axes that stand at their leaves."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


def is_axes(x: Any) -> bool:
  """Whether it is the logical axes of one array: a tuple of names and None."""
  return isinstance(x, tuple) and all(isinstance(name, str | None) for name in x)


def dict_names(path: tuple[Any, ...]) -> tuple[str, ...]:
  """Keys of the dicts on a path of `jax.tree_util`; fields and indices are left out."""
  return tuple(str(k.key) for k in path if isinstance(k, jax.tree_util.DictKey))


def only(tree: Any, chosen: Callable[[str], bool]) -> Any:
  """The leaves of nested dicts whose last names are chosen; dicts without any are left out.

  A leaf is whatever is no dict, such as a quantised array.
  """
  out = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      if inner := only(value, chosen):
        out[name] = inner
    elif chosen(name):
      out[name] = value
  return out


def merged(one: Any, other: Any) -> Any:
  """Nested dicts with the leaves of both, which have none in common."""
  if not other:
    return one
  out = dict(one)
  for name, value in other.items():
    out[name] = merged(out[name], value) if name in out else value
  return out


def check_dtype(dtype: Any) -> None:
  """Refuses what weights are not kept in.

  Raises:
    ValueError: neither 'float32' nor 'bfloat16'.
  """
  if dtype not in ('float32', 'bfloat16'):
    raise ValueError(f"PARAMETER_DTYPE must be 'float32' or 'bfloat16', got {dtype!r}")


def cast(tree: Any, dtype: Any) -> Any:
  """The float32 arrays of a tree in another dtype, one after the other.

  Each is freed when its copy is there, so that a tree of half the size takes no more memory.
  """
  dtype = jnp.dtype(dtype)

  def one(x: jax.Array) -> jax.Array:
    if x.dtype != jnp.float32 or dtype == jnp.float32:
      return x
    found = x.astype(dtype).block_until_ready()
    x.delete()
    return found

  return jax.tree.map(one, tree)

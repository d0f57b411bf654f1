"""Paths in trees of parameters, and the tuples of logical axes that stand at their leaves."""

from typing import Any

import jax


def is_axes(x: Any) -> bool:
  """Whether it is the logical axes of one array: a tuple of names and None."""
  return isinstance(x, tuple) and all(isinstance(name, str | None) for name in x)


def dict_names(path: tuple[Any, ...]) -> tuple[str, ...]:
  """Keys of the dicts on a path of `jax.tree_util`; fields and indices are left out."""
  return tuple(str(k.key) for k in path if isinstance(k, jax.tree_util.DictKey))

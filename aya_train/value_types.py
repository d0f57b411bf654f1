"""Whether a value written into a configuration is of the kind that a parameter takes."""

import collections.abc
import os
import types
import typing
from typing import Any

_NAMES = {
  int: 'a whole number',
  float: 'a number',
  bool: 'True or False',
  str: 'a string',
  os.PathLike: '',  # paths are written as strings
  type(None): 'None',
}


def fits(value: Any, hint: Any) -> bool:
  """Whether a literal fits a type hint; what a hint cannot be held against fits.

  As in Python's own annotations an int is a float; a list is as good as a tuple.
  """
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if hint is Any:
    return True
  if origin in (typing.Union, types.UnionType):
    return any(fits(value, arg) for arg in args)
  if origin is typing.Literal:
    return value in args
  if hint in (int, float):
    allowed = (int,) if hint is int else (int, float)
    return isinstance(value, allowed) and not isinstance(value, bool)
  if hint is None:
    return value is None
  kind = origin or hint
  if not isinstance(kind, type) or kind is object:
    return True
  if kind is collections.abc.Callable:
    return callable(value)
  if issubclass(kind, collections.abc.Mapping):
    return (
      isinstance(value, collections.abc.Mapping)
      and _all_fit([*value.keys()], args[:1])
      and _all_fit([*value.values()], args[1:])
    )
  if issubclass(kind, collections.abc.Sequence) and kind is not str:
    if isinstance(value, str) or not isinstance(value, collections.abc.Sequence):
      return False
    if kind is tuple and args and args[-1] is not ...:
      return len(value) == len(args) and all(map(fits, value, args))
    return _all_fit(value, args[:1])
  return isinstance(value, kind) or (kind not in _NAMES and not isinstance(value, _LITERALS))


_LITERALS = (int, float, str, bool, tuple, list, dict, type(None))


def _all_fit(values: collections.abc.Sequence[Any], hints: tuple[Any, ...]) -> bool:
  return not hints or all(fits(value, hints[0]) for value in values)


def describe(hint: Any) -> str:
  """A type hint in words: 'a whole number or None'."""
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    return ' or '.join(dict.fromkeys(filter(None, map(describe, args))))
  if origin is typing.Literal:
    return ' or '.join(map(repr, args))
  kind = origin or hint
  if kind in _NAMES:
    return _NAMES[kind]
  if isinstance(kind, type) and issubclass(kind, collections.abc.Mapping):
    return 'a dict' + (f' of {describe(args[0])} to {describe(args[1])}' if args else '')
  if isinstance(kind, type) and issubclass(kind, collections.abc.Sequence):
    return 'a tuple' + (f', each {describe(args[0])}' if args else '')
  return f'a reference to {getattr(kind, "__name__", kind)}, @...'

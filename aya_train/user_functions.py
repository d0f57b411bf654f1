"""Functions that a user names as `MODULE:FUNCTION`: scorers, rewards, and the numbers they give."""

import importlib
import math
import os
import sys
from collections.abc import Callable
from typing import Any


def load(name: str) -> Callable[..., Any]:
  """The function of a name; modules of the working directory are found, as `python -m` has them.

  Raises:
    ValueError: the name is none of a function that can be imported, and why; when it is called, the
      function does not take these arguments.
  """
  module, _, attribute = name.partition(':')
  if not (module and attribute):
    raise ValueError('expected MODULE:FUNCTION')
  if (here := os.getcwd()) not in sys.path:
    sys.path.insert(0, here)
  try:
    found = getattr(importlib.import_module(module), attribute)
  except (ImportError, AttributeError) as error:
    raise ValueError(str(error)) from error
  except SyntaxError as error:
    raise ValueError(f'{type(error).__name__}: {error}') from error
  if not callable(found):
    raise ValueError(f'it is a {type(found).__name__}, and no function')

  def called(*arguments: Any) -> Any:
    try:
      return found(*arguments)
    except Exception as error:
      if error.__traceback__ is None or error.__traceback__.tb_next is not None:
        raise
      # The function did not begin, or is none of Python.
      raise ValueError(f'{name} does not take what it is given: {error}') from error

  return called


def numbers(values: Any, count: int, what: str) -> list[float]:
  """What a function gave, as finite numbers.

  Args:
    values: what it gave.
    count: how many there should be.
    what: one of them is called, such as 'score'.

  Raises:
    ValueError: what it is instead.
  """
  found = list(values) if hasattr(values, '__iter__') and not isinstance(values, str) else None
  if found is None or len(found) != count:
    got = 'no list' if found is None else f'{len(found)} of them'
    raise ValueError(f'expected a list of {count} numbers, got {got}')
  try:
    given = [float(value) for value in found]
  except (TypeError, ValueError):
    raise ValueError(f'a {what} is no number: {found[:3]!r}') from None
  if bad := [x for x in given if not math.isfinite(x)]:
    raise ValueError(f'a {what} must be finite, got {bad[0]}')
  return given

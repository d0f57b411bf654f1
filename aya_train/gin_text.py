"""What a text in gin's language says, as gin's own parser reads it, without evaluating anything.

Nothing that gin holds is looked at or changed, and no module that the text imports is needed.
"""

import tokenize
from collections.abc import Iterator, Mapping
from typing import Any

from gin import config_parser

# What gin's parser raises for a text; its literals may be nested too deeply, or lists be keys.
UNREADABLE = (SyntaxError, ValueError, TypeError, RecursionError, tokenize.TokenError)
_STILL_REQUIRED = '%gin.REQUIRED'


class Reference(str):
  """A reference in a gin text, as it is written there: '@optimizer.adafactor', '%BATCH_SIZE'."""

  __slots__ = ()


class _Delegate(config_parser.ParserDelegate):
  def configurable_reference(self, scoped_name: str, evaluate: bool) -> str:
    return Reference(f'@{scoped_name}' + ('()' if evaluate else ''))

  def macro(self, macro_name: str) -> str:
    return Reference(f'%{macro_name}')


def statements(text: str) -> Iterator[Any]:
  """Statements of a text, as gin's parser gives them; references stay text, as a `Reference`.

  Raises:
    ValueError: it is no gin.
  """
  try:
    yield from config_parser.ConfigParser(text, _Delegate())
  except UNREADABLE as error:
    raise ValueError(f'this is no text that gin wrote: {" ".join(str(error).split())}') from error


def bindings(text: str) -> dict[str, Any]:
  """What a text sets; included files are not read.

  Returns:
    Values by name: 'MESH_SHAPE' of a macro, 'partitioning.Partitioner.mesh_shape' of a parameter.

  Raises:
    ValueError: it is no gin.
  """
  return {
    '.'.join(filter(None, (statement.selector, statement.arg_name))): statement.value
    for statement in statements(text)
    if isinstance(statement, config_parser.BindingStatement)
  }


def macros(text: str) -> dict[str, Any]:
  """Macros alone of `bindings`, for a text that gin wrote."""
  return {name: value for name, value in bindings(text).items() if '.' not in name}


def imports(text: str) -> list[str]:
  """Names of the modules that such a text imports, without gin's own."""
  return [
    statement.module
    for statement in statements(text)
    if isinstance(statement, config_parser.ImportStatement)
    and not statement.module.startswith('__gin__')
  ]


def resolved(macros: Mapping[str, Any]) -> dict[str, Any]:
  """Macros of a text with the values of those that they refer to, also inside tuples and dicts.

  One that is still required has no value and is left out. References to functions stay, as do those
  to macros that are not there or lead back to themselves.
  """
  values = {name: value for name, value in macros.items() if not is_required(value)}
  return {name: substituted(value, values, (name,)) for name, value in values.items()}


def substituted(value: Any, macros: Mapping[str, Any], seen: tuple[str, ...] = ()) -> Any:
  """A value with macros for references to them, but for those whose names are in `seen`."""
  if isinstance(value, Reference):
    name = value.removeprefix('%')
    known = name in macros and name not in seen and value.startswith('%')
    return substituted(macros[name], macros, (*seen, name)) if known else value
  if isinstance(value, dict):
    return {
      substituted(key, macros, seen): substituted(item, macros, seen) for key, item in value.items()
    }
  if isinstance(value, list | tuple):
    return type(value)(substituted(item, macros, seen) for item in value)
  return value


def is_required(value: Any) -> bool:
  """Whether a value is `%gin.REQUIRED`, which stands for none."""
  return isinstance(value, Reference) and value == _STILL_REQUIRED


def has_references(value: Any) -> bool:
  """Whether a value is or holds a reference."""
  if isinstance(value, Mapping):
    return any(map(has_references, (*value.keys(), *value.values())))
  if isinstance(value, list | tuple):
    return any(map(has_references, value))
  return isinstance(value, Reference)

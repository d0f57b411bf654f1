"""The msgpack file `checkpoint` with which T5X and older versions of Orbax describe a tree."""

from typing import Any

from etils import epath
from flax import serialization

FILE = 'checkpoint'

_WAY_OUT = 'Copy the checkpoint again from its source'


def read(folder: epath.PathLike) -> dict[str, Any]:
  """The index of a folder, or of a file that is one: nested dicts.

  Raises:
    FileNotFoundError: there is none.
    ValueError: it is cut short, no msgpack, or not a dict.
  """
  path = epath.Path(folder)
  path = path if path.is_file() else path / FILE
  content = path.read_bytes()
  try:
    index = serialization.msgpack_restore(content)
  except Exception as error:
    raise ValueError(
      f'{path} ({len(content)} bytes) is no complete msgpack index of T5X: {error}. {_WAY_OUT}'
    ) from error
  if not isinstance(index, dict):
    raise ValueError(f'{path} must hold a msgpack map, got {type(index).__name__}. {_WAY_OUT}')
  return index

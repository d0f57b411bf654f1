"""JSON objects with their own digest in them, so that a flipped byte is no other number."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_KEY = 'sha256'


def digest(content: Any) -> str:
  """SHA-256 (hex) of JSON content, whatever its spaces and the order of its keys."""
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def dump(content: Mapping[str, Any], indent: int | None = None) -> str:
  """JSON of a mapping, with its digest as the last entry."""
  found = digest(json.loads(json.dumps(content)))  # numbers as keys, as they are read back
  return json.dumps({**content, _KEY: found}, ensure_ascii=False, indent=indent)


def is_changed(content: Mapping[str, Any]) -> bool:
  """Whether an object has a digest of its own that is no longer right; not if it has none."""
  return _KEY in content and content[_KEY] != digest(bare(content))


def bare(content: Mapping[str, Any]) -> dict[str, Any]:
  """An object without its digest, if it has one."""
  return {key: value for key, value in content.items() if key != _KEY}


def load(text: str | bytes) -> dict[str, Any]:
  """The mapping of which `dump` made a text.

  Raises:
    ValueError: the text is another.
  """
  try:
    content = json.loads(text)
    told = content.pop(_KEY)
  except (TypeError, KeyError, AttributeError, RecursionError) as error:
    raise ValueError('there is no digest in it') from error
  if told != digest(content):
    raise ValueError('it does not have the digest that it was written with')
  return content

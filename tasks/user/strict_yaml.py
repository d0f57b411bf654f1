"""YAML in which nothing is lost: a key that stands twice in a mapping is an error."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml


class Loader(yaml.SafeLoader):
  """Plain YAML, without tags that make objects.

  Raises:
    yaml.YAMLError: also for a key that stands twice in one mapping; PyYAML keeps the last.
  """

  def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
    seen = set()
    for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
      if key_node.tag == 'tag:yaml.org,2002:merge':
        continue
      key = self.construct_object(key_node, deep=True)
      if isinstance(key, Hashable):
        if key in seen:
          raise yaml.constructor.ConstructorError(
            'while reading a mapping',
            node.start_mark,
            f'{key!r} stands in it twice',
            key_node.start_mark,
          )
        seen.add(key)
    return super().construct_mapping(node, deep)

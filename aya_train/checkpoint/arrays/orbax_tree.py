"""Reads the arrays of an Orbax tree one by one: our own checkpoints, and T5X's through Orbax.

Orbax describes the tree in `_METADATA` (JSON), or in older versions in a msgpack file `checkpoint`
with 'PLACEHOLDER://name' at its leaves, and keeps each leaf as a zarr array called after its path
joined by dots: in a folder of its own, or all inside one OCDBT key-value store. Orbax itself
restores whole trees; this reads slices of single leaves.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from aya_train.checkpoint.arrays import lazy_arrays, msgpack_index, zarr_arrays

_PLACEHOLDER = 'PLACEHOLDER://'
_ARRAY_TYPES = ('jax.Array', 'np.ndarray', 'scalar')


def read(folder: epath.PathLike) -> dict[str, lazy_arrays.LazyArray]:
  """Every array of a tree by its path joined by '/'; opened, not read.

  Raises:
    ValueError: metadata cut short, or arrays missing or incomplete.
  """
  folder = epath.Path(folder)
  inline: dict[str, lazy_arrays.LazyArray] = {}
  if (folder / '_METADATA').is_file():
    names, driver = _from_metadata(folder)
  else:
    names, inline = _from_index(folder)
    driver = 'zarr'
  ocdbt = (folder / 'manifest.ocdbt').is_file()
  base = zarr_arrays.kvstore_spec(folder)
  stored = []
  for name, file in names.items():
    if ocdbt:
      kvstore: dict[str, Any] = {'driver': 'ocdbt', 'base': base, 'path': file + '/'}
    else:
      path = zarr_arrays.inside(folder, file, f'{folder}: {name}')
      kvstore = zarr_arrays.kvstore_spec(path)
    stored.append(zarr_arrays.ZarrLeaf(name, kvstore, driver))
  return inline | zarr_arrays.open_leaves(stored, str(folder))


def _from_metadata(folder: epath.Path) -> tuple[dict[str, str], str]:
  """Names of the arrays by path, and their zarr driver."""
  try:
    metadata = json.loads((folder / '_METADATA').read_text())
    names = {}
    for entry in metadata['tree_metadata'].values():
      keys = [str(key['key']) for key in entry['key_metadata']]
      value = entry['value_metadata']
      if value['value_type'] in _ARRAY_TYPES and not value.get('skip_deserialize'):
        names['/'.join(keys)] = '.'.join(keys)
    return names, 'zarr3' if metadata.get('use_zarr3') else 'zarr'
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
    raise ValueError(
      f'{folder}/_METADATA is not what Orbax writes ({error!r}). '
      'Copy the checkpoint again from its source'
    ) from error


def _from_index(
  folder: epath.Path,
) -> tuple[dict[str, str], dict[str, lazy_arrays.LazyArray]]:
  names: dict[str, str] = {}
  inline: dict[str, lazy_arrays.LazyArray] = {}

  def walk(tree: Mapping[str, Any], prefix: str) -> None:
    for key, value in tree.items():
      name = f'{prefix}{key}'
      if isinstance(value, dict):
        walk(value, name + '/')
      elif isinstance(value, str) and value.startswith(_PLACEHOLDER):
        names[name] = value.removeprefix(_PLACEHOLDER)
      elif isinstance(value, np.ndarray | np.generic | int | float):
        inline[name] = lazy_arrays.of(np.asarray(value))

  walk(msgpack_index.read(folder), '')
  return names, inline

"""Reads and writes T5X's native checkpoints, version 3, without T5X.

    checkpoint                  msgpack: {version, optimizer: {target, state: {step, param_states}}}
    target.encoder.…kernel/     zarr arrays (format 2), one for each leaf that T5X partitions
    state.param_states.….v/
In the index, a leaf is either an array (flax's msgpack extension types 1 and 3) or a dict: the
TensorStore spec of its zarr array, whose path is relative to the folder. Source: behaviour of
t5x/checkpoints.py and the files it writes.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath
from flax import serialization, traverse_util

from aya_train import path_facts
from aya_train.checkpoint.arrays import (
  blocks,
  lazy_arrays,
  msgpack_index,
  workers,
  zarr_arrays,
)

VERSION = 3
READABLE_VERSIONS = (2, 3)  # 3 stores bfloat16 as such; a 2 without bfloat16 is the same
_TF_INDEX = b'model_checkpoint_path'
_STEP_FOLDER = re.compile(r'checkpoint_(0|[1-9][0-9]*)')
_WAY_OUT = 'Copy the checkpoint again from its source'
GZIP = {'id': 'gzip', 'level': 1}


def step_folder(path: epath.PathLike) -> epath.Path | None:
  """The folder that a path means: itself, its file `checkpoint`, or a MODEL_DIR's newest step.

  Returns None where no T5X checkpoint of either kind is found.
  """
  path = epath.Path(path)
  if path_facts.is_file(path):
    return path.parent if path.name == msgpack_index.FILE else None
  if path_facts.is_file(path / msgpack_index.FILE) or _orbax_root(path) is not None:
    return path
  if not path_facts.is_dir(path):
    return None
  for folder in (path, path / 'checkpoints'):
    if path_facts.is_dir(folder):
      steps = [
        int(matched[1]) for p in folder.iterdir() if (matched := _STEP_FOLDER.fullmatch(p.name))
      ]
      if steps:
        return folder / f'checkpoint_{max(steps)}'
  return None


def orbax_root(path: epath.Path) -> epath.Path | None:
  """The folder with the Orbax tree of a T5X step folder, None if Orbax did not write it."""
  return _orbax_root(path)


def _orbax_root(path: epath.Path) -> epath.Path | None:
  for folder in (path / 'state', path):
    if path_facts.is_file(folder / '_METADATA') or path_facts.is_file(folder / 'manifest.ocdbt'):
      return folder
  return path / 'state' if path_facts.is_file(path / 'state' / msgpack_index.FILE) else None


def is_mesh_tensorflow(path: epath.PathLike) -> bool:
  """Whether a folder or an index file is of TensorFlow."""
  path = epath.Path(path)
  index = path if path_facts.is_file(path) else path / msgpack_index.FILE
  if path_facts.is_file(index):
    with index.open('rb') as f:
      if f.read(len(_TF_INDEX)) == _TF_INDEX:
        return True
  if path_facts.is_file(path):
    return '.ckpt-' in path.name
  return path_facts.is_dir(path) and any('.ckpt-' in p.name for p in path.iterdir())


def read(folder: epath.PathLike) -> dict[str, lazy_arrays.LazyArray]:
  """Every leaf of a checkpoint by its path below `optimizer`, e.g. 'target/decoder/…/scale'.

  Arrays are opened, not read. Empty leaves (None) are left out.

  Raises:
    FileNotFoundError: no index.
    ValueError: an index of another version or with a path outside the folder; arrays that are
      missing, incomplete, or not as the index says.
  """
  folder = epath.Path(folder)
  index = msgpack_index.read(folder)
  root = folder.parent if path_facts.is_file(folder) else folder
  where = str(folder)
  version = index.get('version')
  if version not in READABLE_VERSIONS or not isinstance(index.get('optimizer'), dict):
    raise ValueError(
      f'{where}: expected a T5X index of version {READABLE_VERSIONS} with `optimizer`, got version '
      f'{version!r} and keys {sorted(map(str, index))}. Restore and save it with a current T5X'
    )
  leaves: dict[str, lazy_arrays.LazyArray] = {}
  stored: list[zarr_arrays.ZarrLeaf] = []
  for name, leaf in _leaves(index['optimizer']):
    if isinstance(leaf, dict):
      stored.append(_zarr_leaf(root, name, leaf, where))
    elif leaf is not None:
      leaves[name] = _inline(name, leaf, where)
  leaves |= zarr_arrays.open_leaves(stored, where)
  return leaves


def _leaves(tree: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  for key, value in tree.items():
    name = f'{prefix}{key}'
    if isinstance(value, dict) and not _is_spec(value):
      yield from _leaves(value, name + '/')
    else:
      yield name, value


def _is_spec(value: Mapping[str, Any]) -> bool:
  return isinstance(value.get('driver'), str) and isinstance(value.get('kvstore'), dict)


def _inline(name: str, leaf: Any, where: str) -> lazy_arrays.LazyArray:
  array = np.asarray(leaf)
  if array.dtype == object or array.dtype.kind in 'SU':
    raise ValueError(f'{where}: {name} must be an array, got {type(leaf).__name__}. {_WAY_OUT}')
  if array.dtype == np.uint16:
    raise ValueError(
      f'{where}: {name} is uint16, how T5X before June 2021 stored bfloat16: restore and save it '
      'with a T5X of that time'
    )
  return lazy_arrays.of(array)


def _zarr_leaf(
  folder: epath.Path, name: str, spec: Mapping[str, Any], where: str
) -> zarr_arrays.ZarrLeaf:
  """Turns a spec into the place of its array below the folder actually given."""
  kvstore, metadata = spec['kvstore'], spec.get('metadata') or {}
  driver, store = spec['driver'], kvstore.get('driver')
  if driver != 'zarr' or store not in ('file', 'gfile', 'gcs'):
    raise ValueError(
      f'{where}: {name} is kept by driver {driver!r} over {store!r}; T5X writes zarr over file, '
      'gfile or gcs'
    )
  path = kvstore.get('path', '') or spec.get('path', '')
  shape, dtype = metadata.get('shape'), spec.get('dtype')
  well_formed = shape is None or (
    isinstance(shape, list | tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
  )
  if not isinstance(path, str) or not well_formed:
    raise ValueError(
      f'{where}: the index gives {name} the path {path!r} and the shape {shape!r}. {_WAY_OUT}'
    )
  return zarr_arrays.ZarrLeaf(
    name=name,
    kvstore=zarr_arrays.kvstore_spec(zarr_arrays.inside(folder, path, f'{where}: {name}')),
    shape=None if shape is None else tuple(shape),
    dtype=dtype if isinstance(dtype, str) else None,
  )


# Writing ------------------------------------------------------------------------------------------


def write(folder: epath.PathLike, leaves: Mapping[str, lazy_arrays.LazyArray]) -> None:
  """Writes a checkpoint that `t5x.checkpoints.Checkpointer` restores; the index comes last.

  As in T5X, the step, row and column means and unused moments stand in the index; parameters and
  full moments are zarr arrays in gzip chunks of at most 64 MiB.

  Args:
    folder: exists and is empty.
    leaves: as `read` gives them, 'state/step' included.
  """
  folder = epath.Path(folder)

  def entry(item: tuple[str, lazy_arrays.LazyArray]) -> Any:
    name, leaf = item
    if _is_inline(name, leaf):
      array = leaf.read()
      return array if array.shape else array[()]
    path = name.replace('/', '.')
    chunks = blocks.chunk_shape(leaf.shape, leaf.dtype.itemsize)
    kvstore = zarr_arrays.kvstore_spec(folder / path)
    metadata = zarr_arrays.write(kvstore, leaf, compressor=GZIP, chunks=chunks)
    return {
      'driver': 'zarr',
      'dtype': leaf.dtype.name,
      'kvstore': {'driver': 'file', 'path': path + '/'},
      'metadata': metadata,
    }

  tree = dict(zip(leaves, workers.ahead(entry, leaves.items(), waiting=workers.MANY), strict=True))
  index = {'version': VERSION, 'optimizer': traverse_util.unflatten_dict(tree, sep='/')}
  (folder / msgpack_index.FILE).write_bytes(serialization.msgpack_serialize(index))


def _is_inline(name: str, leaf: lazy_arrays.LazyArray) -> bool:
  return not name.startswith('target/') and (
    leaf.shape in ((), (1,)) or name.endswith(('/v_row', '/v_col'))
  )

"""Arrays of native steps, restored in any sharding and held to their digests.

Every function is called by every host.
"""

import functools
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from aya_train import hosts
from aya_train.checkpoint import digests, soundness
from aya_train.checkpoint.arrays import blocks, lazy_arrays
from aya_train.checkpoint.soundness import DamagedError

logger = logging.getLogger(__name__)

_PIECE_BYTES = 1 << 25
_WANTED = {'params': 'the model', 'training': 'the optimizer'}

T = TypeVar('T')


class MisfitError(ValueError):
  """Arrays of other names or shapes than are wanted."""


def agreed(read: Callable[[], T]) -> T:
  """What `read` gives; damage that one host finds is raised on all of them."""
  damage: str | None = None
  result: Any = None
  with hosts.together():
    try:
      result = read()
    except DamagedError as error:
      damage = str(error)
  if (told := hosts.any_says(damage)) is not None:
    raise DamagedError(told)
  return result


def read_trees(
  folder: epath.Path, abstract: Mapping[str, Any], known: soundness.Digests | None
) -> dict[str, Any]:
  """Trees of arrays of a step, by item, laid out as `abstract` and held to their digests.

  Raises:
    DamagedError: on every host.
    ValueError: names or shapes differ from those of `abstract`.
  """
  trees = agreed(
    lambda: {item: _read_tree(folder, item, tree, known) for item, tree in abstract.items()}
  )
  if known is None:
    return trees
  for item, tree in trees.items():
    soundness.check_tree(tree, known.arrays[item], f'{folder}/{item}')
    trees[item] = _cast(tree, abstract[item])
  return trees


def _read_tree(
  folder: epath.Path, item: str, abstract: Any, known: soundness.Digests | None
) -> Any:
  """One tree, its dtypes as they were saved where those are known."""
  stored = None if known is None else soundness.stored_of(known, folder, item)
  wanted = abstract
  try:
    with ocp.StandardCheckpointer() as checkpointer:
      shapes: Any = stored
      if shapes is None:
        shapes = checkpointer.metadata(folder / item).item_metadata.tree
      check_same_shapes(shapes, abstract, f'checkpoint {folder}', _WANTED[item])
      if stored is not None:
        wanted = soundness.as_stored(abstract, stored)
      return checkpointer.restore(folder / item, wanted)
  except (MisfitError, MemoryError, jax.errors.JaxRuntimeError):
    raise
  except Exception as error:
    # Orbax and TensorStore have many words for damage, and say them of files that do not matter.
    logger.debug('restoring %s/%s', folder, item, exc_info=error)
    arrays = soundness.diagnose(folder, item, known)
    if stored is None:
      raise DamagedError(f'{folder}/{item} cannot be restored: {soundness.cause(error)}') from error
    logger.warning(
      '%s/%s: each array is sound, but not what Orbax keeps beside them (%s): read one by one',
      folder,
      item,
      soundness.cause(error),
    )
    named = jax.tree_util.tree_leaves_with_path(wanted)
    leaves = [place(arrays[digests.name_of(path)], leaf) for path, leaf in named]
    return jax.tree.unflatten(jax.tree.structure(wanted), leaves)


def place(array: lazy_arrays.LazyArray, leaf: jax.ShapeDtypeStruct) -> jax.Array:
  """Puts each shard on its device, reading nothing else; replicas are read once.

  A large array that one device has whole is read piece by piece into it, so that the host never
  holds it beside the device, which on CPUs is the same memory.

  Raises:
    ValueError: the array has another shape than `leaf`.
  """
  if array.shape != tuple(leaf.shape):
    raise ValueError(f'an array of shape {array.shape} was to fill one of {leaf.shape}')
  if array.chunks == array.shape:
    array = lazy_arrays.of(array.read())
  sharding = leaf.sharding
  if sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  size = math.prod(array.shape) * max(array.dtype.itemsize, leaf.dtype.itemsize)
  alone = len(sharding.device_set) == 1 and sharding.is_fully_addressable
  if alone and size > 2 * _PIECE_BYTES:
    return _placed_by_pieces(array, leaf.dtype, sharding)
  read: dict[Any, np.ndarray] = {}

  def shard(index: Any) -> np.ndarray:
    key = tuple(i.indices(n)[:2] for i, n in zip(index or (), array.shape, strict=True))
    if key not in read:
      read[key] = array[index].astype(leaf.dtype, copy=False)
    return read[key]

  return jax.make_array_from_callback(tuple(leaf.shape), sharding, shard)


def _placed_by_pieces(
  array: lazy_arrays.LazyArray, dtype: Any, sharding: jax.sharding.Sharding
) -> jax.Array:
  itemsize = array.dtype.itemsize
  chunks = array.chunks or blocks.chunk_shape(array.shape, itemsize, limit=_PIECE_BYTES)
  whole = jnp.zeros(array.shape, dtype, device=sharding)
  for index in blocks.cut(array.shape, itemsize, chunks, _PIECE_BYTES):
    piece = jax.device_put(array.get(index).astype(dtype, copy=False), sharding)
    # Waited for: else all pieces are read before the first is written.
    whole = _with_piece(whole, piece, [i.start for i in index]).block_until_ready()
  return whole


@functools.partial(jax.jit, donate_argnums=0)
def _with_piece(whole: jax.Array, piece: jax.Array, start: list[int]) -> jax.Array:
  return jax.lax.dynamic_update_slice(whole, piece, start)


def _cast(tree: Any, abstract: Any) -> Any:
  """The tree with the dtypes of `abstract`."""

  def one(x: Any, leaf: Any) -> Any:
    if x.dtype == leaf.dtype:
      return x
    found = jax.block_until_ready(x.astype(leaf.dtype))
    if isinstance(x, jax.Array):
      x.delete()  # so that a tree of half the size takes no more memory
    return found

  return jax.tree.map(one, tree, abstract)


def check_same_shapes(stored: Any, wanted: Any, stored_name: str, wanted_name: str) -> None:
  """Compares names and shapes of two trees of arrays (or of anything with a shape).

  Raises:
    MisfitError: with up to five differences, both shapes each.
  """

  def flatten(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, 'shape'))
    return {
      jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape)
      for path, leaf in leaves
    }

  have, want = flatten(stored), flatten(wanted)
  differences = [
    f'{name}: {have.get(name, "missing")} against {want.get(name, "missing")}'
    for name in sorted({*have, *want})
    if have.get(name) != want.get(name)
  ]
  if differences:
    shown = '; '.join(differences[:5])
    raise MisfitError(
      f'{stored_name} does not fit {wanted_name}: {len(differences)} arrays differ, {shown}'
    )

"""Whether a native step is what was written: the digests saved with it, and what they are held to.

    <step>/digests/metadata   JSON: of every array its dtype, shape and digest (see `digests`);
                              SHA-256 of what `metadata` and each host's `data` say, of other
                              files that lie beside them, and of itself
It is committed with the step. A folder without it, of parts put together by hand, cannot be
checked; that is said once.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from aya_train import path_facts
from aya_train.checkpoint import digests
from aya_train.checkpoint.arrays import blocks, lazy_arrays, orbax_tree

logger = logging.getLogger(__name__)

ITEM = 'digests'
TREES = ('params', 'training')
_ITEMS = (*TREES, 'metadata', 'data', ITEM)
_ORBAX_FILES = ('_CHECKPOINT_METADATA', 'commit_success.txt')
_FILE = 'metadata'  # as Orbax calls the file of an item of JSON
_SHOWN = 3
_ADVICE = 'Copy the checkpoint again from where it is whole, or take another step'
# What a file system or a bucket says when it cannot be asked now; nothing is known to be damaged.
_PASSING = re.compile(
  r'UNAVAILABLE|DEADLINE_EXCEEDED|PERMISSION_DENIED|UNAUTHENTICATED|RESOURCE_EXHAUSTED|CANCELLED'
  r'|Permission denied|Too many open files|Stale file handle|Connection'
)


class DamagedError(ValueError):
  """A checkpoint, or a part of it, is not what was written."""


@dataclasses.dataclass(frozen=True)
class Stored:
  """What was saved of one array; of random keys their words.

  Attributes:
    dtype, shape: of the array.
    digest: see `digests.of_tree`.
  """

  dtype: str
  shape: tuple[int, ...]
  digest: str


@dataclasses.dataclass(frozen=True)
class Digests:
  """What a step's arrays and small files are held to.

  Attributes:
    arrays: for each item ('params', 'training') its arrays, by path joined with '/'.
    metadata: `digests.of_json` of the metadata.
    data: the same of the position in the data of each host; empty if none was saved.
    files: SHA-256 of other files of the step, such as a vocabulary, by their path in it.
  """

  arrays: Mapping[str, Mapping[str, Stored]]
  metadata: str
  data: Sequence[str] = ()
  files: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def as_json(self) -> dict[str, Any]:
    """The content of the file, with a digest of its own."""
    content = json.loads(json.dumps(dataclasses.asdict(self), sort_keys=True))
    return {**content, 'sha256': digests.of_json(content)}


def of_trees(trees: Mapping[str, Any]) -> dict[str, dict[str, Stored]]:
  """What is to be stored of trees of arrays, by item. Every host calls it."""
  found = digests.of_tree(dict(trees))
  stored: dict[str, dict[str, Stored]] = {item: {} for item in trees}
  for path, leaf in digests.named_leaves(dict(trees)).items():
    item, _, name = path.partition('/')
    plain = digests.plain(leaf, path)
    stored[item][name] = Stored(np.dtype(plain.dtype).name, tuple(plain.shape), found[path])
  return stored


def stored_of(known: Digests, folder: epath.Path, item: str) -> Mapping[str, Stored]:
  """The arrays of an item; raises DamagedError if it was not saved with the rest."""
  if item not in known.arrays:
    raise DamagedError(
      f'{folder}/{item} was not saved with {folder}/{ITEM}: parts of two checkpoints lie in one '
      f'folder. {_ADVICE}'
    )
  return known.arrays[item]


def write(folder: epath.Path, known: Digests) -> None:
  """Adds the digests to a step that Orbax does not write."""
  (folder / ITEM).mkdir()
  (folder / ITEM / _FILE).write_text(json.dumps(known.as_json()))


def read(folder: epath.Path) -> Digests | None:
  """The digests of a step folder; None, with a line, where none were written.

  Raises:
    DamagedError: they are not what was written.
  """
  if not (folder / ITEM).exists():
    _say_unchecked(str(folder))
    return None
  path = folder / ITEM / _FILE
  try:
    content = json.loads(path.read_bytes())
    told = content.pop('sha256')
    if told != digests.of_json(content):
      raise ValueError('its own digest differs')
    arrays = {
      item: {name: Stored(x['dtype'], tuple(x['shape']), x['digest']) for name, x in tree.items()}
      for item, tree in content['arrays'].items()
    }
    files = dict(content.get('files', {}))  # not in those of earlier versions
    known = Digests(arrays, content['metadata'], tuple(content['data']), files)
  except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError) as error:
    raise DamagedError(f'{path} is damaged: {cause(error)}. {_ADVICE}') from error
  for name, digest in known.files.items():
    _check_file(folder / name, digest)
  return known


def of_files(folder: epath.Path) -> dict[str, str]:
  """SHA-256 of the files of a step that are in none of its items, by their path in it."""
  return {
    name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _other_files(folder)
  }


def _other_files(folder: epath.Path, inside: str = '') -> Iterator[str]:
  for path in sorted((folder / inside).iterdir()):
    if not inside and path.name in (*_ITEMS, *_ORBAX_FILES):
      continue
    name = f'{inside}/{path.name}' if inside else path.name
    if path.is_dir():
      yield from _other_files(folder, name)
    else:
      yield name


def _check_file(path: epath.Path, digest: str) -> None:
  """Raises DamagedError if a file is not that of a digest."""
  if not path.is_file():
    raise DamagedError(f'{path} is missing. {_ADVICE}')
  if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
    raise DamagedError(f'{path} is damaged: it is not what was written. {_ADVICE}')


@functools.cache
def _say_unchecked(folder: str) -> None:
  logger.warning(
    '%s has no digests: whether it is what was written cannot be checked. `aya-train convert --to '
    'native` writes them',
    folder,
  )


def check_items(folder: epath.Path, items: Sequence[str]) -> None:
  """Raises DamagedError if a step folder lacks any of `items`, or is empty."""
  if missing := [item for item in items if not (folder / item).is_dir()]:
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    holds = f'it holds {", ".join(found)}' if found else 'the folder is empty'
    raise DamagedError(f'{folder} has no {" and no ".join(missing)} ({holds}). {_ADVICE}')


def read_json(folder: epath.Path, item: str) -> dict[str, Any]:
  """An item of JSON, as it lies there.

  Raises:
    DamagedError: it is missing, or no JSON object.
  """
  path = folder / item / _FILE
  try:
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
      raise TypeError(f'a JSON object was expected, got {type(content).__name__}')
  except (ValueError, TypeError, RecursionError, FileNotFoundError, NotADirectoryError) as error:
    raise DamagedError(
      f'{path} is not what was written for a checkpoint: {cause(error)}. {_ADVICE}'
    ) from error
  return content


def check_json(content: Any, told: str, where: str) -> None:
  """Raises DamagedError if JSON content is not that of a digest."""
  if digests.of_json(content) != told:
    raise DamagedError(
      f'{where} is damaged: it is JSON, and not what was written (its digest differs). {_ADVICE}'
    )


def data_states(folder: epath.Path, known: Digests | None) -> list[Any]:
  """Positions in the data of all hosts of the run that saved a step; [] if it saved none.

  Raises:
    DamagedError: files are missing or damaged.
  """
  data = folder / 'data'
  files = path_facts.matching(data, 'process_*-of-*.json')
  if not files and known is not None and not known.data:
    return []
  by_host = {}
  for file in files:
    if matched := re.fullmatch(r'process_(\d+)-of-(\d+)\.json', file.name):
      by_host[int(matched[1]), int(matched[2])] = file
  counts = {count for _, count in by_host}
  wanted = len(known.data) if known is not None else max(counts, default=1)
  if sorted(by_host) != [(host, wanted) for host in range(wanted)]:
    raise DamagedError(
      f'{data} holds {sorted(file.name for file in files)}, expected one file for each of the '
      f'{wanted} hosts of the run: copy the checkpoint again, or start from its parameters '
      '(INITIAL_CHECKPOINT_PATH)'
    )
  states = []
  for (host, _), file in sorted(by_host.items()):
    try:
      states.append(json.loads(file.read_bytes()))
    except (ValueError, RecursionError) as error:
      raise DamagedError(f'{file} is damaged: {cause(error)}. {_ADVICE}') from error
    if known is not None:
      check_json(states[-1], known.data[host], str(file))
  return states


# Arrays -------------------------------------------------------------------------------------------


def as_stored(abstract: Any, stored: Mapping[str, Stored]) -> Any:
  """`abstract` (arrays with shardings) with the dtypes that were saved."""

  def one(path: Any, leaf: Any) -> Any:
    name = digests.name_of(path)
    if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return leaf
    sharding = getattr(leaf, 'sharding', None)
    return jax.ShapeDtypeStruct(leaf.shape, np.dtype(stored[name].dtype), sharding=sharding)

  return jax.tree_util.tree_map_with_path(one, abstract)


def check_tree(tree: Any, stored: Mapping[str, Stored], where: str) -> None:
  """Holds the arrays of a tree to their digests. Every host calls it, and all see the same.

  Raises:
    DamagedError: names the arrays that differ.
  """
  found = digests.of_tree(tree)
  check_digests(found, stored, where)


def check_digests(found: Mapping[str, str], stored: Mapping[str, Stored], where: str) -> None:
  """Raises DamagedError for each digest that differs from the stored one."""
  wrong = [name for name, digest in found.items() if stored[name].digest != digest]
  if wrong:
    raise DamagedError(_differ(wrong, where))


def _differ(names: Sequence[str], where: str) -> str:
  more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
  arrays = 'array' if len(names) == 1 else 'arrays'
  return (
    f'{where} is damaged: {arrays} {", ".join(names[:_SHOWN])}{more}: the numbers are not those '
    f'that were saved (digests differ). {_ADVICE}'
  )


def open_tree(folder: epath.Path, item: str, known: Digests | None) -> lazy_arrays.Arrays:
  """The arrays of an item, opened; each is checked as a whole before anything of it is given out.

  Raises:
    DamagedError: arrays are missing, of another shape or cannot be opened. Reading raises it for
      an array whose digest differs, naming it.
  """
  where = f'{folder}/{item}'
  try:
    arrays = orbax_tree.read(folder / item)
  except (ValueError, OSError) as error:
    raise _told(error, where) from error
  if known is None:
    return arrays
  stored = stored_of(known, folder, item)
  mine = {name: (x.dtype.name, x.shape) for name, x in arrays.items()}
  theirs = {name: (x.dtype, x.shape) for name, x in stored.items()}
  if wrong := sorted(n for n in {*mine, *theirs} if mine.get(n) != theirs.get(n)):
    name = wrong[0]
    raise DamagedError(
      f'{where} is damaged: {len(wrong)} arrays differ from what was saved: {name} is '
      f'{mine.get(name, "missing")}, saved was {theirs.get(name, "no such array")}. {_ADVICE}'
    )
  return {name: _checked(x, stored[name].digest, name, where) for name, x in arrays.items()}


def _checked(
  array: lazy_arrays.LazyArray, digest: str, name: str, where: str
) -> lazy_arrays.LazyArray:
  """The array, held to its digest when something of it is read for the first time."""
  whole = tuple(slice(0, size) for size in array.shape)
  lock = threading.Lock()
  sound = False

  def get(index: blocks.Index) -> np.ndarray:
    nonlocal sound
    with lock:
      if sound:
        pass
      elif index == whole:
        part = array.get(index)
        _hold(digests.in_hex(digests.of_block(part, array.shape)))
        sound = True
        return part
      else:
        _hold(digests.of_lazy(array))
        sound = True
    return array.get(index)

  def _hold(found: str) -> None:
    if found != digest:
      raise DamagedError(_differ([name], where))

  return dataclasses.replace(array, get=get)


def diagnose(folder: epath.Path, item: str, known: Digests | None) -> lazy_arrays.Arrays:
  """Finds out what of an item is damaged, after restoring it has failed; reads all of it.

  Returns:
    The arrays, which are sound.

  Raises:
    DamagedError: names what is damaged.
    OSError: it cannot be reached now.
  """
  check_items(folder, [item])
  failed = []
  arrays = open_tree(folder, item, known)
  for name, array in arrays.items():
    try:
      chunks = array.chunks or blocks.chunk_shape(array.shape, array.dtype.itemsize)
      for index in blocks.cut(array.shape, array.dtype.itemsize, chunks):
        array.get(index)
    except (ValueError, OSError) as error:
      failed.append((name, _told(error, f'{folder}/{item}')))
  if failed:
    more = '' if len(failed) == 1 else f' (and {len(failed) - 1} more arrays: {failed[1][0]} ...)'
    raise type(failed[0][1])(f'{failed[0][1]}{more}')
  return arrays


def _told(error: Exception, where: str) -> Exception:
  """An error of reading arrays in one sentence: damage, or something that may pass."""
  if isinstance(error, DamagedError):
    return error
  if _PASSING.search(str(error)):
    return OSError(f'{where} cannot be read now: {cause(error)}. Nothing is known to be damaged')
  logger.debug('%s', where, exc_info=error)
  text = cause(error)
  return DamagedError(text if text.startswith(where) else f'{where} is damaged: {text}')


def cause(error: BaseException) -> str:
  """The first line of an error."""
  return (str(error).strip().splitlines() or [type(error).__name__])[0]

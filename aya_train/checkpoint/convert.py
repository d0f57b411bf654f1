"""`aya-train convert`: one checkpoint format into another, block by block.

The source is only read. The result is written beside `dst` and takes its name when it is complete,
and, with `verify`, has been read back; a conversion that ends early leaves `dst` as it was.
"""

import collections
import contextlib
import dataclasses
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util

from aya_train import optimizer
from aya_train.checkpoint import (
  formats,
  layouts,
  t5x_arrays,
  t5x_format,
  t5x_orbax,
  t5x_state,
)
from aya_train.models import network, t5_config

logger = logging.getLogger(__name__)

TARGETS = ('hf', 'native', 't5x')
DTYPES = ('float32', 'bfloat16')
_SPOOL_BYTES = 1 << 20  # smaller parameters are read again for each layer

Arrays = Mapping[str, t5x_arrays.SlicedArray]


def convert(
  src: epath.PathLike,
  dst: epath.PathLike,
  *,
  to: str = 'hf',
  dtype: str = 'float32',
  max_shard_size: str = '5GB',
  vocabulary_file: str | None = None,
  model_card: str | None = None,
  overwrite: bool = False,
  scan_layers: bool | None = None,
  verify: bool = False,
  allow_float16_overflow: bool = False,
) -> epath.Path:
  """Writes `src` into the folder `dst` in another format; `src` is only read.

  Args:
    src: anything `formats.detect` knows.
    dst: folder to make. For T5X call it checkpoint_<step>: T5X finds it then by its parent.
    to: 'hf', 'native' or 't5x'.
    dtype: of the parameters written, 'float32', 'bfloat16' or, for 'hf', 'float16'. Native ones hold
      float32, or weights alone as they are if bfloat16 was all that the source had.
    max_shard_size: of each safetensors file.
    vocabulary_file: SentencePiece file; by default the one that the checkpoint names.
    model_card: README.md of a Hugging Face folder.
    overwrite: replace `dst`.
    scan_layers: whether parameters of a native or T5X checkpoint are stacked; by default they are in
      native ones and are not in T5X ones, as in every released mT5.
    verify: read every array back and compare it bit for bit before `dst` appears.
    allow_float16_overflow: see `hf_export.export`.

  Raises:
    FileNotFoundError: no checkpoint, or no vocabulary.
    FileExistsError: `dst` is there.
    ValueError: a damaged checkpoint, or formats or shapes that do not fit.
  """
  started = time.monotonic()
  source, dst = formats.detect(src), epath.Path(dst)
  _check(source, dst, to, dtype, overwrite)
  checkpoint = formats.open_checkpoint(source)
  t5x_arrays.check_floats(checkpoint.params, str(src))
  if to == 'hf':
    vocabulary_file = _required_vocabulary(vocabulary_file or checkpoint.vocabulary_file, source)
  scanned = to == 'native' if scan_layers is None else scan_layers
  with _replacing(dst) as work:
    out, spool = work / 'out', work / 'spool'
    _check_room(work, checkpoint, np.dtype(dtype).itemsize)
    if to == 'hf' or not scanned:
      checkpoint = _spooled(checkpoint, spool)
    if to == 'native':
      written = write_native(
        out, checkpoint, vocabulary_file or checkpoint.vocabulary_file, scan_layers=scanned
      )
    elif to == 't5x':
      out.mkdir()
      written = t5x_state.to_leaves(checkpoint, scan_layers=scanned, dtype=dtype)
      t5x_format.write(out, written)
    else:
      written = _write_hf(
        out,
        checkpoint,
        vocabulary_file or '',
        dtype=dtype,
        max_shard_size=max_shard_size,
        model_card=model_card,
        allow_float16_overflow=allow_float16_overflow,
      )
    if verify:
      _verify(_read_back(out, to), written, str(dst))
  logger.info('wrote %s from %s in %.1f s', dst, source.path, time.monotonic() - started)
  return dst


def _check(source: formats.Source, dst: epath.Path, to: str, dtype: str, overwrite: bool) -> None:
  if to not in TARGETS:
    raise ValueError(f'to must be one of {TARGETS}, got {to!r}')
  if to == 't5x' and dtype not in DTYPES:
    raise ValueError(f'the dtype of a T5X checkpoint must be one of {DTYPES}, got {dtype!r}')
  if source.format.value == to:
    raise ValueError(f'{source.path} is already in the format {to!r}')
  if to == 'native' and dtype != 'float32':
    raise ValueError(f'native checkpoints hold float32, got dtype {dtype!r}: leave it out')
  if '://' not in str(dst):
    here, there = dst.resolve(), source.path.resolve()
    if here == there or here in there.parents or (there in here.parents and there.is_dir()):
      raise ValueError(f'{dst} and the checkpoint {source.path} must not lie in one another')
  if dst.is_file():
    raise FileExistsError(f'{dst} is a file; give the folder to make')
  if dst.exists() and any(dst.iterdir()) and not overwrite:
    raise FileExistsError(f'{dst} is not empty: take another folder, or --overwrite')


def _required_vocabulary(vocabulary_file: str, source: formats.Source) -> str:
  if vocabulary_file and epath.Path(vocabulary_file).exists():
    return vocabulary_file
  named = f'the vocabulary {vocabulary_file!r} named by' if vocabulary_file else 'no vocabulary in'
  raise FileNotFoundError(
    f'{named} {source.path}' + (' does not exist' if vocabulary_file else '') + ': give its '
    'SentencePiece file with --vocabulary'
  )


@contextlib.contextmanager
def _replacing(dst: epath.Path) -> Iterator[epath.Path]:
  """Yields a work folder beside `dst`; its `out` takes the name of `dst` if the block ends well."""
  work = dst.parent / f'.{dst.name}.partial-{os.getpid()}'
  _remove_leftovers(dst)
  work.mkdir(parents=True)
  try:
    yield work
    if dst.exists():
      dst.rename(work / 'old')
    (work / 'out').rename(dst)
  finally:
    if (work / 'old').exists() and not dst.exists():
      (work / 'old').rename(dst)
    work.rmtree(missing_ok=True)


def _remove_leftovers(dst: epath.Path) -> None:
  """Removes work folders of conversions to `dst` that were killed on this machine."""
  if '://' in str(dst) or not dst.parent.is_dir():
    return
  pattern = re.compile(re.escape(f'.{dst.name}.partial-') + r'(\d+)')
  for path in dst.parent.iterdir():
    if matched := pattern.fullmatch(path.name):
      try:
        os.kill(int(matched[1]), 0)
      except ProcessLookupError:
        logger.warning('removing %s, left by a conversion that was killed', path)
        if (path / 'old').exists() and not dst.exists():
          (path / 'old').rename(dst)
        path.rmtree()
      except PermissionError:
        continue


def _check_room(work: epath.Path, checkpoint: t5x_state.Checkpoint, itemsize: int) -> None:
  if '://' in str(work):
    return
  needed = itemsize * sum(math.prod(array.shape) for array in checkpoint.params.values())
  free = shutil.disk_usage(work).free
  if free < needed:
    raise OSError(
      f'{work.parent} has {free / 1e9:.1f} GB free, the converted parameters take '
      f'{needed / 1e9:.1f} GB: free some, or choose another disk'
    )


def _spooled(checkpoint: t5x_state.Checkpoint, folder: epath.Path) -> t5x_state.Checkpoint:
  """Lets layers be read one by one from stacked parameters, at the price of room on disk."""
  config = checkpoint.config
  if not config.scan_layers:
    return checkpoint
  folder.mkdir()
  axis, params = config.param_scan_axis, {}
  for name, array in checkpoint.params.items():
    stacked = name.startswith(('encoder/encoder/', 'decoder/decoder/'))
    if stacked and array.nbytes > _SPOOL_BYTES and (array.chunks or array.shape)[axis] > 1:
      array = t5x_arrays.spooled(array, axis, folder / name.replace('/', '.'))
    params[name] = array
  return dataclasses.replace(checkpoint, params=params)


# Writing -------------------------------------------------------------------------------------------


def _write_hf(
  out: epath.Path,
  checkpoint: t5x_state.Checkpoint,
  vocabulary_file: str,
  *,
  dtype: str,
  max_shard_size: str,
  model_card: str | None,
  allow_float16_overflow: bool,
) -> Arrays:
  from aya_train.checkpoint import hf_export  # needs safetensors, an extra

  config = dataclasses.replace(checkpoint.config, scan_layers=False)
  params = checkpoint.in_layout(config)
  hf_export.export(
    params,
    config,
    vocabulary_file,
    out,
    dtype=dtype,
    max_shard_size=max_shard_size,
    model_card=model_card,
    allow_float16_overflow=allow_float16_overflow,
  )
  return {name: t5x_arrays.cast(array, dtype) for name, array in params.items()}


def write_native(
  out: epath.PathLike,
  checkpoint: t5x_state.Checkpoint,
  vocabulary_file: str,
  *,
  scan_layers: bool = True,
) -> Arrays:
  """Writes a step folder from which training can start; `out` must not exist.

  Orbax lays the tree out with stand-ins of one element, without OCDBT: then every leaf is a zarr
  array in a folder of its own, and is written there block by block, each layer in its own chunks.
  (Orbax's own writers want whole parameters in memory.) Weights hardly shrink, and are not
  compressed. Parameters in bfloat16 stay so if no optimizer state comes with them: reading them for
  training casts them to float32.

  Returns:
    What was written, by the path of each array below `out`.
  """
  out = epath.Path(out).resolve()
  config = dataclasses.replace(checkpoint.config, scan_layers=scan_layers, param_scan_axis=1)
  kept = 'bfloat16' if checkpoint.moments is None else 'float32'
  params = {
    name: array if str(array.dtype) == kept else t5x_arrays.cast(array, 'float32')
    for name, array in checkpoint.in_layout(config).items()
  }
  items: dict[str, Any] = {'params': traverse_util.unflatten_dict(params, sep='/')}
  if checkpoint.moments is not None:
    items['training'] = _training(checkpoint, config)
  metadata = {
    'architecture': config.architecture(),
    'vocabulary_file': vocabulary_file,
    'step': checkpoint.step,
  }
  handlers: dict[str, Any] = {
    item: ocp.StandardCheckpointHandler(use_ocdbt=False) for item in items
  }
  composite = ocp.CompositeCheckpointHandler(**handlers, metadata=ocp.JsonCheckpointHandler())
  stand_ins = {
    item: ocp.args.StandardSave(jax.tree.map(lambda x: np.zeros((1,), x.dtype), tree))
    for item, tree in items.items()
  }
  with ocp.Checkpointer(composite) as checkpointer:
    checkpointer.save(
      out, args=ocp.args.Composite(metadata=ocp.args.JsonSave(metadata), **stand_ins)
    )
  written = {
    f'{item}/{jax.tree_util.keystr(path, simple=True, separator="/")}': array
    for item, tree in items.items()
    for path, array in jax.tree_util.tree_leaves_with_path(tree)
  }

  def write(named: tuple[str, t5x_arrays.SlicedArray]) -> None:
    item, _, name = named[0].partition('/')
    array = named[1]
    stacked = [1] if name.startswith(('encoder/encoder/', 'decoder/decoder/')) else []
    chunks = t5x_arrays.chunk_shape(array.shape, array.dtype.itemsize, stacked)
    kvstore = t5x_format.kvstore_spec(out / item / name.replace('/', '.'))
    t5x_arrays.write_zarr(kvstore, array, compressor=None, chunks=chunks)

  collections.deque(layouts.ahead(write, written.items(), waiting=layouts.MANY), maxlen=0)
  return written


def _training(checkpoint: t5x_state.Checkpoint, config: t5_config.T5Config) -> dict[str, Any]:
  """The item `training` of a native checkpoint whose optimizer is `optimizer.adafactor`."""
  abstract, axes = network.parameter_axes(config)
  moments = checkpoint.moments or {}
  momentum = any(name.endswith('/m') and m.shape != (1,) for name, m in moments.items())
  tx = optimizer.adafactor(lambda step: jnp.float32(0), axes, beta1=0.9 if momentum else None)
  shapes = jax.eval_shape(tx.init, abstract)
  return {
    'step': t5x_arrays.of(np.asarray(checkpoint.step, np.int32)),
    'opt_state': t5x_state.fill(shapes, abstract, checkpoint, config),
    'rng': t5x_arrays.of(np.asarray(jax.random.key_data(jax.random.key(0)))),
  }


# Reading back --------------------------------------------------------------------------------------


def _read_back(out: epath.Path, to: str) -> Arrays:
  if to == 't5x':
    return t5x_format.read(out)
  if to == 'native':
    items = [item for item in ('params', 'training') if (out / item).exists()]
    return {
      f'{item}/{name}': array
      for item in items
      for name, array in t5x_orbax.read(out / item).items()
    }
  return formats.open_checkpoint(formats.Source(out, formats.Format.HF)).params


def _verify(found: Arrays, written: Arrays, where: str) -> None:
  if set(found) != set(written):
    raise ValueError(f'{where}: read back other arrays: {sorted(set(found) ^ set(written))[:5]}')

  def difference(name: str) -> str | None:
    return t5x_arrays.first_difference(name, written[name], found[name])

  for told in layouts.ahead(difference, written, waiting=layouts.MANY):
    if told:
      raise ValueError(f'{where}: what was written does not read back: {told}')
  logger.info('verified %d arrays, bit for bit', len(written))

"""Writes native checkpoints (see `manager`) array by array, from a checkpoint of any format."""

import collections
import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util

from aya_train import destinations, optimizer
from aya_train.checkpoint import layouts, progress, vocabularies
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.checkpoint.t5x import t5x_format, t5x_state
from aya_train.models import network, t5_config

Arrays = Mapping[str, lazy_arrays.SlicedArray]


def write(
  out: epath.PathLike,
  checkpoint: t5x_state.Checkpoint,
  vocabulary_file: str,
  *,
  scan_layers: bool = True,
  dtype: str = 'float32',
) -> Arrays:
  """Writes a step folder from which training can start; `out` must not exist.

  Orbax lays the tree out with stand-ins of one element, without OCDBT: then every leaf is a zarr
  array in a folder of its own, and is written there block by block, each layer in its own chunks.
  (Orbax's own writers want whole parameters in memory.) Weights hardly shrink, and are not
  compressed.

  Args:
    out: the folder.
    checkpoint: any, opened.
    vocabulary_file: for the metadata.
    scan_layers: stack the layers, on axis 1.
    dtype: of the parameters, 'float32' or 'bfloat16'; reading them for training casts them to
      float32. The optimizer state is float32.

  Returns:
    What was written, by the path of each array below `out`.
  """
  out = epath.Path(out).resolve()
  config = dataclasses.replace(checkpoint.config, scan_layers=scan_layers, param_scan_axis=1)
  params = {
    name: lazy_arrays.cast(array, dtype) for name, array in checkpoint.in_layout(config).items()
  }
  items: dict[str, Any] = {'params': traverse_util.unflatten_dict(params, sep='/')}
  if checkpoint.moments is not None:
    items['training'] = _training(checkpoint, config)
  if vocabulary_file and destinations.is_local(vocabulary_file):
    vocabulary_file = os.path.abspath(vocabulary_file)
  metadata = {
    'architecture': config.architecture(),
    'vocabulary_file': vocabulary_file,
    'step': checkpoint.step,
  }
  if vocabulary_file and epath.Path(vocabulary_file).exists():
    metadata['vocabulary'] = vocabularies.fingerprint(vocabulary_file)
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

  def write_one(named: tuple[str, lazy_arrays.SlicedArray]) -> None:
    item, _, name = named[0].partition('/')
    array = named[1]
    stacked = [1] if name.startswith(('encoder/encoder/', 'decoder/decoder/')) else []
    chunks = lazy_arrays.chunk_shape(array.shape, array.dtype.itemsize, stacked)
    kvstore = t5x_format.kvstore_spec(out / item / name.replace('/', '.'))
    lazy_arrays.write_zarr(kvstore, array, compressor=None, chunks=chunks)

  with progress.shown('writing', progress.total_bytes(written)) as advance:
    counted = progress.counted(written, advance)
    collections.deque(layouts.ahead(write_one, counted.items(), waiting=layouts.MANY), maxlen=0)
  return written


def _training(checkpoint: t5x_state.Checkpoint, config: t5_config.T5Config) -> dict[str, Any]:
  """The item `training` of a native checkpoint whose optimizer is `optimizer.adafactor`."""
  abstract, axes = network.parameter_axes(config)
  moments = checkpoint.moments or {}
  momentum = any(name.endswith('/m') and m.shape != (1,) for name, m in moments.items())
  tx = optimizer.adafactor(lambda step: jnp.float32(0), axes, beta1=0.9 if momentum else None)
  shapes = jax.eval_shape(tx.init, abstract)
  return {
    'step': lazy_arrays.of(np.asarray(checkpoint.step, np.int32)),
    'opt_state': t5x_state.fill(shapes, abstract, checkpoint, config),
    'rng': lazy_arrays.of(np.asarray(jax.random.key_data(jax.random.key(0)))),
  }

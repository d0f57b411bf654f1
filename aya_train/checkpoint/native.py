"""Native checkpoints (see `manager`) array by array: opened, and written from one of any format."""

import collections
import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util

from aya_train import destinations, optimizer
from aya_train.checkpoint import (
  contents,
  digests,
  layouts,
  manager,
  model_settings,
  optax_state,
  progress,
  soundness,
  vocabularies,
)
from aya_train.checkpoint.arrays import blocks, lazy_arrays, workers, zarr_arrays
from aya_train.checkpoint.hf import hf_vocabulary
from aya_train.models import network, sentence_encoder, t5_config

# Beside `params`, if a tokenizer of transformers says more than any SentencePiece file: the file
# made of it, and the tokenizer itself.
VOCABULARY_FILE, TOKENIZER = 'sentencepiece.model', 'tokenizer'


def open_folder(path: epath.Path) -> contents.Checkpoint:
  """Opens a step folder; each array is held to its digest when it is first read.

  Raises:
    ValueError, FileNotFoundError: it is damaged.
  """
  config, metadata = read_description(path)
  known = soundness.read(path)
  soundness.check_items(path, ['params'])
  params = soundness.open_tree(path, 'params', known)
  layouts.check(params, config, str(path))
  moments = None
  if (path / 'training').exists():
    training = soundness.open_tree(path, 'training', known)
    moments = optax_state.to_moments(training, params, config, str(path))
  return contents.Checkpoint(
    where=str(path),
    config=config,
    params=params,
    step=metadata['step'],
    moments=moments,
    vocabulary_file=metadata['vocabulary_file'],
    settings=metadata['settings'],
    tokenizer_folder=str(path / TOKENIZER) if (path / TOKENIZER).is_dir() else '',
  )


class NotT5Error(ValueError):
  """A checkpoint is whole, and of an objective that trains no T5 network."""


def read_description(
  path: epath.Path, *, encoder_alone: bool = False
) -> tuple[t5_config.T5Config, dict[str, Any]]:
  """The network and the rest of what a step folder says of itself.

  Args:
    path: the folder.
    encoder_alone: take sentence encoders too, which have no decoder.

  Raises:
    ValueError: it is damaged.
  """
  try:
    metadata = manager.read_metadata(path)
    other = metadata['architecture'].get('objective')
    if other == sentence_encoder.OBJECTIVE and encoder_alone:
      config = sentence_encoder.from_architecture(metadata['architecture']).config
    elif other is not None:
      raise NotT5Error(
        f'{path} holds the parameters of the objective {other}, which are no T5 network: only a '
        'run of the same objective reads them'
        + ('; --to sentence-transformers exports it' if other == sentence_encoder.OBJECTIVE else '')
      )
    else:
      config = t5_config.T5Config(**metadata['architecture'])
    buckets = (config.relative_attention_num_buckets, config.relative_attention_max_distance)
    if not all(type(n) is int and n >= 4 for n in buckets):
      raise TypeError(f'buckets and distance of relative positions {buckets}')
    settings = _settings(metadata)
    if (rate := metadata.get('dropout_rate')) is not None:
      config = dataclasses.replace(config, dropout_rate=rate)
    step, vocabulary = metadata['step'], metadata.get('vocabulary_file') or ''
    fingerprint = metadata.get('vocabulary')
    if type(step) is not int or not isinstance(vocabulary, str):
      raise TypeError(f'step {step!r}, vocabulary_file {vocabulary!r}')
    if not isinstance(fingerprint, str | None):
      raise TypeError(f'vocabulary {fingerprint!r}')
  except (NotT5Error, soundness.DamagedError):
    raise
  except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError) as error:
    raise ValueError(
      f'{path}/metadata is not what was written for a checkpoint ({error!r}). Copy the checkpoint '
      'again from its source'
    ) from error
  if vocabulary == VOCABULARY_FILE:  # the folder's own, wherever it was copied
    vocabulary = str(path / VOCABULARY_FILE)
  return config, {
    'step': step,
    'vocabulary_file': vocabulary,
    'vocabulary': fingerprint,
    'settings': settings,
  }


def is_encoder(path: epath.Path) -> bool:
  """Whether a step folder is of a run that trained a sentence encoder."""
  return manager.read_metadata(path)['architecture'].get('objective') == sentence_encoder.OBJECTIVE


def open_encoder(path: epath.Path) -> tuple[contents.Checkpoint, lazy_arrays.Arrays]:
  """Opens a step folder of a sentence encoder; each array is held to its digest when it is read.

  Returns:
    The encoder's share of the network (no array of it is the decoder's), and what the run has
    besides, such as `projection/kernel`.

  Raises:
    ValueError, FileNotFoundError: it is damaged.
  """
  config, metadata = read_description(path, encoder_alone=True)
  known = soundness.read(path)
  soundness.check_items(path, ['params'])
  arrays = soundness.open_tree(path, 'params', known)
  network_arrays = {n: x for n, x in arrays.items() if n.startswith(sentence_encoder.SHARE)}
  layouts.check(network_arrays, config, str(path), has_decoder=False)
  checkpoint = contents.Checkpoint(
    where=str(path),
    config=config,
    params=network_arrays,
    step=metadata['step'],
    vocabulary_file=metadata['vocabulary_file'],
    settings=metadata['settings'],
  )
  return checkpoint, {n: x for n, x in arrays.items() if n not in network_arrays}


def _settings(metadata: Mapping[str, Any]) -> model_settings.ModelSettings:
  """What a step folder says of how its model answers; a run says how long its targets are."""
  settings = model_settings.from_json(metadata.get('settings'))
  length = (metadata.get('task_feature_lengths') or {}).get('targets')
  if length is None or settings.max_new_tokens is not None:
    return settings
  return settings.with_length(length)


def write(
  out: epath.PathLike,
  checkpoint: contents.Checkpoint,
  vocabulary_file: str,
  *,
  scan_layers: bool = True,
  dtype: str = 'float32',
  own_vocabulary: bytes = b'',
) -> lazy_arrays.Arrays:
  """Writes a step folder from which training can start; `out` must not exist.

  Orbax lays the tree out with stand-ins of one element, without OCDBT: then every leaf is a zarr
  array in a folder of its own, and is written there block by block, each layer in its own chunks.
  (Orbax's own writers want whole parameters in memory.) Weights hardly shrink, and are not
  compressed. Digests are taken on the way.

  Args:
    out: the folder.
    checkpoint: any, opened.
    vocabulary_file: for the metadata.
    scan_layers: stack the layers, on axis 1.
    dtype: of the parameters, 'float32' or 'bfloat16'; reading them for training casts them to
      float32. The optimizer state is float32.
    own_vocabulary: a SentencePiece model that is nowhere else, and is kept in the folder instead of
      `vocabulary_file`, and with it the checkpoint's tokenizer.

  Returns:
    What was written, by the path of each array below `out`.
  """
  out = epath.Path(out).resolve()
  config = dataclasses.replace(checkpoint.config, scan_layers=scan_layers, param_scan_axis=1)
  params = {
    name: lazy_arrays.cast(array, dtype, name)
    for name, array in checkpoint.in_layout(config).items()
  }
  items: dict[str, Any] = {'params': params}
  if checkpoint.moments is not None:
    items['training'] = _training(checkpoint, config)
  if own_vocabulary:
    vocabulary_file = VOCABULARY_FILE
  elif vocabulary_file and destinations.is_local(vocabulary_file):
    vocabulary_file = os.path.abspath(vocabulary_file)
  metadata = {
    'architecture': config.architecture(),
    'vocabulary_file': vocabulary_file,
    'step': checkpoint.step,
    'dropout_rate': config.dropout_rate,
    'settings': checkpoint.settings.to_json(),
  }
  if own_vocabulary:
    metadata['vocabulary'] = vocabularies.fingerprint_of(own_vocabulary)
  elif vocabulary_file and epath.Path(vocabulary_file).exists():
    metadata['vocabulary'] = vocabularies.fingerprint(vocabulary_file)

  def keep_vocabulary() -> None:
    if own_vocabulary:
      (out / VOCABULARY_FILE).write_bytes(own_vocabulary)
      hf_vocabulary.keep(checkpoint.tokenizer_folder, out / TOKENIZER)

  return _write_items(out, items, metadata, keep_vocabulary)


def write_encoder(
  out: epath.PathLike, arrays: lazy_arrays.Arrays, like: epath.Path, *, dtype: str = 'float32'
) -> lazy_arrays.Arrays:
  """Writes a step folder of a sentence encoder, whose arrays are `arrays`; `out` must not exist.

  Args:
    out: the folder.
    arrays: by whole name, those of `open_encoder`.
    like: a step folder, which says all else of the model.
    dtype: of the parameters.

  Returns:
    What was written, by the path of each array below `out`.
  """
  metadata = {k: v for k, v in manager.read_metadata(like).items() if k != 'run'}
  params = {name: lazy_arrays.cast(array, dtype, name) for name, array in arrays.items()}
  return _write_items(epath.Path(out).resolve(), {'params': params}, metadata)


def _write_items(
  out: epath.Path,
  flat_items: Mapping[str, Any],
  metadata: Mapping[str, Any],
  finish: Callable[[], None] = lambda: None,
) -> lazy_arrays.Arrays:
  """Writes a step folder; `params` are by whole names, and `finish` adds other files."""
  items = {
    item: traverse_util.unflatten_dict(dict(tree), sep='/') if item == 'params' else tree
    for item, tree in flat_items.items()
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

  stored: dict[str, dict[str, soundness.Stored]] = {item: {} for item in items}

  def write_one(named: tuple[str, lazy_arrays.LazyArray]) -> None:
    item, _, name = named[0].partition('/')
    array = named[1]
    stacked = [1] if name.startswith(('encoder/encoder/', 'decoder/decoder/')) else []
    chunks = blocks.chunk_shape(array.shape, array.dtype.itemsize, stacked)
    kvstore = zarr_arrays.kvstore_spec(out / item / name.replace('/', '.'))
    array, digest = digests.summing(array)
    zarr_arrays.write(kvstore, array, compressor=None, chunks=chunks)
    stored[item][name] = soundness.Stored(array.dtype.name, array.shape, digest())

  with progress.shown('writing', progress.total_bytes(written)) as advance:
    counted = progress.counted(written, advance)
    collections.deque(workers.ahead(write_one, counted.items(), waiting=workers.MANY), maxlen=0)
  finish()
  soundness.write(
    out, soundness.Digests(stored, digests.of_json(metadata), files=soundness.of_files(out))
  )
  return written


def _training(checkpoint: contents.Checkpoint, config: t5_config.T5Config) -> dict[str, Any]:
  """The item `training` of a native checkpoint whose optimizer is `optimizer.adafactor`."""
  abstract, axes = network.parameter_axes(config)
  moments = checkpoint.moments or {}
  momentum = any(name.endswith('/m') and m.shape != (1,) for name, m in moments.items())
  tx = optimizer.adafactor(lambda step: jnp.float32(0), axes, beta1=0.9 if momentum else None)
  shapes = jax.eval_shape(tx.init, abstract)
  return {
    'step': lazy_arrays.of(np.asarray(checkpoint.step, np.int32)),
    'opt_state': optax_state.fill(shapes, abstract, checkpoint, config),
    'rng': lazy_arrays.of(np.asarray(jax.random.key_data(jax.random.key(0)))),
  }

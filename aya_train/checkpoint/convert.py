"""`aya-train convert`: one checkpoint layout into another."""

import logging
import time
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import traverse_util

from aya_train.checkpoint import formats, hf_export, hf_import, manager
from aya_train.models import network, t5_config

logger = logging.getLogger(__name__)


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
  allow_float16_overflow: bool = False,
) -> epath.Path:
  """Writes `src` into the folder `dst` as another layout; `src` is only read.

  Args:
    src: anything `formats.detect` knows.
    dst: folder to make.
    to: 'hf' or 'native'.
    dtype: of the tensors written, 'float32', 'bfloat16' or, for 'hf', 'float16' (native is always
      float32).
    max_shard_size: of each safetensors file.
    vocabulary_file: SentencePiece file; by default the one that the checkpoint names.
    model_card: README.md of a Hugging Face folder.
    overwrite: replace `dst`.
    allow_float16_overflow: see `hf_export.export`.

  Raises:
    FileNotFoundError: no checkpoint, or no vocabulary.
    FileExistsError: `dst` is there.
    ValueError: layouts or shapes that do not fit.
  """
  source, dst, started = formats.detect(src), epath.Path(dst), time.monotonic()
  if source.format.value == to:
    raise ValueError(f'{src} is already in the layout {to!r}')
  if dst.exists() and any(dst.iterdir()) and not overwrite:
    raise FileExistsError(f'{dst} is not empty: take another folder, or --overwrite')
  if to == 'native':
    _to_native(source.path, dst, vocabulary_file, overwrite)
  else:
    metadata = manager.read_metadata(source.path)
    vocabulary_file = vocabulary_file or metadata['vocabulary_file']
    if not vocabulary_file or not epath.Path(vocabulary_file).exists():
      raise FileNotFoundError(
        f'the vocabulary {vocabulary_file!r} named by {source.path} does not exist: '
        'give its SentencePiece file with --vocabulary'
      )
    config = t5_config.T5Config(**metadata['architecture'])
    hf_export.export(
      read_host_params(source.path, config),
      config,
      vocabulary_file,
      dst,
      dtype=dtype,
      max_shard_size=max_shard_size,
      model_card=model_card,
      overwrite=overwrite,
      allow_float16_overflow=allow_float16_overflow,
    )
  logger.info('wrote %s from %s in %.1f s', dst, source.path, time.monotonic() - started)
  return dst


def read_host_params(path: epath.PathLike, config: t5_config.T5Config) -> Any:
  """Parameters of a native checkpoint as numpy arrays on this host."""
  abstract, _ = network.parameter_axes(config)
  device = jax.sharding.SingleDeviceSharding(jax.local_devices(backend='cpu')[0])
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), abstract
  )
  return jax.tree.map(np.asarray, manager.read_params(path, abstract))


def _to_native(
  src: epath.Path, dst: epath.Path, vocabulary_file: str | None, overwrite: bool
) -> None:
  flat, config = hf_import.open_scanned(src)
  params = traverse_util.unflatten_dict({k: v.read() for k, v in flat.items()}, sep='/')
  if vocabulary_file is None and (src / 'spiece.model').exists():
    vocabulary_file = str(src / 'spiece.model')
  metadata = {
    'architecture': config.architecture(),
    'vocabulary_file': vocabulary_file or '',
    'step': 0,
  }
  manager.write_params(dst, params, metadata, overwrite=overwrite)

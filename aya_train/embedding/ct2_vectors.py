"""Vectors by CTranslate2, of a folder that `convert --to ct2` wrote of a sentence encoder.

FOLDER/model.bin, vocabulary.json       the encoder, as `ctranslate2.Encoder` loads it
      /embedding.json                   the network, pooling, prompts, lengths, dimensions
      /projection.safetensors           `linear.weight` [dimension, width], if there is one
      /tokenizer.json ...               its tokenizer
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from aya_train import ct2_library, partitioning
from aya_train.checkpoint import sha256sums
from aya_train.checkpoint.arrays import lazy_arrays, safetensors_file
from aya_train.checkpoint.hf import hf_config
from aya_train.embedding import encoder_checkpoint, text_encoder

KIND = 'a CTranslate2 encoder'
PROJECTION = 'projection.safetensors'
WEIGHT = 'linear.weight'
_DAMAGED = 'Convert the checkpoint again'


def settings_of(
  checkpoint: encoder_checkpoint.EncoderCheckpoint, network: Mapping[str, Any], max_length: int
) -> dict[str, Any]:
  """What `embedding.json` holds.

  Args:
    checkpoint: what the folder is made of.
    network: the encoder's config.json in transformers' words.
    max_length: most tokens of a text, its end included.
  """
  return {
    'pooling': 'mean',
    'projection': PROJECTION if checkpoint.projection else None,
    'normalize': True,
    'similarity': 'cosine',
    'dimension': checkpoint.dimension,
    'matryoshka_dimensions': list(checkpoint.matryoshka_dimensions),
    'max_length': max_length,
    'prompts': dict(checkpoint.prompts),
    'network': dict(network),
  }


def open_folder(path: epath.PathLike) -> encoder_checkpoint.EncoderCheckpoint:
  """Opens a folder as far as it is no network: its only array is the projection.

  Raises:
    ValueError, FileNotFoundError: damaged.
  """
  folder = epath.Path(path)
  sha256sums.check(folder)
  where = folder / ct2_library.ENCODER
  try:
    content = json.loads(where.read_bytes())
    network = {k: v for k, v in content['network'].items() if k != 'is_encoder_decoder'}
    config = hf_config.from_hf_config(network, has_head=True, where=str(where))
    params = {}
    if content['projection']:
      weight = safetensors_file.open_file(folder / content['projection'])[WEIGHT]
      params[encoder_checkpoint.PROJECTION] = lazy_arrays.transpose(lazy_arrays.of(weight))
    found = encoder_checkpoint.EncoderCheckpoint(
      path=folder,
      kind=KIND,
      config=config,
      params=params,
      vocabulary=str(folder),
      prompts=dict(content['prompts']),
      matryoshka_dimensions=tuple(content['matryoshka_dimensions']),
      max_length=int(content['max_length']),
    )
  except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
    raise ValueError(f'{where} is damaged ({error}). {_DAMAGED}') from error
  if found.dimension != content.get('dimension'):
    raise ValueError(
      f'{folder} gives {found.dimension} numbers, and {where.name} says '
      f'{content.get("dimension")}. {_DAMAGED}'
    )
  return found


class Ct2TextEncoder(text_encoder.TextEncoder):
  """Such a folder on the CPU, or on a GPU if CTranslate2 finds one; see `TextEncoder`."""

  def __init__(
    self, folder: epath.PathLike, settings: text_encoder.Settings = text_encoder.DEFAULTS
  ):
    """Checks settings and loads the model.

    Raises:
      ValueError, FileNotFoundError: see `TextEncoder`; a folder that is damaged.
      ModuleNotFoundError: the extra `quantised` is not installed.
    """
    super().__init__(open_folder(folder), partitioning.one_device(), settings)
    self._library = ct2_library.imported(folder)
    try:
      self._model = self._library.Encoder(str(folder), device='auto', compute_type='default')
    except RuntimeError as error:
      raise ValueError(f'{folder} is damaged ({error}). {_DAMAGED}') from error
    kernel = self.checkpoint.params.get(encoder_checkpoint.PROJECTION)
    self._kernel = None if kernel is None else np.asarray(kernel.read(), np.float32)

  @property
  def about(self) -> dict[str, Any]:
    return {**super().about, 'activations': self._model.compute_type}

  def _of_batch(self, tokens: np.ndarray) -> np.ndarray:
    lengths = np.count_nonzero(tokens, axis=1)
    rows = np.flatnonzero(lengths)
    storage = self._library.StorageView.from_array
    out = np.zeros((len(tokens), self.dimension), np.float32)
    output = self._model.forward_batch(
      storage(np.ascontiguousarray(tokens[rows], np.int32)),
      lengths=storage(lengths[rows].astype(np.int32)),
    ).last_hidden_state
    if output.device != 'cpu':
      output = output.to_device(self._library.Device.cpu)
    states = np.asarray(output.to(self._library.DataType.float32), np.float32)
    mask = np.arange(states.shape[1]) < lengths[rows, None]
    vectors = np.einsum('rtd,rt->rd', states, mask) / lengths[rows, None]
    if self._kernel is not None:
      vectors = vectors @ self._kernel
    vectors = vectors[:, : self.dimension]
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    out[rows] = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    return out

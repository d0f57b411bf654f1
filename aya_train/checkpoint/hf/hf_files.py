"""Reads what a model folder of Hugging Face transformers says, and opens its tensors."""

import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from aya_train import path_facts
from aya_train.checkpoint import names
from aya_train.checkpoint.arrays import lazy_arrays, safetensors_file

logger = logging.getLogger(__name__)

INDEX = 'model.safetensors.index.json'
WHOLE = 'model.safetensors'

_WAY_OUT = 'Copy the folder again from its source'


def read_config(folder: epath.PathLike) -> dict[str, Any]:
  """The content of config.json.

  Raises:
    FileNotFoundError: there is none.
    ValueError: it is no JSON object, or sizes in it are missing or impossible.
  """
  path = epath.Path(folder) / 'config.json'
  if not path_facts.exists(path):
    raise FileNotFoundError(
      f'{folder} holds no config.json; it must be a transformers model folder'
    )
  settings = read_json(path)
  if settings.get('model_type') not in ('mt5', 't5', 'umt5'):
    return settings  # refused by its name
  for name in (*_REQUIRED, *_OPTIONAL):
    fits, wanted = _OPTIONAL.get(name, (_is_positive, 'a positive integer'))
    value = settings.get(name)
    if not (name in _OPTIONAL and value is None) and not fits(value):
      raise ValueError(f'{path}: {name} must be {wanted}, got {value!r}. {_WAY_OUT}')
  return settings


def _is_positive(value: Any) -> bool:
  return type(value) is int and value > 0


_REQUIRED = ('vocab_size', 'd_model', 'd_kv', 'd_ff', 'num_layers', 'num_heads')

_OPTIONAL: Mapping[str, tuple[Callable[[Any], bool], str]] = {
  'num_decoder_layers': (_is_positive, 'a positive integer or null'),
  'relative_attention_num_buckets': (lambda v: _is_positive(v) and v >= 4, 'an integer from 4 on'),
  'relative_attention_max_distance': (_is_positive, 'a positive integer'),
  'dropout_rate': (lambda v: type(v) in (int, float) and 0 <= v < 1, 'a number in [0, 1)'),
  'layer_norm_epsilon': (lambda v: type(v) in (int, float), 'a number'),
  'feed_forward_proj': (lambda v: isinstance(v, str), 'a text'),
  'tie_word_embeddings': (lambda v: isinstance(v, bool), 'true or false'),
  'scale_decoder_outputs': (lambda v: isinstance(v, bool), 'true or false'),
}


def read_json(path: epath.Path) -> dict[str, Any]:
  """A JSON object from a file.

  Raises:
    ValueError: it is something else.
  """
  try:
    content = json.loads(path.read_bytes())
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path} is no JSON: {error}. {_WAY_OUT}') from error
  if not isinstance(content, dict):
    raise ValueError(f'{path} must hold a JSON object, got {type(content).__name__}. {_WAY_OUT}')
  return content


def read_generation_config(folder: epath.PathLike) -> dict[str, Any]:
  """The content of generation_config.json, {} where there is none.

  Raises:
    ValueError: it is no JSON object.
  """
  path = epath.Path(folder) / 'generation_config.json'
  return read_json(path) if path_facts.exists(path) else {}


def dtype_of(folder: epath.PathLike) -> str:
  """Name of the dtype of a folder's weights, as config.json says; float32 if it does not."""
  settings = read_config(folder)
  return settings.get('dtype') or settings.get('torch_dtype') or 'float32'


def is_tied(folder: epath.PathLike) -> bool:
  """Whether the head of a folder's model is its input table."""
  return 'lm_head.weight' not in open_tensors(folder)


def parameter_count(folder: epath.PathLike) -> int:
  """Number of parameters in a folder's tensors, the aliases of the input table left out."""
  tensors = open_tensors(folder)
  tables = [name for name in (names.HF_TABLE, *names.HF_TABLE_ALIASES) if name in tensors]
  return sum(math.prod(t.shape) for name, t in tensors.items() if name not in tables[1:])


def safetensors_files(folder: epath.PathLike) -> list[str]:
  """Names of the files that hold a folder's tensors.

  Where there is one whole file beside shards it is that one, as in transformers.

  Raises:
    FileNotFoundError: there are none, with the way out when there is a .bin.
    ValueError: the index is damaged or names a file outside the folder.
  """
  folder = epath.Path(folder)
  if path_facts.exists(folder / WHOLE):
    if _is_sharded(folder):
      logger.warning(
        '%s holds %s and shards (%s): %s is read, as transformers does, and the shards are not. If '
        'they are what you mean, move it away',
        *(folder, WHOLE, INDEX, WHOLE),
      )
    return [WHOLE]
  if path_facts.exists(folder / INDEX):
    return sorted(set(_weight_map(folder).values()))
  found = [path.name for path in path_facts.matching(folder, '*.bin*')]
  way_out = (
    ' Pickled torch files are not read, since they can run code: load the model with transformers '
    'and save_pretrained it, which writes safetensors.'
  )
  raise FileNotFoundError(
    f'{folder} holds neither {WHOLE} nor {INDEX}.' + (way_out if found else '')
  )


def _is_sharded(folder: epath.Path) -> bool:
  """Whether an index names other files than the whole one."""
  return path_facts.exists(folder / INDEX) and set(_weight_map(folder).values()) != {WHOLE}


def _weight_map(folder: epath.Path) -> dict[str, str]:
  """The file of each tensor, as the index of a sharded folder says."""
  path = folder / INDEX
  found = read_json(path).get('weight_map')
  if not isinstance(found, dict) or not all(isinstance(file, str) for file in found.values()):
    raise ValueError(f'{path} must map names of tensors to files in `weight_map`. {_WAY_OUT}')
  if outside := [file for file in found.values() if not file or file != os.path.basename(file)]:
    raise ValueError(f'{path} names files outside its folder: {outside[:5]}')
  return found


def open_tensors(folder: epath.PathLike) -> dict[str, lazy_arrays.LazyArray]:
  """Every tensor of a folder's safetensors files, by its name there.

  Raises:
    FileNotFoundError: no files, or fewer than the index names.
    ValueError: a file is damaged, or holds other tensors than the index says.
  """
  folder = epath.Path(folder)
  files = safetensors_files(folder)
  found = {file: safetensors_file.open_file(folder / file) for file in files}
  if files != [WHOLE] or (path_facts.exists(folder / INDEX) and not _is_sharded(folder)):
    said = set(_weight_map(folder).items())
    if wrong := said ^ {(name, file) for file in files for name in found[file]}:
      raise ValueError(
        f'{folder / INDEX} and the files differ in {len(wrong)} tensors: {sorted(wrong)[:3]}. '
        f'{_WAY_OUT}'
      )
  return {name: tensor for file in files for name, tensor in found[file].items()}

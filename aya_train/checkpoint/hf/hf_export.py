"""Writes and reads model folders of Hugging Face transformers.

Writing needs no torch: config and tokenizer are JSON, and tensors are streamed into safetensors
files one by one. What transformers makes of the folder is described in `hf_config` (tables, scale)
and `hf_tokenizer` (ids).
"""

import functools
import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np
from etils import epath
from flax import linen as nn
from flax import traverse_util

from aya_train.checkpoint import layouts, work_folder
from aya_train.checkpoint.arrays import safetensors_file
from aya_train.checkpoint.hf import hf_config, hf_tokenizer
from aya_train.models import network, t5_config

logger = logging.getLogger(__name__)

DTYPES = {
  'float32': np.dtype(np.float32),
  'bfloat16': np.dtype(ml_dtypes.bfloat16),
  'float16': np.dtype(np.float16),
}
_INDEX = 'model.safetensors.index.json'
_WAY_OUT = 'Copy the folder again from its source'
_FLOAT16_MAX = float(np.finfo(np.float16).max)


@functools.lru_cache(maxsize=8)
def expected_shapes(config: t5_config.T5Config) -> Mapping[str, tuple[int, ...]]:
  """Shape of each parameter of the network, by whole name; computes nothing."""
  tokens = jax.ShapeDtypeStruct((1, 2), np.int32)
  variables = jax.eval_shape(
    network.Transformer(config).init, jax.random.key(0), tokens, tokens, tokens
  )
  flat = traverse_util.flatten_dict(nn.meta.unbox(variables['params']), sep='/')
  return {name: tuple(leaf.shape) for name, leaf in flat.items()}


def export(
  params: Mapping[str, Any],
  config: t5_config.T5Config,
  vocabulary_file: epath.PathLike,
  out_dir: epath.PathLike,
  *,
  dtype: str = 'float32',
  max_shard_size: int | str = '5GB',
  model_card: str | None = None,
  license_text: str | None = None,
  overwrite: bool = False,
  allow_float16_overflow: bool = False,
) -> epath.Path:
  """Writes a folder that `AutoModelForSeq2SeqLM` and `AutoTokenizer` load.

  The folder appears complete or not at all: everything is written beside `out_dir` and renamed.
  Memory needed is that of the largest tensor, as long as the leaves read lazily. On several hosts
  call it on one, with arrays that this host can read whole.

  Args:
    params: parameters of `network.Transformer(config)`, nested or flat with '/' in names, boxed or
      not; leaves are numpy, jax, TensorStore or `layouts.LazyArray`.
    config: the network; `config.scan_layers` says which layout `params` are in.
    vocabulary_file: the SentencePiece model, its sentinels inside the file (see `hf_tokenizer`).
    out_dir: new or empty folder; with `overwrite`, a full one is replaced.
    dtype: of the written tensors, 'float32', 'bfloat16' or 'float16'.
    max_shard_size: bytes, or a string such as '5GB'.
    model_card, license_text: content of README.md and LICENSE, each left out when None.
    overwrite: replace `out_dir`.
    allow_float16_overflow: write float16 without running sample prompts (`hf_torch.check_float16`,
      which needs torch and transformers).

  Returns:
    The path of the folder.

  Raises:
    ValueError: dtype or network cannot be exported, names or shapes do not fit `config`, the
      vocabulary is no T5 vocabulary or larger than the model's, or weights or activations do not
      fit into float16.
    FileExistsError: `out_dir` is not empty and `overwrite` is false.
  """
  if dtype not in DTYPES:
    raise ValueError(f'export dtype must be one of {sorted(DTYPES)}, got {dtype!r}')
  out_dir = epath.Path(out_dir)
  vocabulary = hf_tokenizer.read_vocabulary(vocabulary_file)
  pad_id, eos_id = vocabulary.trainer_spec.pad_id, vocabulary.trainer_spec.eos_id
  if len(vocabulary.pieces) > config.vocab_size:
    raise ValueError(
      f'{vocabulary_file} has {len(vocabulary.pieces)} pieces, more than the {config.vocab_size} '
      "rows of the model's table: this is not the vocabulary that the model was trained with"
    )
  settings = hf_config.to_hf_config(config, dtype=dtype, pad_id=pad_id, eos_id=eos_id)
  tensors = _hf_tensors(params, config)
  split = shards(tensors, dtype, max_shard_size)
  with work_folder.replacing(out_dir, overwrite=overwrite) as work:
    folder = work / 'out'
    folder.mkdir()
    _write_json(folder / 'config.json', settings)
    generation = hf_config.generation_config(pad_id=pad_id, eos_id=eos_id)
    _write_json(folder / 'generation_config.json', generation)
    hf_tokenizer.write(vocabulary_file, folder)
    for name, text in (('README.md', model_card), ('LICENSE', license_text)):
      if text is not None:
        (folder / name).write_text(text)
    _write_shards(folder, tensors, split, DTYPES[dtype])
    if dtype == 'float16' and not allow_float16_overflow:
      from aya_train.checkpoint.hf import hf_torch

      peak, where = hf_torch.check_float16(folder)
      logger.info('largest activation on sample prompts: %.4g, in %s', peak, where)
  return out_dir


def import_hf(
  folder: epath.PathLike, dtype: str | None = 'float32'
) -> tuple[dict[str, layouts.LazyArray], t5_config.T5Config]:
  """Opens a T5 1.1, mT5 or Aya folder written by `export` or by transformers.

  Args:
    folder: local folder with config.json and model.safetensors, or its shards and their index.
    dtype: of the arrays returned, None for that of the files.

  Returns:
    Whole unrolled names to arrays, which read from disk when asked, and the config
    (`scan_layers=False`; `layouts.to_scanned` stacks the layers).

  Raises:
    FileNotFoundError: no config.json or no safetensors, with the way out when there is a .bin.
    ValueError: the model is not one of this network, or names or shapes do not fit config.json.
  """
  folder = epath.Path(folder)
  settings = read_config(folder)
  tensors = open_tensors(folder)
  config = hf_config.from_hf_config(
    settings, has_head='lm_head.weight' in tensors, where=str(folder)
  )
  tables = [tensors[name] for name in ('lm_head.weight', 'shared.weight') if name in tensors]
  if config.logits_via_embedding and not np.array_equal(tables[0].read(), tables[-1].read()):
    raise ValueError(
      f'{folder}: config.json ties the head to the input table, but the two tensors differ; set '
      'tie_word_embeddings to false in config.json if the head was trained on its own'
    )
  params = layouts.from_hf(tensors, layouts.table_of(config), str(folder))
  layouts.check_shapes(params, expected_shapes(config), str(folder))
  if dtype is None:
    return params, config
  # Transposed before they are cast: bfloat16 is half as much to move.
  return {name: _lazily_cast(array, DTYPES[dtype]) for name, array in params.items()}, config


def _lazily_cast(array: layouts.LazyArray, dtype: np.dtype) -> layouts.LazyArray:
  return layouts.LazyArray(
    array.shape,
    dtype,
    lambda: array.read().astype(dtype, copy=False),
    lambda index: array[index].astype(dtype, copy=False),
  )


def _hf_tensors(
  params: Mapping[str, Any], config: t5_config.T5Config
) -> dict[str, layouts.LazyArray]:
  flat = traverse_util.flatten_dict(nn.meta.unbox(dict(params)), sep='/')
  table = layouts.table_of(config)
  table.check(flat, 'scanned' if config.scan_layers else 'unrolled')
  layouts.check_shapes(flat, expected_shapes(config), 'export')
  if config.scan_layers:
    flat = layouts.to_unrolled(flat, table, config.param_scan_axis)
  return layouts.to_hf(flat, table)


def read_config(folder: epath.PathLike) -> dict[str, Any]:
  """The content of config.json.

  Raises:
    FileNotFoundError: there is none.
    ValueError: it is no JSON object, or sizes in it are missing or impossible.
  """
  path = epath.Path(folder) / 'config.json'
  if not path.exists():
    raise FileNotFoundError(
      f'{folder} holds no config.json; it must be a transformers model folder'
    )
  settings = _read_json(path)
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


def _read_json(path: epath.Path) -> dict[str, Any]:
  """A JSON object from a file.

  Raises:
    ValueError: it is something else.
  """
  try:
    content = json.loads(path.read_bytes())
  except ValueError as error:
    raise ValueError(f'{path} is no JSON: {error}. {_WAY_OUT}') from error
  if not isinstance(content, dict):
    raise ValueError(f'{path} must hold a JSON object, got {type(content).__name__}. {_WAY_OUT}')
  return content


def _write_json(path: epath.Path, content: Mapping[str, Any]) -> None:
  path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + '\n')


def shards(tensors: Mapping[str, layouts.LazyArray], dtype: str, max_shard_size: int | str) -> Any:
  """Which tensor gets into which file: `filename_to_tensors`, `metadata` and so on.

  Raises:
    ValueError: `max_shard_size` is no size.
  """
  import huggingface_hub

  try:
    return huggingface_hub.split_state_dict_into_shards_factory(
      dict(tensors),
      get_storage_size=lambda tensor: math.prod(tensor.shape) * DTYPES[dtype].itemsize,
      filename_pattern='model{suffix}.safetensors',
      max_shard_size=max_shard_size,
    )
  except ValueError as error:
    raise ValueError(
      f"the size of a shard must be a number of bytes or like '5GB', got {max_shard_size!r}"
    ) from error


def is_laid_out(folder: epath.PathLike, dtype: str, max_shard_size: int | str) -> bool:
  """Whether an export of a folder's model would write files with the same tensors in this dtype."""
  params, config = import_hf(folder, dtype=None)
  tensors = _hf_tensors(params, config)
  wanted = {
    (name, file, str(DTYPES[dtype]))
    for file, names in shards(tensors, dtype, max_shard_size).filename_to_tensors.items()
    for name in names
  }
  return wanted == {
    (name, file, str(tensor.dtype))
    for file in safetensors_files(folder)
    for name, tensor in safetensors_file.open_file(epath.Path(folder) / file).items()
  }


def _write_shards(
  folder: epath.Path, tensors: Mapping[str, layouts.LazyArray], split: Any, dtype: np.dtype
) -> None:
  for filename, names in split.filename_to_tensors.items():
    chosen = {name: tensors[name] for name in names}
    safetensors_file.write(folder / filename, chosen, dtype, _cast)
  if split.is_sharded:
    index = {'metadata': split.metadata, 'weight_map': split.tensor_to_filename}
    _write_json(folder / _INDEX, index)


def _cast(block: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
  if dtype == np.float16:
    check_float16(block, name)
  return block.astype(dtype.newbyteorder('<'), copy=False)


def check_float16(block: np.ndarray, name: str) -> None:
  """Raises ValueError if float16 cannot hold a weight."""
  if (peak := float(np.abs(block).max(initial=0))) > _FLOAT16_MAX:
    raise ValueError(
      f'{name} holds {peak:g}, more than float16 can ({_FLOAT16_MAX:g}): use bfloat16 or float32'
    )


def is_tied(folder: epath.PathLike) -> bool:
  """Whether the head of a folder's model is its input table."""
  return 'lm_head.weight' not in open_tensors(folder, np.dtype(np.float32))


def parameter_count(folder: epath.PathLike) -> int:
  """Number of parameters in a folder's tensors, the aliases of the input table left out."""
  tensors = open_tensors(folder, np.dtype(np.float32))
  tables = [name for name in ('shared.weight', *hf_config.TABLE_ALIASES) if name in tensors]
  return sum(math.prod(t.shape) for name, t in tensors.items() if name not in tables[1:])


def dtype_of(folder: epath.PathLike) -> str:
  """Name of the dtype of a folder's weights, as config.json says; float32 if it does not."""
  settings = read_config(folder)
  return settings.get('dtype') or settings.get('torch_dtype') or 'float32'


def safetensors_files(folder: epath.PathLike) -> list[str]:
  """Names of the files that hold a folder's tensors.

  Raises:
    FileNotFoundError: there are none, with the way out when there is a .bin.
    ValueError: the index is damaged or names a file outside the folder.
  """
  folder = epath.Path(folder)
  if (folder / _INDEX).exists():
    return sorted(set(_weight_map(folder).values()))
  if (folder / 'model.safetensors').exists():
    return ['model.safetensors']
  found = sorted(path.name for path in folder.glob('*.bin*'))
  way_out = (
    ' Pickled torch files are not read, since they can run code: load the model with transformers '
    'and save_pretrained it, which writes safetensors.'
  )
  raise FileNotFoundError(
    f'{folder} holds neither model.safetensors nor {_INDEX}.' + (way_out if found else '')
  )


def _weight_map(folder: epath.Path) -> dict[str, str]:
  """The file of each tensor, as the index of a sharded folder says."""
  path = folder / _INDEX
  found = _read_json(path).get('weight_map')
  if not isinstance(found, dict) or not all(isinstance(file, str) for file in found.values()):
    raise ValueError(f'{path} must map names of tensors to files in `weight_map`. {_WAY_OUT}')
  if outside := [file for file in found.values() if not file or file != os.path.basename(file)]:
    raise ValueError(f'{path} names files outside its folder: {outside[:5]}')
  return found


def open_tensors(
  folder: epath.PathLike, dtype: np.dtype | None = None
) -> dict[str, layouts.LazyArray]:
  """Every tensor of a folder's safetensors files, by its name there; as `dtype` unless None.

  Raises:
    FileNotFoundError: no files, or fewer than the index names.
    ValueError: a file is damaged, or holds other tensors than the index says.
  """
  folder = epath.Path(folder)
  files = safetensors_files(folder)
  found = {file: safetensors_file.open_file(folder / file, dtype) for file in files}
  if (folder / _INDEX).exists():
    said = set(_weight_map(folder).items())
    if wrong := said ^ {(name, file) for file in files for name in found[file]}:
      raise ValueError(
        f'{folder / _INDEX} and the files differ in {len(wrong)} tensors: {sorted(wrong)[:3]}. '
        f'{_WAY_OUT}'
      )
  return {name: tensor for file in files for name, tensor in found[file].items()}

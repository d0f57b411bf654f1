"""Writes model folders of Hugging Face transformers.

It needs no torch: config and tokenizer are JSON, and tensors are streamed into safetensors
files one by one. What transformers makes of the folder is described in `hf_config` (tables, scale)
and `hf_tokenizer` (ids).
"""

import functools
import json
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath
from flax import linen as nn
from flax import traverse_util

from aya_train.checkpoint import layouts, model_settings, work_folder
from aya_train.checkpoint.arrays import finite_arrays, lazy_arrays, safetensors_file
from aya_train.checkpoint.hf import (
  hf_config,
  hf_files,
  hf_import,
  hf_tokenizer,
  hf_torch,
  hf_vocabulary,
)
from aya_train.models import t5_config

logger = logging.getLogger(__name__)

DTYPES = {
  'float32': np.dtype(np.float32),
  'bfloat16': np.dtype(ml_dtypes.bfloat16),
  'float16': np.dtype(np.float16),
}


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
  allow_non_finite: bool = False,
  settings: model_settings.ModelSettings | None = None,
  tokenizer_folder: epath.PathLike | None = None,
) -> epath.Path:
  """Writes a folder that `AutoModelForSeq2SeqLM` and `AutoTokenizer` load.

  The folder appears complete or not at all: everything is written beside `out_dir` and renamed.
  Memory needed is that of the largest tensor, as long as the leaves read lazily. On several hosts
  call it on one, with arrays that this host can read whole.

  Args:
    params: parameters of `network.Transformer(config)`, nested or flat with '/' in names, boxed or
      not; leaves are numpy, jax, TensorStore or `lazy_arrays.LazyArray`.
    config: the network; `config.scan_layers` says which layout `params` are in.
    vocabulary_file: the SentencePiece model, its sentinels inside the file (see `hf_tokenizer`).
    out_dir: new or empty folder; with `overwrite`, a full one is replaced.
    dtype: of the written tensors, 'float32', 'bfloat16' or 'float16'.
    max_shard_size: bytes, or a string such as '5GB'.
    model_card, license_text: content of README.md and LICENSE, each left out when None.
    overwrite: replace `out_dir`.
    allow_float16_overflow: write float16 without running sample prompts
      (`hf_torch.check_float16_activations`, which needs torch and transformers).
    allow_non_finite: write NaN and infinity where `params` hold them.
    settings: how the model answers; by default from id 0 to id 1, in at most
      `model_settings.MAX_NEW_TOKENS` tokens.
    tokenizer_folder: a tokenizer of transformers to copy as it is, instead of one made from
      `vocabulary_file`, which may then be ''.

  Returns:
    The path of the folder.

  Raises:
    ValueError: dtype or network cannot be exported, names or shapes do not fit `config`, the
      vocabulary is no T5 vocabulary or larger than the model's, weights are not finite, or weights
      or activations do not fit into the dtype.
    FileExistsError: `out_dir` is not empty and `overwrite` is false.
  """
  if dtype not in DTYPES:
    raise ValueError(f'export dtype must be one of {sorted(DTYPES)}, got {dtype!r}')
  out_dir = epath.Path(out_dir)
  if settings is None:
    settings = model_settings.ModelSettings().with_length(model_settings.MAX_NEW_TOKENS)
  if tokenizer_folder is None:
    _check_vocabulary(vocabulary_file, config)
  content = hf_config.to_hf_config(config, dtype=dtype, settings=settings)
  tensors = _hf_tensors(params, config)
  split = shards(tensors, dtype, max_shard_size)
  with work_folder.replacing(out_dir, overwrite=overwrite) as work:
    folder = work / 'out'
    folder.mkdir()
    _write_json(folder / 'config.json', content)
    generation = hf_config.generation_config(config, settings)
    _write_json(folder / 'generation_config.json', generation)
    if tokenizer_folder is None:
      hf_tokenizer.write(vocabulary_file, folder)
    else:
      hf_vocabulary.copy(tokenizer_folder, folder)
    for name, text in (('README.md', model_card), ('LICENSE', license_text)):
      if text is not None:
        (folder / name).write_text(text)
    cast = functools.partial(_cast, where=str(out_dir), allow_non_finite=allow_non_finite)
    _write_shards(folder, tensors, split, DTYPES[dtype], cast)
    if dtype == 'float16' and not allow_float16_overflow:
      peak, where = hf_torch.check_float16_activations(folder)
      logger.info('largest activation on sample prompts: %.4g, in %s', peak, where)
  return out_dir


def _check_vocabulary(vocabulary_file: epath.PathLike, config: t5_config.T5Config) -> None:
  pieces = len(hf_tokenizer.read_vocabulary(vocabulary_file).pieces)
  if pieces > config.vocab_size:
    raise ValueError(
      f'{vocabulary_file} has {pieces} pieces, more than the {config.vocab_size} '
      "rows of the model's table: this is not the vocabulary that the model was trained with"
    )


def _hf_tensors(
  params: Mapping[str, Any], config: t5_config.T5Config
) -> dict[str, lazy_arrays.LazyArray]:
  flat = traverse_util.flatten_dict(nn.meta.unbox(dict(params)), sep='/')
  table = layouts.table_of(config)
  layouts.check(flat, config, 'export')
  if config.scan_layers:
    flat = layouts.to_unrolled(flat, table, config.param_scan_axis)
  return layouts.to_hf(flat, table)


def _write_json(path: epath.Path, content: Mapping[str, Any]) -> None:
  path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + '\n')


def shards(
  tensors: Mapping[str, lazy_arrays.LazyArray], dtype: str, max_shard_size: int | str
) -> Any:
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
  opened = hf_import.open_folder(folder)
  tensors = _hf_tensors(opened.params, opened.config)
  wanted = {
    (name, file, str(DTYPES[dtype]))
    for file, names in shards(tensors, dtype, max_shard_size).filename_to_tensors.items()
    for name in names
  }
  return wanted == {
    (name, file, str(tensor.dtype))
    for file in hf_files.safetensors_files(folder)
    for name, tensor in safetensors_file.open_file(epath.Path(folder) / file).items()
  }


def _write_shards(
  folder: epath.Path,
  tensors: Mapping[str, lazy_arrays.LazyArray],
  split: Any,
  dtype: np.dtype,
  cast: Callable[[np.ndarray, np.dtype, str], np.ndarray],
) -> None:
  for filename, names in split.filename_to_tensors.items():
    chosen = {name: tensors[name] for name in names}
    safetensors_file.write(folder / filename, chosen, dtype, cast)
  if split.is_sharded:
    index = {'metadata': split.metadata, 'weight_map': split.tensor_to_filename}
    _write_json(folder / hf_files.INDEX, index)


def _cast(
  block: np.ndarray, dtype: np.dtype, name: str, *, where: str, allow_non_finite: bool
) -> np.ndarray:
  if not allow_non_finite:
    finite_arrays.check(block, name, where)
  if dtype == np.float16:
    check_float16_weights(block, name)
  return lazy_arrays.rounded(block, dtype, name).astype(dtype.newbyteorder('<'), copy=False)


def check_float16_weights(block: np.ndarray, name: str) -> None:
  """Raises ValueError if float16 cannot hold a weight."""
  if (peak := float(np.abs(block).max(initial=0))) > hf_torch.FLOAT16_MAX:
    raise ValueError(
      f'{name} holds {peak:g}, more than float16 can ({hf_torch.FLOAT16_MAX:g}): use bfloat16 '
      'or float32'
    )

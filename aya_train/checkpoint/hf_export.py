"""Writes and reads model folders of Hugging Face transformers.

Writing needs no torch: config and tokenizer are JSON, and tensors are streamed into safetensors
files one by one. What transformers makes of the folder is described in `hf_config` (tables, scale)
and `hf_tokenizer` (ids).
"""

import contextlib
import functools
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np
from etils import epath
from flax import linen as nn
from flax import traverse_util

from aya_train.checkpoint import hf_config, hf_tokenizer, layouts
from aya_train.models import network, t5_config

logger = logging.getLogger(__name__)

DTYPES = {
  'float32': np.dtype(np.float32),
  'bfloat16': np.dtype(ml_dtypes.bfloat16),
  'float16': np.dtype(np.float16),
}
_SAFETENSORS_DTYPES = {
  'F32': np.dtype(np.float32),
  'BF16': np.dtype(ml_dtypes.bfloat16),
  'F16': np.dtype(np.float16),
}
_INDEX = 'model.safetensors.index.json'
_BLOCK_BYTES = 1 << 28
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
  with replacing(out_dir, overwrite=overwrite) as folder:
    _write_json(folder / 'config.json', settings)
    generation = hf_config.generation_config(pad_id=pad_id, eos_id=eos_id)
    _write_json(folder / 'generation_config.json', generation)
    hf_tokenizer.write(vocabulary_file, folder)
    for name, text in (('README.md', model_card), ('LICENSE', license_text)):
      if text is not None:
        (folder / name).write_text(text)
    _write_shards(folder, tensors, DTYPES[dtype], max_shard_size)
    if dtype == 'float16' and not allow_float16_overflow:
      from aya_train.checkpoint import hf_torch

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


def check_free(out_dir: epath.Path, *, overwrite: bool) -> None:
  """Raises FileExistsError if a folder is not empty and may not be replaced."""
  if not overwrite and out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
    raise FileExistsError(f'{out_dir} is not empty: take another folder, or --overwrite')


@contextlib.contextmanager
def replacing(out_dir: epath.Path, *, overwrite: bool) -> Iterator[epath.Path]:
  """Yields a new folder beside `out_dir` that takes its name if the block ends well.

  Raises:
    FileExistsError: `out_dir` is not empty and `overwrite` is false.
  """
  check_free(out_dir, overwrite=overwrite)
  partial = out_dir.parent / f'.{out_dir.name}.partial-{os.getpid()}'
  partial.mkdir(parents=True)
  try:
    yield partial
    if out_dir.exists():
      out_dir.rmtree()
    partial.rename(out_dir)
  except BaseException:
    partial.rmtree(missing_ok=True)
    raise


def read_config(folder: epath.PathLike) -> dict[str, Any]:
  """The content of config.json.

  Raises:
    FileNotFoundError: there is none.
  """
  path = epath.Path(folder) / 'config.json'
  if not path.exists():
    raise FileNotFoundError(
      f'{folder} holds no config.json; it must be a transformers model folder'
    )
  return json.loads(path.read_text())


def _write_json(path: epath.Path, content: Mapping[str, Any]) -> None:
  path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + '\n')


def _write_shards(
  folder: epath.Path,
  tensors: Mapping[str, layouts.LazyArray],
  dtype: np.dtype,
  max_shard_size: int | str,
) -> None:
  import huggingface_hub

  split = huggingface_hub.split_state_dict_into_shards_factory(
    dict(tensors),
    get_storage_size=lambda tensor: math.prod(tensor.shape) * dtype.itemsize,
    filename_pattern='model{suffix}.safetensors',
    max_shard_size=max_shard_size,
  )
  for filename, names in split.filename_to_tensors.items():
    _write_safetensors(folder / filename, {name: tensors[name] for name in names}, dtype)
  if split.is_sharded:
    index = {'metadata': split.metadata, 'weight_map': split.tensor_to_filename}
    _write_json(folder / _INDEX, index)


def _write_safetensors(
  path: epath.Path, tensors: Mapping[str, layouts.LazyArray], dtype: np.dtype
) -> None:
  """Streams tensors into one file; safetensors' own writer wants all of them in memory.

  Layout (huggingface/safetensors README): length of the header as 8 little-endian bytes, header as
  JSON padded with spaces to a multiple of 8, tensors without gaps in row-major order.
  """
  name_of = {value: key for key, value in _SAFETENSORS_DTYPES.items()}
  header: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
  end = 0
  for name, tensor in tensors.items():
    start, end = end, end + math.prod(tensor.shape) * dtype.itemsize
    header[name] = {
      'dtype': name_of[dtype],
      'shape': list(tensor.shape),
      'data_offsets': [start, end],
    }
  encoded = json.dumps(header, separators=(',', ':')).encode()
  encoded += b' ' * (-len(encoded) % 8)
  with path.open('wb') as f:
    f.write(len(encoded).to_bytes(8, 'little'))
    f.write(encoded)
    parts = ((name, block) for name, tensor in tensors.items() for block in row_slices(tensor))

    def content(part: tuple[str, slice]) -> memoryview:
      name, rows = part
      block = _cast(np.asarray(tensors[name][rows]), dtype, name)
      return np.ascontiguousarray(block).reshape(-1).view(np.uint8).data

    for block in layouts.ahead(content, parts):
      f.write(block)


def row_blocks(tensor: layouts.LazyArray) -> Iterator[np.ndarray]:
  """A tensor as runs of rows in order, each small enough that no second copy of the whole lives."""
  return (np.asarray(tensor[rows]) for rows in row_slices(tensor))


def row_slices(tensor: layouts.LazyArray) -> Iterator[slice]:
  """The runs of rows of `row_blocks`."""
  row_bytes = math.prod(tensor.shape[1:]) * np.dtype(tensor.dtype).itemsize
  rows = max(1, _BLOCK_BYTES // max(1, row_bytes))
  for start in range(0, tensor.shape[0], rows):
    yield slice(start, min(start + rows, tensor.shape[0]))


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
    ValueError: the index names a file outside the folder.
  """
  folder = epath.Path(folder)
  if (folder / _INDEX).exists():
    weight_map = json.loads((folder / _INDEX).read_text())['weight_map']
    files = sorted(set(weight_map.values()))
    if outside := [file for file in files if file != os.path.basename(file)]:
      raise ValueError(f'{folder / _INDEX} names files outside its folder: {outside[:5]}')
    return files
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


def open_tensors(
  folder: epath.PathLike, dtype: np.dtype | None = None
) -> dict[str, layouts.LazyArray]:
  """Every tensor of a folder's safetensors files, by its name there; as `dtype` unless None."""
  import safetensors

  folder = epath.Path(folder)
  files = safetensors_files(folder)

  def lazy(path: str, name: str, shape: tuple[int, ...], held: np.dtype) -> layouts.LazyArray:
    def part(index: Any) -> np.ndarray:
      with safetensors.safe_open(path, framework='numpy') as f:
        return f.get_slice(name)[index].astype(dtype or held, copy=False)

    return layouts.LazyArray(shape, dtype or held, lambda: part(slice(None)), part)

  tensors: dict[str, layouts.LazyArray] = {}
  for path in [os.fspath(folder / file) for file in files]:
    with safetensors.safe_open(path, framework='numpy') as f:
      for name in f.keys():  # noqa: SIM118 (no mapping)
        header = f.get_slice(name)
        if header.get_dtype() not in _SAFETENSORS_DTYPES:
          raise ValueError(
            f'{path}: {name} is {header.get_dtype()}; only {sorted(_SAFETENSORS_DTYPES)} are read'
          )
        held = _SAFETENSORS_DTYPES[header.get_dtype()]
        tensors[name] = lazy(path, name, tuple(header.get_shape()), held)
  return tensors

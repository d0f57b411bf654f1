"""Exported folders as one GGUF file for llama.cpp's T5 or its encoder, by the gguf package.

llama.cpp (src/models/t5.cpp) computes what our network does if the MLP is gelu, gated, or relu;
relative positions end at 128; and the head is in the file as it is to be used: of a tied network it
is the input table times d_model**-0.5, which llama.cpp does not multiply by itself.

Matrices are quantised in runs of rows, so memory does not grow with the model. The head, from which
every token is chosen, is no smaller than Q8_0; norms and the tables of relative positions stay
float32, as does a matrix whose rows are no multiple of 32.

llama.cpp's unigram tokenizer has no byte fallback: characters without a piece become <unk>, where
SentencePiece spells them in bytes. With tokens of our tokenizer its answers are the same.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from aya_train import path_facts
from aya_train.checkpoint import model_settings, names, progress, work_folder
from aya_train.checkpoint.arrays import lazy_arrays, safetensors_file
from aya_train.checkpoint.hf import (
  hf_config,
  hf_export,
  hf_files,
  hf_tokenizer,
  hf_torch,
  hf_vocabulary,
)
from aya_train.models import t5_config

# Those that the gguf package can write, largest first.
QUANTISATIONS = ('f32', 'bf16', 'f16', 'q8_0', 'q5_1', 'q5_0', 'q4_1', 'q4_0')
DEFAULT_QUANTISATION = 'q8_0'
FILE = 'model-{quantisation}.gguf'
_HEAD = 'lm_head.weight'
_T5, _ENCODER = 't5', 't5encoder'
_SMALLEST_OF_HEAD = 'q8_0'
_MAX_DISTANCE = 128  # src/llama-graph.cpp
_ACTIVATIONS = (('gelu', 'linear'), ('relu',))
# Scales and offsets of blocks are float16.
_LARGEST = {
  'BF16': 3.3895e38,
  **{name: hf_torch.FLOAT16_MAX * levels for name, levels in (('Q8_0', 127), ('Q5_0', 16))},
  **{name: hf_torch.FLOAT16_MAX * levels for name, levels in (('Q4_0', 8), ('Q5_1', 1))},
  'Q4_1': hf_torch.FLOAT16_MAX,
}
_PADDING_SCORE = -10000.0


def to_gguf(
  hf_folder: epath.PathLike,
  dst: epath.PathLike,
  *,
  quantisation: str = DEFAULT_QUANTISATION,
  name: str | None = None,
  context_length: int = 1024,
  overwrite: bool = False,
) -> epath.Path:
  """Writes a folder with one GGUF file, model-<quantisation>.gguf.

  Args:
    hf_folder: folder written by `hf_export.export`, or saved by transformers with the SentencePiece
      file of the tokenizer.
    dst: new or empty folder.
    quantisation: of the matrices, one of `QUANTISATIONS`.
    name: general.name in the file, by default that of `hf_folder`.
    context_length: tokens of a prompt that llama.cpp is told the model was trained with.
    overwrite: replace `dst`.

  Returns:
    The path of the folder.

  Raises:
    ValueError: unknown quantisation, or a network that llama.cpp's T5 does not compute.
    FileNotFoundError: no config.json, weights or SentencePiece file.
    FileExistsError: `dst` is not empty.
    ModuleNotFoundError: the extra `quantised` is not installed.
  """
  import gguf

  if quantisation not in QUANTISATIONS:
    raise ValueError(f'quantisation for gguf must be one of {QUANTISATIONS}, got {quantisation!r}')
  hf_folder = epath.Path(hf_folder)
  settings = hf_files.read_config(hf_folder)
  tensors = _tensors(hf_folder, settings)
  answers = hf_config.settings_of(
    settings, hf_files.read_generation_config(hf_folder), str(hf_folder)
  )
  if answers.eos_ids != (model_settings.EOS_ID,):
    raise ValueError(
      f'{hf_folder} ends answers at eos_token_id {list(answers.eos_ids)}; a GGUF file has one such '
      f'token, which also ends prompts, {model_settings.EOS_ID} for a T5'
    )
  vocabulary = _vocabulary(hf_folder, settings['vocab_size'])
  with work_folder.replacing(dst, overwrite=overwrite) as work:
    folder = work / 'out'
    folder.mkdir()
    writer = gguf.GGUFWriter(str(folder / FILE.format(quantisation=quantisation)), _T5)
    _add_settings(writer, settings, quantisation, name or hf_folder.name, context_length)
    writer.add_decoder_start_token_id(answers.decoder_start_id)
    _add_vocabulary(writer, vocabulary, settings)
    _write_tensors(writer, tensors, settings, quantisation)
    writer.close()
  return epath.Path(dst)


def encoder_to_gguf(
  hf_folder: epath.PathLike,
  dst: epath.PathLike,
  *,
  quantisation: str = DEFAULT_QUANTISATION,
  name: str | None = None,
  context_length: int = 512,
) -> epath.Path:
  """Writes one GGUF file of an encoder, architecture t5encoder, its vectors the mean of its output.

  Args:
    hf_folder: folder of an encoder alone with its tokenizer, as `sentence_folder.export` writes it.
    dst: new or empty folder.
    quantisation, name: see `to_gguf`.
    context_length: most tokens of a text.

  Raises:
    ValueError: unknown quantisation, or a network that llama.cpp's T5 does not compute.
    FileNotFoundError: no config.json, weights or tokenizer.
    ModuleNotFoundError: the extra `quantised` is not installed.
  """
  import gguf

  if quantisation not in QUANTISATIONS:
    raise ValueError(f'quantisation for gguf must be one of {QUANTISATIONS}, got {quantisation!r}')
  hf_folder = epath.Path(hf_folder)
  settings = hf_files.read_config(hf_folder)
  tensors = _float32(hf_folder)
  content = {k: v for k, v in settings.items() if k != 'is_encoder_decoder'}
  _check_network(hf_config.from_hf_config(content, has_head=True, where=str(hf_folder)), hf_folder)
  vocabulary = _vocabulary(hf_folder, settings['vocab_size'])
  with work_folder.replacing(dst, overwrite=False) as work:
    folder = work / 'out'
    folder.mkdir()
    writer = gguf.GGUFWriter(str(folder / FILE.format(quantisation=quantisation)), _ENCODER)
    _add_settings(writer, settings, quantisation, name or hf_folder.name, context_length)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    _add_vocabulary(writer, vocabulary, settings)
    _write_tensors(writer, tensors, settings, quantisation)
    writer.close()
  return epath.Path(dst)


# Tensors ------------------------------------------------------------------------------------------


def _tensors(hf_folder: epath.Path, settings: dict[str, Any]) -> dict[str, lazy_arrays.LazyArray]:
  """Tensors under transformers' names, the head among them, after the network was checked."""
  tensors = _float32(hf_folder)
  config = hf_config.from_hf_config(settings, has_head=_HEAD in tensors, where=str(hf_folder))
  _check_network(config, hf_folder)
  if config.logits_via_embedding:
    scale = np.float32(config.emb_dim**-0.5)
    tensors[_HEAD] = lazy_arrays.mapped(tensors['shared.weight'], lambda part: part * scale)
  elif hf_config.needs_head(config, has_head=_HEAD in tensors):
    tensors[_HEAD] = tensors['shared.weight']
  return tensors


def _float32(hf_folder: epath.Path) -> dict[str, lazy_arrays.LazyArray]:
  tensors = {
    name: lazy_arrays.cast(tensor, np.float32)
    for name, tensor in hf_files.open_tensors(hf_folder).items()
  }
  for ignored in names.HF_IGNORED:
    tensors.pop(ignored, None)
  for alias in names.HF_TABLE_ALIASES:
    table = tensors.pop(alias, None)
    if table is not None:
      tensors.setdefault('shared.weight', table)
  return tensors


def _check_network(config: t5_config.T5Config, hf_folder: epath.Path) -> None:
  if config.mlp_activations not in _ACTIVATIONS:
    raise ValueError(
      f"{hf_folder}: llama.cpp's T5 has MLPs of {_ACTIVATIONS}, got {config.mlp_activations}"
    )
  if config.relative_attention_max_distance != _MAX_DISTANCE:
    raise ValueError(
      f"{hf_folder}: relative positions of llama.cpp's T5 end at {_MAX_DISTANCE}, got "
      f'relative_attention_max_distance {config.relative_attention_max_distance}'
    )


def tensor_type(name: str, shape: tuple[int, ...], quantisation: str) -> Any:
  """The gguf.GGMLQuantizationType of a tensor, by its name in transformers."""
  import gguf

  types = gguf.GGMLQuantizationType
  if len(shape) < 2 or 'relative_attention_bias' in name:
    return types.F32
  if name == _HEAD:
    quantisation = min(quantisation, _SMALLEST_OF_HEAD, key=QUANTISATIONS.index)
  wanted = types[quantisation.upper()]
  block, _ = gguf.GGML_QUANT_SIZES[wanted]
  return wanted if shape[-1] % block == 0 else types.F32


def _write_tensors(
  writer: Any,
  tensors: dict[str, lazy_arrays.LazyArray],
  settings: dict[str, Any],
  quantisation: str,
) -> None:
  import gguf

  layers = max(settings['num_layers'], settings.get('num_decoder_layers') or 0)
  new_names = gguf.get_tensor_name_map(_architecture(writer.arch), layers)
  types = {name: tensor_type(name, t.shape, quantisation) for name, t in tensors.items()}
  for name, tensor in tensors.items():
    new_name = new_names.get_name(name, try_suffixes=('.weight',))
    if new_name is None:
      raise ValueError(f"{name} has no name in the gguf package's map of T5")
    block, block_bytes = gguf.GGML_QUANT_SIZES[types[name]]
    writer.add_tensor_info(
      new_name,
      tensor.shape,
      np.dtype(np.float32),
      math.prod(tensor.shape) // block * block_bytes,
      raw_dtype=types[name],
    )
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_ti_data_to_file()
  # GGUFWriter.write_tensor_data would want whole tensors.
  (file,) = writer.fout
  writer.write_padding(file, file.tell())
  with progress.shown('quantising', progress.total_bytes(tensors)) as advance:
    for name, tensor in progress.counted(tensors, advance).items():
      for rows in _quantised(tensor, types[name], name):
        file.write(rows)
      writer.write_padding(file, file.tell())


def _quantised(tensor: lazy_arrays.LazyArray, kind: Any, name: str) -> Iterator[bytes]:
  import gguf

  for block in safetensors_file.row_blocks(tensor):
    if not np.isfinite(block).all():
      raise ValueError(f'{name} holds numbers that are not finite')
    if kind is gguf.GGMLQuantizationType.F16:
      hf_export.check_float16_weights(block, name)
    most = _LARGEST.get(kind.name, np.inf)
    if (peak := float(np.abs(block).max(initial=0))) > most:
      raise ValueError(
        f'{name} holds {peak:g}, more than {kind.name.lower()} can ({most:g}): use f32'
      )
    yield gguf.quants.quantize(np.ascontiguousarray(block, np.float32), kind).tobytes()


# Settings and vocabulary --------------------------------------------------------------------------


def _add_settings(
  writer: Any, settings: dict[str, Any], quantisation: str, name: str, context_length: int
) -> None:
  import gguf

  decoder_layers = settings.get('num_decoder_layers')
  writer.add_type(gguf.GGUFType.MODEL)
  writer.add_name(name)
  writer.add_file_type(_file_type(quantisation))
  writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
  writer.add_context_length(context_length)
  writer.add_embedding_length(settings['d_model'])
  writer.add_feed_forward_length(settings['d_ff'])
  writer.add_block_count(settings['num_layers'])
  if writer.arch == _T5:
    writer.add_decoder_block_count(
      settings['num_layers'] if decoder_layers is None else decoder_layers
    )
  writer.add_head_count(settings['num_heads'])
  writer.add_key_length(settings['d_kv'])
  writer.add_value_length(settings['d_kv'])
  writer.add_layer_norm_eps(hf_config.LAYER_NORM_EPSILON)
  writer.add_layer_norm_rms_eps(hf_config.LAYER_NORM_EPSILON)
  writer.add_relative_attn_buckets_count(settings.get('relative_attention_num_buckets', 32))


def _file_type(quantisation: str) -> Any:
  import gguf

  names = {'f32': 'ALL_F32'}
  return gguf.LlamaFileType[names.get(quantisation, f'MOSTLY_{quantisation.upper()}')]


def _vocabulary(hf_folder: epath.Path, rows: int) -> Any:
  """The SentencePiece model of a folder, tokens that its tokenizer adds among its pieces."""
  from sentencepiece import sentencepiece_model_pb2

  if not hf_vocabulary.has_tokenizer(hf_folder):
    raise FileNotFoundError(
      f'{hf_folder} holds no SentencePiece file {hf_tokenizer.MODEL_FILE} and no tokenizer: '
      'llama.cpp needs its pieces and scores. Give the one that the model was trained with '
      '(--vocabulary)'
    )
  if model := hf_vocabulary.own_model(hf_folder, rows):
    return sentencepiece_model_pb2.ModelProto.FromString(model)
  return hf_tokenizer.read_vocabulary(str(hf_vocabulary.file_of(hf_folder)))


def _add_vocabulary(writer: Any, model: Any, settings: dict[str, Any]) -> None:
  """Pieces, scores and types as the SentencePiece file has them; types have the same numbers."""
  import gguf

  rows, pieces, spec = settings['vocab_size'], list(model.pieces), model.trainer_spec
  if len(pieces) > rows:
    raise ValueError(
      f'the SentencePiece file has {len(pieces)} pieces, more than the {rows} rows of the table'
    )
  padding = range(rows - len(pieces))
  writer.add_tokenizer_model('t5')
  writer.add_tokenizer_pre('default')
  writer.add_token_list(
    [piece.piece.encode() for piece in pieces] + [f'<unused_{i}>'.encode() for i in padding]
  )
  writer.add_token_scores([piece.score for piece in pieces] + [_PADDING_SCORE for _ in padding])
  writer.add_token_types(
    [int(piece.type) for piece in pieces] + [int(gguf.TokenType.UNUSED) for _ in padding]
  )
  writer.add_add_space_prefix(model.normalizer_spec.add_dummy_prefix)
  writer.add_remove_extra_whitespaces(model.normalizer_spec.remove_extra_whitespaces)
  if model.normalizer_spec.precompiled_charsmap:
    writer.add_precompiled_charsmap(model.normalizer_spec.precompiled_charsmap)
  writer.add_pad_token_id(spec.pad_id)
  writer.add_eos_token_id(spec.eos_id)
  writer.add_unk_token_id(spec.unk_id)
  writer.add_add_bos_token(False)
  writer.add_add_eos_token(True)


# Reading back -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class GgufFile:
  """A GGUF file of a T5, opened.

  Attributes:
    path: of the file.
    reader: its `gguf.GGUFReader`.
  """

  path: epath.Path
  reader: Any

  def weights(self) -> dict[str, np.ndarray]:
    """Every tensor in float32, dequantised, under transformers' name."""
    import gguf

    fields = self.reader.fields
    name = fields['general.architecture'].contents()
    counts = (f'{name}.{key}' for key in ('block_count', 'decoder_block_count'))
    layers = [int(fields[key].contents()) for key in counts if key in fields]
    new_names = gguf.get_tensor_name_map(_architecture(name), max(layers))
    gated = any('.ffn_gate.' in tensor.name for tensor in self.reader.tensors)
    known = {new: old for old, (_, new) in new_names.mapping.items() if _is_t5_name(old, gated)}
    return {
      f'{known[tensor.name.removesuffix(".weight")]}.weight': gguf.quants.dequantize(
        tensor.data, tensor.tensor_type
      ).reshape(tuple(reversed(tensor.shape.tolist())))
      for tensor in self.reader.tensors
    }


def _architecture(name: str) -> Any:
  import gguf

  return {_T5: gguf.MODEL_ARCH.T5, _ENCODER: gguf.MODEL_ARCH.T5ENCODER}[name]


def _is_t5_name(name: str, gated: bool) -> bool:
  if name.endswith(('.wi', '.wi_0', '.wi_1')):  # `wi` and `wi_1` have one name in GGUF files
    return name.endswith('.wi') != gated
  return name in ('shared', 'lm_head') or '.block.' in name or name.endswith('final_layer_norm')


def read(folder: epath.PathLike) -> GgufFile:
  """Opens the GGUF file of a folder.

  Raises:
    FileNotFoundError: there is not exactly one.
  """
  import gguf

  found = path_facts.matching(folder, '*.gguf')
  if len(found) != 1:
    raise FileNotFoundError(f'{folder} must hold one .gguf file, it holds {len(found)}')
  return GgufFile(found[0], gguf.GGUFReader(str(found[0])))

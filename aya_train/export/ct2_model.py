"""Exported folders as CTranslate2 models, by CTranslate2's own converter.

Two things would come out wrong if the converter were left alone (ctranslate2 4.8, transformers 5):

* transformers 5 says that the head of every mT5 is tied, and the converter then scales the
  decoder's output by d_model**-0.5. Greedy answers stay, every probability is wrong.
* Rows of the tables beyond the vocabulary are named <extra_id_0> and so on, names that mT5's
  sentinels have: one name, two ids.

Weights stay in the files until they are quantised. The converter holds what it has quantised, the
fused attention matrices, and twice the matrix at hand in float32.
"""

import logging
from typing import Any

from etils import epath

from aya_train import ct2_library
from aya_train.checkpoint import model_settings, work_folder
from aya_train.checkpoint.arrays import finite_arrays, lazy_arrays
from aya_train.checkpoint.hf import hf_config, hf_files, hf_torch, hf_vocabulary

logger = logging.getLogger(__name__)

# Of the linear layers and the tables; norms and biases take the type behind the underscore.
QUANTISATIONS = (
  'int8',
  'int8_float32',
  'int8_bfloat16',
  'int8_float16',
  'bfloat16',
  'float16',
  'float32',
)
DEFAULT_QUANTISATION = 'int8_float32'
ENCODER_QUANTISATIONS = tuple(q for q in QUANTISATIONS if 'float16' not in q.split('_'))


def to_ctranslate2(
  hf_folder: epath.PathLike,
  dst: epath.PathLike,
  *,
  quantisation: str = DEFAULT_QUANTISATION,
  overwrite: bool = False,
  allow_float16_overflow: bool = False,
) -> epath.Path:
  """Writes a folder that `ctranslate2.Translator` loads, with the tokenizer beside it.

  Args:
    hf_folder: local folder written by `hf_export.export`, or one that transformers saved, with
      the tokenizer.
    dst: new or empty local folder.
    quantisation: one of `QUANTISATIONS`.
    overwrite: replace `dst`.
    allow_float16_overflow: write float16 and int8_float16, in which CTranslate2 computes in
      float16, without running sample prompts (`hf_torch.check_float16_activations`).

  Raises:
    ValueError: unknown quantisation, a tokenizer with more pieces than the table has rows, or
      activations that do not fit into float16.
    FileNotFoundError: no config.json, no safetensors or no tokenizer.
    FileExistsError: `dst` is not empty.
    ModuleNotFoundError: the extra `quantised` is not installed.
  """
  if quantisation not in QUANTISATIONS:
    raise ValueError(f'quantisation for ct2 must be one of {QUANTISATIONS}, got {quantisation!r}')
  hf_folder = epath.Path(hf_folder)
  rows = hf_files.read_config(hf_folder)['vocab_size']
  _check_answers(hf_folder)
  _check_weights(hf_folder, quantisation, allow_float16_overflow)
  work_folder.check(dst, overwrite=overwrite)
  if 'float16' in quantisation.split('_') and not allow_float16_overflow:
    hf_torch.check_float16_activations(hf_folder)
  with work_folder.replacing(dst, overwrite=overwrite) as work:
    logger.info('CTranslate2 is quantising, which shows no progress')
    _converter(hf_folder, rows).convert(str(work / 'out'), quantization=quantisation, force=True)
  return epath.Path(dst)


def encoder_to_ctranslate2(
  hf_folder: epath.PathLike, dst: epath.PathLike, *, quantisation: str = DEFAULT_QUANTISATION
) -> epath.Path:
  """Writes a folder that `ctranslate2.Encoder` loads, with the tokenizer beside it.

  Its output is the encoder's last layer, [texts, tokens, width]: whoever uses it takes the mean
  over the tokens. The converter quantises the input table in place, so the torch module that it is
  given computes nothing right afterwards.

  Args:
    hf_folder: local folder of an encoder alone, as `sentence_folder.export` writes it.
    dst: new or empty local folder.
    quantisation: one of `ENCODER_QUANTISATIONS`.

  Raises:
    ValueError: another quantisation, or weights that are not finite in it.
    ModuleNotFoundError: the extra `quantised` is not installed.
  """
  if quantisation not in ENCODER_QUANTISATIONS:
    raise ValueError(
      f'quantisation of an encoder for ct2 must be one of {ENCODER_QUANTISATIONS}, got '
      f'{quantisation!r}: encoders of T5 overflow in float16'
    )
  hf_folder = epath.Path(hf_folder)
  hf_vocabulary.check_class(hf_folder)
  _check_weights(hf_folder, quantisation, False)
  with work_folder.replacing(dst, overwrite=False) as work:
    out = work / 'out'
    _encoder_converter(hf_folder).convert(str(out), quantization=quantisation, force=True)
    hf_vocabulary.copy(hf_folder, out)
  return epath.Path(dst)


def _check_answers(hf_folder: epath.Path) -> None:
  """Refuses a folder without its tokenizer, for which CTranslate2 would invent one; and other ends.

  Raises:
    FileNotFoundError, ValueError: that.
  """
  if not hf_vocabulary.has_tokenizer(hf_folder):
    raise FileNotFoundError(
      f'{hf_folder} holds no tokenizer, and CTranslate2 needs its pieces: give the SentencePiece '
      'file that the model was trained with (--vocabulary)'
    )
  hf_vocabulary.check_class(hf_folder)
  settings = hf_config.settings_of(
    hf_files.read_config(hf_folder), hf_files.read_generation_config(hf_folder), str(hf_folder)
  )
  if settings.eos_ids != (model_settings.EOS_ID,):
    raise ValueError(
      f'{hf_folder} ends answers at eos_token_id {list(settings.eos_ids)}; CTranslate2 takes the '
      f'end of its tokenizer, {model_settings.EOS_ID}'
    )


def _check_weights(hf_folder: epath.Path, quantisation: str, allow_float16_overflow: bool) -> None:
  """Refuses weights that are not finite, or would not be in the type that they are written in."""
  tensors = hf_files.open_tensors(hf_folder)
  dtype = quantisation.rpartition('_')[2]
  if dtype == 'bfloat16' or (dtype == 'float16' and not allow_float16_overflow):
    tensors = {name: lazy_arrays.cast(tensor, dtype, name) for name, tensor in tensors.items()}
  finite_arrays.check_all(tensors, str(hf_folder))


def _converter(hf_folder: epath.Path, rows: int) -> Any:
  ct2_library.prefer_mkl()
  from ctranslate2 import converters

  class Converter(converters.TransformersConverter):
    """CTranslate2's converter, with its two hooks that open the model and the tokenizer."""

    def load_model(self, model_class: Any, model_name_or_path: str, **kwargs: Any) -> Any:
      del model_class, kwargs
      return hf_torch.open_mapped(model_name_or_path)

    def load_tokenizer(self, tokenizer_class: Any, model_name_or_path: str, **kwargs: Any) -> Any:
      tokenizer = tokenizer_class.from_pretrained(model_name_or_path, **kwargs)
      add_padding_pieces(tokenizer, rows)
      return tokenizer

  files = [name for name in hf_vocabulary.FILES if (hf_folder / name).exists()]
  return Converter(str(hf_folder), copy_files=files)


def _encoder_converter(hf_folder: epath.Path) -> Any:
  ct2_library.prefer_mkl()
  import transformers as hf
  from ctranslate2 import converters
  from ctranslate2.converters import transformers
  from ctranslate2.specs import common_spec, transformer_spec

  activations = {
    'relu': common_spec.Activation.RELU,
    'gelu_new': common_spec.Activation.GELUTanh,
    'silu': common_spec.Activation.SWISH,
  }

  class Converter(converters.Converter):
    """The encoder's half of CTranslate2's own loaders of T5, as a model of its own."""

    def _load(self) -> Any:
      model = hf_torch.open_encoder_mapped(hf_folder)
      config = model.config
      if (kind := config.dense_act_fn) not in activations:
        raise ValueError(f'{hf_folder}: CTranslate2 has MLPs of {[*activations]}, got {kind}')
      encoder = transformer_spec.TransformerEncoderSpec(
        config.num_layers,
        config.num_heads,
        activation=activations[kind],
        ffn_glu=config.is_gated_act,
        relative_attention_bias=True,
        rms_norm=True,
      )
      loaders = {'umt5': transformers.UMT5Loader}
      loaders.get(config.model_type, transformers.T5Loader)().set_stack(encoder, model.encoder)
      spec = transformer_spec.TransformerEncoderModelSpec(encoder)
      tokenizer = hf.AutoTokenizer.from_pretrained(str(hf_folder))
      add_padding_pieces(tokenizer, config.vocab_size)
      pieces = tokenizer.get_vocab()
      spec.register_vocabulary(sorted(pieces, key=pieces.__getitem__))
      spec.config.unk_token = tokenizer.unk_token
      spec.config.bos_token = tokenizer.pad_token
      spec.config.eos_token = tokenizer.eos_token
      spec.config.layer_norm_epsilon = hf_config.LAYER_NORM_EPSILON
      return spec

  return Converter()


def add_padding_pieces(tokenizer: Any, rows: int) -> None:
  """Names the rows of the tables beyond the vocabulary '<unused_0>' and so on.

  Raises:
    ValueError: there are fewer rows than pieces, or a piece has such a name.
  """
  missing = rows - len(tokenizer)
  added = tokenizer.add_tokens([f'<unused_{i}>' for i in range(missing)]) if missing > 0 else 0
  if added != missing:
    raise ValueError(
      f'the tokenizer has {len(tokenizer) - added} pieces and the tables {rows} rows, of which '
      f'{added} could be given a name: this is not the tokenizer of this model'
    )

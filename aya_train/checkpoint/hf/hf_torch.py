"""Exported folders as torch modules whose weights stay in the files until they are used."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from etils import epath

from aya_train.checkpoint import names
from aya_train.checkpoint.hf import hf_config, hf_files

_HEAD = 'lm_head.weight'
FLOAT16_MAX = float(np.finfo(np.float16).max)
# One line each of several scripts, among them the kinds of text that Aya is asked for.
PROMPTS = (
  'Translate to Swahili: The man opened the tap and the bathroom filled with water.',
  'Đáng lẽ ra anh ấy phải thận trọng hơn nhiều. Tại sao?',
  'كم عدد مرات فوز الأوروغواي ببطولة كأس العالم؟',
  'मैं अपना समय कैसे बचा सकता हूँ? कृपया तीन सुझाव दीजिए।',
  '私は日本語を勉強しています。次の文を英語に訳してください。',
  'Возможно ли вылечить эту болезнь? Ответьте одним предложением.',
  'Write a short poem about 12 cups of tea, <b>bold</b> & e = mc^2.',
  'Mo fẹ́ mọ ìdí tí ọ̀nà náà fi dí. Ṣe àlàyé.',
)


def open_mapped(folder: epath.PathLike) -> Any:
  """The transformers model of a local folder, its weights mapped from the safetensors files.

  Nothing is copied: pages come from the files when they are touched and may be dropped again, so a
  model larger than the memory can be walked through. `config.tie_word_embeddings` says what the
  files hold, which transformers 5 does not (see `hf_config`).

  Raises:
    FileNotFoundError: no config.json or no safetensors.
    RuntimeError: the tensors are not those of the model.
  """
  import torch

  state = mapped_tensors(folder)
  return with_weights(user_config(folder), state, torch, scaled=is_scaled(folder, state))


def open_encoder_mapped(folder: epath.PathLike) -> Any:
  """The transformers encoder of a local folder that holds an encoder alone, mapped likewise.

  Raises:
    FileNotFoundError: no config.json or no safetensors.
    RuntimeError: the tensors are not those of the encoder.
  """
  import torch
  import transformers

  state = mapped_tensors(folder)
  table = state.pop('encoder.embed_tokens.weight', None)
  table = state.get(names.HF_TABLE) if table is None else table
  config = transformers.AutoConfig.from_pretrained(str(folder))
  kind = {'t5': 'T5', 'mt5': 'MT5', 'umt5': 'UMT5'}[config.model_type]
  with torch.device('meta'):
    model = getattr(transformers, f'{kind}EncoderModel')(config)
  state |= {names.HF_TABLE: table, 'encoder.embed_tokens.weight': table}
  model.load_state_dict(state, strict=True, assign=True)
  return model.eval()


def is_scaled(folder: epath.PathLike, tensors: Collection[str]) -> bool:
  """Whether a folder's model scales what its head, the input table, is given (a tied network)."""
  content = hf_files.read_config(folder)
  config = hf_config.from_hf_config(content, has_head=_HEAD in tensors, where=str(folder))
  return config.logits_via_embedding


def user_config(folder: epath.PathLike) -> Any:
  """The transformers config of a folder, with the ids that begin and end its answers."""
  import transformers

  settings = hf_config.settings_of(
    hf_files.read_config(folder), hf_files.read_generation_config(folder), str(folder)
  )
  config = transformers.AutoConfig.from_pretrained(str(folder))
  config.decoder_start_token_id = settings.decoder_start_id
  ends = settings.eos_ids
  config.eos_token_id = ends[0] if len(ends) == 1 else list(ends)
  return config


def mapped_tensors(folder: epath.PathLike) -> dict[str, Any]:
  """Every tensor of a folder's safetensors files as a torch tensor on the mapped file."""
  import safetensors.torch

  hf_files.open_tensors(folder)  # names what is damaged
  state: dict[str, Any] = {}
  for file in hf_files.safetensors_files(folder):
    state |= safetensors.torch.load_file(str(epath.Path(folder) / file))
  return state


def with_weights(config: Any, state: Mapping[str, Any], torch: Any, *, scaled: bool) -> Any:
  """The model of a transformers config around given tensors, which are not copied.

  The input table may have any of its names, and is the head where there is no other.
  """
  import transformers

  state = {name: array for name, array in state.items() if name not in names.HF_IGNORED}
  table = next(name for name in (names.HF_TABLE, *names.HF_TABLE_ALIASES) if name in state)
  for alias in (names.HF_TABLE, *names.HF_TABLE_ALIASES):
    state.setdefault(alias, state[table])
  state.setdefault(_HEAD, state[table])
  with torch.device('meta'):
    model = getattr(transformers, hf_config.CLASSES[config.model_type])(config)
  model.load_state_dict(state, strict=True, assign=True)
  model.config.tie_word_embeddings = scaled  # read by umt5, and by all classes of transformers 4
  model.config.scale_decoder_outputs = scaled  # read by T5's class of transformers 5
  return model.eval()


def activation_peak(
  folder: epath.PathLike, prompts: tuple[str, ...] = PROMPTS
) -> tuple[float, str]:
  """Largest absolute activation of a model on sample prompts, computed in float32, and its module.

  The decoder is fed the prompt, too. Weights are widened one matrix at a time, so memory is that of
  the largest one in float32 and the activations. The logits are left out: softmax takes them in
  float32 everywhere.
  """
  import torch
  import transformers

  model = open_mapped(folder)
  tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
  peak: list[Any] = [0.0, '']

  def watch(name: str):
    def hook(_module: Any, _inputs: Any, output: Any) -> None:
      tensor = output[0] if isinstance(output, tuple) else output
      if not torch.is_tensor(tensor):
        return
      largest = float(tensor.abs().max()) if bool(torch.isfinite(tensor).all()) else float('inf')
      if largest > peak[0]:
        peak[:] = [largest, name]

    return hook

  _widen(model, torch)
  for name, module in model.named_modules():
    if name and name != 'lm_head':
      module.register_forward_hook(watch(name))
  with torch.inference_mode():
    for prompt in prompts:
      ids = torch.tensor([tokenizer(prompt)['input_ids']])
      model(input_ids=ids, decoder_input_ids=torch.nn.functional.pad(ids, (1, 0))[:, :-1])
  return float(peak[0]), str(peak[1])


def _widen(model: Any, torch: Any) -> None:
  """Makes every matrix of a model float32 for as long as it is used, and leaves the head out."""

  class Widened(torch.nn.Module):
    weight = None  # transformers would cast the input to its dtype

    def __init__(self, kept: Any):
      super().__init__()
      self.kept = kept.detach()

    def forward(self, x: Any) -> Any:
      if x.is_floating_point():
        return torch.nn.functional.linear(x, self.kept.float())
      return self.kept[x].float()

  for module in list(model.modules()):
    for name, child in list(module.named_children()):
      if isinstance(child, torch.nn.Linear | torch.nn.Embedding):
        setattr(module, name, Widened(child.weight))
  model.float()  # what is left: the scales of the layer norms
  model.lm_head.forward = lambda x: x[..., :1]


def check_float16_activations(folder: epath.PathLike) -> tuple[float, str]:
  """Refuses a model whose activations float16 cannot hold.

  Returns:
    The largest activation found on the sample prompts, and the module it comes from.

  Raises:
    ValueError: it is not finite in float16.
  """
  peak, where = activation_peak(folder)
  if not peak <= FLOAT16_MAX:
    raise ValueError(
      f'the activations of {where} reach {peak:.4g} on sample prompts, float16 ends at '
      f'{FLOAT16_MAX:g}: run in float16, this model gives inf and nan. Export it as bfloat16, or '
      'pass --allow_float16_overflow if it will be run in another type'
    )
  return peak, where

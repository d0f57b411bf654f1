"""Model folders that transformers itself wrote, tiny and random, with the tokenizer of T5."""

import json
from pathlib import Path

SIZES = {'vocab_size': 640, 'd_model': 16, 'd_kv': 4, 'd_ff': 32, 'num_layers': 1, 'num_heads': 2}


def write(
  folder: Path,
  *,
  kind: str = 'MT5',
  tied: bool = False,
  vocabulary: Path | None = None,
  **settings,
) -> Path:
  """Saves a model of a class with random weights.

  Args:
    folder: to make.
    kind: 'T5', 'MT5' or 'UMT5'.
    tied: leave the head the input table.
    vocabulary: SentencePiece file to put there as spiece.model, for transformers to make a
      tokenizer of.
    settings: of the config.
  """
  import torch
  import transformers

  torch.manual_seed(0)
  options = {**SIZES, 'decoder_start_token_id': 0, 'feed_forward_proj': 'gated-gelu', **settings}
  config = getattr(transformers, f'{kind}Config')(**options)
  model = getattr(transformers, f'{kind}ForConditionalGeneration')(config)
  if not tied:
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    model.config.tie_word_embeddings = False
  with torch.no_grad():
    for name, weight in model.named_parameters():
      # Far from what initialisation gives: answers differ between prompts.
      scale = 1.0 if 'layer_norm' in name else weight.shape[-1] ** -0.5
      weight.copy_(torch.randn(weight.shape) * scale + (1.0 if 'layer_norm' in name else 0.0))
  model.save_pretrained(folder)
  if vocabulary is not None:
    (folder / 'spiece.model').write_bytes(vocabulary.read_bytes())
    said = {'tokenizer_class': 'T5Tokenizer', 'extra_ids': 0}  # as Google's mT5
    (folder / 'tokenizer_config.json').write_text(json.dumps(said))
  return folder


def change(folder: Path, file: str = 'config.json', **entries) -> Path:
  """Sets entries of a JSON file of the folder; None removes one."""
  path = folder / file
  content = {**json.loads(path.read_text()), **entries}
  path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
  return folder


def with_tokens(folder: Path, vocabulary: Path, *tokens: str, own_file: bool = True) -> Path:
  """Gives a folder T5's tokenizer, as transformers saves it, with added tokens."""
  import transformers

  start = folder / 'start'
  start.mkdir(exist_ok=True)
  (start / 'spiece.model').write_bytes(vocabulary.read_bytes())
  tokenizer_config = {'tokenizer_class': 'T5Tokenizer', 'extra_ids': 100}
  (start / 'tokenizer_config.json').write_text(json.dumps(tokenizer_config))
  tokenizer = transformers.AutoTokenizer.from_pretrained(str(start))
  tokenizer.add_tokens(list(tokens))
  for path in start.iterdir():
    path.unlink()
  start.rmdir()
  tokenizer.save_pretrained(folder)
  if own_file:
    (folder / 'spiece.model').write_bytes(vocabulary.read_bytes())
  return folder

"""What T5X's own files do not say of a model, in files of ours beside its index.

    model.json          architecture, vocabulary, start and end of answers: read with the checkpoint
    model.gin           the same network for T5X: give it with --gin_file after the model's own
    sentencepiece.model, tokenizer/   only where no other file is the whole vocabulary
T5X takes no notice of them. Where they are missing, T5X's own config.gin may tell (t5x_gin.py).
"""

import dataclasses
import json
from typing import Any

from etils import epath

from aya_train import path_facts
from aya_train.checkpoint import contents, model_settings
from aya_train.checkpoint.t5x import t5x_gin
from aya_train.models import t5_config

FILE, GIN_FILE = 'model.json', 'model.gin'
VOCABULARY_FILE, TOKENIZER = 'sentencepiece.model', 'tokenizer'
# Of examples/t5 and examples/scalable_t5 alike, written into their network.py.
_BUCKETS, _MAX_DISTANCE = 32, 128
_OF_A_LAYOUT = ('scan_layers', 'param_scan_axis', 'relpos_bias_per_layer')
_UNSEEN = ('mlp_activations', 'relative_attention_max_distance')
_GIN = (
  *('vocab_size', 'emb_dim', 'num_heads', 'num_encoder_layers', 'num_decoder_layers', 'head_dim'),
  *('mlp_dim', 'mlp_activations', 'dropout_rate', 'logits_via_embedding'),
)


def check(checkpoint: contents.Checkpoint) -> None:
  """Refuses what T5X's networks do not compute, whatever its gin says.

  Raises:
    ValueError: which setting, and T5X's.
  """
  config = checkpoint.config
  for name, theirs in (
    ('relative_attention_num_buckets', _BUCKETS),
    ('relative_attention_max_distance', _MAX_DISTANCE),
  ):
    if (ours := getattr(config, name)) != theirs:
      raise ValueError(
        f"{checkpoint.where} has {name} {ours}; T5X's networks have {theirs}, which no gin "
        'changes. Convert it to native or hf'
      )
  model_settings.check_plain(checkpoint.settings, checkpoint.where, "T5X's decoder")


def write(
  folder: epath.PathLike,
  checkpoint: contents.Checkpoint,
  vocabulary_file: str,
  own_vocabulary: bytes = b'',
) -> None:
  """Writes model.json and model.gin, and the vocabulary if it is nowhere else."""
  folder, config = epath.Path(folder), checkpoint.config
  content = {
    'architecture': {k: v for k, v in config.architecture().items() if k not in _OF_A_LAYOUT},
    'dropout_rate': config.dropout_rate,
    'vocabulary_file': VOCABULARY_FILE if own_vocabulary else vocabulary_file,
    'settings': checkpoint.settings.to_json(),
  }
  (folder / FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + '\n')
  lines = [f'network.T5Config.{name} = {getattr(config, name)!r}' for name in _GIN]
  (folder / GIN_FILE).write_text('\n'.join(lines) + '\n')
  if own_vocabulary:
    (folder / VOCABULARY_FILE).write_bytes(own_vocabulary)


def read(checkpoint: contents.Checkpoint, folder: epath.PathLike) -> contents.Checkpoint:
  """The checkpoint of a folder with what its model.json says, or else the config.gin of its run.

  Raises:
    ValueError: model.json is damaged, or describes another network than the arrays are of; see
      `t5x_gin.applied`.
  """
  folder = epath.Path(folder)
  path = folder / FILE
  if not is_there(folder):
    return dataclasses.replace(checkpoint, config=t5x_gin.applied(checkpoint.config, folder))
  try:
    content = json.loads(path.read_bytes())
    said = dict(content['architecture'])
    config = dataclasses.replace(
      checkpoint.config,
      dropout_rate=content['dropout_rate'],
      **{name: said[name] for name in _UNSEEN},
    )
    vocabulary = content['vocabulary_file']
    settings = model_settings.from_json(content['settings'])
    if not isinstance(vocabulary, str):
      raise TypeError(f'vocabulary_file {vocabulary!r}')
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f'{path} is not what was written for a checkpoint ({error!r}). Copy the checkpoint again '
      'from its source, or remove the file: T5X needs none'
    ) from error
  if differing := _differing(checkpoint.config, said):
    raise ValueError(
      f'{path} describes another network than the arrays beside it: {", ".join(differing)}. Remove '
      'the file if it belongs to another checkpoint'
    )
  tokenizer = folder / TOKENIZER
  return dataclasses.replace(
    checkpoint,
    config=config,
    settings=settings,
    vocabulary_file=str(folder / vocabulary) if vocabulary == VOCABULARY_FILE else vocabulary,
    tokenizer_folder=str(tokenizer) if path_facts.is_dir(tokenizer) else '',
  )


def is_there(folder: epath.PathLike) -> bool:
  """Whether a folder has a model.json."""
  return path_facts.is_dir(folder) and path_facts.exists(epath.Path(folder) / FILE)


def tells_function(folder: epath.PathLike) -> bool:
  """Whether model.json, or the config.gin of the run, says what the arrays do not."""
  return is_there(folder) or t5x_gin.tells_function(folder)


def vocabulary_file(folder: epath.PathLike) -> str:
  """The SentencePiece file that model.json names; '' where it names none that is there."""
  path = epath.Path(folder) / FILE
  if not is_there(folder):
    return ''
  named = json.loads(path.read_bytes()).get('vocabulary_file') or ''
  named = str(epath.Path(folder) / named) if named == VOCABULARY_FILE else named
  return named if named and epath.Path(named).exists() else ''


def _differing(seen: t5_config.T5Config, said: dict[str, Any]) -> list[str]:
  """What model.json says otherwise than the shapes of the arrays."""
  found = seen.architecture()
  problems = [
    f'{name} {said[name]!r} there, {value!r} in the arrays'
    for name, value in found.items()
    if name not in (*_OF_A_LAYOUT, *_UNSEEN) and said.get(name) != value
  ]
  if len(said['mlp_activations']) != len(seen.mlp_activations):
    problems.append(
      f'mlp_activations {said["mlp_activations"]!r} there, {len(seen.mlp_activations)} input '
      'kernels in the arrays'
    )
  return problems

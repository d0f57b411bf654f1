"""A model that answers as a checkpoint says: its start and end tokens, its tokenizer."""

import dataclasses
import functools
import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

from aya_train.checkpoint import contents, folder_decoding, formats, model_settings
from aya_train.checkpoint.hf import hf_vocabulary
from aya_train.checkpoint.t5x import t5x_settings
from aya_train.objectives import seq2seq

logger = logging.getLogger(__name__)


def adapted(
  model: seq2seq.EncoderDecoderModel, source: formats.Detected, *, decoding: bool = False
) -> seq2seq.EncoderDecoderModel:
  """The model with the start and end of answers of a checkpoint, and its added tokens.

  Where the checkpoint has a tokenizer of transformers with tokens that no SentencePiece file holds,
  texts are read and written by that tokenizer.

  Args:
    model: the model.
    source: the checkpoint.
    decoding: take the way of decoding, and the length of answers, from its generation_config.json
      too; else they stay the model's own, and what the file asks for is named.

  Raises:
    ValueError: several tokens end an answer, transformers is needed and not installed, or the file
      asks for a way of decoding that is not known, or there is none that says one.
  """
  if _is_silent(source):
    if decoding:
      raise ValueError(f'{source.path} says nothing of decoding: DECODE_AS_CHECKPOINT = False')
    return model
  checkpoint = formats.open_checkpoint(source)
  settings = checkpoint.settings
  if len(settings.eos_ids) != 1:
    raise ValueError(
      f'{source.path} ends answers at each of eos_token_id {list(settings.eos_ids)}: decoding here '
      'knows one. Keep one in a copy of its generation_config.json'
    )
  changes: dict[str, Any] = {
    'decoder_start_token_id': settings.decoder_start_id,
    'eos_token_id': settings.eos_ids[0],
  }
  others = folder_decoding.asked(settings.generation)
  if decoding:
    changes['decode_fn'] = folder_decoding.decode_fn(
      *(settings.generation, str(source.path), model.config.vocab_size)
    )
    changes['max_new_tokens'] = settings.max_new_tokens
    logger.info('decoding as generation_config.json says: %s', others or 'greedily')
  elif others:
    logger.info(
      '%s says %s in generation_config.json, which is not done: how to decode is taken from gin '
      '(DECODE_FN); --decoding checkpoint does what the file says',
      *(source.path, others),
    )
  if (vocabulary := _tokenizer(checkpoint)) is not None:
    changes |= {'input_vocabulary': vocabulary, 'output_vocabulary': vocabulary}
  return dataclasses.replace(model, **changes)


def check_plain(source: formats.Detected, who: str) -> None:
  """Refuses a checkpoint that starts or ends answers in another way than training does.

  Args:
    source: the checkpoint.
    who: what does so, for the message.

  Raises:
    ValueError: see `model_settings.check_plain`.
  """
  if not _is_silent(source):
    model_settings.check_plain(formats.open_checkpoint(source).settings, str(source.path), who)


def _is_silent(source: formats.Detected) -> bool:
  """Whether T5X alone wrote a checkpoint, which says nothing of answers."""
  of_t5x = source.format in (formats.Format.T5X, formats.Format.T5X_ORBAX)
  return of_t5x and not t5x_settings.is_there(source.path)


def _tokenizer(checkpoint: contents.Checkpoint) -> 'TransformersVocabulary | None':
  folder = checkpoint.tokenizer_folder
  rows = checkpoint.config.vocab_size
  if not folder or not hf_vocabulary.own_model(folder, rows):
    return None
  if importlib.util.find_spec('transformers') is None:
    raise ValueError(
      f'the tokenizer in {folder} has tokens that no SentencePiece file holds, and transformers, '
      "which reads them, is not installed: pip install 'aya-train[hf]'"
    )
  logger.info('texts are read and written by the tokenizer in %s', folder)
  return TransformersVocabulary(folder)


class TransformersVocabulary:
  """A tokenizer of transformers with the methods of a SeqIO vocabulary, for texts alone."""

  extra_ids = 0
  pad_id = model_settings.PAD_ID

  def __init__(self, folder: str):
    self._folder = folder

  @functools.cached_property
  def _tokenizer(self) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(self._folder)

  @property
  def bos_id(self) -> int | None:
    return None

  @property
  def eos_id(self) -> int:
    return model_settings.EOS_ID

  @property
  def unk_id(self) -> int:
    return int(self._tokenizer.unk_token_id)

  @property
  def vocab_size(self) -> int:
    return len(self._tokenizer)

  def encode(self, s: str) -> Sequence[int]:
    """Ids of a text, without an end of sequence."""
    ids = list(self._tokenizer(s)['input_ids'])
    return ids[:-1] if ids and ids[-1] == self.eos_id else ids

  def decode(self, ids: Sequence[int]) -> str:
    """The text of ids; unlike SeqIO's, ids without a token are no unknown token but nothing."""
    kept = [int(i) for i in ids if i not in (model_settings.PAD_ID, self.eos_id)]
    return str(self._tokenizer.decode(kept, skip_special_tokens=False))

  def __eq__(self, other: object) -> bool:
    return isinstance(other, TransformersVocabulary) and other._folder == self._folder

  __hash__ = None  # type: ignore[assignment]

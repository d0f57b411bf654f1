"""What a user of transformers gets from a written folder: token ids of texts, and answers.

Answers are found by `generate`, with the folder's own start, end and settings. Our network, on the
source, must rank each token of them first; tokens that are as good as tied may change places.
"""

import importlib.util
import logging
from collections.abc import Callable, Sequence

import numpy as np
from etils import epath

from aya_train.checkpoint import contents, sample_logits
from aya_train.checkpoint.hf import hf_tokenizer, hf_torch, hf_vocabulary

logger = logging.getLogger(__name__)

_PROMPTS, _TOKENS = 3, 6
_AROUND = 'Mo {0} na{0}.'  # what stands beside an added token


def compare_ids(
  folder: epath.PathLike, tokenizer_folder: str, vocabulary_file: str, where: str
) -> None:
  """Compares the ids that AutoTokenizer gives sample texts with those of the source.

  Args:
    folder: the written folder.
    tokenizer_folder: of the source, whose tokenizer was copied; '' if one was built.
    vocabulary_file: SentencePiece file that it was built from.
    where: for messages.

  Raises:
    ValueError: a text has other ids, or transformers cannot open the tokenizer.
  """
  if importlib.util.find_spec('transformers') is None:
    logger.info('token ids were not compared: transformers is not installed')
    return
  found = _tokenizer(folder)
  expected: Callable[[str], list[int]]
  texts = list(hf_torch.PROMPTS)
  if tokenizer_folder:
    expected = _tokenizer(tokenizer_folder)
    added = hf_vocabulary.added_tokens(tokenizer_folder)
    # Special tokens of every T5 come first.
    texts += [_AROUND.format(token['content']) for token in [*added[3:6], *added[-3:]]]
  else:
    expected = _pieces(vocabulary_file)
  for text in texts:
    if (ours := expected(text)) != (theirs := found(text)):
      raise ValueError(
        f'{where}: its tokenizer makes {theirs} of {text!r}, that of the source {ours}: answers '
        'would be others'
      )
  logger.info('verified token ids of %d texts', len(texts))


def _tokenizer(folder: epath.PathLike) -> Callable[[str], list[int]]:
  import transformers

  tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
  return lambda text: list(tokenizer(text)['input_ids'])


def _pieces(vocabulary_file: str) -> Callable[[str], list[int]]:
  import sentencepiece

  model = hf_tokenizer.read_vocabulary(vocabulary_file)
  processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
  return lambda text: [*processor.EncodeAsIds(text), model.trainer_spec.eos_id]


def compare(
  source: contents.Checkpoint,
  folder: epath.PathLike,
  *,
  dtype: str,
  vocabulary_file: epath.PathLike,
  where: str,
) -> None:
  """Compares short greedy answers of transformers with the source. Arguments: `sample_logits`.

  Raises:
    ValueError: an answer starts with another token, or has one that the source would not choose.
  """
  ids = sample_logits.sample_ids(vocabulary_file, source.config.vocab_size)[:_PROMPTS]
  answers = _generated(folder, ids)
  start, ends = source.settings.decoder_start_id, source.settings.eos_ids
  for answer in answers:
    if answer[0] != start:
      raise ValueError(
        f'{where}: answers begin with token {answer[0]}, those of {source.where} with {start}'
      )
  cut = [_until(answer[1:], ends) for answer in answers]
  if wrong := [a for a, c in zip(answers, cut, strict=True) if _goes_on(a[1:], c)]:
    raise ValueError(
      f'{where}: the answer {wrong[0][1:]} does not end where that of {source.where} does, at '
      f'{list(ends)}'
    )
  if wrong := [c for c in cut if len(c) < _TOKENS and (not c or c[-1] not in ends)]:
    raise ValueError(
      f'{where}: the answer {wrong[0]} ends before {list(ends)}, which ends those of {source.where}'
    )
  logits = sample_logits.of_checkpoint(source, ids, dtype, cut)
  for answer, rows in zip(cut, logits, strict=True):
    largest = np.abs(rows).max()
    for token, row in zip(answer, rows, strict=True):
      if row.max() - row[token] > sample_logits.TOLERANCE * largest:
        raise ValueError(
          f'{where}: transformers answers {answer}; {source.where} would say {int(row.argmax())} '
          f'in place of {token}'
        )
  logger.info('verified answers to %d sample prompts', len(cut))


def _generated(folder: epath.PathLike, ids: Sequence[Sequence[int]]) -> list[list[int]]:
  """Greedy answers of a few tokens, the start token first; the folder's own ids begin and end."""
  import torch
  import transformers

  model = sample_logits.user_model(folder)
  own = model.generation_config
  # Given as an argument, it would be completed from the model's own.
  model.generation_config = transformers.GenerationConfig(
    decoder_start_token_id=own.decoder_start_token_id,
    eos_token_id=own.eos_token_id,
    pad_token_id=own.pad_token_id,
    use_cache=own.use_cache,
    max_new_tokens=_TOKENS,
  )
  return [model.generate(torch.tensor([list(prompt)]))[0].tolist() for prompt in ids]


def _until(answer: Sequence[int], ends: Sequence[int]) -> list[int]:
  """An answer to its end, included."""
  for i, token in enumerate(answer):
    if token in ends:
      return list(answer[: i + 1])
  return list(answer)


def _goes_on(answer: Sequence[int], cut: Sequence[int]) -> bool:
  return len(answer) > len(cut) and any(answer[len(cut) :])

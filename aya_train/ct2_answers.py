"""Answers of an exported CTranslate2 folder, computed by CTranslate2."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seqio
from etils import epath

from aya_train import ct2_library, finiteness, model_answers

_COMPARED = 200  # ids whose pieces are compared with the vocabulary's


class Ct2Answers:
  """Answers by CTranslate2 on the CPU, or a GPU if it finds one.

  Attributes:
    batch_size: rows that are answered at a time.
  """

  def __init__(
    self,
    folder: epath.PathLike,
    vocabulary: seqio.Vocabulary,
    batch_size: int,
    decoding: Mapping[str, Any],
  ):
    """Loads the folder.

    Args:
      folder: written by `export.ct2_model`.
      vocabulary: of the tasks.
      batch_size: see above.
      decoding: of `options_of`.

    Raises:
      ModuleNotFoundError: the extra `quantised` is not installed.
      ValueError: the folder has another vocabulary.
    """
    self.batch_size = batch_size
    self._decoding = dict(decoding)
    self._pieces = json.loads((epath.Path(folder) / ct2_library.PIECES).read_text())
    self._ids = {piece: i for i, piece in enumerate(self._pieces)}
    self._end = int(vocabulary.eos_id)
    _check_vocabulary(self._pieces, vocabulary, str(folder))
    self._translator = ct2_library.imported(folder).Translator(
      str(folder), device='auto', compute_type='default', inter_threads=1
    )

  def generate(
    self, inputs: Sequence[np.ndarray], ids: Sequence[int], *, limit: int, max_decode_length: int
  ) -> list[model_answers.Answer]:
    """The most likely answers as the options of decoding have them; see `ModelAnswers.generate`."""
    del ids, limit
    found = self._translator.translate_batch(
      [self._named(row) for row in inputs],
      max_decoding_length=max_decode_length,
      max_input_length=0,
      return_scores=True,
      return_end_token=True,
      **self._decoding,
    )
    answers = []
    for each in found:
      tokens = [self._ids[piece] for piece in each.hypotheses[0]]
      penalty = len(tokens) ** self._decoding['length_penalty']
      answers.append(model_answers.Answer(tokens, each.scores[0] * penalty))
    finiteness.check_scores(np.array([answer.score for answer in answers]))
    return answers

  def score(self, questions: Sequence[model_answers.Scored], *, limit: int) -> list[list[float]]:
    """Log-likelihoods of the targets of each question; CTranslate2 encodes inputs for each."""
    del limit
    pairs = [(q.inputs, target) for q in questions for target in q.targets]
    pairs = [pair for pair in pairs if len(pair[1])]
    sources = [self._named(source) for source, _ in pairs]
    bodies = [target[:-1] if target[-1] == self._end else target for _, target in pairs]
    scored = self._translator.score_batch(
      sources,
      [self._named(body) for body in bodies],
      max_batch_size=self.batch_size,
      max_input_length=0,
    )
    # CTranslate2 adds the end of sequence, which counts where the target has it.
    values = iter(
      [
        float(np.sum(np.asarray(each.log_probs, np.float64)[: len(target)]))
        for each, (_, target) in zip(scored, pairs, strict=True)
      ]
    )
    found = [[next(values) if len(t) else 0.0 for t in q.targets] for q in questions]
    for each in found:
      finiteness.check_scores(np.asarray(each))
    return found

  def _named(self, ids: np.ndarray) -> list[str]:
    return [self._pieces[int(i)] for i in ids]


def options_of(settings: Mapping[str, Any]) -> dict[str, Any]:
  """What CTranslate2 calls the settings of a decode function (`decode_settings.of`).

  Raises:
    ValueError: it knows no such way.
  """
  options = {
    'min_decoding_length': settings.get('min_new_tokens', 0),
    'repetition_penalty': settings.get('repetition_penalty', 1.0),
    'no_repeat_ngram_size': settings.get('no_repeat_ngram_size', 0),
  }
  if settings.get('function') == 'temperature_sample':
    options |= {'beam_size': 1, 'length_penalty': 0}
    if not settings['draws']:
      return options
    return options | {
      'sampling_temperature': settings['temperature'],
      'sampling_topk': settings['topk'],
      'sampling_topp': settings['topp'] or 1.0,
    }
  if settings.get('function') == 'hf_beam_search':
    return options | {
      'beam_size': settings['num_decodes'],
      'length_penalty': settings['length_penalty'],
    }
  raise ValueError(
    f'CTranslate2 does not answer by {settings.get("function")!r}: DECODE_FN is to be '
    '@decoding.temperature_sample or @hf_beams.hf_beam_search'
  )


def _check_vocabulary(pieces: Sequence[str], vocabulary: seqio.Vocabulary, where: str) -> None:
  tokenizer = getattr(vocabulary, 'tokenizer', None)
  if vocabulary.vocab_size > len(pieces):
    raise ValueError(
      f'the vocabulary has {vocabulary.vocab_size} ids, and the model in {where} {len(pieces)}: '
      'bind VOCABULARY_FILE to the SentencePiece model of the weights'
    )
  if tokenizer is None:
    return
  size = min(tokenizer.GetPieceSize(), len(pieces))
  for i in range(3, size, max(1, size // _COMPARED)):
    if tokenizer.IdToPiece(i) != pieces[i]:
      raise ValueError(
        f'the model in {where} has another vocabulary: id {i} is {pieces[i]!r} there, and '
        f'{tokenizer.IdToPiece(i)!r} here. Bind VOCABULARY_FILE to the SentencePiece model of the '
        'weights'
      )

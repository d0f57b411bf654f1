"""What a model answers to a batch of rows: generated tokens, and log-likelihoods of options."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from aya_train import finiteness, partitioning
from aya_train.data import feature_converters
from aya_train.objectives import seq2seq

PACKED_TOKENS = 512  # of options that are scored in one row of the decoder
_NARROWEST_INPUTS, _NARROWEST_OPTIONS = 32, 8


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
  """Targets whose log-likelihoods after one input are asked for.

  Attributes:
    inputs: int32 ids.
    targets: int32 ids of each; none is there twice.
  """

  inputs: np.ndarray
  targets: Sequence[np.ndarray]

  @property
  def size(self) -> tuple[int, int]:
    """Tokens of the input, and of all targets."""
    return len(self.inputs), sum(map(len, self.targets))


@dataclasses.dataclass(frozen=True)
class Answer:
  """What was generated: ids up to the end of sequence, with it, and their log-likelihood."""

  tokens: Sequence[int]
  score: float


class Answerer(Protocol):
  """Something that answers batches of at most `batch_size` rows."""

  batch_size: int

  def generate(
    self, inputs: Sequence[np.ndarray], ids: Sequence[int], *, limit: int, max_decode_length: int
  ) -> list[Answer]:
    """Answers to inputs of ids; see `ModelAnswers.generate`."""

  def score(self, questions: Sequence[Scored], *, limit: int) -> list[list[float]]:
    """Log-likelihoods of all targets of each question."""


class ModelAnswers:
  """Answers of a model of ours on the devices of a mesh."""

  def __init__(
    self,
    model: seq2seq.EncoderDecoderModel,
    partitioner: partitioning.Partitioner,
    batch_size: int,
    seed: int,
  ):
    """As the arguments; a batch is filled up to what the mesh divides."""
    self.batch_size = batch_size
    self.params: Any = None
    self._model, self._partitioner, self._seed = model, partitioner, seed
    parts = partitioner.num_data_shards
    self._rows = -(-batch_size // parts) * parts
    self._generators: dict[int, Callable[..., Any]] = {}
    self._scorers: dict[int, Callable[..., Any]] = {}

  def generate(
    self, inputs: Sequence[np.ndarray], ids: Sequence[int], *, limit: int, max_decode_length: int
  ) -> list[Answer]:
    """Decodes as the model's own `decode_fn` does; the best of its answers.

    Args:
      inputs: int32 ids of each input, at most `limit`.
      ids: what makes the draws of each row its own, whatever batch it is in.
      limit: longest input.
      max_decode_length: most tokens of an answer, its end included.

    Raises:
      finiteness.NonFiniteError: an answer has no finite log-likelihood.
    """
    width = input_width(max(1, *map(len, inputs)), limit)
    filled = [*inputs, *[inputs[0]] * (self._rows - len(inputs))]
    rows = {'encoder_input_tokens': _stacked(filled, width)}
    numbers = np.array([*ids, *[ids[0]] * (self._rows - len(ids))], np.int32)
    batch, placed = self._partitioner.place(rows), self._partitioner.place({'ids': numbers})
    step = self._generator(max_decode_length)
    tokens, scores = (np.asarray(x) for x in step(self.params, batch, placed['ids']))
    finiteness.check_scores(scores[: len(inputs)])
    pairs = zip(tokens[: len(inputs)].tolist(), scores.tolist(), strict=False)
    return [Answer(_without_padding(row), score) for row, score in pairs]

  def score(self, questions: Sequence[Scored], *, limit: int) -> list[list[float]]:
    """Log-likelihoods of the targets of each question, the encoder run once for all of them.

    Raises:
      finiteness.NonFiniteError: one is not finite.
    """
    width = input_width(max(1, *(len(q.inputs) for q in questions)), limit)
    length = _power(max(1, *(q.size[1] for q in questions)), _NARROWEST_OPTIONS)
    count = _power(max(len(q.targets) for q in questions), 2)
    filled = [*questions, *[questions[0]] * (self._rows - len(questions))]
    targets = _stacked([np.concatenate(q.targets) for q in filled], length)
    segments = _stacked([_segments(q.targets) for q in filled], length)
    rows = {
      'encoder_input_tokens': _stacked([q.inputs for q in filled], width),
      'decoder_input_tokens': feature_converters.shift_right(targets, segments),
      'decoder_target_tokens': targets,
      'decoder_segment_ids': segments,
    }
    found = np.asarray(self._scorer(count)(self.params, self._partitioner.place(rows)))
    finiteness.check_scores(found[: len(questions)])
    return [found[i, : len(q.targets)].tolist() for i, q in enumerate(questions)]

  def _generator(self, max_decode_length: int) -> Callable[..., Any]:
    if max_decode_length not in self._generators:

      def predict(params: Any, batch: Any, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        key = jax.random.key(self._seed)
        tokens, scores = self._model.predict_batch(
          params, batch, key, ids, max_decode_length=max_decode_length
        )
        return tokens[:, 0], scores[:, 0]

      self._generators[max_decode_length] = self._jit(predict)
    return self._generators[max_decode_length]

  def _scorer(self, num_options: int) -> Callable[..., Any]:
    if num_options not in self._scorers:
      self._scorers[num_options] = self._jit(
        functools.partial(self._model.score_options, num_options=num_options)
      )
    return self._scorers[num_options]

  def _jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
    return self._partitioner.jit(function, out_shardings=self._partitioner.replicated)


def in_rows(inputs: np.ndarray, targets: Sequence[np.ndarray]) -> list[Scored]:
  """A question whose targets fit into rows of `PACKED_TOKENS` tokens; most often it is one."""
  found: list[Scored] = []
  kept: list[np.ndarray] = []
  for target in targets:
    if kept and sum(map(len, kept)) + len(target) > PACKED_TOKENS:
      found.append(Scored(inputs, kept))
      kept = []
    kept.append(target)
  return [*found, Scored(inputs, kept)]


def input_width(num_tokens: int, limit: int) -> int:
  """Width of a batch of inputs: the next power of two, at least 32 and at most `limit`.

  Attention to padding costs as much as to tokens; few widths keep the number of programs small.
  """
  return min(_power(num_tokens, _NARROWEST_INPUTS), limit)


def _power(number: int, least: int) -> int:
  return max(least, 1 << (number - 1).bit_length())


def _stacked(rows: Sequence[np.ndarray], width: int) -> np.ndarray:
  found = np.zeros((len(rows), width), np.int32)
  for i, row in enumerate(rows):
    found[i, : len(row)] = row
  return found


def _segments(targets: Sequence[np.ndarray]) -> np.ndarray:
  return np.repeat(np.arange(1, len(targets) + 1, dtype=np.int32), list(map(len, targets)))


def _without_padding(tokens: Sequence[int]) -> list[int]:
  end = len(tokens)
  while end and tokens[end - 1] == 0:
    end -= 1
  return list(tokens[:end])

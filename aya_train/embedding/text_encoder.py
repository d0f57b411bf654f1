"""Texts to vectors: ids, batches of one length, the encoder on the devices of a mesh.

A vector depends on its text alone: each text is padded to the next power of two of its own length,
and batches hold texts of one such width, in as many rows each time.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from aya_train import finiteness, model_answers, partitioning
from aya_train.checkpoint import restoration
from aya_train.embedding import encoder_checkpoint
from aya_train.models import sentence_encoder
from aya_train.objectives import objective

logger = logging.getLogger(__name__)
MAX_LENGTH = 512
EOS_ID = 1
DTYPES = ('float32', 'bfloat16')


class Tokens:
  """Texts to ids with their end, cut where they are too long."""

  def __init__(self, vocabulary_model: bytes, max_length: int):
    """As the arguments: a SentencePiece model, and most tokens of a text, its end included."""
    import sentencepiece

    if max_length < 2:
      raise ValueError(f'--max_length must be at least 2, got {max_length}')
    self._model = sentencepiece.SentencePieceProcessor(model_proto=vocabulary_model)
    self._max_length = max_length
    self.num_pieces = self._model.get_piece_size()
    self.num_cut = 0

  def of(self, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each; `num_cut` counts those that were too long."""
    found = []
    for ids in self._model.encode(list(texts)):
      self.num_cut += len(ids) >= self._max_length
      found.append([*ids[: self._max_length - 1], EOS_ID])
    return found


@dataclasses.dataclass(frozen=True)
class Settings:
  """How vectors are made.

  Attributes:
    dimension: the first so many numbers of each vector, its length made 1 again; None: all.
    max_length: most tokens of a text with its prompt; None: what the checkpoint says, or 512.
    batch_size: rows of a batch.
    dtype: of activations.
    vocabulary: SentencePiece file; None: that of the checkpoint.
  """

  dimension: int | None = None
  max_length: int | None = None
  batch_size: int = 64
  dtype: str = 'float32'
  vocabulary: str | None = None


DEFAULTS = Settings()


class TextEncoder:
  """A checkpoint on the devices.

  Attributes:
    checkpoint: what it is made of.
    dimension: width of its vectors.
    max_length: most tokens of a text.
  """

  def __init__(
    self,
    checkpoint: encoder_checkpoint.EncoderCheckpoint,
    partitioner: partitioning.Partitioner,
    settings: Settings = DEFAULTS,
  ):
    """Opens vocabulary and checks all settings; weights are read at the first text.

    Raises:
      ValueError: a setting out of range, a vocabulary with more ids than the model has rows.
      FileNotFoundError: no vocabulary.
    """
    if settings.dtype not in DTYPES:
      raise ValueError(f'--dtype must be one of {DTYPES}, got {settings.dtype!r}')
    if settings.batch_size < 1:
      raise ValueError(f'--batch_size must be at least 1, got {settings.batch_size}')
    self.checkpoint = checkpoint
    self.dimension = _dimension(checkpoint, settings.dimension)
    self.max_length = settings.max_length or checkpoint.max_length or MAX_LENGTH
    self._tokens = Tokens(checkpoint.vocabulary_model(settings.vocabulary), self.max_length)
    if self._tokens.num_pieces > checkpoint.config.vocab_size:
      raise ValueError(
        f'the vocabulary of {checkpoint.path} has {self._tokens.num_pieces} pieces, more than the '
        f'{checkpoint.config.vocab_size} rows of its table: this is not the vocabulary of the model'
      )
    self._partitioner, self._dtype = partitioner, settings.dtype
    shards = partitioner.num_data_shards
    self._rows = -(-settings.batch_size // shards) * shards
    self._params: Any = None
    self._step: Callable[..., Any] | None = None

  @property
  def about(self) -> dict[str, Any]:
    """What its vectors depend on, beside the texts and their prompt."""
    return {
      'checkpoint': self.checkpoint.identity,
      'max_length': self.max_length,
      'activations': self._dtype,
    }

  @property
  def num_cut(self) -> int:
    """Texts so far that were longer than `max_length`."""
    return self._tokens.num_cut

  def prompt(self, kind: str | None) -> str:
    """What is put before texts of a kind, such as 'query'; '' of None.

    Raises:
      ValueError: the checkpoint has prompts, and none of this name.
    """
    prompts = self.checkpoint.prompts
    if kind is None or kind in prompts:
      return prompts[kind] if kind else ''
    if kind in (encoder_checkpoint.QUERY, encoder_checkpoint.PASSAGE):
      return ''
    raise ValueError(
      f'{self.checkpoint.path} has the prompts {sorted(prompts)}, and no {kind!r}: --prompt gives '
      'a text of your own'
    )

  def vectors(
    self, texts: Sequence[str], advance: Callable[[int], None] = lambda count: None
  ) -> np.ndarray:
    """Vectors of length 1 of some texts, float32 [texts, dimension]; on every host.

    Args:
      texts: with their prompts, as many as fit in memory.
      advance: is told how many more are done, after each batch.

    Raises:
      finiteness.NonFiniteError: the model gives NaN or infinity.
    """
    tokens = self._tokens.of(texts)
    found = np.zeros((len(texts), self.dimension), np.float32)
    for width, places in plan(list(map(len, tokens)), self._rows, self.max_length):
      inputs = np.zeros((self._rows, width), np.int32)
      for row, place in enumerate(places):
        inputs[row, : len(tokens[place])] = tokens[place]
      vectors = self._of_batch(inputs)[: len(places)]
      if not np.isfinite(vectors).all():
        raise finiteness.NonFiniteError(
          f'{self.checkpoint.path} gives vectors that are NaN or infinite: take another '
          'checkpoint, or --dtype float32'
        )
      found[places] = vectors
      advance(len(places))
    return found

  def _of_batch(self, tokens: np.ndarray) -> np.ndarray:
    """Vectors of ids [rows, width], which end in padding (0); a row may be padding alone."""
    step, params = self._loaded()
    return np.asarray(step(params, self._partitioner.place({'tokens': tokens})['tokens']))

  def _loaded(self) -> tuple[Callable[..., Any], Any]:
    if self._step is None:
      encoder = self._encoder()
      self._params = self._read(encoder)

      def embed(params: Any, tokens: jax.Array) -> jax.Array:
        vectors = encoder.embed(params, tokens)
        if self.dimension < encoder.dimension:
          vectors = sentence_encoder.normalised(vectors[:, : self.dimension])
        return vectors.astype(jnp.float32)

      self._step = self._partitioner.jit(embed, out_shardings=self._partitioner.replicated)
    return self._step, self._params

  def _encoder(self) -> sentence_encoder.SentenceEncoder:
    on_tpu = self._partitioner.mesh.devices.flat[0].platform == 'tpu'
    config = dataclasses.replace(
      self.checkpoint.config,
      dtype=jnp.dtype(self._dtype),
      attention_kernel='fused' if on_tpu else 'plain',
    )
    return sentence_encoder.SentenceEncoder(config, self.checkpoint.projection)

  def _read(self, encoder: sentence_encoder.SentenceEncoder) -> Any:
    abstract, axes = objective.parameter_axes(encoder)  # type: ignore[arg-type]
    shardings = traverse_util.flatten_dict(self._partitioner.shardings(axes, abstract), sep='/')
    arrays = self.checkpoint.params
    wanted = traverse_util.flatten_dict(abstract, sep='/')
    if wrong := [
      f'{name} expected {tuple(leaf.shape)}, got {tuple(arrays[name].shape)}'
      if name in arrays
      else f'{name} is missing'
      for name, leaf in wanted.items()
      if name not in arrays or tuple(arrays[name].shape) != tuple(leaf.shape)
    ]:
      raise ValueError(f'{self.checkpoint.path} holds another encoder: {wrong[:5]}')
    params = {
      name: restoration.place(
        arrays[name], jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=shardings[name])
      )
      for name, leaf in wanted.items()
    }
    finiteness.check(
      params, f'the checkpoint {self.checkpoint.path}', 'Its vectors would mean nothing'
    )
    return traverse_util.unflatten_dict(params, sep='/')


def _dimension(checkpoint: encoder_checkpoint.EncoderCheckpoint, asked: int | None) -> int:
  whole = checkpoint.dimension
  if asked is None:
    return whole
  if not 1 <= asked <= whole:
    raise ValueError(f'--dimension must be from 1 to {whole}, the width of a vector, got {asked}')
  trained = sorted({*checkpoint.matryoshka_dimensions, whole})
  if asked not in trained:
    logger.warning(
      '%s was trained for vectors of %s dimensions, not of %d: those may be worth less',
      *(checkpoint.path, ', '.join(map(str, trained)), asked),
    )
  return asked


def plan(lengths: Sequence[int], rows: int, limit: int) -> Iterator[tuple[int, list[int]]]:
  """(width, places) of each batch: texts of one width, the widest first, at most `rows` each.

  Args:
    lengths: of the texts, in tokens.
    rows: of a batch.
    limit: longest text.
  """
  by_width: dict[int, list[int]] = {}
  for place, length in enumerate(lengths):
    by_width.setdefault(model_answers.input_width(length, limit), []).append(place)
  for width in sorted(by_width, reverse=True):
    places = by_width[width]
    for start in range(0, len(places), rows):
      yield width, places[start : start + rows]


def partitioner(
  model_parallel: int = 1, *, shard_weights: bool = False
) -> partitioning.Partitioner:
  """All devices: rows are spread over them, and weights too where that is asked for.

  Args:
    model_parallel: devices that share each matrix.
    shard_weights: each device keeps a part of the weights and gets the rest when it needs it, for
      encoders that do not fit into one device.

  Raises:
    ValueError: the number of devices is no multiple of `model_parallel`.
  """
  if model_parallel < 1 or jax.device_count() % model_parallel:
    raise ValueError(
      f'--model_parallel {model_parallel} does not divide the {jax.device_count()} devices'
    )
  if shard_weights:
    return partitioning.Partitioner(
      {'data': 1, 'fsdp': -1, 'model': model_parallel},
      partitioning.fully_sharded_logical_axis_rules(),
    )
  return partitioning.Partitioner(
    {'data': -1, 'model': model_parallel}, partitioning.standard_logical_axis_rules()
  )

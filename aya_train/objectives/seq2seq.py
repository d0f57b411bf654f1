"""Supervised fine-tuning of an encoder-decoder: cross-entropy of target tokens, and decoding.

Evaluation and inference know it by `predict_batch` and `score_batch` too.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from aya_train import decode_settings, decoding, losses, parameter_tree
from aya_train.data import feature_converters, fingerprints
from aya_train.models import fused_attention, lora, network
from aya_train.objectives import objective

if TYPE_CHECKING:
  import seqio

Array = jax.Array
Batch = Mapping[str, Array]
SCORED_POSITIONS = 4096  # whose logits are in memory at a time, of all rows of a batch
_LONG = 1 << 15  # tokens of an answer that any way of decoding is tried for; nothing is computed
greedy_search = functools.partial(decoding.temperature_sample, temperature=0.0)
PackedFeatures = (
  'encoder_segment_ids',
  'decoder_segment_ids',
  'encoder_positions',
  'decoder_positions',
)


@dataclasses.dataclass(frozen=True, eq=False)
class EncoderDecoderModel(objective.Objective):
  """mT5 with its objective and its way of decoding.

  Attributes:
    module: the network.
    input_vocabulary, output_vocabulary: vocabularies of the two features, of SeqIO or
      with its methods for texts (`shared_vocabulary.TextVocabulary`).
    z_loss, label_smoothing: see `losses.token_losses`.
    loss_normalizing_factor: see `losses.loss_weights`.
    loss_chunk_length: target positions whose logits are in memory at a time; None for all.
    decode_fn: a function of aya_train/decoding.py, with its options bound.
    decoder_start_token_id: what the decoder is fed first when it answers.
    eos_token_id: ends an answer, by default the vocabulary's end of sequence.
    max_new_tokens: most tokens of an answer, its end included, whatever the caller of
      `predict_batch` allows; None: what the caller allows.
  """

  module: network.Transformer
  input_vocabulary: 'seqio.Vocabulary'
  output_vocabulary: 'seqio.Vocabulary'
  z_loss: float = 1e-4
  label_smoothing: float = 0.0
  loss_normalizing_factor: losses.LossNormalizingFactor = None
  loss_chunk_length: int | None = None
  decode_fn: Callable[..., Any] = greedy_search
  decoder_start_token_id: int = 0
  eos_token_id: int | None = None
  max_new_tokens: int | None = None

  def __post_init__(self):
    factor = losses.check_loss_normalizing_factor(self.loss_normalizing_factor)
    object.__setattr__(self, 'loss_normalizing_factor', factor)
    if not 0.0 <= self.label_smoothing < 1.0:
      raise ValueError(f'LABEL_SMOOTHING must be in [0, 1), got {self.label_smoothing!r}')
    if self.z_loss < 0.0:
      raise ValueError(f'Z_LOSS must not be negative, got {self.z_loss!r}')
    for name in ('max_new_tokens', 'loss_chunk_length'):
      if (value := getattr(self, name)) is not None and value < 1:
        raise ValueError(f'{name.upper()} must be None or at least 1, got {value!r}')

  @property
  def feature_converter(self) -> feature_converters.FeatureConverter:  # type: ignore[override]
    return feature_converters.EncDecFeatureConverter()

  @property
  def config(self) -> network.T5Config:
    return self.module.config

  def row_tokens(self, lengths: Mapping[str, int]) -> objective.RowTokens | None:
    """One text on either side; None of other features, which a class with them has to tell."""
    if {*lengths} != {'inputs', 'targets'}:
      return None
    return objective.RowTokens((lengths['inputs'],), (lengths['targets'],), lengths['targets'])

  def on_network(self, config: network.T5Config) -> 'EncoderDecoderModel':
    """With a module of that config."""
    return dataclasses.replace(self, module=self.module.clone(config=config))

  @property
  def adapter(self) -> lora.LoraConfig | None:
    return getattr(self.module, 'lora', None)

  def is_trained(self, name: str) -> bool:
    """Everything, or where there is an adapter that alone."""
    return self.adapter is None or lora.is_adapter(name)

  @property
  def activation_dtype(self) -> Any:
    return self.config.dtype

  @property
  def answer_end(self) -> int:
    """The id that ends an answer."""
    return self.output_vocabulary.eos_id if self.eos_token_id is None else self.eos_token_id

  def check(self, platform: str) -> None:
    """Refuses a vocabulary without rows, and a kernel that the devices do not have."""
    self.check_vocabulary()
    fused_attention.check_platform(self.config.attention_kernel, platform)

  def metadata(self) -> dict[str, Any]:
    """The architecture, the vocabulary, and the adapter if there is one."""
    return {
      'architecture': self.config.architecture(),
      **({} if self.adapter is None else {'adapter': self.adapter.settings()}),
      'vocabulary': fingerprints.of_vocabulary(self.output_vocabulary),
      'vocabulary_file': str(getattr(self.output_vocabulary, 'sentencepiece_model_file', '')),
    }

  def check_vocabulary(self) -> None:
    """Refuses a vocabulary whose ids the embedding has no rows for.

    Raises:
      ValueError: more ids than rows, special ids other than pad 0 and eos 1, or decoding that is to
        keep more ids than there are.
    """
    if (kept := decode_settings.of(self.decode_fn, _LONG).get('topk', 0)) > self.config.vocab_size:
      raise ValueError(
        f'decoding keeps the {kept} most probable ids (topk), and the model has '
        f'{self.config.vocab_size}: give at most that, or 0 for all'
      )
    for side, vocabulary in (('input', self.input_vocabulary), ('output', self.output_vocabulary)):
      objective.check_fits(vocabulary, self.config.vocab_size, f'{side} vocabulary')

  def initial_variables(self, rng: Array) -> Any:
    """Random parameters, boxed with their logical axes (flax.linen.LogicallyPartitioned)."""
    return self.module.initial_variables(rng)

  def weigh(self, batch: Batch) -> tuple[Batch, Array]:
    """See `losses.loss_weights`; the weights are the batch's `decoder_loss_weights`."""
    weights, denominator = losses.loss_weights(self.loss_normalizing_factor, batch)
    return {**batch, 'decoder_loss_weights': weights}, denominator

  def sums(
    self, params: Any, batch: Batch, denominator: Array, dropout_key: Array | None
  ) -> tuple[Array, objective.Sums]:
    """The loss, and what is counted of the tokens.

    Returns:
      The normalised loss, float32 [], and sums, each float32 []: the loss's z-loss part,
      unnormalised cross-entropy over weighted tokens, numbers of correct and of weighted target
      tokens, of non-padding and of all tokens on either side, and of examples (packed ones
      counted).
    """
    weights = batch['decoder_loss_weights']
    counted = (weights > 0).astype(jnp.float32)
    loss, token = self._weighted_loss(params, batch, weights / denominator, dropout_key)
    sides = (batch['encoder_input_tokens'], batch['decoder_target_tokens'])
    segments = batch.get('decoder_segment_ids', jnp.max(sides[1], axis=1, keepdims=True) > 0)
    return loss, {
      'z_loss': jnp.sum(token.z_loss * weights) / denominator,
      'cross_entropy': jnp.sum((token.cross_entropy - token.z_loss) * counted),
      'correct': jnp.sum(token.correct * counted),
      'target_tokens': jnp.sum(counted),
      'real_tokens': sum(jnp.sum(x > 0, dtype=jnp.float32) for x in sides),
      'all_tokens': jnp.float32(sum(x.size for x in sides)),
      'examples': jnp.sum(jnp.max(segments.astype(jnp.float32), axis=1)),
    }

  def readable(self, batch: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Each row's ids without the padding, and its `examples`: texts of `inputs` and `targets`."""
    rows = super().readable(batch)
    sides = (
      ('inputs', 'encoder', 'encoder_input_tokens', self.input_vocabulary),
      ('targets', 'decoder', 'decoder_target_tokens', self.output_vocabulary),
    )
    for i, row in enumerate(rows):
      texts: dict[str, list[str]] = {}
      for name, side, tokens, vocabulary in sides:
        ids = batch[tokens][i]
        # Rows that are not packed hold one example, or none.
        segments = batch[f'{side}_segment_ids'][i] if f'{side}_segment_ids' in batch else ids > 0
        count = int(segments.max(initial=0))
        texts[name] = [
          str(vocabulary.decode(ids[segments == k].tolist())) for k in range(1, count + 1)
        ]
      examples = [
        dict(zip(texts, pair, strict=True))
        for pair in itertools.zip_longest(*texts.values(), fillvalue='')
      ]
      rows[i] = {'examples': examples, **row}
    return rows

  def train_summary(self, sums: Mapping[str, Any], seconds: float) -> dict[str, float]:
    """Means over the steps summed, and rates over the seconds they took.

    Returns:
      `loss`, `z_loss`, `grad_norm`, `learning_rate`: means over steps; `accuracy` and
      `loss_per_target_token` (natural logarithm): over weighted target tokens;
      `non_padding_fraction` in [0, 1]; `steps_per_second`, `examples_per_second`,
      `tokens_per_second` (non-padding, both sides), `examples_per_step`.
    """
    s = {name: float(value) for name, value in sums.items()}
    steps = s['steps']
    return {
      **{name: s[name] / steps for name in ('loss', 'z_loss', 'grad_norm', 'learning_rate')},
      **_token_summary(s),
      'steps_per_second': steps / seconds,
      'examples_per_second': s['examples'] / seconds,
      'tokens_per_second': s['real_tokens'] / seconds,
      'examples_per_step': s['examples'] / steps,
    }

  def eval_summary(self, sums: Mapping[str, Any]) -> dict[str, float]:
    """The same of an evaluation: the loss is normalised over the whole data set."""
    s = {name: float(value) for name, value in sums.items()}
    denominator = max(s['denominator'], 1e-30)
    return {
      'loss': s['loss'] / denominator,
      'z_loss': s['z_loss'] / denominator,
      **_token_summary(s),
      'examples': s['examples'],
    }

  def train_line(self, summary: Mapping[str, float]) -> str:
    return (
      f'loss {summary["loss"]:.4f}  per token {summary["loss_per_target_token"]:.4f}'
      f'  accuracy {100 * summary["accuracy"]:.1f} %  {summary["tokens_per_second"]:.0f} tokens/s'
      f'  {summary["examples_per_second"]:.0f} examples/s'
      f'  packed {100 * summary["non_padding_fraction"]:.0f} %'
    )

  def eval_line(self, summary: Mapping[str, float]) -> str:
    return (
      f'loss {summary["loss_per_target_token"]:.4f} per token, '
      f'accuracy {100 * summary["accuracy"]:.1f} %'
    )

  def _weighted_loss(
    self, params: Any, batch: Batch, weights: Array, dropout_key: Array | None
  ) -> tuple[Array, losses.TokenLosses]:
    if self.adapter is not None:
      token = self.token_losses(params, batch, dropout_key=dropout_key)
      return jnp.sum(token.cross_entropy * weights), token
    return losses.weighted_loss(
      self._features(params, batch, dropout_key),
      self.module.apply({'params': params}, method='head_kernel'),
      batch['decoder_target_tokens'],
      weights,
      self.loss_chunk_length,
      product=network.head_product,
      **self._loss_options(),
    )

  def token_losses(
    self, params: Any, batch: Batch, *, dropout_key: Array | None
  ) -> losses.TokenLosses:
    """Cross-entropy of each target token [B, T]; dropout only where a key is given."""
    features = self._features(params, batch, dropout_key)
    targets, chunk = batch['decoder_target_tokens'], self.loss_chunk_length

    def head(x: Array) -> Array:
      return self.module.apply({'params': params}, x, method='logits')

    if chunk is None:
      return losses.token_losses(head(features), targets, **self._loss_options())
    return losses.chunked_token_losses(head, features, targets, chunk, **self._loss_options())

  def _features(self, params: Any, batch: Batch, dropout_key: Array | None) -> Array:
    return self.module.apply(
      {'params': params},
      batch['encoder_input_tokens'],
      batch['decoder_input_tokens'],
      batch['decoder_target_tokens'],
      **{name: batch[name] for name in PackedFeatures if name in batch},
      enable_dropout=dropout_key is not None,
      rngs=None if dropout_key is None else {'dropout': dropout_key},
      method='features',
    )

  def _loss_options(self) -> dict[str, Any]:
    return {'label_smoothing': self.label_smoothing, 'z_loss': self.z_loss}

  def score_batch(self, params: Any, batch: Batch) -> Array:
    """Log-likelihood of each row's targets, float32 [B]: the sum over its weighted tokens."""
    logits = self.module.apply(
      {'params': params},
      batch['encoder_input_tokens'],
      batch['decoder_input_tokens'],
      batch['decoder_target_tokens'],
      enable_dropout=False,
    )
    token_scores = -losses.token_losses(logits, batch['decoder_target_tokens']).cross_entropy
    weights, _ = losses.loss_weights(None, batch)
    return jnp.sum(token_scores * weights, axis=-1)

  def score_options(self, params: Any, batch: Batch, *, num_options: int) -> Array:
    """Log-likelihood of each of several targets of one input, whose encoder runs once.

    The targets of a row are packed: each is a segment of the decoder's row, which sees itself and
    the whole input. The logits of a part of the positions alone are in memory at a time.

    Args:
      params: parameters.
      batch: encoder_input_tokens int32 [B, S]; decoder_input_tokens, decoder_target_tokens and
        decoder_segment_ids int32 [B, T], the segments numbered from 1, 0 for padding.
      num_options: N, the most targets of a row.

    Returns:
      float32 [B, N]: sums over the tokens of each target, 0 for what a row has not.
    """
    segments, targets = batch['decoder_segment_ids'], batch['decoder_target_tokens']
    features = self.module.apply(
      {'params': params},
      batch['encoder_input_tokens'],
      batch['decoder_input_tokens'],
      targets,
      decoder_segment_ids=segments,
      enable_dropout=False,
      method='features',
    )

    def log_likelihoods(part: tuple[Array, Array]) -> Array:
      logits = self.module.apply({'params': params}, part[0], method='logits')
      chosen = jnp.take_along_axis(logits, part[1][..., None], axis=-1)[..., 0]
      return chosen - jax.scipy.special.logsumexp(logits, axis=-1)

    size, length = targets.shape
    chunk = math.gcd(length, 1 << max(0, (SCORED_POSITIONS // size).bit_length() - 1))
    parts = (
      jnp.moveaxis(x.reshape(size, length // chunk, chunk, *x.shape[2:]), 1, 0)
      for x in (features, targets)
    )
    scores = jnp.moveaxis(jax.lax.map(log_likelihoods, tuple(parts)), 0, 1).reshape(size, length)
    of_option = segments[..., None] == jnp.arange(1, num_options + 1)[None, None]
    return jnp.sum(jnp.where(of_option, scores[..., None], 0.0), axis=1)

  def predict_batch(
    self,
    params: Any,
    batch: Batch,
    rng: Array | None = None,
    row_ids: Array | None = None,
    *,
    max_decode_length: int,
    decode_fn: Callable[..., Any] | None = None,
  ) -> tuple[Array, Array]:
    """Decodes with a key-value cache.

    Args:
      params: parameters.
      batch: encoder_input_tokens int32 [B, S], not packed.
      rng: key for sampling; greedy and beam search need none.
      row_ids: int32 [B], what makes the draws of each row its own; by default its place.
      max_decode_length: most tokens generated, end of sequence included, unless the model's
        `max_new_tokens` says.
      decode_fn: overrides the model's own.

    Returns:
      int32 tokens [B, N, max_decode_length], best first, 0 after the end of sequence, and their
      scores [B, N], where N is the number of decodes (or beams) asked for.
    """
    decode_fn = decode_fn or self.decode_fn
    max_decode_length = self.max_new_tokens or max_decode_length
    inputs = batch['encoder_input_tokens']
    variables = {'params': params}
    encoded = self.module.apply(variables, inputs, enable_dropout=False, method='encode')
    _, state = self.module.apply(
      variables, encoded, max_decode_length, method='init_cache', mutable=['cache']
    )

    # Beams and samples widen the batch and are reordered; what they read of the inputs is not.
    own_cache, encoder_cache = network.split_cache(state['cache'])
    next_token = _NextToken(self.module, params, inputs, encoder_cache, max_decode_length)

    # A decode function of the user's own need not know of it.
    start = (
      {'decoder_start_token_id': self.decoder_start_token_id} if self.decoder_start_token_id else {}
    )
    return decode_fn(
      own_cache,
      next_token,
      max_decode_length=max_decode_length,
      decode_rng=rng,
      row_ids=row_ids,
      cache_offset=self.config.cache_offset,
      eos_id=self.answer_end,
      **start,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _NextToken:
  """The decoder on a batch of inputs: a decode function's `tokens_to_logits`."""

  module: network.Transformer
  params: Any
  inputs: Array
  encoder_cache: Any
  max_decode_length: int

  def __call__(
    self, tokens_N1: Array, position: Array, cache: Mapping[str, Any]
  ) -> tuple[Array, Any]:
    logits, new = self.module.apply(
      {'params': self.params, 'cache': parameter_tree.merged(cache, self.encoder_cache)},
      tokens_N1,
      position,
      self.inputs,
      self.max_decode_length,
      method='decode_step',
      mutable=['cache'],
    )
    return logits[:, 0], network.split_cache(new['cache'])[0]

  def narrowed(self, take: Callable[[Array, int], Array]) -> '_NextToken':
    """See `row_compaction.Narrowable`."""
    offset = self.module.config.cache_offset
    return dataclasses.replace(
      self,
      inputs=take(self.inputs, 0),
      encoder_cache=jax.tree.map(lambda x: take(x, offset), self.encoder_cache),
    )


def _token_summary(s: Mapping[str, float]) -> dict[str, float]:
  tokens = max(s['target_tokens'], 1.0)
  return {
    'accuracy': s['correct'] / tokens,
    'loss_per_target_token': s['cross_entropy'] / tokens,
    'non_padding_fraction': s['real_tokens'] / s['all_tokens'],
  }

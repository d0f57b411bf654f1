"""Several answers to each prompt of a batch: the network on them, sums over each answer's tokens.

Letters: B rows, K answers to each prompt, T decoder positions, D features, N places for pairs in a
row: 1, or if packed 2 T.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from aya_train.models import network

if TYPE_CHECKING:
  import seqio

Array = jax.Array
Batch = Mapping[str, Array]


def decoder_features(
  module: network.Transformer,
  params: Any,
  batch: Batch,
  words: Array,
  targets: Array,
  of_targets: Array | None,
) -> Array:
  """What the logits are made of, [B K, T, D], without dropout; the encoder runs once a prompt.

  Args:
    module: the network.
    params: its parameters.
    batch: encoder_input_tokens and, if packed, encoder_segment_ids int32 [B, S].
    words, targets, of_targets: int32 [B, K, T]: decoder inputs, targets and, if packed, segments.
  """
  variables = {'params': params}
  inputs, segments = batch['encoder_input_tokens'], batch.get('encoder_segment_ids')
  encoded = module.apply(variables, inputs, segments, enable_dropout=False, method='encode')

  def each(x: Array | None) -> Array | None:
    # The answers of a row stay beside each other, so on the device of their prompt.
    return None if x is None else jnp.repeat(x, targets.shape[1], axis=0)

  def flat(x: Array | None) -> Any:
    return None if x is None else x.reshape(-1, x.shape[-1])

  return module.apply(
    variables,
    each(encoded),
    each(inputs),
    flat(words),
    flat(targets),
    each(segments),
    flat(of_targets),
    enable_dropout=False,
    method='decode_features',
  )


def places(batch: Batch) -> int:
  """N, the most pairs of a row."""
  packed = 'decoder_segment_ids' in batch
  return 2 * batch['decoder_target_tokens'].shape[2] if packed else 1


def lengths(batch: Batch) -> Array:
  """Tokens of each answer, float32 [B, 2, N]."""
  real = (batch['decoder_target_tokens'] > 0).astype(jnp.float32)
  return per_answer(real, batch.get('decoder_segment_ids'), places(batch))


def per_answer(values: Array, segments: Array | None, places: int) -> Array:
  """Sums of values [B, K, T] over the tokens of each answer, float32 [B, K, N]."""
  if segments is None:
    return jnp.sum(values, axis=-1, keepdims=True)

  def one(values: Array, segments: Array) -> Array:
    return jax.ops.segment_sum(values, segments, num_segments=places + 1)[1:]

  return jax.vmap(jax.vmap(one))(values, segments)


def heads(tokens: Array, shorter: Array, batch: Batch) -> Array:
  """Tokens' values [B, 2, T] up to the length of the pair's shorter answer [B, 1, N], then 0."""
  targets = batch['decoder_target_tokens']
  at = jnp.broadcast_to(jnp.arange(targets.shape[2]), targets.shape)
  segments = batch.get('decoder_segment_ids')
  if segments is None:
    return jnp.where(at < shorter, tokens, 0.0)
  starts = jax.lax.cummax(jnp.where(segments != jnp.roll(segments, 1, axis=2), at, 0), axis=2)
  limits = jnp.pad(jnp.broadcast_to(shorter, (shorter.shape[0], 2, shorter.shape[2])), _ONE_BEFORE)
  limit = jnp.take_along_axis(limits, segments, axis=2)
  return jnp.where(at - starts < limit, tokens, 0.0)


_ONE_BEFORE = ((0, 0), (0, 0), (1, 0))  # segment 0 is padding


def readable(
  batch: Mapping[str, np.ndarray],
  input_vocabulary: 'seqio.Vocabulary',
  output_vocabulary: 'seqio.Vocabulary',
) -> list[dict[str, Any]]:
  """Each row's `examples`: texts of `inputs`, `chosen` and `rejected`."""
  inputs, targets = batch['encoder_input_tokens'], batch['decoder_target_tokens']
  of_inputs = batch.get('encoder_segment_ids', (inputs > 0).astype(np.int32))
  of_targets = batch.get('decoder_segment_ids', (targets > 0).astype(np.int32))
  rows = []
  for i in range(len(inputs)):
    sides = (
      ('inputs', input_vocabulary, inputs[i], of_inputs[i]),
      ('chosen', output_vocabulary, targets[i, 0], of_targets[i, 0]),
      ('rejected', output_vocabulary, targets[i, 1], of_targets[i, 1]),
    )
    count = int(max(segments.max(initial=0) for *_, segments in sides))
    examples = [
      {name: str(words.decode(ids[at == k].tolist())) for name, words, ids, at in sides}
      for k in range(1, count + 1)
    ]
    rows.append({'examples': examples})
  return rows

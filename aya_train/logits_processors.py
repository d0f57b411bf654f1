"""What is taken from or forbidden to the next token: minimum length, repetitions, n-grams.

Pure functions of float logits [N, V] (or log-probabilities: beams), each with the meaning and the
name that transformers' `generate` gives it, in its order. What was fed to the decoder counts as
said, its start token too. A setting that is off leaves no trace in a compiled program.

Shape letters: N rows, V vocabulary, H history: the start token and room for every token of an
answer; W windows of n tokens in the history.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax


@dataclasses.dataclass(frozen=True)
class Processors:
  """Settings of one decoding.

  Attributes:
    min_new_tokens: no answer ends with fewer tokens before its end.
    repetition_penalty: logits of what was said are divided by it where positive, multiplied where
      negative; 1 is off, more is against repetitions [Keskar et al. 2019].
    no_repeat_ngram_size: no n tokens come twice in a row; 0 is off.
  """

  min_new_tokens: int = 0
  repetition_penalty: float = 1.0
  no_repeat_ngram_size: int = 0

  def check(self, max_decode_length: int) -> None:
    """Refuses settings out of range.

    Raises:
      ValueError: with the setting's name.
    """
    if not 0 <= self.min_new_tokens < max_decode_length:
      raise ValueError(
        f'min_new_tokens must be at least 0 and less than the {max_decode_length} tokens that an '
        f'answer may have, its end included; got {self.min_new_tokens}'
      )
    if not 0 < self.repetition_penalty < float('inf'):
      raise ValueError(
        f'repetition_penalty must be greater than 0 (1 is off), got {self.repetition_penalty}'
      )
    if self.no_repeat_ngram_size < 0:
      raise ValueError(
        f'no_repeat_ngram_size must be at least 0 (off), got {self.no_repeat_ngram_size}'
      )

  @property
  def off(self) -> bool:
    return self == Processors()

  def apply(
    self,
    logits_NV: jax.Array,
    tokens: jax.Array,
    position: jax.Array,
    *,
    start_id: int,
    eos_id: int,
  ) -> jax.Array:
    """Logits [N, V] of the next token as these settings change them.

    Args:
      logits_NV: float logits, or log-probabilities.
      tokens: int32 [N, L] or [B, K, L], answers so far; what stands from `position` on is not
        looked at.
      position: int32 [], tokens of each answer so far.
      start_id: what the decoder was fed first.
      eos_id: ends an answer.
    """
    history_NH = None
    if self.repetition_penalty != 1 or self.no_repeat_ngram_size:
      tokens_NL = tokens.reshape(len(logits_NV), -1)
      start_N1 = jnp.full_like(tokens_NL[:, :1], start_id)
      history_NH = jnp.concatenate([start_N1, tokens_NL], axis=1)
    if history_NH is not None and self.repetition_penalty != 1:
      logits_NV = penalise_repetitions(logits_NV, history_NH, position + 1, self.repetition_penalty)
    if history_NH is not None and self.no_repeat_ngram_size:
      logits_NV = forbid_ngrams(logits_NV, history_NH, position + 1, self.no_repeat_ngram_size)
    if self.min_new_tokens:
      end_N = jnp.where(position < self.min_new_tokens, -jnp.inf, logits_NV[:, eos_id])
      logits_NV = logits_NV.at[:, eos_id].set(end_N)
    return logits_NV


def penalise_repetitions(
  logits_NV: jax.Array, history_NH: jax.Array, length: jax.Array, penalty: float
) -> jax.Array:
  """Logits with those of the first `length` tokens of each history made less probable, once each.

  Args:
    length: int32 [], at least 1.
    penalty: greater than 0.
  """
  # Places that hold nothing yet stand for the first token: each token is written equally each time.
  said_NH = jnp.where(jnp.arange(history_NH.shape[1])[None] < length, history_NH, history_NH[:, :1])
  found_NH = jnp.take_along_axis(logits_NV, said_NH, axis=1)
  changed_NH = jnp.where(found_NH < 0, found_NH * penalty, found_NH / penalty)
  return jnp.put_along_axis(logits_NV, said_NH, changed_NH, axis=1, inplace=False)


def forbid_ngrams(
  logits_NV: jax.Array, history_NH: jax.Array, length: jax.Array, size: int
) -> jax.Array:
  """Logits with -inf at what would end a sequence of `size` tokens that each history has already.

  Args:
    length: int32 [], tokens of each history that count.
    size: at least 1. Static.
  """
  vocabulary, windows = logits_NV.shape[1], history_NH.shape[1] - size + 1
  if windows < 1:
    return logits_NV
  matches_NW = jnp.broadcast_to(jnp.arange(windows) + size <= length, (len(history_NH), windows))
  for j in range(size - 1):
    # The last tokens said, size - 1 of them.
    last_N1 = lax.dynamic_slice_in_dim(history_NH, length - size + 1 + j, 1, axis=1)
    matches_NW &= history_NH[:, j : j + windows] == last_N1
  ends_NW = jnp.where(matches_NW, history_NH[:, size - 1 :], vocabulary)
  rows_N1 = jnp.arange(len(logits_NV))[:, None]
  return logits_NV.at[rows_N1, ends_NW].set(-jnp.inf, mode='drop')

"""Beam search as transformers' `generate` does it, answer for answer.

It differs from `decoding.beam_search` where transformers does from [Wu et al. 2016]: a step looks
at twice as many extensions as there are beams, so that as many as there are beams stay alive;
scores are divided by length ** length_penalty; at the last token the live sequences count as
finished, cut as they are; and it stops by a guess at what longer sequences could reach, see
`early_stopping`. What is decided of a row depends on that row alone.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from aya_train import decode_rows, decode_settings, decoding, logits_processors, row_compaction

_NEVER = -1.0e9  # transformers' own: sums with it round as there


def hf_beam_search(
  cache: decode_rows.Cache,
  tokens_to_logits: decode_rows.TokensToLogits,
  *,
  max_decode_length: int,
  decode_rng: jax.Array | None = None,
  row_ids: jax.Array | None = None,
  num_decodes: int = 4,
  length_penalty: float = 1.0,
  early_stopping: bool | Literal['never'] = False,
  min_new_tokens: int = 0,
  repetition_penalty: float = 1.0,
  no_repeat_ngram_size: int = 0,
  cache_offset: int = 0,
  eos_id: int = 1,
  pad_id: int = 0,
  decoder_start_token_id: int = 0,
) -> tuple[jax.Array, jax.Array]:
  """Finds `num_decodes` sequences of every row: `generate(num_beams=num_decodes)`.

  Args:
    num_decodes: transformers' `num_beams`; 1 is greedy decoding. Static.
    length_penalty: scores are log-probabilities / length ** length_penalty; length counts the
      tokens generated, end token included. Static.
    early_stopping: True stops a row at num_decodes finished sequences; False when the best live
      one, as long as it is now, is no better than the worst finished; 'never' when it could not
      become better at full length. Static.
    cache, tokens_to_logits, decode_rng and the others: as for `decoding.beam_search`.

  Returns:
    tokens: int32 [B, K, L], best first; the end token is included, everything after it is
      `pad_id`. Sequences cut at L have no end token.
    scores: float32 [B, K], descending.

  Raises:
    ValueError: an argument is out of range, or the cache or the logits have the wrong shape.
  """
  del decode_rng, row_ids
  if num_decodes == 1:  # there, too, a beam of 1 is greedy, and penalties change its logits
    return decoding.temperature_sample(
      cache,
      tokens_to_logits,
      max_decode_length=max_decode_length,
      temperature=0.0,
      min_new_tokens=min_new_tokens,
      repetition_penalty=repetition_penalty,
      no_repeat_ngram_size=no_repeat_ngram_size,
      cache_offset=cache_offset,
      eos_id=eos_id,
      pad_id=pad_id,
      decoder_start_token_id=decoder_start_token_id,
    )
  decode_rows.check_lengths(max_decode_length, num_decodes)
  if not abs(length_penalty) < float('inf'):
    raise ValueError(f'hf_beam_search: length_penalty must be finite, got {length_penalty}')
  if early_stopping not in (True, False, 'never'):
    raise ValueError(
      f"hf_beam_search: early_stopping must be True, False or 'never', got {early_stopping!r}"
    )
  processors = logits_processors.Processors(
    min_new_tokens, repetition_penalty, no_repeat_ngram_size
  )
  processors.check(max_decode_length)
  decode_settings.note(
    'hf_beam_search',
    num_decodes=num_decodes,
    length_penalty=length_penalty,
    early_stopping=early_stopping,
    processors=processors,
  )
  batch, beams = decode_rows.batch_size(cache, cache_offset), num_decodes
  lengths = np.arange(max_decode_length + 1, dtype=np.float64)
  with np.errstate(divide='ignore'):
    penalties = jnp.asarray(lengths**length_penalty, jnp.float32)

  def step(model: decode_rows.TokensToLogits, state: _State) -> _State:
    last_N = state.last_BK.reshape(-1)
    logits_NV, cache = decode_rows.next_logits(model, last_N, state.position, state.cache)
    logprobs_NV = processors.apply(
      jax.nn.log_softmax(logits_NV),
      state.live_tokens_BKL,
      state.position,
      start_id=decoder_start_token_id,
      eos_id=eos_id,
    )
    logprobs_BC, from_BC, tokens_BC = _best_extensions(
      state.live_scores_BK, logprobs_NV.reshape(-1, beams, logprobs_NV.shape[-1])
    )
    length = state.position + 1
    tokens_BCL = decode_rows.gather(state.live_tokens_BKL, from_BC)
    tokens_BCL = tokens_BCL.at[:, :, state.position].set(tokens_BC)
    stops_BC = (tokens_BC == eos_id) | (length == max_decode_length)

    live_BC = logprobs_BC + jnp.where(stops_BC, _NEVER, 0.0)
    live_scores_BK, index_BK = lax.top_k(live_BC, beams)

    # Of the finished ones those count alone that are among the best, as many as there are beams.
    ends_BC = stops_BC & (jnp.arange(stops_BC.shape[1])[None] < beams)
    scores_BC = logprobs_BC / penalties[length] + jnp.where(ends_BC, 0.0, _NEVER)
    if early_stopping is True:
      full_B1 = jnp.all(state.is_finished_BK, axis=1, keepdims=True)
      scores_BC += jnp.where(full_B1, _NEVER, 0.0)
    all_scores = jnp.concatenate([state.scores_BK, scores_BC], axis=1)
    scores_BK, kept_BK = lax.top_k(all_scores, beams)
    finished_BC = jnp.concatenate([state.is_finished_BK, ends_BC], axis=1)
    is_finished_BK = jnp.take_along_axis(finished_BC, kept_BK, axis=1)
    finished_BKL = decode_rows.gather(
      jnp.concatenate([state.tokens_BKL, tokens_BCL], axis=1), kept_BK
    )

    # A row that is settled keeps what it has.
    open_B1 = state.is_open_B[:, None]
    scores_BK = jnp.where(open_B1, scores_BK, state.scores_BK)
    is_finished_BK = jnp.where(open_B1, is_finished_BK, state.is_finished_BK)
    finished_BKL = jnp.where(open_B1[:, :, None], finished_BKL, state.tokens_BKL)

    reach = penalties[max_decode_length if _hopes(early_stopping, length_penalty) else length]
    worst_BK = jnp.where(is_finished_BK, jnp.min(scores_BK, axis=1, keepdims=True), _NEVER)
    improves_B = jnp.any(live_scores_BK[:, :1] / reach > worst_BK, axis=1)
    is_open_B = state.is_open_B & improves_B & ~jnp.all(stops_BC, axis=1)
    if early_stopping is True:
      is_open_B &= ~jnp.all(is_finished_BK, axis=1)
    beams_BK = jnp.take_along_axis(from_BC, index_BK, axis=1)
    return _State(
      position=length,
      last_BK=jnp.take_along_axis(tokens_BC, index_BK, axis=1),
      live_tokens_BKL=decode_rows.gather(tokens_BCL, index_BK),
      live_scores_BK=live_scores_BK,
      tokens_BKL=finished_BKL,
      scores_BK=scores_BK,
      is_finished_BK=is_finished_BK,
      is_open_B=is_open_B,
      cache=decode_rows.gather_cache(cache, beams_BK, cache_offset),
    )

  shape = (batch, beams)
  nothing_BKL = jnp.full((*shape, max_decode_length), pad_id, jnp.int32)
  final = row_compaction.run(
    tokens_to_logits,
    _State(
      position=jnp.int32(0),
      last_BK=jnp.full(shape, decoder_start_token_id, jnp.int32),
      live_tokens_BKL=nothing_BKL,
      # All beams hold the same empty sequence; only the first may be extended.
      live_scores_BK=jnp.full(shape, _NEVER, jnp.float32).at[:, 0].set(0.0),
      tokens_BKL=nothing_BKL,
      scores_BK=jnp.full(shape, _NEVER, jnp.float32),
      is_finished_BK=jnp.zeros(shape, bool),
      is_open_B=jnp.ones((batch,), bool),
      cache=decode_rows.expand_cache(cache, beams, cache_offset),
    ),
    step=step,
    is_open=lambda state: (state.position < max_decode_length) & state.is_open_B,
    results=('tokens_BKL', 'scores_BK'),
    batch=batch,
    cache_offset=cache_offset,
  )
  return final.tokens_BKL, final.scores_BK


class _State(NamedTuple):
  position: jax.Array
  last_BK: jax.Array
  live_tokens_BKL: jax.Array
  live_scores_BK: jax.Array
  tokens_BKL: jax.Array
  scores_BK: jax.Array
  is_finished_BK: jax.Array
  is_open_B: jax.Array
  cache: decode_rows.Cache


def _hopes(early_stopping: bool | str, length_penalty: float) -> bool:
  return early_stopping == 'never' and length_penalty > 0


def _best_extensions(
  live_scores_BK: jax.Array, logprobs_BKV: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Scores, beam indices and tokens, each [B, C], of the C = 2 K best extensions of a row."""
  batch, beams, vocabulary = logprobs_BKV.shape
  wanted = min(2 * beams, beams * vocabulary)
  # The best of all lie among the best of each beam: V is large, sorting K * V is slow.
  best_BKC, token_BKC = lax.top_k(logprobs_BKV, min(wanted, vocabulary))
  best_BKC = best_BKC + live_scores_BK[:, :, None]
  scores_BC, index_BC = lax.top_k(best_BKC.reshape(batch, -1), wanted)
  tokens_BC = jnp.take_along_axis(token_BKC.reshape(batch, -1), index_BC, axis=1)
  return scores_BC, index_BC // best_BKC.shape[-1], tokens_BC.astype(jnp.int32)

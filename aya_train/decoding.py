"""Decoding over a key/value cache: temperature sampling (greedy at 0) and beam search.

Both functions are pure, can be jitted, and share their first arguments, so either can be bound as
the decode function of a model; parameter names are those of t5x/decoding.py where they mean the
same. The model is a function

  tokens_to_logits(tokens_N1, position, cache) -> (logits_NV, cache)

called with int32 tokens [N, 1] and an int32 scalar position 0, 1, ...; it returns float logits
[N, V] for the token that follows and the updated cache, of unchanged structure, shapes and dtypes.

The cache given to a decode function has B rows, on axis `cache_offset` of every leaf (1 when layers
are scanned, else 0). The cache the model sees has N = B * num_decodes rows: row b, decode k lies at
b * num_decodes + k. Arrays the model closes over need that layout: `flat_batch_beam_expand`.

Shape letters: B batch rows, K decodes or beams of a row, N = B * K, L length, V vocabulary,
C candidates in descending order, X any other axes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from aya_train import decode_rows, decode_settings, logits_processors, row_compaction

Cache = decode_rows.Cache
TokensToLogits = decode_rows.TokensToLogits
flat_batch_beam_expand = decode_rows.flat_batch_beam_expand
# Lower temperatures are greedy, as in T5X: logits divided by them would overflow.
MIN_TEMPERATURE = 1e-4


def temperature_sample(
  cache: Cache,
  tokens_to_logits: TokensToLogits,
  *,
  max_decode_length: int,
  decode_rng: jax.Array | None = None,
  row_ids: jax.Array | None = None,
  num_decodes: int = 1,
  temperature: float = 1.0,
  topk: int = 0,
  topp: float = 1.0,
  min_new_tokens: int = 0,
  repetition_penalty: float = 1.0,
  no_repeat_ngram_size: int = 0,
  cache_offset: int = 0,
  eos_id: int = 1,
  pad_id: int = 0,
  decoder_start_token_id: int = 0,
) -> tuple[jax.Array, jax.Array]:
  """Draws `num_decodes` sequences for every row, token by token.

  The distribution of a token is softmax(logits / temperature), cut to the `topk` most probable
  tokens and renormalised, then cut to the fewest most probable tokens whose mass is at least
  `topp`. Among equally probable tokens the lower id is kept.

  A draw depends on `decode_rng`, the row's id, the index of the decode and the position, never on
  other rows, B or num_decodes (given a threefry key, which is JAX's default).

  Args:
    cache: pytree with B rows on axis `cache_offset` of every leaf.
    tokens_to_logits: the model, see the module.
    max_decode_length: number of tokens L after which a sequence is cut. Static.
    decode_rng: PRNG key; may be None only when decoding is greedy.
    row_ids: int32 [B], by default 0 .. B-1. Pass the index of each example in the data set to get
      the same draws whatever the batch size.
    num_decodes: sequences per row, K. Static.
    temperature: 0, or less than MIN_TEMPERATURE, takes the most probable token (greedy; topk and
      topp have no effect). Static.
    topk: number of tokens kept, 0 keeps all. Static.
    topp: probability mass kept, 1 keeps all. Static.
    min_new_tokens, repetition_penalty, no_repeat_ngram_size: see `logits_processors.Processors`;
      they change the logits before temperature, topk and topp. Static.
    cache_offset: axis of the rows in every cache leaf.
    eos_id: token that ends a sequence.
    pad_id: token that fills the places after the end.
    decoder_start_token_id: token fed at position 0; not returned.

  Returns:
    tokens: int32 [B, K, L], in the order drawn, unsorted; the end token is included, and
      everything after it is `pad_id`.
    scores: float32 [B, K], sum of the log-probabilities of the drawn tokens, end token included,
      under softmax(logits): temperature, topk, topp and penalties do not enter (T5X's
      rescale_log_probs=False).

  Raises:
    ValueError: an argument is out of range, or the cache or the logits have the wrong shape.
  """
  decode_rows.check_lengths(max_decode_length, num_decodes)
  _check_sampling(temperature, topk, topp, decode_rng)
  processors = logits_processors.Processors(
    min_new_tokens, repetition_penalty, no_repeat_ngram_size
  )
  processors.check(max_decode_length)
  decode_settings.note(
    'temperature_sample',
    draws=temperature >= MIN_TEMPERATURE,
    num_decodes=num_decodes,
    temperature=temperature,
    topk=topk,
    topp=topp,
    processors=processors,
  )
  batch = decode_rows.batch_size(cache, cache_offset)
  rows = batch * num_decodes
  if temperature < MIN_TEMPERATURE:
    decode_rng = None  # greedy
  keys_N = None if decode_rng is None else _row_keys(decode_rng, row_ids, batch, num_decodes)

  def is_open(state: _SampleState) -> jax.Array:
    ended_BK = state.ended_N.reshape(-1, num_decodes)
    return (state.position < max_decode_length) & ~jnp.all(ended_BK, axis=1)

  def step(model: TokensToLogits, state: _SampleState) -> _SampleState:
    logits_NV, cache = decode_rows.next_logits(model, state.last_N, state.position, state.cache)
    wanted_NV = processors.apply(
      logits_NV,
      state.tokens_NL,
      state.position,
      start_id=decoder_start_token_id,
      eos_id=eos_id,
    )
    if state.keys_N is None:
      drawn_N = _most_probable(wanted_NV)
    else:
      keys_N = _at_position(state.keys_N, state.position)
      drawn_N = _draw(keys_N, wanted_NV, temperature, topk, topp)
    chosen_N = jnp.take_along_axis(logits_NV, drawn_N[:, None], axis=-1)[:, 0]
    logprobs_N = chosen_N - jax.scipy.special.logsumexp(logits_NV, axis=-1)
    token_N = jnp.where(state.ended_N, pad_id, drawn_N)
    return _SampleState(
      position=state.position + 1,
      last_N=token_N,
      tokens_NL=state.tokens_NL.at[:, state.position].set(token_N),
      scores_N=state.scores_N + jnp.where(state.ended_N, 0.0, logprobs_N),
      ended_N=state.ended_N | (drawn_N == eos_id),
      keys_N=state.keys_N,
      cache=cache,
    )

  final = row_compaction.run(
    tokens_to_logits,
    _SampleState(
      position=jnp.int32(0),
      last_N=jnp.full((rows,), decoder_start_token_id, jnp.int32),
      tokens_NL=jnp.full((rows, max_decode_length), pad_id, jnp.int32),
      scores_N=jnp.zeros((rows,), jnp.float32),
      ended_N=jnp.zeros((rows,), bool),
      keys_N=keys_N,
      cache=decode_rows.expand_cache(cache, num_decodes, cache_offset),
    ),
    step=step,
    is_open=is_open,
    results=('tokens_NL', 'scores_N'),
    batch=batch,
    cache_offset=cache_offset,
  )
  tokens_BKL = final.tokens_NL.reshape(batch, num_decodes, max_decode_length)
  return tokens_BKL, final.scores_N.reshape(batch, num_decodes)


def beam_search(
  cache: Cache,
  tokens_to_logits: TokensToLogits,
  *,
  max_decode_length: int,
  decode_rng: jax.Array | None = None,
  row_ids: jax.Array | None = None,
  num_decodes: int = 4,
  alpha: float = 0.6,
  min_new_tokens: int = 0,
  repetition_penalty: float = 1.0,
  no_repeat_ngram_size: int = 0,
  cache_offset: int = 0,
  eos_id: int = 1,
  pad_id: int = 0,
  decoder_start_token_id: int = 0,
) -> tuple[jax.Array, jax.Array]:
  """Finds `num_decodes` sequences of high length-normalised probability for every row.

  At each step the `num_decodes` most probable one-token extensions of the live sequences are kept.
  Those that end in `eos_id` leave the beam and join the finished ones, of which the best
  `num_decodes` stay; the others are the next live sequences. Hence a beam of 1 is greedy decoding
  for every alpha. (T5X fills the beam from 2 * num_decodes extensions instead, so its beam of 1
  can differ from greedy decoding.)

  score = sum of log-probabilities / ((5 + length) / 6) ** alpha  [Wu et al. 2016, eq. 14]
  Length counts the tokens generated, end token included, as in T5X.

  Decoding stops at max_decode_length, or when nothing can change the result: in every row the worst
  of num_decodes finished scores is at least the score the best live sequence would have if it grew
  to max_decode_length at no cost in probability (or no live sequence is left).

  Args:
    decode_rng, row_ids: ignored, beam search draws nothing; taken as `temperature_sample` does.
    num_decodes: beam size K, also the number of sequences returned per row. Static.
    alpha: length penalty; 0 ranks by probability, larger values favour longer sequences. Static.
    min_new_tokens, repetition_penalty, no_repeat_ngram_size: see `logits_processors.Processors`;
      they change the log-probabilities, which then add up to no probability any more. Static.
    cache, tokens_to_logits and the others: as for `temperature_sample`.

  Returns:
    tokens: int32 [B, K, L], best first (T5X: best last); the end token is included, and everything
      after it is `pad_id`. As in T5X, sequences cut at L are returned only in rows where none
      ended; they are scored with length L. Places left over hold `pad_id` only.
    scores: float32 [B, K], descending; -inf in places left over.

  Raises:
    ValueError: an argument is out of range, or the cache or the logits have the wrong shape.
  """
  del decode_rng, row_ids
  decode_rows.check_lengths(max_decode_length, num_decodes)
  if not 0 <= alpha < float('inf'):
    raise ValueError(f'beam_search: alpha must be a finite number >= 0, got {alpha}.')
  processors = logits_processors.Processors(
    min_new_tokens, repetition_penalty, no_repeat_ngram_size
  )
  processors.check(max_decode_length)
  decode_settings.note('beam_search', num_decodes=num_decodes, alpha=alpha, processors=processors)
  batch = decode_rows.batch_size(cache, cache_offset)
  full_penalty = brevity_penalty(alpha, max_decode_length)

  def is_open(state: _BeamState) -> jax.Array:
    # Log-probabilities only fall and are divided by the largest penalty there is: an upper bound.
    attainable_B = jnp.max(state.live_logprobs_BK, axis=1) / full_penalty
    settled_B = jnp.min(state.finished_scores_BK, axis=1) >= attainable_B
    return (state.position < max_decode_length) & ~settled_B

  def step(model: TokensToLogits, state: _BeamState) -> _BeamState:
    last_N = state.last_BK.reshape(-1)
    logits_NV, cache = decode_rows.next_logits(model, last_N, state.position, state.cache)
    logprobs_NV = processors.apply(
      jax.nn.log_softmax(logits_NV),
      state.live_tokens_BKL,
      state.position,
      start_id=decoder_start_token_id,
      eos_id=eos_id,
    )
    logprobs_BKV = logprobs_NV.reshape(-1, num_decodes, logprobs_NV.shape[-1])
    logprobs_BK, beams_BK, tokens_BK = _best_extensions(state.live_logprobs_BK, logprobs_BKV)
    tokens_BKL = (
      decode_rows.gather(state.live_tokens_BKL, beams_BK).at[:, :, state.position].set(tokens_BK)
    )
    ended_BK = tokens_BK == eos_id
    scores_BK = logprobs_BK / brevity_penalty(alpha, state.position + 1)
    finished_scores_BK, finished_tokens_BKL = _best_finished(
      jnp.concatenate([state.finished_scores_BK, jnp.where(ended_BK, scores_BK, -jnp.inf)], axis=1),
      jnp.concatenate([state.finished_tokens_BKL, tokens_BKL], axis=1),
      num_decodes,
    )
    return _BeamState(
      position=state.position + 1,
      last_BK=tokens_BK,
      live_tokens_BKL=tokens_BKL,
      live_logprobs_BK=jnp.where(ended_BK, -jnp.inf, logprobs_BK),
      finished_tokens_BKL=finished_tokens_BKL,
      finished_scores_BK=finished_scores_BK,
      cache=decode_rows.gather_cache(cache, beams_BK, cache_offset),
    )

  shape = (batch, num_decodes)
  nothing_BKL = jnp.full((*shape, max_decode_length), pad_id, jnp.int32)
  final = row_compaction.run(
    tokens_to_logits,
    _BeamState(
      position=jnp.int32(0),
      last_BK=jnp.full(shape, decoder_start_token_id, jnp.int32),
      live_tokens_BKL=nothing_BKL,
      # All beams hold the same empty sequence; only the first may be extended.
      live_logprobs_BK=jnp.full(shape, -jnp.inf, jnp.float32).at[:, 0].set(0.0),
      finished_tokens_BKL=nothing_BKL,
      finished_scores_BK=jnp.full(shape, -jnp.inf, jnp.float32),
      cache=decode_rows.expand_cache(cache, num_decodes, cache_offset),
    ),
    step=step,
    is_open=is_open,
    results=(
      'live_tokens_BKL',
      'live_logprobs_BK',
      'finished_tokens_BKL',
      'finished_scores_BK',
    ),
    batch=batch,
    cache_offset=cache_offset,
  )
  return _ended_else_cut(final, full_penalty, pad_id)


def brevity_penalty(alpha: float, length: jax.Array | int) -> jax.Array:
  """((5 + length) / 6) ** alpha, float32, shape of `length` [Wu et al. 2016, section 7, eq. 14]."""
  return jnp.power((5.0 + jnp.asarray(length, jnp.float32)) / 6.0, alpha)


class _SampleState(NamedTuple):
  position: jax.Array
  last_N: jax.Array
  tokens_NL: jax.Array
  scores_N: jax.Array
  ended_N: jax.Array
  keys_N: jax.Array | None
  cache: Cache


class _BeamState(NamedTuple):
  """A slot without a sequence has log-probability or score -inf, and tokens that mean nothing."""

  position: jax.Array
  last_BK: jax.Array
  live_tokens_BKL: jax.Array
  live_logprobs_BK: jax.Array
  finished_tokens_BKL: jax.Array
  finished_scores_BK: jax.Array
  cache: Cache


def _most_probable(logits_NV: jax.Array) -> jax.Array:
  """argmax, int32 [N]; as a maximum and a minimum it is a third of the work on CPUs."""
  largest_N1 = jnp.max(logits_NV, axis=-1, keepdims=True)
  places_NV = lax.broadcasted_iota(jnp.float32, logits_NV.shape, 1)  # exact up to 2**24
  first_N = jnp.min(jnp.where(logits_NV == largest_N1, places_NV, jnp.inf), axis=-1)
  # Where all is NaN nothing is equal to anything: any id will do, as the scores are NaN too.
  return jnp.where(jnp.isfinite(first_N), first_N, 0.0).astype(jnp.int32)


def _draw(
  keys_N: jax.Array, logits_NV: jax.Array, temperature: float, topk: int, topp: float
) -> jax.Array:
  """int32 [N], one token per row, each drawn with its own key."""
  vocabulary = logits_NV.shape[-1]
  if topk > vocabulary:
    raise ValueError(
      f'temperature_sample: topk must be at most the vocabulary size {vocabulary}, got {topk}. '
      f'Use topk=0 to keep all tokens.'
    )
  scaled_NV = logits_NV / temperature
  categorical = jax.vmap(jax.random.categorical)
  if topk == 0 and topp == 1:
    return categorical(keys_N, scaled_NV).astype(jnp.int32)
  sorted_NC, ids_NC = lax.top_k(scaled_NV, topk or vocabulary)
  if topp < 1:
    sorted_NC = _keep_topp(sorted_NC, topp)
  ranks_N = categorical(keys_N, sorted_NC)
  return jnp.take_along_axis(ids_NC, ranks_N[:, None], axis=-1)[:, 0].astype(jnp.int32)


def _keep_topp(sorted_NC: jax.Array, topp: float) -> jax.Array:
  """Masks with -inf the logits beyond the shortest prefix of mass >= topp; keeps at least one."""
  probs_NC = jax.nn.softmax(sorted_NC)
  mass_before_NC = jnp.cumsum(probs_NC, axis=-1) - probs_NC
  return jnp.where(mass_before_NC < topp, sorted_NC, -jnp.inf)


def _row_keys(
  decode_rng: jax.Array, row_ids: jax.Array | None, batch: int, num_decodes: int
) -> jax.Array:
  """One key for each of the N decodes, from the row's id and the index of the decode."""
  if row_ids is None:
    row_ids = jnp.arange(batch)
  if row_ids.shape != (batch,):
    raise ValueError(
      f'temperature_sample: row_ids must have one id per row of the cache, shape ({batch},); '
      f'got shape {row_ids.shape}.'
    )
  row_keys_B = jax.vmap(jax.random.fold_in, (None, 0))(decode_rng, row_ids)
  fold_decodes = jax.vmap(jax.random.fold_in, (None, 0))
  keys_BK = jax.vmap(fold_decodes, (0, None))(row_keys_B, jnp.arange(num_decodes))
  return keys_BK.reshape(batch * num_decodes, *keys_BK.shape[2:])


def _at_position(keys_N: jax.Array, position: jax.Array) -> jax.Array:
  return jax.vmap(jax.random.fold_in, (0, None))(keys_N, position)


def _best_extensions(
  live_logprobs_BK: jax.Array, logprobs_BKV: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Log-probabilities, beam indices and tokens, each [B, K], of the K best extensions of a row."""
  batch, beams, vocabulary = logprobs_BKV.shape
  # The best K of K * V lie among the best K of each beam: V is large, sorting K * V is slow.
  best_BKC, token_BKC = lax.top_k(logprobs_BKV, min(beams, vocabulary))
  best_BKC = best_BKC + live_logprobs_BK[:, :, None]
  logprobs_BK, index_BK = lax.top_k(best_BKC.reshape(batch, -1), beams)
  tokens_BK = jnp.take_along_axis(token_BKC.reshape(batch, -1), index_BK, axis=1)
  return logprobs_BK, index_BK // best_BKC.shape[-1], tokens_BK.astype(jnp.int32)


def _best_finished(
  scores_BC: jax.Array, tokens_BCL: jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
  scores_BK, index_BK = lax.top_k(scores_BC, count)
  return scores_BK, decode_rows.gather(tokens_BCL, index_BK)


def _ended_else_cut(
  final: _BeamState, full_penalty: jax.Array, pad_id: int
) -> tuple[jax.Array, jax.Array]:
  """The finished sequences of a row, or the live ones where no sequence ended."""
  cut_scores_BK, cut_tokens_BKL = _best_finished(
    final.live_logprobs_BK / full_penalty, final.live_tokens_BKL, final.live_logprobs_BK.shape[1]
  )
  any_ended_B1 = final.finished_scores_BK[:, :1] > -jnp.inf
  scores_BK = jnp.where(any_ended_B1, final.finished_scores_BK, cut_scores_BK)
  tokens_BKL = jnp.where(any_ended_B1[:, :, None], final.finished_tokens_BKL, cut_tokens_BKL)
  return jnp.where(scores_BK[:, :, None] > -jnp.inf, tokens_BKL, pad_id), scores_BK


def _check_sampling(
  temperature: float, topk: int, topp: float, decode_rng: jax.Array | None
) -> None:
  if not 0 <= temperature < float('inf'):
    raise ValueError(
      f'temperature_sample: temperature must be a finite number >= 0 (0 is greedy), '
      f'got {temperature}.'
    )
  if topk < 0:
    raise ValueError(f'temperature_sample: topk must be >= 0 (0 keeps all tokens), got {topk}.')
  if not 0 < topp <= 1:
    raise ValueError(f'temperature_sample: topp must be in (0, 1] (1 keeps all), got {topp}.')
  if temperature >= MIN_TEMPERATURE and decode_rng is None:
    raise ValueError(
      f'temperature_sample: drawing at temperature {temperature} needs decode_rng, got None. '
      f'Pass a key such as jax.random.key(0), or temperature=0 for greedy decoding.'
    )

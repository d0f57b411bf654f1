"""Laws of sampling and beam search, on a model whose logits depend on all that its cache holds."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_train import decoding

ROWS, STATES, LENGTH = 4, 97, 8
EOS = 1


class ToyModel:
  """Logits are looked up under the row's number and a hash of every token its cache has recorded.

  So a beam that gets the cache of another beam, row or position gets other logits.
  `offset` is the axis of the rows in the cache; offset 1 puts two layers before it.
  """

  def __init__(self, vocabulary=6, offset=0, eos_bias=0.0, seed=0):
    self.vocabulary, self.offset = vocabulary, offset
    rng = np.random.default_rng(seed)
    self.table = rng.normal(size=(ROWS, STATES, vocabulary), scale=1.5).astype(np.float32)
    self.table[:, :, EOS] += eos_bias
    self.layers = (2,) * offset
    self.weights = rng.integers(1, STATES, size=(*self.layers, 1, LENGTH))

  def cache(self, rows):
    rows = jnp.asarray(rows, jnp.int32)
    return {
      'seen': jnp.zeros((*self.layers, len(rows), LENGTH), jnp.int32),
      'row': jnp.broadcast_to(rows[(None,) * self.offset], (*self.layers, len(rows))),
    }

  def tokens_to_logits(self, tokens_N1, position, cache):
    assert tokens_N1.dtype == jnp.int32 and tokens_N1.ndim == 2
    new = jnp.broadcast_to(tokens_N1[:, 0][(None,) * self.offset] + 1, cache['row'].shape)
    seen = cache['seen'].at[..., position].set(new)
    weights = jnp.broadcast_to(jnp.asarray(self.weights), seen.shape)
    rows = jnp.moveaxis(seen * weights, self.offset, 0).reshape(len(tokens_N1), -1)
    row_N = cache['row'].max(axis=tuple(range(self.offset)))
    logits_NV = jnp.asarray(self.table)[row_N, rows.sum(axis=1) % STATES]
    return logits_NV, {'seen': seen, 'row': cache['row']}

  def logprobs(self, row, generated):
    """The same model without a cache, in NumPy: log-probabilities [V] after `generated`."""
    seen = np.array([0, *generated]) + 1
    state = (seen * self.weights[..., : len(seen)]).sum() % STATES
    logits = self.table[row, state].astype(np.float64)
    return logits - np.log(np.exp(logits).sum())

  def logprob(self, row, tokens):
    return sum(self.logprobs(row, tokens[:i])[token] for i, token in enumerate(tokens))


def decode(decode_fn, model, rows=range(ROWS), **kwargs):
  kwargs = {'max_decode_length': LENGTH, **kwargs}
  rng, ids = kwargs.pop('decode_rng', None), kwargs.pop('row_ids', None)

  @functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})
  def run(cache, decode_rng, row_ids):
    return decode_fn(
      cache,
      model.tokens_to_logits,
      decode_rng=decode_rng,
      row_ids=row_ids,
      cache_offset=model.offset,
      **kwargs,
    )

  tokens, scores = run(model.cache(rows), rng, ids)
  assert tokens.dtype == jnp.int32 and scores.dtype == jnp.float32
  return np.asarray(tokens), np.asarray(scores)


sample = functools.partial(decode, decoding.temperature_sample)
greedy = functools.partial(decode, decoding.temperature_sample, temperature=0)
beam = functools.partial(decode, decoding.beam_search)


def until_eos(tokens):
  """Cuts after the first end token; checks that only padding follows it."""
  tokens = tokens.tolist()
  if EOS not in tokens:
    return tokens
  end = tokens.index(EOS) + 1
  assert tokens[end:] == [0] * (len(tokens) - end)
  return tokens[:end]


def greedy_oracle(model, row, length=LENGTH):
  tokens = []
  while len(tokens) < length and EOS not in tokens:
    tokens.append(int(np.argmax(model.logprobs(row, tokens))))
  return tokens


def penalised(logprob, length, alpha):
  return logprob / ((5 + length) / 6) ** alpha


def beam_oracle(model, row, size, alpha, length=LENGTH):
  """Beam search over Python lists that always runs to the end; [(score, tokens)], best first."""
  live, finished = [(0.0, [])], []
  for _ in range(length):
    extended = [
      (logprob + new, tokens + [token])
      for logprob, tokens in live
      for token, new in enumerate(model.logprobs(row, tokens))
    ]
    kept = sorted(extended, reverse=True)[:size]
    finished += [(penalised(p, len(t), alpha), t) for p, t in kept if t[-1] == EOS]
    live = [(p, t) for p, t in kept if t[-1] != EOS]
  cut = [(penalised(p, length, alpha), t) for p, t in live]
  return sorted(finished or cut, reverse=True)[:size]


@pytest.mark.parametrize('offset', [0, 1])
def test_greedy_follows_the_most_probable_token(offset):
  model = ToyModel(offset=offset, eos_bias=0.5)
  tokens, scores = greedy(model)
  for row in range(ROWS):
    expected = greedy_oracle(model, row)
    assert until_eos(tokens[row, 0]) == expected
    np.testing.assert_allclose(scores[row, 0], model.logprob(row, expected), rtol=1e-5)


def test_of_equal_logits_the_first_is_taken_and_nan_gives_an_id():
  logits = jnp.array([[0.0, 2.0, 2.0], [-jnp.inf, -jnp.inf, -jnp.inf], [jnp.nan, 1.0, 2.0]])
  found = decoding._most_probable(logits)
  assert found[:2].tolist() == [1, 0] and 0 <= int(found[2]) < 3


@pytest.mark.parametrize('offset', [0, 1])
def test_scores_are_the_log_probabilities_of_the_tokens(offset):
  model = ToyModel(offset=offset)
  tokens, scores = sample(
    model, decode_rng=jax.random.key(0), num_decodes=5, temperature=0.7, topk=4, topp=0.9
  )
  lengths = set()
  for row, k in itertools.product(range(ROWS), range(5)):
    drawn = until_eos(tokens[row, k])
    lengths.add(len(drawn))
    np.testing.assert_allclose(scores[row, k], model.logprob(row, drawn), rtol=1e-5)
  assert min(lengths) < LENGTH and max(lengths) == LENGTH  # both ways to end were seen


def expected_distribution(logprobs, temperature, topk, topp):
  """Tempered, cut to topk, renormalised, cut to topp, renormalised: token by token."""
  probs = np.exp(logprobs / temperature)
  order = np.argsort(-probs)[: topk or None]
  probs = probs / probs[order].sum()
  kept, mass = [], 0.0
  for token in order:
    if mass < topp:
      kept.append(token)
      mass += probs[token]
  cut = np.zeros_like(probs)
  cut[kept] = probs[kept] / mass
  return cut


@pytest.mark.parametrize(
  ('temperature', 'topk', 'topp', 'support'),
  [
    (1.0, 0, 1.0, 6),
    (0.5, 0, 1.0, 6),
    (1.0, 3, 1.0, 3),
    (1.0, 0, 0.8, 4),
    (1.0, 0, 1e-6, 1),
    (2.0, 4, 0.67, 3),  # 2 without temperature, 4 without renormalising after topk
  ],
)
def test_frequencies_match_probabilities(temperature, topk, topp, support):
  model = ToyModel()
  model.table[:] = np.log([0.05, 0.1, 0.35, 0.07, 0.25, 0.18])
  draws = 4000
  tokens, _ = sample(
    model,
    rows=[2],
    decode_rng=jax.random.key(3),
    num_decodes=draws,
    max_decode_length=1,
    temperature=temperature,
    topk=topk,
    topp=topp,
  )
  expected = expected_distribution(model.logprobs(2, []), temperature, topk, topp)
  assert (expected > 0).sum() == support
  frequency = np.bincount(tokens[0, :, 0], minlength=6) / draws
  assert set(np.flatnonzero(frequency)) == set(np.flatnonzero(expected))
  error = np.sqrt(expected * (1 - expected) / draws)
  assert np.all(np.abs(frequency - expected) <= 4 * error)


def test_topp_keeps_the_token_that_reaches_the_mass_and_no_more():
  model = ToyModel(vocabulary=4)
  model.table[:] = np.log([0.5, 0.25, 0.125, 0.125])
  options = {'decode_rng': jax.random.key(0), 'num_decodes': 300, 'max_decode_length': 1}
  for topp, support in [(0.499, {0}), (0.501, {0, 1}), (0.749, {0, 1})]:
    assert set(sample(model, topp=topp, **options)[0].ravel().tolist()) == support


def test_topk_keeps_k_of_equally_probable_tokens():
  model = ToyModel()
  model.table[:] = 0
  tokens, _ = sample(
    model, decode_rng=jax.random.key(0), num_decodes=100, max_decode_length=1, topk=2
  )
  assert set(tokens.ravel().tolist()) == {0, 1}


def test_topk_1_and_tiny_temperature_are_greedy():
  model = ToyModel(eos_bias=0.5)
  expected = greedy(model)
  for options in [{'topk': 1}, {'temperature': 2e-4}, {'temperature': 1e-30}]:
    tokens, scores = sample(model, decode_rng=jax.random.key(0), **options)
    np.testing.assert_array_equal(tokens, expected[0])
    np.testing.assert_allclose(scores, expected[1], rtol=1e-6)


def test_draws_belong_to_the_row_whatever_the_batch():
  model, rng = ToyModel(eos_bias=-1), jax.random.key(7)
  whole, _ = sample(model, rows=[0, 1, 2, 3], decode_rng=rng, num_decodes=3)
  others, _ = sample(model, rows=[0, 3, 2, 1, 1, 1], decode_rng=rng, num_decodes=3)
  np.testing.assert_array_equal(others[[0, 2]], whole[[0, 2]])  # same places, other neighbours
  single, _ = sample(model, rows=[2], row_ids=jnp.array([2]), decode_rng=rng, num_decodes=3)
  np.testing.assert_array_equal(single[0], whole[2])
  fewer, _ = sample(model, decode_rng=rng, num_decodes=1)
  np.testing.assert_array_equal(fewer[:, 0], whole[:, 0])


def test_rows_decodes_positions_and_keys_draw_differently():
  model = ToyModel(vocabulary=50)
  model.table[:] = 0
  tokens, _ = sample(model, rows=[0, 0], decode_rng=jax.random.key(0), num_decodes=2)
  other, _ = sample(model, rows=[0, 0], decode_rng=jax.random.key(1), num_decodes=2)
  sequences = np.concatenate([tokens, other]).reshape(8, LENGTH).tolist()
  assert len({tuple(s) for s in sequences}) == 8
  assert all(len(set(s)) > 2 for s in sequences)


@pytest.mark.parametrize('alpha', [0.0, 0.6, 2.0])
def test_beam_1_is_greedy(alpha):
  model = ToyModel(eos_bias=0.5)
  expected, logprobs = greedy(model)
  tokens, scores = beam(model, num_decodes=1, alpha=alpha)
  np.testing.assert_array_equal(tokens, expected)
  for row in range(ROWS):
    length = len(until_eos(tokens[row, 0]))
    np.testing.assert_allclose(scores[row], penalised(logprobs[row], length, alpha), rtol=1e-5)


@pytest.mark.parametrize('alpha', [0.0, 0.6, 1.5])
def test_wide_beam_is_exhaustive_search(alpha):
  model, length, size = ToyModel(vocabulary=4), 3, 40
  tokens, scores = beam(model, num_decodes=size, alpha=alpha, max_decode_length=length)
  for row in range(ROWS):
    ended = [[*body, EOS] for n in range(length) for body in itertools.product([0, 2, 3], repeat=n)]
    ranked = sorted(
      ((penalised(model.logprob(row, t), len(t), alpha), t) for t in ended), reverse=True
    )
    assert len(ranked) == 1 + 3 + 9
    assert [until_eos(t) for t in tokens[row, :13]] == [t for _, t in ranked]
    np.testing.assert_allclose(scores[row, :13], [s for s, _ in ranked], rtol=1e-5)
    assert np.all(scores[row, 13:] == -np.inf) and not tokens[row, 13:].any()


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize(('size', 'alpha', 'eos_bias'), [(3, 0.0, 0.5), (4, 0.6, 1.5), (2, 3.0, 1)])
def test_beam_search_equals_a_search_over_lists_that_never_stops_early(
  offset, size, alpha, eos_bias
):
  model = ToyModel(offset=offset, eos_bias=eos_bias, seed=1)
  tokens, scores = beam(model, num_decodes=size, alpha=alpha)
  for row in range(ROWS):
    expected = beam_oracle(model, row, size, alpha)
    assert [until_eos(t) for t in tokens[row, : len(expected)]] == [t for _, t in expected]
    np.testing.assert_allclose(scores[row, : len(expected)], [s for s, _ in expected], rtol=1e-5)
    assert np.all(scores[row, len(expected) :] == -np.inf)
  assert np.all(np.diff(scores, axis=1) <= 0)


def test_length_penalty_moves_the_choice_to_longer_sequences():
  model = ToyModel(eos_bias=1, seed=2)
  lengths = []
  for alpha in (0.0, 1.0, 5.0):
    tokens, _ = beam(model, num_decodes=4, alpha=alpha)
    lengths.append(sum(len(until_eos(t)) for t in tokens[:, 0]))
  assert lengths[0] < lengths[1] < lengths[2]


def test_beams_do_not_see_other_rows():
  model = ToyModel(eos_bias=1)
  tokens, scores = beam(model, num_decodes=3)
  alone, alone_scores = beam(model, rows=[2], num_decodes=3)
  np.testing.assert_array_equal(alone[0], tokens[2])
  np.testing.assert_allclose(alone_scores[0], scores[2], rtol=1e-6)


def test_sequences_without_end_are_returned_only_where_none_ended():
  model = ToyModel()
  model.table[0, :, EOS] = -np.inf
  tokens, scores = beam(model, num_decodes=3, alpha=0.6)
  assert EOS not in tokens[0]
  for k in range(3):
    expected = penalised(model.logprob(0, tokens[0, k].tolist()), LENGTH, 0.6)
    np.testing.assert_allclose(scores[0, k], expected, rtol=1e-5)
  assert np.all(np.diff(scores[0]) <= 0)
  for row in range(1, ROWS):
    ended = scores[row] > -np.inf
    assert ended[0] and np.all((tokens[row] == EOS).any(axis=1) == ended)


def test_places_for_which_there_is_no_sequence_hold_padding():
  model = ToyModel()
  model.table[0, :, EOS] = -np.inf
  tokens, scores = beam(model, num_decodes=7, max_decode_length=1, pad_id=9)
  assert sorted(tokens[0, :5, 0].tolist()) == [0, 2, 3, 4, 5]  # all that row 0 can be: cut
  assert tokens[1:, 0, 0].tolist() == [EOS] * (ROWS - 1)
  for row, count in enumerate([5, 1, 1, 1]):
    assert np.all(np.isfinite(scores[row]) == (np.arange(7) < count))
    assert np.all(tokens[row, count:] == 9)


def count_steps(decode_fn, model, **kwargs):
  """Decodes two rows, counting how often the model is called."""
  positions = []

  def counted(tokens, position, cache):
    jax.debug.callback(lambda p: positions.append(int(p)), position)
    return model.tokens_to_logits(tokens, position, cache)

  run = jax.jit(lambda cache: decode_fn(cache, counted, max_decode_length=LENGTH, **kwargs))
  jax.block_until_ready(run(model.cache([0, 1])))
  jax.effects_barrier()
  assert sorted(positions) == list(range(len(positions)))
  return len(positions)


def test_decoding_stops_when_all_rows_are_done():
  ends = ToyModel(vocabulary=4, eos_bias=12.0)
  assert count_steps(decoding.temperature_sample, ends, temperature=0) == 1
  assert count_steps(decoding.beam_search, ends, num_decodes=1) == 1
  assert 2 <= count_steps(decoding.beam_search, ends, num_decodes=2, alpha=0.0) < LENGTH
  one_row_goes_on = ToyModel(vocabulary=4, eos_bias=12.0)
  one_row_goes_on.table[1, :, EOS] = -50
  assert count_steps(decoding.temperature_sample, one_row_goes_on, temperature=0) == LENGTH
  assert count_steps(decoding.beam_search, one_row_goes_on, num_decodes=1) == LENGTH


def test_token_ids_are_arguments():
  model = ToyModel()
  model.table[:] = [0, 0, 0, 9, 0, 0]  # token 3 ends
  for decode_fn in (greedy, beam):
    tokens, _ = decode_fn(model, eos_id=3, pad_id=5)
    assert tokens[0, 0].tolist() == [3] + [5] * (LENGTH - 1)
    model_that_goes_on = ToyModel(eos_bias=-9)
    usual, _ = decode_fn(model_that_goes_on)
    started, _ = decode_fn(model_that_goes_on, decoder_start_token_id=4)
    assert not np.array_equal(usual, started)


def test_brevity_penalty():
  assert decoding.brevity_penalty(0.6, 1) == 1
  np.testing.assert_allclose(decoding.brevity_penalty(2.0, 7), 4)


@pytest.mark.parametrize(
  ('decode_fn', 'arguments', 'message'),
  [
    (sample, {'temperature': -0.5}, r'temperature must be .* >= 0 .*, got -0\.5'),
    (sample, {'temperature': float('nan')}, 'got nan'),
    (sample, {'topp': 0.0}, r'topp must be in \(0, 1\] .*, got 0\.0'),
    (sample, {'topp': 1.1}, r'got 1\.1'),
    (sample, {'topk': -1}, 'topk must be >= 0'),
    (sample, {'topk': 7}, 'topk must be at most the vocabulary size 6, got 7'),
    (sample, {'num_decodes': 0}, 'num_decodes must be at least 1, got 0'),
    (sample, {'max_decode_length': 0}, 'max_decode_length must be at least 1, got 0'),
    (sample, {'decode_rng': None}, 'needs decode_rng'),
    (sample, {'row_ids': jnp.arange(3)}, r'shape \(4,\); got shape \(3,\)'),
    (beam, {'alpha': -0.1}, r'alpha must be .* >= 0, got -0\.1'),
    (beam, {'num_decodes': 0}, 'num_decodes must be at least 1, got 0'),
  ],
)
def test_arguments_out_of_range_are_refused(decode_fn, arguments, message):
  with pytest.raises(ValueError, match=message):
    decode_fn(ToyModel(), **{'decode_rng': jax.random.key(0), **arguments})


@pytest.mark.parametrize(
  ('cache', 'message'),
  [
    ({}, 'cache has no arrays'),
    ({'key': jnp.zeros((2, 3)), 'index': jnp.zeros(())}, r"cache\['index'\] has shape \(\)"),
    ({'key': jnp.zeros((2, 3)), 'value': jnp.zeros((4, 3))}, r'disagree .*\(2, 3\).*\(4, 3\)'),
  ],
)
def test_caches_without_one_batch_axis_are_refused(cache, message):
  with pytest.raises(ValueError, match=message):
    decoding.beam_search(cache, ToyModel().tokens_to_logits, max_decode_length=2)


def test_logits_of_the_wrong_shape_are_refused():
  def three_axes(tokens, position, cache):
    logits, cache = ToyModel().tokens_to_logits(tokens, position, cache)
    return logits[:, None], cache

  with pytest.raises(ValueError, match=r'shape \(8, vocabulary\).*got shape \(8, 1, 6\)'):
    decoding.beam_search(
      ToyModel().cache([0, 1]), three_axes, max_decode_length=LENGTH, num_decodes=4
    )

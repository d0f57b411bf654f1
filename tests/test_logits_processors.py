"""Penalties change logits as transformers' processors do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_train import decoding, logits_processors

ROWS, VOCABULARY, LENGTH = 5, 7, 12
EOS, START = 1, 0
SETTINGS = [
  {'repetition_penalty': 1.5},
  {'repetition_penalty': 0.5},
  {'no_repeat_ngram_size': 1},
  {'no_repeat_ngram_size': 2},
  {'no_repeat_ngram_size': 3},
  {'no_repeat_ngram_size': 13},
  {'no_repeat_ngram_size': 20},
  {'min_new_tokens': 4},
  {'repetition_penalty': 1.5, 'no_repeat_ngram_size': 2, 'min_new_tokens': 4},
]


def theirs(logits, history, settings):
  torch = pytest.importorskip('torch', reason='needs the extra `hf`')
  process = pytest.importorskip('transformers.generation.logits_process')
  found, ids = torch.tensor(logits), torch.tensor(history)
  processors = []
  if penalty := settings.get('repetition_penalty'):
    processors.append(process.RepetitionPenaltyLogitsProcessor(penalty))
  if size := settings.get('no_repeat_ngram_size'):
    processors.append(process.NoRepeatNGramLogitsProcessor(size))
  if count := settings.get('min_new_tokens'):
    processors.append(process.MinNewTokensLengthLogitsProcessor(1, count, EOS))
  for processor in processors:
    found = processor(ids, found)
  return found.numpy()


@pytest.mark.parametrize('settings', SETTINGS, ids=str)
def test_logits_are_those_of_transformers(settings):
  rng = np.random.default_rng(0)
  ours = jax.jit(
    lambda logits, tokens, position: logits_processors.Processors(**settings).apply(
      logits, tokens, position, start_id=START, eos_id=EOS
    )
  )
  for position in range(LENGTH + 1):
    logits = rng.normal(size=(ROWS, VOCABULARY)).astype(np.float32)
    tokens = rng.integers(0, VOCABULARY, (ROWS, LENGTH)).astype(np.int32)  # junk behind position
    said = np.concatenate([np.full((ROWS, 1), START), tokens[:, :position]], axis=1)
    found = ours(jnp.asarray(logits), jnp.asarray(tokens), jnp.int32(position))
    expected = theirs(logits, said, settings)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-6)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'min_new_tokens': 8}, 'less than the 8 tokens'),
    ({'min_new_tokens': -1}, 'at least 0'),
    ({'repetition_penalty': 0.0}, r'greater than 0 \(1 is off\), got 0\.0'),
    ({'no_repeat_ngram_size': -2}, 'got -2'),
  ],
)
def test_settings_out_of_range_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    logits_processors.Processors(**settings).check(8)


def one_step(logits, **options):
  """What 20,000 rows draw as their first token."""
  rows = 20_000

  def model(tokens, position, cache):
    return jnp.broadcast_to(jnp.asarray(logits), (rows, len(logits))), cache

  tokens, _ = jax.jit(
    lambda key: decoding.temperature_sample(
      {'x': jnp.zeros((rows, 1))}, model, decode_rng=key, max_decode_length=2, **options
    )
  )(jax.random.key(3))
  return np.bincount(np.asarray(tokens)[:, 0, 0], minlength=len(logits)) / rows


def test_samples_follow_the_distribution_of_transformers():
  torch = pytest.importorskip('torch', reason='needs the extra `hf`')
  process = pytest.importorskip('transformers.generation.logits_process')
  logits = np.random.default_rng(1).normal(size=12, scale=2).astype(np.float32)
  scores = torch.tensor(theirs(logits[None], np.array([[START]]), {'repetition_penalty': 1.5}))
  for warp in (
    process.TemperatureLogitsWarper(0.9),
    process.TopKLogitsWarper(6),
    process.TopPLogitsWarper(0.8),
  ):
    scores = warp(None, scores)
  expected = torch.softmax(scores, -1)[0].numpy()
  found = one_step(logits, temperature=0.9, topk=6, topp=0.8, repetition_penalty=1.5)
  assert (found > 0).tolist() == (expected > 0).tolist() and 1 < np.count_nonzero(expected) < 6
  np.testing.assert_allclose(found, expected, atol=0.015)


def test_penalties_that_are_off_leave_no_trace():
  def program(**options):
    def run(cache):
      def model(tokens, position, cache):
        return jnp.zeros((2, 5)), cache

      return decoding.temperature_sample(
        cache, model, max_decode_length=4, temperature=0, **options
      )

    return str(jax.make_jaxpr(run)({'x': jnp.zeros((2, 1))}))

  off = {'min_new_tokens': 0, 'repetition_penalty': 1.0, 'no_repeat_ngram_size': 0}
  assert program(**off) == program()
  assert program(repetition_penalty=2.0) != program()

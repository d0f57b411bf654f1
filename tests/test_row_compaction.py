"""Answers do not depend on whether rows that have ended are taken out of the arrays."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_train import decoding, hf_beams, partitioning, row_compaction

STATES, VOCABULARY, LENGTH, EOS = 89, 7, 24, 1
RNG = np.random.default_rng(0)
WEIGHTS = RNG.integers(1, STATES, LENGTH)
# Some rows end at once, some late, some never.
TABLE = RNG.normal(size=(40, STATES, VOCABULARY), scale=1.5).astype(np.float32)
TABLE[:, :, EOS] += np.linspace(-9, 4, 40)[RNG.permutation(40), None].astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Model:
  """Logits are looked up under a row's number, which is the model's own, and its cache's hash.

  `layers` is what stands before the rows in its arrays; `seen` collects the rows of each trace.
  """

  numbers: jax.Array
  layers: tuple[int, ...] = ()
  seen: list[int] = dataclasses.field(default_factory=list)

  @property
  def offset(self):
    return len(self.layers)

  def cache(self):
    return {'seen': jnp.zeros((*self.layers, *self.numbers.shape[self.offset :], LENGTH), int)}

  def __call__(self, tokens_N1, position, cache):
    self.seen.append(len(tokens_N1))
    numbers_B = self.numbers.max(axis=tuple(range(self.offset)))
    numbers_N = jnp.repeat(numbers_B, len(tokens_N1) // len(numbers_B))
    new = cache['seen'].at[..., position].set(tokens_N1[:, 0] + 1)
    weighed = new * jnp.broadcast_to(jnp.asarray(WEIGHTS), new.shape)
    hash_N = weighed.max(axis=tuple(range(self.offset))).sum(axis=1)
    return jnp.asarray(TABLE)[numbers_N, hash_N % STATES], {'seen': new}

  def narrowed(self, take):
    return dataclasses.replace(self, numbers=take(self.numbers, self.offset))


WAYS = {
  'greedy': functools.partial(decoding.temperature_sample, temperature=0.0),
  'samples': functools.partial(decoding.temperature_sample, num_decodes=3, topk=5),
  'penalties': functools.partial(
    decoding.temperature_sample, temperature=0.0, repetition_penalty=1.4, no_repeat_ngram_size=2
  ),
  'beams': functools.partial(decoding.beam_search, num_decodes=3),
  'hf beams': functools.partial(hf_beams.hf_beam_search, num_decodes=3),
  'hf beams, early': functools.partial(hf_beams.hf_beam_search, num_decodes=2, early_stopping=True),
}


def decode(way, rows, layers=(), halvings=0, mesh=None):
  numbers = jnp.broadcast_to(jnp.arange(rows), (*layers, rows))
  model = Model(numbers, layers)

  def run(numbers, key):
    given = dataclasses.replace(model, numbers=numbers)
    return WAYS[way](
      given.cache(), given, max_decode_length=LENGTH, decode_rng=key, cache_offset=given.offset
    )

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(row_compaction, 'MAX_HALVINGS', halvings)
    patch.setattr(row_compaction, 'FEWEST_ROWS', 1)
    if mesh is None:
      compiled = jax.jit(run, compiler_options={'xla_backend_optimization_level': 0})
    else:
      compiled = mesh.jit(run)
    tokens, scores = compiled(numbers, jax.random.key(7))
  return np.asarray(tokens), np.asarray(scores), set(model.seen)


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize(('rows', 'layers'), [(32, ()), (37, (2,)), (1, ())])
def test_rows_that_ended_are_not_missed(way, rows, layers):
  tokens, scores, widths = decode(way, rows, layers)
  fewer, fewer_scores, narrower = decode(way, rows, layers, halvings=3)
  np.testing.assert_array_equal(fewer, tokens)
  np.testing.assert_allclose(fewer_scores, scores, rtol=1e-6)
  assert len(widths) == 1
  assert len(narrower) == (1 if rows == 1 else 4)
  ends = (tokens[:, 0] == EOS).argmax(axis=1)
  assert rows == 1 or len({*ends.tolist()}) > 4  # the rows do end at different places


@pytest.mark.parametrize('way', ['greedy', 'samples', 'hf beams'])
def test_each_device_keeps_rows_of_its_own(way):
  mesh = partitioning.Partitioner(
    {'data': 4, 'model': 1}, partitioning.standard_logical_axis_rules(), jax.devices()[:4]
  )
  tokens, scores, _ = decode(way, 32)
  fewer, fewer_scores, narrower = decode(way, 32, halvings=3, mesh=mesh)
  np.testing.assert_array_equal(fewer, tokens)
  np.testing.assert_allclose(fewer_scores, scores, rtol=1e-6)
  decodes = max(narrower) // 32
  assert narrower == {32 * decodes, 16 * decodes, 8 * decodes, 4 * decodes}


def test_a_model_that_cannot_be_narrowed_keeps_its_rows():
  model = Model(jnp.arange(32))
  found = []

  def plain(tokens_N1, position, cache):
    found.append(len(tokens_N1))
    return model(tokens_N1, position, cache)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(row_compaction, 'FEWEST_ROWS', 1)
    tokens, _ = WAYS['greedy'](model.cache(), plain, max_decode_length=LENGTH)
  assert {*found} == {32}
  np.testing.assert_array_equal(tokens, decode('greedy', 32, halvings=3)[0])


def test_few_rows_are_one_program():
  model = Model(jnp.arange(2 * row_compaction.FEWEST_ROWS - 2))
  WAYS['greedy'](model.cache(), model, max_decode_length=LENGTH)
  assert {*model.seen} == {2 * row_compaction.FEWEST_ROWS - 2}

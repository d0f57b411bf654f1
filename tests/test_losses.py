import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_train import block_reductions, losses
from tests import batches

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=(3, 8, 11)) * 3, jnp.float32)
TARGETS = jnp.asarray(RNG.integers(0, 11, (3, 8)), jnp.int32)
OPTIONS = {'label_smoothing': 0.1, 'z_loss': 1e-2}


def written_out(logits, targets, label_smoothing, z_loss):
  """The definition, with the one-hot array that the real code avoids."""
  logits, vocab = np.asarray(logits, np.float64), logits.shape[-1]
  log_z = np.log(np.exp(logits).sum(-1))
  rest = label_smoothing / (vocab - 1)
  soft = np.full(logits.shape, rest)
  np.put_along_axis(soft, np.asarray(targets)[..., None], 1 - label_smoothing, -1)
  entropy = -(soft * np.log(soft + 1e-20)).sum(-1)
  return -(soft * (logits - log_z[..., None])).sum(-1) - entropy + z_loss * log_z**2


@pytest.mark.parametrize('label_smoothing', [0.0, 0.1])
@pytest.mark.parametrize('z_loss', [0.0, 1e-2])
def test_token_losses_are_the_definition(label_smoothing, z_loss):
  got = losses.token_losses(LOGITS, TARGETS, label_smoothing=label_smoothing, z_loss=z_loss)
  want = written_out(LOGITS, TARGETS, label_smoothing, z_loss)
  np.testing.assert_allclose(got.cross_entropy, want, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(got.correct, LOGITS.argmax(-1) == TARGETS)


def test_chunks_change_neither_loss_nor_gradient():
  features = jnp.asarray(RNG.normal(size=(3, 8, 5)), jnp.float32)
  kernel = jnp.asarray(RNG.normal(size=(5, 11)), jnp.float32)

  def whole(kernel):
    return losses.token_losses(features @ kernel, TARGETS, **OPTIONS).cross_entropy.sum()

  def chunked(kernel):
    head = lambda x: x @ kernel
    return losses.chunked_token_losses(head, features, TARGETS, 2, **OPTIONS).cross_entropy.sum()

  np.testing.assert_allclose(whole(kernel), chunked(kernel), rtol=1e-6)
  np.testing.assert_allclose(
    jax.grad(whole)(kernel), jax.grad(chunked)(kernel), rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize('chunk', [None, 2, 8])
@pytest.mark.parametrize(('options', 'large'), [(OPTIONS, 2**22), ({}, 2**22), (OPTIONS, 8)])
def test_the_weighted_loss_has_the_gradient_of_its_definition(chunk, options, large, monkeypatch):
  monkeypatch.setattr(block_reductions, 'several_cpus', lambda: False)
  monkeypatch.setattr(block_reductions, 'LARGE', large)
  monkeypatch.setattr(block_reductions, '_BLOCK', 2 * 11)
  features = jnp.asarray(RNG.normal(size=(3, 8, 5)), jnp.float32)
  kernel = jnp.asarray(RNG.normal(size=(5, 11)), jnp.float32)
  weights = jnp.asarray(RNG.uniform(size=(3, 8)) * (RNG.uniform(size=(3, 8)) > 0.3), jnp.float32)

  def plain(kernel, features, weights):
    token = losses.token_losses(features @ kernel, TARGETS, **options)
    return 3.0 * jnp.sum(token.cross_entropy * weights), token

  def ours(kernel, features, weights):
    value, token = losses.weighted_loss(features, kernel, TARGETS, weights, chunk, **options)
    return 3.0 * value, token

  arguments = (kernel, features, weights)
  (want, want_token), want_gradients = jax.value_and_grad(plain, (0, 1, 2), has_aux=True)(
    *arguments
  )
  both = jax.jit(jax.value_and_grad(ours, (0, 1, 2), has_aux=True))
  (got, got_token), got_gradients = both(*arguments)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  np.testing.assert_allclose(ours(*arguments)[0], want, rtol=1e-6)  # without a gradient
  for a, b in zip(got_gradients, want_gradients, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  for a, b in zip(got_token, want_token, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_weighted_loss_keeps_nothing_of_the_vocabularys_width_for_the_backward_pass():
  features, kernel = jnp.ones((3, 8, 5)), jnp.ones((5, 1999))
  targets, weights = jnp.ones((3, 8), jnp.int32), jnp.ones((3, 8))

  def ours(kernel, features):
    return losses.weighted_loss(features, kernel, targets, weights, 2)[0]

  backward = jax.vjp(ours, kernel, features)[1]
  kept = [x.shape for x in jax.tree.leaves(backward) if hasattr(x, 'shape') and 1999 in x.shape]
  assert set(kept) <= {(5, 1999)}


def test_a_chunk_that_does_not_divide_is_refused():
  with pytest.raises(ValueError, match=r'3 positions does not divide the target length 8'):
    losses.chunked_token_losses(lambda x: x, LOGITS, TARGETS, 3)
  with pytest.raises(ValueError, match=r'3 positions does not divide the target length 8'):
    losses.weighted_loss(LOGITS, jnp.eye(LOGITS.shape[-1]), TARGETS, jnp.ones((3, 8)), 3)


def test_average_per_sequence_weighs_every_example_the_same():
  batch = batches.packed()
  weights, denominator = losses.loss_weights('AVERAGE_PER_SEQUENCE', batch)
  segments = batch['decoder_segment_ids']
  for row in range(segments.shape[0]):
    for segment in range(1, segments[row].max() + 1):
      np.testing.assert_allclose(weights[row][segments[row] == segment].sum(), 1.0, rtol=1e-6)
  assert (np.asarray(weights)[segments == 0] == 0).all()
  np.testing.assert_allclose(denominator, segments.max(axis=1).sum(), rtol=1e-6)


def test_average_per_sequence_ignores_tokens_without_weight():
  batch = batches.packed()
  batch['decoder_loss_weights'][:, ::2] = 0.0
  weights, _ = losses.loss_weights('AVERAGE_PER_SEQUENCE', batch)
  assert not np.isnan(weights).any()
  assert (np.asarray(weights)[:, ::2] == 0).all()


def test_packed_and_unpacked_averages_agree():
  batch = batches.packed()
  unpacked = batches.unpack(batch)
  _, packed_denominator = losses.loss_weights('AVERAGE_PER_SEQUENCE', batch)
  weights, denominator = losses.loss_weights('AVERAGE_PER_SEQUENCE', unpacked)
  np.testing.assert_allclose(packed_denominator, denominator, rtol=1e-6)
  np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
  ('factor', 'want'),
  [
    (None, 1.0),
    (233472, 233472.0),
    ('NUM_TOTAL_TARGET_TOKENS', 4 * 16),
    ('num_real_target_tokens', None),
  ],
)
def test_denominators(factor, want):
  batch = batches.packed()
  weights, denominator = losses.loss_weights(factor, batch)
  np.testing.assert_array_equal(weights, batch['decoder_loss_weights'])
  assert float(denominator) == (batch['decoder_loss_weights'].sum() if want is None else want)


@pytest.mark.parametrize('factor', ['PER_TOKEN', 0, -1.0, True])
def test_an_unknown_factor_is_refused(factor):
  with pytest.raises(ValueError, match='LOSS_NORMALIZING_FACTOR must be'):
    losses.check_loss_normalizing_factor(factor)


@pytest.mark.t5x
@pytest.mark.parametrize(
  'factor',
  [None, 100.0, 'NUM_REAL_TARGET_TOKENS', 'NUM_TOTAL_TARGET_TOKENS', 'AVERAGE_PER_SEQUENCE'],
)
def test_losses_equal_those_of_t5x(factor):
  t5x_losses = pytest.importorskip('t5x.losses', reason='t5x is not installed')
  batch = {k: jnp.asarray(v) for k, v in batches.packed(vocab=11).items()}
  logits = jnp.asarray(RNG.normal(size=(4, 16, 11)), jnp.float32)
  factor_t5x, weights = t5x_losses.get_loss_normalizing_factor_and_weights(factor, batch)
  with jax.numpy_rank_promotion('allow'):
    loss, z_loss, _ = t5x_losses.compute_weighted_cross_entropy(
      logits, batch['decoder_target_tokens'], weights, 0.1, 1e-2, factor_t5x
    )
  token = losses.token_losses(logits, batch['decoder_target_tokens'], **OPTIONS)
  ours, denominator = losses.loss_weights(factor, batch)
  np.testing.assert_allclose((token.cross_entropy * ours).sum() / denominator, loss, rtol=2e-6)
  np.testing.assert_allclose((token.z_loss * ours).sum() / denominator, z_loss, rtol=2e-6)

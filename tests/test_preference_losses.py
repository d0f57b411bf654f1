"""Each loss equals its published formula, written out here in float64 numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_train import preference_losses

N = 16


@pytest.fixture(autouse=True)
def in_float64():
  with jax.enable_x64(True):
    yield


def drawn(seed):
  rng = np.random.default_rng(seed)
  length = rng.integers(1, 30, N).astype(np.float64)
  policy = -rng.uniform(0.05, 3.0, N) * length
  return policy, policy + rng.normal(0, 2, N), length


CHOSEN, REJECTED = drawn(0), drawn(1)


def answers(values):
  return preference_losses.Answers(*(jnp.asarray(x) for x in values))


def sigmoid(x):
  return 1.0 / (1.0 + np.exp(-x))


def same(got, wanted):
  np.testing.assert_allclose(np.asarray(got), wanted, rtol=1e-6, atol=1e-6)


def difference(values_c=CHOSEN, values_r=REJECTED):
  (pc, rc, _), (pr, rr, _) = values_c, values_r
  return (pc - pr) - (rc - rr)


def per_token(values):
  policy, reference, length = values
  return policy / length, reference / length, length


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 0.5])
def test_dpo(smoothing):
  m = 0.1 * difference()
  wanted = -(1 - smoothing) * np.log(sigmoid(m)) - smoothing * np.log(sigmoid(-m))
  same(
    preference_losses.dpo(answers(CHOSEN), answers(REJECTED), beta=0.1, label_smoothing=smoothing),
    wanted,
  )


def test_length_normalised_dpo():
  m = 2.0 * difference(per_token(CHOSEN), per_token(REJECTED))
  got = preference_losses.dpo(
    answers(CHOSEN).normalised(), answers(REJECTED).normalised(), beta=2.0
  )
  same(got, -np.log(sigmoid(m)))


def test_ipo_of_whole_answers_and_of_normalised_ones():
  same(
    preference_losses.ipo(answers(CHOSEN), answers(REJECTED), beta=0.5), (difference() - 1.0) ** 2
  )
  wanted = (difference(per_token(CHOSEN), per_token(REJECTED)) - 1 / 0.4) ** 2
  got = preference_losses.ipo(
    answers(CHOSEN).normalised(), answers(REJECTED).normalised(), beta=0.2
  )
  same(got, wanted)


def test_simpo():
  beta, gamma = 2.5, 1.4
  means = [policy / length for policy, _, length in (CHOSEN, REJECTED)]
  wanted = -np.log(sigmoid(beta * means[0] - beta * means[1] - gamma))
  same(preference_losses.simpo(answers(CHOSEN), answers(REJECTED), beta=beta, gamma=gamma), wanted)


def test_cpo_is_dpo_against_a_uniform_reference():
  got = preference_losses.cpo(answers(CHOSEN), answers(REJECTED), beta=0.1, label_smoothing=0.2)
  m = 0.1 * (CHOSEN[0] - REJECTED[0])
  same(got, -0.8 * np.log(sigmoid(m)) - 0.2 * np.log(sigmoid(-m)))
  uniform = [
    preference_losses.Answers(x.log_likelihood, 0.0 * x.reference, x.length)
    for x in map(answers, PAIR)
  ]
  same(got, preference_losses.dpo(*uniform, beta=0.1, label_smoothing=0.2))


PAIR = (CHOSEN, REJECTED)


def test_orpo():
  odds = []
  for policy, _, length in PAIR:
    p = np.exp(policy / length)
    odds.append(p / (1 - p))
  wanted = -0.1 * np.log(sigmoid(np.log(odds[0] / odds[1])))
  same(preference_losses.orpo(answers(CHOSEN), answers(REJECTED), beta=0.1), wanted)


def test_orpo_of_an_answer_that_is_certain_has_a_gradient():
  certain = preference_losses.Answers(jnp.zeros(1), jnp.zeros(1), jnp.ones(1))

  def loss(x):
    return preference_losses.orpo(
      preference_losses.Answers(x, x, certain.length), certain, beta=0.1
    ).sum()

  assert math.isfinite(loss(jnp.zeros(1)))
  assert np.isfinite(jax.grad(loss)(jnp.zeros(1))).all()


def test_kto():
  desirable = np.arange(N) % 3 == 0
  policy, reference, _ = CHOSEN
  z = 0.7
  wanted = [
    1.5 * (1 - sigmoid(0.1 * (p - r - z))) if good else 0.5 * (1 - sigmoid(0.1 * (z - (p - r))))
    for p, r, good in zip(policy, reference, desirable, strict=True)
  ]
  got = preference_losses.kto(
    answers(CHOSEN),
    jnp.asarray(desirable),
    beta=0.1,
    reference_point=z,
    desirable_weight=1.5,
    undesirable_weight=0.5,
  )
  same(got, wanted)


def test_no_gradient_flows_through_ktos_reference_point():
  def loss(z):
    good = jnp.ones(N, bool)
    return preference_losses.kto(answers(CHOSEN), good, beta=0.1, reference_point=z).sum()

  assert jax.grad(loss)(0.3) == 0.0


def test_ktos_reference_point_is_a_mean_over_real_answers_and_never_negative():
  lengths = jnp.asarray([3.0, 5.0, 0.0])
  above = preference_losses.Answers(
    jnp.asarray([-1.0, -2.0, 50.0]), jnp.asarray([-2.0, -5.0, 0.0]), lengths
  )
  assert preference_losses.kl_reference_point(above) == pytest.approx(2.0)
  below = preference_losses.Answers(above.reference, above.log_likelihood, lengths)
  assert preference_losses.kl_reference_point(below) == 0.0


def test_desensitised_weighs_the_tail():
  same(preference_losses.desensitised(jnp.asarray([-3.0]), jnp.asarray([-8.0]), 0.25), [-5.0])


def test_losses_add_up_over_parts_of_a_batch():
  whole = preference_losses.dpo(answers(CHOSEN), answers(REJECTED), beta=0.3).sum()
  halves = [
    preference_losses.dpo(*(answers([x[part] for x in side]) for side in PAIR), beta=0.3).sum()
    for part in (slice(0, 5), slice(5, N))
  ]
  assert float(whole) == pytest.approx(float(sum(halves)), rel=1e-6)


@pytest.mark.parametrize('loss', ['dpo', 'ipo', 'simpo', 'cpo', 'orpo'])
def test_the_chosen_answer_is_pulled_up_and_the_rejected_one_down(loss):
  options = {'beta': 0.05, **({'gamma': 0.5} if loss == 'simpo' else {})}

  def total(chosen, rejected):
    one = preference_losses.Answers(chosen, answers(CHOSEN).reference, answers(CHOSEN).length)
    other = preference_losses.Answers(
      rejected, answers(REJECTED).reference, answers(REJECTED).length
    )
    return getattr(preference_losses, loss)(one, other, **options).sum()

  up, down = jax.grad(total, argnums=(0, 1))(
    answers(CHOSEN).log_likelihood, answers(REJECTED).log_likelihood
  )
  assert (np.asarray(up) <= 0).all() and (np.asarray(down) >= 0).all()

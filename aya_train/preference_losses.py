"""Losses over pairs of answers to one prompt, from log-likelihoods alone.

Each function maps arrays of N pairs, or of N judged answers, to their losses, float32 [N]. Nothing
is averaged here: whoever holds the batch adds up and divides by the whole batch's count, so parts
of a batch give what the batch gives.

Letters: y an answer of L tokens, its end included; log p(y) the sum over its tokens under the
policy, log r(y) that under the reference model; c the chosen answer, j the rejected one.
"""

import dataclasses

import jax
import jax.numpy as jnp

Array = jax.Array
NAMES = ('dpo', 'ipo', 'simpo', 'orpo', 'cpo', 'kto', 'sft')
WITH_REFERENCE = ('dpo', 'ipo', 'kto')


@dataclasses.dataclass(frozen=True)
class Answers:
  """What is known of N answers.

  Attributes:
    log_likelihood: log p(y), float32 [N].
    reference: log r(y), float32 [N]; zeros where a loss has no reference.
    length: L, float32 [N]; 0 for a place that holds no answer.
  """

  log_likelihood: Array
  reference: Array
  length: Array

  @property
  def log_ratio(self) -> Array:
    """log p(y) - log r(y), float32 [N]: the implicit reward is beta times it."""
    return self.log_likelihood - self.reference

  def normalised(self) -> 'Answers':
    """The same for each token: both log-likelihoods divided by the length."""
    tokens = jnp.maximum(self.length, 1.0)
    return dataclasses.replace(
      self, log_likelihood=self.log_likelihood / tokens, reference=self.reference / tokens
    )


def desensitised(head: Array, tail: Array, alpha: float) -> Array:
  """A log-likelihood in which what is longer than the other answer weighs less.

  Liu et al. 2024, "Length Desensitization in Direct Preference Optimization" (LD-DPO).

  Args:
    head: log-likelihood of the tokens up to the length of the pair's shorter answer, float32 [N].
    tail: that of the tokens after it.
    alpha: the tail's weight in [0, 1]; 1 changes nothing.
  """
  return head + alpha * tail


def dpo(chosen: Answers, rejected: Answers, *, beta: float, label_smoothing: float = 0.0) -> Array:
  """Direct preference optimisation (Rafailov et al. 2023), with conservative label smoothing.

  With m = beta (log ratio of c - log ratio of j) and smoothing e, the chance that a pair's label is
  wrong: -(1 - e) log sigmoid(m) - e log sigmoid(-m). Normalised answers give length-normalised DPO.
  """
  return _logistic(beta * (chosen.log_ratio - rejected.log_ratio), label_smoothing)


def ipo(chosen: Answers, rejected: Answers, *, beta: float) -> Array:
  """Identity preference optimisation (Azar et al. 2023): (difference of ratios - 1 / (2 beta))^2.

  The paper takes log-likelihoods of whole answers; TRL those of normalised ones.
  """
  return jnp.square(chosen.log_ratio - rejected.log_ratio - 1.0 / (2.0 * beta))


def simpo(
  chosen: Answers,
  rejected: Answers,
  *,
  beta: float,
  gamma: float,
  label_smoothing: float = 0.0,
) -> Array:
  """SimPO (Meng et al. 2024): no reference; log-likelihoods a token, a margin wanted between them.

  Args:
    chosen, rejected: not normalised; it is done here, since the loss is defined by it.
    beta: scale of the difference, 2.0 to 2.5 in the paper.
    gamma: the margin, 0.3 to 1.6 there: -log sigmoid(beta * difference - gamma).
    label_smoothing: as in `dpo`.
  """
  difference = chosen.normalised().log_likelihood - rejected.normalised().log_likelihood
  return _logistic(beta * difference - gamma, label_smoothing)


def cpo(chosen: Answers, rejected: Answers, *, beta: float, label_smoothing: float = 0.0) -> Array:
  """Contrastive preference optimisation (Xu et al. 2024) without its likelihood term.

  DPO against a uniform reference. The paper adds the negative log-likelihood of c; see `nll`.
  """
  return _logistic(beta * (chosen.log_likelihood - rejected.log_likelihood), label_smoothing)


def orpo(chosen: Answers, rejected: Answers, *, beta: float) -> Array:
  """ORPO's term of the odds ratio (Hong et al. 2024), without its likelihood term.

  -beta log sigmoid(log odds(c) - log odds(j)), where odds(y) = p / (1 - p) of p, the geometric mean
  of the tokens' probabilities. The paper adds the negative log-likelihood of c a token; see `nll`.
  """
  return -beta * jax.nn.log_sigmoid(_log_odds(chosen) - _log_odds(rejected))


def kto(
  answers: Answers,
  desirable: Array,
  *,
  beta: float,
  reference_point: Array | float = 0.0,
  desirable_weight: float = 1.0,
  undesirable_weight: float = 1.0,
) -> Array:
  """KTO (Ethayarajh et al. 2024): answers judged one by one, good or bad.

  Args:
    answers: N of them.
    desirable: bool [N].
    beta: scale of the log ratio.
    reference_point: z, an estimate of KL(p || r) at least 0, through which no gradient flows; see
      `kl_reference_point`. With 0 it is TRL's apo_zero_unpaired.
    desirable_weight, undesirable_weight: of an answer's loss; the paper's lambdas, with which an
      unbalanced set is balanced.

  Returns:
    lambda (1 - sigmoid(beta (log ratio - z))) of a good answer, lambda (1 - sigmoid(beta (z - log
    ratio))) of a bad one, float32 [N].
  """
  away = answers.log_ratio - jax.lax.stop_gradient(jnp.asarray(reference_point))
  good = desirable_weight * jax.nn.sigmoid(-beta * away)
  bad = undesirable_weight * jax.nn.sigmoid(beta * away)
  return jnp.where(desirable, good, bad)


def kl_reference_point(unrelated: Answers, count: Array | None = None) -> Array:
  """KTO's z, float32 []: the mean log ratio of answers that belong to other prompts, at least 0.

  Args:
    unrelated: of each prompt another prompt's answer.
    count: number of them in the whole batch; by default those of a length above 0.
  """
  real = unrelated.length > 0
  count = jnp.sum(real, dtype=jnp.float32) if count is None else count
  total = jnp.sum(jnp.where(real, unrelated.log_ratio, 0.0))
  return jnp.maximum(total / jnp.maximum(count, 1.0), 0.0)


def nll(chosen: Answers) -> Array:
  """Negative log-likelihood of each chosen answer, float32 [N]: supervised fine-tuning on them.

  Divided by the tokens of the whole batch it is the mean a token that TRL adds in CPO and ORPO.
  """
  return -chosen.log_likelihood


def _logistic(margin: Array, label_smoothing: float) -> Array:
  right = jax.nn.log_sigmoid(margin)
  if not label_smoothing:
    return -right
  return -(1.0 - label_smoothing) * right - label_smoothing * jax.nn.log_sigmoid(-margin)


def _log_odds(answers: Answers) -> Array:
  # An answer that is certain has infinite odds, and a gradient that is not a number.
  mean = jnp.minimum(answers.normalised().log_likelihood, -1e-6)
  return mean - jnp.log(-jnp.expm1(mean))

"""RLOO: a policy learns from rewards of its own answers (Ahmadian et al. 2024, arXiv 2402.14740).

Before each step K answers to each prompt are drawn from the policy (rollouts.py), and get rewards.
The reward of an answer is lowered by how much more probable it is under the policy than under the
reference model, times a weight. What an answer is better than the other answers to its prompt, on
average, multiplies the gradient of its log-likelihood.

Letters: B prompts, K answers to each, T decoder positions.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from aya_train import losses
from aya_train.data import feature_converters
from aya_train.objectives import objective, paired_answers, seq2seq

Array = jax.Array
Batch = Mapping[str, Array]


class Rollouts(Protocol):
  """What gives the answers of a batch, and their rewards."""

  def draw(
    self, model: 'RlooModel', params: Any, batch: Batch, key: Callable[[], Array], partitioner: Any
  ) -> Batch:
    """The batch with what `RlooModel.abstract_drawn` has more than it."""

  def check(self, model: 'RlooModel') -> None:
    """Refuses a reward or a reference that cannot be had, before anything long begins."""


@dataclasses.dataclass(frozen=True, eq=False)
class RlooModel(seq2seq.EncoderDecoderModel):
  """mT5 trained on rewards of its answers; it decodes and is exported as an EncoderDecoderModel.

  Attributes:
    rollouts: what draws answers and gives them rewards.
    num_answers: K, at least 2: each is held against the others.
    answer_length: T, the most tokens of an answer.
    temperature: that answers are drawn with.
    kl_weight: of log p - log r in the reward; 0: no reference model.
    normalise: divide advantages by the standard deviation of the batch's, as TRL may.
  """

  z_loss: float = 0.0
  rollouts: Any = None
  num_answers: int = 4
  answer_length: int = 64
  temperature: float = 1.0
  kl_weight: float = 0.05
  normalise: bool = False

  def __post_init__(self):
    super().__post_init__()
    if self.num_answers < 2:
      raise ValueError(
        f'RLOO_ANSWERS must be at least 2, got {self.num_answers}: the baseline of an answer is '
        'the mean reward of the others'
      )
    if self.answer_length < 1 or self.temperature <= 0.0 or self.kl_weight < 0.0:
      raise ValueError(
        'RLOO_ANSWER_LENGTH must be at least 1, RLOO_TEMPERATURE above 0 and RLOO_KL_WEIGHT at '
        f'least 0, got {self.answer_length}, {self.temperature} and {self.kl_weight}'
      )
    if self.z_loss or self.label_smoothing or self.loss_normalizing_factor is not None:
      raise ValueError(
        'rewards have no loss of tokens: Z_LOSS = 0.0, LABEL_SMOOTHING = 0.0 and '
        'LOSS_NORMALIZING_FACTOR = None, got '
        f'{self.z_loss!r}, {self.label_smoothing!r} and {self.loss_normalizing_factor!r}'
      )

  @property
  def feature_converter(self) -> feature_converters.FeatureConverter:  # type: ignore[override]
    return feature_converters.FeatureConverter(('inputs',))

  def check(self, platform: str) -> None:
    """Refuses also a reward or a reference that cannot be had."""
    super().check(platform)
    self.rollouts.check(self)

  def row_tokens(self, lengths: Mapping[str, int]) -> None:
    """Not told: most of a step's time goes into drawing answers, before what is compiled."""

  def metadata(self) -> dict[str, Any]:
    """As an EncoderDecoderModel's, with the loss under `objective`: it makes another run."""
    names = ('num_answers', 'answer_length', 'temperature', 'kl_weight', 'normalise')
    settings = {'loss': 'rloo', **{name: getattr(self, name) for name in names}}
    return {**super().metadata(), 'objective': settings}

  def abstract_drawn(
    self, batch: Mapping[str, jax.ShapeDtypeStruct]
  ) -> Mapping[str, jax.ShapeDtypeStruct]:
    """With `answers` int32 [B, K, T], and float32 [B, K] `rewards`, `policy` and `reference`.

    The last two are log-likelihoods of the answers.
    """
    rows = batch['inputs'].shape[0]
    each = jax.ShapeDtypeStruct((rows, self.num_answers), jnp.float32)
    answers = jax.ShapeDtypeStruct((*each.shape, self.answer_length), jnp.int32)
    return {**batch, 'answers': answers, **dict.fromkeys(('rewards', 'policy', 'reference'), each)}

  def draw(self, params: Any, batch: Batch, key: Callable[[], Array], partitioner: Any) -> Batch:
    """Answers of the policy to a batch's prompts, and their rewards."""
    return self.rollouts.draw(self, params, batch, key, partitioner)

  def answer_log_likelihoods(self, params: Any, inputs: Array, answers: Array) -> Array:
    """Of each answer, float32 [B, K].

    Args:
      params: parameters.
      inputs: prompts, int32 [B, S].
      answers: int32 [B, K, T], each ended by its end of sequence, if it is not T tokens long.
    """
    batch = {'encoder_input_tokens': inputs}
    words = jnp.pad(answers[..., :-1], ((0, 0), (0, 0), (1, 0)))
    features = paired_answers.decoder_features(self.module, params, batch, words, answers, None)
    flat = answers.reshape(-1, answers.shape[-1])

    def head(x: Array) -> Array:
      return self.module.apply({'params': params}, x, method='logits') / self.temperature

    if self.loss_chunk_length is None:
      token = losses.token_losses(head(features), flat)
    else:
      token = losses.chunked_token_losses(head, features, flat, self.loss_chunk_length)
    found = jnp.where(answers > 0, -token.cross_entropy.reshape(answers.shape), 0.0)
    return jnp.sum(found, axis=-1)

  def weigh(self, batch: Batch) -> tuple[Batch, Array]:
    """Adds `advantages` float32 [B, K]; the denominator is the number of prompts."""
    weights = batch['example_weights'][:, None]
    held = batch['rewards'] - self.kl_weight * (batch['policy'] - batch['reference'])
    advantages = advantages_of(held) * weights
    if self.normalise:
      count = jnp.maximum(jnp.sum(weights) * self.num_answers, 1.0)
      deviation = jnp.sqrt(jnp.sum(jnp.square(advantages)) / count)
      advantages = advantages / (deviation + 1e-4)
    return {**batch, 'advantages': advantages}, jnp.sum(batch['example_weights'])

  def sums(
    self, params: Any, batch: Batch, denominator: Array, dropout_key: Array | None
  ) -> tuple[Array, objective.Sums]:
    """The loss, whose gradient is RLOO's; sums over prompts of the means of their answers.

    `kl` is the mean of log p - log r of the answers, an estimate of KL(p || r).
    """
    del dropout_key
    found = self.answer_log_likelihoods(params, batch['inputs'], batch['answers'])
    loss = -jnp.sum(batch['advantages'] * found) / self.num_answers / denominator
    weights = batch['example_weights']
    lengths = jnp.sum(batch['answers'] > 0, axis=-1).astype(jnp.float32)
    per_prompt = {
      'reward': batch['rewards'],
      'kl': batch['policy'] - batch['reference'],
      'answer_length': lengths,
      'unended': (lengths == self.answer_length) & (batch['answers'][..., -1] != self.answer_end),
    }
    spread = jnp.std(batch['rewards'], axis=1)
    return loss, {
      'prompts': jnp.sum(weights),
      'reward_spread': jnp.sum(spread * weights),
      **{name: jnp.sum(x.mean(axis=1) * weights) for name, x in per_prompt.items()},
    }

  def readable(self, batch: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Each row's `inputs` as text."""
    return [{'inputs': str(self.input_vocabulary.decode(r.tolist()))} for r in batch['inputs']]

  def train_summary(self, sums: Mapping[str, Any], seconds: float) -> dict[str, float]:
    """Means over steps and prompts, and rates."""
    s = {name: float(value) for name, value in sums.items()}
    return {
      **{name: s[name] / s['steps'] for name in objective.OF_STEPS},
      **_summary(s),
      'steps_per_second': s['steps'] / seconds,
      'prompts_per_second': s['prompts'] / seconds,
    }

  def eval_summary(self, sums: Mapping[str, Any]) -> dict[str, float]:
    """`reward`, its `reward_spread` within a prompt, `kl`, `answer_length` in tokens, `unended`."""
    s = {name: float(value) for name, value in sums.items()}
    return {'loss': s['loss'] / max(s['denominator'], 1e-30), **_summary(s)}

  def train_line(self, summary: Mapping[str, float]) -> str:
    return f'{self.eval_line(summary)}  {summary["prompts_per_second"]:.1f} prompts/s'

  def eval_line(self, summary: Mapping[str, float]) -> str:
    return (
      f'reward {summary["reward"]:.4f}  KL {summary["kl"]:.4f}'
      f'  tokens {summary["answer_length"]:.0f}  unended {100 * summary["unended"]:.0f} %'
    )


def advantages_of(rewards: Array) -> Array:
  """Each reward less the mean of the other answers' to the same prompt, float32 [B, K]."""
  count = rewards.shape[1]
  others = (jnp.sum(rewards, axis=1, keepdims=True) - rewards) / (count - 1)
  return rewards - others


def _summary(s: Mapping[str, float]) -> dict[str, float]:
  prompts = max(s['prompts'], 1.0)
  names = ('reward', 'reward_spread', 'kl', 'answer_length', 'unended')
  return {name: s[name] / prompts for name in names}

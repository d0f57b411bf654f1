"""A reward model: which of two answers to a prompt is the better one, as a number for each.

The score of an answer is the logit of the padding id where the answer ends: a row of the head that
nothing else uses, since no target is padding. So the network is the one that it starts from, with
its checkpoints, conversions and exports.

Letters: B rows, K answers to each prompt, T decoder positions.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aya_train.data import pair_features
from aya_train.objectives import objective, paired_answers, seq2seq

Array = jax.Array
Batch = Mapping[str, Array]


@dataclasses.dataclass(frozen=True, eq=False)
class RewardModel(seq2seq.EncoderDecoderModel):
  """Trained by Bradley-Terry's model: -log sigmoid(score of chosen - score of rejected).

  Attributes:
    center_weight: of the squared sum of a pair's scores, which keeps them around 0 (Eisenstein et
      al. 2023; 0.01 there). 0: their level is free.
  """

  z_loss: float = 0.0
  center_weight: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    if self.z_loss or self.label_smoothing or self.loss_normalizing_factor is not None:
      raise ValueError(
        'a reward model has no loss of tokens: Z_LOSS = 0.0, LABEL_SMOOTHING = 0.0 and '
        'LOSS_NORMALIZING_FACTOR = None, got '
        f'{self.z_loss!r}, {self.label_smoothing!r} and {self.loss_normalizing_factor!r}'
      )
    if self.center_weight < 0.0:
      raise ValueError(f'REWARD_CENTER_WEIGHT must not be negative, got {self.center_weight!r}')

  @property
  def feature_converter(self) -> pair_features.AnswerPairFeatureConverter:  # type: ignore[override]
    return pair_features.AnswerPairFeatureConverter(packs=False)

  def row_tokens(self, lengths: Mapping[str, int]) -> objective.RowTokens:
    """Both answers, each with the logits of its end."""
    answer = max(lengths[name] for name in pair_features.PAIR)
    return objective.RowTokens((lengths['inputs'],), (answer, answer), 2)

  def metadata(self) -> dict[str, Any]:
    """As an EncoderDecoderModel's, with the loss under `objective`: it makes another run."""
    settings = {'loss': 'reward', 'center_weight': self.center_weight}
    return {**super().metadata(), 'objective': settings}

  def weigh(self, batch: Batch) -> tuple[Batch, Array]:
    """Adds `pair_weights` float32 [B]; the denominator is the number of pairs."""
    weights = (paired_answers.lengths(batch)[:, :, 0] > 0).all(axis=1).astype(jnp.float32)
    return {**batch, 'pair_weights': weights}, jnp.sum(weights)

  def scores(self, params: Any, inputs: Array, words: Array, targets: Array) -> Array:
    """Rewards, float32 [B, K]; of an answer without tokens any number.

    Args:
      params: parameters.
      inputs: prompts, int32 [B, S].
      words, targets: decoder inputs and targets, int32 [B, K, T], not packed.
    """
    batch = {'encoder_input_tokens': inputs}
    features = paired_answers.decoder_features(self.module, params, batch, words, targets, None)
    ends = jnp.maximum(jnp.sum(targets > 0, axis=-1) - 1, 0).reshape(-1, 1, 1)
    last = jnp.take_along_axis(features, ends, axis=1)
    logits = self.module.apply({'params': params}, last, method='logits')
    return logits[:, 0, 0].astype(jnp.float32).reshape(targets.shape[:2])

  def sums(
    self, params: Any, batch: Batch, denominator: Array, dropout_key: Array | None
  ) -> tuple[Array, objective.Sums]:
    """The loss, and sums over pairs of scores and of those that the scores order right."""
    del dropout_key
    words, targets = batch['decoder_input_tokens'], batch['decoder_target_tokens']
    scores = self.scores(params, batch['encoder_input_tokens'], words, targets)
    weights, margin = batch['pair_weights'], scores[:, 0] - scores[:, 1]
    each = -jax.nn.log_sigmoid(margin) + self.center_weight * jnp.square(scores.sum(axis=1))
    return jnp.sum(each * weights) / denominator, {
      'pairs': jnp.sum(weights),
      'margin': jnp.sum(margin * weights),
      'accurate': jnp.sum((margin > 0) * weights),
      'chosen_reward': jnp.sum(scores[:, 0] * weights),
      'rejected_reward': jnp.sum(scores[:, 1] * weights),
    }

  def readable(self, batch: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Each row's `examples`: texts of `inputs`, `chosen` and `rejected`."""
    return paired_answers.readable(batch, self.input_vocabulary, self.output_vocabulary)

  def train_summary(self, sums: Mapping[str, Any], seconds: float) -> dict[str, float]:
    """Means over steps and pairs, and rates."""
    s = {name: float(value) for name, value in sums.items()}
    return {
      **{name: s[name] / s['steps'] for name in objective.OF_STEPS},
      **_summary(s),
      'steps_per_second': s['steps'] / seconds,
      'pairs_per_second': s['pairs'] / seconds,
      'pairs_per_step': s['pairs'] / s['steps'],
    }

  def eval_summary(self, sums: Mapping[str, Any]) -> dict[str, float]:
    """The loss, `margin`, `accuracy` and the mean reward of either side, over all pairs."""
    s = {name: float(value) for name, value in sums.items()}
    return {'loss': s['loss'] / max(s['denominator'], 1e-30), **_summary(s), 'pairs': s['pairs']}

  def train_line(self, summary: Mapping[str, float]) -> str:
    return f'{self.eval_line(summary)}  {summary["pairs_per_second"]:.1f} pairs/s'

  def eval_line(self, summary: Mapping[str, float]) -> str:
    return (
      f'loss {summary["loss"]:.4f}  margin {summary["margin"]:.4f}'
      f'  right {100 * summary["accuracy"]:.1f} %'
    )


def _summary(s: Mapping[str, float]) -> dict[str, float]:
  pairs = max(s['pairs'], 1.0)
  names = ('margin', 'chosen_reward', 'rejected_reward')
  return {**{name: s[name] / pairs for name in names}, 'accuracy': s['accurate'] / pairs}

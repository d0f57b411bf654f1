"""Preference tuning of an encoder-decoder: of two answers to a prompt one was preferred.

The encoder runs once a prompt, whose features both answers see. Dropout is off, in training too:
the policy must be the model that the reference is held against. What a loss is, is said in
aya_train/preference_losses.py; here are the network, the sums of a batch and the figures.

Letters: B rows, T decoder positions, N places for pairs in a row: 1, or if packed 2 T.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aya_train import losses, preference_losses
from aya_train.data import feature_converters, pair_features
from aya_train.models import lora
from aya_train.objectives import objective, paired_answers, seq2seq

Array = jax.Array
Batch = Mapping[str, Array]
Answers = preference_losses.Answers

OF_SUMS = ('dpo', 'ipo', 'cpo')  # others say themselves what an answer's length does
REFERENCES = ('scores', 'adapter_off')
LENGTHS = ('summed', 'normalised', 'desensitised')
DEFAULT_NLL_WEIGHT = {'orpo': 1.0, 'cpo': 1.0}
_SETTINGS = (
  *('loss', 'beta', 'label_smoothing', 'gamma', 'nll_weight', 'length', 'tail_weight'),
  'reference',
  *('desirable_weight', 'undesirable_weight', 'reference_point'),
)


@dataclasses.dataclass(frozen=True, eq=False)
class PreferenceModel(seq2seq.EncoderDecoderModel):
  """mT5 trained on pairs of answers; it decodes and is exported as an EncoderDecoderModel.

  Attributes:
    loss: one of preference_losses.NAMES.
    beta: scale of the implicit reward.
    label_smoothing: chance in [0, 0.5) that a pair's label is wrong; of dpo, cpo and simpo.
    z_loss: must be 0.
    gamma: margin that simpo wants between the rewards.
    nll_weight: of the negative log-likelihood of chosen answers, a token; None: 1 in orpo and cpo,
      as published, 0 elsewhere.
    reference: where its log-likelihoods come from: 'scores' in the data; or 'adapter_off', the
      network without the adapter that is trained, which computes them for each batch.
    length: 'summed' log-likelihoods; 'normalised', by the token; or 'desensitised', where the
      log-likelihood of tokens beyond the shorter answer weighs `tail_weight`, the policy's and the
      reference's. Of dpo, ipo and cpo. None: 'normalised' in ipo, as its authors mean it,
      else 'summed'.
    tail_weight: in [0, 1].
    desirable_weight, undesirable_weight: of kto's answers.
    reference_point: kto's z; None for the published one, estimated from each batch: the mean log
      ratio of answers to other prompts, at least 0.
  """

  z_loss: float = 0.0
  loss: str = 'dpo'
  beta: float = 0.1
  gamma: float = 1.0
  nll_weight: float | None = None
  reference: str = 'scores'
  length: str | None = None
  tail_weight: float = 0.5
  desirable_weight: float = 1.0
  undesirable_weight: float = 1.0
  reference_point: float | None = None

  def __post_init__(self):
    super().__post_init__()
    if self.loss not in preference_losses.NAMES:
      raise ValueError(
        f'PREFERENCE_LOSS must be one of {preference_losses.NAMES}, got {self.loss!r}'
      )
    if self.length is None:
      object.__setattr__(self, 'length', 'normalised' if self.loss == 'ipo' else 'summed')
    if self.reference not in REFERENCES:
      raise ValueError(f'PREFERENCE_REFERENCE must be one of {REFERENCES}, got {self.reference!r}')
    if self.length not in LENGTHS:
      raise ValueError(f'PREFERENCE_LENGTH must be one of {LENGTHS}, got {self.length!r}')
    if self.length != 'summed' and self.loss not in OF_SUMS:
      raise ValueError(
        f"PREFERENCE_LENGTH {self.length!r} is for {OF_SUMS}; the loss {self.loss!r} needs 'summed'"
      )
    if self.beta <= 0.0:
      raise ValueError(f'PREFERENCE_BETA must be above 0, got {self.beta!r}')
    if self.label_smoothing >= 0.5:
      raise ValueError(
        f'PREFERENCE_LABEL_SMOOTHING must be in [0, 0.5), got {self.label_smoothing!r}: at 0.5 a '
        'label says nothing'
      )
    if self.label_smoothing and self.loss not in ('dpo', 'cpo', 'simpo'):
      raise ValueError(
        f'PREFERENCE_LABEL_SMOOTHING is for dpo, cpo and simpo; {self.loss!r} has none'
      )
    if self.z_loss or self.loss_normalizing_factor is not None:
      raise ValueError(
        'preference losses have no z-loss and count pairs: Z_LOSS = 0.0 and '
        f'LOSS_NORMALIZING_FACTOR = None, got {self.z_loss!r}, {self.loss_normalizing_factor!r}'
      )
    if not 0.0 <= self.tail_weight <= 1.0:
      raise ValueError(f'PREFERENCE_TAIL_WEIGHT must be in [0, 1], got {self.tail_weight!r}')
    for name, value in (
      ('PREFERENCE_NLL_WEIGHT', self.nll_weight or 0.0),
      ('SIMPO_GAMMA', self.gamma),
      ('KTO_DESIRABLE_WEIGHT', self.desirable_weight),
      ('KTO_UNDESIRABLE_WEIGHT', self.undesirable_weight),
    ):
      if value < 0.0:
        raise ValueError(f'{name} must not be negative, got {value!r}: it would teach the opposite')

  def check(self, platform: str) -> None:
    """Refuses also an adapter that is to be off where there is none."""
    super().check(platform)
    if self.reference == 'adapter_off' and self.adapter is None:
      raise ValueError(
        "PREFERENCE_REFERENCE = 'adapter_off' needs an adapter that is trained: add --gin_file="
        "recipes/lora.gin, or take the scores of `aya-train score` ('scores')"
      )

  def row_tokens(self, lengths: Mapping[str, int]) -> objective.RowTokens:
    """Both answers, in rows of one length, to what is encoded once."""
    answer = max(lengths[name] for name in pair_features.PAIR)
    return objective.RowTokens((lengths['inputs'],), (answer, answer), 2 * answer)

  @property
  def uses_reference(self) -> bool:
    """Whether the loss compares with a reference model."""
    return self.loss in preference_losses.WITH_REFERENCE

  @property
  def reads_scores(self) -> bool:
    """Whether rows must hold the log-likelihoods of a reference model."""
    return self.uses_reference and self.reference == 'scores'

  @property
  def compares_with_others(self) -> bool:
    """Whether rows must hold an answer to another prompt."""
    return self.loss == 'kto' and self.reference_point is None

  @property
  def feature_converter(self) -> feature_converters.FeatureConverter:  # type: ignore[override]
    wanted = {'unrelated': self.compares_with_others, 'reference': self.reads_scores}
    return pair_features.AnswerPairFeatureConverter(
      ('inputs', *pair_features.PAIR, *(name for name, is_read in wanted.items() if is_read)),
      answers={'kto': 'either', 'sft': 'chosen'}.get(self.loss, 'both'),
    )

  def metadata(self) -> dict[str, Any]:
    """As an EncoderDecoderModel's, with the loss under `objective`: it makes another run."""
    return {**super().metadata(), 'objective': {name: getattr(self, name) for name in _SETTINGS}}

  def weigh(self, batch: Batch) -> tuple[Batch, Array]:
    """Weighs each pair, or each answer where they are judged one by one.

    Returns:
      The batch with `pair_weights` float32 [B, N], or [B, 2, N] of single answers, 1 for each that
      counts; `token_weights` float32 [B], the weight of a chosen token's log-likelihood; and the
      number of those that count. So the loss is a mean over pairs plus a mean over chosen tokens.
    """
    lengths = paired_answers.lengths(batch)
    there = lengths > 0
    counted = {'kto': there, 'sft': there[:, 0]}.get(self.loss, there.all(axis=1))
    weights = counted.astype(jnp.float32)
    denominator = jnp.sum(weights)
    paired = weights if self.loss != 'kto' else there[:, 0].astype(jnp.float32)
    tokens = jnp.sum(lengths[:, 0] * paired)
    per_token = denominator / jnp.maximum(tokens, 1.0)
    rows = batch['encoder_input_tokens'].shape[0]
    return {
      **batch,
      'pair_weights': weights,
      'token_weights': jnp.full((rows,), per_token),
    }, denominator

  def look_ahead(self, params: Any, parts: Batch, keys: Array | None) -> Batch:
    """Computes what a row's loss needs besides the row.

    Returns:
      The parts, with `reference` float32 [N, B / N, places, len(SCORES)] of the network without its
      adapter, if that is the reference; and of KTO `reference_point`, float32 [N, B / N]: z of all
      rows.
    """
    del keys
    if self.uses_reference and not self.reads_scores:
      base = lora.base_alone(params)

      def scored(part: Batch) -> Array:
        return jnp.moveaxis(self.score_pairs(base, part), 1, 2)

      parts = {**parts, 'reference': jax.lax.map(scored, parts)}
    if not self.compares_with_others:
      return parts

    def one(part: Batch) -> tuple[Array, Array]:
      found = self._unrelated(params, part)
      real = found.length > 0
      return jnp.sum(jnp.where(real, found.log_ratio, 0.0)), jnp.sum(real, dtype=jnp.float32)

    totals, counts = jax.lax.map(one, parts)
    mean = jnp.sum(totals) / jnp.maximum(jnp.sum(counts), 1.0)
    z = jax.lax.stop_gradient(jnp.maximum(mean, 0.0))
    return {**parts, 'reference_point': jnp.full(parts['encoder_input_tokens'].shape[:2], z)}

  def _unrelated(self, params: Any, batch: Batch) -> Answers:
    """What is known of the answers to other prompts, [B, N] each."""
    targets, segments = batch['unrelated_target_tokens'], batch.get('unrelated_segment_ids')
    tokens = self._log_likelihoods(
      params,
      batch,
      batch['unrelated_input_tokens'][:, None],
      targets[:, None],
      None if segments is None else segments[:, None],
    )
    segments = None if segments is None else segments[:, None]
    places = paired_answers.places(batch)
    real = (targets > 0).astype(jnp.float32)[:, None]
    summed, lengths = (paired_answers.per_answer(x, segments, places)[:, 0] for x in (tokens, real))
    given = batch['reference'][:, :places, pair_features.SCORES.index('unrelated')]
    reference = jnp.pad(given, ((0, 0), (0, places - given.shape[1])))
    return Answers(summed, reference, lengths)

  def sums(
    self, params: Any, batch: Batch, denominator: Array, dropout_key: Array | None
  ) -> tuple[Array, objective.Sums]:
    """The loss, and what is counted of pairs; there is no dropout.

    Returns:
      The normalised loss, float32 [], and sums, each float32 []: of pairs, and over them of
      rewards, of the pairs that the rewards order right and of both log-likelihoods; of answers of
      either side, their tokens, and over them of the log ratio.
    """
    del dropout_key
    tokens = self._token_log_likelihoods(params, batch)
    lengths = paired_answers.lengths(batch)
    plain, scored = self._answers(tokens, lengths, batch)
    there = lengths > 0
    both = there.all(axis=1).astype(jnp.float32)
    total = jnp.sum(self._losses(plain, scored, batch) * batch['pair_weights'])
    nll_weight = DEFAULT_NLL_WEIGHT.get(self.loss, 0.0)
    nll_weight = nll_weight if self.nll_weight is None else self.nll_weight
    nll_weight = 1.0 if self.loss == 'sft' else nll_weight
    nll = jnp.sum(self._nll(plain[0], both, there) * batch['token_weights'][:, None])
    rewards = [self.beta * self._reward(side) for side in scored]
    margin = rewards[0] - rewards[1]
    sums = {
      'nll': nll / denominator,
      'prompts': jnp.sum(there.any(axis=1), dtype=jnp.float32),
      'pairs': jnp.sum(both),
      'margin': jnp.sum(margin * both),
      'accurate': jnp.sum((margin > 0) * both),
      'all_tokens': jnp.float32(
        batch['encoder_input_tokens'].size + batch['decoder_target_tokens'].size
      ),
      'real_tokens': jnp.sum(batch['encoder_input_tokens'] > 0, dtype=jnp.float32)
      + jnp.sum(lengths),
    }
    for i, name in enumerate(pair_features.PAIR):
      real = there[:, i].astype(jnp.float32)
      sums |= {
        f'{name}_answers': jnp.sum(real),
        f'{name}_tokens': jnp.sum(lengths[:, i]),
        f'{name}_reward': jnp.sum(rewards[i] * real),
        f'{name}_log_likelihood': jnp.sum(plain[i].log_likelihood * real),
      }
      if self.uses_reference:
        sums[f'{name}_log_ratio'] = jnp.sum(plain[i].log_ratio * real)
    if self.loss == 'kto':
      z = self._reference_point(batch)
      sums['reference_point'] = jnp.sum(jnp.broadcast_to(z, both.shape)[:, None] * there)
    return (total + nll_weight * nll) / denominator, sums

  def _reference_point(self, batch: Batch) -> Array:
    """KTO's z, float32 [B, 1] or [1, 1]."""
    if self.reference_point is not None:
      return jnp.full((1, 1), self.reference_point, jnp.float32)
    return batch['reference_point'][:, None]

  def _losses(self, plain: list[Answers], scored: list[Answers], batch: Batch) -> Array:
    """Of each pair, float32 [B, N]; of each answer, [B, 2, N], where they are judged alone."""
    smoothing: dict[str, Any] = {'label_smoothing': self.label_smoothing}
    match self.loss:
      case 'dpo':
        return preference_losses.dpo(*scored, beta=self.beta, **smoothing)
      case 'ipo':
        return preference_losses.ipo(*scored, beta=self.beta)
      case 'cpo':
        return preference_losses.cpo(*scored, beta=self.beta, **smoothing)
      case 'simpo':
        return preference_losses.simpo(*plain, beta=self.beta, gamma=self.gamma, **smoothing)
      case 'orpo':
        return preference_losses.orpo(*plain, beta=self.beta)
      case 'kto':
        options: dict[str, Any] = {
          'beta': self.beta,
          'reference_point': self._reference_point(batch),
          'desirable_weight': self.desirable_weight,
          'undesirable_weight': self.undesirable_weight,
        }
        good = (jnp.bool_(True), jnp.bool_(False))
        return jnp.stack(
          [preference_losses.kto(x, y, **options) for x, y in zip(plain, good, strict=True)],
          axis=1,
        )
    return jnp.zeros_like(plain[0].length)  # sft: the likelihood alone

  def _nll(self, chosen: Answers, both: Array, there: Array) -> Array:
    counted = there[:, 0] if self.loss in ('sft', 'kto') else both
    return preference_losses.nll(chosen) * counted

  def _reward(self, answers: Answers) -> Array:
    """What beta is multiplied with, [B, N]."""
    return (answers.normalised() if self.loss in ('simpo', 'orpo') else answers).log_ratio

  def _answers(
    self, tokens: Array, lengths: Array, batch: Batch
  ) -> tuple[list[Answers], list[Answers]]:
    """The two answers of each pair, [B, N] each: as they are, and as `length` has them."""
    places = lengths.shape[2]
    segments = batch.get('decoder_segment_ids')
    summed = paired_answers.per_answer(tokens, segments, places)
    reference = jnp.zeros((len(summed), len(pair_features.SCORES), places))
    if self.uses_reference:
      given = jnp.moveaxis(batch['reference'], 2, 1)[:, :, :places]
      reference = jnp.pad(given, ((0, 0), (0, 0), (0, places - given.shape[2])))
    plain = [Answers(summed[:, i], reference[:, i], lengths[:, i]) for i in (0, 1)]
    if self.length == 'normalised':
      return plain, [side.normalised() for side in plain]
    if self.length == 'desensitised':
      heads = self._heads(tokens, lengths, batch)

      def weigh(head: Array, whole: Array) -> Array:
        return preference_losses.desensitised(head, whole - head, self.tail_weight)

      return plain, [
        dataclasses.replace(
          side,
          log_likelihood=weigh(heads[:, i], summed[:, i]),
          reference=weigh(reference[:, 2 + i], reference[:, i]),
        )
        for i, side in enumerate(plain)
      ]
    return plain, plain

  def _heads(self, tokens: Array, lengths: Array, batch: Batch) -> Array:
    """Log-likelihoods of the tokens up to the length of the shorter answer, float32 [B, 2, N]."""
    shorter = jnp.min(lengths, axis=1, keepdims=True)
    segments = batch.get('decoder_segment_ids')
    heads = paired_answers.heads(tokens, shorter, batch)
    return paired_answers.per_answer(heads, segments, lengths.shape[2])

  def _token_log_likelihoods(self, params: Any, batch: Batch) -> Array:
    """Of each target token of both answers, float32 [B, 2, T], 0 at padding."""
    words, targets = batch['decoder_input_tokens'], batch['decoder_target_tokens']
    return self._log_likelihoods(params, batch, words, targets, batch.get('decoder_segment_ids'))

  def _log_likelihoods(
    self, params: Any, batch: Batch, words: Array, targets: Array, of_targets: Array | None
  ) -> Array:
    """Of each token of K answers to each prompt, float32 [B, K, T], 0 at padding.

    Args:
      params: parameters.
      batch: with the prompts.
      words, targets, of_targets: int32 [B, K, T]: decoder inputs, targets and, if packed, segments.
    """
    features = paired_answers.decoder_features(
      self.module, params, batch, words, targets, of_targets
    )
    flat = targets.reshape(-1, targets.shape[-1])

    def head(x: Array) -> Array:
      return self.module.apply({'params': params}, x, method='logits')

    if self.loss_chunk_length is None:
      token = losses.token_losses(head(features), flat)
    else:
      token = losses.chunked_token_losses(head, features, flat, self.loss_chunk_length)
    return jnp.where(targets > 0, -token.cross_entropy.reshape(targets.shape), 0.0)

  def score_pairs(self, params: Any, batch: Batch) -> Array:
    """SCORES of each pair, float32 [B, len(SCORES), N]; 0 for what is not there.

    A reference model scores with it, once; `pair_features.as_integers` writes them down.
    """
    tokens, lengths = self._token_log_likelihoods(params, batch), paired_answers.lengths(batch)
    summed = paired_answers.per_answer(tokens, batch.get('decoder_segment_ids'), lengths.shape[2])
    heads = self._heads(tokens, lengths, batch)
    other = jnp.zeros_like(summed[:, :1])
    if 'unrelated_target_tokens' in batch:
      zeros = jnp.zeros((len(summed), paired_answers.places(batch), len(pair_features.SCORES)))
      found = self._unrelated(params, {**batch, 'reference': zeros})
      other = found.log_likelihood[:, None]
    return jnp.concatenate([summed, heads, other], axis=1)

  # What people see

  def readable(self, batch: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Each row's `examples`: texts of `inputs`, `chosen` and `rejected`."""
    return paired_answers.readable(batch, self.input_vocabulary, self.output_vocabulary)

  def train_summary(self, sums: Mapping[str, Any], seconds: float) -> dict[str, float]:
    """Means over steps and pairs, and rates.

    Returns:
      `loss`, `nll` (its part of chosen tokens), `grad_norm`, `learning_rate`: means over steps;
      what `_pair_summary` gives; `steps_per_second`, `prompts_per_second`, `tokens_per_second`
      (non-padding, prompts once), `prompts_per_step`.
    """
    s = {name: float(value) for name, value in sums.items()}
    return {
      **{name: s[name] / s['steps'] for name in ('loss', 'nll', 'grad_norm', 'learning_rate')},
      **_pair_summary(s),
      'steps_per_second': s['steps'] / seconds,
      'prompts_per_second': s['prompts'] / seconds,
      'tokens_per_second': s['real_tokens'] / seconds,
      'prompts_per_step': s['prompts'] / s['steps'],
    }

  def eval_summary(self, sums: Mapping[str, Any]) -> dict[str, float]:
    """The same of an evaluation: the loss is a mean over all pairs."""
    s = {name: float(value) for name, value in sums.items()}
    denominator = max(s['denominator'], 1e-30)
    means = {name: s[name] / denominator for name in ('loss', 'nll')}
    return {**means, **_pair_summary(s), 'pairs': s['pairs']}

  def train_line(self, summary: Mapping[str, float]) -> str:
    return (
      f'{self.eval_line(summary)}  {summary["tokens_per_second"]:.0f} tokens/s'
      f'  {summary["prompts_per_second"]:.1f} prompts/s'
    )

  def eval_line(self, summary: Mapping[str, float]) -> str:
    right = f'  right {100 * summary["accuracy"]:.1f} %' if 'accuracy' in summary else ''
    return (
      f'loss {summary["loss"]:.4f}  margin {summary["margin"]:.4f}{right}'
      f'  tokens {summary["chosen_length"]:.0f} / {summary["rejected_length"]:.0f}'
    )


def _pair_summary(s: Mapping[str, float]) -> dict[str, float]:
  """`margin`, and `accuracy` over pairs if there are any; of each side's answers mean `_reward`,
  `_length` in tokens, `_log_likelihood_per_token` and, with a reference, `_log_ratio_per_token`.
  """
  pairs = max(s['pairs'], 1.0)
  summary = {
    'non_padding_fraction': s['real_tokens'] / s['all_tokens'],
  }
  for name in pair_features.PAIR:
    answers, tokens = (max(s[f'{name}_{what}'], 1.0) for what in ('answers', 'tokens'))
    summary |= {
      f'{name}_reward': s[f'{name}_reward'] / answers,
      f'{name}_length': s[f'{name}_tokens'] / answers,
      f'{name}_log_likelihood_per_token': s[f'{name}_log_likelihood'] / tokens,
    }
    if f'{name}_log_ratio' in s:
      summary[f'{name}_log_ratio_per_token'] = s[f'{name}_log_ratio'] / tokens
  if s['pairs']:
    summary |= {'margin': s['margin'] / pairs, 'accuracy': s['accurate'] / pairs}
  else:  # each answer was judged alone
    summary['margin'] = summary['chosen_reward'] - summary['rejected_reward']
  if 'reference_point' in s:
    answers = s['chosen_answers'] + s['rejected_answers']
    summary['reference_point'] = s['reference_point'] / max(answers, 1.0)
  return summary

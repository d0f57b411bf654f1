"""Losses and gradients against torch on the same weights, a live reference, and TRL's own code.

Formulas are those of TRL 1.16: trl/trainer/dpo_trainer.py (_compute_loss), trl/trainer/
kto_trainer.py and trl/experimental/{cpo,orpo}, which alone still take encoder-decoders.
"""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio
from flax import traverse_util

from aya_train.checkpoint.hf import hf_import
from aya_train.data import pair_features
from aya_train.models import network
from aya_train.objectives import preference, reward
from tests.objectives import test_preference
from tests.objectives.test_preference import PAIRS

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')
functional = torch.nn.functional
LOSSES = {
  'dpo': {'loss': 'dpo', 'beta': 0.3},
  'ld': {'loss': 'dpo', 'length': 'desensitised', 'tail_weight': 0.4},
  'ipo': {'loss': 'ipo'},
  'simpo': {'loss': 'simpo', 'beta': 2.0, 'gamma': 0.7, 'label_smoothing': 0.1},
  'orpo': {'loss': 'orpo', 'beta': 0.2},
  'cpo': {'loss': 'cpo'},
  'kto': {'loss': 'kto', 'undesirable_weight': 0.7, 'reference_point': None},
  'sft': {'loss': 'sft'},
}


OURS = {
  'shared.weight': ('token_embedder/embedding', lambda x: x),
  'lm_head.weight': ('decoder/logits_dense/kernel', lambda x: x.T),
  'decoder.final_layer_norm.weight': ('decoder/decoder_norm/scale', lambda x: x),
}


class Given(preference.PreferenceModel):
  """Whose parameters are the likelihoods of the tokens, [B, 2, T] and [B, 1, T']."""

  def _token_log_likelihoods(self, params, batch):
    return params[0]

  def _log_likelihoods(self, params, batch, words, targets, of_targets):
    return params[1]


@pytest.fixture(scope='module')
def models(tmp_path_factory):
  """A policy and a reference of torch, and the weights of both as ours."""
  folder = tmp_path_factory.mktemp('torch')
  settings = {'vocab_size': 96, 'd_model': 16, 'd_kv': 8, 'd_ff': 32, 'num_layers': 1}
  settings |= {'num_decoder_layers': 1, 'num_heads': 2, 'dropout_rate': 0.0}
  found = {}
  for seed, name in enumerate(('policy', 'reference')):
    torch.manual_seed(seed)
    hf = transformers.MT5ForConditionalGeneration(transformers.MT5Config(**settings)).eval()
    hf.lm_head.weight = torch.nn.Parameter(torch.randn(96, 16) / 4)
    hf.save_pretrained(folder / name)
    imported = hf_import.open_folder(folder / name)
    config = dataclasses.replace(imported.config, scan_layers=False)
    arrays = {n: jnp.asarray(x.read()) for n, x in imported.in_layout(config).items()}
    found[name] = hf, traverse_util.unflatten_dict(arrays, sep='/')
  return found, config


def others():
  return [PAIRS[i - 1]['chosen'] for i in range(len(PAIRS))]


def torch_log_likelihoods(model, answers):
  """Of each token, [N, T], and its mask; TRL's selective_log_softmax on labels with -100."""
  width = max(map(len, answers))
  labels = torch.tensor([[*x.tolist(), *[-100] * (width - len(x))] for x in answers])
  longest = max(len(x['inputs']) for x in PAIRS)
  inputs = torch.tensor([[*x['inputs'], *[0] * (longest - len(x['inputs']))] for x in PAIRS])
  mask = labels != -100
  words = functional.pad(labels.masked_fill(~mask, 0)[:, :-1], (1, 0))
  logits = model(inputs, attention_mask=(inputs > 0).long(), decoder_input_ids=words).logits
  logps = logits.double().log_softmax(-1)
  found = logps.gather(-1, labels.masked_fill(~mask, 0)[..., None])[..., 0]
  return found * mask, mask


def torch_loss(options, policy, reference):
  sides = [[x[name] for x in PAIRS] for name in pair_features.PAIR]
  (c, c_mask), (r, r_mask) = (torch_log_likelihoods(policy, side) for side in sides)
  with torch.no_grad():
    ref_c, ref_r = (torch_log_likelihoods(reference, side)[0] for side in sides)
  beta = options.get('beta', 0.1)
  lengths = c_mask.sum(1), r_mask.sum(1)
  nll = -c.sum() / lengths[0].sum()
  match options:
    case {'loss': 'dpo'}:
      alpha = options.get('tail_weight', 1.0)
      shared = torch.minimum(*lengths)[:, None]

      def weighed(logps):  # shared tokens, and alpha of the tail
        position = torch.arange(1, logps.shape[1] + 1)[None]
        return (logps * torch.where(position <= shared, 1.0, alpha)).sum(1)

      delta = weighed(c) - weighed(ref_c) - (weighed(r) - weighed(ref_r))
      return -functional.logsigmoid(beta * delta).mean()
    case {'loss': 'ipo'}:
      delta = (c - ref_c).sum(1) / lengths[0] - (r - ref_r).sum(1) / lengths[1]
      return ((delta - 1 / (2 * beta)) ** 2).mean()
    case {'loss': 'simpo'}:
      logits = c.sum(1) / lengths[0] - r.sum(1) / lengths[1] - options['gamma'] / beta
      smoothing = options['label_smoothing']
      right = functional.logsigmoid(beta * logits) * (1 - smoothing)
      return -(right + functional.logsigmoid(-beta * logits) * smoothing).mean()
    case {'loss': 'orpo'}:
      one, other = c.sum(1) / lengths[0], r.sum(1) / lengths[1]
      odds = (one - other) - (torch.log1p(-one.exp()) - torch.log1p(-other.exp()))
      return nll - beta * functional.logsigmoid(odds).mean()
    case {'loss': 'cpo'}:
      return nll - functional.logsigmoid(beta * (c.sum(1) - r.sum(1))).mean()
    case {'loss': 'kto'}:
      with torch.no_grad():
        kl, ref_kl = (torch_log_likelihoods(m, others())[0].sum(1) for m in (policy, reference))
      z = (kl - ref_kl).mean().clamp(min=0)
      good = 1 - torch.sigmoid(beta * ((c - ref_c).sum(1) - z))
      bad = 1 - torch.sigmoid(beta * (z - (r - ref_r).sum(1)))
      return torch.cat([good, options['undesirable_weight'] * bad]).mean()
  return nll


@pytest.mark.heavy
def test_losses_and_gradients_are_those_of_torch_with_a_live_reference(models):
  """The reference is scored once, and its scores go through the integers of a record."""
  (found, config) = models
  vocabulary = seqio.PassThroughVocabulary(96, eos_id=1)
  parts = network.Transformer(config), vocabulary, vocabulary
  plain = preference.PreferenceModel(*parts, loss='kto')
  names = {'inputs': 7, 'chosen': 6, 'rejected': 8, 'unrelated': 6}
  examples = [{**x, 'unrelated': o} for x, o in zip(PAIRS, others(), strict=True)]
  scored = jax.jit(plain.score_pairs)(
    found['reference'][1], test_preference.padded_batch(examples, names)
  )
  written = pair_features.as_integers(np.asarray(scored)[..., 0])
  examples = [{**x, 'reference': row} for x, row in zip(examples, written, strict=True)]
  batch = test_preference.padded_batch(examples, {**names, 'reference': 5})

  def likelihoods(params):
    targets = batch['unrelated_target_tokens'][:, None]
    words = batch['unrelated_input_tokens'][:, None]
    return (
      plain._token_log_likelihoods(params, batch),
      plain._log_likelihoods(params, batch, words, targets, None),
    )

  def losses(given):
    each = []
    for options in LOSSES.values():
      objective = Given(*parts, **options)
      weighed, denominator = objective.weigh(batch)
      halves = objective.look_ahead(
        given, jax.tree.map(lambda x: jnp.asarray(x)[None], weighed), None
      )
      part = jax.tree.map(lambda x: x[0], halves)
      each.append(objective.sums(given, part, denominator, None)[0])
    return jnp.stack(each)

  @jax.jit
  def values_and_gradients(params):
    given, pull = jax.vjp(likelihoods, params)
    back = jax.vmap(lambda cotangent: pull(cotangent)[0])
    return losses(given), back(jax.jacrev(losses)(given))

  values, gradients = values_and_gradients(found['policy'][1])
  policy, reference = found['policy'][0], found['reference'][0]
  flat = traverse_util.flatten_dict(gradients, sep='/')
  for i, (name, options) in enumerate(LOSSES.items()):
    policy.zero_grad()
    loss = torch_loss(options, policy, reference)
    loss.backward()
    assert float(values[i]) == pytest.approx(loss.item(), rel=2e-5), name
    for theirs, (key, turn) in OURS.items():
      gradient = policy.get_parameter(theirs).grad.numpy()
      scale = np.abs(gradient).max()
      np.testing.assert_allclose(
        turn(np.asarray(flat[key][i])), gradient, atol=2e-4 * scale, err_msg=f'{name} {theirs}'
      )


@pytest.mark.heavy
def test_a_reward_model_is_bradley_and_terrys_on_torchs_logits(models):
  """Loss and gradients; a reward is the logit of the padding id at an answer's last token."""
  found, config = models
  vocabulary = seqio.PassThroughVocabulary(96, eos_id=1)
  objective = reward.RewardModel(
    network.Transformer(config), vocabulary, vocabulary, center_weight=0.02
  )
  names = {'inputs': 7, 'chosen': 6, 'rejected': 8}
  batch, denominator = objective.weigh(test_preference.padded_batch(PAIRS, names))

  def loss(params):
    return objective.sums(params, batch, denominator, None)

  (value, sums), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(found['policy'][1])
  policy = found['policy'][0]
  policy.zero_grad()
  longest = max(len(x['inputs']) for x in PAIRS)
  rewards = []
  for name in pair_features.PAIR:
    each = []
    for x in PAIRS:  # one by one, without padding of answers
      inputs = torch.tensor([[*x['inputs'], *[0] * (longest - len(x['inputs']))]])
      words = torch.tensor([[0, *x[name][:-1]]])
      mask = (inputs > 0).long()
      logits = policy(inputs, attention_mask=mask, decoder_input_ids=words).logits
      each.append(logits[0, -1, 0])
    rewards.append(torch.stack(each))
  chosen, rejected = rewards
  wanted = -functional.logsigmoid(chosen - rejected) + 0.02 * (chosen + rejected) ** 2
  wanted.mean().backward()
  assert float(value) == pytest.approx(wanted.mean().item(), rel=2e-5)
  assert float(sums['accurate']) == (chosen > rejected).sum().item()
  assert float(sums['margin']) == pytest.approx((chosen - rejected).sum().item(), abs=1e-4)
  flat = traverse_util.flatten_dict(gradients, sep='/')
  for theirs, (key, turn) in OURS.items():
    gradient = policy.get_parameter(theirs).grad.numpy()
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(turn(np.asarray(flat[key])), gradient, atol=2e-4 * scale)


def test_trls_own_code_agrees(models):
  """cpo_loss and odds_ratio_loss of TRL, on log-likelihoods of its own concatenated_forward."""
  cpo = pytest.importorskip('trl.experimental.cpo.cpo_trainer')
  orpo = pytest.importorskip('trl.experimental.orpo.orpo_trainer')
  policy = models[0]['policy'][0]
  sides = [[x[name] for x in PAIRS] for name in pair_features.PAIR]
  (c, c_mask), (r, r_mask) = (torch_log_likelihoods(policy, side) for side in sides)
  one, other = c.sum(1).detach(), r.sum(1).detach()
  lengths = c_mask.sum(1), r_mask.sum(1)
  device = types.SimpleNamespace(device='cpu')
  common = {'accelerator': device, 'beta': 0.3, 'label_smoothing': 0.1, 'alpha': 0.0}
  from aya_train import preference_losses

  def answers(values, length):
    zeros = jnp.zeros(len(values))
    return preference_losses.Answers(jnp.asarray(values), zeros, jnp.asarray(length, jnp.float32))

  ours = [answers(x.numpy(), n.numpy()) for x, n in zip((one, other), lengths, strict=True)]
  trainer = types.SimpleNamespace(**common, loss_type='sigmoid')
  theirs = cpo.CPOTrainer.cpo_loss(trainer, one, other)[0]
  np.testing.assert_allclose(
    preference_losses.cpo(*ours, beta=0.3, label_smoothing=0.1), theirs, rtol=1e-5
  )
  trainer = types.SimpleNamespace(**common, loss_type='simpo', simpo_gamma=0.7)
  means = [x / n for x, n in zip((one, other), lengths, strict=True)]
  theirs = cpo.CPOTrainer.cpo_loss(trainer, *means)[0]
  np.testing.assert_allclose(
    preference_losses.simpo(*ours, beta=0.3, gamma=0.7, label_smoothing=0.1), theirs, rtol=1e-5
  )
  trainer = types.SimpleNamespace(accelerator=device, beta=0.2)
  theirs = orpo.ORPOTrainer.odds_ratio_loss(trainer, *means)[0]
  np.testing.assert_allclose(preference_losses.orpo(*ours, beta=0.2), -theirs, rtol=1e-4)

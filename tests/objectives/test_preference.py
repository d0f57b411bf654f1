"""Preference tuning on rows of pairs, packed and not: figures are those of each answer alone."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio

from aya_train import preference_losses, train_step
from aya_train.data import feature_converters, pair_features
from aya_train.models import network, t5_config
from aya_train.objectives import preference, seq2seq
from tests import tiny

NAMES = ('inputs', 'chosen', 'rejected')
LENGTHS = {'inputs': 7, 'chosen': 6, 'rejected': 8}


def model(**options) -> preference.PreferenceModel:
  config = t5_config.T5Config(
    **{**tiny.CONFIG, 'num_encoder_layers': 1, 'num_decoder_layers': 1, 'dropout_rate': 0.5}
  )
  vocabulary = seqio.PassThroughVocabulary(96, eos_id=1)
  return preference.PreferenceModel(network.Transformer(config), vocabulary, vocabulary, **options)


@pytest.fixture(scope='module')
def params():
  return tiny.params(model())


def pairs(count=4, seed=0):
  rng = np.random.default_rng(seed)
  sizes = rng.integers(1, [LENGTHS[n] - 1 for n in NAMES], (count, 3))
  return [
    {
      name: np.append(rng.integers(2, 96, size), 1).astype(np.int32)
      for name, size in zip(NAMES, row, strict=True)
    }
    for row in sizes
  ]


PAIRS = pairs()


def padded_batch(examples, lengths=LENGTHS, size=None):
  rows = feature_converters.padded(examples, lengths, size)
  names = tuple(lengths)
  return pair_features.AnswerPairFeatureConverter(names).convert(rows, packed=False)


def packed_batch(examples, per_row=2):
  """The examples of each row one after another, as the packer has them."""
  groups = [examples[i : i + per_row] for i in range(0, len(examples), per_row)]
  names = tuple(examples[0])
  rows = []
  for group in groups:
    row = {}
    for name in names:
      row[name] = np.concatenate([x[name] for x in group])
      row[f'{name}_segment_ids'] = np.concatenate(
        [np.full(len(x[name]), k) for k, x in enumerate(group, start=1)]
      )
      row[f'{name}_positions'] = np.concatenate([np.arange(len(x[name])) for x in group])
    rows.append(row)
  lengths = {
    **{n: per_row * LENGTHS[n] for n in NAMES},
    'reference': 5 * per_row,
    'unrelated': per_row * 8,
  }
  lengths = feature_converters.row_lengths({n: lengths[n] for n in names}, packed=True)
  return pair_features.AnswerPairFeatureConverter(names).convert(
    feature_converters.padded(rows, lengths), packed=True
  )


def scores(params, batch):
  return np.asarray(jax.jit(model().score_pairs)(params, batch))


def gradients(objective, params, batch, parts=1):
  return jax.jit(train_step.gradients, static_argnums=(0, 4))(
    objective, params, batch, jax.random.key(0), parts
  )


def with_reference(examples, seed=5):
  rng = np.random.default_rng(seed)
  values = -rng.uniform(5, 60, (len(examples), 5)).astype(np.float32)
  values[:, 2:4] = values[:, :2] * rng.uniform(0.3, 1.0, (len(examples), 2))  # heads
  return [
    {**x, 'reference': pair_features.as_integers(v)} for x, v in zip(examples, values, strict=True)
  ], values


WITH_REFERENCE, REFERENCE = with_reference(PAIRS)


def test_each_answer_scores_as_it_does_alone(params):
  sft = seq2seq.EncoderDecoderModel(*(getattr(model(), n) for n in ('module', *VOCABULARIES)))
  got = scores(params, padded_batch(PAIRS))
  assert got.shape == (4, 5, 1)
  for i, name in enumerate(pair_features.PAIR):
    alone = feature_converters.EncDecFeatureConverter().convert(
      feature_converters.padded(
        [{'inputs': x['inputs'], 'targets': x[name]} for x in PAIRS], {'inputs': 7, 'targets': 8}
      ),
      packed=False,
    )
    np.testing.assert_allclose(got[:, i, 0], jax.jit(sft.score_batch)(params, alone), rtol=1e-5)


VOCABULARIES = ('input_vocabulary', 'output_vocabulary')


def test_packed_answers_score_as_padded_ones(params):
  padded = scores(params, padded_batch(PAIRS, WIDE))[..., 0]  # and padding never counts
  packed = scores(params, packed_batch(PAIRS))
  again = np.stack([packed[i // 2, :, i % 2] for i in range(4)])
  np.testing.assert_allclose(again, padded, rtol=1e-5)
  assert not packed[:, :, 2:].any()


WIDE = {name: length + 5 for name, length in LENGTHS.items()}


@pytest.mark.heavy
def test_padding_never_counts_in_gradients(params):
  objective = model(loss='cpo')
  one, figures = gradients(objective, params, padded_batch(PAIRS))
  other, more = gradients(objective, params, padded_batch(PAIRS, WIDE, size=6))
  assert float(figures['loss']) == pytest.approx(float(more['loss']), rel=1e-5)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6), one, other)


OPTIONS = [
  {'loss': 'dpo', 'label_smoothing': 0.1},
  {'loss': 'dpo', 'length': 'normalised', 'beta': 2.0},
  {'loss': 'dpo', 'length': 'desensitised', 'tail_weight': 0.3, 'nll_weight': 0.2},
  {'loss': 'ipo'},
  {'loss': 'simpo', 'beta': 2.5, 'gamma': 1.4},
  {'loss': 'orpo'},
  {'loss': 'cpo'},
  {'loss': 'kto', 'undesirable_weight': 0.5, 'reference_point': 0.3},
  {'loss': 'sft'},
]


def log_sigmoid(x):
  return -np.log1p(np.exp(-np.asarray(x, np.float64)))


def expected(options, policy, reference, lengths, heads, z=0.3):
  """The mean loss of whole batches, written out: [4, 2] arrays of both answers."""
  beta = options.get('beta', 0.1)
  chosen_nll = -policy[:, 0].sum() / lengths[:, 0].sum()
  mean = policy / lengths
  match options['loss']:
    case 'dpo' | 'ipo':
      ratio = policy - reference[:, :2]
      if options.get('length') == 'desensitised':  # of both models, as in TRL 1.16
        head = heads - reference[:, 2:4]
        ratio = head + 0.3 * (ratio - head)
      if options.get('length') == 'normalised' or options['loss'] == 'ipo':
        ratio = ratio / lengths
      h = ratio[:, 0] - ratio[:, 1]
      if options['loss'] == 'ipo':
        return np.mean((h - 1 / (2 * beta)) ** 2)
      e = options.get('label_smoothing', 0.0)
      each = -(1 - e) * log_sigmoid(beta * h) - e * log_sigmoid(-beta * h)
      return each.mean() + options.get('nll_weight', 0.0) * chosen_nll
    case 'simpo':
      return -log_sigmoid(beta * (mean[:, 0] - mean[:, 1]) - options['gamma']).mean()
    case 'orpo':
      odds = mean - np.log1p(-np.exp(mean))
      return chosen_nll - beta * log_sigmoid(odds[:, 0] - odds[:, 1]).mean()
    case 'cpo':
      return chosen_nll - log_sigmoid(beta * (policy[:, 0] - policy[:, 1])).mean()
    case 'kto':
      away = beta * (policy - reference[:, :2] - z)
      good, bad = np.exp(log_sigmoid(-away[:, 0])), np.exp(log_sigmoid(away[:, 1]))
      return (good.sum() + options['undesirable_weight'] * bad.sum()) / 8
    case 'sft':
      return chosen_nll


class Known(preference.PreferenceModel):
  """With likelihoods that depend on the token alone, so that no network is compiled."""

  def _log_likelihoods(self, params, batch, words, targets, of_targets):
    return jnp.where(targets > 0, -(targets % 13 + 1) / 7, 0.0)


def known(**options):
  plain = model(**options)
  return Known(plain.module, *(getattr(plain, n) for n in VOCABULARIES), **options)


def by_hand():
  """Likelihoods, references, lengths and likelihoods of heads, [4, 2] each."""
  ids = [[x[n] for n in pair_features.PAIR] for x in PAIRS]
  tokens = [[-(answer % 13 + 1) / 7 for answer in pair] for pair in ids]
  lengths = np.asarray([[len(answer) for answer in pair] for pair in ids], np.float64)
  shorter = lengths.min(axis=1).astype(int)
  heads = [[x[:n].sum() for x in pair] for pair, n in zip(tokens, shorter, strict=True)]
  policy = np.asarray([[x.sum() for x in pair] for pair in tokens])
  return policy, REFERENCE.astype(np.float64), lengths, np.asarray(heads)


def total(objective, batch, params=None):
  def loss(params, batch):
    weighed, denominator = objective.weigh(batch)
    parts = objective.look_ahead(params, jax.tree.map(lambda x: x[None], weighed), None)
    part = jax.tree.map(lambda x: x[0], parts)
    return (*objective.sums(params, part, denominator, None), denominator)

  return jax.device_get(jax.jit(loss)(params, batch))


@pytest.mark.parametrize(
  ('options', 'packed'),
  [*((o, True) for o in OPTIONS), *((o, False) for o in OPTIONS[2:3])],
  ids=lambda o: '.'.join(map(str, o.values())) if isinstance(o, dict) else '',
)
def test_the_loss_of_a_batch_is_the_published_one(options, packed):
  objective = known(**options)
  examples = WITH_REFERENCE if objective.uses_reference else PAIRS
  lengths = {**LENGTHS, **({'reference': 5} if objective.uses_reference else {})}
  batch = packed_batch(examples) if packed else padded_batch(examples, lengths)
  loss, sums, _ = total(objective, batch)
  assert float(loss) == pytest.approx(expected(options, *by_hand()), rel=1e-5)
  assert float(sums['pairs']) == 4


@pytest.mark.heavy
def test_parts_of_a_batch_give_the_gradient_of_the_whole(params):
  objective = model(loss='cpo', label_smoothing=0.1)
  whole, figures = gradients(objective, params, padded_batch(PAIRS))
  parts, added = gradients(objective, params, padded_batch(PAIRS), parts=2)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6), whole, parts)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4), figures, added)


def test_against_itself_a_policy_has_no_reward():
  objective = known(loss='dpo')
  examples = [
    {**x, 'reference': pair_features.as_integers(np.append(v, [0, 0, 0]).astype(np.float32))}
    for x, v in zip(PAIRS, by_hand()[0], strict=True)
  ]
  batch = padded_batch(examples, {**LENGTHS, 'reference': 5})
  loss, sums, denominator = total(objective, batch)
  assert float(loss) == pytest.approx(math.log(2), rel=1e-5)
  figures = objective.eval_summary(
    {**sums, 'loss': denominator * loss, 'denominator': denominator, 'steps': 1.0}
  )
  assert figures['margin'] == pytest.approx(0.0, abs=1e-5)
  assert figures['chosen_log_ratio_per_token'] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.heavy
def test_dropout_is_off_in_training(params):
  objective = model(loss='cpo')
  weighed, denominator = objective.weigh(padded_batch(PAIRS))
  sums = jax.jit(objective.sums)
  keyed, _ = sums(params, weighed, denominator, jax.random.key(3))
  assert float(keyed) == float(sums(params, weighed, denominator, jax.random.key(4))[0])
  assert float(keyed) == pytest.approx(float(total(objective, weighed, params)[0]), rel=1e-6)


def test_the_encoder_runs_once_a_prompt(params):
  seen = []

  def note(call, args, kwargs, context):
    if isinstance(context.module, network.Encoder) and context.method_name == '__call__':
      seen.append(args[0].shape)
    return call(*args, **kwargs)

  with nn.intercept_methods(note):
    jax.eval_shape(model().score_pairs, params, padded_batch(PAIRS))
  assert seen == [(4, LENGTHS['inputs'])]


def test_an_answer_judged_alone_counts_alone():
  empty = np.zeros(0, np.int32)
  examples = [{**x, ('rejected', 'chosen')[i % 2]: empty} for i, x in enumerate(WITH_REFERENCE)]
  lengths = {**LENGTHS, 'reference': 5}
  kto = known(loss='kto', reference_point=0.0)
  for batch in (padded_batch(examples, lengths), packed_batch(examples)):
    loss, sums, denominator = total(kto, (batch))
    assert float(denominator) == 4
    assert float(sums['pairs']) == 0 and math.isfinite(loss)
    assert float(sums['chosen_answers']) == float(sums['rejected_answers']) == 2
  assert float(model(loss='cpo').weigh(padded_batch(examples, lengths))[1]) == 0


def test_log_likelihoods_survive_a_record_bit_for_bit():
  values = -np.random.default_rng(1).exponential(50, (3, 10)).astype(np.float32)
  values[0, 0] = 0.0
  written = pair_features.as_integers(values)
  assert written.dtype == np.int32 and (written >= 0).all()
  np.testing.assert_array_equal(pair_features.from_integers(written), values.reshape(3, 2, 5))


def test_people_read_the_texts_of_each_pair():
  rows = model().readable(packed_batch(PAIRS))
  assert [len(row['examples']) for row in rows] == [2, 2]
  assert {*rows[0]['examples'][0]} == {*NAMES}


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'loss': 'ppo'}, 'PREFERENCE_LOSS must be one of'),
    ({'loss': 'orpo', 'nll_weight': -1.0}, 'PREFERENCE_NLL_WEIGHT must not be negative, got -1.0'),
    ({'loss': 'simpo', 'gamma': -0.5}, 'SIMPO_GAMMA must not be negative'),
    ({'loss': 'kto', 'undesirable_weight': -1.0}, 'KTO_UNDESIRABLE_WEIGHT must not be negative'),
    ({'loss': 'simpo', 'length': 'normalised'}, "'simpo' needs 'summed'"),
    ({'loss': 'ipo', 'label_smoothing': 0.1}, "'ipo' has none"),
    ({'label_smoothing': 0.5}, r'in \[0, 0.5\)'),
    ({'beta': 0.0}, 'above 0'),
    ({'z_loss': 1e-4}, r'Z_LOSS = 0.0'),
    ({'length': 'desensitised', 'tail_weight': 1.5}, r'in \[0, 1\]'),
  ],
)
def test_settings_that_do_not_fit_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    model(**options)


def test_lengths_of_the_reference_are_checked():
  converter = model(loss='dpo').feature_converter
  converter.check({**LENGTHS, 'reference': 5}, pack=False)
  converter.check({**LENGTHS, 'reference': 65}, pack=True)
  with pytest.raises(ValueError, match='must be 5, got 4'):
    converter.check({**LENGTHS, 'reference': 4}, pack=False)
  with pytest.raises(ValueError, match='5 for each pair'):
    converter.check({**LENGTHS, 'reference': 3}, pack=True)


@pytest.mark.parametrize('loss', preference_losses.NAMES)
@pytest.mark.parametrize('pack', [False, True])
def test_lengths_of_texts_are_all_that_a_user_gives(loss, pack):
  lengths = pair_features.feature_lengths({**LENGTHS, 'targets': 9}, loss=loss, pack=pack)
  model(loss=loss).feature_converter.check(lengths, pack=pack)
  assert pair_features.decoding_lengths(LENGTHS) == {'inputs': 7, 'targets': 8}
  with pytest.raises(ValueError, match="'rejected'"):
    pair_features.feature_lengths({'inputs': 3, 'chosen': 4}, loss=loss, pack=pack)
  found = pair_features.feature_lengths({'inputs': 3, 'targets': 4}, loss=loss, pack=pack)
  assert found['chosen'] == found['rejected'] == 4
  with pytest.raises(ValueError, match='reference needs none'):
    pair_features.feature_lengths({**LENGTHS, 'reference': 2}, loss=loss, pack=pack)


UNRELATED = [
  {**x, 'unrelated': WITH_REFERENCE[i - 1]['chosen']} for i, x in enumerate(WITH_REFERENCE)
]


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('sign', [1.0, -1.0])
def test_the_reference_point_of_kto_is_that_of_the_whole_batch(packed, sign):
  """z = max(0, mean log ratio of mismatched answers), as TRL has it, whatever the parts."""
  values = np.array(REFERENCE)
  tokens = np.asarray([(-(x['unrelated'] % 13 + 1) / 7).sum() for x in UNRELATED])
  values[:, 4] = np.minimum(tokens - sign * np.arange(1, 5), 0)
  examples = [
    {**x, 'reference': pair_features.as_integers(v)} for x, v in zip(UNRELATED, values, strict=True)
  ]
  lengths = {**LENGTHS, 'unrelated': 8, 'reference': 5}
  batch = packed_batch(examples) if packed else padded_batch(examples, lengths, size=4)
  objective = known(loss='kto')
  z = max(0.0, float(np.mean(tokens - values[:, 4])))
  assert (z > 0) == (sign > 0)
  policy, _, *others = by_hand()
  loss, sums, _ = total(objective, batch)
  assert float(loss) == pytest.approx(
    expected({'loss': 'kto', 'undesirable_weight': 1.0}, policy, values, *others, z=z), rel=1e-5
  )
  assert float(sums['reference_point']) / 8 == pytest.approx(z, rel=1e-5)
  weighed, _ = objective.weigh(batch)
  halves = jax.tree.map(lambda x: jnp.asarray(x).reshape(2, -1, *x.shape[1:]), weighed)
  found = objective.look_ahead(None, halves, None)['reference_point']
  np.testing.assert_allclose(found, z, rtol=1e-5)


def test_data_that_teach_nothing_are_refused():
  counts = {'inputs': {3: 4}, 'chosen': {0: 4}, 'rejected': {5: 4}}
  with pytest.raises(ValueError, match='none of 4 rows has a chosen answer: all labels'):
    model(loss='kto').feature_converter.check_examples('set:train', counts)
  with pytest.raises(ValueError, match=r"4 of 4 rows have no chosen.*'kto'"):
    model(loss='dpo').feature_converter.check_examples('set:train', counts)
  counts['chosen'] = {0: 1, 4: 3}
  model(loss='kto').feature_converter.check_examples('set:train', counts)
  model(loss='sft').feature_converter.check_examples('set:train', counts)


def test_pairs_that_the_lengths_make_equal_are_refused(caplog):
  def cut(*answers):
    return [{'chosen': np.asarray(c), 'rejected': np.asarray(r)} for c, r in answers]

  converter = model(loss='cpo').feature_converter
  with pytest.raises(ValueError, match=r'the same tokens in 2 of 2 pairs .* Longer TASK_FEATURE'):
    converter.check_cut('set:train', cut(([5, 1], [5, 1]), ([6, 1], [6, 1])))
  assert not caplog.messages
  converter.check_cut('set:train', cut(([5, 1], [5, 1]), ([6, 1], [7, 1])))
  assert '1 of 2 pairs' in caplog.text
  for loss in ('kto', 'sft'):  # which compare no two answers
    model(loss=loss).feature_converter.check_cut('set:train', cut(([5, 1], [5, 1])))


@pytest.mark.heavy
def test_sft_on_chosen_is_supervised_fine_tuning(params):
  objective = model(loss='sft')
  sft = seq2seq.EncoderDecoderModel(
    *(getattr(objective, n) for n in ('module', *VOCABULARIES)),
    z_loss=0.0,
    loss_normalizing_factor='NUM_REAL_TARGET_TOKENS',
  )
  chosen = feature_converters.EncDecFeatureConverter().convert(
    feature_converters.padded(
      [{'inputs': x['inputs'], 'targets': x['chosen']} for x in PAIRS],
      {'inputs': 7, 'targets': 6},
    ),
    packed=False,
  )
  wanted = total(sft, chosen, params)[0]
  assert float(total(objective, padded_batch(PAIRS), params)[0]) == pytest.approx(wanted, rel=1e-5)

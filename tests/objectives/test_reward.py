"""A reward model: Bradley-Terry on the padding id's logit where an answer ends."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_train import metric_writer, train_loop
from aya_train.checkpoint import formats, manager, reading
from aya_train.data import batching, pair_features
from aya_train.objectives import reward
from tests import tiny
from tests.objectives import test_preference, test_preference_run
from tests.objectives.test_preference import LENGTHS, PAIRS, WIDE, padded_batch

task = test_preference_run.task
SCORES = np.asarray([[2.0, 1.0], [-1.0, 0.5], [0.25, 0.25], [-3.0, -7.0]], np.float32)


def model(**options) -> reward.RewardModel:
  plain = tiny.model(num_encoder_layers=1, num_decoder_layers=1)
  parts = plain.module, plain.input_vocabulary, plain.output_vocabulary
  return reward.RewardModel(*parts, **options)


class Known(reward.RewardModel):
  """Whose parameters are the scores, [B, 2]."""

  def scores(self, params, inputs, words, targets):
    return params


def known(**options):
  return Known(**{f.name: getattr(model(**options), f.name) for f in dataclasses.fields(Known)})


def measured(objective, scores, batch):
  weighed, denominator = objective.weigh(batch)
  loss, sums = objective.sums(jnp.asarray(scores), weighed, denominator, None)
  return float(loss), sums, float(denominator)


@pytest.fixture(scope='module')
def params():
  return tiny.params(model())


def scores_of(params, batch):
  names = ('encoder_input_tokens', 'decoder_input_tokens', 'decoder_target_tokens')
  return np.asarray(jax.jit(model().scores)(params, *(batch[name] for name in names)))


@pytest.mark.parametrize('center_weight', [0.0, 0.01])
def test_the_loss_is_that_of_bradley_and_terry(center_weight):
  loss, sums, pairs = measured(known(center_weight=center_weight), SCORES, padded_batch(PAIRS))
  chosen, rejected = SCORES.T.astype(np.float64)
  each = np.log1p(np.exp(rejected - chosen)) + center_weight * (chosen + rejected) ** 2
  assert loss == pytest.approx(each.mean(), rel=1e-6)
  assert pairs == float(sums['pairs']) == 4
  # Equal scores order nothing.
  assert float(sums['accurate']) == 2
  assert float(sums['margin']) == pytest.approx((chosen - rejected).sum(), rel=1e-6)


def test_a_pair_without_one_of_its_answers_and_rows_of_padding_do_not_count():
  examples = [{**PAIRS[0], 'rejected': np.zeros(0, np.int32)}, *PAIRS[1:]]
  wanted = measured(known(), SCORES[1:], padded_batch(PAIRS[1:]))
  padded = np.concatenate([SCORES, np.full((2, 2), 9.0, np.float32)])
  found = measured(known(), padded, padded_batch(examples, size=6))
  assert found[0] == pytest.approx(wanted[0], rel=1e-6) and found[2] == 3
  for name, value in wanted[1].items():
    assert float(found[1][name]) == pytest.approx(float(value), rel=1e-6), name


def test_parts_of_an_evaluation_add_up_to_the_whole():
  objective = known()
  added: dict[str, float] = {'loss': 0.0, 'denominator': 0.0}
  for rows in (slice(0, 3), slice(3, 4)):
    loss, sums, pairs = measured(objective, SCORES[rows], padded_batch(PAIRS[rows]))
    more = {**sums, 'loss': loss * pairs, 'denominator': pairs}
    added = {name: added.get(name, 0.0) + float(value) for name, value in more.items()}
  summary = objective.eval_summary(added)
  assert summary['accuracy'] == 0.5 and summary['pairs'] == 4
  assert summary['loss'] == pytest.approx(measured(objective, SCORES, padded_batch(PAIRS))[0])
  assert summary['chosen_reward'] == pytest.approx(SCORES[:, 0].mean())
  assert summary['margin'] == pytest.approx(summary['chosen_reward'] - summary['rejected_reward'])
  assert 'right 50.0 %' in objective.eval_line(summary)


@pytest.mark.heavy
def test_an_answer_scores_as_it_does_alone_whatever_the_padding(params):
  """The logit of id 0 at the last token, the end of the sequence."""
  objective = model()
  together = scores_of(params, padded_batch(PAIRS, WIDE))
  assert together.dtype == np.float32 and together.shape == (4, 2)
  for i, pair in enumerate(PAIRS):
    for k, name in enumerate(pair_features.PAIR):
      answer = jnp.asarray(pair[name])[None]
      words = jnp.pad(answer[:, :-1], ((0, 0), (1, 0)))
      logits = objective.module.apply(
        {'params': params}, jnp.asarray(pair['inputs'])[None], words, answer, enable_dropout=False
      )
      assert together[i, k] == pytest.approx(float(logits[0, -1, 0]), rel=1e-4, abs=1e-5)


@pytest.mark.heavy
def test_accuracy_rises_a_resumed_run_is_the_same_and_its_checkpoint_scores_as_it_did(tmp_path):
  settings = {**test_preference_run.settings(tmp_path, 'cpo'), 'model': model()}
  cfg = batching.DatasetConfig(
    *('tests.preference_run', test_preference_run.LENGTHS, 'train', 8),
    pack=False,
    prepared_dir=str(tmp_path / 'prepared'),
  )
  evaluated = dataclasses.replace(cfg, split='validation')
  settings |= {'train_dataset_cfg': cfg, 'train_eval_dataset_cfg': evaluated}
  run = functools.partial(train_loop.train, **settings)
  whole = run(model_dir=str(tmp_path / 'whole'), total_steps=12)
  records = list(metric_writer.read(tmp_path / 'whole'))
  accuracy = [r['accuracy'] for r in records if r['kind'] == 'train_eval']
  assert accuracy[-1] == 1.0
  run(model_dir=str(tmp_path / 'parts'), total_steps=6)
  resumed = run(model_dir=str(tmp_path / 'parts'), total_steps=12)
  jax.tree.map(np.testing.assert_array_equal, whole.params, resumed.params)
  objective = model()
  read = reading.read_for(
    objective, settings['partitioner'], formats.detect(manager.find(tmp_path / 'whole'))
  )
  batch = padded_batch(test_preference.pairs(3, seed=4), LENGTHS)
  np.testing.assert_array_equal(scores_of(read, batch), scores_of(whole.params, batch))
  with pytest.raises(ValueError, match=r"another loss: .*'reward' there"):
    train_loop.train(
      **{**test_preference_run.settings(tmp_path, 'cpo'), 'train_dataset_cfg': cfg},
      model_dir=str(tmp_path / 'parts'),
      total_steps=13,
    )


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'center_weight': -0.1}, 'REWARD_CENTER_WEIGHT must not be negative'),
    ({'z_loss': 1e-4}, 'Z_LOSS = 0.0'),
    ({'label_smoothing': 0.1}, 'LABEL_SMOOTHING = 0.0'),
  ],
)
def test_settings_that_do_not_fit_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    model(**options)


def test_pairs_are_not_packed():
  with pytest.raises(ValueError, match='PACK'):
    model().feature_converter.check({**LENGTHS}, pack=True)

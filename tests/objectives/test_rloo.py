"""RLOO: the published gradient, and a toy reward that rises through the real trainer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio
import tensorflow as tf

from aya_train import metric_writer, optimizer, partitioning, rollouts, train_loop
from aya_train.checkpoint import manager
from aya_train.data import batching
from aya_train.objectives import rloo
from tests import tiny

OPTIONS = {'num_answers': 4, 'answer_length': 6}


def model(source='tests.objectives.test_rloo:low_ids', reference=None, **options):
  plain = tiny.model(num_encoder_layers=1, num_decoder_layers=1)
  return rloo.RlooModel(
    plain.module,
    plain.input_vocabulary,
    plain.output_vocabulary,
    rollouts=rollouts.Rollouts(source=source, reference=reference),
    **{**OPTIONS, **options},
  )


def low_ids(prompts, answers):
  """The share of ids below 40: about 0.4 at random."""
  del prompts
  ids = [[int(token) for token in answer.split()] for answer in answers]
  return [float(np.mean([token < 40 for token in row])) if row else 0.0 for row in ids]


def all_the_same(prompts, answers):
  del prompts
  return [0.0] * len(answers)


def test_the_baseline_of_an_answer_is_the_mean_of_the_others():
  rewards = jnp.asarray([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]])
  expected = [[1 - 4.0, 2 - 3.5, 6 - 1.5], [0, 0, 0]]
  np.testing.assert_allclose(rloo.advantages_of(rewards), expected)


def test_advantages_are_those_of_the_paper():
  """Advantages are rewards, lowered by the KL term, less the mean of the other answers."""
  objective = model(kl_weight=0.5)
  scores = jnp.asarray([[-1.0, -2.0, -4.0, -3.0], [-2.0, -2.0, -1.0, -5.0]])
  reference = scores - jnp.asarray([[1.0, 0.0, -1.0, 0.5], [0.0, 2.0, 0.0, 0.0]])
  batch = {
    'example_weights': jnp.asarray([1.0, 1.0]),
    'rewards': jnp.asarray([[1.0, 0.0, 3.0, 2.0], [0.0, 1.0, 0.0, 0.0]]),
    'policy': scores,
    'reference': reference,
  }
  weighed, denominator = objective.weigh(batch)
  held = np.asarray(batch['rewards'] - 0.5 * (scores - reference), np.float64)
  expected = np.array([[r - (row.sum() - r) / 3 for r in row] for row in held])
  np.testing.assert_allclose(weighed['advantages'], expected, rtol=1e-5)
  assert float(denominator) == 2


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'num_answers': 1}, 'at least 2'),
    ({'temperature': 0.0}, 'RLOO_TEMPERATURE above 0'),
    ({'z_loss': 1e-4}, 'Z_LOSS = 0.0'),
  ],
)
def test_settings_that_do_not_fit_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    model(**options)


def test_a_reward_or_reference_that_cannot_be_had_is_refused_at_once():
  with pytest.raises(ValueError, match='nothing says which model'):
    model(kl_weight=0.1).check('cpu')
  with pytest.raises(ValueError, match='needs an adapter'):
    model(kl_weight=0.1, reference='adapter_off').check('cpu')
  with pytest.raises(ValueError, match='no reward'):
    model(source='tests.objectives.test_rloo:none', kl_weight=0.0).check('cpu')


def test_no_answer_has_padding_in_it():
  """Its likelihood could not be told: padding is neither scored nor looked at."""
  objective = model(source='tests.objectives.test_rloo:all_the_same', kl_weight=0.0)
  mesh = partitioning.one_device()  # nothing was checked before, as where steps are made again
  inputs = np.random.default_rng(0).integers(2, 96, (64, 5)).astype(np.int32)
  batch = mesh.place({'inputs': inputs, 'example_weights': np.ones(64, np.float32)})
  drawn = objective.draw(tiny.params(objective), batch, lambda: jax.random.key(0), mesh)
  answers = np.asarray(drawn['answers'])
  assert ((answers > 0).sum(-1) < 6).any()
  for answer in answers.reshape(-1, 6):
    length = (answer > 0).sum()
    assert (answer[:length] > 0).all()
    assert length == 6 or answer[length - 1] == objective.answer_end


@pytest.fixture(scope='module')
def prompts():
  def examples(split, shuffle_files, seed=None):
    del split, shuffle_files, seed
    rows = np.random.default_rng(0).integers(2, 96, (16, 5))
    return tf.data.Dataset.from_tensor_slices({'inputs': tf.constant(rows, tf.int32)})

  seqio.TaskRegistry.add(
    'tests.rloo',
    source=seqio.FunctionDataSource(examples, splits=('train', 'validation')),
    preprocessors=[],
    output_features={
      'inputs': seqio.Feature(seqio.PassThroughVocabulary(96, eos_id=1), add_eos=False)
    },
  )
  yield 'tests.rloo'
  seqio.TaskRegistry.remove('tests.rloo')


@pytest.mark.heavy
def test_a_toy_reward_rises_and_a_resumed_run_draws_the_same_answers(prompts, tmp_path):
  class Words(seqio.PassThroughVocabulary):
    def decode(self, ids):
      return ' '.join(str(i) for i in ids)

  words = Words(96, eos_id=1)
  objective = model(kl_weight=0.0)
  objective = rloo.dataclasses.replace(objective, input_vocabulary=words, output_vocabulary=words)
  run = functools.partial(
    train_loop.train,
    model=objective,
    train_dataset_cfg=batching.DatasetConfig(
      *(prompts, {'inputs': 5}, 'train', 8), pack=False, prepared_dir=str(tmp_path / 'prepared')
    ),
    train_eval_dataset_cfg=None,
    infer_eval_cfg=None,
    checkpoint_cfg=manager.CheckpointConfig(period=20),
    partitioner=partitioning.Partitioner(
      {'data': 1, 'model': 1}, partitioning.standard_logical_axis_rules(), jax.devices()[:1]
    ),
    optimizer=optimizer.adafactor,
    learning_rate_fn=optimizer.create_learning_rate_scheduler('constant', 0.03),
    schedule=train_loop.Schedule(log_period=5, eval_period=40, eval_steps=None),
    random_seed=0,
  )
  whole = run(model_dir=str(tmp_path / 'whole'), total_steps=40)
  records = [r for r in metric_writer.read(tmp_path / 'whole') if r['kind'] == 'train']
  assert records[-1]['reward'] > records[0]['reward'] + 0.2
  run(model_dir=str(tmp_path / 'parts'), total_steps=20)
  resumed = run(model_dir=str(tmp_path / 'parts'), total_steps=40)
  jax.tree.map(np.testing.assert_array_equal, whole.params, resumed.params)

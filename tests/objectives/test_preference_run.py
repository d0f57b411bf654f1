"""Packed pairs through the real trainer, and the recipe."""

import dataclasses
import functools

import gin
import jax
import numpy as np
import pytest
import seqio
import tensorflow as tf

from aya_train import (
  config,
  metric_writer,
  optimizer,
  partitioning,
  reference_scoring,
  train_loop,
)
from aya_train.checkpoint import formats, manager, reading
from aya_train.data import batching, pair_features
from aya_train.models import lora
from aya_train.objectives import preference
from tests.objectives import test_preference

LENGTHS = {'inputs': 14, 'chosen': 16, 'rejected': 16}
SIZES = {'train': 24, 'validation': 5}


def test_the_recipe_builds_the_objective():
  bindings = [
    'MODEL_DIR = "somewhere"',
    'MIXTURE_OR_TASK_NAME = "pairs"',
    "TASK_FEATURE_LENGTHS = {'inputs': 8, 'chosen': 8, 'rejected': 8}",
    'TRAIN_STEPS = 3',
    'INITIAL_CHECKPOINT_PATH = None',
    'PREFERENCE_LOSS = "simpo"',
    'PREFERENCE_BETA = 2.5',
  ]
  try:
    config.parse(
      ['models/mt5_small.gin', 'recipes/preference.gin', 'hardware/cpu_local.gin'], bindings
    )
    assert 'PreferenceModel' in str(config.macro('MODEL'))
    assert config.macro('PREFERENCE_BETA') == 2.5
    assert config.macro('INFER_EVAL_CFG') is None
  finally:
    gin.clear_config()


def register_task():
  """Adds the task 'tests.preference_run', 24 pairs and 5."""

  def examples(split, shuffle_files, seed=None):
    del shuffle_files, seed
    rows = test_preference.pairs(SIZES[split], seed=len(split))
    for row in rows:  # a law to learn: chosen answers hold other tokens than rejected ones
      row['chosen'][:-1] = 2 + row['chosen'][:-1] % 20
      row['rejected'][:-1] = 60 + row['rejected'][:-1] % 20
    columns = {n: tf.ragged.constant([r[n].tolist() for r in rows]) for n in rows[0]}
    dataset = tf.data.Dataset.from_tensor_slices(columns)
    return dataset.map(lambda x: {k: tf.cast(v, tf.int32) for k, v in x.items()})

  feature = seqio.Feature(seqio.PassThroughVocabulary(96, eos_id=1), add_eos=False)
  seqio.TaskRegistry.add(
    'tests.preference_run',
    source=seqio.FunctionDataSource(examples, splits=tuple(SIZES)),
    preprocessors=[],
    output_features=dict.fromkeys(LENGTHS, feature),
  )


@pytest.fixture(scope='module', autouse=True)
def task():
  register_task()
  yield
  seqio.TaskRegistry.remove('tests.preference_run')


def mesh(data, model=1):
  return partitioning.Partitioner(
    {'data': data, 'model': model},
    partitioning.standard_logical_axis_rules(parameter_partitioning_dims=2),
    jax.devices()[: data * model],
  )


def dataset(folder, loss, size=8, pack=False, reference=None):
  """The pairs, with what the loss reads beside them."""
  lengths = pair_features.feature_lengths(LENGTHS, loss=loss, pack=pack)
  return batching.DatasetConfig(
    *('tests.preference_run', lengths, 'train', size),
    pack=pack,
    prepared_dir=str(folder / 'prepared'),
    reference_checkpoint=reference,
  )


def scored(folder, loss, **options):
  """A reference of one step in `folder`, and the pairs with its scores."""
  path = folder / 'reference'
  train_loop.train(**settings(folder, 'cpo'), model_dir=str(path), total_steps=1)
  cfg = dataset(folder, loss, reference=str(path), **options)
  reference_scoring.score(
    model=test_preference.model(loss=loss),
    checkpoint_path=str(path),
    partitioner=mesh(1),
    train_dataset_cfg=cfg,
    train_eval_dataset_cfg=dataclasses.replace(cfg, split='validation'),
  )
  return cfg


def figures(model_dir):
  """Losses, norms of gradients, margins and more of each step, and the parameters at the end.

  Not the accuracy: where the policy is still the reference, a margin is 0 but for its last bit.
  """
  names = ('loss', 'grad_norm', 'margin', 'chosen_length', 'reference_point')
  steps = [
    (r['kind'], r['step'], name, r[name])
    for r in metric_writer.read(model_dir)
    for name in names
    if r['kind'] in ('train', 'train_eval') and name in r
  ]
  opened = formats.open_checkpoint(formats.detect(model_dir))
  return steps, {name: np.asarray(x.read()) for name, x in opened.params.items()}


def assert_same_figures(one, other):
  for (*place, wanted), (*at, found) in zip(one[0], other[0], strict=True):
    assert at == place and found == pytest.approx(wanted, rel=2e-4, abs=1e-5), place
  assert {*one[1]} == {*other[1]}
  for name, wanted in one[1].items():
    np.testing.assert_allclose(other[1][name], wanted, rtol=2e-3, atol=2e-5, err_msg=name)


def settings(folder, loss, devices=1, **model):
  """Arguments of `train_loop.train`, but for the steps and the directory."""
  return {
    'model': test_preference.model(loss=loss, **model),
    'train_dataset_cfg': batching.DatasetConfig(
      *('tests.preference_run', LENGTHS, 'train', 4), prepared_dir=str(folder / 'prepared')
    ),
    'train_eval_dataset_cfg': None,
    'infer_eval_cfg': None,
    'checkpoint_cfg': manager.CheckpointConfig(period=3),
    'partitioner': partitioning.Partitioner(
      {'data': devices, 'model': 1},
      partitioning.standard_logical_axis_rules(),
      jax.devices()[:devices],
    ),
    'optimizer': optimizer.adafactor,
    'learning_rate_fn': optimizer.create_learning_rate_scheduler('constant', 0.03),
    'schedule': train_loop.Schedule(log_period=1, eval_period=6, eval_steps=None),
    'random_seed': 0,
    'num_microbatches': 2,
  }


@pytest.mark.heavy
def test_margins_rise_and_a_resumed_run_is_the_same_bit_for_bit(tmp_path):
  run = functools.partial(train_loop.train, **settings(tmp_path, 'cpo'))
  whole = run(model_dir=str(tmp_path / 'whole'), total_steps=6)
  records = [r for r in metric_writer.read(tmp_path / 'whole') if r['kind'] == 'train']
  assert records[-1]['margin'] > records[0]['margin'] + 0.1
  run(model_dir=str(tmp_path / 'parts'), total_steps=3)
  resumed = run(model_dir=str(tmp_path / 'parts'), total_steps=6)
  jax.tree.map(np.testing.assert_array_equal, whole.params, resumed.params)
  with pytest.raises(
    ValueError, match="holds a run of another loss: loss 'cpo' there, 'orpo' here"
  ):
    train_loop.train(**settings(tmp_path, 'orpo'), model_dir=str(tmp_path / 'parts'), total_steps=7)


@pytest.mark.heavy
@pytest.mark.parametrize('loss', ['dpo', 'kto'])
def test_eight_devices_train_as_one(tmp_path, loss):
  """Losses, gradients and parameters after three steps, with scores of a reference."""
  cfg = scored(tmp_path, loss)
  evaluated = dataclasses.replace(cfg, split='validation')
  for name, partitioner in (('one', mesh(1)), ('eight', mesh(4, 2))):
    options = {**settings(tmp_path, loss), 'partitioner': partitioner}
    options |= {'train_dataset_cfg': cfg, 'train_eval_dataset_cfg': evaluated}
    options |= {'initial_checkpoint_path': cfg.reference_checkpoint}
    train_loop.train(**options, model_dir=str(tmp_path / name), total_steps=None, relative_steps=3)
  one, eight = (figures(tmp_path / name) for name in ('one', 'eight'))
  assert len({step for kind, step, *_ in one[0] if kind == 'train'}) == 3
  assert_same_figures(one, eight)


@pytest.mark.heavy
@pytest.mark.parametrize('loss', ['dpo', 'kto'])
def test_an_adapter_that_is_off_is_the_reference_that_was_scored(tmp_path, loss):
  """Log ratios, losses, gradients: of the scores of `score`, of the base, of two live models."""
  cfg = scored(tmp_path, loss)
  plain = test_preference.model(loss=loss)
  module = lora.transformer(plain.config, 2, 4.0, ('q', 'v'), base_weights='float32')
  trained = {}
  for reference in preference.REFERENCES:
    model = dataclasses.replace(plain, module=module, reference=reference)
    lengths = pair_features.feature_lengths(LENGTHS, loss=loss, pack=False, reference=reference)
    options = {**settings(tmp_path, loss), 'model': model, 'optimizer': optimizer.adamw}
    options['train_dataset_cfg'] = dataclasses.replace(cfg, task_feature_lengths=lengths)
    options['initial_checkpoint_path'] = cfg.reference_checkpoint
    state = train_loop.train(
      **options, model_dir=str(tmp_path / reference), total_steps=None, relative_steps=3
    )
    steps = [r for r in metric_writer.read(tmp_path / reference) if r['kind'] == 'train']
    trained[reference] = state, steps
  (one, of_scores), (other, of_adapter) = (trained[name] for name in preference.REFERENCES)
  for a, b in zip(of_scores, of_adapter, strict=True):
    for name in ('loss', 'grad_norm', 'margin', 'chosen_reward', 'rejected_reward'):
      assert b[name] == pytest.approx(a[name], rel=1e-3, abs=1e-5), name
  assert abs(of_scores[-1]['margin']) > 1e-4
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-2, atol=1e-5), one.params, other.params
  )

  # Two live models: what the policy and the base themselves say of the pairs.
  source = formats.detect(cfg.reference_checkpoint)
  base = reading.read_for(plain, mesh(1), source)
  batch = test_preference.padded_batch(test_preference.pairs(4, seed=9), test_preference.LENGTHS)
  model = dataclasses.replace(plain, module=module, reference='adapter_off')
  live = jax.jit(plain.score_pairs)(base, batch)
  weighed, _ = model.weigh(batch)
  if loss == 'dpo':
    ahead = jax.jit(lambda p, b: model.look_ahead(p, b, None))(
      other.all_params, jax.tree.map(lambda x: x[None], weighed)
    )
    np.testing.assert_allclose(
      np.moveaxis(np.asarray(ahead['reference'][0]), 1, 2), live, rtol=1e-5, atol=1e-5
    )
  apart = np.abs(np.asarray(jax.jit(model.score_pairs)(other.all_params, batch)) - live)[:, :2]
  assert apart.max() > 1e-3

"""Packed pairs through the real trainer, and the recipe."""

import functools

import gin
import jax
import numpy as np
import pytest
import seqio
import tensorflow as tf

from aya_train import config, metric_writer, optimizer, partitioning, train_loop
from aya_train.checkpoint import manager
from aya_train.data import batching
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


@pytest.fixture(scope='module', autouse=True)
def task():
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
  yield
  seqio.TaskRegistry.remove('tests.preference_run')


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

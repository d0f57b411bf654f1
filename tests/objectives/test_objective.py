"""An objective that is no sequence to sequence goes through the real trainer."""

import dataclasses
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio
import tensorflow as tf

from aya_train import metric_writer, optimizer, partitioning, train_loop, train_state, train_step
from aya_train.checkpoint import formats, manager
from aya_train.data import batching, feature_converters, prepared
from aya_train.evaluation import evaluation
from aya_train.objectives import objective

LENGTHS = {'left': 6, 'right': 4}


class Pairs(objective.Objective):
  """Mean squared distance of two bags of words."""

  feature_converter = feature_converters.FeatureConverter(('left', 'right'))

  def initial_variables(self, rng):
    init = nn.with_logical_partitioning(nn.initializers.normal(1.0), ('vocab', 'embed'))
    return {'table': init(rng, (64, 16))}

  def sums(self, params, batch, denominator, dropout_key):
    left, right = (params['table'][batch[side]].mean(axis=1) for side in LENGTHS)
    distances = jnp.sum(jnp.square(left - right), axis=1) * batch['example_weights']
    return distances.sum() / denominator, {'far': jnp.sum(distances > 1.0, dtype=jnp.float32)}


@pytest.fixture(scope='module', autouse=True)
def task():
  rng = np.random.default_rng(0)
  rows = {split: rng.integers(2, 64, (count, 2, 8)) for split, count in SIZES.items()}

  def examples(split, shuffle_files, seed=None):
    columns = {
      'left': tf.ragged.constant(
        [row[0][: 2 + i % 5].tolist() for i, row in enumerate(rows[split])]
      ),
      'right': tf.ragged.constant(
        [row[1][: 1 + i % 4].tolist() for i, row in enumerate(rows[split])]
      ),
    }
    dataset = tf.data.Dataset.from_tensor_slices(columns)
    return dataset.map(lambda x: {k: tf.cast(v, tf.int32) for k, v in x.items()})

  feature = seqio.Feature(seqio.PassThroughVocabulary(64, eos_id=1), add_eos=False)
  seqio.TaskRegistry.add(
    'tests.pairs',
    source=seqio.FunctionDataSource(examples, splits=tuple(SIZES)),
    preprocessors=[],
    output_features=dict.fromkeys(LENGTHS, feature),
  )
  yield
  seqio.TaskRegistry.remove('tests.pairs')


SIZES = {'train': 40, 'validation': 11}


def settings(model_dir, prepared_dir, devices=1, **changes):
  cfg = batching.DatasetConfig(
    'tests.pairs', LENGTHS, 'train', batch_size=8, pack=False, prepared_dir=str(prepared_dir)
  )
  return {
    'model': Pairs(),
    'model_dir': str(model_dir),
    'train_dataset_cfg': cfg,
    'train_eval_dataset_cfg': dataclasses.replace(cfg, split='validation', shuffle=False),
    'infer_eval_cfg': None,
    'checkpoint_cfg': manager.CheckpointConfig(period=3),
    'partitioner': partitioning.Partitioner(
      {'data': devices // 2 or 1, 'model': min(devices, 2)},
      partitioning.standard_logical_axis_rules(),
      jax.devices()[:devices],
    ),
    'optimizer': optimizer.adafactor,
    'learning_rate_fn': optimizer.create_learning_rate_scheduler('constant', 0.1),
    'schedule': train_loop.Schedule(log_period=1, eval_period=6, eval_steps=None),
    'total_steps': 6,
    'random_seed': 0,
    **changes,
  }


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('prepared')


@pytest.fixture(scope='module')
def finished(folder, tmp_path_factory):
  model_dir = tmp_path_factory.mktemp('pairs')
  state = train_loop.train(**settings(model_dir, folder))
  return model_dir, jax.device_get(state)


def figures(model_dir, kind):
  return [r for r in metric_writer.read(model_dir) if r['kind'] == kind]


def test_it_learns_and_its_figures_are_logged(finished):
  model_dir, _ = finished
  train = figures(model_dir, 'train')
  assert [r['step'] for r in train] == [1, 2, 3, 4, 5, 6]
  assert train[-1]['loss'] < 0.8 * train[0]['loss']
  assert {'loss', 'far', 'grad_norm', 'learning_rate', 'steps_per_second'} <= {*train[0]}


def test_validation_is_the_mean_over_all_rows_and_none_that_fill_a_batch(finished):
  model_dir, state = finished
  (record,) = figures(model_dir, 'train_eval')
  task = seqio.TaskRegistry.get('tests.pairs')
  distances = []
  for example in task.source.get_dataset('validation', shuffle=False).as_numpy_iterator():
    means = []
    for side, length in LENGTHS.items():
      ids = np.zeros(length, np.int32)
      ids[: len(example[side])] = example[side]
      means.append(state.params['table'][ids].mean(axis=0))
    distances.append(np.square(means[0] - means[1]).sum())
  assert len(distances) == SIZES['validation']
  assert record['loss'] == pytest.approx(np.mean(distances), rel=1e-5)


def test_a_record_holds_the_features_that_the_task_declares(finished, folder):
  task = seqio.TaskRegistry.get('tests.pairs')
  ready = prepared.PreparedTask(prepared.prepared_path(task, 'train', folder))
  expected = list(task.source.get_dataset('train', shuffle=False).as_numpy_iterator())
  assert len(ready) == len(expected)
  for example, wanted in zip((ready[i] for i in range(len(ready))), expected, strict=True):
    assert {name: array.tolist() for name, array in example.items()} == {
      name: array.tolist() for name, array in wanted.items()
    }


def test_resumed_equals_uninterrupted_bit_for_bit(finished, folder, tmp_path):
  _, state = finished
  train_loop.train(**settings(tmp_path, folder, total_steps=3))
  resumed = train_loop.train(**settings(tmp_path, folder))
  np.testing.assert_array_equal(state.params['table'], resumed.params['table'])


@pytest.mark.parametrize('changes', [{'num_microbatches': 4}, {'devices': 8}])
def test_microbatches_and_devices_change_nothing(finished, folder, tmp_path, changes):
  _, state = finished
  other = train_loop.train(**settings(tmp_path, folder, **changes))
  np.testing.assert_allclose(state.params['table'], other.params['table'], rtol=1e-4, atol=1e-5)


def test_a_run_of_another_objective_in_the_same_folder_is_refused(finished, folder):
  class Others(Pairs):
    pass

  with pytest.raises(ValueError, match="objective 'Pairs' there, 'Others' here"):
    train_loop.train(**settings(finished[0], folder, model=Others()))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'pack': True}, 'PACK = False'),
    ({'task_feature_lengths': {'left': 6}}, r"each of \('left', 'right'\)"),
    ({'mixture_or_task_name': 'tests.only_left'}, r"lacks the features \['right'\]"),
  ],
)
def test_data_that_the_objective_does_not_read_are_refused_first(folder, tmp_path, change, message):
  feature = seqio.Feature(seqio.PassThroughVocabulary(64, eos_id=1), add_eos=False)
  seqio.TaskRegistry.remove('tests.only_left')
  seqio.TaskRegistry.add(
    'tests.only_left',
    source=seqio.FunctionDataSource(
      lambda split, shuffle_files, seed=None: None, splits=('train', 'validation')
    ),
    preprocessors=[],
    output_features={'left': feature},
  )
  run = settings(tmp_path / 'run', folder)
  run['train_dataset_cfg'] = dataclasses.replace(run['train_dataset_cfg'], **change)
  with pytest.raises(ValueError, match=message):
    train_loop.train(**run)
  assert not (tmp_path / 'run').exists()


def test_decoding_that_is_named_is_refused_and_a_default_is_left_out(folder, tmp_path, caplog):
  from aya_train.evaluation import infer_eval

  wanted = infer_eval.InferEvalConfig('tests.pairs', LENGTHS, batch_size=8)
  with caplog.at_level('WARNING'):
    train_loop.train(**settings(tmp_path, folder, infer_eval_cfg=wanted, total_steps=1))
  assert 'Pairs decodes nothing' in caplog.text


def test_a_step_can_be_compiled_from_shapes_alone():
  model = Pairs()
  run = settings('unused', 'unused')
  tx = run['optimizer'](run['learning_rate_fn'], objective.parameter_axes(model)[1])
  state = train_state.abstract_state(model, tx, run['partitioner'])
  step = train_step.make_train_step(
    model, tx, run['learning_rate_fn'], run['partitioner'], state, 2
  )
  one_row = feature_converters.padded([], LENGTHS, 1)
  batch = {
    name: jax.ShapeDtypeStruct((8, *x.shape[1:]), x.dtype)
    for name, x in model.feature_converter.convert(one_row, packed=False).items()
  }
  lowered = step.lower(state, batch)
  assert lowered.out_info[1]['far'].shape == ()


def test_a_run_starts_from_the_weights_of_another(finished, folder, tmp_path):
  model_dir, state = finished
  run = settings(
    tmp_path,
    folder,
    initial_checkpoint_path=str(model_dir),
    total_steps=7,
    schedule=train_loop.Schedule(log_period=1, eval_before_training=True, eval_steps=None),
  )
  train_loop.train(**run)
  first = figures(tmp_path, 'train_eval')[0]
  assert first['step'] == int(state.step) == 6
  assert first['loss'] == pytest.approx(figures(model_dir, 'train_eval')[-1]['loss'], rel=1e-6)


def test_checkpoints_of_other_parameters_are_refused(finished, folder, tmp_path):
  class Others(Pairs):
    pass

  run = settings(tmp_path, folder, model=Others(), initial_checkpoint_path=str(finished[0]))
  with pytest.raises(ValueError, match=r"holds .*'Pairs'.*the objective is .*'Others'"):
    train_loop.train(**run)
  with pytest.raises(ValueError, match='parameters of the objective Pairs'):
    formats.open_checkpoint(formats.detect(finished[0]))


def test_a_checkpoint_is_evaluated(finished, folder, tmp_path):
  model_dir, _ = finished
  run = settings('unused', folder)
  found = evaluation.evaluate(
    model=Pairs(),
    checkpoint_path=str(model_dir),
    partitioner=run['partitioner'],
    output_dir=str(tmp_path),
    dataset_cfg=run['train_eval_dataset_cfg'],
  )
  expected = figures(model_dir, 'train_eval')[-1]
  assert found['train_eval']['loss'] == pytest.approx(expected['loss'], rel=1e-6)


def without_weights(self, params, batch, denominator, dropout_key):
  return jnp.float32(0), {'seen': batch['wights'].sum()}


def of_each_row(self, params, batch, denominator, dropout_key):
  return batch['example_weights'], {}


def counted_in_integers(self, params, batch, denominator, dropout_key):
  return jnp.float32(0), {'rows': jnp.int32(8)}


def named_as_the_trainers(self, params, batch, denominator, dropout_key):
  return jnp.float32(0), {'grad_norm': jnp.float32(0)}


@pytest.mark.parametrize(
  ('sums', 'message'),
  [
    (without_weights, "cannot be computed on a batch of .*left.*KeyError: 'wights'"),
    (of_each_row, r"float32 scalars.*'the loss': 'float32\[1\]'"),
    (counted_in_integers, r"float32 scalars.*'rows': 'int32\[\]'"),
    (named_as_the_trainers, r"\['grad_norm'\]: the trainer has sums of these names"),
  ],
)
def test_sums_that_do_not_add_up_are_refused_first(folder, tmp_path, sums, message):
  model = type('Wrong', (Pairs,), {'sums': sums})()
  with pytest.raises(ValueError, match=message):
    train_loop.train(**settings(tmp_path / 'run', folder, model=model))
  assert not (tmp_path / 'run').exists()


def test_parameters_without_logical_axes_are_named(folder, tmp_path):
  class Bare(Pairs):
    def initial_variables(self, rng):
      return {'table': jnp.zeros((64, 16))}

  with pytest.raises(ValueError, match=r"\[\"\['table'\]\"\].*with_logical_partitioning"):
    train_loop.train(**settings(tmp_path / 'run', folder, model=Bare()))


@pytest.mark.parametrize(
  ('size', 'pad', 'eos', 'message'),
  [
    (129, 0, 1, r'has 129 ids but the model has 128 .* T5Config\.vocab_size to at least 256'),
    (96, 1, 0, 'has pad 1 and eos 0; mT5 needs pad 0 and eos 1'),
    (96, 0, 2, 'has pad 0 and eos 2'),
  ],
)
def test_a_vocabulary_of_other_ids_is_refused(size, pad, eos, message):
  def vocabulary(size, pad, eos):
    return types.SimpleNamespace(vocab_size=size, pad_id=pad, eos_id=eos)

  with pytest.raises(ValueError, match=f'the targets vocabulary {message}'):
    objective.check_fits(vocabulary(size, pad, eos), 128, 'targets vocabulary')
  objective.check_fits(vocabulary(128, 0, 1), 128, 'targets vocabulary')

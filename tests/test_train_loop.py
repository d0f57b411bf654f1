import dataclasses
import functools
import os
import shutil
import time

import jax
import numpy as np
import pytest
import seqio
import tensorflow as tf
from etils import epath

from aya_train import decoding, lease, metric_writer, optimizer, partitioning, train_loop
from aya_train.checkpoint import manager
from aya_train.data import batching
from aya_train.evaluation import evaluation, infer_eval
from tests import tiny

VOCABULARY = seqio.PassThroughVocabulary(96, eos_id=1)


def _examples(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
  rng = np.random.default_rng(0 if split == 'train' else 1)
  rows = [rng.integers(3, 20, rng.integers(2, 7)).tolist() for _ in range(64)]

  def generate():
    for row in rows:
      yield {'inputs': row, 'targets': row[:3]}

  spec = tf.TensorSpec([None], tf.int32)
  return tf.data.Dataset.from_generator(
    generate, output_signature={'inputs': spec, 'targets': spec}
  )


def _match(targets, predictions):
  return {
    'match': float(np.mean([list(t) == list(p) for t, p in zip(targets, predictions, strict=True)]))
  }


def register_task():
  """Adds the SeqIO task `tests.copy`: the targets are the first three input ids."""
  feature = seqio.Feature(VOCABULARY, add_eos=True)
  seqio.TaskRegistry.add(
    'tests.copy',
    source=seqio.FunctionDataSource(_examples, splits=('train', 'validation')),
    preprocessors=[seqio.preprocessors.append_eos],
    output_features={'inputs': feature, 'targets': feature},
    metric_fns=[_match],
  )


@pytest.fixture(scope='module', autouse=True)
def copy_task():
  register_task()
  yield
  seqio.TaskRegistry.remove('tests.copy')


@pytest.fixture(scope='module')
def prepared_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('prepared')


def settings(model_dir, prepared_dir, **changes):
  lengths = {'inputs': 16, 'targets': 8}
  cfg = batching.DatasetConfig(
    'tests.copy', lengths, 'train', batch_size=4, prepared_dir=str(prepared_dir)
  )
  return {
    'model': tiny.model({'loss_normalizing_factor': 'AVERAGE_PER_SEQUENCE'}, dropout_rate=0.1),
    'model_dir': str(model_dir),
    'train_dataset_cfg': cfg,
    'train_eval_dataset_cfg': dataclasses.replace(cfg, split='validation', shuffle=False),
    'infer_eval_cfg': None,
    'checkpoint_cfg': manager.CheckpointConfig(period=2),
    'partitioner': partitioning.Partitioner(
      {'data': 1, 'model': 1}, partitioning.standard_logical_axis_rules(), jax.devices()[:1]
    ),
    'optimizer': optimizer.adafactor,
    'learning_rate_fn': optimizer.create_learning_rate_scheduler('constant', 0.01),
    'schedule': train_loop.Schedule(log_period=1, eval_period=100, eval_steps=2),
    'total_steps': 4,
    'random_seed': 0,
    **changes,
  }


def losses(model_dir):
  return {r['step']: r['loss'] for r in metric_writer.read(model_dir) if r['kind'] == 'train'}


@pytest.fixture(scope='module')
def finished(tmp_path_factory, prepared_dir):
  """A run of four steps that was never stopped, decoded at the end."""
  model_dir = tmp_path_factory.mktemp('uninterrupted')
  infer = infer_eval.InferEvalConfig(
    'tests.copy', {'inputs': 16, 'targets': 8}, batch_size=8, num_examples=12
  )
  state = train_loop.train(**settings(model_dir, prepared_dir, infer_eval_cfg=infer))
  return model_dir, jax.device_get(state)


def test_resumed_equals_uninterrupted_bit_for_bit(finished, tmp_path, prepared_dir):
  model_dir, state = finished
  train_loop.train(**settings(tmp_path, prepared_dir, total_steps=2))
  resumed = jax.device_get(train_loop.train(**settings(tmp_path, prepared_dir)))
  assert losses(tmp_path) == losses(model_dir)
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(resumed), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('name', ['[lr=1e-3]', 'a*b/c', 'q?'])
def test_a_folder_that_orbax_takes_for_a_pattern_is_refused(tmp_path, prepared_dir, name):
  with pytest.raises(ValueError, match=r'MODEL_DIR .* has [*?\[] in its path.*Give a folder'):
    train_loop.train(**settings(tmp_path / name, prepared_dir))
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('place', ['checkpoints', 'checkpoints/4', 'checkpoints/5'])
def test_a_checkpoint_is_no_model_dir(finished, prepared_dir, place):
  model_dir, _ = finished
  before = sorted(model_dir.rglob('*'))
  with pytest.raises(FileExistsError, match=r'MODEL_DIR .*INITIAL_CHECKPOINT_PATH'):
    train_loop.train(**settings(model_dir / place, prepared_dir))
  assert sorted(model_dir.rglob('*')) == before


def test_a_checkpoint_says_how_long_the_targets_are(finished):
  metadata = manager.read_metadata(finished[0])
  assert metadata['task_feature_lengths']['targets'] == 8 and metadata['dropout_rate'] == 0.1


def test_a_run_writes_metrics_of_training_evaluation_and_decoding(finished):
  model_dir, _ = finished
  records = {(r['kind'], r['step']): r for r in metric_writer.read(model_dir)}
  train = records['train', 4]
  assert {
    'loss',
    'accuracy',
    'z_loss',
    'grad_norm',
    'learning_rate',
    'non_padding_fraction',
  } <= set(train)
  assert {'tokens_per_second', 'examples_per_second'} <= set(train)
  assert 0 < train['non_padding_fraction'] <= 1
  assert 0 <= records['infer_eval/tests.copy', 4]['match'] <= 1
  assert records['train_eval', 4]['examples'] > 0
  assert list(model_dir.glob('events.out.tfevents.*'))
  inferences = (model_dir / 'inference_eval').glob('tests.copy-000004.jsonl')
  assert len(next(inferences).read_text().splitlines()) == 12


@pytest.mark.parametrize(
  ('steps', 'told'),
  [
    ({'total_steps': -1}, 'TRAIN_STEPS must be at least 1, got -1'),
    ({'total_steps': 0}, 'TRAIN_STEPS must be at least 1, got 0'),
    ({'relative_steps': -3}, 'TRAIN_STEPS_RELATIVE must be at least 1, got -3'),
    ({'total_steps': None}, 'both None: give one of them'),
  ],
)
def test_steps_that_no_run_has_are_refused_also_of_a_run_that_goes_on(
  finished, prepared_dir, steps, told
):
  model_dir, _ = finished
  before = contents(model_dir)
  with pytest.raises(ValueError, match=told):
    train_loop.train(**settings(model_dir, prepared_dir, **steps))
  assert contents(model_dir) == before


@pytest.mark.parametrize(
  ('options', 'told'),
  [
    ({'min_new_tokens': -1}, 'min_new_tokens must be at least 0'),
    ({'min_new_tokens': 8}, 'less than the 8 tokens'),
    ({'repetition_penalty': 0.0}, 'repetition_penalty must be greater than 0'),
    ({'no_repeat_ngram_size': -1}, 'no_repeat_ngram_size must be at least 0'),
    ({'num_decodes': 0}, 'num_decodes must be at least 1, got 0'),
    ({'alpha': -1.0}, 'alpha must be a finite number'),
  ],
)
def test_options_of_decoding_are_looked_at_before_the_first_step(
  tmp_path, prepared_dir, options, told
):
  infer = infer_eval.InferEvalConfig('tests.copy', {'inputs': 16, 'targets': 8}, batch_size=8)
  wanted = settings(tmp_path / 'run', prepared_dir, infer_eval_cfg=infer)
  decode_fn = functools.partial(decoding.beam_search, **options)
  wanted['model'] = dataclasses.replace(wanted['model'], decode_fn=decode_fn)
  with pytest.raises(ValueError, match=told):
    train_loop.train(**wanted)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('count', [0, -1])
def test_parts_that_no_batch_has_are_refused(tmp_path, prepared_dir, count):
  with pytest.raises(ValueError, match=f'NUM_MICROBATCHES must be None or at least 1, got {count}'):
    train_loop.train(**settings(tmp_path, prepared_dir, num_microbatches=count))
  with pytest.raises(
    ValueError, match=f'LOSS_CHUNK_LENGTH must be None or at least 1, got {count}'
  ):
    tiny.model({'loss_chunk_length': count})


def contents(folder):
  return {
    path.relative_to(folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()
  }


def never(*unused):
  pytest.fail('nothing of the run was to be written')


def test_a_finished_run_does_nothing_more(finished, prepared_dir):
  model_dir, state = finished
  before = contents(model_dir)
  # It has checkpoints, so what it started from need not be there any more.
  again = train_loop.train(
    **settings(
      model_dir,
      prepared_dir,
      initial_checkpoint_path='nowhere',
      on_start=never,
      on_data=never,
    )
  )
  assert int(again.step) == int(state.step)
  assert contents(model_dir) == before


def test_a_lost_run_json_comes_back_from_the_checkpoint(finished, tmp_path, prepared_dir):
  model_dir, _ = finished
  shutil.copytree(model_dir, tmp_path / 'run')
  (tmp_path / 'run' / 'run.json').write_text('')
  train_loop.train(**settings(tmp_path / 'run', prepared_dir, random_seed=None))
  assert contents(tmp_path / 'run') == contents(model_dir)


def test_eval_writes_a_folder_of_its_own_and_alone(finished, tmp_path, prepared_dir):
  model_dir, state = finished
  ours = settings(model_dir, prepared_dir)

  def evaluate(folder):
    return evaluation.evaluate(
      model=ours['model'],
      checkpoint_path=str(model_dir),
      partitioner=ours['partitioner'],
      output_dir=str(folder),
      dataset_cfg=ours['train_eval_dataset_cfg'],
    )

  before = contents(model_dir)
  with pytest.raises(ValueError, match=r'EVAL_OUTPUT_DIR .* is the MODEL_DIR of a run'):
    evaluate(model_dir)
  assert contents(model_dir) == before
  with (
    lease.held(tmp_path, 'EVAL_OUTPUT_DIR', 'eval'),
    pytest.raises(lease.HeldError, match=r'EVAL_OUTPUT_DIR .* is in use'),
  ):
    evaluate(tmp_path)
  assert evaluate(tmp_path)['train_eval']['loss'] > 0
  (record,) = metric_writer.read(tmp_path)
  assert (record['kind'], record['step']) == ('train_eval', int(state.step))
  assert not (tmp_path / lease.FILE).exists()


def test_a_run_that_lost_its_folder_saves_and_measures_nothing_more(tmp_path, prepared_dir):
  theirs = dataclasses.replace(lease._me('train'), host='host-b')

  def take(model_dir):
    lease._write(epath.Path(model_dir) / lease.FILE, theirs)
    time.sleep(1.1)  # it looks once a second

  with pytest.raises(lease.LostError, match=r'taken over by another command .*host-b'):
    train_loop.train(**settings(tmp_path, prepared_dir, on_start=take))
  assert not (tmp_path / metric_writer.FILE).exists()
  assert os.listdir(tmp_path / 'checkpoints') == []
  assert lease.read(tmp_path / lease.FILE) == theirs


def test_an_initial_checkpoint_gives_weights_and_step(finished, tmp_path, prepared_dir):
  model_dir, state = finished
  begun = train_loop.train(
    **settings(
      tmp_path,
      prepared_dir,
      initial_checkpoint_path=str(model_dir),
      relative_steps=1,
      learning_rate_fn=optimizer.create_learning_rate_scheduler('constant', 1e-8),
      random_seed=3,
    )
  )
  assert int(begun.step) == 5
  for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(begun.params), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_keep_policy_keeps_the_newest(tmp_path, prepared_dir):
  keep = manager.CheckpointConfig(period=1, keep=2)
  train_loop.train(**settings(tmp_path, prepared_dir, checkpoint_cfg=keep))
  assert sorted(p.name for p in (tmp_path / 'checkpoints').iterdir()) == ['3', '4']


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'model': tiny.model(emb_dim=24)},
      r'MODEL_DIR .* holds a run of another model: emb_dim 16 there, 24 here',
    ),
    ({'random_seed': 7}, r'begun with RANDOM_SEED 0, got 7'),
    ({'model': tiny.model(vocab_size=64)}, r'96 ids but the model has 64 embedding rows'),
    ({'num_microbatches': 3}, r'BATCH_SIZE 4 is not divisible by 3'),
  ],
)
def test_bad_settings_are_refused_before_work_starts(finished, prepared_dir, changes, message):
  model_dir, _ = finished
  before = contents(model_dir)
  with pytest.raises(ValueError, match=message):
    train_loop.train(**settings(model_dir, prepared_dir, on_start=never, on_data=never, **changes))
  assert contents(model_dir) == before


def test_a_model_dir_that_cannot_be_made_is_refused(tmp_path, prepared_dir):
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError, match=r'MODEL_DIR .* cannot be written'):
    train_loop.train(**settings(tmp_path / 'file' / 'run', prepared_dir))


def test_an_unknown_task_is_refused_with_close_names(tmp_path, prepared_dir):
  ours = settings(tmp_path, prepared_dir)
  cfg = dataclasses.replace(ours['train_dataset_cfg'], mixture_or_task_name='tests.cpoy')
  with pytest.raises(ValueError, match=r'tests.cpoy.*tests\.copy'):
    train_loop.train(**{**ours, 'model_dir': str(tmp_path / 'run'), 'train_dataset_cfg': cfg})
  assert not (tmp_path / 'run').exists()


def test_a_missing_initial_checkpoint_is_refused(tmp_path, prepared_dir):
  with pytest.raises(
    FileNotFoundError,
    match=r'INITIAL_CHECKPOINT_PATH: no checkpoint at nowhere.*; None trains from scratch$',
  ):
    train_loop.train(**settings(tmp_path / 'run', prepared_dir, initial_checkpoint_path='nowhere'))
  assert not (tmp_path / 'run').exists()


def test_lengths_shorter_than_the_prompts_are_refused(tmp_path, prepared_dir):
  ours = settings(tmp_path, prepared_dir)
  cfg = dataclasses.replace(
    ours['train_dataset_cfg'], task_feature_lengths={'inputs': 2, 'targets': 8}
  )
  with pytest.raises(ValueError, match='inputs'):
    train_loop.train(**{**ours, 'train_dataset_cfg': cfg})


def test_steps_that_are_all_behind_the_initial_checkpoint_are_refused(
  finished, tmp_path, prepared_dir
):
  model_dir, _ = finished
  with pytest.raises(ValueError, match=r'initial checkpoint is at step 4 and TRAIN_STEPS is 3'):
    train_loop.train(
      **settings(tmp_path, prepared_dir, initial_checkpoint_path=str(model_dir), total_steps=3)
    )

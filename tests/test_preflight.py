"""What a run refuses, leaves out or survives: in the first seconds, and with nothing lost."""

import dataclasses
import json
import logging
import shutil

import numpy as np
import pytest
import seqio
import tensorflow as tf

from aya_train import destinations, metric_writer, preflight, run_dir, train_loop
from aya_train.checkpoint import manager
from aya_train.data import batching
from aya_train.evaluation import evaluation, infer_eval
from tests import seqio_tasks, test_train_loop, tiny

LENGTHS = {'inputs': 16, 'targets': 16}
PAIRS = seqio_tasks.texts(24)
NAMES = ('flight', 'flight.val', 'flight.fails', 'flight.aux', 'flight.val2')


def fails(targets, predictions):
  raise KeyError('no such label')


def fails_on_predictions(targets, predictions):
  if list(targets) != list(predictions):
    raise RuntimeError('cannot parse')
  return {'parsed': 1.0}


def with_aux(targets, predictions, aux_values):
  assert len(aux_values['scores']) == len(targets)
  return {'mean_score': float(np.mean(aux_values['scores'])), 'note': seqio.metrics.Text('a')}


def of_scores(targets, scores):
  return {'mean_log_likelihood': float(np.mean(scores))}


def matches(targets, predictions):
  return {'rows': float(len(targets))}


@pytest.fixture
def add():
  added = []

  def add_task(name, splits, metric_fns=(), **options):
    added.append(name)
    return seqio_tasks.add_task(name, splits, metric_fns=metric_fns, **options)

  yield add_task
  for name in added:
    seqio.TaskRegistry.remove(name)
  seqio.MixtureRegistry.remove('flight.mixture')


def settings(folder, name, infer=True, **changes):
  """A run on `name`, with validation loss and decoding of the same, as sft.gin has them."""
  cfg = batching.DatasetConfig(
    name, LENGTHS, 'train', batch_size=4, prepared_dir=str(folder / 'prepared')
  )
  vocabulary = seqio_tasks.VOCABULARY
  model = tiny.model(vocab_size=vocabulary.vocab_size)
  model = dataclasses.replace(model, input_vocabulary=vocabulary, output_vocabulary=vocabulary)
  return test_train_loop.settings(
    folder / 'run',
    folder / 'prepared',
    model=model,
    train_dataset_cfg=cfg,
    train_eval_dataset_cfg=dataclasses.replace(cfg, split='validation', shuffle=False, seed=42),
    infer_eval_cfg=infer_eval.InferEvalConfig(name, LENGTHS, batch_size=4) if infer else None,
    schedule=train_loop.Schedule(log_period=1, eval_period=2, eval_steps=2),
    checkpoint_cfg=manager.CheckpointConfig(period=100),
    **changes,
  )


def steps_of(folder):
  return sorted(int(p.name) for p in (folder / 'run' / 'checkpoints').iterdir())


def kinds(folder):
  return {(r['kind'], r['step']) for r in metric_writer.read(folder / 'run')}


@pytest.mark.parametrize('splits', [{'train': PAIRS}, {'train': PAIRS, 'validation': []}])
def test_data_to_train_on_alone_is_trained_on(add, tmp_path, caplog, splits):
  add('flight', splits, [matches])
  with caplog.at_level(logging.WARNING, 'aya_train'):
    train_loop.train(**settings(tmp_path, 'flight'))
  assert steps_of(tmp_path) == [4]
  assert 'no validation loss: no' in caplog.text and 'no answers are decoded' in caplog.text
  assert {kind for kind, _ in kinds(tmp_path)} == {'train'}


@pytest.mark.parametrize('splits', [{'train': PAIRS}, {'train': PAIRS, 'validation': []}])
@pytest.mark.parametrize('which', ['train_eval_dataset_cfg', 'infer_eval_cfg'])
def test_an_evaluation_that_is_named_must_be_possible(add, tmp_path, splits, which):
  add('flight', {'train': PAIRS, 'validation': PAIRS[:5]}, [matches])
  add('flight.val', splits, [matches])
  ours = settings(tmp_path, 'flight')
  ours[which] = dataclasses.replace(ours[which], mixture_or_task_name='flight.val')
  with pytest.raises(ValueError, match=r'flight\.val'):
    train_loop.train(**ours)
  assert not (tmp_path / 'run').exists()


def test_of_a_mixture_what_can_be_measured_is(add, tmp_path, caplog):
  add('flight', {'train': PAIRS, 'validation': PAIRS[:5]}, [matches])
  add('flight.val', {'train': PAIRS, 'validation': []}, [matches])
  add('flight.val2', {'train': PAIRS, 'validation': PAIRS[:6]})
  add('flight.fails', {'train': PAIRS}, [matches])
  names = ['flight', 'flight.val', 'flight.val2', 'flight.fails']
  seqio.MixtureRegistry.add('flight.mixture', [(name, 1.0) for name in names])
  with caplog.at_level(logging.INFO, 'aya_train'):
    train_loop.train(**settings(tmp_path, 'flight.mixture'))
  records = {(r['kind'], r['step']): r for r in metric_writer.read(tmp_path / 'run')}
  assert records['infer_eval/flight', 4]['rows'] == 5
  assert records['train_eval', 4]['examples'] == 11
  assert not any('flight.val' in kind for kind, _ in records)
  assert "no rows in 'validation': flight.val" in caplog.text
  assert 'flight.val2: no metrics' in caplog.text


@pytest.mark.parametrize('metric', [fails, fails_on_predictions])
def test_a_metric_that_raises_costs_no_training(add, tmp_path, caplog, metric):
  add('flight', {'train': PAIRS, 'validation': PAIRS[:5]}, [metric])
  add('flight.aux', {'train': PAIRS, 'validation': PAIRS[:4]}, [matches])
  seqio.MixtureRegistry.add('flight.mixture', [('flight', 1.0), ('flight.aux', 1.0)])
  ours = settings(tmp_path, 'flight.mixture')
  with (
    caplog.at_level(logging.WARNING, 'aya_train'),
    pytest.raises(evaluation.EvaluationError, match=r'trained to step 4, .* flight at step 4'),
  ):
    train_loop.train(**ours)
  assert ('fail on its own first targets' in caplog.text) == (metric is fails)
  assert steps_of(tmp_path) == [2, 4]
  assert ('infer_eval/flight.aux', 4) in kinds(tmp_path)
  # Mended, the same command measures what is missing, and trains nothing.
  add('flight', {'train': PAIRS, 'validation': PAIRS[:5]}, [matches])
  state = train_loop.train(**ours)
  assert int(state.step) == 4
  assert ('infer_eval/flight', 4) in kinds(tmp_path)


def test_the_baseline_that_fails_ends_the_run_before_training(add, tmp_path):
  add('flight', {'train': PAIRS, 'validation': PAIRS[:5]}, [fails])
  ours = settings(tmp_path, 'flight')
  ours['schedule'] = dataclasses.replace(ours['schedule'], eval_before_training=True)
  with pytest.raises(evaluation.EvaluationError, match=r'before training failed: flight at step 0'):
    train_loop.train(**ours)
  assert kinds(tmp_path) == {('train_eval', 0)}


def test_metrics_of_scores_and_of_auxiliary_values(add, tmp_path):
  add('flight', {'train': PAIRS, 'validation': PAIRS[:5]}, [with_aux, of_scores])
  train_loop.train(**settings(tmp_path, 'flight'))
  (record,) = [r for r in metric_writer.read(tmp_path / 'run') if r['kind'] == 'infer_eval/flight']
  assert record['mean_score'] < 0 and record['mean_log_likelihood'] < 0
  assert 'note' not in record
  (line, *_) = (tmp_path / 'run/inference_eval/flight-000004.jsonl').read_text().splitlines()
  assert json.loads(line)['aux_scores'] < 0


def test_a_killed_evaluation_is_made_up_for(add, tmp_path):
  add('flight', {'train': PAIRS, 'validation': PAIRS[:5]}, [matches])
  ours = settings(tmp_path, 'flight')

  class Killed(BaseException):
    pass

  def kill(*_, **__):
    raise Killed

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(evaluation, 'train_eval', kill)
    with pytest.raises(Killed):
      train_loop.train(**ours)
  # The first evaluation comes after a first checkpoint, though none is due.
  assert steps_of(tmp_path) == [2]
  train_loop.train(**ours)
  assert {('train_eval', 2), ('train_eval', 4), ('infer_eval/flight', 4)} <= kinds(tmp_path)
  assert ('infer_eval/flight', 2) not in kinds(tmp_path)


def broken(dataset):
  return dataset.map(lambda x: {'inputs': x['inputs'], 'answers': x['targets']})


def test_preprocessors_that_give_other_features_are_refused_at_once(add, tmp_path):
  add('flight', {'train': PAIRS}, preprocessors=[broken])
  with pytest.raises(ValueError, match=r"task 'flight', split 'train': its first rows cannot"):
    train_loop.train(**settings(tmp_path, 'flight'))
  assert not (tmp_path / 'run').exists()


def rotten(dataset):
  def check(text):
    if text.numpy().startswith(b'070'):
      raise ValueError('row 070 is rotten')
    return text

  checked = lambda text: tf.ensure_shape(tf.py_function(check, [text], tf.string), [])
  return dataset.map(lambda x: {**x, 'inputs': checked(x['inputs'])})


def test_a_row_that_fails_later_is_told_in_one_line(add, tmp_path):
  add('flight', {'train': seqio_tasks.texts(80)}, preprocessors=[rotten, *seqio_tasks.APPEND_EOS])
  with pytest.raises(ValueError, match=r"task 'flight', split 'train': .*row 070 is rotten"):
    train_loop.train(**settings(tmp_path, 'flight'))


def test_a_function_as_the_rate_of_a_sub_mixture_is_refused_at_once(add, tmp_path):
  add('flight', {'train': PAIRS})
  seqio.MixtureRegistry.add('flight.inner', [('flight', 1.0)])
  seqio.MixtureRegistry.add('flight.mixture', [('flight.inner', seqio.mixing_rate_num_examples)])
  try:
    with pytest.raises(ValueError, match=r"sub-mixture 'flight\.inner' is a function"):
      train_loop.train(**settings(tmp_path, 'flight.mixture'))
  finally:
    seqio.MixtureRegistry.remove('flight.mixture')
    seqio.MixtureRegistry.remove('flight.inner')


def test_files_that_are_not_there_are_all_named(add, tmp_path):
  feature = seqio.Feature(seqio_tasks.VOCABULARY)
  for name in NAMES[:3]:
    seqio.TaskRegistry.remove(name)
    seqio.TaskRegistry.add(
      name,
      source=seqio.TextLineDataSource({'train': str(tmp_path / f'{name}.txt')}),
      preprocessors=list(seqio_tasks.APPEND_EOS),
      output_features={'inputs': feature, 'targets': feature},
      metric_fns=[],
    )
  seqio.MixtureRegistry.add('flight.mixture', [(name, 1.0) for name in NAMES[:3]])
  try:
    with pytest.raises(
      FileNotFoundError, match=r'3 of 3 tasks lack .*flight, flight.fails, flight'
    ):
      train_loop.train(**settings(tmp_path, 'flight.mixture'))
  finally:
    seqio.MixtureRegistry.remove('flight.mixture')
    for name in NAMES[:3]:
      seqio.TaskRegistry.remove(name)


def test_no_room_for_a_checkpoint_is_said_before_anything_is_prepared(add, tmp_path, monkeypatch):
  add('flight', {'train': PAIRS})
  monkeypatch.setattr(destinations, 'free_bytes', lambda path: 1_000)
  with pytest.raises(OSError, match=r'MODEL_DIR .* has 1e-06 GB free and one checkpoint takes'):
    train_loop.train(**settings(tmp_path, 'flight'))
  assert not (tmp_path / 'run').exists()


def test_a_disk_that_fills_up_keeps_what_is_saved(add, tmp_path, monkeypatch):
  add('flight', {'train': PAIRS})
  ours = settings(tmp_path, 'flight', infer=False)
  ours['checkpoint_cfg'] = manager.CheckpointConfig(period=2)
  real = destinations.free_bytes
  full = lambda path: 1_000 if list(tmp_path.glob('run/checkpoints/2*')) else real(path)
  with monkeypatch.context() as patch:
    patch.setattr(destinations, 'free_bytes', full)
    with pytest.raises(
      OSError, match=r'step 4 takes .* checkpoint of step 2 is kept, and the same'
    ):
      train_loop.train(**ours)
  assert int(train_loop.train(**ours).step) == 4


@pytest.mark.parametrize('place', ['run/checkpoints', 'run', 'prepared'])
def test_folders_that_cannot_be_written_are_named_at_once(add, tmp_path, place):
  add('flight', {'train': PAIRS})
  (tmp_path / place).parent.mkdir(exist_ok=True)
  (tmp_path / place).write_text('a file is in the way')
  with pytest.raises(OSError, match=r'(MODEL_DIR|PREPARED_DIR).* cannot be written'):
    train_loop.train(**settings(tmp_path, 'flight'))
  assert not (tmp_path / 'run/run.json').exists()


def test_another_stream_is_refused_before_it_is_prepared(add, tmp_path):
  add('flight', {'train': PAIRS})
  ours = settings(tmp_path, 'flight', total_steps=2)
  train_loop.train(**ours)
  shutil.rmtree(tmp_path / 'prepared')
  changed = dataclasses.replace(ours['train_dataset_cfg'], batch_size=8)
  with pytest.raises(ValueError, match='batch_size: saved 4, now 8'):
    train_loop.train(**{**ours, 'train_dataset_cfg': changed, 'total_steps': 4})
  assert not (tmp_path / 'prepared').exists()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'emb_dim': 24}, r'does not fit the model'),
    ({'num_decoder_layers': 3}, r'does not fit the model'),
  ],
)
def test_a_checkpoint_of_another_network_is_refused_before_data_is_prepared(
  add, tmp_path, changes, message
):
  add('flight', {'train': PAIRS})
  train_loop.train(**settings(tmp_path, 'flight', total_steps=1))
  other = settings(tmp_path / 'other', 'flight', initial_checkpoint_path=str(tmp_path / 'run'))
  other['model'] = dataclasses.replace(
    other['model'],
    module=tiny.model(vocab_size=seqio_tasks.VOCABULARY.vocab_size, **changes).module,
  )
  with pytest.raises(ValueError, match=message):
    train_loop.train(**other)
  assert not (tmp_path / 'other').exists()


def test_weights_of_another_vocabulary_are_refused(add, tmp_path):
  add('flight', {'train': PAIRS})
  ours = settings(tmp_path, 'flight', total_steps=1)
  train_loop.train(**ours)
  # As many ids, another meaning: the stored fingerprint tells.
  shutil.rmtree(tmp_path / 'run/checkpoints/1/digests')
  path = tmp_path / 'run/checkpoints/1/metadata/metadata'
  stored = json.loads(path.read_text())
  path.write_text(json.dumps({**stored, 'vocabulary': '0' * 64}))
  with pytest.raises(ValueError, match=r'belong to another vocabulary .* Bind VOCABULARY_FILE'):
    preflight.check_start(str(tmp_path / 'run'), ours['model'], tiny.params(ours['model']))


def test_run_json_names_the_step_that_a_run_began_at(add, tmp_path):
  add('flight', {'train': PAIRS})
  train_loop.train(**settings(tmp_path, 'flight', total_steps=1))
  assert run_dir.read(tmp_path / 'run')['first_step'] == 0

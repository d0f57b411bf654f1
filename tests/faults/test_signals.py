"""A signal in every phase of a run: what was trained is saved, and the same command goes on."""

import signal
import time

import pytest

from aya_train import lease, metric_writer
from aya_train.checkpoint import manager
from tests.faults import slow_run

pytestmark = pytest.mark.faults
STOP_SECONDS = 60  # of a busy machine; the phases last longer
DECODING = {
  'INFER_EVAL_CFG': '@infer_eval.InferEvalConfig()',
  'INFER_EVAL_BATCH_SIZE': 1,
  'INFER_EVAL_PERIOD': 2,
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Prepared data and compiled programs, which the runs share."""
  folder = tmp_path_factory.mktemp('signals')
  slow_run.finish(folder, slow_run.start(folder, TRAIN_STEPS=1))
  return folder


@pytest.fixture
def place(folder, tmp_path):
  for name in ('prepared', 'compiled'):
    (tmp_path / name).symlink_to(folder / name)
  return tmp_path


def kinds(place, step):
  return metric_writer.kinds_of_step(place / 'run', step)


def test_while_data_are_prepared(tmp_path):
  run = slow_run.start(tmp_path, environment={'SLOW_ROWS': '0.3'}.items())
  slow_run.wait_until(lambda: list(tmp_path.glob('prepared/*/.*.tmp')), tmp_path, run)
  run.send_signal(signal.SIGTERM)
  slow_run.finish(tmp_path, run, code=130, seconds=STOP_SECONDS)
  assert not list(tmp_path.glob('prepared/*/.*.tmp'))
  assert not (tmp_path / 'run' / lease.FILE).exists()
  assert not (tmp_path / 'run' / 'config.gin').exists()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_while_the_first_step_is_compiled(place, number):
  run = slow_run.start(place, environment={'JAX_ENABLE_COMPILATION_CACHE': '0'}.items())
  slow_run.wait_for('the first step compiles', place, run)
  run.send_signal(number)
  log = slow_run.finish(place, run, code=130, seconds=STOP_SECONDS)
  assert 'nothing is to be saved, stopping' in log
  assert manager.latest_step(place / 'run') is None
  assert not (place / 'run' / lease.FILE).exists()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_between_steps_and_on_again(place, number):
  run = slow_run.start(place)
  slow_run.wait_for('step 3/', place, run)
  run.send_signal(number)
  log = slow_run.finish(place, run, code=130, seconds=STOP_SECONDS)
  reached = manager.latest_step(place / 'run')
  assert reached >= 3
  assert f'stopped at step {reached}; the same command continues from here' in log
  log = slow_run.finish(place, slow_run.start(place, 'again', TRAIN_STEPS=reached + 1), 'again')
  assert f'continuing from step {reached}' in log


def test_in_a_long_validation_which_is_made_later(place):
  macros = {'EVAL_PERIOD': 2, 'EVAL_STEPS': None, 'TRAIN_STEPS': 2, 'PACK': False}
  run = slow_run.start(place, **macros)
  slow_run.wait_until(lambda: manager.latest_step(place / 'run') == 2, place, run)
  time.sleep(0.3)
  run.send_signal(signal.SIGTERM)
  log = slow_run.finish(place, run, code=130, seconds=STOP_SECONDS)
  assert 'stopped at step 2; the same command continues from here' in log
  assert kinds(place, 2) == {'train'}
  log = slow_run.finish(place, slow_run.start(place, 'again', **macros), 'again')
  assert 'already at step 2 of 2: nothing to train' in log
  assert kinds(place, 2) == {'train', 'train_eval'}


def test_while_answers_are_decoded_between_saves(place):
  """The state of the step is saved although no checkpoint was due, and the decoding is repeated."""
  macros = {**DECODING, 'CHECKPOINT_PERIOD': 1, 'EVALUATOR_NUM_EXAMPLES': 40}
  slow_run.finish(place, slow_run.start(place, TRAIN_STEPS=1, **macros))
  macros |= {'CHECKPOINT_PERIOD': 1000, 'EVALUATOR_NUM_EXAMPLES': 2000}
  run = slow_run.start(place, 'second', **macros)
  slow_run.wait_for('step 2/', place, run, 'second')
  time.sleep(0.5)
  run.send_signal(signal.SIGTERM)
  log = slow_run.finish(place, run, 'second', code=130, seconds=STOP_SECONDS)
  assert 'stopped at step 2; the same command continues from here' in log
  assert kinds(place, 2) == {'train'}
  macros |= {'EVALUATOR_NUM_EXAMPLES': 40, 'TRAIN_STEPS': 3}
  slow_run.finish(place, slow_run.start(place, 'third', **macros), 'third')
  assert 'infer_eval/tests.slow' in kinds(place, 2)


def test_in_the_evaluation_before_training(place):
  run = slow_run.start(place, EVAL_BEFORE_TRAINING=True, **DECODING)
  slow_run.wait_for('validation: ', place, run)
  run.send_signal(signal.SIGTERM)
  slow_run.finish(place, run, code=130, seconds=STOP_SECONDS)
  assert manager.latest_step(place / 'run') is None
  assert not (place / 'run' / lease.FILE).exists()


def test_a_second_signal_ends_at_once(place):
  run = slow_run.start(place, **DECODING, EVALUATOR_NUM_EXAMPLES=2000)
  slow_run.wait_for('step 2/', place, run)
  run.send_signal(signal.SIGSTOP)  # so that both are there before it can do anything
  run.send_signal(signal.SIGTERM)
  time.sleep(0.1)
  run.send_signal(signal.SIGCONT)
  time.sleep(0.7)
  run.send_signal(signal.SIGTERM)
  began = time.monotonic()
  assert run.wait(timeout=STOP_SECONDS) == 130
  assert time.monotonic() - began < 30  # answers to 2,000 prompts take longer


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_one_of_two_hosts_in_a_long_validation(place, number):
  """Both stop between the same two batches, and what is not saved yet is saved."""
  macros = {'EVAL_PERIOD': 2, 'EVAL_STEPS': None, 'PACK': False, 'TRAIN_STEPS': 5}
  hosts = slow_run.start_hosts(place, 2, **macros)
  slow_run.wait_for('step 2/', place, hosts[0], 'host0')
  time.sleep(0.5)
  hosts[1].send_signal(number)
  for i, host in enumerate(hosts):
    log = slow_run.finish(place, host, f'host{i}', code=130, seconds=STOP_SECONDS)
    assert 'stopped at step 2; the same command continues from here' in log
  assert kinds(place, 2) == {'train'}
  assert manager.latest_step(place / 'run') == 2
  assert not (place / 'run' / lease.FILE).exists()

"""Two runs on one MODEL_DIR, kills, and what a kill leaves in the files of a run."""

import dataclasses
import signal
import time

import pytest

from aya_train import lease, metric_writer, process_identity
from aya_train.checkpoint import manager
from aya_train.cli import main
from tests.faults import slow_run

pytestmark = pytest.mark.faults


def steps(place):
  return [r['step'] for r in metric_writer.read(place / 'run') if r['kind'] == 'train']


def test_the_second_run_is_refused_and_the_first_goes_on(tmp_path):
  first = slow_run.start(tmp_path)
  slow_run.wait_for('step 3/', tmp_path, first)
  log = slow_run.finish(tmp_path, slow_run.start(tmp_path, 'second'), 'second', code=1)
  assert f'is in use by another command (train, process {first.pid} on ' in log
  assert 'take another MODEL_DIR' in log
  assert 'defect' not in log
  before = len(slow_run.log(tmp_path))
  slow_run.wait_until(lambda: len(slow_run.log(tmp_path)) > before, tmp_path, first)
  first.send_signal(signal.SIGTERM)
  slow_run.finish(tmp_path, first, code=130)
  assert steps(tmp_path) == list(range(1, manager.latest_step(tmp_path / 'run') + 1))


def test_after_a_kill_the_same_command_goes_on_at_once(tmp_path, caplog):
  first = slow_run.start(tmp_path, CHECKPOINT_PERIOD=4)
  slow_run.wait_until(lambda: (manager.latest_step(tmp_path / 'run') or 0) >= 8, tmp_path, first)
  first.kill()
  first.wait()
  assert (tmp_path / 'run' / lease.FILE).exists()
  reached = manager.latest_step(tmp_path / 'run')
  figures = tmp_path / 'run' / metric_writer.FILE
  text = figures.read_text()
  figures.write_text(text[: text.rstrip().rindex('\n') + 20])  # killed in a line
  second = slow_run.start(tmp_path, 'second', CHECKPOINT_PERIOD=4, TRAIN_STEPS=reached + 8)
  log = slow_run.finish(tmp_path, second, 'second')
  assert f'was held by train, process {first.pid} on ' in log
  assert 'looking for a sign of life' not in log
  assert f'metrics.jsonl: line {text.count(chr(10))} was torn' in log
  assert steps(tmp_path) == list(range(1, reached + 9))  # each once
  names = {path.name for path in (tmp_path / 'run').iterdir()}
  assert {n for n in names if n.startswith('config')} == {'config.gin', 'config.1.gin'}
  before = {n: (tmp_path / 'run' / n).read_bytes() for n in names if n.endswith(('gin', 'json'))}
  again = slow_run.start(tmp_path, 'third', CHECKPOINT_PERIOD=4, TRAIN_STEPS=reached)
  assert 'nothing to train' in slow_run.finish(tmp_path, again, 'third')
  assert before == {
    path.name: path.read_bytes()
    for path in (tmp_path / 'run').iterdir()
    if path.name.endswith(('gin', 'json'))
  }
  with figures.open('a') as file:
    file.write('{"step":')
  assert main.main(['report', str(tmp_path / 'run'), '--prompts', '0']) == 0
  assert 'is torn' in caplog.text


def test_a_suspended_run_that_was_replaced_stops_before_it_writes(tmp_path):
  first = slow_run.start(tmp_path, CHECKPOINT_PERIOD=1_000_000)
  slow_run.wait_for('step 3/', tmp_path, first)
  first.send_signal(signal.SIGSTOP)
  slow_run.wait_until(lambda: process_identity._stat(first.pid)[0] == 'T', tmp_path, first)
  # Another machine has taken the folder over.
  path = tmp_path / 'run' / lease.FILE
  taker = dataclasses.replace(lease.read(path), token='other', host='host-b', machine='b')
  lease._write(path, taker)
  figures = (tmp_path / 'run' / metric_writer.FILE).read_bytes()
  time.sleep(2)
  first.send_signal(signal.SIGCONT)
  log = slow_run.finish(tmp_path, first, code=1)
  assert 'was taken over by another command (train, process' in log
  assert 'host-b' in log
  assert (tmp_path / 'run' / metric_writer.FILE).read_bytes() == figures
  assert manager.latest_step(tmp_path / 'run') is None
  assert lease.read(path) == taker

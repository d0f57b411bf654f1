"""Four hosts, one of which is killed, stops, hangs or never comes: the others name it, and end."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.faults
ROOT = pathlib.Path(__file__).parents[2]
COUNT = 4
WITHIN = 75  # seconds, of which JAX takes 30 to miss a host


@pytest.fixture
def start(tmp_path):
  """Starts hosts; what they say is in log0, log1 ..."""
  processes = {}

  def begin(indices=range(COUNT), barrier_timeout=600, **environment):
    with socket.socket() as s:
      s.bind(('localhost', 0))
      port = s.getsockname()[1]
    for i in indices:
      words = ['-m', 'tests.faults.host_program', *map(str, (port, COUNT, i, barrier_timeout))]
      processes[i] = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, **environment, 'PYTHONPATH': str(ROOT)},
        stdout=(tmp_path / f'out{i}').open('w'),
        stderr=(tmp_path / f'log{i}').open('w'),
      )
    return processes

  yield begin
  for process in processes.values():
    process.kill()
    process.wait()


def wait_until_joined(tmp_path):
  deadline = time.monotonic() + 240
  while any('joined' not in (tmp_path / f'out{i}').read_text() for i in range(COUNT)):
    assert time.monotonic() < deadline, (tmp_path / 'log0').read_text()[-2000:]
    time.sleep(0.1)
  time.sleep(5)  # a few rounds, and signs of life


def ended(processes, tmp_path, others):
  """What the other hosts said; all of them must have ended in time, with no code of 0, 1 or 2."""
  began = time.monotonic()
  said = {}
  for i in others:
    code = processes[i].wait(timeout=max(1, WITHIN - (time.monotonic() - began)))
    assert code not in (0, 1, 2)
  time.sleep(0.5)  # the child that speaks for a process that was ended by force
  for i in others:
    lines = (tmp_path / f'log{i}').read_text().splitlines()
    said[i] = ' '.join(line for line in lines if 'error: ' in line)
  return said


@pytest.mark.parametrize('lost', [0, 2])
@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGSTOP])
def test_the_others_name_the_host_that_is_lost(start, tmp_path, lost, how):
  processes = start()
  wait_until_joined(tmp_path)
  processes[lost].send_signal(how)
  said = ended(processes, tmp_path, [i for i in range(COUNT) if i != lost])
  for text in said.values():
    assert f'host {lost}' in text, said
    assert 'the same command again on all hosts' in text


def test_a_host_that_lives_and_does_not_come_is_named_with_what_it_does(start, tmp_path):
  processes = start(barrier_timeout=8, LATE_HOST='1')
  wait_until_joined(tmp_path)
  said = ended(processes, tmp_path, [0, 2, 3])
  first = ' '.join(said.values())
  assert 'host 1 of 4' in first and 'looking the other way' in first
  assert 'saving step' in first


def test_a_host_that_never_starts_is_named(start, tmp_path):
  processes = start([0, 1, 3], JOIN_SECONDS='15')
  said = ended(processes, tmp_path, [0, 1, 3])
  log = (tmp_path / 'log0').read_text()
  assert 'timed out task names:\n2' in log or 'host 2' in log
  assert 'Start the same command on all hosts' in said[0]

"""The ways of running work give what calling the function gives."""

import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import pytest

from aya_train.tasks.building import work_runner

IN_TWO = work_runner.processes(2)


def test_processes_give_every_result_and_live_on():
  run = IN_TWO
  assert sorted(run(math.gcd, [(12, 8), (9, 6), (7, 5)])) == [1, 3, 4]
  workers = set(run(_pid, [(0.2,)] * 4))
  assert os.getpid() not in workers
  assert workers & set(run(_pid, [(0.2,)] * 4))


def _pid(seconds: float) -> int:
  time.sleep(seconds)
  return os.getpid()


def test_one_piece_of_work_needs_no_other_process():
  assert list(work_runner.processes(4)(_pid, [(0.0,)])) == [os.getpid()]


@pytest.mark.parametrize('run', [IN_TWO, work_runner.here])
def test_an_error_in_a_worker_is_the_callers(run):
  with pytest.raises(ValueError, match='factorial'):
    list(run(math.factorial, [(3,), (-1,), (4,)]))


def test_no_worker_is_refused():
  with pytest.raises(ValueError, match='--workers'):
    work_runner.processes(0)


def test_beam_runs_each_piece_once(tmp_path):
  pytest.importorskip('apache_beam', reason='Apache Beam is an extra of its own environment')
  run = work_runner.beam('DirectRunner')
  paths = [str(tmp_path / str(i)) for i in range(5)]
  assert list(run(os.mkdir, [(path,) for path in paths])) == [None] * 5
  assert all(os.path.isdir(path) for path in paths)


def test_without_beam_the_error_names_the_extra(monkeypatch):
  monkeypatch.setitem(__import__('sys').modules, 'apache_beam', None)
  with pytest.raises(ValueError, match=r'aya-train\[beam\]'):
    work_runner.beam('DirectRunner')


@pytest.mark.faults
def test_workers_of_a_killed_command_end():
  code = (
    'import concurrent.futures, os, time\n'
    'from aya_train.tasks.building import work_runner\n'
    "if __name__ == '__main__':\n"
    '  found = work_runner.processes(2)(os.getpid, [(), (), ()])\n'
    '  print(next(found), flush=True)\n'
    '  pool = work_runner._POOLS[2]\n'
    '  print(*pool._processes, flush=True)\n'
    '  list(work_runner.processes(2)(time.sleep, [(60,), (60,), (60,)]))\n'
  )
  with tempfile.NamedTemporaryFile('w', suffix='.py') as script:
    script.write(code)
    script.flush()
    env = {**os.environ, 'PYTHONPATH': os.getcwd()}
    command = [sys.executable, script.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as parent:
      assert parent.stdout is not None
      parent.stdout.readline()
      workers = [int(pid) for pid in parent.stdout.readline().split()]
      assert workers
      parent.kill()
  deadline = time.monotonic() + 20
  while any(map(_lives, workers)) and time.monotonic() < deadline:
    time.sleep(0.05)
  assert not any(map(_lives, workers))


def _lives(pid: int) -> bool:
  try:
    return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
  except FileNotFoundError:
    return False

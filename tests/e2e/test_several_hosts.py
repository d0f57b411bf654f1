"""Two real processes on this machine, talking through gloo, against one."""

import pathlib
import socket
import subprocess
import sys

import pytest

from aya_train import metrics

ROOT = pathlib.Path(__file__).parents[2]


def run(hosts: int, model_dir, prepared_dir, steps: int) -> None:
  with socket.socket() as s:
    s.bind(('localhost', 0))
    port = s.getsockname()[1]
  command = [sys.executable, '-m', 'tests.e2e.host', str(port), str(hosts)]
  rest = [str(model_dir), str(prepared_dir), str(steps)]
  processes = [
    subprocess.Popen(
      [*command, str(i), *rest],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(hosts)
  ]
  outputs = [p.communicate(timeout=300)[0] for p in processes]
  for process, output in zip(processes, outputs, strict=True):
    assert process.returncode == 0, output[-3000:]


def values(model_dir, kind, name):
  return {r['step']: r[name] for r in metrics.read(model_dir) if r['kind'] == kind}


def test_two_hosts_agree_with_one(tmp_path):
  run(1, tmp_path / 'one', tmp_path / 'prepared', steps=1)
  run(2, tmp_path / 'two', tmp_path / 'prepared', steps=1)
  # Evaluation batches do not depend on the number of hosts, nor do the initial parameters.
  for kind, name in (('train_eval', 'loss'), ('infer_eval/tests.copy', 'match')):
    one, two = (values(tmp_path / d, kind, name)[0] for d in ('one', 'two'))
    assert one == pytest.approx(two, rel=1e-5), kind
  assert (tmp_path / 'two/checkpoints/1/data/process_1-of-2.json').exists()


@pytest.mark.heavy
def test_two_hosts_resume(tmp_path):
  run(2, tmp_path / 'whole', tmp_path / 'prepared', steps=2)
  run(2, tmp_path / 'resumed', tmp_path / 'prepared', steps=1)
  run(2, tmp_path / 'resumed', tmp_path / 'prepared', steps=2)
  for kind in ('train', 'train_eval'):
    uninterrupted = values(tmp_path / 'whole', kind, 'loss')
    assert values(tmp_path / 'resumed', kind, 'loss') == uninterrupted
    assert 2 in uninterrupted

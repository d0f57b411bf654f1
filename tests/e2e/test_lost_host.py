"""The command line on two processes, one of which is killed."""

import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from aya_train.checkpoint import manager

ROOT = pathlib.Path(__file__).parents[2]
GIN = """
from __gin__ import dynamic_registration
from aya_train.models import t5_config
import seqio
include 'models/mt5_tiny.gin'
include 'recipes/sft.gin'
include 'hardware/cpu_local.gin'
VOCABULARY = @seqio.PassThroughVocabulary()
seqio.PassThroughVocabulary:
  size = 96
  eos_id = 1
t5_config.T5Config:
  emb_dim = 16
  mlp_dim = 16
MIXTURE_OR_TASK_NAME = 'tests.copy'
MIXTURE_OR_TASK_MODULE = 'tests.e2e.lost_host_task'
TASK_FEATURE_LENGTHS = {'inputs': 16, 'targets': 8}
INITIAL_CHECKPOINT_PATH = None
BATCH_SIZE = 4
RANDOM_SEED = 0
INFER_EVAL_CFG = None
LOG_PERIOD = 1
EVAL_PERIOD = 1000000
CHECKPOINT_PERIOD = 5
DATA_LICENSE_POLICY = 'unspecified'
"""


def start(folder, hosts, steps):
  with socket.socket() as s:
    s.bind(('localhost', 0))
    port = s.getsockname()[1]
  (folder / 'run.gin').write_text(GIN)
  command = [
    *(sys.executable, '-m', 'aya_train', 'train', f'--gin_file={folder}/run.gin'),
    *(f'--gin.MODEL_DIR="{folder}/run"', f'--gin.PREPARED_DIR="{folder}/prepared"'),
    *(f'--gin.TRAIN_STEPS={steps}', f'--coordinator_address=localhost:{port}'),
    f'--num_processes={hosts}',
  ]
  return [
    subprocess.Popen(
      [*command, f'--process_id={i}'], cwd=ROOT, stderr=(folder / f'log{i}').open('w')
    )
    for i in range(hosts)
  ]


@pytest.mark.heavy
@pytest.mark.parametrize('killed', [0, 1])
def test_the_other_host_ends_within_a_minute_and_the_run_goes_on(tmp_path, killed):
  processes = start(tmp_path, 2, 1_000_000)
  deadline = time.monotonic() + 240
  while not list(tmp_path.glob('run/checkpoints/5')):
    assert time.monotonic() < deadline, (tmp_path / 'log0').read_text()
    time.sleep(0.2)
  processes[killed].send_signal(signal.SIGKILL)
  began = time.monotonic()
  code = processes[1 - killed].wait(timeout=90)
  assert time.monotonic() - began < 60
  assert code != 0
  log = (tmp_path / f'log{1 - killed}').read_text()
  assert 'another host stopped' in log, log[-3000:]
  assert 'Traceback' not in log
  reached = int(manager.find(tmp_path / 'run').name)
  for process in start(tmp_path, 2, reached + 2):
    assert process.wait(timeout=240) == 0, (tmp_path / 'log0').read_text()[-3000:]
  assert int(manager.find(tmp_path / 'run').name) == reached + 2

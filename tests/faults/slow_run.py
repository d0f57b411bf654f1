"""Runs of the command line in processes of their own, small and slow."""

import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
SECONDS = 600  # for each thing that is waited for; machines of tests are busy
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
MIXTURE_OR_TASK_NAME = 'tests.slow'
MIXTURE_OR_TASK_MODULE = 'tests.faults.slow_task'
TASK_FEATURE_LENGTHS = {'inputs': 16, 'targets': 8}
INITIAL_CHECKPOINT_PATH = None
BATCH_SIZE = 4
RANDOM_SEED = 0
INFER_EVAL_CFG = None
LOG_PERIOD = 1
EVAL_PERIOD = 1000000
EVAL_STEPS = 1
CHECKPOINT_PERIOD = 1000000
DATA_LICENSE_POLICY = None
"""


def start(folder, name='run', environment=(), words=(), **macros):
  """Starts `aya-train train` in FOLDER/run, with more words; its log is FOLDER/NAME.log."""
  (folder / 'run.gin').write_text(GIN)
  bindings = {
    'MODEL_DIR': f'"{folder}/run"',
    'PREPARED_DIR': f'"{folder}/prepared"',
    'TRAIN_STEPS': 1_000_000,
    **macros,
  }
  command = [sys.executable, '-m', 'aya_train', 'train', f'--gin_file={folder}/run.gin']
  command += [f'--gin.{key}={value}' for key, value in bindings.items()]
  command += words
  return subprocess.Popen(
    command,
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
    stderr=(folder / f'{name}.log').open('w'),
    env={
      **os.environ,
      'JAX_COMPILATION_CACHE_DIR': str(folder / 'compiled'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      **dict(environment),
    },
  )


def start_hosts(folder, count, **macros):
  """Starts it on several hosts, whose logs are FOLDER/host0.log ..."""
  with socket.socket() as s:
    s.bind(('localhost', 0))
    port = s.getsockname()[1]
  address = [f'--coordinator_address=localhost:{port}', f'--num_processes={count}']
  return [
    start(folder, f'host{i}', words=[*address, f'--process_id={i}'], **macros) for i in range(count)
  ]


def log(folder, name='run'):
  return (folder / f'{name}.log').read_text()


def wait_until(condition, folder, process, name='run'):
  """Waits for a condition while a process runs."""
  deadline = time.monotonic() + SECONDS
  while not condition():
    assert time.monotonic() < deadline, log(folder, name)[-3000:]
    assert process.poll() is None, log(folder, name)[-3000:]
    time.sleep(0.05)


def wait_for(text, folder, process, name='run'):
  """Waits for a text in the log of a process."""
  wait_until(lambda: text in log(folder, name), folder, process, name)


def finish(folder, process, name='run', code=0, seconds=SECONDS):
  """Waits for the end of a process, whose exit code must be `code`; returns its log."""
  try:
    assert process.wait(timeout=seconds) == code, log(folder, name)[-3000:]
  finally:
    process.kill()
  return log(folder, name)

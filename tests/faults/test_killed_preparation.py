"""Preparations that are killed at any moment, and what the next one finds and leaves."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.faults
ROWS = 8_000
KILLS = 2


def command(folder):
  gin = ('models/mt5_tiny.gin', 'recipes/sft_smoke.gin')
  return [
    *(sys.executable, '-m', 'aya_train', 'prepare', '--workers=2', '--num_shards=6'),
    *(f'--gin_file={name}' for name in gin),
    "--gin.DATASET_TABLES=('table.toml',)",
    "--gin.MIXTURE_OR_TASK_NAME='killed'",
    f"--gin.PREPARED_DIR='{folder}'",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 16}",
  ]


def contents(folder):
  return sorted(
    (str(path.relative_to(folder)), path.read_bytes())
    for path in folder.rglob('*')
    if path.is_file() and path.suffix == '.array_record'
  )


def test_the_result_is_that_of_a_whole_preparation_and_nothing_is_left(cache, tmp_path):
  (tmp_path / 'rows.csv').write_text(
    'inputs,targets\n' + ''.join(f'How many is {i} and 1?,{i + 1}\n' for i in range(ROWS))
  )
  (tmp_path / 'table.toml').write_text(
    "[[dataset]]\nname = 'killed'\nfiles = 'rows.csv'\nlanguage = 'eng'\nlicense = 'CC0-1.0'\n"
    "attribution = 'me'\n"
  )
  environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'AYA_TRAIN_CACHE': str(cache)}
  draws = random.Random(0)

  def run(folder, **kwargs):
    return subprocess.Popen(
      command(folder),
      cwd=tmp_path,
      env=environment,
      start_new_session=True,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      **kwargs,
    )

  whole = run(tmp_path / 'whole')
  started = time.monotonic()
  _, said = whole.communicate(timeout=300)
  took = time.monotonic() - started
  assert whole.returncode == 0, said
  for _ in range(KILLS):
    process = run(tmp_path / 'killed')
    time.sleep(draws.uniform(0.5, 1.0) * took)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
  last = run(tmp_path / 'killed')
  _, said = last.communicate(timeout=300)
  assert last.returncode == 0, said
  assert contents(tmp_path / 'killed') == contents(tmp_path / 'whole')
  hidden = list((tmp_path / 'killed').rglob('.*'))
  assert not hidden

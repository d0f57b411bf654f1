"""Upstream `t5x.train` on our tasks, from a checkpoint of ours, and what it wrote read back."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

t5x = pytest.importorskip('t5x', reason='T5X is not importable')
pytestmark = pytest.mark.t5x

from aya_train.checkpoint import formats
from aya_train.tasks import features

ROOT = pathlib.Path(__file__).parents[3]
SIZE = {'tiny': ('models/mt5_tiny.gin', 'recipes/sft_smoke.gin', 'hardware/cpu_local.gin')}


def run(*command, **environment):
  done = subprocess.run(
    [sys.executable, '-m', *map(str, command)],
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', **environment},
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert done.returncode == 0, done.stderr[-4000:]
  return done


def test_t5x_continues_our_run_and_ours_continues_what_it_wrote(tmp_path):
  run('aya_train', 'prepare', 'cldr')
  gin = [f'--gin_file={name}' for name in SIZE['tiny']]
  short = ['--gin.INFER_EVAL_CFG=None', '--gin.EVAL_STEPS=1', '--gin.EVAL_BEFORE_TRAINING=False']
  ours, back = tmp_path / 'ours', tmp_path / 'back'
  run('aya_train', 'train', *gin, *short, '--gin.TRAIN_STEPS=3', f'--gin.MODEL_DIR="{ours}"')
  run('aya_train', 'convert', ours, tmp_path / 'start' / 'checkpoint_3', '--to', 't5x')

  run(
    't5x.train',
    f'--gin_search_paths={ROOT},{pathlib.Path(t5x.__path__[0]).parent}',
    '--gin_file=gin/t5x/sft_smoke.gin',
    f'--gin.MODEL_DIR="{tmp_path / "upstream"}"',
    f'--gin.INITIAL_CHECKPOINT_PATH="{tmp_path / "start" / "checkpoint_3"}"',
    '--gin.TRAIN_STEPS=6',
    AYA_TRAIN_VOCABULARY=features.vocabulary_file(),
  )
  opened = formats.open_checkpoint(formats.detect(tmp_path / 'upstream'))
  assert opened.step == 6
  before = formats.open_checkpoint(formats.detect(tmp_path / 'start')).params
  moved = {k: float(np.abs(v.read() - before[k].read()).max()) for k, v in opened.params.items()}
  assert all(0 < m < 1 for m in moved.values()), moved

  continued = [f'--gin.INITIAL_CHECKPOINT_PATH="{tmp_path / "upstream"}"', '--gin.TRAIN_STEPS=8']
  run('aya_train', 'train', *gin, *short, *continued, f'--gin.MODEL_DIR="{back}"')
  lines = (back / 'metrics.jsonl').read_text().splitlines()
  assert json.loads(lines[-1])['step'] == 8

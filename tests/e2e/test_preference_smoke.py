"""launch/preference_smoke.sh after a short smoke run: scored, trained, reported."""

import os
import pathlib
import subprocess

import pytest

from aya_train import metric_writer

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.heavy
def test_it_learns_formats_and_reports_before_and_after(tmp_path):
  run = tmp_path / 'preference'
  environment = {
    **os.environ,
    'AYA_TRAIN_SMOKE_DIR': str(tmp_path / 'smoke'),
    'AYA_TRAIN_PREFERENCE_SMOKE_DIR': str(run),
    'AYA_TRAIN_SMOKE_STEPS': '6',
    'AYA_TRAIN_CACHE': str(tmp_path / 'cache'),
    'JAX_PLATFORMS': 'cpu',
  }
  done = subprocess.run(
    ['bash', ROOT / 'launch/preference_smoke.sh'],
    env=environment,
    text=True,
    capture_output=True,
    timeout=1800,
  )
  assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
  first, *_, last = [r for r in metric_writer.read(run) if r['kind'] == 'train_eval']
  assert first['margin'] == pytest.approx(0.0, abs=1e-2)
  assert last['margin'] > first['margin'] and last['loss'] < first['loss']
  page = (run / 'report.html').read_text()
  for figure in ('Pairs ordered right', 'Margin between', 'Exact match', 'Characters of an answer'):
    assert figure in page

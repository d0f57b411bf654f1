"""The scripts of launch/ in an environment that is in force already."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path):
  """Runs a line of bash beside launch/, with stand-ins of `python` and `aya-train` on PATH."""

  def run(line, *programs):
    bin_folder = tmp_path / 'bin'
    bin_folder.mkdir()
    for name in programs:
      (bin_folder / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
      (bin_folder / name).chmod(0o755)
    env = {**os.environ, 'AYA_TRAIN_VENV': 'none', 'PATH': f'{bin_folder}:/usr/bin:/bin'}
    env['AYA_TRAIN_SMALL_DIR'] = str(tmp_path / 'run')
    return subprocess.run(['bash', '-c', line], cwd=ROOT, env=env, text=True, capture_output=True)

  return run


def test_none_takes_what_is_on_the_path_and_makes_nothing(run):
  done = run('source launch/environment.sh && echo "$root" && aya-train x', 'aya-train')
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines() == [str(ROOT), 'aya-train x']


def test_none_without_the_program_says_so(run):
  done = run('source launch/environment.sh')
  assert done.returncode == 1
  assert 'AYA_TRAIN_VENV=none: no aya-train on PATH' in done.stderr


def test_wrong_usage_removes_nothing(run, tmp_path):
  (tmp_path / 'run').mkdir()
  done = run('bash launch/aya_small.sh --frehs', 'aya-train')
  assert done.returncode == 2
  assert 'usage: bash launch/aya_small.sh [--fresh]' in done.stderr
  assert (tmp_path / 'run').exists() and not list((tmp_path / 'run').iterdir())

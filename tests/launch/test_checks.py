"""What is checked before a commit, by launch/test.sh, and by CI."""

import os
import pathlib
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def asked(tmp_path):
  """Runs a script with stand-ins of all programs; gives the commands that it asked them for."""
  for name in ('aya-train', 'python', 'ruff', 'mypy', 'lint-imports'):
    path = tmp_path / 'bin' / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/asked\n')
    path.chmod(0o755)

  def run(script, **variables):
    (tmp_path / 'asked').write_text('')
    env = {k: v for k, v in os.environ.items() if not k.startswith('AYA_TRAIN_')}
    env |= {'AYA_TRAIN_VENV': 'none', 'PATH': f'{tmp_path}/bin:/usr/bin:/bin', **variables}
    env['AYA_TRAIN_SMOKE_DIR'] = str(tmp_path / 'run')
    env['TMPDIR'] = str(tmp_path)
    done = subprocess.run(['bash', ROOT / script], env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return (tmp_path / 'asked').read_text().splitlines()

  return run


def hooks():
  [local] = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())['repos']
  return local['hooks']


def test_a_commit_is_checked_by_the_commands_of_the_test_script(asked):
  commands = [line for line in asked('launch/test.sh') if not line.startswith('python')]
  entries = [hook['entry'] for hook in hooks()]
  assert commands and entries[-len(commands) :] == commands
  assert all(hook['pass_filenames'] is False for hook in hooks()[-len(commands) :])


def test_hooks_need_no_network():
  """Others get an environment of their own, downloaded at the first commit."""
  assert {hook['language'] for hook in hooks()} <= {'system', 'pygrep', 'fail'}
  assert all({'id', 'name', 'entry'} <= set(hook) for hook in hooks())
  assert len({hook['id'] for hook in hooks()}) == len(hooks())


def test_a_short_smoke_run_differs_in_its_steps_alone(asked):
  def trained(**variables):
    [line] = [x for x in asked('launch/smoke.sh', **variables) if x.startswith('aya-train train')]
    return line.split()

  whole, short = trained(), trained(AYA_TRAIN_SMOKE_STEPS='7')
  more = [word for word in short if word not in whole]
  assert [word for word in short if word not in more] == whole
  assert '--gin.TRAIN_STEPS=7' in more
  assert all(word.startswith(('--gin.TRAIN_STEPS', '--gin.EVAL')) for word in more)


def test_ci_runs_the_tests_and_then_a_short_smoke_run(asked, tmp_path):
  commands = asked('.ci/run')
  tests = next(i for i, line in enumerate(commands) if line.startswith('python -m pytest'))
  steps = [line.split()[1] for line in commands[tests + 1 :] if line.startswith('aya-train')]
  assert steps == ['prepare', 'train', 'convert', 'report']
  assert any('--gin.TRAIN_STEPS=' in line for line in commands[tests:])
  assert {path.name for path in tmp_path.iterdir()} == {'bin', 'asked'}  # nothing is left behind

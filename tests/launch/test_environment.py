"""The environment that the scripts of launch/ make, and one that is in force already."""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys

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


PYTHON_WITH = """#!/bin/sh
# Finds the packages of a list; with -c only.
exec '{python}' -S -c "
import importlib.util, sys
importlib.util.find_spec = lambda name: name in {packages!r}
$2"
"""


@pytest.mark.parametrize(
  ('packages', 'asked', 'said'),
  [
    (['torch', 'transformers'], 'aya-train report run --hf run/hf', ''),
    (['transformers'], 'aya-train report run', 'was not reloaded with transformers and compared'),
    ([], 'aya-train report run', 'AYA_TRAIN_TORCH=index bash launch/a.sh installs it'),
  ],
)
def test_a_run_is_reported_whether_transformers_is_there_or_not(
  run, tmp_path, packages, asked, said
):
  line = f"""
    printf '%s' {shlex.quote(PYTHON_WITH.format(python=sys.executable, packages=packages))} \
      > {tmp_path}/bin/python
    source launch/example_run.sh; report_run run run/hf"""
  done = run(f'exec bash -c {shlex.quote(line)} a.sh', 'aya-train', 'python')
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[0] == asked and said in done.stdout


def test_wrong_usage_removes_nothing(run, tmp_path):
  (tmp_path / 'run').mkdir()
  done = run('bash launch/aya_small.sh --frehs', 'aya-train')
  assert done.returncode == 2
  assert 'usage: bash launch/aya_small.sh [--fresh]' in done.stderr
  assert (tmp_path / 'run').exists() and not list((tmp_path / 'run').iterdir())


INTERPRETER = f"""#!/usr/bin/env bash
# An interpreter that makes environments of itself; its pip installs nothing but finds files.
state=$(cat "$(dirname "$0")/state")
case "$*" in
  '-c import torch') [ -e "$state/torch" ] ;;
  '-m venv -- '*) mkdir -p "$4/bin"; cp "$0" "$(dirname "$0")/state" "$4/bin" ;;
  '-m pip index versions torch --index-url '*) cat "$state/pytorch_org" ;;
  '-m pip index versions torch') cat "$state/index" ;;
  '-m pip install '*' uv') echo 'uv' >> "$state/compiled" ;;
  '-m uv pip compile '*) echo "$*" >> "$state/compiled"
    echo 'torch==2.6.0' > "$(dirname "$0")/../oldest.txt" ;;
  '-m pip install '*) echo "$*" >> "$state/installs"; echo '  Downloading a.whl (1 MB)' ;;
  *) exec '{sys.executable}' "$@" ;;
esac
"""


class Checkout:
  """A checkout with the interpreter above; `uname` says Linux.

  Attributes:
    output: what the last set-up printed.
  """

  def __init__(self, folder):
    self.folder, self.output = folder, ''
    bin_folder, self.state = folder / 'bin', folder / 'state'
    for made in (bin_folder, self.state, folder / 'launch'):
      made.mkdir()
    for name in ('launch/environment.sh', 'setup.py', 'constraints.txt'):
      shutil.copy(ROOT / name, folder / name)
    for name, text in {'python': INTERPRETER, 'uname': '#!/bin/sh\necho Linux\n'}.items():
      (bin_folder / name).write_text(text)
      (bin_folder / name).chmod(0o755)
    (bin_folder / 'state').write_text(str(self.state))

  def set_up(self, extras, *, optional=False, **variables):
    """The installs of one set-up, each with its arguments."""
    (self.state / 'installs').unlink(missing_ok=True)
    line = f"set -euo pipefail; extras='{extras}'; torch_is_optional={'1' * optional}; "
    env = {k: v for k, v in os.environ.items() if not k.startswith(('AYA_TRAIN_', 'PIP_'))}
    env |= {'PYTHON': str(self.folder / 'bin/python'), **variables}
    env['PATH'] = f'{self.folder / "bin"}:/usr/bin:/bin'
    done = subprocess.run(
      ['bash', '-c', line + 'source launch/environment.sh; command -v python'],
      cwd=self.folder,
      env=env,
      text=True,
      capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    *said, program = done.stdout.splitlines()
    assert program == str(self.folder / '.venv/bin/python')
    self.output = '\n'.join(said)
    installs = self.state / 'installs'
    return installs.read_text().splitlines() if installs.exists() else []

  def offers(self, where, *versions):
    listed = ', '.join(versions)
    (self.state / where).write_text(f'torch ({versions[0]})\nAvailable versions: {listed}\n')


@pytest.fixture
def checkout(tmp_path):
  return Checkout(tmp_path)


PINNED = next(
  line.removeprefix('torch==')
  for line in (ROOT / 'constraints.txt').read_text().splitlines()
  if line.startswith('torch==')
)


def test_what_is_installed_is_not_installed_again(checkout):
  checkout.offers('index', f'{PINNED}+cpu')
  (first,) = checkout.set_up('hf', optional=True)
  assert first.endswith(f'--editable {checkout.folder}[hf]')
  assert checkout.set_up('hf', optional=True) == []
  (more,) = checkout.set_up('hf quantised test')
  assert more.endswith('[hf,quantised,test]')
  assert checkout.set_up('hf', optional=True) == checkout.set_up('quantised hf') == []
  with (checkout.folder / 'constraints.txt').open('a') as file:
    file.write('another==1\n')
  assert len(checkout.set_up('hf', optional=True)) == 1


@pytest.mark.parametrize(
  ('index', 'pytorch_org', 'variables', 'extras', 'said', 'options'),
  [
    ((PINNED, f'{PINNED}+cpu'), (), {}, 'hf', 'without CUDA, 0.2 GB', ''),
    ((PINNED,), (f'{PINNED}+cpu',), {}, 'hf', 'without CUDA, 0.2 GB, from', '/whl/cpu'),
    ((PINNED,), ('1.0+cpu',), {}, 'hf-files', 'no Torch', ''),
    ((PINNED,), (), {}, 'hf-files', 'no Torch', ''),
    ((PINNED,), (), {'AYA_TRAIN_TORCH': 'index'}, 'hf', 'with CUDA, 2.7 GB', ''),
    ((f'{PINNED}+cpu',), (), {'AYA_TRAIN_TORCH': 'none'}, 'hf-files', 'no Torch', ''),
  ],
)
def test_torch_is_taken_where_it_is_small(
  checkout, index, pytorch_org, variables, extras, said, options
):
  for where, versions in {'index': index, 'pytorch_org': pytorch_org}.items():
    if versions:
      checkout.offers(where, *versions)
  (installed,) = checkout.set_up('hf', optional=True, **variables)
  assert installed.endswith(f'[{extras}]') and said in checkout.output
  assert ('--extra-index-url' in installed) == bool(options) and options in installed
  assert checkout.set_up('hf', optional=True, **variables) == []


def test_tests_get_torch_even_if_it_is_large(checkout):
  checkout.offers('index', PINNED)
  assert checkout.set_up('hf', optional=True)[0].endswith('[hf-files]')
  (installed,) = checkout.set_up('hf test')
  assert installed.endswith('[hf,test]') and 'with CUDA, 2.7 GB' in checkout.output
  assert checkout.set_up('hf', optional=True) == []


def test_the_comparison_can_be_had_later(checkout):
  checkout.offers('index', PINNED)
  assert checkout.set_up('hf', optional=True)[0].endswith('[hf-files]')
  assert checkout.set_up('hf', optional=True, AYA_TRAIN_TORCH='index')[0].endswith('[hf]')


def test_torch_that_is_there_is_kept(checkout):
  (checkout.state / 'torch').touch()
  assert checkout.set_up('hf', optional=True)[0].endswith('[hf]')
  assert 'Torch is installed already' in checkout.output


def test_what_comes_is_said_and_its_sizes(checkout):
  checkout.offers('index', f'{PINNED}+cpu')
  (installed,) = checkout.set_up('hf test')
  assert '--quiet' not in installed
  assert '1.0 GB' in checkout.output and 'Downloading a.whl (1 MB)' in checkout.output


def test_the_newest_are_asked_for_each_time_and_without_pins(checkout):
  checkout.offers('index', '9.9+cpu', PINNED)
  for _ in range(2):
    (installed,) = checkout.set_up(
      "hf'; releases='newest", AYA_TRAIN_VENV=str(checkout.folder / '.venv')
    )
    assert '--upgrade' in installed and '--constraint' not in installed


def test_the_oldest_are_those_that_setup_asks_for(checkout):
  checkout.offers('index', '9.9', '2.6.0+cpu')
  venv = checkout.folder / '.venv'
  (installed,) = checkout.set_up("hf test'; releases='oldest", AYA_TRAIN_VENV=str(venv))
  assert f'--constraint {venv}/oldest.txt' in installed and '--upgrade' not in installed
  assert (venv / 'oldest.txt').read_text() == 'torch==2.6.0\n'
  uv, compiled = (checkout.state / 'compiled').read_text().splitlines()
  assert uv == 'uv' and '--resolution lowest-direct --extra hf --extra test' in compiled
  assert 'Torch without CUDA' in checkout.output


def test_an_old_interpreter_is_refused(checkout, tmp_path):
  old = tmp_path / 'old'
  old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.1\nexit 1\n')
  old.chmod(0o755)
  with pytest.raises(AssertionError, match=r'needs Python 3\.11 or newer.*is Python 3\.10\.1'):
    checkout.set_up('hf', PYTHON=str(old))

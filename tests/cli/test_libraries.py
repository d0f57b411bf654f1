"""Where libtpu is installed and no TPU is there, nothing looks for one."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import types

import pytest

from aya_train.cli import libraries

LIBTPU, PLUGINS = 'libtpu', 'jax_plugins'


@pytest.fixture
def machine(monkeypatch, tmp_path):
  """A machine without accelerators on which libtpu is installed; gives its root folder."""
  installed = {LIBTPU}
  for name in [name for name in os.environ if name.startswith(('TPU_', 'JAX_'))]:
    monkeypatch.delenv(name)
  monkeypatch.delitem(sys.modules, 'jax', raising=False)
  monkeypatch.setattr(
    importlib.util, 'find_spec', lambda name: object() if name in installed else None
  )
  monkeypatch.setattr(libraries.importlib.metadata, 'entry_points', lambda group: ())
  monkeypatch.setattr(libraries, 'ROOT', tmp_path)
  monkeypatch.setattr(libraries, '_installed_in_test', installed, raising=False)
  return tmp_path


def chosen():
  libraries.choose_platform()
  return os.environ.get('JAX_PLATFORMS')


def device(root: pathlib.Path, vendor: str, kind: str):
  folder = root / 'sys/bus/pci/devices/0000:00:05.0'
  folder.mkdir(parents=True)
  (folder / 'vendor').write_text(f'{vendor}\n')
  (folder / 'class').write_text(f'{kind}\n')


def test_a_machine_without_a_tpu_uses_its_cpu(machine, monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', '')
  assert chosen() == 'cpu'


@pytest.mark.parametrize('kind', ['0x010802', '0x020000'])
def test_disks_and_network_cards_of_the_cloud_are_no_tpus(machine, monkeypatch, kind):
  monkeypatch.setenv('JAX_PLATFORMS', '')
  device(machine, libraries.GOOGLE, kind)
  assert chosen() == 'cpu'


@pytest.mark.parametrize('sign', ['pci', 'accel', 'vfio', 'TPU_NAME', 'TPU_WORKER_ID'])
def test_with_any_sign_of_a_tpu_the_choice_is_jaxs(machine, monkeypatch, sign):
  if sign == 'pci':
    device(machine, libraries.GOOGLE, '0x088000')
  elif sign in ('accel', 'vfio'):
    file = machine / {'accel': 'dev/accel0', 'vfio': 'dev/vfio/0'}[sign]
    file.parent.mkdir(parents=True)
    file.touch()
  else:
    monkeypatch.setenv(sign, '0')
  assert chosen() is None


def test_what_the_user_chose_stays(machine, monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'tpu,cpu')
  assert chosen() == 'tpu,cpu'


@pytest.mark.parametrize('installed', [set(), {LIBTPU, PLUGINS}])
def test_without_libtpu_and_with_other_plugins_the_choice_is_jaxs(machine, installed):
  libraries._installed_in_test.clear()
  libraries._installed_in_test.update(installed)
  assert chosen() is None


def test_a_reader_who_has_gone_ends_a_command_without_a_word():
  code = (
    'import sys\n'
    'from aya_train.cli import main, report_command\n'
    'report_command.run = lambda args: [print("x" * 100) for _ in range(10000)]\n'
    'sys.exit(main.main(["report", "x"]))\n'
  )
  child = subprocess.Popen(
    [sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )
  assert child.stdout is not None and child.stderr is not None
  child.stdout.readline()
  child.stdout.close()
  said = child.stderr.read()
  child.stderr.close()
  assert (child.wait(timeout=120), said) == (141, '')


def run(code, folder):
  """Python in a folder, whose modules come before all others."""
  return subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
    cwd=folder,
    env={**os.environ, 'PYTHONPATH': f'{folder}:{pathlib.Path.cwd()}'},
  )


@pytest.mark.parametrize('verbose', [True, False])
def test_triton_goes_before_tensorflow_whose_lines_are_dropped(tmp_path, verbose):
  order = (
    'import os\nwith open("order", "a") as f: f.write(__name__ + " ")\nos.write(2, b"line ")\n'
  )
  for name in ('triton', 'tensorflow', 'tensorflow_text'):
    (tmp_path / f'{name}.py').write_text(order)
  code = (
    'from aya_train.cli import libraries\n'
    f'libraries.quiet_tensorflow({verbose})\n'
    f'libraries.quiet_tensorflow({verbose})\n'
    'import tensorflow, tensorflow_text\n'
    'assert type(tensorflow.__loader__).__name__ == "SourceFileLoader"\n'
    'assert tensorflow.__spec__.loader is tensorflow.__loader__\n'
  )
  done = run(code, tmp_path)
  assert (done.returncode, done.stderr) == (0, 'line line line ' if verbose else '')
  assert (tmp_path / 'order').read_text() == 'triton tensorflow tensorflow_text '


def test_where_tensorflow_cannot_be_imported_its_lines_are_shown(tmp_path):
  (tmp_path / 'tensorflow.py').write_text(
    'import os\nos.write(2, b"why not")\nraise OSError("x")\n'
  )
  code = 'from aya_train.cli import libraries\nlibraries.quiet_tensorflow(False)\nimport tensorflow'
  done = run(code, tmp_path)
  assert done.returncode == 1 and done.stderr.startswith('why not')


def test_what_comes_after_a_failed_write_is_dropped_and_nothing_else(monkeypatch):
  told = []
  hook = libraries._without_closed_loops(lambda found: told.append(str(found.exc_value)))
  for error in (RuntimeError('Event loop is closed'), RuntimeError('x'), OSError('y')):
    hook(types.SimpleNamespace(exc_value=error))
  assert told == ['x', 'y']

"""launch/tpu_pod against a stand-in for gcloud; what hosts run is launch/pod_host.sh itself."""

import importlib.machinery
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
COMMAND = ['train', '--gin_file=aya101.gin', '--gin.MODEL_DIR="gs://b c/d"']
# The interpreter that `install` calls: makes an environment whose aya-train does as the host is told.
PYTHON = """#!/bin/bash
mkdir -p env/bin
printf '#!/bin/bash\\nexit 0\\n' > env/bin/python
cat > env/bin/aya-train <<'X'
#!/bin/bash
printf '%s\\n' "$*" >> $HOME/ran
echo "token ${TOKEN:-none}"
eval "$(cat $HOME/behaviour 2>/dev/null)"
X
chmod +x env/bin/*
"""


def load():
  loader = importlib.machinery.SourceFileLoader('tpu_pod', str(ROOT / 'launch/tpu_pod'))
  sys.dont_write_bytecode, kept = True, sys.dont_write_bytecode
  module = importlib.util.module_from_spec(importlib.util.spec_from_loader('tpu_pod', loader))
  loader.exec_module(module)
  sys.dont_write_bytecode = kept
  return module


class Cloud:
  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    for name in ('bin', 'worker-0', 'worker-1'):
      (folder / name).mkdir()
    gcloud = folder / 'bin/gcloud'
    stand_in = pathlib.Path(__file__).with_name('stand_in_gcloud.py')
    gcloud.write_text(f'#!/bin/bash\nexec {sys.executable} {stand_in} "$@"\n')
    python = folder / 'bin/python-for-hosts'
    python.write_text(PYTHON)
    for file in (gcloud, python):
      file.chmod(0o755)
    (folder / 'a.whl').write_text('wheel')
    self.states('ACTIVE')

  def states(self, *names):
    (self.folder / 'states').write_text('\n'.join(names))

  def behave(self, script):
    for host in self.folder.glob('worker-*'):
      (host / 'behaviour').write_text(script)

  def pod(self, command, *options, arguments=()):
    environment = os.environ | {
      'STAND_IN': str(self.folder),
      'PATH': f'{self.folder}/bin:{os.environ["PATH"]}',
      'PYTHON': 'python-for-hosts',
    }
    words = [command, 'aya', '--zone=z', '--poll=0.2', f'--wheel={self.folder}/a.whl', *options]
    return subprocess.run(
      [sys.executable, ROOT / 'launch/tpu_pod', *words, *(['--', *arguments] if arguments else [])],
      env=environment,
      capture_output=True,
      text=True,
      timeout=60,
    )

  def calls(self):
    file = self.folder / 'calls'
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

  def count(self, *words):
    return sum(call[2 : 2 + len(words)] == list(words) for call in self.calls())

  def ran(self):
    return [(host / 'ran').read_text().splitlines() for host in self.folder.glob('worker-*')]


@pytest.fixture
def cloud(tmp_path):
  cloud = Cloud(tmp_path)
  yield cloud
  for pid in tmp_path.glob('worker-*/aya-train-job/pid'):
    subprocess.run(['pkill', '-KILL', '-P', pid.read_text().strip()], check=False)


def test_run_makes_the_slice_and_ends_with_the_run(cloud):
  cloud.states('ABSENT', 'WAITING_FOR_RESOURCES', 'ACTIVE')
  result = cloud.pod('run', arguments=COMMAND)
  assert result.returncode == 0, result.stderr
  assert cloud.ran() == [[' '.join([*COMMAND, '--multihost'])]] * 2
  assert cloud.count('queued-resources', 'create') == 1
  assert 'the run is complete' in result.stdout


def test_after_a_preemption_it_starts_again(cloud):
  cloud.behave('[ $(wc -l < $HOME/ran) = 2 ] || sleep 30')
  cloud.states('ACTIVE', 'SUSPENDED', 'SUSPENDED', 'ABSENT', 'ACTIVE')
  result = cloud.pod('run', arguments=COMMAND)
  assert result.returncode == 0, result.stderr
  assert [len(lines) for lines in cloud.ran()] == [2, 2]
  assert cloud.count('queued-resources', 'delete') == 1


def test_an_error_of_the_command_is_shown_and_not_repeated(cloud):
  cloud.behave('echo "unknown mixture"; exit 1')
  result = cloud.pod('run', arguments=COMMAND)
  assert result.returncode == 1
  assert 'unknown mixture' in result.stdout
  assert 'Traceback' not in result.stderr
  assert [len(lines) for lines in cloud.ran()] == [1, 1]


def test_a_killed_host_leads_to_a_restart_of_all(cloud):
  cloud.behave(
    '[ $(wc -l < $HOME/ran) = 2 ] && exit 0; [ $HOME = *0 ] && kill -9 $$; sleep 3; exit 137'
  )
  result = cloud.pod('run', arguments=COMMAND)
  assert result.returncode == 0, result.stderr
  assert [len(lines) for lines in cloud.ran()] == [2, 2]


def test_restarts_in_a_row_are_limited(cloud):
  cloud.behave('exit 137')
  result = cloud.pod('run', '--max_restarts=2', arguments=COMMAND)
  assert result.returncode == 1
  assert 'restarts in a row' in result.stderr
  assert [len(lines) for lines in cloud.ran()] == [3, 3]


def test_start_is_idempotent_and_stop_lets_the_run_save(cloud):
  cloud.behave('trap "echo saved; exit 130" TERM; while :; do sleep 0.1; done')
  cloud.pod('install')
  for _ in range(2):
    assert cloud.pod('start', arguments=COMMAND).returncode == 0
  time.sleep(0.5)
  status = cloud.pod('status').stdout
  assert status.count('running') >= 2
  assert cloud.pod('stop').returncode == 0
  assert [len(lines) for lines in cloud.ran()] == [1, 1]
  assert (cloud.folder / 'worker-1/aya-train-job/exit').read_text() == '130\n'
  assert 'saved' in (cloud.folder / 'worker-1/aya-train-job/log').read_text()


def test_secrets_travel_in_a_file(cloud):
  secrets = cloud.folder / 'env'
  secrets.write_text('TOKEN=hf_secret\n')
  result = cloud.pod('run', f'--env_file={secrets}', arguments=COMMAND)
  assert result.returncode == 0, result.stderr
  assert 'hf_secret' not in json.dumps(cloud.calls()) + result.stdout.replace('token hf_secret', '')
  copied = cloud.folder / 'worker-0/aya-train-job/secrets'
  assert copied.stat().st_mode & 0o077 == 0
  assert 'token hf_secret' in (cloud.folder / 'worker-0/aya-train-job/log').read_text()


@pytest.mark.parametrize('command', ['run', 'up', 'install', 'start', 'status', 'logs', 'down'])
def test_dry_run_executes_nothing(cloud, command):
  result = cloud.pod(command, '--dry_run', arguments=COMMAND)
  assert result.returncode == 0, result.stderr
  assert 'gcloud compute tpus' in result.stdout
  assert cloud.calls() == []


def test_a_slice_that_cannot_be_made_ends_with_the_reason(cloud):
  cloud.states('FAILED')
  result = cloud.pod('up')
  assert result.returncode == 1
  assert 'quota' in result.stderr


@pytest.mark.parametrize(
  ('hosts', 'action'),
  [
    ([], 'restart'),
    (['exit 0', 'exit 0'], 'done'),
    (['exit 0', 'running 2'], 'wait'),
    (['running 2', 'running 3'], 'wait'),
    (['running 2', 'absent'], 'start'),
    (['exit 0', 'absent'], 'restart'),
    (['running 2', 'exit 130'], 'restart'),
    (['running 2', 'exit 137'], 'restart'),
    (['running 2', 'exit 1'], 'give up'),
    (['running 5000', 'running 3'], 'restart'),
  ],
)
def test_what_hosts_say_decides(hosts, action):
  assert load().judge(hosts, 1800)[0] == action

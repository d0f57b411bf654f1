"""launch/tpu_pod against a stand-in for gcloud; what hosts run is launch/pod_host.sh itself."""

import importlib.machinery
import importlib.util
import json
import signal
import subprocess
import sys
import time

import pytest

from tests.launch.cloud import COMMAND, ROOT

sys.path.insert(0, str(ROOT / 'launch'))
import pod_verdict
import slices
from tpu_cloud import Host

FOREVER = 'trap "echo saved; exit 130" TERM; while :; do sleep 0.1; done'
STARTED = ''.join(f'<{word}>' for word in [*COMMAND, '--multihost'])


def wait_for(condition):
  deadline = time.monotonic() + 60
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.1)


def test_run_makes_the_slice_and_ends_with_the_run(cloud):
  cloud.states('ABSENT', 'WAITING_FOR_RESOURCES', 'ACTIVE')
  result = cloud.pod('run', '--type=v5e-64', arguments=COMMAND)
  assert result.returncode == 0, result.stderr
  assert cloud.ran() == [[STARTED]] * 2  # every quote and space as it was given
  [create] = [c for c in cloud.calls() if c[2:4] == ['queued-resources', 'create']]
  assert '--accelerator-type=v5litepod-64' in create
  assert '--runtime-version=v2-alpha-tpuv5-lite' in create
  assert 'the run is complete' in result.stdout


def test_after_a_preemption_it_starts_again(cloud):
  cloud.behave('[ $(wc -l < $HOME/ran) = 2 ] || sleep 30')
  cloud.states('ACTIVE', 'SUSPENDING', 'SUSPENDING', 'SUSPENDING', 'SUSPENDED', 'ABSENT', 'ACTIVE')
  result = cloud.pod('run', arguments=COMMAND)
  assert result.returncode == 0, result.stderr
  assert cloud.starts() == [2, 2]
  assert cloud.count('queued-resources', 'delete') == 1


def test_after_a_preemption_during_installation_it_starts_again(cloud):
  cloud.fail('4 scp')
  cloud.states('ACTIVE', 'SUSPENDED', 'SUSPENDED', 'SUSPENDED', 'ABSENT', 'ACTIVE')
  result = cloud.pod('run', arguments=COMMAND)
  assert result.returncode == 0, result.stderr
  assert cloud.starts() == [1, 1]
  assert cloud.count('queued-resources', 'create') == 1


def test_a_machine_that_is_preempted_before_its_resource_says_so_is_replaced(cloud):
  cloud.behave('[ $(wc -l < $HOME/ran) = 2 ] || sleep 30')
  run = cloud.begin('run', arguments=COMMAND)
  wait_for(lambda: cloud.starts() == [1, 1])
  (cloud.folder / 'node').write_text('PREEMPTED')
  (cloud.hosts[1] / 'gone').touch()
  wait_for(lambda: cloud.count('queued-resources', 'delete'))
  (cloud.folder / 'node').write_text('READY')
  assert run.wait(60) == 0, run.stderr.read()
  assert cloud.starts() == [2, 2]


def test_failures_of_gcloud_do_not_end_or_restart_the_run(cloud):
  cloud.behave('sleep 3')
  cloud.fail('2 describe', '1 create', '2 mkdir', '1 scp', '1 install', '3 status', '1 log')
  cloud.states('ABSENT', 'ABSENT', 'ACTIVE')
  result = cloud.pod('run', arguments=COMMAND)
  assert result.returncode == 0, result.stderr
  assert cloud.starts() == [1, 1]
  assert set((cloud.folder / 'failures').read_text().split()[::2]) == {'0'}


def test_an_outage_longer_than_every_patience_leaves_the_run_alone(cloud):
  cloud.behave('sleep 6')
  run = cloud.begin('run', arguments=COMMAND)
  wait_for(lambda: cloud.starts() == [1, 1])
  cloud.fail('5 describe')
  assert run.wait(60) == 0, run.stderr.read()
  assert cloud.starts() == [1, 1]


def test_an_error_of_gcloud_that_stays_is_told_in_its_words(cloud):
  cloud.fail('99 describe')
  result = cloud.pod('up')
  assert result.returncode == 1
  assert 'connection reset by peer' in result.stderr
  assert 'Traceback' not in result.stderr


def test_an_error_of_the_command_is_shown_and_not_repeated(cloud):
  cloud.behave('case $HOME in *1) echo "unknown mixture"; exit 1;; *) sleep 30;; esac')
  result = cloud.pod('run', arguments=COMMAND)
  assert result.returncode == 1
  assert 'unknown mixture' in result.stdout  # of the host that failed, not of the first
  assert 'Traceback' not in result.stderr
  assert cloud.starts() == [1, 1]


def test_a_killed_host_leads_to_a_restart_of_all(cloud):
  cloud.behave(
    '[ $(wc -l < $HOME/ran) = 2 ] && exit 0; [ $HOME = *0 ] && kill -9 $$; sleep 3; exit 137'
  )
  result = cloud.pod('run', arguments=COMMAND)
  assert result.returncode == 0, result.stderr
  assert cloud.starts() == [2, 2]


def test_a_host_that_stays_unreachable_is_replaced_with_its_slice(cloud):
  cloud.behave('[ $(wc -l < $HOME/ran) = 2 ] || sleep 60')
  run = cloud.begin('run', '--unseen_limit=1', arguments=COMMAND)
  wait_for(lambda: cloud.starts() == [1, 1])
  (cloud.hosts[1] / 'gone').touch()
  out, err = run.communicate(timeout=60)
  assert run.returncode == 0, err
  assert 'only 1 hosts answer' in out
  assert cloud.count('queued-resources', 'delete') == 1
  assert cloud.starts()[1] == 2


def test_restarts_in_a_row_are_limited(cloud):
  cloud.behave('exit 137')
  result = cloud.pod('run', '--max_restarts=2', arguments=COMMAND)
  assert result.returncode == 1
  assert 'restarts in a row' in result.stderr
  assert cloud.starts() == [3, 3]


def test_a_complete_run_is_not_begun_again(cloud):
  for _ in range(2):
    result = cloud.pod('run', arguments=COMMAND)
    assert result.returncode == 0, result.stderr
  assert 'the run is complete' in result.stdout
  assert cloud.starts() == [1, 1]
  cloud.pod('run', arguments=[*COMMAND, '--gin.TRAIN_STEPS=9'])
  assert cloud.starts() == [2, 2]


def test_run_takes_up_what_an_earlier_one_started(cloud):
  cloud.behave('sleep 6')
  cloud.pod('install')
  cloud.pod('start', arguments=COMMAND)
  cloud.wheel('newer')
  result = cloud.pod('run', arguments=COMMAND)
  assert result.returncode == 0, result.stderr
  assert cloud.starts() == [1, 1]
  assert cloud.count('tpu-vm', 'scp') == 1  # nothing is changed under a running command


def test_another_command_is_not_started_over_a_running_one(cloud):
  cloud.behave(FOREVER)
  cloud.pod('install')
  cloud.pod('start', arguments=COMMAND)
  for command in ('run', 'start'):
    result = cloud.pod(command, arguments=['eval'])
    assert result.returncode == 1
    assert 'another command' in result.stderr
  assert cloud.starts() == [1, 1]


def test_one_run_at_a_time(cloud):
  cloud.behave(FOREVER)
  first = cloud.begin('run', arguments=COMMAND)
  wait_for(lambda: cloud.starts() == [1, 1])
  result = cloud.pod('run', arguments=COMMAND)
  assert result.returncode == 1
  assert 'another `run aya` is at work' in result.stderr
  first.send_signal(signal.SIGTERM)
  assert first.wait(30) == 130


def test_what_is_stopped_by_hand_stays_stopped(cloud):
  cloud.behave(FOREVER)
  run = cloud.begin('run', arguments=COMMAND)
  wait_for(lambda: cloud.starts() == [1, 1])
  assert cloud.pod('stop').returncode == 0
  _, err = run.communicate(timeout=60)
  assert run.returncode == 1
  assert 'stopped by hand' in err
  assert cloud.starts() == [1, 1]
  assert 'saved' in (cloud.job(1) / 'log').read_text()
  cloud.behave('exit 0')
  assert cloud.pod('run', arguments=COMMAND).returncode == 0
  assert cloud.starts() == [2, 2]


def test_a_slice_that_someone_deleted_is_not_made_again(cloud):
  cloud.behave(FOREVER)
  cloud.states('ACTIVE', 'ACTIVE', 'ABSENT')
  result = cloud.pod('run', arguments=COMMAND)
  assert result.returncode == 1
  assert 'deleted by someone' in result.stderr
  assert cloud.count('queued-resources', 'create') == 0


def test_start_is_idempotent_and_stop_lets_the_run_save(cloud):
  cloud.behave(FOREVER)
  cloud.pod('install')
  for _ in range(2):
    assert cloud.pod('start', arguments=COMMAND).returncode == 0
  status = cloud.pod('status').stdout
  assert 'w-0: running' in status and 'w-1: running' in status
  assert cloud.pod('stop').returncode == 0
  assert cloud.starts() == [1, 1]
  assert (cloud.job(1) / 'exit').read_text() == '130\n'
  assert 'saved' in (cloud.job(1) / 'log').read_text()


def test_a_child_that_outlives_its_parent_still_counts_as_running(cloud):
  cloud.behave(FOREVER)
  cloud.pod('install')
  cloud.pod('start', arguments=COMMAND)
  wait_for(lambda: cloud.starts() == [1, 1])
  subprocess.run(['kill', '-KILL', (cloud.job(0) / 'pid').read_text().strip()], check=True)
  cloud.pod('start', arguments=COMMAND)
  assert cloud.starts() == [1, 1]
  assert cloud.pod('stop').returncode == 0
  assert 'running' not in cloud.pod('status').stdout


def test_an_interrupted_installation_is_begun_anew(cloud):
  cloud.behave('exit 1', 'pip_behaviour')
  assert cloud.pod('install').returncode == 1
  assert not (cloud.job() / 'installed').exists()
  cloud.behave('', 'pip_behaviour')
  made = (cloud.hosts[0] / 'environments').read_text().count('made')
  assert cloud.pod('install').returncode == 0
  assert (cloud.hosts[0] / 'environments').read_text().count('made') == made + 1
  assert cloud.pod('install').returncode == 0
  assert (cloud.hosts[0] / 'environments').read_text().count('made') == made + 1


def test_a_wheel_of_the_same_version_replaces_the_old_one(cloud):
  for text in ('one', 'two'):
    cloud.wheel(text)
    assert cloud.pod('install').returncode == 0
  lines = (cloud.hosts[0] / 'pip').read_text().splitlines()
  assert [line.split()[-1] for line in lines if '--force-reinstall' in line] == ['./a.whl'] * 2
  assert all('--constraint ./constraints.txt ./a.whl[tpu,hf]' in line for line in lines[::2])


def test_hosts_with_an_old_python_get_a_newer_one(cloud):
  old = '#!/bin/bash\n[ "$1" = -c ] && exit 1\n'
  for name in ('python3.11', 'python3.12', 'python3.13'):
    cloud.program(name, old)
  make = 'mkdir -p uv/bin; cp $0 uv/bin/uv; exit\n'
  cloud.program('python3', f'{old}[ "$2" = pip ] && {{ {make} }}\npython-for-hosts -m venv env\n')
  cloud.program('python-for-hosts', (cloud.folder / 'bin/python-for-hosts').read_text())
  environment = cloud.environment() | {'PYTHON': ''}
  (cloud.hosts[0] / 'aya-train-job').mkdir()
  for name in ('a.whl', 'c.txt'):
    (cloud.job() / name).write_text('')
  result = subprocess.run(
    ['bash', ROOT / 'launch/pod_host.sh', 'install', 'a.whl', 'c.txt', 'tpu'],
    env=environment | {'HOME': str(cloud.hosts[0])},
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  assert (cloud.job() / 'uv/bin/uv').exists()


def test_secrets_travel_in_a_file_as_they_were_written(cloud):
  secrets = cloud.folder / 'env'
  secrets.write_text('# mine\n\nOTHER="two words"\nexport TOKEN=hf_$(date) a\'b "c" \n')
  result = cloud.pod('run', f'--env_file={secrets}', arguments=COMMAND)
  assert result.returncode == 0, result.stderr
  said = result.stdout.replace("token hf_$(date) a'b", '')
  assert 'hf_' not in json.dumps(cloud.calls()) + said + result.stderr
  copied = cloud.job() / 'secrets'
  assert copied.stat().st_mode & 0o077 == 0
  assert 'token hf_$(date) a\'b "c"\n' in (cloud.job() / 'log').read_text()
  assert "OTHER='two words'\n" in copied.read_text()
  assert [p.name for p in cloud.folder.glob('aya_train.*') if p.is_dir()] == []


def test_a_line_that_is_no_variable_is_named_and_not_shown(cloud):
  secrets = cloud.folder / 'env'
  secrets.write_text('A=1\nhf_secret\n')
  result = cloud.pod('run', f'--env_file={secrets}', arguments=COMMAND)
  assert result.returncode == 1
  assert 'env, line 2: expected NAME=VALUE' in result.stderr
  assert 'hf_secret' not in result.stderr + result.stdout
  assert cloud.calls() == []


@pytest.mark.parametrize(
  'command', ['run', 'up', 'install', 'start', 'status', 'logs', 'stop', 'down']
)
def test_dry_run_executes_nothing(cloud, command):
  before = sorted(cloud.folder.rglob('*'))
  result = cloud.pod(command, '--dry_run', '--wheel=', arguments=COMMAND)
  assert result.returncode == 0, result.stderr
  assert 'gcloud compute tpus' in result.stdout
  lines = [line for line in result.stdout.splitlines() if not line.startswith('#')]
  assert all(line.startswith('gcloud ') or 'pip wheel' in line for line in lines)
  assert cloud.calls() == []
  assert sorted(cloud.folder.rglob('*')) == before


def test_a_slice_that_cannot_be_made_ends_with_the_reason(cloud):
  cloud.states('FAILED')
  result = cloud.pod('up')
  assert result.returncode == 1
  assert 'quota' in result.stderr
  assert 'out of hamsters' in result.stderr


def test_a_slice_stuck_while_it_is_made_is_asked_for_again(cloud):
  cloud.states(*['PROVISIONING'] * 4, 'ABSENT', 'ACTIVE')
  result = cloud.pod('up', '--provision_limit=0.3')
  assert result.returncode == 0, result.stderr
  assert cloud.count('queued-resources', 'delete') >= 1
  assert cloud.count('queued-resources', 'create') == 1


def test_a_queue_without_end_is_left_at_the_limit(cloud):
  cloud.states('WAITING_FOR_RESOURCES')
  result = cloud.pod('up', '--queue_limit=0.5')
  assert result.returncode == 1
  assert 'WAITING_FOR_RESOURCES' in result.stderr and '--capacity' in result.stderr


@pytest.mark.parametrize(
  ('state', 'word'),
  [('WAITING_FOR_RESOURCES', 'stays in the queue'), ('ACTIVE', 'the run goes on')],
)
def test_an_interruption_says_what_is_left(cloud, state, word):
  cloud.behave(FOREVER)
  cloud.states(state)
  run = cloud.begin('run', arguments=COMMAND)
  if state == 'ACTIVE':
    wait_for(lambda: any('status' in ' '.join(c) for c in cloud.calls()[4:]))
  else:
    wait_for(cloud.calls)
    time.sleep(0.5)
  run.send_signal(signal.SIGINT)
  _, err = run.communicate(timeout=30)
  assert run.returncode == 130
  assert word in err
  assert 'Traceback' not in err


def test_down_of_nothing_is_no_error(cloud):
  cloud.states('ABSENT')
  result = cloud.pod('down')
  assert result.returncode == 0
  assert 'does not exist' in result.stdout
  assert cloud.count('queued-resources', 'delete') == 0
  assert cloud.pod('stop').returncode == 0


def test_down_saves_first_and_waits_for_nobody_else(cloud):
  cloud.behave(FOREVER)
  cloud.pod('install')
  cloud.pod('start', arguments=COMMAND)
  assert cloud.pod('down').returncode == 0
  order = [' '.join(call) for call in cloud.calls()]
  stopped = next(i for i, c in enumerate(order) if 'pod_host.sh stop' in c)
  assert stopped < next(i for i, c in enumerate(order) if 'queued-resources delete' in c)
  cloud.states('DELETING')
  assert cloud.pod('down').returncode == 0
  assert cloud.count('queued-resources', 'delete') == 1


def test_logs_of_no_host_are_an_error(cloud):
  result = cloud.pod('logs', '--worker=7')
  assert result.returncode == 1
  assert 'worker 7' in result.stderr


@pytest.mark.parametrize(
  'options',
  [['--type=v5e-7'], ['--type=v9-8'], ['--type=v4-16x'], ['--capacity=cheap']],
)
def test_wrong_usage_is_told_before_anything_happens(cloud, options):
  result = cloud.pod('up', *options)
  assert result.returncode == 2
  assert 'error: ' in result.stderr
  assert cloud.calls() == []


def test_a_name_that_the_cloud_refuses_is_told_before_anything_happens(cloud):
  for name in ('Aya', 'a;b', '-a', 'a_b', 'a' * 64):
    words = [sys.executable, str(ROOT / 'launch/tpu_pod'), 'up', '--zone=z', '--', name]
    words = words[:3] + [f'{name}'] + words[3:4] if name[0] != '-' else words[:4]
    assert subprocess.run(words, env=cloud.environment(), capture_output=True).returncode == 2
  assert cloud.calls() == []


@pytest.mark.parametrize(
  ('name', 'type_', 'hosts', 'runtime'),
  [
    ('v4-8', 'v4-8', 1, 'tpu-ubuntu2204-base'),
    ('v4-128', 'v4-128', 16, 'tpu-ubuntu2204-base'),
    ('v5p-128', 'v5p-128', 16, 'v2-alpha-tpuv5'),
    ('v5e-64', 'v5litepod-64', 16, 'v2-alpha-tpuv5-lite'),
    ('v5litepod-8', 'v5litepod-8', 1, 'v2-alpha-tpuv5-lite'),
    ('v6e-8', 'v6e-8', 1, 'v2-alpha-tpuv6e'),
    ('v6e-256', 'v6e-256', 64, 'v2-alpha-tpuv6e'),
  ],
)
def test_types_are_spelled_as_the_cloud_does(name, type_, hosts, runtime):
  found = slices.get(name)
  assert (found.type, found.hosts, found.generation.runtime) == (type_, hosts, runtime)


@pytest.mark.parametrize(
  ('hosts', 'complaint', 'action'),
  [
    ([], '', 'unseen'),
    (['exit 0', 'exit 0'], '', 'done'),
    (['exit 0', 'exit 0'], 'timed out', 'unseen'),
    (['exit 0', 'running 2'], '', 'wait'),
    (['running 2', 'running 3'], '', 'wait'),
    (['running 2', 'running 3'], 'timed out', 'unseen'),
    (['running 2', 'absent 0'], '', 'start'),
    (['exit 0', 'absent 0'], '', 'restart'),
    (['running 2', 'exit 130'], '', 'restart'),
    (['running 2', 'exit 137'], '', 'restart'),
    (['running 2', 'exit 3'], '', 'restart'),
    (['running 2', 'exit 1'], '', 'give up'),
    (['exit 1'], 'timed out', 'give up'),
    (['stopped 130', 'running 2'], '', 'stopped'),
    (['running 5000', 'running 3'], '', 'restart'),
  ],
)
def test_what_hosts_say_decides(hosts, complaint, action):
  said = [Host(f'w-{i}', h.split()[0], int(h.split()[1])) for i, h in enumerate(hosts)]
  assert pod_verdict.judge(said, complaint, 1800)[0] == action


@pytest.mark.parametrize(
  ('line', 'word'),
  [
    ('The TPU is already in use by process with pid 12.', 'another process holds the TPU'),
    ('backend initialization is taking more than 60.0 seconds', 'run on all of them'),
    ("RuntimeError: Unable to initialize backend 'tpu': no libtpu", '--extra must contain tpu'),
    ('OSError: [Errno 28] No space left on device', 'disk of a host is full'),
    ('step 3 loss 2.1', ''),
  ],
)
def test_what_a_pod_is_known_to_say_is_explained(line, word):
  explained = pod_verdict.explain(line)
  assert word in explained and bool(word) == bool(explained)


@pytest.mark.heavy
def test_the_wheel_of_equal_sources_is_the_same(tmp_path):
  """Hosts install only what changed; nothing comes back from an old build/ of the checkout."""
  loader = importlib.machinery.SourceFileLoader('tpu_pod', str(ROOT / 'launch/tpu_pod'))
  module = importlib.util.module_from_spec(importlib.util.spec_from_loader('tpu_pod', loader))
  loader.exec_module(module)
  wheels = []
  for name in ('a', 'b'):
    args = module.parse(['install', 'aya', '--zone=z'])
    args.scratch = tmp_path / name
    wheels.append(module._wheel(module.Pod(args)).read_bytes())
    assert (args.scratch / 'build').is_dir()
  assert wheels[0] == wheels[1]

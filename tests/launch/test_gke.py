"""launch/gke/apply: the manifest as Kubernetes would read it, and kubectl as a stand-in."""

import json
import pathlib
import subprocess
import sys

import pytest
import yaml

APPLY = pathlib.Path(__file__).parents[2] / 'launch/gke/apply'
KUBECTL = """#!/bin/bash
for a in "$@"; do printf '%s\\n' "$a"; done >> {0}/calls
echo -- >> {0}/calls
case "$1" in
  get) [ "$4" != --ignore-not-found ] || cat {0}/there 2>/dev/null || true;;
  apply) cat > {0}/stdin; exit $(cat {0}/code 2>/dev/null || echo 0);;
esac
"""


def apply(*words, environment=None):
  return subprocess.run(
    [sys.executable, APPLY, *words], capture_output=True, text=True, env=environment
  )


def jobset(*options, command=('train',)):
  result = apply('--name=aya', '--image=r/i:1', *options, '--dry_run', '--', *command)
  assert result.returncode == 0, result.stderr
  return yaml.safe_load(result.stdout)


@pytest.fixture
def cluster(tmp_path):
  (tmp_path / 'kubectl').write_text(KUBECTL.format(tmp_path))
  (tmp_path / 'kubectl').chmod(0o755)
  environment = {'PATH': f'{tmp_path}:/usr/bin:/bin'}

  def call(*words):
    (tmp_path / 'calls').unlink(missing_ok=True)
    result = apply(*words, environment=environment)
    calls = tmp_path / 'calls'
    text = calls.read_text() if calls.exists() else ''
    return result, [c.split('\n')[:-1] for c in text.split('--\n')[:-1]]

  call.folder = tmp_path
  call.ended = lambda kind: (tmp_path / 'there').write_text(
    json.dumps({'status': {'conditions': [{'type': kind, 'status': 'True'}]}})
  )
  return call


START = ('--name=aya', '--image=i', '--', 'train')


def test_the_manifest_starts_the_command_on_every_host():
  command = ['train', '--gin_file=aya101.gin', '--gin.MODEL_DIR="gs://b/a: c"', '--x=$(y) ${NAME}']
  job = jobset(command=command)['spec']['replicatedJobs'][0]['template']['spec']
  assert job['parallelism'] == job['completions'] == 16
  container = job['template']['spec']['containers'][0]
  assert container['command'] == ['aya-train']  # whatever the image's entry point
  assert container['args'] == [*command[:3], '--x=$$(y) ${NAME}', '--multihost']
  assert container['image'] == 'r/i:1'
  assert container['resources']['limits'] == {'google.com/tpu': 4}


def test_errors_that_a_restart_cannot_mend_end_the_jobset():
  spec = jobset()['spec']
  job = spec['replicatedJobs'][0]['template']['spec']
  failed = [r for r in job['podFailurePolicy']['rules'] if r['action'] == 'FailJob']
  assert failed[0]['onExitCodes']['values'] == [1, 2]
  rules = spec['failurePolicy']['rules']
  assert rules == [{'action': 'FailJobSet', 'onJobFailureReasons': ['PodFailurePolicy']}]


def test_all_hosts_are_of_one_slice():
  key = 'alpha.jobset.sigs.k8s.io/exclusive-topology'
  assert jobset()['metadata']['annotations'][key] == 'cloud.google.com/gke-nodepool'


@pytest.mark.parametrize(
  ('options', 'accelerator', 'topology', 'hosts', 'chips'),
  [
    (['--type=v4-128'], 'tpu-v4-podslice', '4x4x4', 16, 4),
    (['--type=v5p-8'], 'tpu-v5p-slice', '2x2x1', 1, 4),
    (['--type=v5e-64'], 'tpu-v5-lite-podslice', '8x8', 16, 4),
    (['--type=v6e-8'], 'tpu-v6e-slice', '2x4', 1, 8),
    (['--type=v6e-256'], 'tpu-v6e-slice', '16x16', 64, 4),
    (['--type=v6e-8', '--chips_per_host=4'], 'tpu-v6e-slice', '2x4', 2, 4),
    (['--type=v5p-8', '--topology=4x4x12'], 'tpu-v5p-slice', '4x4x12', 48, 4),
  ],
)
def test_nodes_are_those_of_the_type(options, accelerator, topology, hosts, chips):
  job = jobset(*options)['spec']['replicatedJobs'][0]['template']['spec']
  pod = job['template']['spec']
  assert pod['nodeSelector'] == {
    'cloud.google.com/gke-tpu-accelerator': accelerator,
    'cloud.google.com/gke-tpu-topology': topology,
  }
  assert job['completions'] == hosts
  assert pod['containers'][0]['resources']['limits'] == {'google.com/tpu': chips}


def test_spot_nodes_are_asked_for():
  pod = jobset('--spot')['spec']['replicatedJobs'][0]['template']['spec']['template']['spec']
  assert pod['nodeSelector']['cloud.google.com/gke-spot'] == 'true'


@pytest.mark.parametrize(
  ('option', 'word'),
  [('--topology=3x1', '3 chips'), ('--topology=4xx4', '4xx4'), ('--type=v5e-7', 'no slice')],
)
def test_a_slice_that_does_not_exist_is_refused(option, word):
  result = apply('--name=a', '--image=i', option, '--dry_run', '--', 'train')
  assert result.returncode == 1
  assert word in result.stderr
  assert 'Traceback' not in result.stderr


@pytest.mark.parametrize('name', ['1e3', 'A', 'a b', 'a' * 41])
def test_a_name_that_kubernetes_refuses_is_told(name):
  assert apply(f'--name={name}', '--image=i', '--dry_run', '--', 'train').returncode == 2


def test_it_goes_through_kubectl(cluster):
  result, calls = cluster(*START)
  assert result.returncode == 0, result.stderr
  assert calls[-1] == ['apply', '-f', '-']
  assert yaml.safe_load((cluster.folder / 'stdin').read_text())['kind'] == 'JobSet'
  for option, words in (
    ('--delete', ['delete', 'jobsets.jobset.x-k8s.io', 'aya', '--ignore-not-found']),
    ('--status', ['get', 'jobsets.jobset.x-k8s.io', 'aya']),
    ('--logs=3', ['logs']),
  ):
    result, calls = cluster('--name=aya', option)
    assert result.returncode == 0, result.stderr
    assert calls[0][: len(words)] == words
  assert 'job-completion-index=3' in calls[0][1] and '--follow' in calls[0]


def test_a_complete_run_is_kept_and_a_failed_one_started_anew(cluster):
  cluster.ended('Completed')
  result, calls = cluster(*START)
  assert result.returncode == 0 and 'complete' in result.stdout
  assert [c[0] for c in calls] == ['get']
  cluster.ended('Failed')
  _, calls = cluster(*START)
  assert [c[0] for c in calls] == ['get', 'delete', 'apply']


def test_a_run_that_cannot_be_changed_is_explained(cluster):
  (cluster.folder / 'there').write_text('{"status": {}}')
  (cluster.folder / 'code').write_text('1')
  result, calls = cluster(*START)
  assert result.returncode == 1
  assert '--delete first' in result.stderr
  assert [c[0] for c in calls] == ['get', 'apply']


def test_dry_run_executes_nothing(cluster):
  for action in ((), ('--delete',), ('--status',), ('--logs=0',)):
    result, calls = cluster('--name=aya', '--image=i', *action, '--dry_run', '--', 'train')
    assert result.returncode == 0, result.stderr
    assert 'kubectl' in result.stdout
    assert calls == []

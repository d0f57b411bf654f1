"""launch/gke/apply: the manifest as Kubernetes would read it."""

import pathlib
import subprocess
import sys

import yaml

APPLY = pathlib.Path(__file__).parents[2] / 'launch/gke/apply'


def apply(*words, environment=None):
  return subprocess.run(
    [sys.executable, APPLY, *words], capture_output=True, text=True, env=environment
  )


def test_the_manifest_starts_the_command_on_every_host():
  command = ['train', '--gin_file=aya101.gin', '--gin.MODEL_DIR="gs://b/a: c"']
  result = apply('--name=aya', '--image=r/i:1', '--dry_run', '--', *command)
  assert result.returncode == 0, result.stderr
  job = yaml.safe_load(result.stdout)['spec']['replicatedJobs'][0]['template']['spec']
  assert job['parallelism'] == job['completions'] == 16
  container = job['template']['spec']['containers'][0]
  assert container['args'] == [*command, '--multihost']
  assert container['image'] == 'r/i:1'
  assert container['resources']['limits'] == {'google.com/tpu': 4}
  assert job['podFailurePolicy']['rules'][0]['onExitCodes']['values'] == [1, 2]


def test_a_topology_of_broken_hosts_is_refused():
  result = apply('--name=a', '--image=i', '--topology=3x1', '--dry_run', '--', 'train')
  assert result.returncode == 1
  assert '3 chips' in result.stderr


def test_it_goes_through_kubectl(tmp_path):
  kubectl = tmp_path / 'kubectl'
  kubectl.write_text(f'#!/bin/bash\necho "$@" > {tmp_path}/args; cat > {tmp_path}/stdin\n')
  kubectl.chmod(0o755)
  environment = {'PATH': f'{tmp_path}:/usr/bin:/bin'}
  assert apply('--name=a', '--image=i', '--', 'train', environment=environment).returncode == 0
  assert (tmp_path / 'args').read_text().split() == ['apply', '-f', '-']
  assert yaml.safe_load((tmp_path / 'stdin').read_text())['kind'] == 'JobSet'
  assert apply('--name=a', '--delete', environment=environment).returncode == 0
  assert (tmp_path / 'args').read_text().startswith('delete jobset a')

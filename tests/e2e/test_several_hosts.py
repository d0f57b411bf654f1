"""Real processes on this machine, talking through gloo, against one."""

import json
import pathlib
import socket
import subprocess
import sys

import pytest
import seqio

from aya_train import metric_writer
from tests.objectives import test_preference_run

ROOT = pathlib.Path(__file__).parents[2]
INFER = 'infer_eval/tests.copy'


def run(
  hosts,
  model_dir,
  steps,
  mesh=(2, 2),
  initial_checkpoint_path=None,
  plain=False,
  embedding=False,
  preference=None,
  parts=1,
):
  """Trains on `hosts` processes that share the mesh's devices; returns the log of the first."""
  with socket.socket() as s:
    s.bind(('localhost', 0))
    port = s.getsockname()[1]
  given = {
    'model_dir': str(model_dir),
    'prepared_dir': str(model_dir.parent / 'prepared'),
    'steps': steps,
    'devices': mesh[0] * mesh[1],
    'plain': plain,
    'embedding': embedding,
    'preference': preference,
    'parts': parts,
    'mesh': dict(zip(('data', 'model'), mesh, strict=True)),
    'initial_checkpoint_path': initial_checkpoint_path and str(initial_checkpoint_path),
  }
  command = [sys.executable, '-m', 'tests.e2e.host', str(port), str(hosts)]
  processes = [
    subprocess.Popen(
      [*command, str(i), json.dumps(given)],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(hosts)
  ]
  outputs = [p.communicate(timeout=600)[0] for p in processes]
  for process, output in zip(processes, outputs, strict=True):
    assert process.returncode == 0, output[-3000:]
  return outputs[0]


def values(model_dir, kind, name):
  return {r['step']: r[name] for r in metric_writer.read(model_dir) if r['kind'] == kind}


def assert_agree(one, two, step):
  # Evaluation batches do not depend on the number of hosts.
  for kind, name in (('train_eval', 'loss'), (INFER, 'match')):
    a, b = (values(folder, kind, name)[step] for folder in (one, two))
    assert a == pytest.approx(b, rel=1e-5), kind


def test_two_hosts_agree_with_one(tmp_path):
  run(1, tmp_path / 'one', steps=1)
  run(2, tmp_path / 'two', steps=1)
  assert_agree(tmp_path / 'one', tmp_path / 'two', step=0)  # the initial parameters
  assert (tmp_path / 'two/checkpoints/1/data/process_1-of-2.json').exists()


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """Three steps of one process with one device."""
  folder = tmp_path_factory.mktemp('alone')
  run(1, folder / 'run', steps=3, mesh=(1, 1), plain=True)
  return folder / 'run'


@pytest.mark.heavy
@pytest.mark.parametrize('hosts', [2, 4])
def test_several_hosts_of_two_devices_train_as_one(alone, tmp_path, hosts):
  """Batch for batch the same losses: so their shards of the data are disjoint and complete."""
  run(hosts, tmp_path / 'run', steps=3, mesh=(hosts, 2), plain=True)
  for kind in ('train', 'train_eval'):
    expected = values(alone, kind, 'loss')
    assert set(expected) >= {1, 2, 3}
    assert values(tmp_path / 'run', kind, 'loss') == pytest.approx(expected, rel=1e-4), kind
  # Evaluation and decoding are gathered, and written by one host.
  for kind in ('train', 'train_eval', INFER):
    steps = [r['step'] for r in metric_writer.read(tmp_path / 'run') if r['kind'] == kind]
    assert steps == [r['step'] for r in metric_writer.read(alone) if r['kind'] == kind]
    assert len(steps) == len(set(steps)) > 0
  decoded = sorted(p.relative_to(alone) for p in alone.rglob('*.jsonl') if 'infer' in str(p))
  assert decoded
  for file in decoded:
    lines = [(folder / file).read_text().splitlines() for folder in (alone, tmp_path / 'run')]
    assert len(lines[0]) == len(lines[1])
  written = (tmp_path / 'run/checkpoints/3/data').glob(f'process_*-of-{hosts}.json')
  assert len(list(written)) == hosts


@pytest.mark.heavy
def test_rows_of_one_host_are_negatives_of_those_of_another(tmp_path):
  options = {'steps': 3, 'plain': True, 'embedding': True}
  run(1, tmp_path / 'one', mesh=(1, 1), **options)
  run(2, tmp_path / 'two', mesh=(2, 2), parts=2, **options)
  for name in ('loss', 'accuracy', 'negatives', 'temperature', 'grad_norm'):
    one, two = (values(tmp_path / folder, 'train', name) for folder in ('one', 'two'))
    assert two == pytest.approx(one, rel=1e-3), name


@pytest.mark.heavy
@pytest.mark.parametrize('loss', ['dpo', 'kto'])
def test_two_hosts_train_on_pairs_as_one(tmp_path, loss):
  """With the scores of a reference; of KTO its z is that of the whole batch."""
  test_preference_run.register_task()
  try:
    reference = test_preference_run.scored(tmp_path, loss).reference_checkpoint
  finally:
    seqio.TaskRegistry.remove('tests.preference_run')
  options = {'steps': 3, 'preference': loss, 'initial_checkpoint_path': reference}
  run(1, tmp_path / 'one', mesh=(1, 1), **options)
  run(2, tmp_path / 'two', mesh=(2, 2), parts=2, **options)
  found = [test_preference_run.figures(tmp_path / name) for name in ('one', 'two')]
  test_preference_run.assert_same_figures(*found)


@pytest.mark.heavy
def test_two_hosts_resume(tmp_path):
  run(2, tmp_path / 'whole', steps=2)
  run(2, tmp_path / 'resumed', steps=1)
  run(2, tmp_path / 'resumed', steps=2)
  for kind in ('train', 'train_eval'):
    uninterrupted = values(tmp_path / 'whole', kind, 'loss')
    assert values(tmp_path / 'resumed', kind, 'loss') == uninterrupted
    assert 2 in uninterrupted


@pytest.mark.heavy
def test_what_four_hosts_wrote_goes_on_with_other_meshes_and_hosts(tmp_path):
  run(1, tmp_path / 'one', steps=1)
  run(4, tmp_path / 'four', steps=1)
  assert_agree(tmp_path / 'one', tmp_path / 'four', step=0)
  assert len(list((tmp_path / 'four/checkpoints/1/data').glob('process_*-of-4.json'))) == 4

  # Its parameters, read by one host and by two, evaluate as they did on four.
  for hosts, mesh in ((1, (4, 1)), (2, (1, 4))):
    begun = tmp_path / f'begun{hosts}'
    run(hosts, begun, 2, mesh, initial_checkpoint_path=tmp_path / 'four')
    assert_agree(tmp_path / 'four', begun, step=1)

  # The run itself goes on with two hosts, optimizer and data included.
  log = run(2, tmp_path / 'four', 2, (4, 1))
  assert 'continuing from step 1' in log
  assert 'the data were read in 2 parts, and go on in 2' not in log  # the same parts as before
  log = run(1, tmp_path / 'four', 3, (1, 4))
  assert 'the data were read in 2 parts, and go on in 1' in log
  assert (
    values(tmp_path / 'four', 'train_eval', 'loss')[2]
    < values(tmp_path / 'four', 'train_eval', 'loss')[0]
  )


@pytest.mark.heavy
def test_one_two_and_four_hosts_in_turn_train_as_one(alone, tmp_path):
  """The losses are those of a run that never moved: its examples come, each of them once."""
  for step, hosts in enumerate((1, 2, 4), start=1):
    run(hosts, tmp_path / 'run', steps=step, mesh=(hosts, 1), plain=True)
  for kind in ('train', 'train_eval'):
    expected = values(alone, kind, 'loss')
    assert values(tmp_path / 'run', kind, 'loss') == pytest.approx(expected, rel=1e-4), kind

"""The Aya recipe from released files to the report, and every mixture by its name."""

import json
import math
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest
import seqio

from aya_train import metric_writer
from aya_train.checkpoint import manager
from aya_train.tasks.mixtures import aya_mixtures
from tests.e2e.conftest import SHAREGPT, command

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = (
  '--gin_file=models/mt5_tiny.gin',
  '--gin_file=recipes/sft_aya.gin',
  '--gin_file=hardware/cpu_local.gin',
)
SUITE = 'aya_evaluation_suite.aya_human_annotated'
OPEN = set(aya_mixtures.WEIGHTS['aya_open'].percent)
NAMES = (*aya_mixtures.WEIGHTS, *aya_mixtures.LONG_MIXTURES)
PARTS = {name: {p.name for p in seqio.MixtureRegistry.get(name).parts} for name in NAMES}
WITH_SHAREGPT = [name for name in NAMES if SHAREGPT in PARTS[name]]


def gin(**macros):
  return [f'--gin.{name}={value!r}' for name, value in macros.items()]


def small(model_dir, **macros):
  """The recipe with its own settings, but for the sizes."""
  sizes = {'TASK_FEATURE_LENGTHS': {'inputs': 64, 'targets': 64}, 'MAX_TRUNCATED_FRACTION': 1.0}
  sizes |= {'BATCH_SIZE': 8, 'RANDOM_SEED': 0, 'LOG_PERIOD': 1, 'TRAIN_STEPS_RELATIVE': 2}
  return [*RECIPE, *gin(MODEL_DIR=str(model_dir), **{**sizes, **macros})]


def at(checkpoint, **macros):
  """Settings of `eval` and `infer`, whose recipe is to stand before them."""
  return [RECIPE[2], *gin(CHECKPOINT_PATH=str(checkpoint), BATCH_SIZE=8, **macros)]


def of_kind(model_dir, kind):
  return [record for record in metric_writer.read(model_dir) if record['kind'] == kind]


def lines(model_dir, kind):
  """Steps as they were written, those of a killed run included."""
  text = (pathlib.Path(model_dir) / metric_writer.FILE).read_text()
  found = [json.loads(line) for line in text.splitlines()]
  return [record['step'] for record in found if record['kind'] == kind]


def check_run(model_dir, first, last):
  """What every finished run of the recipe on aya_open has, with its export in hf/."""
  assert manager.latest_step(str(model_dir)) == last
  assert [record['step'] for record in of_kind(model_dir, 'train')] == [*range(first + 1, last + 1)]
  for kind in ('train', 'train_eval'):
    assert all(
      math.isfinite(record['loss_per_target_token']) for record in of_kind(model_dir, kind)
    )
  assert of_kind(model_dir, 'train_eval')[-1]['step'] == last
  assert json.loads((model_dir / 'run.json').read_text())['first_step'] == first

  manifest = json.loads((model_dir / 'data_manifest.json').read_text())
  assert (manifest['mixture'], manifest['policy']) == ('aya_open', 'academic-only')
  listed = {s['name'].removesuffix('_pruned'): s for s in manifest['sources']}
  assert set(listed) == {name.removesuffix('_pruned') for name in OPEN}
  for name, percent in aya_mixtures.WEIGHTS['aya_open'].percent.items():
    assert listed[name.removesuffix('_pruned')]['rate'] == pytest.approx(percent)

  card = (model_dir / 'hf' / 'README.md').read_text()
  for name, source in listed.items():
    (row,) = [line for line in card.splitlines() if line.startswith(f'| {name} |')]
    assert source['licenses'] and all(name in row for name in source['licenses'])
    assert source['use'] in row
  assert f'| Steps | {last - first} |' in card
  assert 'random weights' not in card

  page = (model_dir / 'report.html').read_text()
  assert f'aya_open, step {last}' in page.replace('aya-train: ', '')
  assert 'same tokens' in page and 'OTHER TOKENS' not in page


def check_evaluation(folder, rows):
  (record,) = of_kind(folder, 'train_eval')
  assert math.isfinite(record['loss_per_target_token']) and record['examples'] == rows


def kill_once_saved(words, model_dir, env):
  """Runs `aya-train WORDS` in its own process until a checkpoint is there; returns its step."""
  log = model_dir.parent / 'killed.log'
  with log.open('w') as file:
    process = subprocess.Popen(
      [sys.executable, '-m', 'aya_train', *words], cwd=ROOT, env=env, stderr=file
    )
  try:
    deadline = time.monotonic() + 300
    while manager.latest_step(str(model_dir)) is None:
      assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
      time.sleep(0.1)
  finally:
    process.kill()
  assert process.wait() == -signal.SIGKILL
  return manager.latest_step(str(model_dir))


@pytest.fixture
def environment(aya_cache):
  """Of other processes, which find this package and its cache."""
  devices = str(jax.config.jax_num_cpu_devices)
  return {
    **os.environ,
    'JAX_NUM_CPU_DEVICES': devices,
    'JAX_PLATFORMS': 'cpu',
    'PYTHONPATH': str(ROOT),
  }


def test_the_recipe_from_a_t5x_checkpoint_killed_and_resumed_to_the_report(
  aya_cache, environment, tmp_path
):
  """What launch/aya_small.sh does, with shorter rows and fewer steps."""
  for package in ('tokenizers', 'torch', 'transformers'):
    pytest.importorskip(package, reason='needs the extra `hf`')
  before, initial, run = tmp_path / 'before', tmp_path / 'checkpoint_2', tmp_path / 'run'
  command('train', *small(before, MIXTURE_OR_TASK_NAME='mt0', INITIAL_CHECKPOINT_PATH=None))
  command('convert', before, initial, '--to', 't5x')
  steps = {'TRAIN_STEPS_RELATIVE': 24, 'EVAL_PERIOD': 12, 'CHECKPOINT_PERIOD': 3}
  words = small(run, INITIAL_CHECKPOINT_PATH=str(initial), **steps)
  command('prepare', *words, '--workers', 1)
  killed_at = kill_once_saved(['train', *words], run, environment)
  assert 2 < killed_at < 26
  command('train', *words)
  written = lines(run, 'train')
  assert written[-1] == 26 and written.count(killed_at) == 1

  for task, split, rows in (('aya_open', 'validation', 240), (SUITE, 'test', 84)):
    folder = tmp_path / 'eval' / task
    macros = {'TASK_FEATURE_LENGTHS': {'inputs': 512, 'targets': 256}, 'SPLIT': split}
    command(
      *('eval', RECIPE[0], '--gin_file=recipes/eval.gin'),
      *at(run, EVAL_OUTPUT_DIR=str(folder), MIXTURE_OR_TASK_NAME=task, **macros),
    )
    check_evaluation(folder, rows)
  answers = tmp_path / 'answers.jsonl'
  command(
    *('infer', RECIPE[0], '--gin_file=recipes/infer.gin'),
    *at(run, OUTPUT_FILE=str(answers), MIXTURE_OR_TASK_NAME=SUITE, NUM_EXAMPLES=3),
    *gin(TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 64}),
  )
  assert len(answers.read_text().splitlines()) == 3
  command('convert', run, run / 'hf', '--to', 'hf')
  command('report', run, '--hf', run / 'hf', '--prompts', 6)
  check_run(run, 2, 26)


@pytest.mark.heavy
def test_the_script_runs_to_its_end_and_again(environment, tmp_path):
  bin_folder = tmp_path / 'bin'
  bin_folder.mkdir()
  for name, words in (('python', sys.executable), ('aya-train', f'{sys.executable} -m aya_train')):
    (bin_folder / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    (bin_folder / name).chmod(0o755)
  run = tmp_path / 'run'
  env = {**environment, 'AYA_TRAIN_VENV': 'none', 'AYA_TRAIN_SMALL_DIR': str(run)}
  env['PATH'] = f'{bin_folder}:{env["PATH"]}'
  del env['AYA_TRAIN_CACHE'], env['JAX_NUM_CPU_DEVICES']  # one of its own, and one device
  words = ['bash', str(ROOT / 'launch/aya_small.sh')]
  first = subprocess.run(words, env=env, text=True, capture_output=True, timeout=3000)
  assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-3000:]
  assert 'killed; the newest checkpoint is that of step' in first.stdout
  check_run(run / 'aya', 60, 72)
  for task, rows in (('aya_open', 240), (SUITE, 84)):
    check_evaluation(run / 'eval' / task, rows)
  assert len((run / 'answers.jsonl').read_text().splitlines()) == 4
  assert 'aya_open' in (run / 'data_aya_open.html').read_text()

  before = lines(run / 'aya', 'train')
  shutil.rmtree(run / 'aya/hf')
  again = subprocess.run(words, env=env, text=True, capture_output=True, timeout=3000)
  assert again.returncode == 0, again.stdout[-2000:] + again.stderr[-3000:]
  assert 'killed' not in again.stdout
  assert lines(run / 'aya', 'train') == before
  assert (run / 'aya/hf/README.md').exists()


def on_two_processes(words, env, folder):
  with socket.socket() as s:
    s.bind(('localhost', 0))
    port = s.getsockname()[1]
  hosts = [f'--coordinator_address=localhost:{port}', '--num_processes=2']
  command = [sys.executable, '-m', 'aya_train', *words, *hosts]
  env = {**env, 'JAX_NUM_CPU_DEVICES': '1'}
  processes = [
    subprocess.Popen(
      [*command, f'--process_id={i}'],
      cwd=ROOT,
      env=env,
      stderr=(folder / f'log{i}').open('w'),
    )
    for i in range(2)
  ]
  try:
    for i, process in enumerate(processes):
      assert process.wait(timeout=300) == 0, (folder / f'log{i}').read_text()[-3000:]
  finally:
    for process in processes:
      process.kill()


@pytest.mark.heavy
def test_two_processes_train_the_mixture_as_one(aya_cache, environment, tmp_path):
  """The same weights, hence the same validation loss; and draws of the same mixture after them."""
  macros = {'INITIAL_CHECKPOINT_PATH': None, 'EVAL_BEFORE_TRAINING': True, 'DROPOUT_RATE': 0.0}
  one, two = tmp_path / 'one', tmp_path / 'two'
  command('train', *small(one, **macros))
  on_two_processes(['train', *small(two, **macros)], environment, tmp_path)
  loss = 'loss_per_target_token'
  first, last = ((of_kind(r, 'train_eval')[0], of_kind(r, 'train_eval')[-1]) for r in (one, two))
  assert (first[0]['step'], first[1]['step']) == (0, 2)
  assert last[0][loss] == pytest.approx(first[0][loss], rel=1e-5)
  # Packed rows hold other examples where two processes pack, so that the updates differ a little.
  assert last[1][loss] == pytest.approx(first[1][loss], rel=0.02)
  assert [r['step'] for r in of_kind(two, 'train')] == [1, 2]
  manifests = [json.loads((run / 'data_manifest.json').read_text()) for run in (one, two)]
  assert manifests[0] == manifests[1]
  assert len(list((two / 'checkpoints/2/data').glob('process_*-of-2.json'))) == 2


@pytest.fixture
def safe_table(tmp_path):
  """A user's table with the data set of safe answers."""
  rows = [
    {'inputs': f'How do I pick lock number {i}?', 'targets': 'I cannot help with that.'}
    for i in range(12)
  ]
  (tmp_path / 'safe.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  (tmp_path / 'table.toml').write_text(
    f"[[dataset]]\nname = '{aya_mixtures.SAFE}'\nfiles = 'safe.jsonl'\nlanguage = 'eng'\n"
    "license = 'CC BY 4.0'\n"
  )
  return gin(DATASET_TABLES=(str(tmp_path / 'table.toml'),))


def mixture(name, model_dir, table, **macros):
  settings = {'MIXTURE_OR_TASK_NAME': name, 'INITIAL_CHECKPOINT_PATH': None, **macros}
  words = small(model_dir, **settings, **{'train_loop.train.train_eval_dataset_cfg': None})
  return [*words, *(table if aya_mixtures.SAFE in PARTS[name] else ())]


def drawn_sources(model_dir):
  """Percent of the draws by source, as a mixture names them."""
  manifest = json.loads((model_dir / 'data_manifest.json').read_text())
  return {source['name']: source['rate'] for source in manifest['sources']}


def shares(name, without=()):
  """Percent of the draws by the names of a manifest."""
  percent = {}
  for part in seqio.MixtureRegistry.get(name).parts:
    source = part.name.removesuffix('.long_answers').removesuffix('_pruned').removesuffix('_full')
    if source not in without:
      percent[source] = percent.get(source, 0) + part.percent
  return {source: 100 * x / sum(percent.values()) for source, x in percent.items()}


@pytest.mark.parametrize('name', NAMES)
def test_each_mixture_is_prepared_trained_and_reported(aya_cache, safe_table, tmp_path, name):
  run, page = tmp_path / 'run', tmp_path / 'data.html'
  words = mixture(name, run, safe_table)
  command('prepare', *words, '--workers', 1)
  prepared = {path.name for path in (aya_cache / 'prepared').iterdir()}
  command('train', *words)
  assert {path.name for path in (aya_cache / 'prepared').iterdir()} == prepared
  assert [record['step'] for record in of_kind(run, 'train')] == [1, 2]
  assert drawn_sources(run) == pytest.approx(shares(name))
  command('report', 'data', name, *words, '--output', page)
  assert all(source in page.read_text() for source in shares(name))


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=[pytest.mark.heavy] if 'ablation' in name or 'heavy' in name else [])
    for name in WITH_SHAREGPT
  ],
)
def test_without_sharegpt_a_mixture_is_refused_or_scaled_up(
  open_cache, safe_table, tmp_path, capsys, name
):
  from aya_train.cli import main

  run = tmp_path / 'run'
  for verb in ('prepare', 'train'):
    assert main.main([verb, *mixture(name, run, safe_table)]) == 1
    error = capsys.readouterr().err
    for said in (SHAREGPT, 'aya-train prepare sharegpt_command', "'renormalise'"):
      assert said in error
  assert not run.exists()
  command('train', *mixture(name, run, safe_table, MIXTURE_MISSING_SOURCES='renormalise'))
  assert drawn_sources(run) == pytest.approx(shares(name, without=(SHAREGPT,)))
  if name == 'aya101':
    command('report', run)
    assert 'cannot be opened' not in (run / 'report.html').read_text()


def test_the_safe_mixture_names_the_table_that_it_lacks(aya_cache, tmp_path, capsys):
  from aya_train.cli import main

  assert main.main(['train', *mixture('aya_safe_open', tmp_path / 'run', ())]) == 1
  error = capsys.readouterr().err
  assert aya_mixtures.SAFE in error and 'DATASET_TABLES' in error

"""The examples run as a user runs them, and the exported model knows the rows."""

import csv
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from aya_train import metric_writer
from aya_train.tasks import features, storage
from tests.examples import notebook

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOK = 'finetune_csv.ipynb'
needs_transformers = pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in ('torch', 'transformers')),
  reason='needs the extra `hf`',
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A copy of examples/, and a cache that both examples share."""
  root = tmp_path_factory.mktemp('examples')
  shutil.copytree(ROOT / 'examples', root / 'examples')
  return root


@pytest.fixture(scope='module')
def run(folder):
  """Runs Python in the copy, as a process of its own; what it printed."""

  def python(*words, cwd, path=()):
    environment = {k: v for k, v in os.environ.items() if k != features.VOCABULARY_ENV}
    environment |= {
      storage.CACHE_ENV: str(folder / 'cache'),
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': os.pathsep.join(map(str, (*path, ROOT))),
    }
    done = subprocess.run(
      [sys.executable, *words],
      cwd=cwd,
      env=environment,
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout

  return python


def rows():
  with open(ROOT / 'examples/days.csv', encoding='utf-8', newline='') as file:
    return list(csv.DictReader(file))


def losses(model_dir):
  return [r['loss'] for r in metric_writer.read(model_dir) if r['kind'] == 'train']


@needs_transformers
def test_the_script_trains_exports_and_asks(folder, run):
  printed = run('examples/finetune_csv.py', 'examples/days.csv', 'runs/days', cwd=folder)
  told = re.findall(r'^(.+)  (.+)  \(the row says: (.+)\)$', printed, re.MULTILINE)
  assert [(q, right) for q, _, right in told] == [(r['question'], r['answer']) for r in rows()[:5]]
  assert all(answer == right for _, answer, right in told)
  found = losses(folder / 'runs/days/run')
  assert found[-1] < found[0] / 2


def test_the_script_takes_columns_of_other_names_and_ends_well_without_transformers(folder, run):
  with open(folder / 'asked.csv', 'w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file)
    writer.writerows([['frage', 'antwort', 'sprache'], ['Eins und eins?', 'zwei', 'deu']])
  (folder / 'absent').mkdir()
  (folder / 'absent/torch.py').write_text("raise ImportError('no torch')")
  words = ('--question', 'frage', '--answer', 'antwort', '--language', 'sprache', '--steps', '2')
  words = ('examples/finetune_csv.py', 'asked.csv', 'out', *words)
  printed = run(*words, cwd=folder, path=[folder / 'absent'])
  assert "pip install 'aya-train[hf]' (no torch)" in printed
  assert (folder / 'out/hf/config.json').exists()
  assert len(losses(folder / 'out/run')) == 1


@needs_transformers
def test_the_cells_of_the_notebook_run_one_after_the_other(folder, run):
  printed = run('-m', 'tests.examples.notebook', NOTEBOOK, cwd=folder / 'examples')
  for row in rows():
    assert f'{row["question"]} -> {row["answer"]}\n' in printed


def test_the_notebook_is_plain_python_without_outputs():
  book = json.loads((ROOT / 'examples' / NOTEBOOK).read_text(encoding='utf-8'))
  assert book['nbformat'] == 4
  code = [cell for cell in book['cells'] if cell['cell_type'] == 'code']
  assert all(cell['outputs'] == [] and cell['execution_count'] is None for cell in code)
  for source in notebook.code_cells(ROOT / 'examples' / NOTEBOOK):
    compile(source, NOTEBOOK, 'exec')  # no magics

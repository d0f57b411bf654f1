"""The pages of the API: one for each public module, with what its docstring says."""

import ast
import html
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FOLDERS = {ROOT / 'aya_train': 'aya_train', ROOT / 'tasks': 'aya_train/tasks'}
MODULES = {
  f'{name}/{path.relative_to(folder)}': path
  for folder, name in FOLDERS.items()
  for path in sorted(folder.rglob('*.py'))  # links are not followed
  if path.name != '__main__.py'
}


@pytest.fixture(scope='module')
def pages(tmp_path_factory):
  """The folder of the pages, and what the script printed."""
  pytest.importorskip('pdoc', reason="pdoc is of the extra 'docs'")
  folder = tmp_path_factory.mktemp('pages')
  python = folder / 'bin/python'
  python.parent.mkdir()
  for name in ('python', 'aya-train'):
    (python.parent / name).write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (python.parent / name).chmod(0o755)
  env = {**os.environ, 'AYA_TRAIN_VENV': 'none', 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  env['PATH'] = f'{python.parent}:/usr/bin:/bin'
  done = subprocess.run(
    ['bash', ROOT / 'launch/api_pages.sh', folder / 'api'],
    env=env,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
  )
  assert done.returncode == 0, done.stdout[-5000:]
  return folder / 'api', done.stdout


def words(text):
  """Its words without marks, which Markdown takes for emphasis, code and quotes."""
  return re.findall(r'\w+', text)


def test_each_module_has_a_page_that_says_what_it_is(pages):
  folder, _ = pages
  lacking = {}
  for name, path in MODULES.items():
    page = folder / re.sub(r'(/__init__)?\.py$', '.html', name)
    said = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or ''
    shown = html.unescape(re.sub(r'<[^>]+>', ' ', page.read_text())) if page.exists() else ''
    first = ' '.join(words(said.partition('\n')[0]))
    if not first or first not in ' '.join(words(shown)):
      lacking[name] = first or 'no docstring'
  assert not lacking


def test_no_module_was_left_out_with_a_warning(pages):
  _, printed = pages
  assert not [line for line in printed.splitlines() if re.match('Warn:|Traceback', line)]

"""Functions are called through their module; types and errors may be imported by name."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted([*(ROOT / 'aya_train').rglob('*.py'), *(ROOT / 'tasks').rglob('*.py')])


def functions_by_name(source: str) -> list[str]:
  """Names in lower case that a module imports from a module of ours, and that are no modules."""
  found = []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('aya_train'):
      names = [alias.name for alias in node.names if alias.name.islower()]
      folder = ROOT.joinpath(*node.module.split('.'))
      found += [n for n in names if not _is_module(folder / n)]
  return found


def _is_module(path: pathlib.Path) -> bool:
  return path.is_dir() or path.with_suffix('.py').is_file()


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_called_through_their_module(path):
  assert functions_by_name(path.read_text(encoding='utf-8')) == []


def test_a_function_that_is_imported_by_name_is_noticed():
  source = 'from aya_train.objectives.objective import Objective, parameter_axes'
  assert functions_by_name(source) == ['parameter_axes']


def root_loggers(source: str) -> list[int]:
  """Lines that log as nobody of ours: the command line shows the loggers of aya_train alone."""
  found = []
  for node in ast.walk(ast.parse(source)):
    is_call = isinstance(node, ast.Attribute) and node.attr in ('info', 'warning', 'error')
    if is_call and isinstance(node.value, ast.Name) and node.value.id == 'logging':
      found.append(node.lineno)
  return found


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_logged_is_logged_by_a_module(path):
  assert root_loggers(path.read_text(encoding='utf-8')) == []


def test_a_root_logger_is_noticed():
  assert root_loggers('import logging\nlogging.info("x")') == [2]

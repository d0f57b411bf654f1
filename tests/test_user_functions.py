"""Functions named `MODULE:FUNCTION`, and what they give."""

import math
import sys

import pytest

from aya_train import user_functions
from aya_train.translation import scorers


@pytest.fixture
def beside(tmp_path, monkeypatch):
  """A module in the working directory, which is not on Python's path."""
  (tmp_path / 'tests_scorer_beside.py').write_text(
    'def one(a, b, c, d): return [1] * len(a)\nX = 2'
  )
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', [path for path in sys.path if path not in ('', str(tmp_path))])
  yield 'tests_scorer_beside'
  sys.modules.pop('tests_scorer_beside', None)


def test_a_module_of_the_working_directory_is_found(beside):
  assert user_functions.load(f'{beside}:one')('ab', 'cd', '', '') == [1, 1]
  assert scorers.scores(f'{beside}:one', [('a', 'b')], 'eng', 'yor') == [1.0]


@pytest.mark.parametrize('name', ['math:sqrt', '{}:one', 'json:JSONDecoder'])
def test_a_function_that_does_not_take_what_it_is_given_is_no_defect(beside, name):
  with pytest.raises(ValueError, match=r'does not take what it is given: '):
    user_functions.load(name.format(beside))(['a text'])


def test_what_a_function_itself_raises_is_left_alone(beside):
  with pytest.raises(TypeError, match='len'):
    user_functions.load(f'{beside}:one')(3, 0, 0, 0)


def test_a_module_that_is_no_python_is_refused(beside, tmp_path):
  (tmp_path / 'tests_no_python.py').write_text('def one(:')
  with pytest.raises(ValueError, match=r'SyntaxError: .*tests_no_python.py, line 1'):
    user_functions.load('tests_no_python:one')


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('{}', 'expected MODULE:FUNCTION'),
    (':one', 'expected MODULE:FUNCTION'),
    ('{}:two', "no attribute 'two'"),
    ('{}:X', 'is a int, and no function'),
    ('tests_no_such_module:one', 'No module named'),
  ],
)
def test_what_is_no_function_is_refused(beside, name, message):
  with pytest.raises(ValueError, match=message):
    user_functions.load(name.format(beside))


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ([1.0], 'expected a list of 2 numbers, got 1 of them'),
    (3, 'got no list'),
    ('ab', 'got no list'),
    ([1.0, None], 'a score is no number'),
    ([1.0, math.nan], 'a score must be finite, got nan'),
  ],
)
def test_what_are_no_numbers_is_refused(values, message):
  with pytest.raises(ValueError, match=message):
    user_functions.numbers(values, 2, 'score')

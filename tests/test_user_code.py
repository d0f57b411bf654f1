import linecache

import pytest

from aya_train import user_code
from aya_train.data import mixing


def run_as(path, source, **names):
  """Runs source as a module of somebody's, from a file."""
  path.write_text(source)
  linecache.checkcache()
  space = dict(names)
  exec(compile(source, str(path), 'exec'), space)
  return space


def raised(function, *args):
  with pytest.raises(Exception) as caught:
    function(*args)
  return caught.value


def test_the_line_of_a_users_function_is_told(tmp_path):
  mine = run_as(tmp_path / 'my_tasks.py', 'def metric(targets):\n  return targets.nothing\n')
  error = raised(mine['metric'], 3)
  assert user_code.place(error) == f'{tmp_path}/my_tasks.py, line 2'
  assert not user_code.raised_here(error)


def test_a_library_that_a_users_function_called_is_the_users_place(tmp_path):
  mine = run_as(tmp_path / 'my_tasks.py', 'import json\ndef post(x):\n  return json.loads(x)\n')
  assert user_code.place(raised(mine['post'], '{')) == f'{tmp_path}/my_tasks.py, line 3'


def test_what_our_code_raises_is_ours_whoever_called_it(tmp_path):
  mine = run_as(
    tmp_path / 'my_script.py',
    'def call():\n  mixing.mixing_rates(None, {})\n',
    mixing=mixing,
  )
  assert user_code.place(raised(mine['call'])) == ''


def test_the_cause_is_looked_at_through_what_wraps_it(tmp_path):
  mine = run_as(tmp_path / 'my_tasks.py', 'def prep(ds):\n  raise KeyError(1)\n')
  error = RuntimeError('a library wraps it')
  error.__cause__ = raised(mine['prep'], None)
  assert user_code.place(error) == f'{tmp_path}/my_tasks.py, line 2'


def test_a_traceback_inside_a_message_is_read():
  text = (
    'ValueError: x\nTraceback (most recent call last):\n\n  File "/usr/lib/python3/dist-packages/'
    'tensorflow/f.py", line 3, in g\n  File "/home/me/my_tasks.py", line 20, in f\n'
  )
  assert user_code.place(RuntimeError(text)) == '/home/me/my_tasks.py, line 20'


@pytest.mark.parametrize(
  ('file', 'users'),
  [
    ('/home/me/my_tasks.py', True),
    (mixing.__file__, False),
    (pytest.__file__, False),
    (linecache.__file__, False),
    ('<string>', False),
    ('/tmp/__autograph_generated_file1.py', False),
  ],
)
def test_whose_file_it_is(file, users):
  assert user_code.is_users(file) == users

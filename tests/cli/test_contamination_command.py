import pytest

from aya_train.cli import main
from tests import seqio_tasks


@pytest.mark.parametrize(
  ('mixture', 'against', 'told'),
  [
    ('con.cmd', 'x:y', "no task or mixture 'x'. Close names:"),
    ('con.cmd', ':test', "no task or mixture ''"),
    ('con.cmd', 'con.cmd:nosplit', "no split 'nosplit' in task 'con.cmd'; splits are ['train']"),
    ('con.cmd', 'con.cmd', "no split 'test' in task 'con.cmd'"),
    ('con.cmdd', 'con.cmd:train', "no task or mixture 'con.cmdd'. Close names: ['con.cmd'"),
  ],
)
def test_names_that_are_not_there_are_told_with_those_that_are(capsys, mixture, against, told):
  seqio_tasks.add_task('con.cmd', {'train': [('a question', 'an answer')]})
  assert main.main(['contamination', mixture, '--against', against]) == 1
  assert told in capsys.readouterr().err

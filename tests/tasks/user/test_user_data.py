"""Tables of a user's data sets, found and read from wherever the command was started."""

import pytest
import seqio

from aya_train.data import prepared_shards
from aya_train.tasks.building import work_runner
from aya_train.tasks.user import user_data

ROWS = 'inputs,targets\none,1\ntwo,2\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'more' / 'part').mkdir(parents=True)
  (tmp_path / 'rows.csv').write_text(ROWS)
  (tmp_path / 'more' / 'part' / 'a.csv').write_text(ROWS)
  (tmp_path / 'more' / 'part' / 'b.csv').write_text(ROWS)
  yield tmp_path
  for name in ('beside', 'pattern', 'absent'):
    seqio.TaskRegistry.remove(name)


def table(folder, name, files):
  path = folder / 'table.toml'
  path.write_text(f'[[dataset]]\nname = "{name}"\nfiles = "{files}"\nlanguage = "eng"\n')
  return path


@pytest.mark.parametrize(
  ('files', 'count'), [('rows.csv', 2), ('*.csv', 2), ('more/*/?.csv', 4), ('more/part/[a].csv', 2)]
)
@pytest.mark.parametrize('relative', [True, False])
def test_files_are_relative_to_the_table_and_the_table_to_the_working_directory(
  folder, files, count, relative
):
  path = table(folder, 'beside', files)
  user_data.add_table(path.name if relative else path)
  assert seqio.TaskRegistry.get('beside').source.num_input_examples('train') == count


def test_a_file_that_is_not_there_is_named(folder):
  user_data.add_table(table(folder, 'absent', 'nowhere.csv').name)
  with pytest.raises(FileNotFoundError, match=r"'absent', split 'train': no file 'nowhere\.csv'"):
    seqio.TaskRegistry.get('absent').source.list_shards('train')


def test_a_worker_registers_the_tables(folder, cache):
  """A worker is a process that has read no table; here, one that has forgotten it."""
  path = table(folder, 'beside', 'rows.csv')
  user_data.add_table(path)

  def forgetful(function, arguments):
    seqio.TaskRegistry.remove('beside')
    user_data._DATASETS.pop('beside')
    user_data._ADDED.clear()
    return work_runner.here(function, arguments)

  done = prepared_shards.prepare_tasks(
    ['beside'],
    'train',
    folder / 'prepared',
    runner=forgetful,
    tables=[str(path)],
    say=lambda line: None,
  )
  assert done['beside'].num_examples == 2


def test_a_table_cannot_take_the_name_of_a_mixture(folder):
  with pytest.raises(user_data.UserDataError, match="there is a mixture 'aya_open' already"):
    user_data.add_table(table(folder, 'aya_open', 'rows.csv'))


def test_a_csv_as_spreadsheets_write_it_and_an_empty_file(folder):
  (folder / 'rows.csv').write_bytes(b'\xef\xbb\xbf' + ROWS.encode())
  (folder / 'empty.csv').write_bytes(b'')
  (folder / 'long.csv').write_text(f'inputs,targets\n{"a" * 150_000},1\n')
  for files, count in (('rows.csv', 2), ('empty.csv', 0), ('long.csv', 1)):
    user_data.add_table(table(folder, 'beside', files))
    assert seqio.TaskRegistry.get('beside').source.num_input_examples('train') == count


def test_a_row_without_its_columns_is_named_with_its_place(folder):
  (folder / 'rows.csv').write_text('inputs,answers\na,b\n')
  user_data.add_table(table(folder, 'beside', 'rows.csv'))
  with pytest.raises(user_data.UserDataError, match=r"'beside', .*rows\.csv row 1: .*'targets'"):
    seqio.TaskRegistry.get('beside').source.num_input_examples('train')

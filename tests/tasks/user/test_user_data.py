"""Tables of a user's data sets, found and read from wherever the command was started."""

import datetime
import decimal
import os

import pyarrow
import pyarrow.parquet
import pytest
import seqio

from aya_train.data import availability, prepared_shards
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


def count(folder, files, **more):
  path = table(folder, 'beside', files)
  path.write_text(path.read_text() + ''.join(f'{k} = {v!r}\n' for k, v in more.items()))
  user_data.add_table(path)
  return seqio.TaskRegistry.get('beside').source.num_input_examples('train')


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('a.jsonl', '{"inputs": "a", "targets": "b"}\nnull\n', r'a\.jsonl, row 2: expected a JSON'),
    ('a.jsonl', '{"inputs": "a", "targets": "b"}\n[1]\n', r'a\.jsonl, row 2: expected an object'),
    ('a.jsonl', '{"inputs": "a", "targets": 3}\n', r"a\.jsonl row 1: .*'targets' should be a str"),
    ('a.jsonl', '{"inputs": "a", "targets": null}\n', r'a\.jsonl row 1: empty_targets'),
    ('a.jsonl', '{"inputs": "a", "targets": ["x"]}\n', r'a\.jsonl row 1: .* got list'),
    ('a.csv', 'inputs;targets\na;b\n', r"a\.csv row 1: .*not by ';'"),
    ('a.csv.gz', 'inputs,targets\na,b\n', r'a\.csv\.gz: no gzip file'),
    ('a.txt', 'a\n', r'a\.txt: unknown kind of file'),
    ('more', None, r'more is a folder; give a pattern'),
  ],
)
def test_files_that_cannot_be_used_are_named_with_the_row(folder, name, content, message):
  if content is not None:
    (folder / name).write_text(content)
  with pytest.raises(ValueError, match=message):
    count(folder, name)


def test_a_pipe_is_refused_and_not_waited_for(folder):
  os.mkfifo(folder / 'a.jsonl')
  with pytest.raises(user_data.UserDataError, match=r'a\.jsonl is a pipe or a device'):
    count(folder, 'a.jsonl')


def test_columns_belong_to_files_without_a_header(folder):
  (folder / 'a.jsonl').write_text('{"inputs": "a", "targets": "b"}\n')
  with pytest.raises(user_data.UserDataError, match=r'a\.jsonl says its own: leave `columns`'):
    count(folder, 'a.jsonl', columns=['inputs', 'targets'])


def test_parquet_of_other_types_meets_templates(folder):
  rows = {'when': [datetime.date(2024, 2, 29)], 'raw': [b'abc'], 'much': [decimal.Decimal('1.5')]}
  pyarrow.parquet.write_table(pyarrow.table(rows), folder / 'a.parquet')
  (folder / 't.jinja').write_text('{{when}} {{raw}}|||{{much}}')
  assert count(folder, 'a.parquet', templates='t.jinja') == 1
  (row,) = user_data.instructions(user_data.find('beside'), 'train')
  assert (row.inputs, row.targets) == ('2024-02-29 abc', '1.5')
  rows['raw'] = [b'\xff\xd8']
  pyarrow.parquet.write_table(pyarrow.table(rows), folder / 'a.parquet')
  with pytest.raises(user_data.UserDataError, match=r"row 1: the column 'raw' .* no text in UTF-8"):
    count(folder, 'a.parquet', templates='t.jinja')
  (folder / 't.jinja').write_text('{{when}}{% if raw is defined %}!{% endif %}|||{{much}}')
  with pytest.raises(user_data.UserDataError, match="the column 'raw'"):
    count(folder, 'a.parquet', templates='t.jinja')


PICTURE = {'bytes': b'\x89PNG\xff', 'path': 'a.png'}


@pytest.mark.parametrize(
  'columns',
  [
    {'picture': [PICTURE]},
    {'pictures': [[PICTURE, PICTURE]]},
    {'my-bytes': [b'\xff\xfe']},
    {'when': pyarrow.array([2**62], pyarrow.timestamp('us'))},
    {'day': pyarrow.array([2**30], pyarrow.date32())},
  ],
)
def test_a_column_that_nobody_reads_may_hold_what_is_no_text(folder, columns):
  rows = {'inputs': ['a'], 'targets': ['b'], 'language': ['deu'], **columns}
  (name,) = columns
  pyarrow.parquet.write_table(pyarrow.table(rows), folder / 'a.parquet')
  assert count(folder, 'a.parquet') == 1
  (folder / 't.jinja').write_text('{{inputs}}|||{{targets}}')
  assert count(folder, 'a.parquet', templates='t.jinja') == 1
  (row,) = user_data.instructions(user_data.find('beside'), 'train')
  assert (row.inputs, row.targets) == ('a', 'b')
  ((_, columns),) = user_data.raw_rows(user_data.find('beside'), 'train')
  assert sorted(columns) == sorted(rows)
  read = '{{' + name.replace('-', '_') + '}}'
  (folder / 't.jinja').write_text('{{inputs}} ' + read + '|||{{targets}}')
  with pytest.raises(user_data.UserDataError, match=rf"row 1: the column '{name}' is needed, and "):
    count(folder, 'a.parquet', templates='t.jinja')


def test_a_column_of_a_pair_without_templates_is_needed(folder):
  rows = {'inputs': ['a'], 'targets': [b'\xff']}
  pyarrow.parquet.write_table(pyarrow.table(rows), folder / 'a.parquet')
  with pytest.raises(user_data.UserDataError, match="the column 'targets' is needed"):
    count(folder, 'a.parquet')


def test_a_template_that_fails_names_the_file_and_its_row(folder):
  (folder / 'b.csv').write_text('inputs,targets\n0,1\n')
  (folder / 't.jinja').write_text('{{1 / (inputs | int)}}|||{{targets}}')
  (folder / 'a.csv').write_text('inputs,targets\n1,1\n2,2\n')
  with pytest.raises(user_data.UserDataError, match=r"b\.csv row 1: t\.jinja, template 't': Zero"):
    count(folder, '[ab].csv', templates='t.jinja')


def test_a_split_that_is_not_there_is_told(folder):
  count(folder, 'rows.csv')
  source = seqio.TaskRegistry.get('beside').source
  with pytest.raises(ValueError, match=r"no split 'dev'; it has \['train'\]"):
    source.get_dataset('dev')


def test_tokens_of_a_file_that_has_changed_are_refused(folder, cache):
  count(folder, 'rows.csv')
  opened = availability.ensure_prepared('beside', 'train[:1]', folder / 'prepared')
  assert len(opened['beside']) == 1
  (folder / 'rows.csv').write_text(ROWS.replace('one', 'eins'))
  with pytest.raises(
    ValueError, match=r"\['rows\.csv'\] changed after it was prepared in .*delete"
  ):
    availability.ensure_prepared('beside', 'train[:1]', folder / 'prepared')
  (folder / 'rows.csv').unlink()
  assert availability.ensure_prepared('beside', 'train[:1]', folder / 'prepared')


def test_who_copies_all_columns_goes_without_those_that_are_no_text(folder):
  rows = {'inputs': ['a'], 'targets': ['b'], 'picture': [PICTURE]}
  pyarrow.parquet.write_table(pyarrow.table(rows), folder / 'a.parquet')
  assert count(folder, 'a.parquet') == 1
  ((_, columns),) = user_data.raw_rows(user_data.find('beside'), 'train')
  assert user_data.readable(columns) == {'inputs': 'a', 'targets': 'b'}
  assert user_data.readable({'inputs': 'a'}) == {'inputs': 'a'}

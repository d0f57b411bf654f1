"""Tables of data sets and mixtures."""

import json
import pathlib

import pytest
import seqio

from aya_train.tasks.user import dataset_tables, user_data

ROW = {'name': 'tabled', 'files': 'rows.csv', 'language': 'eng'}
TOML = "[[dataset]]\nname = 'tabled'\nfiles = 'rows.csv'\nlanguage = 'eng'\n"
FORMS = {
  'toml': TOML,
  'json': json.dumps([ROW], indent='\t'),
  'yaml': '- {name: tabled, files: rows.csv, language: eng}\n',
  'csv': 'name,files,language\ntabled,rows.csv,eng\n',
  'tsv': 'name\tfiles\tlanguage\ntabled\trows.csv\teng\n',
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
  (tmp_path / 'data').mkdir()
  (tmp_path / 'rows.csv').write_text('inputs,targets\na,b\n')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path))
  yield tmp_path
  for registry in (seqio.TaskRegistry, seqio.MixtureRegistry):
    for name in ('tabled', 'other', 'mixed', 'mixed_again'):
      if name in registry.names():
        registry.remove(name)
      user_data._DATASETS.pop(name, None)
      user_data._MIXTURES.pop(name, None)


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('form', FORMS)
def test_every_form_and_encoding(folder, form, encoding):
  path = folder / f'table.{form}'
  path.write_bytes(FORMS[form].encode(encoding))
  (found,) = dataset_tables.read(path).datasets
  assert (found.name, found.files, found.language) == ('tabled', {'train': ('rows.csv',)}, 'eng')


def test_long_cells(folder):
  terms = 'x' * 200_000
  (folder / 't.csv').write_text(f'name,files,language,terms\ntabled,rows.csv,eng,{terms}\n')
  assert dataset_tables.read(folder / 't.csv').datasets[0].terms == terms


@pytest.mark.parametrize('table', ['data/t.toml', '~/data/t.toml'])
@pytest.mark.parametrize('files', ['rows.csv', '~/rows.csv', '~/*.csv'])
def test_paths_are_beside_the_table_or_in_the_working_directory_and_know_home(
  folder, table, files, monkeypatch
):
  (folder / 'data' / 't.toml').write_text(TOML.replace('rows.csv', files))
  (found,) = dataset_tables.read(table).datasets
  assert [str(path) for path in found.paths('train')] == [str(folder / 'rows.csv')]
  (folder / 'data' / 'rows.csv').write_text('inputs,targets\nc,d\n')
  if files == 'rows.csv':
    assert [str(path) for path in found.paths('train')] == [str(folder / 'data' / 'rows.csv')]
    (folder / 'rows.csv').unlink()
    (folder / 'data' / 'rows.csv').unlink()
    with pytest.raises(FileNotFoundError) as raised:
      found.paths('train')
    for place in (folder / 'data' / 'rows.csv', folder / 'rows.csv'):
      assert str(place) in str(raised.value)


def test_a_relative_table_stays_where_it_was(folder, monkeypatch):
  (folder / 'data' / 't.toml').write_text(TOML)
  (folder / 'data' / 'rows.csv').write_text('inputs,targets\nc,d\n')
  (found,) = dataset_tables.read('data/t.toml').datasets
  monkeypatch.chdir('/')
  assert [pathlib.Path(p) for p in found.paths('train')] == [folder / 'data' / 'rows.csv']


def test_patterns_that_overlap_give_a_file_once(folder):
  (folder / 't.toml').write_text(TOML.replace("'rows.csv'", "['*.csv', 'rows.csv']"))
  (found,) = dataset_tables.read('t.toml').datasets
  assert len(found.paths('train')) == 1


def with_row(**changes):
  return json.dumps([ROW | changes])


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (json.dumps([ROW, ROW]), r"the names \['tabled'\] are given twice"),
    ('[{"name": "a", "name": "b"}]', r"\['name'\] stand twice"),
    (with_row(name='a b'), r"name 'a b': expected letters"),
    (with_row(name=3), 'name 3: expected letters'),
    (with_row(files=[]), 'the list is empty'),
    (with_row(files={'train': 3}), "files of 'train': expected a pattern"),
    (with_row(files={'train[:5]': 'x'}), "'train.:5.': that is no name of a split"),
    (with_row(license=['a']), r"license: expected a text, got \['a'\]"),
    (with_row(seed='x'), "seed: expected a whole number, got 'x'"),
    (with_row(all_templates='perhaps'), "all_templates: expected true or false, got 'perhaps'"),
    (with_row(columns=['a', 'a']), r"columns: \['a'\] are given twice"),
    (with_row(max_characters=1), 'max_characters: expected at least 4'),
    ('{"datasets": []}', 'expected a list of data sets'),
    ('{"dataset": [], "x": 1}', r"unknown keys \['x'\]"),
    ('{"mixture": [{"name": "m", "rates": {"a": -1}}]}', "a positive number for 'a', got -1"),
    ('{"mixture": [{"name": "m", "rates": ["a", "a"]}]}', r"\['a'\] are given twice"),
    ('{"mixture": [{"name": "m"}]}', r"\['rates'\] missing"),
  ],
)
def test_what_is_wrong_is_told_with_the_file(folder, text, message):
  (folder / 't.json').write_text(text)
  with pytest.raises(user_data.UserDataError, match=rf't\.json.*{message}'):
    dataset_tables.read('t.json')


def test_a_key_twice_in_yaml(folder):
  (folder / 't.yaml').write_text('- name: a\n  name: b\n')
  with pytest.raises(user_data.UserDataError, match=r"(?s)t\.yaml: .*'name' stands in it twice"):
    dataset_tables.read('t.yaml')


def test_tables_mix_their_sets_and_those_of_others(folder):
  (folder / 'a.toml').write_text(TOML)
  (folder / 'b.toml').write_text(TOML.replace('tabled', 'other'))
  mixtures = (
    "[[mixture]]\nname = 'mixed'\nrates = {tabled = 1, other = 3, 'cldr.yor' = 4}\n"
    "[[mixture]]\nname = 'mixed_again'\nrates = ['tabled', 'other']\n"
  )
  (folder / 'm.toml').write_text(mixtures)
  for _ in range(2):  # the second time, its new definition
    names = user_data.add_tables(['m.toml', 'a.toml', 'b.toml'])
    assert names == ['tabled', 'other', 'mixed', 'mixed_again']
  mixture = seqio.MixtureRegistry.get('mixed')
  assert {t.name: mixture.get_rate(t) for t in mixture.tasks} == {
    'tabled': 1,
    'other': 3,
    'cldr.yor': 4,
  }
  by_rows = seqio.MixtureRegistry.get('mixed_again')
  assert [by_rows.get_rate(task) for task in by_rows.tasks] == [1, 1]


def test_what_cannot_be_mixed_is_told(folder):
  (folder / 'a.toml').write_text(TOML)
  for rates, message in (
    ("['tabld']", r"no task or mixture \['tabld'\]; close names .*'tabled'"),
    ("['tabled', 'cldr_smoke']", r"\['cldr_smoke'\] are mixtures.* give rates"),
  ):
    (folder / 'm.toml').write_text(f"[[mixture]]\nname = 'mixed'\nrates = {rates}\n")
    with pytest.raises(user_data.UserDataError, match=r'm\.toml, mixture .mixed.: ' + message):
      user_data.add_tables(['a.toml', 'm.toml'])


def test_two_tables_with_one_name_are_refused(folder):
  for name in ('a.toml', 'b.toml'):
    (folder / name).write_text(TOML)
  with pytest.raises(user_data.UserDataError, match=r"a\.toml and b\.toml both have 'tabled'"):
    user_data.add_tables(['a.toml', 'b.toml'])


def test_one_table_may_be_named_without_a_tuple(folder):
  (folder / 'a.toml').write_text(TOML)
  assert user_data.add_tables('a.toml') == ['tabled']
  with pytest.raises(FileNotFoundError, match=r'no table of data sets nowhere\.toml'):
    user_data.add_tables('nowhere.toml')

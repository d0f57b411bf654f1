"""What is at a path, for a user who may not look everywhere."""

import os
import pathlib
import re

import pytest
from etils import epath

from aya_train import gin_outline, path_facts, system_answers
from aya_train.annotation import exports
from aya_train.checkpoint import formats
from aya_train.embedding import eval_data, mining, text_rows
from aya_train.judging import judge_protocols, teacher_answers, toxicity_scorers
from aya_train.report import eval_runs, run_record
from aya_train.tasks import shared_vocabulary
from aya_train.tasks.building import releases
from aya_train.tasks.rights import provenance
from aya_train.tasks.user import dataset_tables, user_data
from tests import closed_places

# Their paths are pathlib's, whose glob takes a folder's name as it is.
PATHLIB = {
  *('judging/judge_protocols.py', 'cli/libraries.py', 'tpu/precompile.py'),
  'checkpoint/checkpoint_room.py',
}


@pytest.fixture
def private(tmp_path) -> pathlib.Path:
  folder = tmp_path / 'private'
  (folder / 'inside').mkdir(parents=True)
  (folder / 'a.jsonl').write_text('{"text": "a"}\n')
  return folder


def test_what_may_be_seen(private):
  file = private / 'a.jsonl'
  assert path_facts.exists(file) and path_facts.is_file(file) and not path_facts.is_dir(file)
  assert path_facts.is_dir(private) and not path_facts.is_file(private)
  assert not path_facts.exists(private / 'b') and not path_facts.exists(file / 'b')
  assert not path_facts.exists('a\0b')
  assert path_facts.matching(private, '*.jsonl') == [epath.Path(file)]
  assert path_facts.matching(private, '*.csv') == path_facts.matching(private / 'none', '*') == []
  assert path_facts.size(file) == 14
  assert path_facts.modified(file) == int(os.stat(file).st_mtime)


@pytest.mark.parametrize('name', ['runs', '[lr=1e-3]', 'a*b', 'q?', 'x[!y]', 'tail~', '[', ']['])
def test_a_folders_name_is_no_pattern(tmp_path, name):
  folder = tmp_path / name / 'in'
  folder.mkdir(parents=True)
  for file in ('b.json', 'a.json', '.c.json', 'd.txt'):
    (folder / file).write_text('')
  found = path_facts.matching(folder, '*.json')
  assert found == [epath.Path(folder) / 'a.json', epath.Path(folder) / 'b.json']
  assert path_facts.matching(tmp_path / name, '*/.c*') == [epath.Path(folder) / '.c.json']
  assert path_facts.matching(folder / 'none', '*') == []


def test_all_patterns_of_paths_go_this_way():
  root = pathlib.Path(__file__).parents[1]
  files = [p for top in ('aya_train', 'tasks') for p in (root / top).rglob('*.py')]
  used = {
    f'{p.parent.name}/{p.name}' for p in files if re.search(r'[\w)]\.r?glob\(', p.read_text())
  }
  assert used == {'aya_train/path_facts.py', *PATHLIB}


@pytest.mark.parametrize('look', [path_facts.exists, path_facts.is_dir, path_facts.is_file])
def test_the_first_folder_that_may_not_be_entered_is_named(private, look):
  with closed_places.closed(private):
    with pytest.raises(PermissionError) as told:
      look(private / 'inside' / 'b.csv')
    assert f'{private}/inside/b.csv cannot be seen' in str(told.value)
    assert f'may not enter the folder {private}:' in str(told.value)
    assert look(private.parent / 'nothing') is False


def test_a_folder_that_may_be_entered_and_not_listed(private):
  with (
    closed_places.closed(private, 0o300),
    pytest.raises(PermissionError, match='may not list the folder'),
  ):
    path_facts.matching(private, '*.jsonl')


def test_an_owner_without_a_name(private, monkeypatch):
  """As of files on a shared disk, or in a container: epath's stat fails."""
  import pwd

  def nameless(uid: int) -> None:
    raise KeyError(f'getpwuid(): uid not found: {uid}')

  monkeypatch.setattr(pwd, 'getpwuid', nameless)
  file = private / 'a.jsonl'
  with pytest.raises(KeyError):
    epath.Path(file).stat()
  assert path_facts.size(file) == 14
  assert path_facts.modified(file) > 0
  dataset = dataset_tables.Dataset('a', {'train': (str(file),)}, 'eng')
  assert [columns for _, columns in user_data.raw_rows(dataset, 'train')] == [{'text': 'a'}]
  assert [file.size for file in releases.find(None, private).files] == [14]


def _table(path: str) -> dataset_tables.Dataset:
  return dataset_tables.Dataset('a', {'train': (path,)}, 'eng', templates=path)


@pytest.mark.parametrize(
  'read',
  [
    lambda path: text_rows.of_files([path]),
    lambda path: mining.read_pairs(path),
    lambda path: eval_data.translations('a', path),
    lambda path: eval_data.similarities('a', path),
    lambda path: eval_data.search('a', path, 'test'),
    lambda path: system_answers.read(path),
    lambda path: exports.read([path]),
    lambda path: judge_protocols.load(f'{path}.toml', 'pairwise'),
    lambda path: teacher_answers.read_preambles(path),
    lambda path: toxicity_scorers.load(f'hf:{path}'),
    lambda path: dataset_tables.read(path),
    lambda path: _table(path).paths('train'),
    lambda path: _table(f'{path}*').paths('train'),
    lambda path: _table(path).prompts(),
    lambda path: formats.detect(path),
    lambda path: gin_outline.check([path], [], []),
    lambda path: releases.find(None, path),
    lambda path: provenance.read_summaries(path),
    lambda path: eval_runs.read_all([path]),
    lambda path: run_record.read(path),
  ],
)
def test_no_reader_takes_what_may_not_be_seen_for_missing(private, read):
  with (
    closed_places.closed(private),
    pytest.raises(PermissionError, match=f'may not enter the folder {private}:'),
  ):
    read(f'{private}/a.jsonl')


def test_a_vocabulary_that_may_not_be_seen(private):
  before = shared_vocabulary.chosen()
  try:
    shared_vocabulary.set_vocabulary(str(private / 'spiece.model'))
    with closed_places.closed(private), pytest.raises(PermissionError, match='may not enter'):
      shared_vocabulary.opened()
  finally:
    shared_vocabulary.set_vocabulary(before)

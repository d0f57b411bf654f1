"""Data sets of preferences in a user's table, down to the tokens, the licence and the manifest."""

import json

import pytest
import seqio

from aya_train.data import task_examples
from aya_train.tasks.preference import preference_features
from aya_train.tasks.rights import provenance
from aya_train.tasks.user import dataset_tables, user_data
from aya_train.tasks.user.dataset_tables import UserDataError

ROWS = [
  {'prompt': 'Lima?', 'chosen': 'Peru', 'rejected': 'Chile', 'lang': 'eng'},
  {'prompt': 'Hue?', 'answer': 'Vietnam', 'label': False, 'lang': 'sw'},
]
SAME = {'prompt': 'p', 'chosen': 'c', 'rejected': 'c', 'lang': 'eng'}


@pytest.fixture
def add(tmp_path, monkeypatch):
  bytes_ = seqio.ByteVocabulary()
  monkeypatch.setattr(
    preference_features,
    'FEATURES',
    {name: seqio.Feature(bytes_, add_eos=True) for name in preference_features.FEATURES},
  )
  monkeypatch.setattr(
    type(preference_features.features.VOCABULARY), 'load_model', lambda self: None
  )
  added = []

  def write(rows, file='pairs.jsonl', **more):
    text = rows if isinstance(rows, str) else ''.join(json.dumps(row) + '\n' for row in rows)
    (tmp_path / file).write_text(text)
    table = tmp_path / 'table.json'
    row = {
      'name': 'tests.preferences',
      'files': file,
      'preferences': 'table',
      'license': 'CC0-1.0',
      **({} if 'language' in more else {'language_column': 'lang'}),
    }
    table.write_text(json.dumps([row | more]))
    added.append(user_data.add_table(table))
    return seqio.TaskRegistry.get('tests.preferences')

  yield write
  if added:
    seqio.TaskRegistry.remove('tests.preferences')
    user_data._DATASETS.pop('tests.preferences')


def examples(task):
  return list(task.get_dataset(None, 'train', shuffle=False).as_numpy_iterator())


def test_a_task_has_three_features_and_a_missing_answer_has_no_token(add):
  task = add(ROWS)
  rows = examples(task)
  assert rows[0]['inputs'].tolist() == [3 + b for b in b'Lima?'] + [1]
  assert rows[0]['rejected'].tolist() == [3 + b for b in b'Chile'] + [1]
  assert rows[1]['chosen'].tolist() == []
  assert rows[1]['rejected'].tolist() == [3 + b for b in b'Vietnam'] + [1]
  assert [row['language_code'].decode() for row in rows] == ['eng', 'swa']
  assert task.num_input_examples('train') == 2


def test_its_files_and_license_are_known(add):
  task = add(ROWS)
  ((name, size, _),) = task_examples.files_of(task.source, 'train')
  assert name == 'pairs.jsonl' and size > 0
  (origin,) = provenance.origins(task)
  assert provenance.record_of(origin).licenses == (('CC0-1.0', ''),)


def test_a_csv_is_read(add):
  (row,) = examples(
    add('prompt,chosen,rejected\nLima?,Peru,"Chile, no"\n', 'pairs.csv', language='eng')
  )
  assert row['rejected_pretokenized'] == b'Chile, no'


def test_what_cannot_be_used_is_refused_with_its_place(add, caplog):
  task = add([ROWS[0], SAME, SAME])
  with pytest.raises(UserDataError, match=r'2 of 3 .*pairs.jsonl row 2: .*the same'):
    list(user_data._columns(user_data.find(task.name), 'train'))
  task = add([ROWS[0], SAME])
  assert len(list(user_data._columns(user_data.find(task.name), 'train'))) == 1
  assert '1 of 2 records are left out' in caplog.text
  task = add([{**ROWS[0], 'rejected': ' '}])
  with pytest.raises(UserDataError, match=r'no comparison in 1 records.*rejected is empty'):
    list(user_data._columns(user_data.find(task.name), 'train'))


@pytest.mark.parametrize('column', ['prompt', 'chosen', 'rejected'])
@pytest.mark.parametrize(('text', 'message'), [('a\ud800', 'lone surrogate'), ('a\0', 'NUL')])
def test_what_is_no_text_is_refused_with_its_place(add, column, text, message):
  task = add([ROWS[0], *[{**ROWS[0], column: text}] * 2])
  with pytest.raises(UserDataError, match=rf'2 of 3 .*pairs.jsonl row 2: .*{message}'):
    list(user_data._columns(user_data.find(task.name), 'train'))


def test_a_table_says_what_a_form_is(add, tmp_path):
  with pytest.raises(UserDataError, match="unknown 'oast'; known are"):
    add(ROWS, preferences='oast')
  with pytest.raises(UserDataError, match=r"no \['templates'\]"):
    add(ROWS, templates='t.jinja')
  assert not dataset_tables.Dataset('x', {}).preferences

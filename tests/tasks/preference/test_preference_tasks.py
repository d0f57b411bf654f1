"""Files of preferences as SeqIO tasks, down to the tokens."""

import json

import pytest
import seqio

from aya_train.data import task_examples
from aya_train.tasks.preference import preference_tasks
from aya_train.tasks.preference.preference_records import Comparison

ROWS = [
  {'prompt': 'Lima?', 'chosen': 'Peru', 'rejected': 'Chile'},
  {'prompt': 'Hue?', 'answer': 'Vietnam', 'label': False},
]


@pytest.fixture
def task(tmp_path, monkeypatch):
  file = tmp_path / 'pairs.jsonl'
  file.write_text(''.join(json.dumps(row) + '\n' for row in ROWS))
  bytes_ = seqio.ByteVocabulary()
  monkeypatch.setattr(
    preference_tasks,
    'OUTPUT_FEATURES',
    {name: seqio.Feature(bytes_, add_eos=True) for name in Comparison._fields},
  )
  monkeypatch.setattr(type(preference_tasks.features.VOCABULARY), 'load_model', lambda self: None)
  name = preference_tasks.add('tests.preferences', {'train': [str(file)]}, license='CC0-1.0')
  yield seqio.TaskRegistry.get(name)
  seqio.TaskRegistry.remove(name)


def test_a_task_has_three_features_and_a_missing_answer_has_no_token(task):
  rows = list(task.get_dataset(None, 'train', shuffle=False).as_numpy_iterator())
  assert rows[0]['inputs'].tolist() == [3 + b for b in b'Lima?'] + [1]
  assert rows[0]['rejected'].tolist() == [3 + b for b in b'Chile'] + [1]
  assert rows[1]['chosen'].tolist() == []
  assert rows[1]['rejected'].tolist() == [3 + b for b in b'Vietnam'] + [1]


def test_its_files_are_part_of_what_prepared_data_are_bound_to(task):
  ((name, size, _),) = task_examples.files_of(task.source, 'train')
  assert name == 'pairs.jsonl' and size > 0


def test_a_csv_is_read(tmp_path):
  file = tmp_path / 'pairs.csv'
  file.write_text('prompt,chosen,rejected\nLima?,Peru,"Chile, no"\n')
  assert list(preference_tasks.read(file)) == [Comparison('Lima?', 'Peru', 'Chile, no')]


def test_what_cannot_be_used_is_refused_with_its_place(tmp_path, caplog):
  file = tmp_path / 'pairs.jsonl'
  same = {'prompt': 'p', 'chosen': 'c', 'rejected': 'c'}
  file.write_text(''.join(json.dumps(row) + '\n' for row in (ROWS[0], same, same)))
  with pytest.raises(preference_tasks.PreferenceDataError, match=r'2 of 3 .*pairs.jsonl, row 2'):
    list(preference_tasks.read(file))
  file.write_text(''.join(json.dumps(row) + '\n' for row in (ROWS[0], same)))
  assert len(list(preference_tasks.read(file))) == 1
  assert '1 of 2 records are left out' in caplog.text
  with pytest.raises(ValueError, match='form'):
    list(preference_tasks.read(file, 'oast'))

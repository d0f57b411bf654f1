"""What a command may name: files, tables, tasks; other languages are left out and counted."""

import json

import pytest
import seqio
import tensorflow as tf

from aya_train.tasks import features
from aya_train.translation import instruction_rows


def find(name, **options):
  return instruction_rows.find(str(name), **{'language': 'eng', 'split': 'train'} | options)


@pytest.fixture
def task():
  """Whose preprocessors make the text, and which is random in nothing."""

  @seqio.map_over_dataset
  def ask(example):
    return {
      'inputs': tf.strings.join(['Is it ', example['word'], '?']),
      'targets': example['word'],
      'language_code': example['language_code'],
    }

  def rows(split, shuffle_files=False, seed=None):
    return tf.data.Dataset.from_tensor_slices(
      {'word': ['cat', 'chat', 'dog'], 'language_code': ['eng', 'fra', 'en']}
    )

  name = 'translation_words'
  seqio.TaskRegistry.add(
    name,
    source=seqio.FunctionDataSource(rows, splits=['train'], num_input_examples={'train': 3}),
    preprocessors=[ask, *features.TOKENIZE_AND_APPEND_EOS],
    output_features=features.OUTPUT_FEATURES,
  )
  yield name
  seqio.TaskRegistry.remove(name)


def test_a_task_gives_what_it_has_before_tokens(task):
  (found,) = find(task)
  assert found.source.license == 'Unspecified' and found.source.result == f'{task}_translated'
  assert [row['inputs'] for row in found.rows()] == ['Is it cat?', 'Is it dog?']
  assert 'fra 1' in found.left_out_line()
  (french,) = find(task, language='fr')
  assert [row['targets'] for row in french.rows()] == ['chat']
  with pytest.raises(ValueError, match='no split'):
    list(find(task, split='test')[0].rows())


@pytest.mark.parametrize(
  ('split', 'expected'),
  [
    ('train[:2]', '01'),
    ('train[75%:]', '78'),
    ('train[-1:]', '8'),
    ('train[7:99]+train[:1]', '780'),
  ],
)
def test_slices_of_files_and_tables(tmp_path, split, expected):
  rows = [{'inputs': str(i), 'targets': 'x'} for i in range(9)]
  (tmp_path / 'quiz.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  (tmp_path / 't.jinja').write_text('{{ inputs }}||| {{ targets }}')
  table = "[[dataset]]\nname = '{}'\nfiles = 'quiz.jsonl'\nlanguage = 'eng'\nlicense = 'MIT'\n"
  template = "templates = 't.jinja'\n"
  (tmp_path / 'sets.toml').write_text(table.format('a') + table.format('b') + template)
  for found in [
    *find(tmp_path / 'quiz.jsonl', split=split),
    *find(tmp_path / 'sets.toml', split=split),
  ]:
    assert ''.join(row['inputs'] for row in found.rows()) == expected
    assert found.source.split == 'train'


def test_slices_of_a_task(task):
  (found,) = find(task, split='train[1:]')
  assert [row['inputs'] for row in found.rows()] == ['Is it dog?']


def test_a_file_of_any_kind(tmp_path):
  row = {'inputs': 'Who?', 'targets': 'Ada'}
  (tmp_path / 'quiz.en.jsonl').write_text(json.dumps(row) + '\n')
  (tmp_path / 'quiz.csv').write_text('inputs,targets\nWho?,Ada\n')
  for name in ('quiz.en.jsonl', 'quiz.csv'):
    (found,) = find(tmp_path / name)
    assert [*found.rows()] == [row]
    assert found.source.result == 'quiz_translated' and found.source.license == ''


def test_a_table_gives_its_data_sets_with_licenses_and_templates(tmp_path):
  (tmp_path / 'a.jsonl').write_text(json.dumps({'inputs': 'Who?', 'targets': 'Ada'}) + '\n')
  (tmp_path / 'b.jsonl').write_text(json.dumps({'w': 'cat'}) + '\n')
  (tmp_path / 't.jinja').write_text('Is it {{ w }}? ||| {{ w }}')
  table = tmp_path / 'sets.toml'
  table.write_text(
    "[[dataset]]\nname = 'a'\nfiles = 'a.jsonl'\nlanguage = 'eng'\nlicense = 'MIT'\n"
    "[[dataset]]\nname = 'b'\nfiles = 'b.jsonl'\nlanguage = 'fra'\ntemplates = 't.jinja'\n"
  )
  a, b = find(table)
  assert (a.source.license, b.source.license) == ('MIT', 'Unspecified')
  assert b.source.language == 'fra' and next(b.rows())['inputs'] == 'Is it cat?'
  (only,) = find(table, only=['b'], columns=['w'])
  assert next(only.rows()) == {'w': 'cat'}
  with pytest.raises(ValueError, match='no data sets'):
    find(table, only=['c'])


def test_what_is_none_of_these_is_refused_and_a_mixture_says_its_tasks():
  with pytest.raises(ValueError, match='neither a file'):
    find('no_such_thing')
  with pytest.raises(ValueError, match=r'is a mixture: translate its tasks'):
    find('aya101')

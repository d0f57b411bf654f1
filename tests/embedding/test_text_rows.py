"""Texts of files: each form, and bad rows by their places, before anything is embedded."""

import dataclasses
import functools
import gzip
import json
import os

import pytest
import seqio
import tensorflow as tf

from aya_train.embedding import text_rows

ROWS = [{'id': 'a', 'text': 'one'}, {'id': 'b', 'text': 'two\u2028lines'}]


def written(tmp_path, name):
  path = tmp_path / name
  if name.endswith('.csv'):
    path.write_text('id,text\na,one\nb,two\u2028lines\n')
  elif name.endswith('.tsv'):
    path.write_text('id\ttext\na\tone\nb\ttwo\u2028lines\n')
  elif name.endswith('.json'):
    path.write_text(json.dumps(ROWS))
  elif name.endswith('.jsonl.gz'):
    path.write_bytes(gzip.compress(''.join(json.dumps(row) + '\n' for row in ROWS).encode()))
  elif name.endswith('.parquet'):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(ROWS), path)
  else:
    path.write_text('one\ntwo\u2028lines\n')
  return path


@pytest.mark.parametrize('name', ['x.csv', 'x.tsv', 'x.json', 'x.jsonl.gz', 'x.parquet', 'x.txt'])
def test_each_form_gives_the_same_texts(tmp_path, name):
  rows = text_rows.of_files([written(tmp_path, name)])
  found = list(rows())
  assert [row.text for row in found] == ['one', 'two\u2028lines']
  assert [row.id for row in found] == (['0', '1'] if name.endswith('.txt') else ['a', 'b'])
  assert text_rows.survey(rows, name).count == 2


def test_columns_titles_and_numbers_over_files(tmp_path):
  path = tmp_path / 'x.jsonl'
  path.write_text('{"title": "T", "body": "one"}\n{"title": "", "body": "two"}\n')
  rows = text_rows.of_files([path, path], column='body', title_column='title')
  assert [(row.id, row.text) for row in rows()] == [
    ('0', 'T one'), ('1', 'two'), ('2', 'T one'), ('3', 'two'),
  ]  # fmt: skip


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('{"text": "x"}\n{"text": "  "}\n', 'row 2 has an empty text: mend'),
    ('{"text": "\u200d\u2060 \u00ad"}\n', 'row 1 has an empty text: mend'),
    ('{"text": "x"}\n{"text": \n', 'row 2 .*: mend'),
    ('{"text": 7}\n', "row 1 has no text in 'text' but int"),
    ('{"body": "x"}\n', r"row 1 has no column of \['text'.*but \['body'\]"),
    ('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n', "row 2 has the id 'a' of .*row 1"),
    ('{"id": null, "text": "x"}\n', "row 1 has no id in 'id' but None"),
    ('{"text": "x\\ud800"}\n', 'row 1 has half of a surrogate pair'),
    ('{"id": "\\ud800", "text": "x"}\n', r'row 1 has half of a surrogate pair in its id'),
    ('', 'empty file'),
    ('[]', 'no texts in it'),
  ],
)
def test_bad_rows_are_named(tmp_path, content, message):
  path = tmp_path / 'x.jsonl'
  path.write_text(content)
  with pytest.raises(ValueError, match=message) as error:
    text_rows.survey(text_rows.of_files([path]), str(path))
  assert not str(error.value).startswith(f'{path}: {path}')  # the file is named once


def test_texts_are_read_several_times_and_so_not_from_a_pipe(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  with pytest.raises(ValueError, match='pipe is a pipe or a device'):
    text_rows.of_files([tmp_path / 'pipe'])


def test_json_lines_under_the_name_of_a_text_are_named(tmp_path):
  path = tmp_path / 'corpus'
  path.write_text('{"text": "x"}\n')
  with pytest.raises(ValueError, match=r'line 1 is a JSON object .*rename the file'):
    text_rows.survey(text_rows.of_files([path]), str(path))


def test_bad_rows_can_be_left_out(tmp_path, caplog):
  path = tmp_path / 'x.txt'
  path.write_text('one\n\ntwo\n')
  rows = text_rows.of_files([path])
  with pytest.raises(ValueError, match='line 2 has an empty text'):
    text_rows.survey(rows, 'x')
  assert text_rows.survey(rows, 'x', bad_rows='leave_out').count == 2
  assert 'x: 1 rows are left out' in caplog.text
  assert [row.text for row in text_rows.good(rows)] == ['one', 'two']


def test_files_that_are_not_there(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'no file .*nowhere'):
    text_rows.of_files([tmp_path / 'nowhere.jsonl'])
  with pytest.raises(ValueError, match='is a folder'):
    text_rows.of_files([tmp_path])


@pytest.fixture
def tasks():
  """A task whose texts are kept, one of ids alone, and a mixture of both."""
  columns = {'inputs': ['one', 'two \u00e9'], 'targets': ['x', 'y'], 'labels': [[1, 2], [3, 4]]}
  columns['options'] = [['x', 'z'], ['y', 'w']]
  source = seqio.FunctionDataSource(
    lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(columns),
    splits=('train',),
  )
  text = seqio.Feature(seqio.ByteVocabulary())
  several = dataclasses.replace(text, rank=2)
  numbers = seqio.Feature(seqio.PassThroughVocabulary(9), add_eos=False)
  features = {'inputs': text, 'targets': text, 'labels': numbers, 'options': several}
  for name, kept in (('kept', True), ('ids', False)):
    tokenize = functools.partial(
      seqio.preprocessors.tokenize, output_features=features, copy_pretokenized=kept
    )
    steps = [tokenize, seqio.preprocessors.append_eos]
    seqio.TaskRegistry.add(
      f'tests.text_rows_{name}', source=source, preprocessors=steps, output_features=features
    )
  seqio.MixtureRegistry.add(
    'tests.text_rows', [('tests.text_rows_kept', 1), ('tests.text_rows_ids', 2)]
  )
  yield
  seqio.MixtureRegistry.remove('tests.text_rows')
  for name in ('kept', 'ids'):
    seqio.TaskRegistry.remove(f'tests.text_rows_{name}')


@pytest.mark.parametrize(
  ('name', 'ids'),
  [
    ('tests.text_rows_kept', ['0', '1']),
    ('tests.text_rows_ids', ['0', '1']),
    (
      'tests.text_rows',
      [f'tests.text_rows_{name}/{i}' for name in ('ids', 'kept') for i in (0, 1)],
    ),
  ],
)
def test_examples_of_tasks_are_texts(tasks, name, ids):
  rows = text_rows.of_task(name, 'train', 'inputs')
  for found in (list(rows()), list(rows())):  # it is read twice
    assert [row.id for row in found] == ids
    assert [row.text for row in found] == ['one', 'two \u00e9'] * (len(ids) // 2)
  assert text_rows.survey(rows, name).count == len(ids)


@pytest.mark.parametrize(
  ('feature', 'message'),
  [
    ('labels', "'labels' of task .* holds numbers, .*'inputs', 'targets'"),
    ('options', "'options' of task .* holds several texts, .*'inputs', 'targets'"),
    ('negative', "has the features .*, and no 'negative'"),
  ],
)
def test_features_that_are_no_text_are_refused_first(tasks, feature, message):
  with pytest.raises(ValueError, match=message):
    text_rows.of_task('tests.text_rows', 'train', feature)

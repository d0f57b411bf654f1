"""What a user gives as prompts, and what is said of it where it is none."""

import datetime
import gzip
import io
import json
import os
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aya_train import prompt_files


def written(tmp_path, text, name='p.jsonl'):
  path = tmp_path / name
  path.write_text(text, encoding='utf-8')
  return path


def test_lines_of_text(tmp_path):
  path = written(tmp_path, 'a b\r\n\n  \nc\u2028d\n{"inputs": 1}', 'p.txt')
  texts = [prompt.text for prompt in prompt_files.read(path)]
  assert texts == ['a b', 'c\u2028d', '{"inputs": 1}']


@pytest.mark.parametrize(
  'text', ['{"q": "a", "id": 1}\n\n{"q": "b"}', '[{"q": "a", "id": 1},\n{"q": "b"}]']
)
@pytest.mark.parametrize('name', ['p.jsonl', 'p.JSON', 'p.json.gz', 'p.dat'])
def test_rows_and_their_columns(tmp_path, text, name):
  path = tmp_path / name
  path.write_bytes(gzip.compress(text.encode()) if name.endswith('.gz') else text.encode())
  form = 'jsonl' if name == 'p.dat' else None
  found = prompt_files.read(path, column='q', form=form)
  assert [(prompt.text, prompt.columns) for prompt in found] == [('a', {'id': 1}), ('b', {})]


def test_tables_have_rows_and_columns_too(tmp_path):
  (tmp_path / 'p.csv').write_bytes('\ufeffid,prompt\r\n1,"a, b\nc"\r\n2,d\r\n'.encode('utf-8'))
  found = prompt_files.read(tmp_path / 'p.csv')
  assert [(p.text, p.columns) for p in found] == [('a, b\nc', {'id': '1'}), ('d', {'id': '2'})]
  day = datetime.date(2026, 1, 2)
  pq.write_table(pa.table({'inputs': ['x'], 'day': [day]}), tmp_path / 'p.parquet')
  assert prompt_files.read(tmp_path / 'p.parquet') == [
    prompt_files.Prompt('x', {'day': '2026-01-02'})
  ]
  found = prompt_files.read(tmp_path / 'p.csv', form='text')
  assert found[0].text == 'id,prompt'
  (tmp_path / 'p.csv').write_text('id,prompt\n1,\n')
  with pytest.raises(ValueError, match="row 1 has an empty 'prompt'"):
    prompt_files.read(tmp_path / 'p.csv')


def test_a_folder_is_no_file_of_prompts(tmp_path):
  with pytest.raises(OSError, match='is a folder: give a file in it'):
    prompt_files.read(tmp_path)


def test_inputs_go_before_prompt_and_columns_of_answers_are_not_kept(tmp_path):
  row = {'prompt': 'p', 'inputs': 'i', 'prediction': 'x', 'index': 9, 'sample': 1, 'targets': 't'}
  [found] = prompt_files.read(written(tmp_path, json.dumps(row)))
  assert (found.text, found.columns) == ('i', {'prompt': 'p', 'targets': 't'})


@pytest.mark.parametrize(
  ('text', 'texts'),
  [
    ('{"inputs": "a"}\n{"inputs": "b"}\n', ['a', 'b']),
    ('\n[\n{"inputs": "a"},\n{"inputs": "b"}]', ['a', 'b']),
    ('{a}\nb\n', ['{a}', 'b']),
    ('[1, 2]\n', ['[1, 2]']),
  ],
)
def test_standard_input_is_what_it_holds(monkeypatch, text, texts):
  monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(b'\xef\xbb\xbf' + text.encode())))
  assert [prompt.text for prompt in prompt_files.read('-')] == texts


def test_a_torn_first_row_of_standard_input_makes_no_prompts_of_json(monkeypatch):
  text = '{"inputs": "a\n{"inputs": "b"}\n'
  monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(text.encode())))
  with pytest.raises(ValueError, match='row 1 is torn or no JSON object'):
    prompt_files.read('-')


def test_a_pipe_is_what_it_holds(tmp_path):
  read_end, write_end = os.pipe()
  os.write(write_end, b'{"inputs": "a", "id": 1}\n')
  os.close(write_end)
  [found] = prompt_files.read(f'/dev/fd/{read_end}')
  assert (found.text, found.columns) == ('a', {'id': 1})


def test_each_row_has_its_prompt_in_one_of_the_columns(tmp_path):
  rows = '{"prompt": "a"}\n{"inputs": "b", "prompt": "c"}\n{"prompt": "d"}'
  assert [prompt.text for prompt in prompt_files.read(written(tmp_path, rows))] == ['a', 'b', 'd']


def test_columns_can_be_written_as_json(tmp_path):
  row = '{"inputs": "a", "x": [NaN, {"y": -Infinity}], "z": 1e999, "n": 12345678901234567890123}'
  [found] = prompt_files.read(written(tmp_path, row))
  assert found.columns == {'x': [None, {'y': None}], 'z': None, 'n': 12345678901234567890123}


def test_halves_of_surrogate_pairs_are_no_prompt(tmp_path):
  with pytest.raises(ValueError, match=r"row 1 has half of a surrogate pair in 'inputs'"):
    prompt_files.read(written(tmp_path, r'{"inputs": "a \ud800 b"}'))
  with pytest.raises(ValueError, match='text 1 is not UTF-8'):
    prompt_files.of_texts([b'a \xff'.decode('utf-8', 'surrogateescape')])


BAD = [
  '{"inputs": "good", "id": 1}',
  '{"inputs": "to',
  '[1]',
  '{"input": "x"}',
  '{"inputs": ""}',
  '{"inputs": 5}',
  '{"inputs": "again", "id": 1}',
]


def test_bad_rows_are_told_together_or_left_out(tmp_path, caplog):
  path = written(tmp_path, '\n'.join(BAD))
  with pytest.raises(ValueError) as raised:
    prompt_files.read(path)
  told = (
    'row 2 is torn or no JSON object (Unterminated string starting at: line 1 column 12 (char 11))',
    'row 3 is torn or no JSON object (got list)',
    "row 4 has no column of ['inputs', 'prompt'], but ['input'] (PROMPT_COLUMN names another)",
    "row 5 has an empty 'inputs'",
    "row 6 has no text in 'inputs' but int",
    "and 1 more: mend them, or BAD_ROWS = 'leave_out' goes without",
  )
  assert str(raised.value) == f'{path}: {"; ".join(told)}'
  assert [prompt.text for prompt in prompt_files.read(path, bad_rows='leave_out')] == ['good']
  assert '6 rows are left out: row 2 is torn' in caplog.text


@pytest.mark.parametrize(
  ('text', 'options', 'message'),
  [
    ('{"question": "a"}', {}, r"row 1 has no column of \['inputs', 'prompt'\], but \['question'\]"),
    (f'{BAD[0]}\n{BAD[6]}', {}, 'row 2 has the id 1 of row 1'),
    ('{"inputs": "a", "inputs": "b"}', {}, r"row 1 .*the names \['inputs'\] stand twice"),
    ('\n \n', {}, 'no prompts in it'),
    ('{}', {'bad_rows': 'skip'}, "BAD_ROWS must be 'refuse' or 'leave_out'"),
    ('{}', {'form': 'csv'}, 'PROMPTS_FORMAT must be'),
  ],
)
def test_what_is_no_prompt_is_refused(tmp_path, text, options, message):
  with pytest.raises(ValueError, match=message):
    prompt_files.read(written(tmp_path, text), **options)


@pytest.mark.parametrize('name', ['prompts', 'prompts.txt', 'rows.jsonl.bak'])
def test_json_lines_under_the_name_of_a_text_are_not_taken_for_prompts(tmp_path, name):
  path = tmp_path / name
  path.write_text('{"inputs": "a"}\n')
  with pytest.raises(ValueError, match=r"line 1 is a JSON object .*PROMPTS_FORMAT = 'jsonl'"):
    prompt_files.read(path)
  assert [p.text for p in prompt_files.read(path, form='jsonl')] == ['a']
  assert [p.text for p in prompt_files.read(path, form='text')] == ['{"inputs": "a"}']


def test_bytes_of_a_table_are_text_or_none(tmp_path):
  path = tmp_path / 'x.parquet'
  table = pa.table({'inputs': pa.array([b'gr\xc3\xbcn'], pa.binary()), 'picture': [b'\xff\xd8']})
  pq.write_table(table, path)
  (prompt,) = prompt_files.read(path)
  assert (prompt.text, prompt.columns) == ('grün', {'picture': {'bytes': 'ffd8'}})
  with pytest.raises(ValueError, match="row 1 has no text in 'picture'"):
    prompt_files.read(path, column='picture')


def test_a_zip_of_json_lines_has_rows(tmp_path):
  with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as archive:
    archive.writestr('x.jsonl', '{"inputs": "a"}\n{"inputs": "b"}\n')
  assert [p.text for p in prompt_files.read(tmp_path / 'x.zip')] == ['a', 'b']


def test_a_nul_in_standard_input_is_no_text(monkeypatch):
  monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO('a\nb\n'.encode('utf-16-le'))))
  with pytest.raises(ValueError, match='standard input, line 1: a NUL'):
    prompt_files.read('-')


def test_a_value_that_cannot_be_read_is_no_prompt(tmp_path):
  when = pa.array([2**62], pa.timestamp('us'))
  pq.write_table(pa.table({'inputs': ['x'], 'when': when}), tmp_path / 'p.parquet')
  (prompt,) = prompt_files.read(tmp_path / 'p.parquet')
  assert prompt.text == 'x'
  pq.write_table(pa.table({'inputs': when}), tmp_path / 'p.parquet')
  with pytest.raises(ValueError, match="no text in 'inputs'"):
    prompt_files.read(tmp_path / 'p.parquet')

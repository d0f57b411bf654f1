"""CSV and TSV as they come."""

import pytest

from aya_train.tasks.building.read_report import DamagedFileError
from aya_train.tasks.user import csv_files


def read(path, content, columns=(), encoding='utf-8'):
  path.write_bytes(content.encode(encoding) if isinstance(content, str) else content)
  return [row for _, row in csv_files.read(path, columns)]


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
def test_encodings_and_ends_of_lines(tmp_path, encoding, end):
  odd = 'x\u2028y\x85z\x0b'
  for name, mark in (('a.csv', ','), ('a.TSV', '\t')):
    content = end.join([f'inputs{mark}targets', f'{odd}{mark}1', '', f'b{mark}2', ''])
    found = read(tmp_path / name, content, encoding=encoding)
    assert found == [{'inputs': odd, 'targets': '1'}, {'inputs': 'b', 'targets': '2'}]


def test_quotes_and_long_fields(tmp_path):
  long = 'a' * 300_000
  content = f'inputs,targets\n"two\nlines, ""quoted""",{long}\n'
  assert read(tmp_path / 'a.csv', content) == [{'inputs': 'two\nlines, "quoted"', 'targets': long}]
  assert read(tmp_path / 'a.tsv', 'a\tb\n"x\t5"\n') == [{'a': '"x', 'b': '5"'}]


def test_columns_without_a_name_are_left_out(tmp_path):
  assert read(tmp_path / 'a.csv', ',inputs,\n0,a,\n') == [{'inputs': 'a'}]


def test_columns_are_given_for_files_without_a_header(tmp_path):
  assert read(tmp_path / 'a.csv', 'x,y\n', ('inputs', 'targets')) == [
    {'inputs': 'x', 'targets': 'y'}
  ]


@pytest.mark.parametrize(
  ('content', 'columns', 'message'),
  [
    ('a,b\nx,1\n"y,2\nz,3\n', (), r'row 2 \(from line 3\): .* never closed'),
    ('x,1\n"y,2\nz,3\n', ('a', 'b'), r'row 2 \(from line 2\): .* never closed'),
    ('a,b\n"x" y,1\n', (), r'row 1 \(from line 2\): a quote .* inside a quoted field'),
    ('a,b\nx,1\n\nx\n', (), r"row 2 \(line 4\): 1 fields, expected the 2 columns \['a', 'b'\]"),
    ('a,b\nx,1,2\n', (), r'row 1 \(line 2\): 3 fields'),
    ('a,a\nx,1\n', (), r"columns \['a'\] are there twice"),
    ('inputs,targets\nx,1\n', ('inputs', 'targets'), r'line 1 is one: .*Leave `columns` away'),
    ('Question,Answer\nx,1\n', ('inputs', 'targets'), r'line 1 is one'),
    (b'a,b\nx,1\ny,\xe9\n', (), r'line 3: byte 0xe9 .* not UTF-8'),
    ('a,b\nx\ry,1\n', (), r'row 1 \(from line 2\): a carriage return alone'),
  ],
)
def test_what_is_wrong_is_told_with_its_row(tmp_path, content, columns, message):
  with pytest.raises(DamagedFileError, match=r'a\.csv.*' + message):
    read(tmp_path / 'a.csv', content, columns)

"""A reader gives every whole record, names every bad one, and never takes half a file for whole."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aya_train.tasks.building import records
from aya_train.tasks.building.read_report import DamagedFileError
from tests.tasks import released

ROWS = [{'inputs': f'swali {i} ኢትዮጵያ', 'targets': 'ჯ' * (i % 7)} for i in range(300)]


def found(path, **kwargs):
  return list(records.read(path, **kwargs))


def write(path, rows):
  if path.name.endswith('.zip'):
    released.zipped(path, {'a.jsonl': rows})
  else:
    (released.parquet if path.name.endswith('parquet') else released.jsonl)(path, rows)


@pytest.mark.parametrize('name', ['a.jsonl', 'a.json', 'a.jsonl.gz', 'a.parquet', 'a.zip'])
def test_reads_back_what_was_written(tmp_path, name):
  path = tmp_path / name
  write(path, ROWS)
  got = found(path)
  assert [record for _, record in got] == ROWS
  assert [where for where, _ in got] == [f'row {i + 1}' for i in range(300)]


@pytest.mark.parametrize('name', ['a.jsonl', 'a.jsonl.gz', 'a.parquet', 'a.zip'])
@pytest.mark.parametrize('share', [0.0, 0.3, 0.98])
def test_a_cut_file_is_damaged(tmp_path, name, share):
  path = tmp_path / name
  write(path, ROWS)
  whole = path.read_bytes()
  cut = int(len(whole) * share)
  while share and name.endswith('l') and whole[cut - 1 : cut + 1].count(b'\n'):
    cut -= 1
  path.write_bytes(whole[:cut])
  with pytest.raises(DamagedFileError, match=name):
    found(path)


def test_a_page_that_is_garbage_is_damage(tmp_path):
  path = tmp_path / 'a.parquet'
  pq.write_table(pa.Table.from_pylist(ROWS), path, compression='zstd')
  data = bytearray(path.read_bytes())
  data[40:200] = b'\xff' * 160
  path.write_bytes(data)
  with pytest.raises(DamagedFileError, match='damaged inside'):
    found(path)


def test_a_zip_is_read_through_its_files_of_json_lines(tmp_path):
  path = tmp_path / 'a.zip'
  junk = {'__MACOSX/._a.jsonl': ['x'], 'README.md': ['x']}
  released.zipped(path, {**junk, 'in/a.jsonl': ROWS[:2], 'in/b.jsonl': ROWS[2:5]})
  assert found(path) == [(f'row {i + 1}', ROWS[i]) for i in range(5)]
  released.zipped(path, junk)
  with pytest.raises(DamagedFileError, match=r'a\.zip: no file of JSON lines'):
    found(path)


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9])
def test_a_changed_byte_of_a_zip_is_damage(tmp_path, share):
  path = tmp_path / 'a.zip'
  write(path, ROWS)
  data = bytearray(path.read_bytes())
  data[int(share * path.stat().st_size)] ^= 0xFF
  path.write_bytes(data)
  with pytest.raises(DamagedFileError, match=r'a\.zip'):
    found(path)


def test_a_git_lfs_pointer_is_no_data(tmp_path):
  path = tmp_path / 'a.parquet'
  path.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n')
  with pytest.raises(DamagedFileError, match='git lfs pull'):
    found(path)


def test_wrong_columns_of_a_parquet_file_are_named(tmp_path):
  path = tmp_path / 'a.parquet'
  released.parquet(path, [{'prompt': 'x', 'targets': 'y'}])
  with pytest.raises(DamagedFileError, match=r"lacks the columns \['inputs'\].*prompt"):
    found(path, columns=('inputs', 'targets'))


def test_unknown_endings_are_refused(tmp_path):
  (tmp_path / 'a.csv').write_text('a,b\n')
  with pytest.raises(ValueError, match='unknown kind of file'):
    found(tmp_path / 'a.csv')


def test_bad_lines_are_named_and_the_others_read(tmp_path):
  path = tmp_path / 'a.jsonl'
  lines = [
    b'\xef\xbb\xbf{"a": 1}',
    b'{"a": 2',
    b'{"a": "\xff"}',
    b'',
    b'"text"',
    b'[' * 100_000,
    b'{"a": 3}',
  ]
  path.write_bytes(b'\r\n'.join(lines) + b'\n')
  got = {where: getattr(r, 'kind', r) for where, r in found(path)}
  assert got == {
    'row 1': {'a': 1},
    'row 2': 'broken_json',
    'row 3': 'invalid_utf8',
    'row 5': 'wrong_columns',
    'row 6': 'broken_json',
    'row 7': {'a': 3},
  }


def test_a_line_over_the_limit_is_skipped_in_bounded_memory(tmp_path, monkeypatch):
  monkeypatch.setattr(records, 'MAX_LINE_BYTES', 1_000)
  path = tmp_path / 'a.jsonl'
  released.jsonl(path, [{'a': 'x' * 5_000}, {'a': 'y'}])
  assert [getattr(r, 'kind', r) for _, r in found(path)] == ['too_long', {'a': 'y'}]


def test_invalid_utf8_in_parquet_spoils_its_row_only(tmp_path):
  path = tmp_path / 'a.parquet'
  values = pa.array([b'ok', b'\xff\xfe', b'fine'], pa.binary()).view(pa.string())
  pq.write_table(pa.table({'inputs': values}), path)
  got = [getattr(r, 'kind', r) for _, r in found(path, columns=['inputs'])]
  assert got == [{'inputs': 'ok'}, 'invalid_utf8', {'inputs': 'fine'}]


def test_parts_of_a_file_are_the_file(tmp_path):
  text, table = tmp_path / 'a.jsonl', tmp_path / 'a.parquet'
  released.jsonl(text, ROWS)
  released.parquet(table, ROWS, row_group=7)
  for path, parts in (
    (text, [records.FilePart(a, a + 97) for a in range(0, text.stat().st_size, 97)]),
    (table, records.parts(table, 0, rows=20)),
  ):
    assert len(parts) > 10
    assert [r for part in parts for _, r in found(path, part=part)] == ROWS
  rows_of_parts = [
    where for part in records.parts(table, 0, rows=20) for where, _ in found(table, part=part)
  ]
  assert rows_of_parts == [f'row {i + 1}' for i in range(300)]


hypothesis = pytest.importorskip('hypothesis', reason='property tests need hypothesis')
st = hypothesis.strategies

json_values = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
  lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
  max_leaves=8,
)
objects = st.dictionaries(st.text(), json_values, max_size=4)


@hypothesis.given(st.binary(max_size=300))
def test_no_line_of_bytes_breaks_the_parser(line):
  parsed = records.parse_line(line)
  assert isinstance(parsed, dict | list | records.BadRecord)


@hypothesis.given(objects, st.booleans())
def test_every_object_survives(value, ascii_only):
  assert records.parse_line(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@hypothesis.settings(
  max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(st.lists(objects, min_size=1, max_size=12), st.data())
def test_any_division_reads_each_record_once(tmp_path, rows, data):
  path = tmp_path / 'any.jsonl'
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  size = path.stat().st_size
  cuts = sorted(data.draw(st.sets(st.integers(1, size), max_size=4)))
  parts = [records.FilePart(a, b) for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
  assert [r for part in parts for _, r in records.read(path, part)] == rows


@hypothesis.settings(
  max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(st.lists(objects, min_size=1, max_size=8), st.data())
def test_a_cut_gzip_never_reads_as_whole(tmp_path, rows, data):
  path = tmp_path / 'any.jsonl.gz'
  whole = gzip.compress(''.join(json.dumps(row) + '\n' for row in rows).encode())
  path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
  with pytest.raises(DamagedFileError):
    list(records.read(path))


def _spoilt_table():
  """A table with texts, dates beyond the calendar and, under a text's type, no UTF-8."""
  raw = pa.array([b'a', b'\xff\xfe', b'c'])
  texts = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
  when = pa.array([0, 2**62, 0], pa.timestamp('us'))
  return pa.table({'text': ['x', 'y', 'z'], 'note': texts, 'when': when})


def test_a_value_that_cannot_be_read_spoils_no_other_column(tmp_path):
  pq.write_table(_spoilt_table(), path := tmp_path / 'a.parquet')
  rows = [row for _, row in records.read(path)]
  assert [row['text'] for row in rows] == ['x', 'y', 'z']
  assert [rows[0]['note'], rows[2]['note']] == ['a', 'c']
  assert isinstance(rows[1]['note'], records.BadValue)
  assert rows[1]['note'].kind == 'invalid_utf8'
  assert isinstance(rows[1]['when'], records.BadValue)


def test_a_value_that_is_needed_and_cannot_be_read_makes_its_row_bad(tmp_path):
  pq.write_table(_spoilt_table(), path := tmp_path / 'a.parquet')
  rows = [row for _, row in records.read(path, columns=['text', 'note'])]
  assert rows[0] == {'text': 'x', 'note': 'a'}
  assert isinstance(rows[1], records.BadRecord)
  assert rows[1].kind == 'invalid_utf8'
  assert "column 'note'" in rows[1].detail
  assert [row for _, row in records.read(path, columns=['text'])] == [{'text': t} for t in 'xyz']

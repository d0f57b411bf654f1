"""Files of text in every encoding and compression that users have."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import threading

import hypothesis
import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet
import pytest

from aya_train.tasks.building import json_arrays, records, text_files
from aya_train.tasks.building.read_report import DamagedFileError
from aya_train.tasks.user import row_files


def zstd(content):
  sink = pa.BufferOutputStream()
  with pa.CompressedOutputStream(sink, 'zstd') as stream:
    stream.write(content)
  return sink.getvalue().to_pybytes()


PACKED = {'gz': gzip.compress, 'bz2': bz2.compress, 'xz': lzma.compress, 'zst': zstd}
ODD = 'a\u2028b\u2029c\x85d\x0be\x0cf\x1cg'


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-32'])
def test_text_has_no_mark_and_lines_end_at_newlines_alone(tmp_path, encoding):
  path = tmp_path / 'x.txt'
  path.write_bytes(f'{ODD}\r\nzwei \U0001f600\nlast'.encode(encoding))
  assert text_files.read(path) == f'{ODD}\nzwei \U0001f600\nlast'
  assert text_files.lines(text_files.read(path)) == [ODD, 'zwei \U0001f600', 'last']


def test_lines():
  assert text_files.lines('a\r\nb\rc\n\nd\n') == ['a', 'b\rc', '', 'd']
  assert text_files.lines('') == []
  assert text_files.lines('a\rb\r') == ['a', 'b']


@pytest.mark.parametrize('end', ['', '\r'])
def test_lines_of_the_old_macintosh(tmp_path, end):
  (tmp_path / 'x.txt').write_bytes(f'eins\r\rzwei{end}'.encode())
  assert [line for _, line in row_files.lines(tmp_path / 'x.txt')] == ['eins', '', 'zwei']
  (tmp_path / 'x.jsonl').write_bytes(b'{"a": 1}\r{"a": 2}\r')
  with pytest.raises(DamagedFileError, match=r'row 1.*carriage returns'):
    list(records.read(tmp_path / 'x.jsonl'))


@pytest.mark.parametrize('ending', ['bz2', 'xz'])
def test_damage_after_the_first_stream_is_no_end(tmp_path, ending):
  # As pbzip2 and pixz write them: a stream for each block.
  pack, path = PACKED[ending], tmp_path / f'x.txt.{ending}'
  first, second = pack(b'eins\n'), pack(b'zwei\n')
  path.write_bytes(first + second + b'\0' * 8)
  assert text_files.read(path) == 'eins\nzwei\n'
  for damaged in (b'X' + second[1:], second[:-4], b'garbage'):
    path.write_bytes(first + damaged)
    with pytest.raises(DamagedFileError, match='not a whole'):
      text_files.read(path)


def test_large_compressed_files_come_in_blocks(tmp_path):
  content = b''.join(b'%d\n' % i for i in range(200_000))
  for ending in ('bz2', 'xz'):
    path = tmp_path / f'x.txt.{ending}'
    path.write_bytes(PACKED[ending](content) + PACKED[ending](content))
    assert text_files.read(path).encode() == content * 2


@pytest.mark.parametrize('name', ['x.txt', 'x.csv', 'x.tsv'])
def test_a_nul_is_named_with_its_line(tmp_path, name):
  (tmp_path / name).write_bytes(b'a\nb\0\n')
  with pytest.raises(DamagedFileError, match='line 2: a NUL'):
    list(row_files.read(tmp_path / name))


@pytest.mark.parametrize('name', ['x.jsonl', 'x.csv', 'x.parquet', 'x.jsonl.gz'])
def test_a_pipe_is_refused_where_it_would_be_opened_twice(tmp_path, name):
  os.mkfifo(tmp_path / name)
  with pytest.raises(DamagedFileError, match=rf'{name} is a pipe or a device'):
    list(row_files.read(tmp_path / name))


def test_a_pipe_of_lines_is_read_once(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  writer = threading.Thread(target=(tmp_path / 'pipe').write_text, args=('{"inputs": "a"}\nb\n',))
  writer.start()
  found = [line for _, line in row_files.read(tmp_path / 'pipe')]
  writer.join()
  assert found == ['{"inputs": "a"}', 'b']


def test_a_tar_archive_is_no_text(tmp_path):
  (tmp_path / 'a.jsonl').write_text('{}\n')
  for name, mode in (('x.jsonl', 'w'), ('x.tar.gz', 'w:gz')):
    with tarfile.open(tmp_path / name, mode) as archive:
      archive.add(tmp_path / 'a.jsonl', 'a.jsonl')
    with pytest.raises(DamagedFileError, match=rf'{name}: is no text but a tar archive; unpack'):
      text_files.read(tmp_path / name)


def test_a_spreadsheet_is_no_text(tmp_path):
  (tmp_path / 'x.csv').write_bytes(b'PK\x03\x04\x14\x00\x06\x00' + bytes(100))
  with pytest.raises(DamagedFileError, match='a zip file, as a spreadsheet'):
    list(row_files.read(tmp_path / 'x.csv'))


ROWS = [{'inputs': f'{ODD} {i}', 'targets': 'é'} for i in range(300)]
FORMS = {
  'lines': ''.join(json.dumps(row, ensure_ascii=False) + '\r\n' for row in ROWS),
  'array': json.dumps(ROWS, ensure_ascii=False),
  'indented': json.dumps(ROWS, ensure_ascii=False, indent=2),
}


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_json_is_read_whatever_its_form_encoding_and_compression(tmp_path, form, encoding):
  content = FORMS[form].encode(encoding)
  for ending, pack in {'': bytes, **{f'.{k}': v for k, v in PACKED.items()}}.items():
    path = tmp_path / f'rows.JSON{ending}'
    path.write_bytes(pack(content))
    found = list(records.read(path))
    assert [row for _, row in found] == ROWS
    assert (found[0][0], found[-1][0]) == ('row 1', 'row 300')


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_parts_have_each_row_once(tmp_path, form, encoding):
  path = tmp_path / 'rows.json'
  path.write_bytes(FORMS[form].encode(encoding))
  starts = [0, 1, 3, 4, 60, 5_000, 5_001]
  parts = [records.FilePart(a, b) for a, b in zip(starts, [*starts[1:], None], strict=True)]
  assert [row for part in parts for _, row in records.read(path, part)] == ROWS


@pytest.mark.parametrize('ending', PACKED)
def test_a_compressed_file_that_is_cut_or_none_is_named(tmp_path, ending):
  path = tmp_path / f'rows.jsonl.{ending}'
  content = FORMS['lines'].encode()
  for broken in (PACKED[ending](content)[:-9], content, b'', PACKED[ending](content)[:20]):
    path.write_bytes(broken)
    with pytest.raises(DamagedFileError, match=rf'rows\.jsonl\.{ending}: no'):
      list(records.read(path))
  (tmp_path / 'plain.jsonl').write_bytes(PACKED[ending](content))
  with pytest.raises(DamagedFileError, match=rf'plain\.jsonl: holds .* end in \.{ending}'):
    list(records.read(tmp_path / 'plain.jsonl'))


def test_what_is_no_utf8_is_named_with_its_row(tmp_path):
  path = tmp_path / 'x.jsonl'
  path.write_bytes('{"a": "é"}\n{"a": "é"}\n'.encode('latin-1'))
  (_, first), _ = records.read(path)
  assert first.kind == 'invalid_utf8'
  assert '0xe9' in first.detail
  with pytest.raises(DamagedFileError, match=r'x\.jsonl, line 1: byte 0xe9 .* is not UTF-8'):
    text_files.read(path)
  path.write_bytes('{"a": 1}\n'.encode('utf-16-le'))
  with pytest.raises(DamagedFileError, match=r'x\.jsonl: .* UTF-16 without a byte-order mark'):
    list(records.read(path))
  path.write_bytes('{"a": 1}\n'.encode('utf-16')[:-1])
  with pytest.raises(DamagedFileError, match=r'x\.jsonl: not whole UTF-16'):
    list(records.read(path))


def test_a_name_twice_in_an_object_is_no_record(tmp_path):
  (tmp_path / 'x.jsonl').write_text('{"a": 1, "a": 2}')
  ((where, found),) = records.read(tmp_path / 'x.jsonl')
  assert (where, found.kind) == ('row 1', 'wrong_columns')
  assert "['a']" in found.detail


def test_an_array_that_is_cut_names_its_element(tmp_path):
  (tmp_path / 'x.json').write_text(FORMS['indented'][:5_000])
  with pytest.raises(DamagedFileError, match=r'x\.json: a JSON array .* element \d+: '):
    list(records.read(tmp_path / 'x.json'))


def test_lists_are_records_where_a_source_has_such(tmp_path):
  conversation = [{'from': 'user', 'text': 'a'}, {'from': 'assistant', 'text': 'b'}]
  for content, expected in (
    (json.dumps(conversation), [conversation]),
    (json.dumps([conversation, conversation]), [conversation] * 2),
    (json.dumps(conversation) + '\n' + json.dumps(conversation) + '\n', [conversation] * 2),
  ):
    (tmp_path / 'x.json').write_text(content)
    found = [row for _, row in records.read(tmp_path / 'x.json', records_are_lists=True)]
    assert found == expected


def test_columns_twice_in_parquet_are_refused(tmp_path):
  table = pa.table([['a'], ['b']], names=['inputs', 'inputs'])
  pa.parquet.write_table(table, tmp_path / 'x.parquet')
  with pytest.raises(DamagedFileError, match=r"x\.parquet: the columns \['inputs'\] .* twice"):
    list(records.read(tmp_path / 'x.parquet'))


def test_arrow_files_and_streams(tmp_path):
  table = pa.table({'inputs': ['a', 'b'], 'targets': ['c', 'd']})
  for name, new in (('f.arrow', pa.ipc.new_file), ('s.arrow', pa.ipc.new_stream)):
    with new(str(tmp_path / name), table.schema) as writer:
      writer.write_table(table)
    assert [row['targets'] for _, row in records.read(tmp_path / name)] == ['c', 'd']
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:200])
    with pytest.raises(DamagedFileError, match='not a whole Arrow file'):
      list(records.read(tmp_path / name))


@hypothesis.given(
  st.lists(
    st.recursive(
      st.none() | st.booleans() | st.integers() | st.text(max_size=8),
      lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
      max_leaves=6,
    ),
    max_size=6,
  ),
  st.sampled_from([None, 1]),
)
def test_elements_of_an_array(tmp_path_factory, values, indent):

  text = json.dumps(values, ensure_ascii=False, indent=indent)
  file = io.BytesIO(text.encode('utf-8', 'surrogatepass'))
  assert list(json_arrays.elements(file, 1 << 20)) == values


@pytest.mark.parametrize(('head', 'kind'), [(b'PAR1\x15', 'parquet'), (b'ARROW1\0\0', 'arrow')])
def test_tables_under_the_name_of_a_text_are_told_by_their_kind(tmp_path, head, kind):
  (tmp_path / 'x.jsonl').write_bytes(head + bytes(60))
  with pytest.raises(DamagedFileError, match=rf'no text but {kind}; rename it to end in \.{kind}'):
    text_files.read(tmp_path / 'x.jsonl')

import json

import pytest

from aya_train import json_lines

WHOLE = b'{"a": 1}\n{"a": 2}\n'


def numbers(path):
  return [(number, record['a']) for number, record in json_lines.read(path)]


@pytest.mark.parametrize(
  'torn', [b'{"a": ', b'{"a": "\xc3', b'\0\0\0\0', b'17', b'null', b'{"a": 3}{"a": 4}', b'\xff']
)
def test_torn_lines_are_left_out_and_named_once(tmp_path, torn, caplog):
  path = tmp_path / 'x.jsonl'
  path.write_bytes(WHOLE + torn + b'\n' + b'{"a": 5}\n' + torn)
  assert numbers(path) == [(1, 1), (2, 2), (4, 5)]
  assert len(caplog.records) == 1
  assert 'line 3, 5 is torn' in caplog.text
  assert str(path) in caplog.text


def test_only_a_line_feed_ends_a_line(tmp_path, caplog):
  text = 'a\u2028b\u0085c\u000bd'
  (tmp_path / 'x.jsonl').write_text(json.dumps({'a': text}, ensure_ascii=False) + '\n')
  assert numbers(tmp_path / 'x.jsonl') == [(1, text)]
  assert not caplog.records


@pytest.mark.parametrize('cut', range(len(WHOLE) + 1))
def test_after_any_cut_the_next_line_stands_alone(tmp_path, cut, caplog):
  path = tmp_path / 'x.jsonl'
  path.write_bytes(WHOLE[:cut])
  json_lines.mend_end(path)
  with path.open('a') as file:
    file.write('{"a": 3}\n')
  whole = sum(cut >= end for end in (8, 17))  # a record is whole without the end of its line
  assert [a for _, a in numbers(path)] == [1, 2, 3][:whole] + [3]
  assert len(caplog.records) == (cut not in (0, 8, 9, 17, 18))
  if caplog.records:
    assert f'line {whole + 1} was torn' in caplog.text


def test_a_file_that_is_not_there_is_not_made(tmp_path):
  json_lines.mend_end(tmp_path / 'x.jsonl')
  assert not list(tmp_path.iterdir())

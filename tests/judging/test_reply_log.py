import json
import subprocess
import sys

import pytest

from aya_train import destinations
from aya_train.judging import reply_log


@pytest.mark.parametrize('local', [True, False])
def test_records_stay_whatever_happens_to_the_last_line(tmp_path, monkeypatch, local):
  monkeypatch.setattr(destinations, 'is_local', lambda path: local)  # as in a bucket
  path = tmp_path / 'replies.jsonl'
  replies = reply_log.Replies(path)
  replies.add({'key': 'a', 'text': 'አዎ'})
  replies.add({'key': 'b', 'text': 'x'})
  replies.close()
  if local:
    path.write_bytes(path.read_bytes() + b'{"key": "c", "te')
  again = reply_log.Replies(path)
  assert again.get('a') == {'key': 'a', 'text': 'አዎ'}
  assert again.get('c') is None
  again.forget('b')
  assert again.get('b') is None
  again.add({'key': 'b', 'text': 'y'})
  again.close()
  assert [json.loads(line)['text'] for line in path.read_text().splitlines()] == ['አዎ', 'x', 'y']
  assert reply_log.Replies(path).get('b')['text'] == 'y'


def test_a_file_is_written_whole_or_not(tmp_path):
  path = tmp_path / 'x.jsonl'
  reply_log.write_whole(path, [{'a': 1}])
  with pytest.raises(TypeError):
    reply_log.write_whole(path, [{'a': object()}])
  assert path.read_text() == '{"a": 1}\n'
  assert [p.name for p in tmp_path.iterdir()] == ['x.jsonl']


def test_what_a_killed_process_left_goes(tmp_path):
  code = (
    'import os, signal, sys\n'
    'from aya_train.judging import reply_log\n'
    'def records():\n'
    '  yield {"a": 1}\n'
    'reply_log.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n'
    'reply_log.write_whole(sys.argv[1], records())\n'
  )
  subprocess.run([sys.executable, '-c', code, str(tmp_path / 'x.jsonl')], check=False)
  assert len([*tmp_path.iterdir()]) == 1
  reply_log.write_whole(tmp_path / 'x.jsonl', [{'a': 1}])
  assert [p.name for p in tmp_path.iterdir()] == ['x.jsonl']


def test_records_that_lack_something_are_asked_for_again(tmp_path, caplog):
  path = tmp_path / 'replies.jsonl'
  records = [{'key': 'a'}, {'key': ['b'], 'text': 'x'}, {'key': 'c', 'text': 1}, {'text': 'x'}]
  reply_log.write_whole(path, [*records, {'key': 'd', 'text': 'x'}])
  replies = reply_log.Replies(path, {'text': str})
  assert [key for key in 'abcd' if replies.get(key)] == ['d']
  assert 'line 1, 2, 3, 4 is torn, changed or no record of ours' in caplog.text

"""A file of answers is whole after any kill, and says when it is of something else."""

import json
import os
import stat

import pytest

from aya_train import answer_file

ABOUT = {'checkpoint': 'a', 'temperature': 0.9}


def records(*numbers, samples=1):
  return [
    {'index': i, 'sample': k, 'prediction': f'{i}\u2028é'} for i in numbers for k in range(samples)
  ]


def opened(path, about=ABOUT, count=6, samples=1, **options):
  return answer_file.AnswerFile(path, about, num_questions=count, records_each=samples, **options)


def read(path):
  return [json.loads(line) for line in path.read_bytes().split(b'\n') if line]


@pytest.fixture(params=['disk', 'bucket'])
def path(tmp_path, monkeypatch, request):
  if request.param == 'bucket':
    monkeypatch.setattr(answer_file.destinations, 'is_local', lambda path: False)
  return tmp_path / 'made' / 'a.jsonl'


def test_answers_go_on_where_they_were_stopped_and_end_in_order(path):
  with opened(path) as file:
    assert file.done == frozenset()
    file.write(records(4, 1))
  with opened(path) as file:
    assert file.done == {1, 4} and not file.complete
    file.write(records(0, 5))
  with opened(path) as file:
    file.write(records(3, 2))
    assert list(file.records()) == records(*range(6))
    file.finish()
  assert read(path) == records(*range(6))
  assert sorted(p.name for p in path.parent.iterdir()) == ['a.jsonl', 'a.jsonl.run.json']
  with opened(path) as file:
    assert file.complete
    file.finish()
  assert read(path) == records(*range(6))


def test_nothing_leaves_nothing(path):
  with opened(path):
    pass
  assert not [*path.parent.iterdir()]


def test_each_answer_is_there_as_soon_as_it_is_written(tmp_path):
  with opened(tmp_path / 'a.jsonl') as file:
    file.write(records(4))
    assert read(tmp_path / 'a.jsonl') == records(4)


def test_after_a_cut_anywhere_whole_questions_are_kept(tmp_path):
  with opened(tmp_path / 'a.jsonl', samples=2) as file:
    file.write(records(3, 0, samples=2))
  content = (tmp_path / 'a.jsonl').read_bytes()
  ends = [i + 1 for i, byte in enumerate(content) if byte == 10]
  for cut in {*range(0, len(content), 7), *ends, *(end - 1 for end in ends)}:
    path = tmp_path / 'cut.jsonl'
    path.write_bytes(content[:cut])
    (tmp_path / 'cut.jsonl.run.json').write_bytes((tmp_path / 'a.jsonl.run.json').read_bytes())
    with opened(path, samples=2) as file:
      assert file.done == {i for i, end in ((3, ends[1]), (0, ends[3])) if cut >= end - 1}
      file.write(records(*({*range(6)} - file.done), samples=2))
      file.finish()
    assert read(path) == records(*range(6), samples=2)


def test_answers_of_something_else_are_refused_with_what_differs(path):
  with opened(path) as file:
    file.write(records(*range(6)))
    file.finish()
  with pytest.raises(
    answer_file.OtherAnswersError, match=r'temperature was 0\.9, now 0\.5\): give'
  ):
    opened(path, {**ABOUT, 'temperature': 0.5})
  with pytest.raises(answer_file.OtherAnswersError, match=r'6 x 1 answers were wanted, now 6 x 2'):
    opened(path, samples=2)
  assert read(path) == records(*range(6))
  with opened(path, {'checkpoint': 'b'}, overwrite=True) as file:
    assert file.done == frozenset()
    file.write(records(*range(6)))
    file.finish()


def test_a_file_that_nobody_knows_is_not_overwritten(tmp_path):
  (tmp_path / 'a.jsonl').write_text('mine\n')
  with pytest.raises(answer_file.OtherAnswersError, match=r'nothing beside it says how'):
    opened(tmp_path / 'a.jsonl')
  with opened(tmp_path / 'a.jsonl', overwrite=True) as file:
    file.write(records(2))
  assert read(tmp_path / 'a.jsonl') == records(2)


def test_two_processes_do_not_write_one_file(tmp_path):
  with opened(tmp_path / 'a.jsonl'), pytest.raises(OSError, match='another process is writing'):
    opened(tmp_path / 'a.jsonl')


def test_an_unfinished_file_does_not_pass_for_a_whole_one(path):
  with opened(path) as file:
    file.write(records(1, 2))
    with pytest.raises(ValueError, match=r'2 of 6 answers are there'):
      file.finish()


@pytest.mark.parametrize('record', [{}, {'index': 6}, {'index': -1}, {'index': True}])
def test_a_record_without_a_question_is_refused(tmp_path, record):
  with (
    opened(tmp_path / 'a.jsonl') as file,
    pytest.raises(ValueError, match="needs 'index' from 0"),
  ):
    file.write([record])


def test_a_stream_gets_the_answers_in_order_as_soon_as_that_can_be(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  read_end = os.open(tmp_path / 'pipe', os.O_RDONLY | os.O_NONBLOCK)
  with opened(tmp_path / 'pipe', count=4) as file:
    file.write(records(1))
    with pytest.raises(BlockingIOError):
      os.read(read_end, 1000)
    file.write(records(0))
    first = os.read(read_end, 1000)
    file.write(records(3, 2))
    file.finish()
  rest = os.read(read_end, 1000)
  lines = [json.loads(line) for line in (first + rest).splitlines()]
  assert lines == records(0, 1, 2, 3) and first.count(b'\n') == 2
  assert stat.S_ISFIFO(os.stat(tmp_path / 'pipe').st_mode)
  assert [p.name for p in tmp_path.iterdir()] == ['pipe']
  os.close(read_end)

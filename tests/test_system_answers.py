import datetime
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aya_train import system_answers
from aya_train.tasks import eval_tasks
from tests.judging.shared_data import ARENA, needs


def write(path, rows):
  path.write_text(''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows))
  return path


def test_predictions_of_eval(tmp_path):
  for task in ('x.tha.p', 'x.amh.p'):
    found = [
      eval_tasks.Prediction(
        task, i, f'{task} {i}', ['right', 'also'], 'said', fields={'id': f'r{i}', 'language': 'tha'}
      ).to_dict()
      for i in (1, 0)
    ]
    (tmp_path / 'predictions').mkdir(exist_ok=True)
    write(tmp_path / f'predictions/{task}.jsonl', found)
  rows = system_answers.read(tmp_path)
  assert [(r.task, r.index, r.id) for r in rows[:2]] == [('x.amh.p', 1, 'r1'), ('x.amh.p', 0, 'r0')]
  assert rows[0].reference == 'right' and rows[0].language == 'tha' and rows[0].text == 'said'


def test_other_shapes(tmp_path):
  infer = write(
    tmp_path / 'i.jsonl', [{'inputs': 'a', 'prediction': ''}, {'inputs': 'b', 'prediction': 'ไทย'}]
  )
  assert [(r.index, r.id, r.text) for r in system_answers.read(infer)] == [
    (0, None, ''),
    (1, None, 'ไทย'),
  ]
  array = tmp_path / 'a.json'
  array.write_text(json.dumps([{'instruction': 'q', 'output': 'x', 'id': 7}]))
  assert system_answers.read(array)[0].id == '7'
  packed = tmp_path / 'c.csv.gz'
  packed.write_bytes(gzip.compress(b'question,said\n"a, b","x\ny"\n'))
  [row] = system_answers.read(packed, {'answer': 'said'})
  assert (row.inputs, row.text) == ('a, b', 'x\ny')
  samples = write(tmp_path / 's.jsonl', [{'inputs': 'a', 'samples': ['x', 'y'], 'id': 1}])
  assert [(r.sample, r.text) for r in system_answers.read(samples)] == [(0, 'x'), (1, 'y')]
  again = write(tmp_path / 'r.jsonl', [{'inputs': 'a', 'prediction': t, 'id': 1} for t in 'xyz'])
  assert [r.sample for r in system_answers.read(again)] == [0, 1, 2]
  mixed = [{'inputs': 'a', 'prediction': f'{k}', 'index': 0, 'sample': k} for k in (1, 0)]
  numbered = write(tmp_path / 'n.jsonl', mixed)
  assert [(r.sample, r.text) for r in system_answers.read(numbered)] == [(1, '1'), (0, '0')]
  half = tmp_path / 'h.jsonl'
  half.write_text('{"inputs": "a", "prediction": "\\ud83d!"}\n')
  assert system_answers.read(half)[0].text == '?!'


def test_files_are_read_as_every_other_file_of_a_user(tmp_path):
  row = {'inputs': 'a\u2028b', 'prediction': 'ไทย'}
  text = json.dumps(row, ensure_ascii=False) + '\n'
  forms = {
    'utf16.jsonl': text.encode('utf-16'),
    'marked.jsonl': text.encode('utf-8-sig'),
    'x.jsonl.xz': lzma.compress(text.encode()),
    'wide.csv': 'inputs,prediction\r\na\u2028b,ไทย\r\n'.encode('utf-16'),
  }
  for name, content in forms.items():
    (tmp_path / name).write_bytes(content)
    [found] = system_answers.read(tmp_path / name)
    assert (found.inputs, found.text) == ('a\u2028b', 'ไทย'), name
  (tmp_path / 'answers').write_text(text)
  assert system_answers.read(tmp_path / 'answers')[0].text == 'ไทย'
  (tmp_path / 'p.txt').write_bytes('a\u2028b\r\n\r\nไทย'.encode('utf-16'))
  found = system_answers.prompts(tmp_path / 'p.txt')
  assert [(p.index, p.inputs) for p in found] == [(0, 'a\u2028b'), (1, 'ไทย')]


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'inputs,inputs,prediction\na,b,c\n', r"columns \['inputs'\] are there twice"),
    (b'inputs,prediction\na,b,c\n', r'row 1 \(line 2\): 3 fields'),
    (b'inputs,prediction\n"a,b\n', 'never closed'),
  ],
)
def test_a_damaged_table_is_refused(tmp_path, content, message):
  (tmp_path / 'x.csv').write_bytes(content)
  with pytest.raises(system_answers.AnswersError, match=message):
    system_answers.read(tmp_path / 'x.csv')


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'{"inputs": "a", "prediction": "b"}\n{"inputs"', 'ends in the middle of a record, at row 2'),
    (b'{"inputs"\n{"inputs": "a", "prediction": "b"}\n', 'row 1: Expecting'),
    (b'{"inputs": "a"}\n', 'row 1 has no column of an answer'),
    (b'{"prediction": "a"}\n', 'row 1 has no column of a prompt'),
    (b'\n\n', 'has no rows'),
    (b'{"inputs": "\xff"}\n', 'row 1: byte 0xff'),
    (b'{"inputs": "a", "inputs": "c", "prediction": "b"}\n', r"row 1: the names \['inputs'\]"),
    (b'{"messages": [{"role": "user", "content": "q"}]}\n', 'must be the assistant'),
    (b'{"inputs": "a", "prediction": "b", "index": "one"}\n', 'index must be a whole number'),
  ],
)
def test_a_bad_row_is_one_message_with_its_place(tmp_path, content, message):
  path = tmp_path / 'x.jsonl'
  path.write_bytes(content)
  with pytest.raises(system_answers.AnswersError, match=message):
    system_answers.read(path)


def rows(*pairs, **more):
  return [
    system_answers.Answer('', i, identity, '', f'q{identity}', text, **more)
    for i, (identity, text) in enumerate(pairs)
  ]


def test_pairs_are_joined_by_id_whatever_their_order():
  joined = system_answers.join(rows(('1', 'a'), ('2', 'b')), rows(('3', 'x'), ('2', 'y')))
  assert [(a.text, b.text) for a, b in joined.pairs] == [('b', 'y')]
  assert (joined.only_a, joined.only_b, joined.other_prompts) == (1, 1, 0)


def test_pairs_are_joined_by_index_where_an_id_is_missing():
  joined = system_answers.join(rows((None, 'a'), ('2', 'b')), rows(('3', 'x'), ('2', 'y')))
  assert [(a.text, b.text) for a, b in joined.pairs] == [('a', 'x'), ('b', 'y')]
  assert joined.other_prompts == 1
  with pytest.raises(system_answers.AnswersError, match='no row is in both files'):
    system_answers.join(rows(('1', 'a')), rows(('2', 'a')))


def test_all_samples_of_a_prompt_are_picked_together():
  found = [
    system_answers.Answer('', 0, f'{i}', '', 'q', f'{i}.{k}') for i in range(9) for k in 'abc'
  ]
  kept = system_answers.picked_prompts(found, 4, 0)
  assert len(kept) == 12 and len({row.id for row in kept}) == 4
  assert kept == system_answers.picked_prompts(found, 4, 0)


def test_systems_are_named_after_what_differs():
  assert system_answers.system_names(['runs/a/eval', 'runs/b/eval']) == ['a', 'b']
  assert system_answers.system_names(['x/aya.jsonl.gz', 'y/mt0.jsonl']) == ['aya', 'mt0']
  with pytest.raises(system_answers.AnswersError, match='--names'):
    system_answers.system_names(['runs/a', 'runs/a'])


@needs(ARENA)
def test_real_answers_of_two_models():
  a, b = (
    system_answers.read(ARENA / f'model_answer/{n}.jsonl')
    for n in ('gpt-4-0613', 'gpt-3.5-turbo-0125')
  )
  joined = system_answers.join(a, b)
  assert len(joined.pairs) == 500
  assert (joined.only_a, joined.only_b, joined.other_prompts) == (0, 0, 0)
  prompts = system_answers.prompts(ARENA / 'question.jsonl')
  by_id = {p.id: p.inputs for p in prompts}
  assert all(by_id[x.id] == x.inputs for x, _ in joined.pairs)


def test_bytes_and_dates_of_a_table_are_text(tmp_path):
  path = tmp_path / 'x.parquet'
  columns = {'inputs': [b'gr\xc3\xbcn'], 'answer': ['a'], 'targets': [datetime.date(2020, 1, 2)]}
  pq.write_table(pa.table(columns), path)
  (answer,) = system_answers.read(path)
  assert (answer.inputs, answer.reference) == ('grün', '2020-01-02')
  pq.write_table(pa.table({'inputs': [b'\xff'], 'answer': ['a']}), path)
  with pytest.raises(system_answers.AnswersError, match=r'row 1 has bytes that are no text'):
    system_answers.read(path)


def test_nan_of_pandas_is_nothing(tmp_path):
  path = tmp_path / 'x.jsonl'
  path.write_text('{"inputs": "a", "prediction": NaN}\n')
  with pytest.raises(system_answers.AnswersError, match='row 1 has no column of an answer'):
    system_answers.read(path)


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('{"inputs": " "}', 'row 1 has an empty prompt'),
    ('{"body": "a"}', r"no column of a prompt: .*; it has \['body'\]$"),
  ],
)
def test_prompts_that_are_none(tmp_path, line, message):
  path = tmp_path / 'x.jsonl'
  path.write_text(line + '\n')
  with pytest.raises(system_answers.AnswersError, match=message):
    system_answers.prompts(path)


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ('{"inputs": "a \\ud83d"}', 'row 2 has half of a surrogate pair in its prompt'),
    ('{"inputs": ["a", "\\udc00"]}', 'row 2 has half of a surrogate pair in its prompt'),
    ('{"inputs": "\u200b"}', 'row 2 has an empty prompt'),
    ('{"inputs": ["a", ["b"]]}', r"row 2: a turn of its prompt must be a text, .*got \['b'\]"),
    ('{"inputs": [{"content": 3}]}', 'row 2: a turn of its prompt must be a text, .*got 3'),
  ],
)
def test_prompts_that_are_no_text_are_refused_by_row(tmp_path, row, message):
  path = tmp_path / 'p.jsonl'
  path.write_text('{"inputs": ["one", {"content": "two"}]}\n' + row + '\n')
  with pytest.raises(system_answers.AnswersError, match=message):
    system_answers.prompts(path)


def test_a_value_that_cannot_be_read_is_refused_where_it_is_an_answer(tmp_path):
  when = pa.array([2**62], pa.timestamp('us'))
  path = tmp_path / 'x.parquet'
  pq.write_table(pa.table({'inputs': ['q'], 'answer': ['a'], 'when': when}), path)
  assert [answer.text for answer in system_answers.read(path)] == ['a']
  pq.write_table(pa.table({'inputs': ['q'], 'answer': when}), path)
  with pytest.raises(system_answers.AnswersError, match="row 1: the column 'answer' cannot be"):
    system_answers.read(path)

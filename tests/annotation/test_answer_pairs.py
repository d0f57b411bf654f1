import json

import pytest

from aya_train.annotation import answer_pairs


def write(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows))
  return str(path)


def prediction(index, answer, task='open.yor', **more):
  return {'task': task, 'index': index, 'inputs': f'p{index}', 'prediction': answer, **more}


def test_evaluations_are_joined_by_task_and_place_in_any_order(tmp_path):
  for name, order in (('a', [0, 1, 2]), ('b', [2, 0, 1])):
    rows = [prediction(i, f'{name}{i}') for i in order]
    write(tmp_path / name / 'predictions/open.yor.jsonl', rows)
  results = {'tasks': {'open.yor': {'about': {'name': 'open.yor', 'language': 'yor'}}}}
  (tmp_path / 'a/results.json').write_text(json.dumps(results))
  found = answer_pairs.read({'x': str(tmp_path / 'a'), 'y': str(tmp_path / 'b')})
  assert [(f.inputs, f.answers) for f in found] == [
    (f'p{i}', {'x': f'a{i}', 'y': f'b{i}'}) for i in range(3)
  ]
  assert {f.language for f in found} == {'yor'}


def test_ids_count_before_places(tmp_path):
  a = write(tmp_path / 'a.jsonl', [prediction(i, 'x', fields={'id': f'n{i}'}) for i in range(2)])
  rows = [{**prediction(1 - i, f'y{i}', id=f'n{i}'), 'inputs': f'p{i}'} for i in range(2)]
  b = write(tmp_path / 'b.jsonl', rows)
  found = answer_pairs.read({'a': a, 'b': b})
  assert [(f.id, f.answers['b']) for f in found] == [('n0', 'y0'), ('n1', 'y1')]


def test_answers_of_infer_are_joined_by_their_prompts_which_may_come_twice(tmp_path):
  a = write(tmp_path / 'a.jsonl', [{'inputs': 'p', 'prediction': x} for x in 'ab'])
  b = write(tmp_path / 'b.jsonl', [{'inputs': p, 'prediction': x} for p, x in ('qz', 'px', 'py')])
  found = answer_pairs.read({'a': a, 'b': b})
  assert [tuple(f.answers.values()) for f in found] == [('a', 'x'), ('b', 'y')]
  assert len({f.index for f in found}) == 2


def test_other_words_of_a_prompt_are_refused_by_file_and_line(tmp_path):
  a = write(tmp_path / 'a.jsonl', [prediction(0, 'x'), prediction(1, 'x')])
  b = write(tmp_path / 'b.jsonl', [prediction(0, 'x'), {**prediction(1, 'x'), 'inputs': 'p1?'}])
  with pytest.raises(ValueError, match=r"a.jsonl, row 2 and .*b.jsonl, row 2 .*'p1' and 'p1\?'"):
    answer_pairs.read({'a': a, 'b': b})


def test_nothing_in_common_no_answers_and_no_file_are_told(tmp_path):
  a = write(tmp_path / 'a.jsonl', [prediction(0, 'x', task='s')])
  b = write(tmp_path / 'b.jsonl', [prediction(0, 'x', task='t')])
  with pytest.raises(ValueError, match='no prompt was answered by all'):
    answer_pairs.read({'a': a, 'b': b})
  with pytest.raises(ValueError, match=r"no answers of \['u'\]; it has \['s'\]"):
    answer_pairs.read({'a': a, 'b': b}, ['u'])
  with pytest.raises(FileNotFoundError, match=r'no file of answers at .*c.jsonl'):
    answer_pairs.read({'a': a, 'b': str(tmp_path / 'c.jsonl')})
  (tmp_path / 'd').mkdir()
  with pytest.raises(FileNotFoundError, match='has anything been evaluated there'):
    answer_pairs.read({'a': a, 'b': str(tmp_path / 'd')})
  e = write(tmp_path / 'e.jsonl', [{'inputs': 'p', 'answers': 3}])
  with pytest.raises(ValueError, match=r'e.jsonl, row 1 has no column of an answer'):
    answer_pairs.read({'a': a, 'b': e})


def test_a_table_joins_predictions_and_of_several_samples_the_first_counts(tmp_path, caplog):
  (tmp_path / 'a.csv').write_text('id,question,answer,lang\n1,"p, q",x,amh\n2,r,y,amh\n')
  rows = [{'id': i, 'inputs': p, 'samples': ['1', '2']} for i, p in ((2, 'r'), (1, 'p, q'))]
  b = write(tmp_path / 'b.jsonl', rows)
  found = answer_pairs.read({'a': str(tmp_path / 'a.csv'), 'b': b})
  assert [(f.id, f.language, f.answers) for f in found] == [
    ('1', 'amh', {'a': 'x', 'b': '1'}),
    ('2', 'amh', {'a': 'y', 'b': '1'}),
  ]
  assert '2 further answers to the same prompts are left out' in caplog.text

"""Tables of answers that people rated one by one become verdicts about every two."""

import csv
import json

import pytest

from aya_train.annotation import exports, pair_verdicts, rated_answers
from aya_train.cli import main
from tests.report import judged_answers

COLUMNS = ('id', 'model', 'output', 'good', 'lang')


def table(path, rows, columns=COLUMNS):
  with path.open('w', encoding='utf-8', newline='') as file:
    csv.writer(file).writerows([columns, *rows])
  return path


def verdicts(path, **more):
  return exports.read([path], rated_answers.Rating(**{'column': 'good', **more})).verdicts


def test_the_better_rated_answer_wins_and_equal_ones_tie(tmp_path):
  rows = [
    *[('p1', 'x', 'ใช่', '4', 'th'), ('p1', 'y', 'ไม่', '2.5', 'th'), ('p1', 'z', 'x', '4.0', 'th')],
    *[('p2', 'x', 'a', '', 'yo'), ('p2', 'y', 'b', '1', 'yo'), ('p3', 'y', 'c', 'True', 'yo')],
  ]
  path = table(tmp_path / 't.csv', rows)
  found = verdicts(path)
  assert [(v.id, v.systems, v.verdict, v.language) for v in found] == [
    ('p1', ('x', 'y'), 'A>B', 'th'),
    ('p1', ('x', 'z'), 'A=B', 'th'),
    ('p1', ('y', 'z'), 'B>A', 'th'),
  ]
  assert {v.by for v in found} == {pair_verdicts.PERSON} and {v.first_won for v in found} == {None}
  assert [v.verdict for v in verdicts(path, lowest_best=True)] == ['B>A', 'A=B', 'A>B']


def test_ratings_of_other_people_are_compared_by_themselves(tmp_path):
  named = [
    *[('p', 'x', 'a', 1, 'yo', 'Ada'), ('p', 'y', 'b', 2, 'yo', 'Ada')],
    *[
      ('p', 'y', 'b', 5, 'yo', 'Bo'),
      ('p', 'x', 'a', 9, 'yo', 'Bo'),
      ('p', 'x', 'a', 9, 'yo', 'C'),
    ],
  ]
  found = verdicts(table(tmp_path / 't.csv', named, (*COLUMNS, 'annotator')))
  assert [(v.annotator, v.verdict) for v in found] == [('Ada', 'B>A'), ('Bo', 'A>B')]
  nameless = [row[:5] for row in named[:4]]
  found = verdicts(table(tmp_path / 'u.csv', nameless))
  assert [(v.annotator, v.verdict) for v in found] == [('rating 1', 'B>A'), ('rating 2', 'A>B')]


def test_ratings_of_a_rubric_lie_in_a_file_for_each_system(tmp_path):
  for system, value in (('mt0', 2), ('aya', 4)):
    row = {'id': '1', 'inputs': 'Q', 'system': system, 'answer': system, 'value': value}
    row |= {'by': 'judge', 'annotator': 'judge-1', 'language': 'swa'}
    (tmp_path / system).mkdir()
    (tmp_path / system / 'ratings.jsonl').write_text(json.dumps(row) + '\n')
    nameless = {name: row[name] for name in ('id', 'answer', 'value')}
    (tmp_path / f'{system}-2.jsonl').write_text(json.dumps(nameless) + '\n')
  for ending, by, names in (
    ('', 'judge', ('aya', 'mt0')),
    ('-2.jsonl', 'human', ('aya-2', 'mt0-2')),
  ):
    files = [tmp_path / f'{system}{ending}' for system in ('mt0', 'aya')]
    [v] = exports.read(files, rated_answers.Rating('value')).verdicts
    assert (v.by, v.systems, v.score_of(names[0])) == (by, names, 1.0)


def test_rows_of_any_form_and_other_names_are_read_beside_verdicts(tmp_path):
  rows = [
    {'frage': 'Q', 'sys': s, 'antwort': s * 3, 'good': n} for s, n in (('x', True), ('y', False))
  ]
  lines = tmp_path / 'r.jsonl'
  lines.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  names = {'inputs': 'frage', 'system': 'sys', 'answer': 'antwort'}
  [v] = verdicts(lines, columns=names)
  assert (v.inputs, v.answer_a, v.verdict) == ('Q', 'xxx', 'A>B')
  both = tmp_path / 'v.jsonl'
  both.write_text(json.dumps({**v.to_dict(), 'annotator': 'Ada'}) + '\n')
  rating = rated_answers.Rating('good', columns=names)
  assert len(exports.read([both, lines], rating).verdicts) == 2
  flat = {k: '' if value in (None, []) else value for k, value in v.to_dict().items()}
  as_csv = table(tmp_path / 'v.csv', [[*map(str, flat.values())]], list(flat))
  assert exports.read([as_csv]).verdicts == [v]


@pytest.mark.parametrize(
  ('rows', 'more', 'told'),
  [
    ([('p', 'x', 'a', 'fine', '')], {}, r't.csv, row 1: the rating in .good. is a number.*fine'),
    (
      [('p', 'x', 'a', '1', '')],
      {'column': 'bad'},
      r"row 1 has no column 'bad' \(--rating\)",
    ),
    ([('p', 'x', 'a', '1', '')], {}, r'no prompt has answers of two systems.*1 rated answers of'),
    ([('', 'x', 'a', '1', '')], {}, r"row 1 has no id: one of \['id'.*--columns id=NAME"),
    ([('p', '', 'a', '1', '')], {}, r'row 1 has no system: one of'),
    ([('p', 'x', 'a', '1', '')], {'columns': {'system': 'bot'}}, "row 1 has no column 'bot'"),
    (
      [('p', 'x', 'a', '1', '')],
      {'columns': {'who': 'x'}},
      r"no column \['who'\]; those of",
    ),
  ],
)
def test_what_is_wrong_with_a_table_is_named(tmp_path, rows, more, told):
  path = table(tmp_path / 't.csv', rows)
  with pytest.raises(ValueError, match=told):
    verdicts(path, **more)


def test_the_released_table_gives_the_figures_of_its_pairs():
  if not judged_answers.TATA.exists():
    pytest.skip(f'{judged_answers.TATA} is not there')
  rating = rated_answers.Rating('interpretable')
  found = exports.read([judged_answers.TATA], rating).verdicts
  pair = [v for v in found if v.systems == ('mt5_small', 'mt5_xxl')]
  expected = judged_answers.tata()
  assert len(pair) == len(expected) == 1530
  assert sum(v.score_of('mt5_xxl') for v in pair) == sum(v.score_of('mt5_xxl') for v in expected)
  assert {v.systems for v in found} > {('mt5_xxl', 'reference')} and len({*map(id, found)}) > 9000


OTHERS = {
  'answers.jsonl': ('{"id": 1, "inputs": "Q", "prediction": "A"}', 'annotate pairs THESE OTHERS'),
  'chat.jsonl': ('{"uid": "1", "model": "m", "messages": [], "tstamp": 1.7e9}', 'judge THESE'),
  'rated.tsv': ('id\tmodel\toutput\tscore\n1\tx\ta\t1\n1\ty\tb\t2', r"--rating says .*\['score'\]"),
  'ratings.jsonl': (
    '{"id": "1", "system": "x", "answer": "a", "value": 1}\n'
    '{"id": "1", "system": "y", "answer": "b", "value": 0}',
    r"columns of numbers are \['value'\]",
  ),
  'pairs_ara.html': ('<!doctype html>', 'its Export button writes'),
  'pairs.label_studio.xml': ('<View/>', 'what Label Studio exports'),
  'summary.json': ('{"rows": 3}', 'verdicts.jsonl beside it'),
  'rows.jsonl': (
    '{"inputs": "Q", "targets": "A", "decision": "edited"}',
    'report data --annotations',
  ),
  'other.csv': ('a,b\n1,2', r"its rows have \['a', 'b'\]\. Give exports"),
  'list.json': ('[{"a": 1}]', r"its rows have \['a'\]"),
}


@pytest.mark.parametrize('name', OTHERS)
def test_a_file_of_another_kind_says_what_it_is_and_what_to_do(tmp_path, capsys, name):
  text, told = OTHERS[name]
  path = tmp_path / name
  path.write_text(text + '\n')
  with pytest.raises(ValueError, match=rf'{name}: .*{told}'):
    exports.read([path])
  if name == 'answers.jsonl':
    assert main.main(['report', 'preference', str(path)]) == 1
    assert capsys.readouterr().err.count('\n') == 1


def test_columns_without_a_rating_are_refused(tmp_path, capsys):
  path = table(tmp_path / 't.csv', [('p', 'x', 'a', '1', '')])
  assert main.main(['report', 'preference', str(path), '--columns', 'id=id']) == 1
  assert 'give --rating' in capsys.readouterr().err

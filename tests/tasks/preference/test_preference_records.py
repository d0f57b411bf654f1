"""Comparisons of each form of release."""

import collections
import pathlib

import pytest

from aya_train.tasks.building import records
from aya_train.tasks.building.read_report import RowProblemError
from aya_train.tasks.preference import preference_records
from aya_train.tasks.preference.preference_records import Comparison

SHARED = pathlib.Path(__file__).parents[3] / '../shared/data'


ASKED = {'role': 'prompter', 'text': 'q'}
RANKED = {'role': 'assistant', 'text': 'a', 'rank': 0}


def of(form, record):
  return list(preference_records.READERS[form](record))


def test_a_table_of_pairs():
  row = {'prompt': 'p', 'chosen': 'c', 'rejected': 'r'}
  assert of('table', row) == [Comparison('p', 'c', 'r')]


@pytest.mark.parametrize(('label', 'good'), [(True, True), ('0', False), (1, True), ('bad', False)])
def test_a_table_of_answers_judged_alone(label, good):
  wanted = Comparison('p', 'a', '') if good else Comparison('p', '', 'a')
  assert of('table', {'prompt': 'p', 'answer': 'a', 'label': label}) == [wanted]
  assert of('table', {'prompt': 'p', 'completion': 'a', 'label': label}) == [wanted]


def messages(*texts):
  roles = ('user', 'assistant')
  return [{'role': roles[i % 2], 'content': text} for i, text in enumerate(texts)]


def test_answers_that_are_lists_of_messages():
  row = {'chosen': messages('q', 'c'), 'rejected': messages('q', 'r')}
  assert of('table', row) == [Comparison('q', 'c', 'r')]
  row = {'chosen': messages('q', 'a', 'q2', 'c'), 'rejected': messages('q', 'a', 'q2', 'r')}
  assert of('table', row) == [Comparison('User: q\n\nAssistant: a\n\nUser: q2', 'c', 'r')]
  row = {
    'prompt': messages('q'),
    'chosen': [{'role': 'assistant', 'content': 'c'}],
    'rejected': [{'role': 'assistant', 'content': 'r'}],
  }
  assert of('table', row) == [Comparison('q', 'c', 'r')]
  row = {'prompt': messages('q'), 'completion': messages('q', 'a')[1:], 'label': False}
  assert of('table', row) == [Comparison('q', '', 'a')]
  row = {'completion': messages('q', 'a', 'q2', 'b'), 'label': True}
  assert of('table', row) == [Comparison('User: q\n\nAssistant: a\n\nUser: q2', 'b', '')]


@pytest.mark.parametrize('role', ['user', 'system', 'tool'])
def test_who_answers_is_the_assistant(role):
  last = {'role': role, 'content': 'r'}
  for row in (
    {'prompt': 'q', 'chosen': messages('q', 'c'), 'rejected': [messages('q')[0], last]},
    {'prompt': 'q', 'completion': [last], 'label': True},
  ):
    with pytest.raises(RowProblemError, match=f"ends with a message of '{role}', expected the"):
      of('table', row)


@pytest.mark.parametrize(
  ('form', 'record', 'message'),
  [
    (
      'table',
      {'prompt': 'p', 'chosen': '\u200b', 'rejected': 'r'},
      'chosen is empty',
    ),
    ('table', {'prompt': 'p', 'chosen': 'c'}, 'expected prompt, chosen and rejected'),
    ('table', {'prompt': 'p', 'chosen': 'c', 'rejected': ' c'}, 'the same text'),
    ('table', {'prompt': '', 'chosen': 'c', 'rejected': 'r'}, 'empty_inputs'),
    ('table', {'prompt': 'p', 'chosen': 'c', 'rejected': ''}, 'rejected is empty'),
    ('table', {'prompt': 'p', 'answer': 'a', 'label': 'maybe'}, "label 'maybe'"),
    ('table', {'chosen': messages('q', 'c'), 'rejected': messages('x', 'r')}, 'differ before'),
    ('hh_rlhf', {'chosen': 'no turns', 'rejected': 'no turns'}, 'does not end with an answer'),
    ('oasst', {'tree': 1}, 'expected a tree'),
    ('oasst', {'prompt': {**ASKED, 'replies': ['x']}}, 'replies of .* are no list of messages'),
    ('oasst', {'prompt': {**ASKED, 'replies': [RANKED, RANKED | {'rank': '1'}]}}, "rank '1'"),
    ('ultrafeedback', {'instruction': 'p', 'completions': None}, 'completions is no list'),
    ('ultrafeedback', {'instruction': 'p', 'completions': ['x']}, 'completions is no list'),
    ('verdicts', {'answer_a': 'a', 'answer_b': 'b', 'verdict': 1}, 'verdict 1'),
    ('verdicts', {'inputs': 'p'}, 'expected answer_a'),
  ],
)
def test_records_that_hold_no_comparison_are_refused(form, record, message):
  with pytest.raises(RowProblemError, match=message):
    of(form, record)


def test_hh_rlhf():
  before = '\n\nHuman: q\n\nAssistant: a\n\nHuman: and: q2\n\nAssistant:'
  record = {'chosen': f'{before} c', 'rejected': f'{before} r'}
  wanted = 'User: q\n\nAssistant: a\n\nUser: and: q2'
  assert of('hh_rlhf', record) == [Comparison(wanted, 'c', 'r')]


def test_verdicts_are_about_the_systems_and_ties_say_nothing():
  record = {'inputs': 'p', 'answer_a': 'x', 'answer_b': 'y', 'order': 'ba'}
  assert of('verdicts', {**record, 'verdict': 'A>B'}) == [Comparison('p', 'x', 'y')]
  assert of('verdicts', {**record, 'verdict': 'B>>A'}) == [Comparison('p', 'y', 'x')]
  assert of('verdicts', {**record, 'verdict': 'A=B'}) == []
  assert of('verdicts', {**record, 'verdict': None}) == []


def test_ultrafeedback_takes_the_best_and_the_worst_by_score():
  scores = {'x': 3.0, 'y': 8.5, 'z': 'N/A', 'w': 1.0, 'v': 'nan', 'u': float('inf')}
  completions = [{'response': k, 'overall_score': v} for k, v in scores.items()]
  record = {'instruction': 'p', 'completions': completions}
  assert of('ultrafeedback', record) == [Comparison('p', 'y', 'w')]
  level = [{'response': k, 'overall_score': 2.0} for k in 'xy']
  assert of('ultrafeedback', {'instruction': 'p', 'completions': level}) == []


def test_oasst_takes_the_best_ranked_answer_against_each_worse_one():
  def reply(text, rank, **more):
    return {'role': 'assistant', 'text': text, 'rank': rank, 'replies': [], **more}

  deep = {'role': 'prompter', 'text': 'q2', 'replies': [reply('d', 1), reply('e', 0)]}
  tree = {
    'prompt': {
      'role': 'prompter',
      'text': 'q',
      'replies': [
        reply('a', 1),
        reply('b', 0, replies=[deep]),
        reply('c', 2),
        reply('b ', 2),  # says the same, and an empty one says nothing: no comparison with either
        reply(' ', 2),
        reply('gone', 3, deleted=True),
        reply('unranked', None),
      ],
    }
  }
  assert of('oasst', tree) == [
    Comparison('q', 'b', 'a'),
    Comparison('q', 'b', 'c'),
    Comparison('User: q\n\nAssistant: b\n\nUser: q2', 'e', 'd'),
  ]


@pytest.mark.skipif(not SHARED.is_dir(), reason='the real files are not beside the project')
@pytest.mark.parametrize(
  ('form', 'file'),
  [
    ('oasst', 'oasst_en_100/en_100_tree.jsonl'),
    ('hh_rlhf', 'hh_rlhf/harmless-base/test.jsonl.gz'),
  ],
)
def test_the_real_files_are_read(form, file):
  kinds, found = collections.Counter(), []
  for _, record in records.read(SHARED / file):
    try:
      found += of(form, record)
    except RowProblemError as problem:
      kinds[problem.kind] += 1
  assert len(found) > 100
  assert sum(kinds.values()) < 0.01 * len(found), kinds

"""Layouts of retrieval data: pairs, negatives, and what is refused with its place."""

import pytest

from aya_train.tasks.retrieval import pair_layouts, text_pairs
from aya_train.tasks.retrieval.text_pairs import PairError, TextPair


def rows(*records):
  return [(f'f row {i + 1}', record) for i, record in enumerate(records)]


def texts(pairs):
  return [(pair.query, pair.target, pair.negatives) for pair in pairs]


@pytest.mark.parametrize(
  'record',
  [
    {'query': 'q', 'positive': 'p', 'negatives': ['a', 'b']},
    {'query': 'q', 'pos': ['p'], 'neg': ['a', 'b']},
    {'anchor': 'q', 'positive': 'p', 'negative_1': 'a', 'negative_2': 'b'},
    {'question': 'q', 'answer': {'text': 'p'}, 'negative': ['a', {'title': '', 'text': 'b'}]},
  ],
)
def test_usual_columns_are_known(record):
  assert texts(pair_layouts.of_columns(rows(record))) == [('q', 'p', ('a', 'b'))]


def test_columns_may_be_named_and_several_positives_are_several_pairs():
  record = {'frage': 'q', 'gut': ['p', 'r'], 'schlecht': ['a', 'r'], 'thema': 7}
  found = list(pair_layouts.of_columns(rows(record), 'frage', 'gut', 'schlecht', 'thema'))
  assert texts(found) == [('q', 'p', ('a',)), ('q', 'r', ('a',))]
  assert {pair.group for pair in found} == {'7'}


def test_sets_of_texts_belong_to_their_first():
  found = texts(pair_layouts.of_columns(rows({'set': ['q', 'a', 'b']})))
  assert found == [('q', 'a', ()), ('q', 'b', ())]


def test_a_question_of_a_community_is_title_and_body():
  record = {'title': 'How? ', 'body': 'In short.', 'answers': [{'text': 'So.'}, {'text': 'Thus.'}]}
  found = texts(pair_layouts.of_community(rows(record)))
  assert found == [('How? In short.', 'So.', ()), ('How? In short.', 'Thus.', ())]


def test_passages_of_dpr_and_tevatron():
  tevatron = {
    'query': 'q',
    'positive_passages': [{'docid': '1', 'title': 'T', 'text': 'p'}],
    'negative_passages': [{'docid': '2', 'title': '', 'text': 'n'}],
  }
  dpr = {
    'question': 'q',
    'positive_ctxs': [{'title': 'T', 'text': 'p'}, {'title': 'U', 'text': 'o'}],
    'hard_negative_ctxs': [{'title': '', 'text': 'n'}],
  }
  empty = {'question': 'q', 'positive_ctxs': [], 'hard_negative_ctxs': []}
  one = pair_layouts.of_passages(rows(tevatron), 'query', 'positive_passages', 'negative_passages')
  other = pair_layouts.of_passages(
    rows(dpr, empty), 'question', 'positive_ctxs', 'hard_negative_ctxs'
  )
  assert texts(one) == texts(other) == [('q', 'T p', ('n',))]
  unasked = rows({**tevatron, 'query': None})
  nothing = pair_layouts.of_passages(unasked, 'query', 'positive_passages', 'negative_passages')
  with pytest.raises(PairError, match='empty'):
    list(text_pairs.checked(nothing))


def test_judgements_are_joined_by_id_and_no_right_text_is_a_negative():
  corpus = {'1': 'one', '2': 'two', '3': 'three', '4': 'four'}
  asked = []

  def of(ids):
    asked.append(ids)
    return {i: corpus[i] for i in ids if i in corpus}

  judgements = [('f line 1', 'a', '1'), ('f line 2', 'a', '2')]
  found = list(pair_layouts.of_judgements(judgements, {'a': 'q'}, of, {'a': ['2', '3']}))
  assert texts(found) == [('q', 'one', ('three',)), ('q', 'two', ('three',))]
  assert asked == [{'1', '2', '3'}]
  corpus['5'] = 'two'  # a right text once more
  found = list(pair_layouts.of_judgements(judgements, {'a': 'q'}, of, {'a': ['5', '3']}))
  assert texts(found) == [('q', 'one', ('three',)), ('q', 'two', ('three',))]
  with pytest.raises(PairError, match="f line 1: no query has the id 'b'"):
    list(pair_layouts.of_judgements([('f line 1', 'b', '1')], {}, of, {}))
  with pytest.raises(PairError, match="f line 1: no text of the corpus has the id '9'"):
    list(pair_layouts.of_judgements([('f line 1', 'a', '9')], {'a': 'q'}, of, {}))


def test_lines_of_tatoeba():
  lines = [
    'Hi.\tHujambo.',
    'Hi.\tHujambo.\tCC BY',
    'eng\tswh\tHi.\tHujambo.',
    '1\tHi.\t2\tHujambo.',
  ]
  found = texts(pair_layouts.of_lines((f'f line {i}', x) for i, x in enumerate(lines, 1)))
  assert found == [('Hi.', 'Hujambo.', ())] * 4
  with pytest.raises(PairError, match='f line 1: 1 fields'):
    list(pair_layouts.of_lines([('f line 1', 'Hi.')]))


def test_parallel_files_must_be_of_one_length():
  one = [('a line 1', 'x'), ('a line 2', 'y')]
  assert texts(pair_layouts.of_parallel(one, one)) == [('x', 'x', ()), ('y', 'y', ())]
  with pytest.raises(PairError, match='a line 2: the other file ends before'):
    list(pair_layouts.of_parallel(one, one[:1]))


@pytest.mark.parametrize(
  ('record', 'said'),
  [
    ({'a': 'x'}, 'no column with the query'),
    ({'query': 'x'}, 'no column with the positive'),
    ({'query': 'x', 'positive': 3.5, 'negatives': [True]}, 'expected a text'),
    ({'query': 'x', 'positive': {'no': 1}}, '`text`'),
  ],
)
def test_what_is_no_pair_is_refused_with_its_place(record, said):
  with pytest.raises(PairError, match=said) as raised:
    list(pair_layouts.of_columns(rows(record)))
  assert str(raised.value).startswith('f row 1')


def test_empty_texts_are_refused_and_useless_negatives_left_out():
  pair = TextPair('f row 1', 'q', 'p', ('', '\u200b', 'p', 'n', 'n', *map(str, range(40))))
  (checked,) = text_pairs.checked([pair])
  assert checked.negatives[:2] == ('n', '0')
  assert len(checked.negatives) == text_pairs.MAX_NEGATIVES
  for changed, side in (
    ({'query': ' '}, 'query'),
    ({'query': '\u200b\ufeff'}, 'query'),
    ({'target': ''}, 'positive'),
  ):
    with pytest.raises(PairError, match=f'f row 1: the {side} is empty'):
      list(text_pairs.checked([pair._replace(**changed)]))


@pytest.mark.parametrize(
  ('row', 'said'),
  [
    ({'pairs': 'no'}, 'unknown layout'),
    ({'query': 'q'}, 'give `pairs` too'),
    ({'pairs': 'beir', 'query': 'q'}, "not for pairs = 'beir'"),
    ({'pairs': 'parallel'}, '`other`'),
    ({'pairs': 'columns', 'rank': True}, 'without `templates`'),
    ({'pairs': 'sentences', 'language_column': 'x'}, 'give `language`'),
  ],
)
def test_keys_that_do_not_go_together_are_refused(row, said):
  with pytest.raises(ValueError, match=said):
    pair_layouts.check_keys(row)


@pytest.mark.parametrize('column', ['query', 'positive', 'negatives'])
def test_halves_of_surrogate_pairs_are_refused_with_their_place(column):
  record = {'query': 'q', 'positive': 'p', 'negatives': 'n', column: 'x\ud800'}
  with pytest.raises(PairError, match=r'f row 2: half of a surrogate pair'):
    list(text_pairs.checked(pair_layouts.of_columns(rows({'query': 'q', 'positive': 'p'}, record))))

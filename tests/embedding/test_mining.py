"""Mining checked by brute force; what goes on is what was never interrupted."""

import json

import numpy as np
import pytest

from aya_train import lease, partitioning
from aya_train.embedding import hard_negatives, mining, text_rows

PASSAGE = {'docid': 'd2', 'title': 'T', 'text': 'y'}


@pytest.fixture(scope='module')
def pairs(corpus_file):
  rows = [json.loads(line) for line in corpus_file.read_text().splitlines()]
  found = [
    mining.Pair(f'q{i}', row['text'][:15] + f' {i}', [row['text']], [row['_id']])
    for i, row in enumerate(rows[::2])
  ]
  # Two positives, one known by its text alone: it is in the corpus under another id.
  found[3] = mining.Pair('q3', found[3].query, [rows[6]['text'], rows[7]['text']], ['d6'])
  # A query that is a passage, and finds it first of all.
  found[4] = mining.Pair('q4', rows[1]['text'], [rows[8]['text']], ['d8'])
  return found


def mine(encoder, pairs, corpus_file, output, **options):
  choice = hard_negatives.Choice(count=3, range_min=1, range_max=12)
  return mining.mine(
    encoder,
    pairs,
    text_rows.of_files([corpus_file]),
    output,
    **{
      'choice': choice,
      'partitioner': partitioning.one_device(),
      'prompts': ('query: ', 'passage: '),
      'how': mining.Search(tile=10),
      **options,
    },
  )


@pytest.fixture(scope='module')
def mined(encoder, pairs, corpus_file, tmp_path_factory):
  return mine(encoder, pairs, corpus_file, tmp_path_factory.mktemp('mined') / 'triples.jsonl')


def test_negatives_are_those_of_brute_force(encoder, pairs, corpus_file, mined):
  rows = [json.loads(line) for line in corpus_file.read_text().splitlines()]
  texts = [row['text'] for row in rows]
  corpus = encoder.vectors([f'passage: {text}' for text in texts])
  found = [json.loads(line) for line in mined.read_text().splitlines()]
  assert [record['query_id'] for record in found] == [pair.id for pair in pairs]
  some = 0
  for pair, record in zip(pairs, found, strict=True):
    query = encoder.vectors([f'query: {pair.query}'])[0]
    positive = min(encoder.vectors([f'passage: {t}' for t in pair.positives]) @ query)
    scores = corpus @ query
    order = np.argsort(-scores, kind='stable')
    known = {pair.query, *pair.positives}
    ranking = [i for i in order if rows[i]['_id'] not in pair.positive_ids]
    ranking = [i for i in ranking if texts[i] not in known][1:12]
    limit = 0.95 * positive if positive > 0 else positive
    wanted = [rows[i]['_id'] for i in ranking if scores[i] <= limit][:3]
    assert record['negative_ids'] == wanted
    assert not known & {*record['negatives']}
    assert record['negatives'] == [texts[int(own[1:])] for own in wanted]
    some += len(wanted) == 3
  assert some > 5


def test_a_passage_that_is_the_query_is_no_negative(encoder, pairs, corpus_file, tmp_path):
  everything = hard_negatives.Choice(count=500, range_max=500, max_share=None)
  mine(encoder, pairs, corpus_file, tmp_path / 'all.jsonl', choice=everything)
  found = [json.loads(line) for line in (tmp_path / 'all.jsonl').read_text().splitlines()]
  texts = [json.loads(line)['text'] for line in corpus_file.read_text().splitlines()]
  assert pairs[4].query in texts
  for pair, record in zip(pairs, found, strict=True):
    wanted = [text for text in texts if text not in {pair.query, *pair.positives}]
    assert sorted(record['negatives']) == sorted(wanted)


def test_what_goes_on_has_the_same_lines(encoder, pairs, corpus_file, mined, tmp_path):
  whole = mined.read_text()
  output = tmp_path / 'triples.jsonl'
  mine(encoder, pairs, corpus_file, output)
  lines = output.read_text().splitlines(keepends=True)
  output.write_text(''.join(lines[:5]) + lines[5][:20])  # killed in a line
  mine(encoder, pairs, corpus_file, output)
  assert output.read_text() == whole
  with pytest.raises(ValueError, match=r'count was 3, now 2'):
    mine(encoder, pairs, corpus_file, output, choice=hard_negatives.Choice(2, 1, 12))


@pytest.mark.heavy
def test_faiss_mines_the_same(encoder, pairs, corpus_file, mined, tmp_path):
  pytest.importorskip('faiss', reason='the extra `embed` is not installed')
  found = mine(encoder, pairs, corpus_file, tmp_path / 'x.jsonl', how=mining.Search(factory='Flat'))
  for ours, theirs in zip(*(path.read_text().splitlines() for path in (mined, found)), strict=True):
    scores = [json.loads(line)['negative_scores'] for line in (ours, theirs)]
    # Passages that are the same text have the same score, and any order.
    np.testing.assert_allclose(*scores, atol=1e-5)


def test_pairs_of_many_layouts(tmp_path):
  path = tmp_path / 'pairs.jsonl'
  rows = [
    {'query_id': 7, 'query': 'a', 'positive': 'x', 'positive_id': 'd1'},
    {
      'query_id': 8,
      'query': 'b',
      'positive_passages': [{'docid': 'd2', 'title': 'T', 'text': 'y'}],
    },
    {'query_id': 7, 'query': 'a', 'positive': 'z', 'positive_id': 'd3'},
  ]
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  assert mining.read_pairs(path) == [
    mining.Pair('7', 'a', ['x', 'z'], ['d1', 'd3']),
    mining.Pair('8', 'b', ['T y'], ['d2']),
  ]


def test_ids_that_are_not_known_are_none(tmp_path):
  path = tmp_path / 'pairs.jsonl'
  rows = [
    {'query_id': None, 'query': 'a', 'positive': 'x', 'positive_id': None},
    {'query_id': '', 'query': 'b', 'positive': ['y', 'z'], 'positive_id': ['d1', None]},
    {'query_id': None, 'query': 'c', 'positive': [{'docid': None, 'text': 'w'}]},
  ]
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  assert mining.read_pairs(path) == [
    mining.Pair('0', 'a', ['x'], []),
    mining.Pair('1', 'b', ['y', 'z'], ['d1']),
    mining.Pair('2', 'c', ['w'], []),
  ]


def test_rows_that_are_no_text_are_left_out_whole(tmp_path, caplog):
  path = tmp_path / 'pairs.jsonl'
  rows = [('a\ud800', 'x'), ('b', 'y\ud800'), ('c', 'z')]
  path.write_text(''.join(json.dumps({'query': q, 'positive': p}) + '\n' for q, p in rows))
  with pytest.raises(ValueError, match='row 1 has half of a surrogate pair'):
    mining.read_pairs(path)
  assert mining.read_pairs(path, bad_rows='leave_out') == [mining.Pair('0', 'c', ['z'], [])]
  assert '2 rows are left out' in caplog.text


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ({'query': ' ', 'positive': 'x'}, "row 1 has an empty 'query'"),
    ({'query': 'a', 'positive': []}, "row 1 has no text in 'positive'"),
    ({'query': 'a', 'positive': ''}, "row 1 has an empty 'positive'"),
    ({'query': '\ud83d', 'positive': 'x'}, 'row 1 has half of a surrogate pair'),
    ({'query': 'a', 'positive': '\ud83d'}, 'row 1 has half of a surrogate pair'),
    ({'id': '\ud83d', 'query': 'a', 'positive': 'x'}, 'row 1 has half .* in its id'),
    ({'query': 'a', 'positive': {'docid': '\ud83d', 'text': 'x'}}, 'row 1 has half .* in its id'),
    ({'q': 'a'}, r'row 1 has no column of .*--query_column names another'),
  ],
)
def test_bad_pairs_are_named(tmp_path, row, message):
  path = tmp_path / 'pairs.jsonl'
  path.write_text(json.dumps(row) + '\n')
  with pytest.raises(ValueError, match=message):
    mining.read_pairs(path)


def test_a_line_that_cannot_be_read_says_why(tmp_path):
  path = tmp_path / 'pairs.jsonl'
  path.write_text(
    '{"query": "a", "query": "b", "positive": "x"}\n{"query": "a", "positive": "x"}\n'
  )
  with pytest.raises(ValueError, match=r"row 1 cannot be read: the names \['query'\] stand twice"):
    mining.read_pairs(path)


def test_two_queries_with_one_id(tmp_path):
  path = tmp_path / 'pairs.jsonl'
  path.write_text(
    ''.join(json.dumps({'id': 1, 'query': q, 'positive': 'x'}) + '\n' for q in ('a', 'b'))
  )
  with pytest.raises(ValueError, match="two queries have the id '1': 'a' and 'b'"):
    mining.read_pairs(path)


def test_a_second_process_is_refused(encoder, pairs, corpus_file, tmp_path):
  with (
    lease.held(tmp_path / f'x.jsonl{mining.VECTORS}', 'OUTPUT', 'mine'),
    pytest.raises(lease.HeldError, match='is in use by another command'),
  ):
    mine(encoder, pairs, corpus_file, tmp_path / 'x.jsonl', overwrite=True)
  assert not [*tmp_path.rglob('*.npy')]

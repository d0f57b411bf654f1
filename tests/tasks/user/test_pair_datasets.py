"""A user's pairs, from files in every layout to the records that a run reads."""

import json
import tracemalloc

import pytest
import seqio

from aya_train.tasks import features, shared_vocabulary
from aya_train.tasks.retrieval import pair_tasks, text_pairs
from aya_train.tasks.user import user_data
from aya_train.tasks.user.dataset_tables import UserDataError


def lines(path, *records):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text('\n'.join(x if isinstance(x, str) else json.dumps(x) for x in records) + '\n')


@pytest.fixture
def added(tmp_path):
  names = []

  def add(name, **row):
    table = {'dataset': [{'name': name, 'language': 'swa', 'license': 'CC0-1.0', **row}]}
    (tmp_path / f'{name}.json').write_text(json.dumps(table))
    names.extend(user_data.add_table(tmp_path / f'{name}.json'))
    return seqio.TaskRegistry.get(name)

  yield add
  for name in names:
    seqio.TaskRegistry.remove(name)
    user_data._DATASETS.pop(name)


def pairs(task, split='train'):
  return [(p.query, p.target, p.negatives) for p in task.source.pairs(split)]


def test_rows_of_csv_and_json_lines(added, tmp_path):
  (tmp_path / 'p.csv').write_text('query,positive,negative_1\nq,p,n\n')
  assert pairs(added('tests.csv', files='p.csv', pairs='columns')) == [('q', 'p', ('n',))]
  lines(tmp_path / 'p.jsonl', ['q', 'p'], ['r', 's', 'n'])
  found = pairs(added('tests.lists', files='p.jsonl', pairs='columns'))
  assert found == [('q', 'p', ()), ('r', 's', ('n',))]


def test_beir_and_msmarco(added, tmp_path):
  lines(tmp_path / 'nq' / 'corpus.jsonl', {'_id': 'd1', 'title': 'T', 'text': 'one'},
        {'_id': 'd2', 'title': '', 'text': 'two'})  # fmt: skip
  lines(tmp_path / 'nq' / 'queries.jsonl', {'_id': 'a', 'text': 'q'})
  lines(tmp_path / 'nq/qrels/train.tsv', 'query-id\tcorpus-id\tscore', 'a\td1\t1', 'a\td2\t0')
  task = added('tests.beir', files='nq/qrels/train.tsv', pairs='beir')
  assert pairs(task) == [('q', 'T one', ())]
  lines(tmp_path / 'ms' / 'collection.tsv', '7\tseven', '8\teight\tand tabs')
  lines(tmp_path / 'ms' / 'queries.train.tsv', '1\tq')
  lines(tmp_path / 'ms' / 'qrels.train.tsv', '1\t0\t7\t1')
  lines(tmp_path / 'ms' / 'neg.jsonl', {'qid': 1, 'pos': [7], 'neg': {'bm25': [8, 7]}})
  task = added('tests.ms', files='ms/qrels.train.tsv', pairs='msmarco', negative_ids='ms/neg.jsonl')
  assert pairs(task) == [('q', 'seven', ('eight\tand tabs',))]
  lines(tmp_path / 'ms' / 'qidpidtriples.train.tsv', '1\t7\t8')
  task = added('tests.triples', files='ms/qidpidtriples.train.tsv', pairs='msmarco')
  assert pairs(task) == [('q', 'seven', ('eight\tand tabs',))]


def _peak(read):
  tracemalloc.start()
  found = read()
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  return peak, found


def test_wrong_texts_of_released_files_are_not_all_kept(added, tmp_path):
  """MS MARCO's triples are 400 million lines; its mined ids 200 of each of 800,000 queries."""
  lines(tmp_path / 'ms' / 'collection.tsv', *(f'{i}\tn{i}' for i in range(20_000)))
  lines(tmp_path / 'ms' / 'queries.train.tsv', '1\tq')
  lines(tmp_path / 'ms' / 'qrels.train.tsv', '1\t0\t7\t1')
  task = added('tests.triples', files='ms/qidpidtriples.train.tsv', pairs='msmarco')
  mined = added(
    'tests.mined', files='ms/qrels.train.tsv', pairs='msmarco', negative_ids='ms/neg.jsonl'
  )
  peaks = []
  for count in (200, 20_000):
    # The right one stands among the wrong ones too, and the first wrong one stands twice.
    wrong = [0, 7, *range(count)]
    lines(tmp_path / 'ms' / 'qidpidtriples.train.tsv', *(f'1\t7\t{i}' for i in wrong))
    asked = [{'qid': i + 1, 'neg': {'bm25': wrong[:40]}} for i in range(count // 40)]
    lines(tmp_path / 'ms' / 'neg.jsonl', *asked)
    for each in (task, mined):
      peak, found = _peak(lambda each=each: pairs(each))
      peaks.append(peak)
      expected = [f'n{i}' for i in range(17) if i != 7]
      assert found == [('q', 'n7', tuple(expected))]
  assert peaks[2] < peaks[0] + 100_000, 'triples'
  assert peaks[3] < peaks[1] + 100_000, 'mined ids'


def test_a_json_array_on_one_line(added, tmp_path):
  row = {'question': 'q', 'positive_ctxs': [{'title': 'T', 'text': 'p'}], 'hard_negative_ctxs': []}
  (tmp_path / 'nq.json').write_text(json.dumps([row, row]))
  assert pairs(added('tests.array', files='nq.json', pairs='dpr')) == [('q', 'T p', ())] * 2


def test_lines_of_parallel_files_stay_beside_each_other(added, tmp_path):
  (tmp_path / 'a.txt').write_text('one\n\nthree\n\n')
  (tmp_path / 'b.txt').write_text('moja\n\ntatu\n')
  task = added('tests.parallel', files='a.txt', pairs='parallel', other='b.txt')
  assert pairs(task) == [('one', 'moja', ()), ('three', 'tatu', ())]
  (tmp_path / 'a.txt').write_text('one\n\nthree\nfour\n')
  (tmp_path / 'b.txt').write_text('moja\nmbili\ntatu\n\nnne\n')
  with pytest.raises(text_pairs.PairError, match=r'a\.txt line 2: the query is empty'):
    pairs(task)


def test_an_id_that_stands_twice_is_refused(added, tmp_path):
  lines(tmp_path / 'nq' / 'corpus.jsonl', {'_id': 'd', 'text': 'one'}, {'_id': 'd', 'text': 'two'})
  lines(tmp_path / 'nq' / 'queries.jsonl', {'_id': 'a', 'text': 'q'})
  lines(tmp_path / 'nq/qrels/train.tsv', 'query-id\tcorpus-id\tscore', 'a\td\t1')
  task = added('tests.twice', files='nq/qrels/train.tsv', pairs='beir')
  with pytest.raises(UserDataError, match=r"corpus.jsonl row 2: the id 'd' is that of .* too"):
    pairs(task)


def test_an_empty_text_is_named(added, tmp_path):
  lines(tmp_path / 'p.jsonl', {'query': 'q', 'positive': 'p'}, {'query': ' ', 'positive': 'p'})
  task = added('tests.empty', files='p.jsonl', pairs='columns')
  with pytest.raises(ValueError, match=r'p.jsonl row 2: the query is empty'):
    pairs(task)


def test_a_layout_that_is_not_known_is_refused(added, tmp_path):
  lines(tmp_path / 'p.jsonl', {'query': 'q', 'positive': 'p'})
  with pytest.raises(UserDataError, match='unknown layout'):
    added('tests.unknown', files='p.jsonl', pairs='no')


def test_languages_of_rows_are_their_sources(added, tmp_path):
  lines(tmp_path / 'p.jsonl', {'query': 'q', 'positive': 'p', 'lang': 'yo'})
  task = added('tests.lang', files='p.jsonl', pairs='columns', language='', language_column='lang')
  (pair,) = task.source.pairs('train')
  assert (pair.language, pair.source) == ('yor', 'tests.lang yor')


def test_records_have_all_texts_with_their_prompts(added, tmp_path, vocabulary_in_force):
  lines(tmp_path / 'p.jsonl', {'query': 'maji', 'positive': 'bomba', 'negatives': ['choo'], 'g': 4})
  pair_tasks.set_prompts('query: ', 'passage: ')
  try:
    task = added('tests.records', files='p.jsonl', pairs='columns', group='g')
    (record,) = task.get_dataset(None, 'train', shuffle=False).as_numpy_iterator()
  finally:
    pair_tasks.set_prompts('', '')
  ids = features.VOCABULARY.encode
  assert record['inputs'].tolist() == [*ids('query: maji'), 1]
  assert record['targets'].tolist() == [*ids('passage: bomba'), 1]
  assert record['negative_1'].tolist() == [*ids('passage: choo'), 1]
  assert record['negative_2'].tolist() == [1]
  assert record['labels'].tolist() == [
    text_pairs.number('tests.records'),
    text_pairs.number('tests.records 4'),
  ]


@pytest.fixture
def vocabulary_in_force(tmp_path):
  from tests.checkpoint import small_model

  before = shared_vocabulary.chosen()
  features.set_vocabulary(small_model.train_vocabulary(tmp_path))
  yield
  features.set_vocabulary(before)

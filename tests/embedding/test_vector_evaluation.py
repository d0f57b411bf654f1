"""Released layouts are read, figures are written for the report, bad data named at once."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from aya_train import partitioning
from aya_train.embedding import eval_data, vector_evaluation
from aya_train.report import eval_runs
from tests.embedding import embedding_runs

SHARED = pathlib.Path(__file__).parents[3] / 'shared' / 'data'
TEXTS = embedding_runs.TEXTS


@pytest.fixture(scope='module')
def beir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('beir')
  corpus = [{'_id': f'd{i}', 'title': '', 'text': text} for i, text in enumerate(TEXTS)]
  queries = [{'_id': f'q{i}', 'text': text} for i, text in enumerate(TEXTS)]
  for name, rows in (('corpus', corpus), ('queries', queries)):
    (folder / f'{name}.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  (folder / 'qrels').mkdir()
  grades = [f'q{i}\td{i}\t1\n' for i in range(len(TEXTS))]
  (folder / 'qrels' / 'test.tsv').write_text('query-id\tcorpus-id\tscore\n' + ''.join(grades))
  return folder


def test_figures_are_on_the_report(encoder, beir, tmp_path):
  table = tmp_path / 'pairs.csv'
  table.write_text(
    'english,swahili\n' + ''.join(f'text {i} {"x" * i},text {i} {"x" * i}\n' for i in range(12))
  )
  sts = tmp_path / 'sts.jsonl'
  rows = [(TEXTS[0], TEXTS[i], 5 - i) for i in range(5)]
  keys = ('sentence1', 'sentence2', 'score')
  sts.write_text(''.join(json.dumps(dict(zip(keys, row, strict=True))) + '\n' for row in rows))
  data = vector_evaluation.Data([('beir', beir)], [('bitext', table)], [('sts', sts)])
  vector_evaluation.evaluate(
    lambda: vector_evaluation.Evaluation(
      encoder, tmp_path / 'out', partitioning.one_device(), ('query: ', 'query: ')
    ),
    data,
  )
  found = eval_runs.read(tmp_path / 'out')
  assert not found.problems
  assert found.step == 5
  search = found.results['beir']
  assert search.metrics['ndcg_at_10'] == search.metrics['mrr_at_10'] == 100.0
  assert search.num_examples == len(TEXTS)
  bitext = found.results['bitext.swahili-english']
  assert bitext.about.language == 'swa'
  assert bitext.metrics['accuracy'] == bitext.metrics['swahili_to_english_accuracy'] == 100.0
  assert {'spearman', 'pearson', 'spearman_low'} <= {*found.results['sts'].metrics}
  problems: list[str] = []
  predictions = list(eval_runs.predictions(found, 'beir', problems))
  assert [p.prediction for p in predictions] == [*TEXTS] and not problems


def test_relevant_passages_that_are_not_in_the_corpus_are_told(encoder, beir, tmp_path, caplog):
  data = eval_data.search('sample', beir)
  query, of_query = next(iter(data.grades.items()))
  grades = {**data.grades, query: {**of_query, 'gone': 1, 'graded 0': 0}}
  total = sum(grade > 0 for each in grades.values() for grade in each.values())
  evaluation = vector_evaluation.Evaluation(encoder, tmp_path, partitioning.one_device())
  evaluation.search(data)
  assert 'not in the corpus' not in caplog.text
  evaluation.search(dataclasses.replace(data, grades=grades))
  told = (
    f"1 of {total} relevant passages are not in the corpus, or have no text there, such as 'gone'"
  )
  assert told in caplog.text and f'the query {query!r}' in caplog.text


def test_tatoeba_as_it_is_released():
  if not (SHARED / 'tatoeba').exists():
    pytest.skip('no shared/data/tatoeba beside the checkout')
  found = eval_data.translations('tatoeba', SHARED / 'tatoeba')
  assert len(found) == 40
  by_subset = {pairs.subset: pairs for pairs in found}
  swahili = by_subset['swh-eng']
  assert swahili.language == 'swa' and len(swahili.one) == len(swahili.other) == 390


def test_nusax_as_it_is_released():
  if not (SHARED / 'nusax').exists():
    pytest.skip('no shared/data/nusax beside the checkout')
  found = eval_data.translations('nusax', SHARED / 'nusax' / 'mt' / 'valid.csv')
  assert {pairs.subset for pairs in found} >= {'indonesian-english', 'toba_batak-english'}
  assert len(found) == 11 and {len(pairs.one) for pairs in found} == {100}


def test_languages_of_a_column_are_apart(tmp_path):
  path = tmp_path / 'x.tsv'
  path.write_text('sentence1\tsentence2\tlang\na\tb\tdeu-eng\nc\td\tfra-eng\n')
  found = eval_data.translations('x', path)
  assert [(p.subset, p.language, p.one) for p in found] == [
    ('deu-eng', 'deu', ['a']),
    ('fra-eng', 'fra', ['c']),
  ]


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('qrels/test.tsv', 'query-id\tcorpus-id\tscore\nq99\td0\t1\n', "row 1: no query 'q99'"),
    ('qrels/test.tsv', 'q0\td0\n', 'expected a query, a passage and a whole number'),
    ('qrels/test.tsv', 'q0\td0\t0.5\n', 'a whole number as grade'),
    ('qrels/test.tsv', 'q0\td0\tinf\n', 'a whole number as grade'),
    ('qrels/test.tsv', 'q0\td0\t0\n', 'no query has a relevant passage'),
    ('queries.jsonl', '{"_id": "q0", "text": ""}\n', 'row 1 has an empty text'),
    ('corpus.jsonl', '{"_id": "d", "text": "x"}\n{"_id": "d", "text": "y"}\n', "the id 'd' of"),
  ],
)
def test_bad_data_are_named(beir, tmp_path, name, content, message):
  folder = tmp_path / 'beir'
  for path in beir.rglob('*'):
    if path.is_file():
      target = folder / path.relative_to(beir)
      target.parent.mkdir(parents=True, exist_ok=True)
      target.write_bytes(path.read_bytes())
  (folder / name).write_text(content)

  def never():
    raise AssertionError('long work began')

  with pytest.raises(ValueError, match=message):
    vector_evaluation.evaluate(never, vector_evaluation.Data([('x', folder)]))


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (
      '{"sentence1": "a", "sentence2": "b", "lang": "deu"}\n{"sentence1": "c", "sentence2": "d"}\n',
      r"row 2: its columns are \['sentence1', 'sentence2'\]",
    ),
    (
      '{"en": "a", "de": "b"}\n{"en": "c", "de": null}\n',
      'row 2: an empty text, or one that is no',
    ),
    ('{"en": "a", "de": "b"}\n{"en"\n', 'row 2: Expecting'),
    ('["a", "b"]\n["c", "d"]\n', 'row 1: expected columns, such as sentence1'),
  ],
)
def test_rows_of_translations_are_not_mixed_up(tmp_path, content, message):
  (tmp_path / 'x.jsonl').write_text(content)
  with pytest.raises(ValueError, match=message):
    eval_data.translations('x', tmp_path / 'x.jsonl')


def test_what_is_null_is_no_id_and_no_language(beir, tmp_path):
  folder = tmp_path / 'beir'
  shutil.copytree(beir, folder)
  (folder / 'qrels' / 'test.tsv').unlink()
  row = {'query-id': 'q0', 'corpus-id': None, 'score': 1}
  (folder / 'qrels' / 'test.jsonl').write_text(json.dumps(row) + '\n')
  with pytest.raises(ValueError, match='row 1: expected a query, a passage'):
    eval_data.search('x', folder)
  row = {'sentence1': 'a', 'sentence2': 'b', 'lang': None, 'score': 1}
  path = tmp_path / 'x.jsonl'
  path.write_text(json.dumps(row) + '\n')
  for found in (eval_data.similarities('x', path), eval_data.translations('x', path)):
    assert [(pairs.subset, pairs.language) for pairs in found] == [('', '')]


def test_a_number_among_the_texts_is_a_text(tmp_path):
  (tmp_path / 'x.csv').write_text('number,en,de\n1,one,eins\n2,1999,1999\n')
  [found] = eval_data.translations('x', tmp_path / 'x.csv')
  assert (found.subset, found.one, found.other) == ('de-en', ['eins', '1999'], ['one', '1999'])


@pytest.mark.parametrize('score', ['"nan"', 'Infinity', 'null'])
def test_a_similarity_is_a_number(tmp_path, score):
  row = '{"sentence1": "a", "sentence2": "b", "score": SCORE}\n'
  (tmp_path / 'x.jsonl').write_text(row.replace('SCORE', score))
  with pytest.raises(ValueError, match=r'row 1: .* is no number'):
    eval_data.similarities('x', tmp_path / 'x.jsonl')


def test_sides_of_other_lengths_and_empty_lines(tmp_path):
  (tmp_path / 'x.deu-eng.deu').write_text('a\nb\n')
  (tmp_path / 'x.deu-eng.eng').write_text('a\n')
  with pytest.raises(ValueError, match='2 lines, and 1 of the other side'):
    eval_data.translations('x', tmp_path)
  (tmp_path / 'x.deu-eng.eng').write_text('a\n\n')
  with pytest.raises(ValueError, match='row 2: an empty text'):
    eval_data.translations('x', tmp_path)
  (tmp_path / 'x.deu-eng.eng').unlink()
  with pytest.raises(FileNotFoundError, match='the other side is missing'):
    eval_data.translations('x', tmp_path)


def test_names_of_arguments():
  assert eval_data.named('tatoeba=/data/t') == ('tatoeba', '/data/t')
  assert eval_data.named('/data/sts.en.csv') == ('sts', '/data/sts.en.csv')
  assert np.array_equal(eval_data.iso_code('xx-nothing'), '')

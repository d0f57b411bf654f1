"""Figures of vectors against SciPy's, scikit-learn's and pytrec_eval's."""

import json

import numpy as np
import pytest
from scipy import stats

from aya_train.tasks.metrics import retrieval


def run_and_grades():
  """Queries with equal scores, grades of 0 and below, and one that finds nothing."""
  rng = np.random.default_rng(5)
  run, grades = {}, {}
  for q in range(12):
    documents = rng.choice(400, 150, replace=False)
    run[f'q{q}'] = {f'd{d}': float(np.round(rng.normal(), 1)) for d in documents}
    graded = rng.choice(400, 30, replace=False)
    grades[f'q{q}'] = {f'd{d}': int(rng.integers(-1, 4)) for d in graded}
  run['q3'] = {'d401': 1.0}
  return run, grades


# pytrec_eval-terrier 0.5.11, RelevanceEvaluator(grades, {'ndcg_cut.10', 'recall.100'}): means.
PYTREC = {retrieval.NDCG: 0.02538374330476832, retrieval.RECALL: 0.23313200280112048}


def test_figures_are_pytrec_evals():
  each = retrieval.per_query(*run_and_grades())
  for name, wanted in PYTREC.items():
    assert np.mean([query[name] for query in each.values()]) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.heavy
def test_figures_of_each_query_are_pytrec_evals():
  pytrec_eval = pytest.importorskip('pytrec_eval', reason='pytrec_eval is no extra of ours')
  run, grades = run_and_grades()
  found = pytrec_eval.RelevanceEvaluator(grades, {'ndcg_cut.10', 'recall.100'}).evaluate(run)
  for query, figures in retrieval.per_query(run, grades).items():
    assert figures[retrieval.NDCG] == pytest.approx(found[query]['ndcg_cut_10'], abs=1e-9)
    assert figures[retrieval.RECALL] == pytest.approx(found[query]['recall_100'], abs=1e-9)


def test_equal_scores_stand_by_id_from_the_greatest():
  assert retrieval.ranking({'a': 1.0, 'c': 1.0, 'b': 2.0, 'd': 1.0 + 1e-12}) == ['b', 'd', 'c', 'a']


def test_the_first_relevant_one_counts_for_mrr():
  run = {'q': {f'd{i:02d}': 20.0 - i for i in range(20)}}
  assert retrieval.per_query(run, {'q': {'d03': 1, 'd05': 1}})['q'][retrieval.MRR] == 0.25
  assert retrieval.per_query(run, {'q': {'d10': 1}})['q'][retrieval.MRR] == 0.0
  assert retrieval.per_query({}, {'q': {'d10': 1}})['q'] == dict.fromkeys(
    (retrieval.NDCG, retrieval.RECALL, retrieval.MRR), 0.0
  )
  assert retrieval.search_figures(run, {'q': {'d01': 0}}) == {}


def test_translations_against_scikit_learn():
  metrics = pytest.importorskip('sklearn.metrics', reason='scikit-learn is of the extra `embed`')
  nearest = np.random.default_rng(0).integers(0, 50, 50)
  nearest[:30] = np.arange(30)
  found = retrieval.bitext_figures(nearest, 'to_english_')
  truth = np.arange(50)
  assert found['to_english_accuracy'] == pytest.approx(100 * np.mean(nearest == truth))
  wanted = metrics.f1_score(truth, nearest, average='weighted', zero_division=0)
  assert found['to_english_f1'] == pytest.approx(100 * wanted)
  assert found['to_english_accuracy_low'] < found['to_english_accuracy']
  assert retrieval.bitext_figures([]) == {}


def test_correlations_are_scipys():
  rng = np.random.default_rng(1)
  gold = rng.integers(0, 6, 200).astype(float)
  scores = gold / 10 + rng.normal(0, 0.2, 200)
  found = retrieval.similarity_figures(scores, gold)
  assert found['pearson'] == pytest.approx(100 * stats.pearsonr(scores, gold).statistic)
  assert found['spearman'] == pytest.approx(100 * stats.spearmanr(scores, gold).statistic)
  np.testing.assert_array_equal(retrieval.ranks(gold), stats.rankdata(gold))
  assert found['pearson_low'] < found['pearson'] < found['pearson_high']


def test_a_constant_side_correlates_with_nothing():
  assert retrieval.similarity_figures([0.5, 0.5, 0.5], [1, 2, 3]) == {}
  assert retrieval.similarity_figures([], []) == {}
  assert json.dumps(retrieval.similarity_figures([0.1, 0.2, 0.4], [1, 2, 3]))

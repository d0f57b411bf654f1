"""Search is exact: what a sort of all scores gives, in any tiles and on any devices."""

import numpy as np
import pytest

from aya_train.embedding import text_encoder, vector_search


def brute_force(queries, corpus, k):
  scores = queries.astype(np.float64) @ corpus.T.astype(np.float64)
  order = np.argsort(-scores, axis=1, kind='stable')[:, :k]
  return order, np.take_along_axis(scores, order, axis=1)


def vectors(count, width=8, seed=0):
  # Whole numbers: sums are exact, and many scores are equal.
  return np.random.default_rng(seed).integers(-3, 4, (count, width)).astype(np.float32)


@pytest.mark.parametrize(('tile', 'block'), [(7, 5), (64, 64), (1, 33), (40, 8)])
def test_tiles_change_nothing(tile, block):
  queries, corpus = vectors(33), vectors(101, seed=1)
  rows, scores = vector_search.search(
    queries, vector_search.ArrayCorpus(corpus), 12, tile=tile, block=block
  )
  expected, wanted = brute_force(queries, corpus, 12)
  np.testing.assert_array_equal(rows, expected)
  np.testing.assert_array_equal(scores, wanted)


def test_devices_change_nothing():
  queries, corpus = vectors(21), vectors(50, seed=1)
  rows, _ = vector_search.search(
    queries, vector_search.ArrayCorpus(corpus), 9, text_encoder.partitioner(2), tile=16
  )
  np.testing.assert_array_equal(rows, brute_force(queries, corpus, 9)[0])


def test_more_than_there_is_gives_all():
  rows, _ = vector_search.search(vectors(2), vector_search.ArrayCorpus(vectors(3)), 10)
  assert sorted(rows[0]) == [0, 1, 2] and rows.shape == (2, 3)
  assert vector_search.search(vectors(0), vector_search.ArrayCorpus(vectors(3)), 2)[0].shape == (
    (0, 2)
  )


def test_other_widths_are_refused():
  with pytest.raises(ValueError, match='queries have 8 dimensions, passages 4'):
    vector_search.search(vectors(2), vector_search.ArrayCorpus(vectors(3, width=4)), 1)
  with pytest.raises(ValueError, match='a search for 0 passages'):
    vector_search.search(vectors(2), vector_search.ArrayCorpus(vectors(3)), 0)


@pytest.mark.heavy
def test_faiss_finds_the_same():
  pytest.importorskip('faiss', reason='the extra `embed` is not installed')
  rng = np.random.default_rng(0)
  queries, corpus = (rng.normal(size=(n, 32)).astype(np.float32) for n in (300, 5000))
  held = vector_search.ArrayCorpus(corpus)
  index = vector_search.faiss_index(held, 32)
  rows, scores = vector_search.faiss_search(queries, held, 20, index)
  exact_rows, exact_scores = vector_search.search(queries, held, 20)
  np.testing.assert_array_equal(rows, exact_rows)
  np.testing.assert_allclose(scores, exact_scores, atol=1e-4)
  with pytest.raises(ValueError, match='less than 99 %: take --search exact'):
    vector_search.faiss_search(queries, held, 20, vector_search.faiss_index(held, 32, 'IVF64,Flat'))
  with pytest.raises(ValueError, match='FAISS knows no such index'):
    vector_search.faiss_index(held, 32, 'Nonsense')

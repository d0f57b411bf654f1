"""The loss of pairs against loops over rows and candidates, and what is masked."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_train import contrastive_losses
from aya_train.contrastive_losses import Contrast, Texts, Vectors

ROWS, NEGATIVES, WIDTH = 6, 2, 5


def unit(rng, *shape):
  x = rng.normal(size=(*shape, WIDTH)).astype(np.float32)
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def vectors():
  rng = np.random.default_rng(0)
  return Vectors(unit(rng, ROWS), unit(rng, ROWS), unit(rng, ROWS, NEGATIVES))


@pytest.fixture
def texts():
  def ids(*shape, start):
    count = int(np.prod(shape))
    return np.stack([np.arange(start, start + count)] * 2, axis=-1).reshape(*shape, 2)

  return Texts(
    np.ones(ROWS, np.float32),
    ids(ROWS, start=0).astype(np.int32),
    ids(ROWS, start=100).astype(np.int32),
    ids(ROWS, NEGATIVES, start=200).astype(np.int32),
    np.ones((ROWS, NEGATIVES), np.float32),
    np.zeros(ROWS, np.int32),
    np.zeros(ROWS, np.int32),
  )


def by_loops(vectors, texts, temperature, contrast):
  """Loss of each row, one candidate after the other."""
  queries, targets, negatives = (np.asarray(x, np.float64) for x in vectors)
  found = np.zeros(ROWS)

  def too_high(score, own):
    if contrast.false_negative_margin is None:
      return False
    share = abs(own) if contrast.false_negative_strategy == 'relative' else 1.0
    return score > own - contrast.false_negative_margin * share

  def related(i, j):
    if contrast.same_source_negatives and texts.sources[i] != texts.sources[j]:
      return True
    same = lambda ids: (ids[i] == ids[j]).all()
    grouped = texts.groups[i] != 0 and texts.groups[i] == texts.groups[j]
    return same(texts.query_ids) or same(texts.target_ids) or grouped

  dimensions = {*contrast.matryoshka_dimensions, WIDTH}
  for i in range(ROWS):
    if not texts.weights[i]:
      continue
    own = queries[i] @ targets[i]
    forward, backward = [], []
    for j in range(ROWS):
      if not texts.weights[j]:
        continue
      if i != j and not related(i, j):
        if not too_high(queries[i] @ targets[j], own):
          forward.append((queries[i], targets[j], 'in_batch'))
        if not too_high(queries[j] @ targets[i], own):
          backward.append((queries[j], targets[i], 'in_batch'))
      for k in range(NEGATIVES):
        other_source = contrast.same_source_negatives and texts.sources[i] != texts.sources[j]
        equal = (texts.negative_ids[j, k] == texts.target_ids[i]).all()
        if not texts.negative_weights[j, k] or other_source or equal:
          continue
        if not too_high(queries[i] @ negatives[j, k], own):
          forward.append((queries[i], negatives[j, k], 'hard'))
    for dimension in dimensions:

      def cut(x, dimension=dimension):
        return x[:dimension] / np.linalg.norm(x[:dimension])

      def logit(x, y, kind=None):
        score = cut(x) @ cut(y)
        weighed = kind and contrast.hardness_kind in (kind, 'all')
        return score / temperature + (contrast.hardness * score if weighed else 0.0)

      positive = logit(queries[i], targets[i])
      for candidates in (forward, backward) if contrast.bidirectional else (forward,):
        logits = [positive, *(logit(*candidate) for candidate in candidates)]
        found[i] += np.log(np.sum(np.exp(logits))) - positive
  return found


@pytest.mark.parametrize(
  'contrast',
  [
    Contrast(),
    Contrast(bidirectional=False),
    Contrast(matryoshka_dimensions=(2, 4)),
    Contrast(hardness=5.0),
    Contrast(hardness=3.0, hardness_kind='all'),
    Contrast(hardness=3.0, hardness_kind='in_batch'),
    Contrast(false_negative_margin=0.2),
    Contrast(false_negative_margin=0.05, false_negative_strategy='relative'),
    Contrast(false_negative_margin=-0.1),
    Contrast(same_source_negatives=True),
  ],
  ids=str,
)
def test_loss_is_that_of_loops(vectors, texts, contrast):
  texts = texts._replace(
    weights=np.array([1, 1, 1, 1, 1, 0], np.float32),
    negative_weights=np.array([[1, 1], [1, 0], [0, 0], [1, 1], [1, 1], [0, 0]], np.float32),
    sources=np.array([1, 1, 2, 2, 1, 1], np.int32),
    groups=np.array([0, 7, 0, 7, 0, 0], np.int32),
  )
  terms = contrastive_losses.row_terms(vectors, texts, 0.1, contrast)
  wanted = by_loops(vectors, texts, 0.1, contrast)
  np.testing.assert_allclose(terms['loss'], wanted, rtol=2e-5, atol=1e-6)
  assert terms['loss'][-1] == 0


def test_it_is_gtr(vectors, texts):
  # T5X Retrieval: cross-entropy of [targets, negatives] forward, and of the queries backward.
  queries, targets, negatives = vectors
  forward = 100 * queries @ np.concatenate([targets, negatives.reshape(-1, WIDTH)]).T
  backward = 100 * targets @ queries.T
  wanted = sum(
    -jnp.diagonal(jax.nn.log_softmax(logits, axis=1)[:, :ROWS]) for logits in (forward, backward)
  )
  terms = contrastive_losses.row_terms(vectors, texts, 0.01, Contrast())
  np.testing.assert_allclose(terms['loss'], wanted, rtol=1e-4, atol=1e-4)


def test_equal_texts_and_groups_are_no_negatives(vectors, texts):
  queries = np.array(texts.query_ids)
  queries[1] = queries[0]  # another answer to the same question
  targets = np.array(texts.target_ids)
  targets[3] = targets[2]
  negatives = np.array(texts.negative_ids)
  negatives[4, 0] = targets[5]  # a hard negative of one row is the answer of another
  changed = texts._replace(query_ids=queries, target_ids=targets, negative_ids=negatives)
  terms = contrastive_losses.row_terms(vectors, changed, 0.1, Contrast())
  full = ROWS - 1 + ROWS * NEGATIVES
  np.testing.assert_array_equal(
    terms['negatives'], [full - 1, full - 1, full - 1, full - 1, full, full - 1]
  )
  np.testing.assert_array_equal(terms['masked'], [1, 1, 1, 1, 0, 1])


def test_rows_that_are_alone_are_counted_and_teach_nothing(vectors, texts):
  texts = texts._replace(
    sources=np.array([1, 2, 3, 3, 3, 3], np.int32), negative_weights=np.zeros((ROWS, 2), np.float32)
  )
  terms = contrastive_losses.row_terms(vectors, texts, 0.1, Contrast(same_source_negatives=True))
  np.testing.assert_array_equal(terms['alone'], [1, 1, 0, 0, 0, 0])
  np.testing.assert_array_equal(terms['loss'][:2], [0, 0])
  assert np.all(terms['correct'][:2] == 1)


def test_a_margin_and_weights_have_no_gradient_of_their_own(vectors, texts):
  contrast = Contrast(hardness=4.0, hardness_kind='all', false_negative_margin=0.3)

  def loss(scale, contrast):
    changed = vectors._replace(queries=contrastive_losses.shortened(vectors.queries * scale, WIDTH))
    return jnp.sum(contrastive_losses.row_terms(changed, texts, 0.1, contrast)['loss'])

  gradient = jax.grad(loss)(jnp.ones((ROWS, WIDTH)), contrast)
  assert np.all(np.isfinite(gradient))
  plain = jax.grad(loss)(jnp.ones((ROWS, WIDTH)), dataclasses.replace(contrast, hardness=0.0))
  assert not np.allclose(gradient, plain)


@pytest.mark.parametrize(
  ('setting', 'name'),
  [
    ({'false_negative_strategy': 'no'}, 'FALSE_NEGATIVE_STRATEGY'),
    ({'hardness': -1.0}, 'HARDNESS'),
    ({'hardness_kind': 'no'}, 'HARDNESS_KIND'),
    ({'matryoshka_dimensions': (4, 4)}, 'MATRYOSHKA_DIMENSIONS'),
    ({'matryoshka_dimensions': (0,)}, 'MATRYOSHKA_DIMENSIONS'),
    ({'matryoshka_dimensions': (4,), 'matryoshka_weights': (1.0, 2.0)}, 'MATRYOSHKA_WEIGHTS'),
  ],
)
def test_what_does_not_fit_is_refused(setting, name):
  with pytest.raises(ValueError, match=name):
    Contrast(**setting)

"""Softmax over the texts of a batch: which text belongs to which query (GTR, and what came after).

Row i has a query, a target that answers it, and maybe hard negatives. Forward, query i is to find
its target among all targets and all hard negatives of the batch; backward, target i is to find its
query among all queries (hard negatives are left out, as in GTR). Nothing here knows a network.

Letters: B rows of the whole batch, K hard negatives of a row, D the width of a vector.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
MARGIN_STRATEGIES = ('absolute', 'relative')
HARDNESS_KINDS = ('hard', 'in_batch', 'all')


class Vectors(NamedTuple):
  """Vectors of length 1, float32.

  Attributes:
    queries, targets: [B, D].
    negatives: [B, K, D]; K may be 0.
  """

  queries: Array
  targets: Array
  negatives: Array


class Texts(NamedTuple):
  """What is known of the texts besides their vectors.

  Attributes:
    weights: float32 [B], 0 for a row that only fills the batch.
    query_ids, target_ids: int32 [B, 2], equal for equal texts.
    negative_ids: int32 [B, K, 2].
    negative_weights: float32 [B, K], 0 where a row has fewer negatives.
    sources: int32 [B], where a row is from; 0: not known.
    groups: int32 [B], rows of one group are right answers to each other; 0: of no group.
  """

  weights: Array
  query_ids: Array
  target_ids: Array
  negative_ids: Array
  negative_weights: Array
  sources: Array
  groups: Array


@dataclasses.dataclass(frozen=True)
class Contrast:
  """What the softmax is taken over, and how.

  Attributes:
    bidirectional: add the loss of finding the query of a target.
    same_source_negatives: rows of another source are no negatives.
    false_negative_margin: a candidate whose score is above the positive's less this margin is no
      negative; None: all are. A negative margin lets candidates score higher than the positive.
    false_negative_strategy: 'absolute', or 'relative': the margin is a share of the positive's
      score (0.05: what scores above 95 % of it is left out, as NV-Retriever has it).
    hardness: adds this times the score to a negative's logit, without gradient: hard negatives
      weigh exp(hardness * score) (Lan et al. 2025; 5 in EmbeddingGemma); 0: none.
    hardness_kind: which negatives are weighed: 'hard' ones that were given, 'in_batch', or 'all'.
    matryoshka_dimensions: the loss of the first so many dimensions is added, for each number.
    matryoshka_weights: of these losses beside that of the whole vector, 1 each by default.
  """

  bidirectional: bool = True
  same_source_negatives: bool = False
  false_negative_margin: float | None = None
  false_negative_strategy: str = 'absolute'
  hardness: float = 0.0
  hardness_kind: str = 'hard'
  matryoshka_dimensions: Sequence[int] = ()
  matryoshka_weights: Sequence[float] | None = None

  def __post_init__(self):
    if self.false_negative_strategy not in MARGIN_STRATEGIES:
      raise ValueError(
        f'FALSE_NEGATIVE_STRATEGY must be one of {MARGIN_STRATEGIES}, got '
        f'{self.false_negative_strategy!r}'
      )
    if self.hardness_kind not in HARDNESS_KINDS:
      raise ValueError(f'HARDNESS_KIND must be one of {HARDNESS_KINDS}, got {self.hardness_kind!r}')
    if self.hardness < 0.0:
      raise ValueError(f'HARDNESS must not be negative, got {self.hardness!r}')
    dimensions = tuple(self.matryoshka_dimensions or ())
    if any(type(d) is not int or d < 1 for d in dimensions) or len({*dimensions}) < len(dimensions):
      raise ValueError(
        f'MATRYOSHKA_DIMENSIONS must be different positive numbers, got {dimensions}'
      )
    object.__setattr__(self, 'matryoshka_dimensions', dimensions)
    if (weights := self.matryoshka_weights) is not None:
      if len(weights) != len(dimensions) or any(w < 0 for w in weights):
        raise ValueError(
          'MATRYOSHKA_WEIGHTS must be None or a weight, not negative, for each of '
          f'MATRYOSHKA_DIMENSIONS {dimensions}, got {weights!r}'
        )
      object.__setattr__(self, 'matryoshka_weights', tuple(weights))


def row_terms(
  vectors: Vectors, texts: Texts, temperature: Array | float, contrast: Contrast
) -> dict[str, Array]:
  """The loss of each row, and what is counted of it; both add up over rows.

  Args:
    vectors, texts: of the whole batch.
    temperature: what scores, cosines in [-1, 1], are divided by.
    contrast: how.

  Returns:
    float32 [B] each, 0 for rows of weight 0: `loss`; `correct` and `reverse_correct`, 1 where the
    row's own target (query) has the highest score of all candidates; `negatives`, the candidates
    besides it; `masked`, those left out as false negatives; `positive_score`, the cosine of the
    pair; `alone`, 1 where a row has no negative in any direction, so that it teaches nothing.
  """
  in_batch, false_in_batch = _candidates(texts, contrast)
  given, false_given = _given(texts, contrast)
  scores, given_scores = _scores(*vectors)
  positive = jnp.diagonal(scores)
  found = {}
  for name, matrix, allowed in (
    ('forward', scores, in_batch),
    ('backward', scores.T, in_batch),
    ('given', given_scores, given),
  ):
    high = _too_high(matrix, positive, contrast) & allowed
    found[name] = (allowed & ~high, high)
  (forward, high), (backward, _), (given, high_given) = found.values()

  width = vectors.queries.shape[-1]
  weights = contrast.matryoshka_weights or (1.0,) * len(contrast.matryoshka_dimensions)
  parts = dict(zip(contrast.matryoshka_dimensions, weights, strict=True))
  parts.setdefault(width, 1.0)
  loss = jnp.zeros_like(positive)
  for dimension, weight in parts.items():
    part, part_given = (
      (scores, given_scores)
      if dimension == width
      else _scores(*(shortened(x, dimension) for x in vectors))
    )
    own = jnp.diagonal(part)
    one = _cross_entropy(
      own,
      temperature,
      (part, forward, _hardness(contrast, 'in_batch')),
      (part_given, given, _hardness(contrast, 'hard')),
    )
    if contrast.bidirectional:
      one += _cross_entropy(own, temperature, (part.T, backward, _hardness(contrast, 'in_batch')))
    loss += weight * one

  def best(*candidates: tuple[Array, Array]) -> Array:
    rivals = [jnp.max(jnp.where(a, s, -jnp.inf), axis=1, initial=-jnp.inf) for s, a in candidates]
    return positive > jnp.stack(rivals).max(axis=0)

  def count(*masks: Array) -> Array:
    return jnp.sum(jnp.concatenate(masks, axis=1), axis=1, dtype=jnp.float32)

  terms = {
    'loss': loss,
    'correct': best((scores, forward), (given_scores, given)),
    'reverse_correct': best((scores.T, backward)),
    'negatives': count(forward, given),
    'masked': count(false_in_batch, false_given, high, high_given),
    'positive_score': positive,
    'alone': count(forward, given, *([backward] if contrast.bidirectional else [])) == 0,
  }
  # Rows that only fill a batch have no candidates, and a loss of 0.
  return {name: jnp.where(texts.weights > 0, x, 0.0) * texts.weights for name, x in terms.items()}


def shortened(x: Array, dimension: int) -> Array:
  """The first dimensions of vectors [..., D], of length 1 again."""
  x = x[..., :dimension]
  squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def _scores(queries: Array, targets: Array, negatives: Array) -> tuple[Array, Array]:
  """Cosines of queries with all targets [B, B] and with all hard negatives [B, B K]."""
  others = negatives.reshape(-1, negatives.shape[-1])
  # A TPU's default would round the factors to 8 bits, and 1 / temperature is 100.
  dot = lambda x, y: jnp.dot(x, y.T, precision=jax.lax.Precision.HIGHEST)  # noqa: E731
  return dot(queries, targets), dot(queries, others)


def _same(one: Array, other: Array) -> Array:
  """Which ids [M, 2] and [N, 2] are equal, bool [M, N]."""
  return jnp.all(one[:, None] == other[None], axis=-1)


def _same_source(texts: Texts, columns: Array, contrast: Contrast) -> Array | bool:
  if not contrast.same_source_negatives:
    return True
  return texts.sources[:, None] == columns[None]


def _candidates(texts: Texts, contrast: Contrast) -> tuple[Array, Array]:
  """Rows j whose texts may be negatives of row i, bool [B, B]; those left out as false.

  Both directions have the same: what makes a candidate a right answer is symmetric.
  """
  rows = jnp.arange(len(texts.weights))
  other = (rows[:, None] != rows[None]) & (texts.weights[None] > 0) & (texts.weights[:, None] > 0)
  other &= _same_source(texts, texts.sources, contrast)
  false = _same(texts.query_ids, texts.query_ids) | _same(texts.target_ids, texts.target_ids)
  false |= (texts.groups[:, None] == texts.groups[None]) & (texts.groups[:, None] != 0)
  return other & ~false, other & false


def _given(texts: Texts, contrast: Contrast) -> tuple[Array, Array]:
  """Hard negatives of all rows that may be negatives of row i, bool [B, B K]; those that are not.

  A negative of one row may be the target of another.
  """
  count = texts.negative_weights.shape[1]
  there = (texts.negative_weights.reshape(-1) > 0)[None] & (texts.weights[:, None] > 0)
  there &= _same_source(texts, jnp.repeat(texts.sources, count), contrast)
  false = _same(texts.target_ids, texts.negative_ids.reshape(-1, 2))
  return there & ~false, there & false


def _too_high(scores: Array, positive: Array, contrast: Contrast) -> Array:
  """Which candidates score so high that they may be right as well, bool like `scores`."""
  if (margin := contrast.false_negative_margin) is None:
    return jnp.zeros(scores.shape, bool)
  if contrast.false_negative_strategy == 'relative':
    limit = positive - margin * jnp.abs(positive)
  else:
    limit = positive - margin
  return jax.lax.stop_gradient(scores > limit[:, None])


def _hardness(contrast: Contrast, kind: str) -> float:
  return contrast.hardness if contrast.hardness_kind in (kind, 'all') else 0.0


def _cross_entropy(
  positive: Array, temperature: Array | float, *candidates: tuple[Array, Array, float]
) -> Array:
  """-log softmax of each row's positive [B], among candidates (scores, allowed, hardness)."""
  logits = [(positive / temperature)[:, None]]
  for scores, allowed, hardness in candidates:
    weighed = scores / temperature
    if hardness:
      weighed += hardness * jax.lax.stop_gradient(scores)
    logits.append(jnp.where(allowed, weighed, -jnp.inf))
  return jax.scipy.special.logsumexp(jnp.concatenate(logits, axis=1), axis=1) - logits[0][:, 0]

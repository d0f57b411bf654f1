"""Laws of packing: whole examples, few rows, states that restore; of first fit: Grain's rows."""

import collections
import hashlib
import itertools
import json

import grain
import numpy as np
import pytest

from aya_train.data import packing

LENGTHS = {'inputs': 32, 'targets': 20}


def source(count, seed=0, shortest=1):
  rng = np.random.default_rng(seed)
  return [
    {f: rng.integers(1, 100, rng.integers(shortest, n + 1), np.int32) for f, n in LENGTHS.items()}
    for _ in range(count)
  ]


def examples(count, **kwargs):
  options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  return grain.MapDataset.source(source(count, **kwargs)).to_iter_dataset(options)


def packed(parent, num_rows=5, seed=None):
  return packing.FirstFitPackIterDataset(parent, lengths=LENGTHS, num_rows=num_rows, seed=seed)


def packed_best(parent, num_examples=20, seed=None):
  return packing.BestFitPackIterDataset(
    parent, lengths=LENGTHS, num_examples=num_examples, seed=seed
  )


BOTH = pytest.mark.parametrize('packed', [packed, packed_best], ids=['first_fit', 'best_fit'])


def contents(rows):
  """Counts the examples in rows by their tokens."""
  found = collections.Counter()
  for row in rows:
    ids = [row[f'{f}_segment_ids'] for f in LENGTHS]
    for s in range(1, max(i.max() for i in ids) + 1):
      found[tuple(tuple(row[f][i == s].tolist()) for f, i in zip(LENGTHS, ids, strict=True))] += 1
  return found


def assert_same_rows(left, right):
  for a, b in itertools.zip_longest(left, right):
    assert sorted(a) == sorted(b)
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])
      assert a[name].dtype == b[name].dtype == np.int32


@pytest.mark.parametrize('num_rows', [1, 5, 200])
@pytest.mark.parametrize('shortest', [0, 1])
def test_rows_are_those_of_grain(num_rows, shortest):
  parent = examples(150, shortest=shortest)
  theirs = grain.experimental.FirstFitPackIterDataset(
    parent, length_struct=LENGTHS, num_packing_bins=num_rows, shuffle_bins=False
  )
  assert_same_rows(packed(parent, num_rows), theirs)


@BOTH
@pytest.mark.parametrize('seed', [None, 0])
def test_all_examples_are_there_whole(packed, seed):
  expected = collections.Counter(tuple(tuple(e[f].tolist()) for f in LENGTHS) for e in source(150))
  assert contents(packed(examples(150), seed=seed)) == expected


def test_a_seed_changes_the_order_within_a_pack_only():
  plain, first, again, other = ([*packed(examples(150), seed=s)] for s in (None, 1, 1, 2))
  assert_same_rows(first, again)
  key = lambda rows: [tuple(r['inputs'].tolist()) for r in rows]
  assert key(plain) != key(first) != key(other)
  for i in range(0, len(plain), 5):
    assert sorted(key(plain[i : i + 5])) == sorted(key(first[i : i + 5]))
  orders = {
    tuple(key(plain[i : i + 5]).index(k) for k in key(first[i : i + 5]))
    for i in range(0, len(plain) - 4, 5)
  }
  assert len(orders) > 1, 'every pack has its own order'


@BOTH
@pytest.mark.parametrize('seed', [None, 0])
def test_every_state_restores_the_rows_that_follow(packed, seed):
  ds = packed(examples(60), seed=seed)
  iterator = ds.__iter__()
  states, rows = [iterator.get_state()], []
  for row in iterator:
    rows.append(row)
    states.append(json.loads(json.dumps(iterator.get_state())))
  assert len(rows) > 12
  for i, state in enumerate(states):
    restored = ds.__iter__()
    restored.set_state(state)
    assert restored.get_state() == state
    assert_same_rows(restored, rows[i:])
  iterator.set_state(states[3])
  assert_same_rows(iterator, rows[3:])


@BOTH
def test_too_long_an_example_is_refused_not_awaited(packed):
  long = grain.MapDataset.source(
    [{'inputs': np.ones(33, np.int32), 'targets': np.ones(1, np.int32)}]
  )
  with pytest.raises(ValueError, match=r"\{'inputs': 33, 'targets': 1\} tokens does not fit a row"):
    next(packed(long.to_iter_dataset()).__iter__())


def drawn(kind, means, count, seed=0):
  """Lengths [count, 2] of pairs, at most 1024."""
  rng = np.random.default_rng(seed)
  sides = {
    'exponential': lambda m: rng.exponential(m, count),
    'lognormal': lambda m: rng.lognormal(np.log(m) - 0.32, 0.8, count),
    'uniform': lambda m: rng.uniform(1, 2 * m, count),
    'bimodal': lambda m: np.where(
      rng.random(count) < 0.8, rng.normal(0.4 * m, 0.1 * m, count), rng.normal(3 * m, m / 2, count)
    ),
    'long tails': lambda m: (rng.pareto(1.5, count) + 1) * m / 3,
    'equal': lambda m: np.full(count, m),
  }[kind]
  return np.stack([np.clip(sides(m).astype(int), 1, 1024) for m in means], axis=1)


def first_fit_decreasing(sizes, length):
  """Rows of the offline packing that sorts all pairs by their sum."""
  free = np.full((len(sizes), 2), length)
  for i in np.argsort(-sizes.sum(axis=1), kind='stable'):
    free[(free >= sizes[i]).all(axis=1).argmax()] -= sizes[i]
  return int((free < length).any(axis=1).sum())


@pytest.mark.parametrize('means', [(300, 100), (200, 200), (150, 30)])
@pytest.mark.parametrize(
  'kind', ['exponential', 'lognormal', 'uniform', 'bimodal', 'long tails', 'equal']
)
def test_best_fit_needs_hardly_more_rows_than_first_fit_decreasing(kind, means):
  sizes = drawn(kind, means, 1500)
  rows = packing.best_fit(sizes.tolist(), [1024, 1024])
  assert sorted(itertools.chain(*rows)) == list(range(len(sizes)))
  assert all(row == sorted(row) and (sizes[row].sum(axis=0) <= 1024).all() for row in rows)
  assert len(rows) <= 1.006 * first_fit_decreasing(sizes, 1024)


def test_best_fit_keeps_the_rows_it_had():
  """They are part of a run's data: another version must not give others."""
  sizes = drawn('lognormal', (200, 200), 300)
  rows = packing.best_fit(sizes.tolist(), [1024, 1024])
  digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
  assert (len(rows), digest[:12]) == (60, '7e3b73492de9')


@pytest.mark.parametrize('sizes', [[[0, 0]] * 3, [[0, 5], [32, 0], [0, 20]], [[32, 20]]])
def test_best_fit_takes_features_that_are_empty_or_full(sizes):
  rows = packing.best_fit(sizes, [32, 20])
  assert sorted(itertools.chain(*rows)) == list(range(len(sizes)))

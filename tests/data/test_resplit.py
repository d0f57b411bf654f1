"""Laws of a share made anew: over all phases each element is taken once, and none is left out."""

import itertools

import numpy as np
import pytest

from aya_train.data import mixing, resplit


def reader(draw):
  return {'next_index': draw}


@pytest.mark.parametrize('rates', [[1.0], [5.0, 3.0, 0.5], [1.0, 1e-4, 7.0, 2.0, 0.01]])
@pytest.mark.parametrize('seed', range(4))
def test_every_element_is_taken_once_over_all_phases(rates, seed):
  """Parts of a phase make very different numbers of draws, as they do when rows are packed."""
  random = np.random.default_rng(seed)
  draws = mixing.ProportionalSelection(rates)
  taken = [[] for _ in rates]
  history = []

  def take(part, parts, begin, end):
    shared = resplit.SharedDraws(draws, part, parts, history)
    for task, element in map(shared.__getitem__, range(begin, end)):
      taken[task].append(element)

  for parts in [*random.integers(1, 7, size=5), 1]:
    start = resplit.first_draw(history, parts)
    ends = [start + int(random.integers(0, 60)) for _ in range(parts)]
    for part, end in enumerate(ends):
      take(part, parts, start, end)
    history.append(resplit.Phase(start, tuple(map(reader, ends))))
    history[-1] = resplit.Phase.from_json(history[-1].to_json())
  # One part alone takes what the others left first: then nothing is missing up to the last.
  start = resplit.first_draw(history, 1)
  take(0, 1, start, start + 2000)
  for elements in taken:
    assert sorted(elements) == list(range(len(elements)))
  drawn = np.array([len(elements) for elements in taken])
  share = np.array(rates) / sum(rates)
  # The draws go on where they were: no task falls behind by more than a few a part and phase.
  assert np.abs(drawn - share * drawn.sum()).max() < 3 * sum(phase.parts for phase in history)


def test_counts_are_those_of_the_draws():
  draws = mixing.ProportionalSelection([5.0, 3.0, 0.5])
  seen = [draws[k][0] for k in range(200)]
  for n in (0, 1, 7, 200):
    assert draws.counts(n) == [seen[:n].count(task) for task in range(3)]


def test_what_a_position_says():
  pack = {'parent': reader(10), 'pack': 2, 'row': 3, 'rows': 8, 'end': reader(25)}
  done = {'parent': reader(25), 'pack': 3, 'row': 0}
  left = {'left': 2, 'left_of': 9, 'parent': pack}
  assert [resplit.next_draw(p) for p in (reader(4), pack, done, left)] == [4, 25, 25, 25]
  assert [resplit.num_open_rows(p) for p in (reader(4), pack, done, left)] == [0, 5, 0, 12]
  assert list(itertools.accumulate(resplit.Phase(5, (pack, left)).ends)) == [25, 50]


def test_batches_of_one_source_stay_so_on_other_numbers_of_parts():
  draws = mixing.SameSourceSelection([5.0, 3.0, 0.5], batch_size=12)
  taken, history, order = [[], [], []], [], []
  for parts, batches in ((1, 5), (4, 7), (2, 6), (3, 40)):
    rows = 12 // parts
    start = resplit.first_draw(history, parts, rows)
    shared = [resplit.SharedDraws(draws, part, parts, history) for part in range(parts)]
    for batch in range(batches):
      draws_of_batch = range(start + batch * rows, start + (batch + 1) * rows)
      found = [one[draw] for one in shared for draw in draws_of_batch]
      assert len({task for task, _ in found}) == 1
      order.append(found[0][0])
      for task, element in found:
        taken[task].append(element)
    end = reader(start + batches * rows)
    history.append(resplit.Phase(start, (end,) * parts))
  for elements in taken:
    assert sorted(elements) == list(range(len(elements)))
  shares = np.bincount(order) / len(order)
  np.testing.assert_allclose(shares, np.array([5.0, 3.0, 0.5]) / 8.5, atol=0.05)

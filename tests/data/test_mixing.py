"""Laws of mixing: shares are the rates, and each task's examples come in turn."""

import collections
import functools
import itertools

import numpy as np
import pytest
import seqio

from aya_train.data import availability, mixing
from tests.seqio_tasks import add_task, texts

SIZES = {'mixing_a': 3, 'mixing_b': 12, 'mixing_c': 5}


@pytest.fixture(scope='module')
def tasks(tmp_path_factory):
  directory = tmp_path_factory.mktemp('prepared')
  opened = {}
  for name, size in SIZES.items():
    # The source claims ten times as many: rates must not ask it.
    task = add_task(name, {'train': texts(size)})
    task.source._num_input_examples = {'train': 10 * size, 'other': 7}
    opened |= availability.ensure_prepared(name, 'train', directory)
  return opened


def mixture(name, members, **kwargs):
  seqio.MixtureRegistry.remove(name)
  return seqio.MixtureRegistry.add(name, members, **kwargs)


@pytest.mark.parametrize(
  'rates',
  [[1], [1, 1], [5, 3, 2], [1e-4, 1, 2.5], list(np.random.default_rng(0).lognormal(0, 2, 60))],
)
def test_shares_are_the_rates_at_every_moment(rates):
  selection = mixing.ProportionalSelection(rates)
  shares = np.array(rates) / sum(rates)
  counts = np.zeros(len(rates))
  for k in range(5_000):
    counts[selection[k][0]] += 1
    if k % 97 == 0:
      assert np.abs(counts - shares * (k + 1)).max() < 6


def test_element_numbers_have_no_gaps_even_far_out():
  selection = mixing.ProportionalSelection([3, 1, 2, 0.1])
  for start in (0, 2**58):
    elements = collections.defaultdict(list)
    for k in range(start, start + 5_000):
      dataset, element = selection[k]
      elements[dataset].append(element)
    assert sorted(elements) == [0, 1, 2, 3]
    for numbers in elements.values():
      assert all(b == a + 1 for a, b in itertools.pairwise(numbers))
      assert start or numbers[0] == 0


def test_rates_of_functions_use_the_prepared_counts(tasks):
  rate = functools.partial(seqio.mixing_rate_num_examples, maximum=10, temperature=2.0)
  m = mixture('mixing_counts', list(SIZES), default_rate=rate)
  assert mixing.mixing_rates(m, tasks) == {n: min(s, 10) ** 0.5 for n, s in SIZES.items()}
  own = mixture(
    'mixing_own', [('mixing_a', lambda t: 2 * t.num_input_examples('train') + len(t.name))]
  )
  assert mixing.mixing_rates(own, tasks) == {'mixing_a': 14.0}
  other = functools.partial(seqio.mixing_rate_num_examples, split='other')
  assert mixing.mixing_rates(mixture('mixing_other', [('mixing_a', other)]), tasks) == {
    'mixing_a': 7
  }


def test_rates_are_those_of_seqio(tasks):
  mixture('mixing_inner', [('mixing_a', 1.0), ('mixing_b', 3.0)])
  outer = mixture('mixing_outer', [('mixing_inner', 2.0), ('mixing_a', 0.25), ('mixing_c', 1)])
  expected = {t.name: outer.get_rate(t) for t in outer.tasks}
  assert mixing.mixing_rates(outer, tasks) == pytest.approx(expected, rel=1e-12)
  assert expected['mixing_a'] == 0.75


def test_rates_that_make_no_sense_are_refused(tasks):
  assert mixing.mixing_rates(mixture('mixing_zero', [('mixing_a', 0), ('mixing_b', 2)]), tasks) == {
    'mixing_b': 2.0
  }
  with pytest.raises(ValueError, match=r"'mixing_negative' must be >= 0 and not all 0, got"):
    mixing.mixing_rates(mixture('mixing_negative', [('mixing_a', -1), ('mixing_b', 2)]), tasks)
  with pytest.raises(ValueError, match='not all 0'):
    mixing.mixing_rates(mixture('mixing_nothing', [('mixing_a', 0)]), tasks)
  characters = mixture('mixing_chars', ['mixing_a'], default_rate=seqio.mixing_rate_num_characters)
  with pytest.raises(ValueError, match=r"'mixing_a' asks for the statistic 'text_chars'"):
    mixing.mixing_rates(characters, tasks)
  with pytest.raises(ValueError, match=r'rates must be positive, got \[1, 0\]'):
    mixing.ProportionalSelection([1, 0])

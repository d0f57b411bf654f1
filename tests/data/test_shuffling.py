import pickle

import grain
import numpy as np
import pytest

from aya_train.data import shuffling


@pytest.mark.parametrize('length', [1, 2, 60, 5000])
def test_each_epoch_has_each_example_once_in_an_order_of_its_own(length):
  ds = shuffling.shuffled(grain.MapDataset.range(length), seed=3).repeat(2)
  drawn = np.array([ds[i] for i in range(2 * length)])
  for epoch in (drawn[:length], drawn[length:]):
    assert sorted(epoch) == list(range(length))
  if length > 2:
    assert list(drawn[:length]) != list(drawn[length:])
    assert list(drawn[:length]) != list(range(length))


def test_the_seed_alone_decides_the_order():
  def order(seed):
    return list(shuffling.shuffled(grain.MapDataset.range(50), seed))

  assert order(1) == order(1) != order(2)


def test_slices_and_copies_read_the_same():
  ds = shuffling.shuffled(grain.MapDataset.range(50), 1)
  assert list(ds[3::7]) == list(ds)[3::7]
  assert list(pickle.loads(pickle.dumps(ds))) == list(ds)

"""Work ahead of its reader."""

import time

import pytest

from aya_train.checkpoint.arrays import workers


def test_work_ahead_keeps_the_order_and_its_error_ends_it():
  begun = []

  def inverse(n):
    begun.append(n)
    time.sleep(0.02 * (n == 1))
    return 1 / (5 - n)

  results = []
  with pytest.raises(ZeroDivisionError):
    results.extend(workers.ahead(inverse, range(1, 50)))
  assert results == [1 / 4, 1 / 3, 1 / 2, 1] and max(begun) <= 5 + workers.COUNT
  assert list(workers.ahead(inverse, [1, 2, 3])) == [1 / 4, 1 / 3, 1 / 2]

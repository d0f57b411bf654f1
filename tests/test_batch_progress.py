import logging

import pytest

from aya_train import batch_progress


@pytest.mark.parametrize(
  ('seconds', 'text'), [(0, '0m00s'), (59.9, '0m59s'), (245, '4m05s'), (3720, '1h02m')]
)
def test_a_duration_is_for_people(seconds, text):
  assert batch_progress.clock(seconds) == text


def test_the_time_left_is_that_of_this_process(monkeypatch, caplog):
  caplog.set_level(logging.INFO)
  now = [0.0]
  monkeypatch.setattr(batch_progress.time, 'monotonic', lambda: now[0])
  progress = batch_progress.BatchProgress('answers', 100, 40, seconds=10)
  for _ in range(6):
    now[0] += 4
    progress.add(10)
  assert caplog.messages == [
    'answers 50/100  2.5/s  ETA 0m20s',
    'answers 80/100  2.5/s  ETA 0m08s',
    'answers 100/100  2.5/s  ETA 0m00s',
  ]

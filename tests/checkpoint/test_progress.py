"""Progress in bytes."""

import logging

import numpy as np

from aya_train.checkpoint import progress
from aya_train.checkpoint.arrays import lazy_arrays


def test_lines_tell_bytes_rate_and_time_left(monkeypatch, caplog):
  now = [0.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  caplog.set_level(logging.INFO, logger='aya_train')
  with progress.shown('writing', 10_000_000_000) as advance:
    for _ in range(5):
      now[0] += 10
      advance(1_000_000_000)
  assert caplog.messages == ['writing: 3.0 of 10.0 GB, 100 MB/s, 70 s left']


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
  monkeypatch.setattr(progress.sys.stderr, 'isatty', lambda: True)
  monkeypatch.setattr(progress, '_BAR_DELAY_SECONDS', 0)
  with progress.shown('writing', 1000) as advance:
    advance(400)
    advance(900)
  assert 'writing' in capsys.readouterr().err


def test_each_part_read_is_counted_once_and_unchanged():
  array = np.arange(12, dtype=np.float32).reshape(3, 4)
  arrays = {'x': lazy_arrays.of(array)}
  seen = []
  counted = progress.counted(arrays, seen.append)
  np.testing.assert_array_equal(counted['x'][1:3], array[1:3])
  np.testing.assert_array_equal(counted['x'].read(), array)
  assert seen == [32, 48] and progress.total_bytes(arrays) == 48

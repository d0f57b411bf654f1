"""A run that stops moving is shown and ended; one that is slow, asleep or compiling is not."""

import subprocess
import sys
import threading
import time

import pytest

from aya_train import watchdog

HANGS = """
import threading, time
from aya_train import watchdog

def stuck_here():
  threading.Event().wait()

config = watchdog.WatchdogConfig(0.5, 0.8, {action!r})
with watchdog.watching(config, {folder!r}, 'host 1 of 2'):
  with watchdog.phase('training'):
    watchdog.beat('step 7')
    {hang}
"""


def run(folder, hang, action='exit'):
  code = HANGS.format(folder=str(folder), action=action, hang=hang)
  return subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=False
  )


def test_a_run_that_hangs_shows_its_stacks_and_ends_with_a_code_that_is_started_again(tmp_path):
  result = run(tmp_path, 'stuck_here()')
  assert result.returncode == watchdog.EXIT_CODE
  assert 'host 1 of 2: training, after step 7: nothing has moved for' in result.stderr
  assert 'stuck_here' in result.stderr
  (kept,) = (tmp_path / watchdog.FOLDER).iterdir()
  assert 'stuck_here' in kept.read_text() and str(kept) in result.stderr


def test_a_run_that_hangs_may_be_shown_alone(tmp_path):
  result = run(tmp_path, 'time.sleep(2)', action='dump')
  assert result.returncode == 0
  assert result.stderr.count('nothing has moved for') == 2  # above the stacks, and below them
  assert "WATCHDOG_ACTION is 'dump'" in result.stderr


def test_a_folder_that_cannot_be_written_does_not_keep_it(tmp_path):
  (tmp_path / 'file').write_text('')
  result = run(tmp_path / 'file', 'stuck_here()')
  assert result.returncode == watchdog.EXIT_CODE
  assert 'stuck_here' in result.stderr


@pytest.fixture
def barked(monkeypatch):
  """What would have been shown, and when."""
  found = []
  monkeypatch.setattr(
    watchdog._Watchdog, '_bark', lambda self, at, quiet: found.append((at.phase, quiet))
  )
  return found


def watch(tmp_path, timeout=0.2, long_timeout=0.8):
  return watchdog.watching(watchdog.WatchdogConfig(timeout, long_timeout), tmp_path)


def test_parts_that_are_done_in_time_keep_it_quiet(tmp_path, barked):
  with watch(tmp_path), watchdog.phase('training'):
    for _ in range(12):
      watchdog.beat()
      time.sleep(0.05)
  assert not barked


def test_the_first_part_may_compile_and_the_second_may_not(tmp_path, barked):
  with watch(tmp_path), watchdog.phase('training'):
    time.sleep(0.5)
    assert not barked
    watchdog.beat()
    time.sleep(0.5)
    assert [name for name, _ in barked] == ['training']  # once, not at every look


def test_a_phase_inside_has_time_of_its_own_and_the_outer_one_goes_on_as_it_was(tmp_path, barked):
  with watch(tmp_path), watchdog.phase('training'):
    watchdog.beat()
    with watchdog.phase('saving'):
      time.sleep(0.5)
    assert not barked
    time.sleep(0.5)
  assert [name for name, _ in barked] == ['training']


def test_waiting_for_other_hosts_is_not_its_affair(tmp_path, barked):
  with watch(tmp_path), watchdog.phase('a barrier', waiting=True):
    time.sleep(1.2)
  assert not barked


class Array:
  def __init__(self):
    self.ready = False

  def is_ready(self):
    return self.ready


def test_what_is_computed_counts_when_it_is_there_not_when_it_is_asked_for(tmp_path, barked):
  with watch(tmp_path), watchdog.phase('training'):
    arrays = [Array() for _ in range(3)]
    for i, array in enumerate(arrays):
      watchdog.expect(array, f'step {i}')
    for array in arrays:
      time.sleep(0.1)
      array.ready = True
    time.sleep(0.1)
    assert watchdog.standing().done == 'step 2'
    assert not barked
    watchdog.expect(Array(), 'step 3')
    time.sleep(0.5)
    assert barked


def test_what_comes_late_is_no_part_of_the_phase_that_has_begun_meanwhile(tmp_path, barked):
  with watch(tmp_path), watchdog.phase('training'):
    array = Array()
    watchdog.expect(array, 'step 9')
    with watchdog.phase('metrics'):
      array.ready = True
      time.sleep(0.5)
      assert not barked and watchdog.standing().done == ''


def test_a_process_that_was_stopped_for_a_while_does_not_hang(tmp_path, barked, monkeypatch):
  """As SIGSTOP or the lid of a laptop do: no look at the clock happened in between."""
  with watch(tmp_path), watchdog.phase('training'):
    watchdog.beat()
    real = time.monotonic
    monkeypatch.setattr(time, 'monotonic', lambda: real() + 3600)
    time.sleep(0.05)
    watchdog.beat()
    time.sleep(0.1)
  assert not barked


def test_nobody_watches_after_the_block(tmp_path, barked):
  threads = threading.active_count()
  with watch(tmp_path):
    pass
  assert threading.active_count() == threads
  assert watchdog.standing().limit is None
  watchdog.expect(Array())
  assert not watchdog._progress._expected


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ((0, 1, 'exit'), r'WATCHDOG_TIMEOUT must be a number of seconds above 0, or None, got 0'),
    ((1, 'x', 'exit'), r"WATCHDOG_LONG_TIMEOUT must be .* got 'x'"),
    ((1, float('nan'), 'exit'), r'WATCHDOG_LONG_TIMEOUT'),
    ((1, 1, 'restart'), r"WATCHDOG_ACTION must be one of .* got 'restart'"),
  ],
)
def test_settings_that_mean_nothing_are_refused(values, message):
  with pytest.raises(ValueError, match=message):
    watchdog.WatchdogConfig(*values)

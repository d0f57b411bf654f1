import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from aya_train import stopping

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_where_nothing_is_to_be_saved_a_signal_ends_the_work(number):
  before = signal.getsignal(number)
  with pytest.raises(stopping.StoppedError), stopping.stop_on_signal():
    signal.raise_signal(number)
  assert signal.getsignal(number) is before


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_where_something_is_to_be_saved_it_ends_between_two_batches(number):
  before = signal.set_wakeup_fd(-1)
  signal.set_wakeup_fd(before)
  with stopping.stop_on_signal() as stop:
    stop.saving = True
    stop.check()
    assert not stop.requested()
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)  # the group of the process and its leader: one signal
    time.sleep(0.05)
    assert stop.requested()
    with pytest.raises(stopping.StoppedError):
      stop.check()
  assert signal.set_wakeup_fd(before) == before


def test_a_stop_is_no_failure():
  assert not issubclass(stopping.StoppedError, Exception)


def test_other_threads_change_no_handlers():
  before = signal.getsignal(signal.SIGTERM)
  seen = []

  def work():
    with stopping.stop_on_signal() as stop:
      seen.append((stop.requested(), signal.getsignal(signal.SIGTERM)))

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert seen == [(False, before)]


BUSY = """
import hashlib, sys, threading
from aya_train import stopping
stopping.GRACE_SECONDS = 1
with stopping.stop_on_signal() as stop:
  stop.saving = sys.argv[1] == 'saving'
  threading.Timer(1.0, print, ['busy'], {'flush': True}).start()
  hashlib.pbkdf2_hmac('sha256', b'', b'', 2_000_000_000)  # as compiled code: Python has no say
"""


def test_compiled_code_is_left_where_nothing_is_to_be_saved_and_at_a_second_signal():
  children = [
    subprocess.Popen(
      [sys.executable, '-c', BUSY, mode], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    for mode in ('nothing', 'saving')
  ]
  try:
    for child in children:
      assert child.stdout.readline() == b'busy\n'
      child.send_signal(signal.SIGTERM)
    assert children[0].wait(timeout=30) == stopping.CODE
    assert b'in the middle of compiled code' in children[0].stderr.read()
    time.sleep(0.5)
    assert children[1].poll() is None
    children[1].send_signal(signal.SIGTERM)
    assert children[1].wait(timeout=30) == stopping.CODE
    assert b'a second signal' in children[1].stderr.read()
  finally:
    for child in children:
      child.kill()
      child.communicate()

import dataclasses
import json
import os
import signal
import subprocess
import threading
import time

import pytest

from aya_train import destinations, lease, process_identity

ELSEWHERE = {'machine': 'another machine', 'host': 'host-b', 'beat_seconds': 0.05}


def holder(folder, **changes):
  """Leaves the lease of a live process of this machine in a folder, changed as told."""
  folder.mkdir(exist_ok=True)
  left = dataclasses.replace(lease._me('train'), **changes)
  (folder / lease.FILE).write_text(json.dumps(dataclasses.asdict(left)))
  return left


def ended_process():
  process = subprocess.Popen(['true'])
  process.wait()
  return process.pid


def test_a_second_command_is_refused_and_told_by_whom(tmp_path):
  with lease.held(tmp_path, 'MODEL_DIR', 'train'):
    with pytest.raises(lease.HeldError) as caught, lease.held(tmp_path, 'MODEL_DIR', 'train'):
      pass
    own = lease.read(tmp_path / lease.FILE)
    for part in (str(os.getpid()), own.host, own.since, str(tmp_path), 'take another MODEL_DIR'):
      assert part in str(caught.value)
    assert lease.read(tmp_path / lease.FILE) == own
  with lease.held(tmp_path, 'MODEL_DIR', 'train'):
    pass
  assert os.listdir(tmp_path) == []


def test_other_names_of_the_folder_are_the_same_folder(tmp_path, monkeypatch):
  (tmp_path / 'run').mkdir()
  (tmp_path / 'link').symlink_to(tmp_path / 'run')
  monkeypatch.chdir(tmp_path)
  with lease.held(tmp_path / 'run', 'MODEL_DIR', 'train'):
    for name in ('run', 'run/', './run/../run', 'link'):
      with pytest.raises(lease.HeldError), lease.held(name, 'MODEL_DIR', 'train'):
        pass


@pytest.mark.parametrize('how', ['ended', 'recycled', 'zombie'])
def test_a_process_of_this_machine_that_has_ended_is_replaced_at_once(tmp_path, how):
  child = subprocess.Popen(['true' if how == 'zombie' else 'sleep', '60'])
  if how == 'zombie':
    while process_identity._stat(child.pid)[0] != 'Z':
      time.sleep(0.01)
    holder(tmp_path, pid=child.pid, process=process_identity._stat(child.pid)[1])
  elif how == 'recycled':  # its number belongs to another process now
    holder(tmp_path, pid=child.pid, process='1')
  else:
    holder(tmp_path, pid=ended_process(), process='1')
  began = time.monotonic()
  with lease.held(tmp_path, 'MODEL_DIR', 'train'):
    assert lease.read(tmp_path / lease.FILE).pid == os.getpid()
  child.kill()
  child.wait()
  assert time.monotonic() - began < 2


@pytest.mark.parametrize('since', ['1999-01-01 00:00:00 UTC', '2999-01-01 00:00:00 UTC'])
def test_a_silent_holder_elsewhere_is_replaced_after_a_while_whatever_its_clock_says(
  tmp_path, since, caplog
):
  caplog.set_level('INFO', 'aya_train')
  left = holder(tmp_path, since=since, **ELSEWHERE)
  began = time.monotonic()
  with lease.held(tmp_path, 'MODEL_DIR', 'train'):
    took = time.monotonic() - began
  assert left.patience <= took < left.patience + 5
  assert 'looking for a sign of life; without one it is taken over in 0 s' in caplog.text
  assert 'host-b' in caplog.text


def test_a_holder_elsewhere_that_gives_signs_of_life_stays(tmp_path):
  left = holder(tmp_path, **{**ELSEWHERE, 'beat_seconds': 2.0})
  ended = threading.Event()

  def live():
    for beats in range(1, 1000):
      if ended.wait(0.3):
        return
      lease._write(tmp_path / lease.FILE, dataclasses.replace(left, beats=beats))

  thread = threading.Thread(target=live)
  thread.start()
  try:
    with (
      pytest.raises(lease.HeldError, match=r'host-b.*gives signs of life'),
      lease.held(tmp_path, 'MODEL_DIR', 'train'),
    ):
      pass
  finally:
    ended.set()
    thread.join()


def test_a_suspended_process_is_replaced_like_a_silent_one(tmp_path):
  child = subprocess.Popen(['sleep', '60'])
  os.kill(child.pid, signal.SIGSTOP)
  while process_identity._stat(child.pid)[0] != 'T':
    time.sleep(0.01)
  began = process_identity._stat(child.pid)[1]
  left = holder(tmp_path, pid=child.pid, process=began, beat_seconds=0.05)
  started = time.monotonic()
  with lease.held(tmp_path, 'MODEL_DIR', 'train'):
    assert time.monotonic() - started >= left.patience
  child.kill()
  child.wait()


def test_a_holder_that_was_replaced_may_write_no_more(tmp_path):
  with lease.held(tmp_path, 'MODEL_DIR', 'train') as mine:
    mine.check()
    taker = holder(tmp_path, **ELSEWHERE)
    mine._looked -= 2  # it looks once a second
    with pytest.raises(lease.LostError, match=r'taken over by another command .*host-b'):
      mine.check()
    (tmp_path / lease.FILE).unlink()  # that one ends: what was lost stays lost
    with pytest.raises(lease.LostError):
      mine.check()
    lease._write(tmp_path / lease.FILE, taker)
  assert lease.read(tmp_path / lease.FILE) == taker


def test_signs_of_life_are_given_and_notice_a_taker(tmp_path, monkeypatch):
  monkeypatch.setattr(lease, 'BEAT_SECONDS', 0.05)
  with lease.held(tmp_path, 'MODEL_DIR', 'train') as mine:
    until = time.monotonic() + 5
    while lease.read(tmp_path / lease.FILE).beats < 2 and time.monotonic() < until:
      time.sleep(0.02)
    assert lease.read(tmp_path / lease.FILE).beats >= 2
    mine._ended.set()
    mine._thread.join()
    (tmp_path / lease.FILE).unlink()
    mine._beat()  # somebody tidied up: it is held all the same
    assert lease.read(tmp_path / lease.FILE).beats >= 3
    holder(tmp_path, **ELSEWHERE)
    with pytest.raises(lease.LostError):
      mine._beat()
    assert lease.read(tmp_path / lease.FILE).host == 'host-b'
  (tmp_path / lease.FILE).unlink()


@pytest.mark.parametrize('content', ['', '{"token": "a"', '[]', '{"token": 3, "more": 1}', '\0\0'])
def test_a_damaged_lease_is_nobodys_after_a_while(tmp_path, monkeypatch, content):
  monkeypatch.setattr(lease, '_UNKNOWN', dataclasses.replace(lease._UNKNOWN, beat_seconds=0.02))
  (tmp_path / lease.FILE).write_text(content)
  with lease.held(tmp_path, 'MODEL_DIR', 'train') as mine:
    mine.check()


@pytest.mark.parametrize('bucket', [False, True])
@pytest.mark.parametrize('left_behind', [False, True])
def test_of_many_that_begin_at_once_one_holds(tmp_path, monkeypatch, bucket, left_behind):
  if bucket:  # the steps that a bucket allows, on this disk
    monkeypatch.setattr(destinations, 'is_local', lambda path: False)
    monkeypatch.setattr(lease, 'SETTLE_SECONDS', 0.3)
  if left_behind:
    holder(tmp_path, pid=ended_process(), process='1')
  start, entered, refused = threading.Barrier(8), [], []
  all_tried = threading.Barrier(8)

  def begin():
    start.wait()
    try:
      with lease.held(tmp_path, 'MODEL_DIR', 'train'):
        entered.append(1)
        all_tried.wait(20)
    except lease.HeldError:
      refused.append(1)
      all_tried.wait(20)

  threads = [threading.Thread(target=begin) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert (len(entered), len(refused)) == (1, 7)


def test_who_waits_goes_on_when_the_other_ends(tmp_path, caplog):
  caplog.set_level('INFO', 'aya_train')
  child = subprocess.Popen(['sleep', '0.5'])
  holder(tmp_path, pid=child.pid, process=process_identity._stat(child.pid)[1], beat_seconds=0.4)
  with lease.held(tmp_path, 'PREPARED_DIR', 'prepare', wait=True):
    assert process_identity._stat(child.pid)[0] in ('Z', '')
  child.wait()
  assert 'waiting for its end' in caplog.text


def test_those_who_wait_for_a_folder_go_on_when_its_maker_takes_it_along(tmp_path):
  folder = tmp_path / 'in_progress' / 'source'
  came, errors = [], []

  def hold(number):
    try:
      with lease.held(folder, 'the folder', 'prepare', wait=True):
        came.append(number)
        time.sleep(0.3)
    except OSError as error:
      errors.append(error)

  threads = [threading.Thread(target=hold, args=(i,)) for i in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert errors == []
  assert sorted(came) == [0, 1, 2]
  assert not folder.parent.exists()


def test_a_refused_command_leaves_no_folder(tmp_path):
  with (
    pytest.raises(ValueError, match='refused'),
    lease.held(tmp_path / 'runs/new', 'MODEL_DIR', 'train'),
  ):
    raise ValueError('refused')
  assert os.listdir(tmp_path) == []


def test_a_folder_that_a_killed_command_made_goes_with_the_one_that_follows(tmp_path):
  folder = tmp_path / 'scoring'
  holder(folder, pid=ended_process(), process='1')
  with lease.held(folder, 'PREPARED_DIR', 'score'):
    assert folder.exists()
  assert not folder.exists()


def test_a_file_is_no_folder(tmp_path):
  (tmp_path / 'file').write_text('content')
  for folder in ('file', 'file/run'):
    with (
      pytest.raises(OSError, match=r'MODEL_DIR .*file.* cannot be written'),
      lease.held(tmp_path / folder, 'MODEL_DIR', 'train'),
    ):
      pass
  assert (tmp_path / 'file').read_text() == 'content'


def test_half_a_file_of_a_machine_whose_clock_is_behind_is_left(tmp_path):
  half = tmp_path / f'.{lease.FILE}.other'
  half.write_text('')
  now = time.time()
  os.utime(half, (now - 2 * 3600, now - 2 * 3600))
  with lease.held(tmp_path, 'MODEL_DIR', 'train'):
    assert half.exists()
  os.utime(half, (now - 2 * 86_400, now - 2 * 86_400))
  with lease.held(tmp_path, 'MODEL_DIR', 'train'):
    assert not half.exists()

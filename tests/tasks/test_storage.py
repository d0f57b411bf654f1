"""What killed processes leave, and who may remove it."""

import os
import socket
import subprocess
import sys
import time

import pytest
from etils import epath

from aya_train.tasks import storage

ELSEWHERE = 'another_machine-1-1'


def dead():
  """The name of a process that was, and is no more."""
  process = subprocess.Popen([sys.executable, '-c', ''])
  process.wait()
  return f'{storage._machine()}-{process.pid}-7'


@pytest.mark.parametrize(
  ('owner', 'stays'), [(dead, False), (lambda: ELSEWHERE, True), (storage._me, True)]
)
def test_only_what_no_living_process_writes_is_removed(tmp_path, owner, stays):
  folder = tmp_path / f'.train-0-0.{owner()}.01234567.tmp'
  folder.mkdir()
  (folder / 'x').write_text('x')
  file = tmp_path / f'.x.json.{owner()}.01234567.partial'
  file.write_text('x')
  (tmp_path / '.hidden').write_text('of somebody else')
  storage.remove_leftovers(epath.Path(tmp_path))
  assert (folder.exists(), file.exists()) == (stays, stays)
  assert (tmp_path / '.hidden').exists()


def test_a_machine_of_the_same_name_is_another(tmp_path):
  folder = epath.Path(tmp_path / 'parts')
  folder.mkdir()
  (folder / f'.claim-{socket.gethostname()}_01234567-1-1').write_text('')
  assert not storage.is_abandoned(folder)


def test_what_another_machine_left_goes_after_a_day(tmp_path):
  folder, file = tmp_path / 'parts', tmp_path / f'.x.{ELSEWHERE}.01234567.tmp'
  (folder / 'units').mkdir(parents=True)
  paths = [folder / f'.claim-{ELSEWHERE}', folder / 'units' / 'x', file]
  for path in paths:
    path.write_text('')
  old = time.time() - 25 * 3600
  for path in (paths[0], folder / 'units', folder, file):
    os.utime(path, (old, old))
  storage.remove_leftovers(epath.Path(tmp_path))
  assert not file.exists()
  assert not storage.is_abandoned(epath.Path(folder))  # it still writes to units/x
  os.utime(paths[1], (old, old))
  assert storage.is_abandoned(epath.Path(folder))


def test_another_process_of_the_same_number_is_another(tmp_path):
  host, pid, started = storage._me().rsplit('-', 2)
  path = tmp_path / f'.x.{host}-{pid}-{int(started) + 1}.01234567.tmp'
  path.write_text('')
  storage.write_atomically(epath.Path(tmp_path / 'y'), 'y')
  assert [p.name for p in tmp_path.iterdir()] == ['y']


def test_a_folder_is_not_listed_for_each_file(tmp_path, monkeypatch):
  listed, real, clock = [], storage.remove_leftovers, [0.0]
  monkeypatch.setattr(storage.time, 'monotonic', lambda: clock[0])
  monkeypatch.setattr(storage, 'remove_leftovers', lambda x: (listed.append(x.name), real(x)))
  for clock[0] in (60.0, 120.0):
    for folder in ('a', 'b'):
      (tmp_path / folder).mkdir(exist_ok=True)
      for name in ('x', 'y', 'z'):
        storage.write_atomically(epath.Path(tmp_path / folder / name), name)
  assert listed == ['a', 'b', 'a', 'b']


def test_temporary_names_are_recognised(tmp_path):
  for ending in ('tmp', 'partial'):
    name = storage.temporary(epath.Path(tmp_path / 'a.b'), ending).name
    assert storage._TEMPORARY.fullmatch(name)['owner'] == storage._me()


def test_claims(tmp_path):
  folder = epath.Path(tmp_path / 'parts')
  folder.mkdir()
  assert not storage.is_abandoned(folder)  # just made
  storage.claim(folder)
  assert storage.is_abandoned(folder)  # by others
  (folder / f'.claim-{ELSEWHERE}').write_text('')
  assert not storage.is_abandoned(folder)
  storage.release(folder)
  (folder / f'.claim-{dead()}').write_text('')
  storage.remove_abandoned([folder])
  assert not folder.exists()

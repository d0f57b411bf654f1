import errno
import os
import types

import pytest
from etils import epath

from aya_train import disk_writes
from aya_train.cli import error_report
from aya_train.data import prepared
from aya_train.judging import reply_log
from aya_train.tasks import storage
from aya_train.tpu import precompile_page

FULL = '/dev/full'  # every write to it fails as on a full disk
pytestmark = pytest.mark.skipif(not os.path.exists(FULL), reason='no /dev/full on this system')


def append_reply(path, monkeypatch):
  log = reply_log.GrowingFile(path)
  assert log._file is not None
  log._file.raw.close()
  log._file = open(FULL, 'ab', buffering=0)  # noqa: SIM115
  log.append({'key': 'x'})


def write_atomically(path, monkeypatch):
  monkeypatch.setattr(storage, 'temporary', lambda *_: partial)
  partial = type(storage.epath.Path(path))(path.parent / 'partial')
  os.symlink(FULL, partial)
  storage.write_atomically(storage.epath.Path(path), 'x')


@pytest.mark.parametrize('write', [append_reply, write_atomically])
def test_a_full_disk_is_told_with_the_file(tmp_path, monkeypatch, write):
  with pytest.raises(OSError, match=r'No space left') as caught:
    write(tmp_path / 'out.jsonl', monkeypatch)
  report = error_report.of(caught.value)
  assert report.text == (
    f'the disk that {tmp_path}/out.jsonl is on is full (No space left on device): make room, and '
    'start the same command again'
  )
  assert (report.code, report.is_defect) == (1, False)


@pytest.fixture
def filling(monkeypatch):
  """A disk that takes half of what is written."""

  def half(path, content, *args, **kwargs):
    data = content.encode() if isinstance(content, str) else content
    with open(path, 'wb') as file:
      file.write(data[: len(data) // 2])
    raise OSError(errno.ENOSPC, 'No space left on device')

  for name in ('write_bytes', 'write_text'):
    monkeypatch.setattr(type(epath.Path('x')), name, half)


def write_compilation(path, monkeypatch):
  monkeypatch.setattr(precompile_page, 'page', lambda _: '<html>')
  result = types.SimpleNamespace(slice='v4-8', to_json=lambda: {'steps': 3})
  precompile_page.write(result, path.parent)


def write_kinds(path, monkeypatch):
  prepared.write_kinds(epath.Path(path.parent), None, 'train', {('yor',): 3})


@pytest.mark.parametrize(
  ('write', 'name'),
  [(write_compilation, 'precompile_v4-8.json'), (write_kinds, prepared.KINDS_FILE)],
)
def test_what_a_full_disk_cannot_take_leaves_the_earlier_file(
  tmp_path, monkeypatch, filling, write, name
):
  with open(tmp_path / name, 'w') as file:
    file.write('earlier')
  with pytest.raises(OSError, match=name):
    write(tmp_path / name, monkeypatch)
  assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, 'earlier')]


@pytest.mark.parametrize(
  'error', [ValueError('x'), OSError('in words'), OSError(errno.EACCES, 'x', 'c')]
)
def test_other_errors_stay_as_they_are(error):
  with pytest.raises(type(error)) as caught, disk_writes.named('a/b'):
    raise error
  assert caught.value is error

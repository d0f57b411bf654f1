import errno

import pytest
from etils import epath

from aya_train import destinations


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path):
  destinations.check_folder(tmp_path / 'new' / 'run', 'MODEL_DIR')
  assert not list((tmp_path / 'new' / 'run').iterdir())


def test_a_full_disk_is_left_without_the_probe(tmp_path, monkeypatch):
  def half(path, content):
    with open(path, 'wb') as file:
      file.write(content[:10])
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(type(epath.Path(tmp_path)), 'write_bytes', half)
  with pytest.raises(OSError, match=r'MODEL_DIR .* cannot be written \(its disk is full\)'):
    destinations.check_folder(tmp_path, 'MODEL_DIR')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('place', ['file', 'file/run'])
def test_a_file_in_the_way_is_named(tmp_path, place):
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError, match=rf'MODEL_DIR .*{place} cannot be written .*: give a folder'):
    destinations.check_folder(tmp_path / place, 'MODEL_DIR')


def test_a_file_to_write_is_no_folder(tmp_path):
  destinations.check_file(tmp_path / 'page.html', '--output')
  assert not (tmp_path / 'page.html').exists()
  with pytest.raises(OSError, match='is a folder'):
    destinations.check_file(tmp_path, '--output')


def test_room_is_that_of_the_disk_a_folder_will_lie_on(tmp_path):
  there = destinations.free_bytes(tmp_path)
  assert there is not None and there > 0
  assert destinations.free_bytes('gs://bucket/run') is None
  missing = tmp_path / 'not' / 'made' / 'yet'
  destinations.check_room(missing, 'MODEL_DIR', 1, 'one checkpoint')
  with pytest.raises(
    OSError, match=r'has .* GB free and one checkpoint takes 1e\+09 GB: make room'
  ):
    destinations.check_room(missing, 'MODEL_DIR', 10**18, 'one checkpoint')
  assert not (tmp_path / 'not').exists()


@pytest.mark.parametrize(
  ('error', 'full'),
  [
    (OSError(28, 'No space left on device'), True),
    (RuntimeError('RESOURCE_EXHAUSTED: Failed to write 12 bytes'), True),
    (ValueError('Disk quota exceeded'), True),
    (OSError(13, 'Permission denied'), False),
  ],
)
def test_a_full_disk_is_known_in_all_its_words(error, full):
  assert destinations.is_full(error) is full

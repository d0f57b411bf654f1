"""Folders appear complete or not at all."""

import errno
import os
import subprocess
import sys

import pytest

from aya_train.checkpoint import work_folder


def write(dst, text='new', **kwargs):
  with work_folder.replacing(dst, **kwargs) as work:
    (work / 'out').mkdir()
    (work / 'out' / 'file').write_text(text)


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_a_folder_takes_its_name_at_the_end(tmp_path):
  with work_folder.replacing(tmp_path / 'a' / 'dst') as work:
    (work / 'out').mkdir()
    assert names(tmp_path / 'a') == ['.dst.partial']
  assert names(tmp_path / 'a') == ['dst']


@pytest.mark.parametrize('error', [ValueError('no'), KeyboardInterrupt()])
def test_an_error_leaves_the_old_folder_and_nothing_else_and_passes(tmp_path, error):
  write(tmp_path / 'dst', 'old')

  def fail():
    with (
      work_folder.replacing(tmp_path / 'dst', overwrite=True) as outer,
      work_folder.replacing(outer / 'out') as inner,
    ):
      (inner / 'out').mkdir()
      raise error

  with pytest.raises(type(error)) as raised:
    fail()
  assert raised.value is error
  assert names(tmp_path) == ['dst'] and (tmp_path / 'dst' / 'file').read_text() == 'old'


def test_what_a_killed_program_left_is_cleared_whatever_its_process_id(tmp_path):
  """In containers, the next program often has the id of the killed one."""
  work = tmp_path / '.dst.partial'
  (work / 'out').mkdir(parents=True)
  (work / 'out' / 'half').write_text('')
  (work / 'lock').write_text('')
  write(tmp_path / 'dst')
  assert names(tmp_path) == ['dst'] and names(tmp_path / 'dst') == ['file']


def test_a_folder_moved_aside_by_a_killed_program_is_put_back(tmp_path):
  (tmp_path / '.dst.partial' / 'old').mkdir(parents=True)
  (tmp_path / '.dst.partial' / 'old' / 'file').write_text('old')
  with pytest.raises(FileExistsError, match='--overwrite'):
    write(tmp_path / 'dst')
  assert names(tmp_path) == ['dst'] and (tmp_path / 'dst' / 'file').read_text() == 'old'


def test_two_programs_do_not_write_one_folder(tmp_path):
  program = f"""
from aya_train.checkpoint import work_folder
with work_folder.replacing({str(tmp_path / 'dst')!r}):
  pass
"""
  with work_folder.replacing(tmp_path / 'dst') as work:
    (work / 'out').mkdir()
    found = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert 'another program is writing' in found.stderr
    assert (work / 'out').exists()
  assert names(tmp_path) == ['dst']


def test_links_are_followed(tmp_path):
  (tmp_path / 'disk').mkdir()
  (tmp_path / 'dst').symlink_to(tmp_path / 'disk' / 'new')
  write(tmp_path / 'dst')
  assert names(tmp_path / 'disk') == ['new'] and (tmp_path / 'dst').is_symlink()
  (tmp_path / 'source').mkdir()
  (tmp_path / 'link').symlink_to(tmp_path / 'source')
  with pytest.raises(ValueError, match='must not lie in one another'):
    work_folder.check_apart(tmp_path / 'source', tmp_path / 'link' / 'out')


def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch):
  (tmp_path / 'here' / 'below').mkdir(parents=True)
  for where in ('here', 'here/below'):
    monkeypatch.chdir(tmp_path / where)
    with pytest.raises(ValueError, match='current folder'):
      write(tmp_path / 'here', overwrite=True)
  with pytest.raises(ValueError, match='current folder'):
    write('.')
  write('dst/')
  assert names(tmp_path / 'here' / 'below') == ['dst']


def test_a_mount_point_is_refused_before_any_work(tmp_path, monkeypatch):
  (tmp_path / 'dst').mkdir()
  monkeypatch.setattr(os.path, 'ismount', lambda path: str(path) == str(tmp_path / 'dst'))
  with pytest.raises(ValueError, match='disk is mounted'):
    write(tmp_path / 'dst')


def test_files_that_epath_does_not_list_count(tmp_path):
  (tmp_path / 'dst').mkdir()
  (tmp_path / 'dst' / 'notes~').write_text('mine')
  with pytest.raises(FileExistsError, match='--overwrite'):
    write(tmp_path / 'dst')


@pytest.mark.parametrize(
  'error',
  [OSError(errno.ENOSPC, 'No space left on device'), RuntimeError('RESOURCE_EXHAUSTED: write')],
)
def test_a_full_disk_is_called_so(tmp_path, error):
  with (
    pytest.raises(OSError, match='has no room left') as raised,
    work_folder.replacing(tmp_path / 'dst'),
  ):
    raise error
  assert str(tmp_path) in str(raised.value) and names(tmp_path) == []


def fill_disk_inside_work_folder(dst):
  with work_folder.replacing(dst) as work:
    (work / 'hf').mkdir()
    with work_folder.replacing(work / 'hf' / 'dst'):
      raise OSError(errno.ENOSPC, 'No space left on device')


def test_a_full_disk_met_inside_a_work_folder_names_the_folder_around_it(tmp_path):
  with pytest.raises(OSError, match='has no room left') as raised:
    fill_disk_inside_work_folder(tmp_path / 'dst')
  assert f'{tmp_path} has no room left' in str(raised.value)
  assert f'{tmp_path} has no room left' in str(raised.value.__cause__)
  assert work_folder.known(tmp_path / '.dst.partial' / 'hf' / '.dst.partial') == tmp_path
  assert work_folder.known(tmp_path) == tmp_path
  assert names(tmp_path) == []


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='no file system that makes no folders')
def test_a_place_that_makes_no_folders_is_refused_and_not_tried_for_ever():
  with pytest.raises(OSError, match=r'/proc cannot be written: .*Take another DST'):
    write('/proc/weights')

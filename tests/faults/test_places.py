"""Folders that cannot be written, full disks, checkpoints that may only be read or were moved."""

import pytest

from tests.faults import command_runs, modules

pytestmark = pytest.mark.faults


@pytest.fixture(scope='module')
def places():
  return modules.run('place_trials')


@pytest.mark.parametrize('kind', command_runs.KINDS)
def test_a_folder_that_cannot_be_written_is_refused_by_name(places, kind):
  found = places[kind]
  assert found['code'] == 1 and not found['defect'], found
  assert len(found['errors']) == 1 and f'closed_{kind}' in found['errors'][0]
  assert found['left'] == []


def test_weights_that_may_only_be_read_are_read_and_stay_as_they_are(places):
  found = places['read-only']
  assert found['codes'] == {'eval': 0, 't5x': 0, 'train': 0}, found['said']
  assert found['same']


def test_a_run_that_was_copied_elsewhere_goes_on_there(places):
  assert places['moved'] == {'code': 0, 'same': True, 'step': 6, 'back': False}


@pytest.mark.parametrize('kind', command_runs.KINDS)
def test_a_full_disk_is_one_message_and_the_same_command_goes_on_when_there_is_room(kind):
  for found in modules.run('disk_trials', kind, before=modules.small_disk()):
    assert found['again'] == 0, found
    assert found['code'] in (0, 1) and not found['defect'], found
    if found['code']:
      assert len(found['errors']) == 1, found
      assert any(
        word in found['errors'][0] for word in ('room', 'full', 'free', 'No space left')
      ), found

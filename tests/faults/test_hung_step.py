"""A run that hangs is shown, ended and started again; a slow one is left in peace."""

import pytest

from aya_train import watchdog
from tests.faults import modules

pytestmark = pytest.mark.faults
PHASES = {
  'step': 'training, after step 4: nothing has moved',
  'data': 'training, after step 4: nothing has moved',
  'decoding': 'decoding: nothing has moved',
  'save': 'saving step 4: nothing has moved',
}


@pytest.fixture(scope='module')
def found():
  return modules.run('hang_trials')


@pytest.mark.parametrize('where', PHASES)
def test_a_hang_is_named_with_its_phase_and_its_stacks_and_the_same_command_goes_on(found, where):
  trial = found[where]
  assert trial['code'] == watchdog.EXIT_CODE
  assert any(PHASES[where] in line for line in trial['said']), trial['said']
  assert len(trial['stacks']) == 1 and 'in hang' in trial['stacks'][0]
  assert trial['same']


@pytest.mark.parametrize('where', ['slow save', 'slow start'])
def test_what_takes_long_by_its_nature_is_waited_for(found, where):
  assert found[where] == {'code': 0, 'said': [], 'stacks': [], 'same': True}

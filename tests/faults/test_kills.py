"""Killed (-9) at random moments of its writing, work comes to the same end as without kills."""

import pytest

from tests.faults import modules

pytestmark = pytest.mark.faults


@pytest.mark.parametrize('kind', ['sync', 'async'])
def test_a_run_that_is_killed_inside_its_saves_ends_with_the_same_bits(kind):
  found = modules.run('kill_trials', kind, '--trials', 6, '--seed', 1)
  assert found['kills'] >= 6
  assert found['different'] == []


@pytest.mark.parametrize('kind', ['prepare', 'shards', 'eval', 't5x', 'native'])
def test_work_that_is_killed_leaves_nothing_in_the_way_of_the_same_command(kind):
  found = modules.run('kill_trials', kind, '--trials', 12, '--seed', 1)
  assert found['kills'] >= 3
  assert found['different'] == []

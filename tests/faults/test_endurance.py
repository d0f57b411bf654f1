"""20,000 steps with saves and evaluations: memory, descriptors and threads stay where they are."""

import sys

import numpy as np
import pytest

from tests.faults import modules

pytestmark = [
  pytest.mark.faults,
  pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc of Linux'),
]
STEPS = 20_000


def test_a_long_run_holds_no_more_at_its_end_than_at_its_quarter():
  found = modules.run('endurance', '--steps', STEPS)
  assert found['parameters'] < 1000
  samples = [s for s in found['samples'] if s['step'] >= STEPS // 4]
  assert len(samples) >= 12 and samples[-1]['step'] > 0.9 * STEPS
  steps, megabytes = ([s[name] for s in samples] for name in ('step', 'megabytes'))
  slope = np.polyfit(steps, megabytes, 1)[0] * 10_000
  assert slope < 20, f'{slope:.1f} MB more in 10,000 steps'
  half = len(samples) // 2
  for name in ('descriptors', 'threads'):
    # Of samples that fall into a save some have a dozen files more.
    early, late = (np.median([s[name] for s in x]) for x in (samples[:half], samples[half:]))
    assert late <= early + 2, f'{name}: {early}, later {late}'

"""Every parser on many mutated inputs; all 10^6 of them: `python -m tests.faults.fuzz`."""

import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.faults
ROOT = pathlib.Path(__file__).parents[2]


def test_no_input_crashes_a_parser_or_makes_it_hang():
  words = ['--inputs', '60000', '--seed', '1', '--seconds', '60']
  result = subprocess.run(
    [sys.executable, '-m', 'tests.faults.fuzz', *words],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=1500,
    check=False,
  )
  assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
  assert ', 0 kinds of fault' in result.stdout

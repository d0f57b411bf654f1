"""Trials are programs of their own (see forks.py); this starts them from a test."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SECONDS = 900


def run(module: str, *words: object, before: tuple[str, ...] = ()) -> Any:
  """What `python -m tests.faults.MODULE WORDS` prints last, as JSON; it must end with 0.

  Args:
    module: of tests/faults.
    words: of its command line.
    before: the beginning of the command: what the program runs under.
  """
  command = [*before, sys.executable, '-m', f'tests.faults.{module}', *map(str, words)]
  env = {**os.environ, 'PYTHONPATH': str(ROOT), 'TF_CPP_MIN_LOG_LEVEL': '3'}
  result = subprocess.run(
    command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=SECONDS, check=False
  )
  assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
  return json.loads(result.stdout.splitlines()[-1])


def small_disk() -> tuple[str, ...]:
  """The beginning of a command that may mount small disks, without being root; or skips."""
  words = ('unshare', '--user', '--map-root-user', '--mount')
  if shutil.which('unshare') is None or subprocess.run([*words, 'true'], check=False).returncode:
    pytest.skip('needs user namespaces (unshare), to mount a disk of a few megabytes')
  return words

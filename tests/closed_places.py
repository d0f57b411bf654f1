"""Folders that the user of a test may not enter, root too."""

import contextlib
import ctypes
import os
import pathlib
import sys
from collections.abc import Iterator

import pytest

_VERSION = 0x20080522  # of capset's header
_OVERRIDES = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


@contextlib.contextmanager
def closed(folder: pathlib.Path, mode: int = 0) -> Iterator[None]:
  """Takes a folder's rights away, and root's right to pass over them."""
  before = folder.stat().st_mode
  folder.chmod(mode)
  try:
    with _without_overrides():
      yield
  finally:
    folder.chmod(before)


@contextlib.contextmanager
def _without_overrides() -> Iterator[None]:
  if os.geteuid() != 0:
    yield
    return
  if not sys.platform.startswith('linux'):
    pytest.skip('root enters every folder on this system')
  libc = ctypes.CDLL(None, use_errno=True)
  header = (ctypes.c_uint32 * 2)(_VERSION, 0)
  sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then of higher numbers
  if libc.capget(header, sets):
    pytest.skip('the rights of this process cannot be read')
  effective = sets[0]
  sets[0] = effective & ~_OVERRIDES
  assert libc.capset(header, sets) == 0
  try:
    yield
  finally:
    sets[0] = effective
    assert libc.capset(header, sets) == 0

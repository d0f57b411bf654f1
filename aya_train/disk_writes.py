"""Errors of writing, with the name of the file, which the system leaves out."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
  """What the system says of a write that fails, such as a full disk, names this file.

  Raises:
    OSError: as the system has it, with the file.
  """
  try:
    yield
  except OSError as error:
    if error.errno is None or error.filename is not None or len(error.args) != 2:
      raise
    raise OSError(error.errno, error.strerror, os.fspath(path)) from error

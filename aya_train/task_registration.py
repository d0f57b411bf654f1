"""When the tasks are registered: as their package is imported, or where they are first needed.

SeqIO and TensorFlow come with them: seconds, and most of a gigabyte. A command that answers prompts
needs neither.
"""

import importlib

_put_off = False


def put_off() -> None:
  """From here on, importing the package or one of its modules registers nothing."""
  global _put_off
  _put_off = True


def is_put_off() -> bool:
  """Whether `put_off` was called, and `complete` was not."""
  return _put_off


def need() -> None:
  """Registers all tasks if that was put off: before they are looked up by name."""
  if _put_off:
    complete()


def complete() -> None:
  """Registers all tasks, unless they are."""
  global _put_off
  _put_off = False
  importlib.import_module('aya_train.tasks.registered')

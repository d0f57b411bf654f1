"""Processes that begin where this one stands, so that a kill costs no import.

Nothing that starts threads may have run before: neither JAX's devices nor TensorFlow's operations.
So trials are modules of their own, which the tests start: `python -m tests.faults.kill_trials`.
"""

import faulthandler
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any


def start(log: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
  """Calls a function in a child, whose output goes to the end of a file; returns its process id."""
  if pid := os.fork():
    return pid
  code = 1
  try:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    faulthandler.enable()
    function(*args, **kwargs)
    code = 0
  except BaseException:
    traceback.print_exc()
  finally:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def finish(pid: int, seconds: float = 300) -> int:
  """Waits for a child; returns its exit code, negative for a signal."""
  deadline = time.monotonic() + seconds
  while time.monotonic() < deadline:
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
      return os.waitstatus_to_exitcode(status)
    time.sleep(0.01)
  os.kill(pid, signal.SIGKILL)
  os.waitpid(pid, 0)
  raise TimeoutError(f'a child did not end within {seconds:g} s')


def ended(pid: int) -> int | None:
  """The exit code of a child that has ended, None if it runs."""
  done, status = os.waitpid(pid, os.WNOHANG)
  return os.waitstatus_to_exitcode(status) if done else None


def run(log: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
  """Calls a function in a child, which must end well."""
  if code := finish(start(log, function, *args, **kwargs)):
    with open(log, errors='replace') as file:
      raise AssertionError(f'a child ended with {code}:\n{file.read()[-3000:]}')


def answer(log: str, function: Callable[..., Any], *args: Any) -> Any:
  """What a function returns, called in a child."""
  file = f'{log}.answer'

  def keep() -> None:
    with open(file, 'wb') as out:
      pickle.dump(function(*args), out)

  run(log, keep)
  with open(file, 'rb') as kept:
    return pickle.load(kept)


def kill(pid: int) -> int | None:
  """Kills a child as `kill -9` does; returns its exit code if it had ended before."""
  if (code := ended(pid)) is not None:
    return code
  os.kill(pid, signal.SIGKILL)
  finish(pid)
  return None

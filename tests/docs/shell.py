"""Runs shell text in which programs are functions of this process.

A start of aya-train takes eight seconds, most of them imports. So `aya-train` on the PATH is a
script that hands its arguments to the test, which calls `main` where everything is imported
already.
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

_SOCKET = 'AYA_TRAIN_TEST_SOCKET'
_PROGRAM = f"""#!{sys.executable} -SE
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(os.environ[{_SOCKET!r}])
call = [os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd(), dict(os.environ)]
connection.sendall(json.dumps(call).encode())
connection.shutdown(socket.SHUT_WR)
sys.exit(int(connection.recv(16)))
"""


class Call(NamedTuple):
  """A program that a shell started: its name, arguments, folder and environment."""

  program: str
  arguments: Sequence[str]
  folder: str
  environment: Mapping[str, str]


class Ended(NamedTuple):
  """How shell text ended, and what it printed (programs that are functions print elsewhere)."""

  code: int
  output: str


def add_program(folder: pathlib.Path, name: str) -> None:
  """A program whose calls go to the `answer` of `run`."""
  (folder / name).write_text(_PROGRAM)
  (folder / name).chmod(0o755)


def run(
  text: str,
  folder: pathlib.Path,
  environment: Mapping[str, str],
  answer: Callable[[Call], int],
  limit: float = 300,
) -> Ended:
  """Runs bash, and calls `answer` in this thread for each program of `add_program` that it starts.

  Raises:
    TimeoutError: it did not end in `limit` seconds, time inside `answer` not counted.
  """
  with contextlib.ExitStack() as stack:
    place = stack.enter_context(tempfile.TemporaryDirectory(prefix='aya.'))
    output = stack.enter_context(open(f'{place}/output', 'w+', encoding='utf-8'))
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(f'{place}/s')
    listener.listen()
    listener.settimeout(0.05)
    process = subprocess.Popen(
      ['bash', '-euo', 'pipefail', '-c', text],
      cwd=folder,
      env={**environment, _SOCKET: f'{place}/s'},
      stdin=subprocess.DEVNULL,
      stdout=output,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )
    stack.callback(_kill, process)
    waited, last = 0.0, time.monotonic()
    while process.poll() is None:
      with contextlib.suppress(TimeoutError):
        _serve(listener.accept()[0], answer)
        last = time.monotonic()
      waited, last = waited + time.monotonic() - last, time.monotonic()
      if waited > limit:
        raise TimeoutError(f'{text}\ndid not end in {limit:.0f} s: {_read(output)}')
    return Ended(process.returncode, _read(output))


def _serve(connection: socket.socket, answer: Callable[[Call], int]) -> None:
  with connection:
    connection.settimeout(None)
    received = b''.join(iter(lambda: connection.recv(1 << 16), b''))
    code = 1
    try:
      code = answer(Call(*json.loads(received)))
    finally:
      with contextlib.suppress(OSError):  # the caller was killed
        connection.sendall(str(code).encode())


def _kill(process: subprocess.Popen) -> None:
  if process.poll() is None:
    os.killpg(process.pid, 9)
    process.wait()


def _read(output) -> str:
  output.seek(0)
  return output.read()

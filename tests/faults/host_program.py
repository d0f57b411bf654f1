"""One of several hosts that only meet, again and again: `python -m ... PORT HOSTS INDEX TIMEOUT`.

It ends as a command does: with a message and a code. Without a model it takes a second to start.
"""

import contextlib
import os
import sys
import time

from aya_train import hosts, peers, watchdog


def meet(port: int, count: int, index: int) -> int:
  """Meets the others for ever; returns the exit code of what goes wrong."""
  import jax

  jax.config.update('jax_platforms', 'cpu')
  try:
    hosts.join(f'localhost:{port}', count, index)
    print('joined', flush=True)
    for step in range(10**9):
      late = os.environ.get('LATE_HOST') == str(index) and step == 3
      with watchdog.phase('looking the other way' if late else 'training'):
        time.sleep(1000 if late else 0.1)
      with watchdog.phase(f'saving step {step}'), hosts.together():
        pass
      with watchdog.phase('training'):
        assert hosts.first_says([step]) == [step]
  except Exception as error:
    said = hosts.describe_lost(error) if hosts.is_lost(error) else str(error)
    print(f'error: {said}', file=sys.stderr, flush=True)
    return 3
  return 0


def main() -> None:
  port, count, index = map(int, sys.argv[1:4])
  peers.BARRIER_TIMEOUT = float(sys.argv[4])
  if (seconds := os.environ.get('JOIN_SECONDS')) is not None:
    hosts.JOIN_TIMEOUT = int(seconds)
  with hosts.watched() if count > 1 else contextlib.nullcontext():
    code = meet(port, count, index)
  hosts.leave(code)


if __name__ == '__main__':
  main()

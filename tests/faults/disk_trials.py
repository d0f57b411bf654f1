"""Disks that fill up: `python -m tests.faults.disk_trials KIND`, under `unshare -Urm`.

A small disk is mounted, and filled but for some kilobytes; a command writes to it. It must end
well, or with one message that speaks of the disk. Then room is made, and the same command must come
to its end. Prints a JSON line: what each amount of room led to.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

from tests import test_train_loop
from tests.faults import command_runs, forks

ROOMS = (0, 150, 500, 900)  # kB; a checkpoint takes 455
SIZE = 64  # MB of the disk


def mount(disk: pathlib.Path) -> None:
  disk.mkdir(parents=True)
  subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={SIZE}m', 'none', disk], check=True)


def fill(disk: pathlib.Path, room: int) -> pathlib.Path:
  """Leaves `room` kilobytes; returns the file that takes the rest."""
  ballast = disk / 'ballast'
  with ballast.open('wb') as file:
    file.truncate(0)
    left = shutil.disk_usage(disk).free - (room << 10)
    file.write(b'\0' * max(0, left))
  return ballast


def trial(kind: str, root: pathlib.Path, disk: pathlib.Path, room: int) -> dict[str, object]:
  mount(disk)
  log = disk.parent / f'{disk.name}.log'
  words = command_runs.words(kind, root, disk)
  ballast = fill(disk, room)
  code = forks.finish(forks.start(str(log), command_runs.command, root, words))
  said = log.read_text(errors='replace')
  ballast.unlink()
  again = forks.finish(forks.start(str(log) + '2', command_runs.command, root, words))
  errors = [line for line in said.splitlines() if line.startswith('aya-train ')]
  second = pathlib.Path(str(log) + '2').read_text(errors='replace')
  result = {'room': room, 'code': code, 'errors': errors, 'again': again}
  result['defect'] = 'looks like a defect' in said or 'Traceback' in said
  if again:
    result['second'] = second[-1500:]
  subprocess.run(['umount', '-l', disk], check=False)
  return result


def main() -> None:
  kind = sys.argv[1]
  test_train_loop.register_task()
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    command_runs.prepare(root)
    found = [trial(kind, root, root / f'disk{room}', room) for room in ROOMS]
  print(json.dumps(found))


if __name__ == '__main__':
  main()

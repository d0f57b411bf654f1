"""Folders that cannot be written, and checkpoints that were moved: `... tests.faults.place_trials`.

Prints a JSON line: by name of a trial, exit codes and what was said. Commands run without rights
that root has.
"""

import json
import os
import pathlib
import shutil
import tempfile

from aya_train.checkpoint import manager
from tests.faults import (
  command_runs,
  copy_task,  # noqa: F401
  forks,
  kill_trials,
  tiny_runs,
)

NOBODY = 65534


def as_user(root: pathlib.Path, words: list[str]) -> None:
  """A command, without root's right to write everywhere."""
  if os.getuid() == 0:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
  os.environ['HOME'] = str(root / 'home')
  command_runs.command(root, words)


def unwritable(root: pathlib.Path, kind: str) -> dict[str, object]:
  closed, log = root / f'closed_{kind}', root / f'closed_{kind}.log'
  closed.mkdir()
  closed.chmod(0o555)
  words = command_runs.words(kind, root, closed)
  code = forks.finish(forks.start(str(log), as_user, root, words))
  said = log.read_text(errors='replace')
  return {
    'code': code,
    'errors': [line for line in said.splitlines() if line.startswith('aya-train ')],
    'defect': 'looks like a defect' in said or 'Traceback' in said,
    'left': os.listdir(closed),
  }


def read_only(root: pathlib.Path) -> dict[str, object]:
  """Weights of a run that nobody may write are read, evaluated, converted and trained on."""
  source = root / 'trained'
  before = kill_trials.files(source)
  for path in (source, *source.rglob('*')):
    path.chmod(0o555 if path.is_dir() else 0o444)
  out = root / 'from_read_only'
  out.mkdir()
  out.chmod(0o777)
  codes = {}
  commands = {kind: command_runs.words(kind, root, out) for kind in ('eval', 't5x')}
  begun = [f'--gin.INITIAL_CHECKPOINT_PATH="{source}"', '--gin.TRAIN_STEPS=8']
  commands['train'] = command_runs.train_words(root, out / 'run', root / 'prepared') + begun
  for name, words in commands.items():
    codes[name] = forks.finish(forks.start(str(root / 'read_only.log'), as_user, root, words))
  said = (root / 'read_only.log').read_text(errors='replace')[-1500:] if any(codes.values()) else ''
  return {'codes': codes, 'same': kill_trials.files(source) == before, 'said': said}


def moved(root: pathlib.Path) -> dict[str, object]:
  """A run whose folder is copied elsewhere, and then lost where it was, goes on there."""
  log, here, there = str(root / 'moved.log'), root / 'here', root / 'else where' / 'there'
  words = command_runs.train_words(root, here, root / 'prepared')
  forks.run(log, command_runs.command, root, [*words, '--gin.TRAIN_STEPS=4'])
  there.parent.mkdir()
  shutil.copytree(here, there)
  shutil.rmtree(here)
  words = command_runs.train_words(root, there, root / 'prepared')
  code = forks.finish(forks.start(log, command_runs.command, root, words))
  whole = tiny_runs.losses(root / 'trained')
  return {
    'code': code,
    'same': tiny_runs.losses(there) == whole and sorted(whole) == [1, 2, 3, 4, 5, 6],
    'step': manager.latest_step(there),
    'back': here.exists(),
  }


def main() -> None:
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    root.chmod(0o777)
    (root / 'home').mkdir()
    (root / 'home').chmod(0o777)
    command_runs.prepare(root)
    found = {'moved': moved(root)}
    found |= {kind: unwritable(root, kind) for kind in command_runs.KINDS}
    found['read-only'] = read_only(root)
    for path in (root / 'trained').rglob('*'):
      path.chmod(0o777)
  print(json.dumps(found))


if __name__ == '__main__':
  main()

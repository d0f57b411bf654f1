"""Kills at random moments: `python -m tests.faults.kill_trials KIND --trials 12 --seed 0`.

Each trial kills the same work again and again (-9), until it comes to its end, and compares what is
there then with what is there if nobody kills. Prints a JSON line: kills, and trials that differ.
"""

import argparse
import json
import pathlib
import random
import sys
import tempfile
import time
from collections.abc import Callable

from tests import test_train_loop
from tests.faults import forks, tiny_runs

STEPS = 8
KILLS = 4  # of one run, before it may come to its end


def _unfinished(model_dir: pathlib.Path) -> set[str]:
  folder = model_dir / 'checkpoints'
  names = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
  return {name for name in names if 'tmp' in name}


def kill_in_save(pid: int, model_dir: pathlib.Path, rng: random.Random) -> int | None:
  """Kills a run shortly after it has begun to write one of its next checkpoints."""
  skip = rng.randrange(3)
  seen = _unfinished(model_dir)
  while (code := forks.ended(pid)) is None:
    new = _unfinished(model_dir) - seen
    if new and not skip:
      time.sleep(rng.random() ** 2 * 0.25)
      return forks.kill(pid)
    if new:
      skip -= 1
      seen |= new
    time.sleep(0.001)
  return code


def runs(root: pathlib.Path, trials: int, seed: int, use_async: bool) -> dict[str, object]:
  """Kills of a training run inside its saves."""
  folder, log = root, str(root / 'log')
  whole = root / 'whole'
  forks.run(log, tiny_runs.train, folder, whole, STEPS, use_async)
  kills, different = 0, []
  for trial in range(trials):
    rng = random.Random(f'{seed}/{trial}')
    run = root / f'run{trial}'
    for _ in range(KILLS):
      pid = forks.start(log, tiny_runs.train, folder, run, STEPS, use_async)
      if (code := kill_in_save(pid, run, rng)) is not None:
        assert code == 0, (root / 'log').read_text()[-3000:]
        break
      kills += 1
    forks.run(log, tiny_runs.train, folder, run, STEPS, use_async)
    left = sorted(_unfinished(run))
    same = tiny_runs.same_state(run, whole) and tiny_runs.losses(run) == tiny_runs.losses(whole)
    if not same or left:
      different.append({'trial': trial, 'same': same, 'left': left})
  return {'kills': kills, 'different': different}


def work(
  root: pathlib.Path,
  trials: int,
  seed: int,
  do: Callable[[pathlib.Path], None],
  result: Callable[[pathlib.Path], object],
  left: Callable[[pathlib.Path], list[str]],
) -> dict[str, object]:
  """Kills of shorter work: at any moment of the time that it takes."""
  log = str(root / 'log')
  (root / 'whole').mkdir()
  began = time.monotonic()
  forks.run(log, do, root / 'whole')
  took = time.monotonic() - began
  expected, kills, different = forks.answer(log, result, root / 'whole'), 0, []
  for trial in range(trials):
    rng = random.Random(f'{seed}/{trial}')
    out = root / f'out{trial}'
    out.mkdir()
    pid = forks.start(log, do, out)
    time.sleep(rng.random() * took)
    kills += forks.kill(pid) is None
    forks.run(log, do, out)
    if forks.answer(log, result, out) != expected or left(out):
      different.append({'trial': trial, 'left': left(out)})
  return {'kills': kills, 'different': different}


def hidden(folder: pathlib.Path) -> list[str]:
  """What nobody asked for: hidden files, and files that are half written."""
  return sorted(
    str(p.relative_to(folder))
    for p in folder.rglob('*')
    if p.name.startswith('.') or p.name.endswith(('.tmp', '.partial', '.parts'))
  )


def files(folder: pathlib.Path) -> dict[str, bytes]:
  return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def trials_of(kind: str, root: pathlib.Path, trials: int, seed: int) -> dict[str, object]:
  if kind in ('sync', 'async'):
    return runs(root, trials, seed, kind == 'async')
  if kind in ('prepare', 'shards'):
    function = tiny_runs.prepare if kind == 'prepare' else tiny_runs.prepare_in_shards
    return work(root, trials, seed, lambda out: function(root, out), tiny_runs.contents, hidden)
  trained = root / 'trained'
  forks.run(str(root / 'log'), tiny_runs.train, root, trained, 2, False)
  if kind == 'eval':
    return work(
      root,
      trials,
      seed,
      lambda out: tiny_runs.evaluate(root, trained, out),
      figures,
      lambda out: [],
    )
  return work(
    root,
    trials,
    seed,
    lambda out: tiny_runs.convert_to(trained, out / 'x', kind),
    lambda out: files(out) if kind == 't5x' else sorted(files(out)),
    lambda out: [name for name in hidden(out) if not name.startswith('x/')],
  )


def figures(out: pathlib.Path) -> object:
  records = tiny_runs.metric_writer.read(out)
  answers = sorted(out.rglob('*.jsonl'))
  lines = {p.name: len(p.read_text().splitlines()) for p in answers if p.parent != out}
  return [{k: v for k, v in r.items() if 'second' not in k} for r in records], lines


def main() -> int:
  parser = argparse.ArgumentParser(prog='python -m tests.faults.kill_trials', description=__doc__)
  kinds = ('sync', 'async', 'prepare', 'shards', 'eval', 't5x', 'native')
  parser.add_argument('kind', choices=kinds)
  parser.add_argument('--trials', type=int, default=12)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  test_train_loop.register_task()
  with tempfile.TemporaryDirectory() as folder:
    found = trials_of(args.kind, pathlib.Path(folder), args.trials, args.seed)
  print(json.dumps(found))
  return 1 if found['different'] else 0


if __name__ == '__main__':
  sys.exit(main())

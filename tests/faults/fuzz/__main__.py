"""Runs all parsers on mutated inputs: `python -m tests.faults.fuzz --inputs 1000000`.

Prints how many inputs each parser had, in what time, and each kind of fault once with the input
that shows it. Ends with 1 if there is any. The same seed gives the same inputs.
"""

import argparse
import collections
import faulthandler
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

from tests.faults.fuzz import mutations, parsers, trials


def work(name: str, count: int, seed: int, folder: pathlib.Path, seconds: float) -> None:
  """Prints a JSON object: what one parser did with `count` inputs, or as many as it had time for.

  The index of the input at hand stands in a file, so that a crash can be told.
  """
  parser = parsers.named(name)
  samples = list(parser.samples())
  for i, sample in enumerate(samples):
    if problem := trials.fault(parser, sample, folder):
      raise AssertionError(f'{name}: sample {i} is not valid: {problem}')
  found: dict[str, dict[str, object]] = {}
  done, began = 0, time.monotonic()
  with (folder.parent / 'at').open('wb', buffering=0) as at:
    for i in range(count):
      if time.monotonic() - began > seconds:
        break
      data = mutations.mutated(samples, random.Random(f'{seed}/{name}/{i}'))
      at.seek(0)
      at.write(i.to_bytes(8, 'little'))
      if problem := trials.fault(parser, data, folder):
        kind = problem if ' at ' in problem else problem.partition(':')[0]
        kind = re.sub(r"'[^']*'|[\d\W]+", ' ', kind)
        found.setdefault(kind, {'problem': problem, 'index': i, 'input': data[:400].hex()})
      done += 1
  result = {'done': done, 'seconds': time.monotonic() - began, 'faults': list(found.values())}
  print('\n' + json.dumps(result), flush=True)


def run(name: str, count: int, seed: int, seconds: float) -> dict[str, object]:
  """The same in a process of its own, whose crash is a fault too."""
  with tempfile.TemporaryDirectory(dir='/dev/shm' if os.path.isdir('/dev/shm') else None) as root:
    folder = pathlib.Path(root) / 'inputs'
    folder.mkdir()
    words = ['--work', name, '--inputs', str(count), '--seed', str(seed), '--folder', str(folder)]
    words += ['--seconds', str(seconds)]
    result = subprocess.run(
      [sys.executable, '-m', 'tests.faults.fuzz', *words],
      capture_output=True,
      text=True,
      errors='replace',
      check=False,
      timeout=seconds + 300,
    )
    if result.returncode == 0:
      return json.loads(result.stdout.splitlines()[-1])
    at = folder.parent / 'at'
    index = int.from_bytes(at.read_bytes(), 'little') if at.exists() else 0
    tail = result.stderr.strip()[-600:]
    problem = f'the process ended with {result.returncode}: {tail}'
    return {'done': index, 'seconds': 0.0, 'faults': [{'problem': problem, 'index': index}]}


def main() -> int:
  parser = argparse.ArgumentParser(prog='python -m tests.faults.fuzz', description=__doc__)
  parser.add_argument('--inputs', type=int, default=1_000_000, help='of all parsers together')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--only', default='', help='parsers whose names hold this')
  parser.add_argument('--seconds', type=float, default=600, help='at most, for each parser')
  parser.add_argument('--show', type=int, help='print input number N of the parser of --only')
  parser.add_argument('--work', help=argparse.SUPPRESS)
  parser.add_argument('--folder', type=pathlib.Path, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.work:
    faulthandler.enable()
    work(args.work, args.inputs, args.seed, args.folder, args.seconds)
    return 0
  chosen = [p for p in parsers.PARSERS if args.only in p.name]
  if args.show is not None:
    data = mutations.mutated(
      list(chosen[0].samples()), random.Random(f'{args.seed}/{chosen[0].name}/{args.show}')
    )
    sys.stdout.buffer.write(data)
    return 0
  total = collections.Counter[str]()
  whole = sum(p.share for p in chosen)
  for each in chosen:
    count = max(1, round(args.inputs * each.share / whole))
    result = run(each.name, count, args.seed, args.seconds)
    faults = result['faults']
    total.update(inputs=result['done'], faults=len(faults))
    print(f'{each.name:28} {result["done"]:>8,} inputs  {result["seconds"]:6.1f} s', end='')
    print(f'  {len(faults)} kinds of fault' if faults else '', flush=True)
    for fault in faults:
      print(f'  input {fault["index"]}: {fault["problem"]}', flush=True)
  print(f'{total["inputs"]:,} inputs, {total["faults"]} kinds of fault')
  return 1 if total['faults'] else 0


if __name__ == '__main__':
  sys.exit(main())

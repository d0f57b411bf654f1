"""Ours and its peers, measured in turns in one run: time, memory, and JSON that keeps the samples.

A benchmark is a module that is run with `python -m benchmarks.NAME`. It has a function for each
way of doing its work, and gives them to `measure`:

  def ours(rows: int) -> measurement.Run:  # in a process of its own: imports heavy things inside
    state = ...                            # read, traced, compiled: not timed
    def run():
      ...                                  # timed; waits for its results
      return {'loss': 2.5}                 # figures that are kept beside the seconds, or None
    return run

  def main() -> None:
    parser = measurement.parser(__doc__)   # has --repeats and --json
    args = parser.parse_args()
    work = measurement.Work('8 x (128 + 128)', count=2048, unit='tokens')
    found = measurement.measure(
      work, {'ours': (ours, {'rows': 8}), 'transformers': (theirs, {'rows': 8})}, args.repeats
    )
    measurement.show(found)                # a table: medians, rates, ratios, memory, figures
    measurement.finish(args, 'train_step', found)   # JSON, if it was asked for

Each way is a process of its own (spawned, so functions are of the module's top level and settings
can be pickled): libraries do not meet, and peak memory is that of one way. The processes are set up
one after the other and run once without being timed; then in each round every way runs once, in
turns, the first one of a round being another each time. So what the machine does meanwhile meets
all of them. A way whose library is not installed (ImportError, or `NotHere` with the reason) is
left out with a line that says so; any other error ends the run.

`benchmarks/compare.py` tells from two JSON files what has changed.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from typing import Any

Run = Callable[[], Mapping[str, float] | None]
Way = tuple[Callable[..., Run], Mapping[str, Any]]

FORMAT = 1
_LIBRARIES = (
  *('aya-train', 'jax', 'jaxlib', 'flax', 'grain', 'seqio', 'tensorflow', 'tensorflow-text'),
  *('numpy', 'sentencepiece', 'torch', 'transformers', 'tokenizers', 'ctranslate2', 't5x'),
)


class NotHere(Exception):
  """A way cannot be measured on this machine; the message says why."""


@dataclasses.dataclass(frozen=True)
class Work:
  """What is done once in each sample.

  Attributes:
    name: as it stands in the tables.
    count: of what is done, for rates.
    unit: of the count, such as 'tokens'.
  """

  name: str
  count: float = 1
  unit: str = 'runs'


@dataclasses.dataclass(frozen=True)
class Result:
  """One way of doing a work.

  Attributes:
    work: what was done.
    way: by whom.
    seconds: of each round.
    peak_bytes: most memory that was resident in the way's process, libraries and setting up
      included; 0 where the system does not tell.
    begin_bytes: what was resident before the first run.
    figures: what the runs returned, each a list of one number a round.
  """

  work: Work
  way: str
  seconds: tuple[float, ...]
  peak_bytes: int
  begin_bytes: int
  figures: Mapping[str, tuple[float, ...]]

  @property
  def median(self) -> float:
    return statistics.median(self.seconds)

  @property
  def rate(self) -> float:
    """Units a second."""
    return self.work.count / self.median


def parser(doc: str, repeats: int = 5) -> argparse.ArgumentParser:
  """A parser with the options of all benchmarks."""
  made = argparse.ArgumentParser(
    description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  made.add_argument('--repeats', type=int, default=repeats, help='rounds that are timed')
  made.add_argument('--json', type=pathlib.Path, help='where samples and machine are written')
  return made


def measure(
  work: Work,
  ways: Mapping[str, Way],
  repeats: int,
  say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> list[Result]:
  """Measures ways of doing a work in turns.

  Args:
    work: what each of them does.
    ways: name -> (function, its settings), see the module's docstring.
    repeats: rounds.
    say: called with a line for each way that is left out.

  Returns:
    The results, in the order of the ways; without those that are not here.

  Raises:
    RuntimeError: what a way raised, with its traceback.
  """
  processes: dict[str, _Process] = {}
  begins, first = {}, {}
  try:
    for name, (function, settings) in ways.items():
      processes[name] = process = _Process(name, function, dict(settings))
      answer = process.answer()
      if 'not_here' in answer:
        say(f'{work.name}: {name} is left out: {answer["not_here"]}')
        processes.pop(name).close()
        continue
      begins[name] = answer['resident']
      first[name] = process.run()
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in processes}
    for turn in range(repeats):
      names = [*processes]
      shift = turn % max(1, len(names))
      for name in names[shift:] + names[:shift]:
        samples[name].append(processes[name].run())
  finally:
    for process in processes.values():
      process.close()
  return [
    Result(
      work,
      name,
      tuple(s['seconds'] for s in found),
      max(s['peak'] for s in [first[name], *found]),
      begins[name],
      {key: tuple(float(s['figures'][key]) for s in found) for key in first[name]['figures']},
    )
    for name, found in samples.items()
    if found
  ]


class _Process:
  """A way in a process of its own, which waits for a word to run once."""

  def __init__(self, name: str, function: Callable[..., Run], settings: Mapping[str, Any]):
    context = multiprocessing.get_context('spawn')
    self._name = name
    self._here, there = context.Pipe()
    self._process = context.Process(target=_serve, args=(there, function, settings), daemon=False)
    self._process.start()
    there.close()

  def answer(self) -> dict[str, Any]:
    try:
      answer = self._here.recv()
    except EOFError:
      self._process.join()
      raise RuntimeError(f'{self._name}: its process ended with {self._process.exitcode}') from None
    if 'error' in answer:
      raise RuntimeError(f'{self._name}: {answer["error"]}')
    return answer

  def run(self) -> dict[str, Any]:
    self._here.send('run')
    return self.answer()

  def close(self) -> None:
    self._here.close()  # which ends it
    self._process.join(10)
    if self._process.is_alive():
      self._process.kill()
      self._process.join()


def _serve(
  pipe: connection.Connection, function: Callable[..., Run], settings: Mapping[str, Any]
) -> None:
  try:
    run = function(**settings)
  except (ImportError, NotHere) as error:
    pipe.send({'not_here': str(error)})
    return
  except BaseException:
    pipe.send({'error': traceback.format_exc()})
    return
  pipe.send({'resident': resident_bytes()})
  while True:
    try:
      pipe.recv()
    except EOFError:
      os._exit(0)  # threads of libraries are not waited for
    try:
      begin = time.perf_counter()
      figures = run()
      seconds = time.perf_counter() - begin
    except BaseException:
      pipe.send({'error': traceback.format_exc()})
      return
    pipe.send({'seconds': seconds, 'figures': dict(figures or {}), 'peak': peak_bytes()})


def resident_bytes() -> int:
  """Memory of this process that is resident now; 0 where the system does not tell."""
  return _status('VmRSS')


def peak_bytes() -> int:
  """The most that was resident."""
  return _status('VmHWM')


def _status(name: str) -> int:
  path = pathlib.Path('/proc/self/status')
  lines = path.read_text().splitlines() if path.exists() else []
  return next((int(line.split()[1]) << 10 for line in lines if line.startswith(name + ':')), 0)


def table(results: Sequence[Result]) -> list[str]:
  """Lines of a Markdown table; ratios are of the seconds, to the first way of each work."""
  units = list(dict.fromkeys(r.work.unit for r in results))
  keys = list(dict.fromkeys(key for r in results for key in r.figures))
  unit = f'{units[0]}/s' if len(units) == 1 else 'units/s'
  head = ['work', 'way', 'median s', unit, 'ratio', 'peak GiB', *keys]
  lines = [f'| {" | ".join(head)} |', f'|{"---|" * len(head)}']
  first: dict[str, float] = {}
  for r in results:
    base = first.setdefault(r.work.name, r.median)
    figures = [
      f'{statistics.median(r.figures[key]):.6g}' if key in r.figures else '' for key in keys
    ]
    cells = [
      *(r.work.name, r.way, f'{r.median:.4g}', f'{r.rate:,.4g}', f'{r.median / base:.2f}'),
      *(f'{r.peak_bytes / 2**30:.2f}', *figures),
    ]
    lines.append(f'| {" | ".join(cells)} |')
  return lines


def show(results: Sequence[Result]) -> None:
  print('\n'.join(table(results)), flush=True)


def machine() -> dict[str, Any]:
  """What the figures depend on besides the program."""
  model = platform.processor() or platform.machine()
  info = pathlib.Path('/proc/cpuinfo')
  if info.exists():
    names = [
      line.partition(':')[2] for line in info.read_text().splitlines() if 'model name' in line
    ]
    model = names[0].strip() if names else model
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  return {
    'processor': model,
    'cores': cores,
    'memory_bytes': os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'),
    'system': platform.platform(),
    'python': platform.python_version(),
    'load': os.getloadavg()[0],
    'versions': {name: found for name in _LIBRARIES if (found := _version(name))},
  }


def _version(name: str) -> str | None:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return None


def to_json(benchmark: str, settings: Mapping[str, Any], results: Sequence[Result]) -> str:
  """What is kept of a run: each result with all its samples, the settings, the machine."""
  fields = {
    'format': FORMAT,
    'benchmark': benchmark,
    'settings': {k: v for k, v in settings.items() if k != 'json'},
    'machine': machine(),
    'results': [dataclasses.asdict(r) for r in results],
  }
  return json.dumps(fields, indent=1, default=str)


def finish(args: argparse.Namespace, benchmark: str, results: Sequence[Result]) -> None:
  """Writes the JSON that the command line asks for.

  Raises:
    SystemExit: nothing was measured.
  """
  if not results:
    sys.exit('nothing was measured: no way of this benchmark is installed here')
  if args.json is not None:
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(to_json(benchmark, vars(args), results) + '\n')

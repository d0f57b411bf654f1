"""What has changed between two JSON files of one benchmark: a regression, a gain, or noise.

    python -m benchmarks.packing --json before.json
    python -m benchmarks.packing --json after.json
    python -m benchmarks.compare before.json after.json

Figures that a run counts (rows, losses) are compared as they are. Seconds are compared by their
samples: the chance that as large a difference comes of drawing the samples' labels anew must be
below 1 %, and the difference of the medians above `--least`. Where both files have the same peers
(the ways that `--ours` does not match) in the same versions, ours is divided by them, round by
round: a slower machine slows both. Ends with 1 if something got worse.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import pathlib
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import measurement

CHANCE = 0.01
_DRAWS = 10_000
_MOST_EXACT = 20_000  # labelings that are all tried


@dataclasses.dataclass(frozen=True)
class Change:
  """One figure of one way of doing a work, before and after.

  Attributes:
    what: work, way and figure.
    verdict: 'worse', 'better', 'noise', or 'changed' of a figure of which nobody says which is
      better.
    ratio: after by before.
    chance: of so large a difference if there were none; 0 of what is counted.
  """

  what: str
  verdict: str
  ratio: float
  chance: float
  note: str = ''


def chance_of(before: Sequence[float], after: Sequence[float]) -> float:
  """The share of all ways to label the samples in which the means differ as much or more.

  Args:
    before, after: samples, at least one of each.
  """
  pooled = np.array([*before, *after])
  size = len(before)
  observed = abs(np.mean(after) - np.mean(before))
  if math.comb(len(pooled), size) <= _MOST_EXACT:
    chosen = [list(c) for c in itertools.combinations(range(len(pooled)), size)]
  else:
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(len(pooled))[:size].tolist() for _ in range(_DRAWS)]
  sums = pooled[np.array(chosen)].sum(axis=1)
  means = sums / size
  others = (pooled.sum() - sums) / (len(pooled) - size)
  return float(np.mean(np.abs(others - means) >= observed * (1 - 1e-12)))


def compare(
  before: Mapping[str, Any], after: Mapping[str, Any], *, ours: str = 'ours', least: float = 0.03
) -> list[Change]:
  """Compares what `measurement.to_json` wrote.

  Args:
    before, after: read from the files.
    ours: regular expression that the names of our ways begin with.
    least: difference of medians that counts, as a share.

  Raises:
    ValueError: files of different benchmarks, or with nothing in common.
  """
  if before['benchmark'] != after['benchmark']:
    raise ValueError(
      f'two benchmarks: {before["benchmark"]!r} and {after["benchmark"]!r}; compare runs of one'
    )
  first, second = (
    {(r['work']['name'], r['work']['count'], r['way']): r for r in run['results']}
    for run in (before, after)
  )
  common = [key for key in first if key in second]
  if not common:
    raise ValueError('the files have no work and way in common: give the same options to both')
  peers = [k for k in common if not re.match(ours, k[2])] if _same_versions(before, after) else []
  changes = []
  for key in common:
    name = f'{key[0]}: {key[2]}'
    own = [k for k in peers if k[:2] == key[:2]] if re.match(ours, key[2]) else []
    old, new = (_normalised(run, key, own) for run in (first, second))
    note = f'beside {len(own)} peers' if own else ''
    changes.append(_of_samples(f'{name}, seconds', old, new, least, note))
    for figure, values in first[key]['figures'].items():
      if figure in second[key]['figures'] and not figure.endswith(' s'):
        then, now = map(statistics.median, (values, second[key]['figures'][figure]))
        if then != now:
          ratio = now / then if then else math.inf
          verdict = ('worse' if now > then else 'better') if figure == 'rows' else 'changed'
          changes.append(Change(f'{name}, {figure}', verdict, ratio, 0.0, f'{then:g} -> {now:g}'))
  return changes


def _same_versions(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
  """Whether the peers are the same programs; our own version may be another one."""
  versions = [
    {k: v for k, v in run['machine']['versions'].items() if k != 'aya-train'}
    for run in (before, after)
  ]
  return versions[0] == versions[1]


def _normalised(
  results: Mapping[Any, Mapping[str, Any]], key: Any, peers: Sequence[Any]
) -> list[float]:
  """Logarithms of the seconds of each round, less those of the peers in that round."""
  own = np.log(results[key]['seconds'])
  if peers:
    own = own - np.mean([np.log(results[k]['seconds']) for k in peers], axis=0)
  return own.tolist()


def _of_samples(
  what: str, old: Sequence[float], new: Sequence[float], least: float, note: str
) -> Change:
  ratio = math.exp(statistics.median(new) - statistics.median(old))
  chance = chance_of(old, new)
  if math.comb(len(old) + len(new), len(old)) * CHANCE < 2:
    note = f'{note}; too few rounds to tell: --repeats 5 or more'.lstrip('; ')
  if chance > CHANCE or abs(math.log(ratio)) < math.log1p(least):
    return Change(what, 'noise', ratio, chance, note)
  return Change(what, 'worse' if ratio > 1 else 'better', ratio, chance, note)


def read(path: pathlib.Path) -> dict[str, Any]:
  """Reads a file of `measurement.finish`.

  Raises:
    ValueError: it is none.
  """
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
    if found['format'] != measurement.FORMAT:
      raise ValueError(f'format {found["format"]}, this program reads {measurement.FORMAT}')
    return {k: found[k] for k in ('benchmark', 'machine', 'results')}
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ValueError(f'{path} is no file that a benchmark wrote with --json: {error}') from error


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('before', type=pathlib.Path)
  parser.add_argument('after', type=pathlib.Path)
  parser.add_argument('--ours', default='ours', help='how names of our ways begin')
  parser.add_argument('--least', type=float, default=0.03, help='a difference that counts')
  args = parser.parse_args()
  try:
    runs = [read(path) for path in (args.before, args.after)]
    changes = compare(*runs, ours=args.ours, least=args.least)
  except ValueError as error:
    sys.exit(str(error))
  for name in ('processor', 'cores', 'memory_bytes'):
    if runs[0]['machine'][name] != runs[1]['machine'][name]:
      print(f'another machine: {name} {runs[0]["machine"][name]} -> {runs[1]["machine"][name]}')
  for change in changes:
    print(
      f'{change.verdict:8s} x {change.ratio:.3f}  chance {change.chance:.3f}  {change.what}'
      + (f' ({change.note})' if change.note else '')
    )
  sys.exit(1 if any(change.verdict == 'worse' for change in changes) else 0)


if __name__ == '__main__':
  main()

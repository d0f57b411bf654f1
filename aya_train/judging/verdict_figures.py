"""What verdicts come to: win rates with intervals, ties, consistency of places, problems."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

STRONG = 3.0  # weight of 'A>>B' against 'A>B', as in Arena-Hard
_Z = 1.959964


def figures(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Of all records, and of each language where there are several."""
  found = _of(records)
  languages = sorted({r['language'] for r in records})
  if len(languages) > 1:
    found['languages'] = {
      language or 'unknown': _of([r for r in records if r['language'] == language])
      for language in languages
    }
  return found


def _of(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  judged = [r for r in records if r['verdict'] is not None]
  counts = collections.Counter(sign(r['verdict']) for r in judged)
  problems = collections.Counter(r['problem'] for r in records if r['problem'])
  found: dict[str, Any] = {
    'judgements': len(records),
    'with_verdict': len(judged),
    'wins_a': counts[1],
    'ties': counts[0],
    'wins_b': counts[-1],
    'by_rule': sum(r['by'] == 'rule' for r in records),
    'problems': dict(sorted(problems.items())),
    'flags': flag_counts(records),
  }
  if judged:
    rows = by_row(judged)
    found['win_rate_a'], found['win_rate_a_low'], found['win_rate_a_high'] = win_rate(rows)
    if any('>>' in r['verdict'] for r in judged):
      weighted = win_rate(rows, STRONG)
      for name, value in zip(('', '_low', '_high'), weighted, strict=True):
        found[f'win_rate_a_weighted{name}'] = value
    asked = [r for r in judged if r['by'] == 'judge']
    found |= _places(asked)
  return found


def sign(verdict: str) -> int:
  """1 where A is preferred, -1 where B is, 0 for a tie."""
  return 0 if '=' in verdict else 1 if verdict.startswith('A') else -1


def by_row(records: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
  """Judgements of the same row together."""
  rows: dict[Any, list[Mapping[str, Any]]] = {}
  for r in records:
    row = (r['task'], r['index'] if r['id'] is None else r['id'], r.get('sample', 0))
    rows.setdefault(row, []).append(r)
  return list(rows.values())


def win_rate(
  rows: Sequence[Sequence[Mapping[str, Any]]], strong: float = 1.0
) -> tuple[float, float, float]:
  """How often A is preferred, in percent, with its 95 % interval; a tie is half of a win.

  The interval is Wilson's for as many rows as the spread between rows is worth, as in `report
  preference`: it is not empty where one system won every time.

  Args:
    rows: judgements, those of one row together, since they are no independent observations.
    strong: weight of a strong verdict.
  """
  points = []
  for row in rows:
    weights = [strong if '>>' in r['verdict'] else 1.0 for r in row]
    scores = [(sign(r['verdict']) + 1) / 2 for r in row]
    points.append((sum(w * s for w, s in zip(weights, scores, strict=True)), sum(weights)))

  total = math.fsum(weight for _, weight in points)
  rate = math.fsum(score for score, _ in points) / total
  variance = math.fsum((score - rate * weight) ** 2 for score, weight in points) / total**2
  effective = rate * (1 - rate) / variance if variance > 0 else len(points)
  return _percents(rate, effective)


def _places(asked: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  """Of the judge's own verdicts: whether the place of an answer sways them."""
  found = {}
  decided = [r for r in asked if sign(r['verdict'])]
  if decided:
    first = sum((sign(r['verdict']) > 0) == (r['order'] == 'ab') for r in decided)
    found['first_preferred'] = round(100 * first / len(decided), 2)
  both = [row for row in by_row(asked) if len({r['order'] for r in row}) == 2]
  if both:
    same = sum(len({sign(r['verdict']) for r in row}) == 1 for row in both)
    found['position_consistency'] = round(100 * same / len(both), 2)
  return found


def flag_counts(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
  """How many records have each flag."""
  return dict(sorted(collections.Counter(f for r in records for f in r['flags']).items()))


def share(hits: int, total: int) -> tuple[float, float, float]:
  """A share in percent with Wilson's 95 % interval."""
  return _percents(hits / total, total)


def _percents(p: float, total: float) -> tuple[float, float, float]:
  """A share in percent with Wilson's 95 % interval of so many."""
  square = _Z**2
  middle = (p + square / (2 * total)) / (1 + square / total)
  half = _Z / (1 + square / total) * math.sqrt(p * (1 - p) / total + square / (4 * total**2))
  low, high = max(0.0, middle - half), min(1.0, middle + half)
  return round(100 * p, 2), round(100 * low, 2), round(100 * high, 2)

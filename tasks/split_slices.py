"""Splits as TFDS writes them: 'test[:4]', 'train[90%:]', 'train[10:20]', 'train+validation'.

Slices count the rows of a task in the order of its source, before preprocessing. Boundaries follow
TFDS: percentages are rounded to the closest row, negative ones count from the end, and those that
lie beyond the end are moved to it. So the slices [:90%] and [90%:] of a split have each of its rows
exactly once. Unlike in TFDS, each boundary of [5:90%] has its own unit, and [-2%:] of ten rows has
none of them (TFDS: all, for -2% is rounded to 0).
"""

import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
  import seqio

_PART = re.compile(r'(?P<name>[\w.:-]+)\s*(?:\[(?P<inside>[^\[\]]*)\])?')
_BOUND = re.compile(r'(?P<value>-?[0-9][0-9_]*(?:\.[0-9]+)?)(?P<unit>%?)')
_MANY = 1_000_000  # rows of a split whose number is not known
_EXAMPLES = "'train', 'test[:4]', 'train[90%:]', 'train[10:20]' or 'train+validation'"


class SplitError(ValueError):
  """A split that cannot be read; the message says what was expected."""


class Boundary(NamedTuple):
  """Where a slice begins or ends: a row, or a percentage of the rows; negative from the end."""

  value: float
  percent: bool

  def row(self, count: int) -> int:
    """The number of rows before it, of `count`."""
    if self.percent:
      row = round(self.value * count / 100)
    else:
      row = int(self.value)
    return min(max(row + count if row < 0 or self.value < 0 else row, 0), count)


class SplitSlice(NamedTuple):
  """A split, or the rows of it from `start` up to `stop`; None: from its first, to its last."""

  split: str
  start: Boundary | None = None
  stop: Boundary | None = None

  @property
  def is_whole(self) -> bool:
    return self.start is None and self.stop is None

  def rows(self, count: int) -> tuple[int, int]:
    """First row, from 0, and the row after the last, of a split of `count` rows."""
    start = 0 if self.start is None else self.start.row(count)
    stop = count if self.stop is None else self.stop.row(count)
    return start, max(start, stop)


@functools.lru_cache(maxsize=1024)
def parse(split: str) -> tuple[SplitSlice, ...]:
  """The parts of a split, in their order.

  Raises:
    SplitError: it is not written as TFDS writes splits.
  """
  parts = [_part(text.strip(), split) for text in split.split('+')]
  return tuple(parts)


def _part(text: str, split: str) -> SplitSlice:
  if (found := _PART.fullmatch(text)) is None:
    raise SplitError(f'split {split!r}: cannot read {text!r}; expected such as {_EXAMPLES}')
  inside = found['inside']
  if inside is None:
    return SplitSlice(found['name'])
  start, colon, stop = inside.partition(':')
  if not colon:
    raise SplitError(f'split {split!r}: no ":" in [{inside}]; expected such as {_EXAMPLES}')
  return SplitSlice(found['name'], _boundary(start.strip(), split), _boundary(stop.strip(), split))


def _boundary(text: str, split: str) -> Boundary | None:
  if not text:
    return None
  found = _BOUND.fullmatch(text)
  if found is None or (not found['unit'] and '.' in found['value']):
    raise SplitError(
      f'split {split!r}: {text!r} is no boundary; expected a number of rows or a percentage, such '
      f'as {_EXAMPLES}'
    )
  bound = Boundary(float(found['value'].replace('_', '')), bool(found['unit']))
  if bound.percent and abs(bound.value) > 100:
    raise SplitError(f'split {split!r}: {text!r} lies outside -100% to 100%')
  return bound


def names(split: str, known: Sequence[str] = ()) -> tuple[str, ...]:
  """The splits that are read for it; itself if it is one of those that are `known`.

  Raises:
    SplitError: see `parse`.
  """
  return (split,) if split in known else tuple(part.split for part in parse(split))


def is_sliced(split: str, known: Sequence[str]) -> bool:
  """Whether it is made of the `known` splits, and is none of them itself.

  Raises:
    SplitError: see `parse`.
  """
  return split not in known and {*names(split)} <= {*known}


def overlap(first: str, second: str) -> bool:
  """Whether two splits of the same tasks have rows in common, as far as can be told uncounted.

  Raises:
    SplitError: see `parse`.
  """
  return any(
    a.split == b.split
    and max(a.rows(_MANY)[0], b.rows(_MANY)[0]) < min(a.rows(_MANY)[1], b.rows(_MANY)[1])
    for a in parse(first)
    for b in parse(second)
  )


def has(task: 'seqio.Task', split: str) -> bool:
  """Whether a task has a split, or all those that a split is made of.

  Raises:
    SplitError: see `parse`.
  """
  return {*names(split, task.splits)} <= {*task.splits}

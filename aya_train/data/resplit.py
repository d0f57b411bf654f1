"""A run's data shared out anew, exactly, when it goes on with another number of readers.

A run has phases; in each of them the examples are read in so many parts. Draw k of a part takes
element j of a task (`mixing.ProportionalSelection`), and the parts take turns: part p of P takes
the element at j P + p of what earlier phases left of the endless, shuffled task. What a phase has
taken follows from how many draws each part made. So an element's place in the task is found by
going back through the phases, and every element is taken once over all of them. Rows that were
packed and not given out yet are packed again, and given out first.

T5X and SeqIO start the data anew instead, MaxText refuses or repeats.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from grain.transforms import DatasetSelectionMap

from aya_train.data import mixing

# A part's place in its rows: of Grain's reader, of a packing iterator, or of `RowsLeftFirst`.
Position = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Phase:
  """What a run read with one number of parts.

  Attributes:
    start: the draw that every part began at.
    positions: where each part ended.
  """

  start: int
  positions: tuple[Position, ...]

  @property
  def parts(self) -> int:
    return len(self.positions)

  @functools.cached_property
  def ends(self) -> tuple[int, ...]:
    """The draw that each part would have gone on with, its packed rows given out."""
    return tuple(next_draw(position) for position in self.positions)

  @property
  def num_taken(self) -> int:
    """Examples that all parts drew."""
    return sum(end - self.start for end in self.ends)

  def to_json(self) -> dict[str, Any]:
    return {'start': self.start, 'positions': list(self.positions)}

  @classmethod
  def from_json(cls, values: Mapping[str, Any]) -> Phase:
    return cls(values['start'], tuple(values['positions']))


def next_draw(position: Position) -> int:
  """The draw after the last one of which an example was given out or packed."""
  if 'next_index' in position:
    return int(position['next_index'])
  return next_draw(position['end'] if position.get('row') else position['parent'])


def num_open_rows(position: Position) -> int:
  """Rows whose examples were drawn, and which were not given out."""
  if 'next_index' in position:
    return 0
  if 'left' in position:
    return position['left_of'] - position['left'] + num_open_rows(position['parent'])
  return position['rows'] - position['row'] if position['row'] else 0


def first_draw(history: Sequence[Phase], parts: int, block: int = 1) -> int:
  """The draw that every one of `parts` parts begins with after `history`.

  The shares of rare tasks are right only if the draws are not counted from 0 again. `block` is that
  of the draws of each part, which begin a new one.
  """
  first = history[-1].start + history[-1].num_taken // parts if history else 0
  return -(-first // block) * block


class SharedDraws(DatasetSelectionMap):
  """Which element of which endless task a draw of one part takes: for select_from_datasets.

  Args:
    draws: of the mixture.
    part, parts: which part this is, of how many.
    history: the phases before.
  """

  def __init__(
    self, draws: mixing.ProportionalSelection, part: int, parts: int, history: Sequence[Phase]
  ):
    self._draws, self._part, self._parts = draws.of_parts(parts), part, parts
    self._before = self._draws.counts(first_draw(history, parts, self._draws.block))
    self._left = [_Left(draws, phase) for phase in reversed(history)]

  def __len__(self) -> int:
    return len(self._draws)

  def __getitem__(self, index: int) -> tuple[int, int]:
    task, element = self._draws[index]
    element = (element - self._before[task]) * self._parts + self._part
    for left in self._left:
      element = left.element(task, element)
    return task, element


class _Left:
  """What a phase left of each task."""

  def __init__(self, draws: mixing.ProportionalSelection, phase: Phase):
    draws = draws.of_parts(phase.parts)
    before = np.array(draws.counts(phase.start))
    counts = {end: np.array(draws.counts(end)) - before for end in set(phase.ends)}
    # [parts, tasks]
    self._taken = np.stack([counts[end] for end in phase.ends])
    self._gaps = functools.cache(self._find_gaps)

  def element(self, task: int, index: int) -> int:
    """Where the phase found the element of a task that is number `index` of what it left."""
    gaps, end = self._gaps(task)
    return int(gaps[index]) if index < len(gaps) else end + index - len(gaps)

  def _find_gaps(self, task: int) -> tuple[np.ndarray, int]:
    """Elements left behind by parts that took fewer than others, and the first untouched one."""
    taken = self._taken[:, task]
    turns = np.arange(taken.min(), taken.max())
    turn, part = np.nonzero(turns[:, None] >= taken[None, :])
    return turns[turn] * len(taken) + part, int(taken.max()) * len(taken)


class RowsLeftFirst(grain.IterDataset):
  """Rows of a new phase, after those that parts of the phase before had packed.

  Args:
    parent: rows of a part of the new phase.
    start: the draw that it begins with.
    before: the old parts whose rows this part gives out: what opens a part's rows, and where that
      part ended.
  """

  def __init__(
    self,
    parent: grain.IterDataset,
    start: int,
    before: Sequence[tuple[Callable[[], grain.IterDataset], Position]],
  ):
    super().__init__(parent)
    self._start, self._before = start, tuple(before)

  def __iter__(self) -> grain.DatasetIterator:
    return _LeftFirstIterator(self._parent.__iter__(), self._start, self._before)


class _LeftFirstIterator(grain.DatasetIterator):
  """The state is how many of the old rows were given out, of how many, and that of the new ones."""

  def __init__(
    self,
    parent: grain.DatasetIterator,
    start: int,
    before: Sequence[tuple[Callable[[], grain.IterDataset], Position]],
  ):
    super().__init__(parent)
    self._new = parent
    self._before = before
    self._counts = [num_open_rows(position) for _, position in before]
    parent.set_state(_moved(parent.get_state(), start))
    self._begin(0)

  def _begin(self, given_out: int) -> None:
    self._given_out = given_out
    self._old = self._old_rows(given_out)

  def _old_rows(self, skipped: int) -> Any:
    for (open_rows, position), count in zip(self._before, self._counts, strict=True):
      if skipped >= count:
        skipped -= count
        continue
      rows = open_rows().__iter__()
      rows.set_state(position)
      for number in range(count):
        row = next(rows)
        if number >= skipped:
          yield row
      skipped = 0

  def get_state(self) -> dict[str, Any]:
    return {
      'left': self._given_out,
      'left_of': sum(self._counts),
      'parent': self._new.get_state(),
    }

  def set_state(self, state: Position) -> None:
    self._new.set_state(state['parent'])
    self._begin(state['left'])

  def __next__(self) -> Any:
    if self._given_out == sum(self._counts):
      return next(self._new)
    row = next(self._old)
    self._given_out += 1
    return row


def _moved(position: Position, next_index: int) -> Position:
  """The state of an iterator that has not begun, its innermost reader moved on."""
  if 'next_index' in position:
    return {**position, 'next_index': next_index}
  return {
    name: _moved(value, next_index) if name in ('parent', 'end') else value
    for name, value in position.items()
  }

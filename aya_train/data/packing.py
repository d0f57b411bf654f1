"""First-fit packing of examples into rows, as a Grain transformation.

The law is that of `grain.experimental.FirstFitPackIterDataset`: examples go, in their order, to the
first of N open rows with room for all features; when one fits nowhere, all N rows are given out and
it opens the next N. Rows are equal to Grain's, at a fifth of the time an example: lengths are
compared in two arrays and tokens are copied when a row is given out, where Grain walks trees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grain
import numpy as np

Example = Mapping[str, np.ndarray]


class FirstFitPackIterDataset(grain.IterDataset):
  """Rows packed from the examples of `parent`.

  A row has, for each feature f of length L, int32 [L] arrays f (the tokens, then zeros),
  f_segment_ids (1, 2, ... for the first, second, ... example of the row; 0 for padding) and
  f_positions (0, 1, ... inside each segment; 0 for padding).

  Args:
    parent: dataset of dicts of int32 arrays, none longer than `lengths`; a longer one is a
      ValueError when it is reached.
    lengths: feature -> length of a row.
    num_rows: N, the rows that are open at once.
    seed: rows that were open together are given out in a random order; None keeps theirs.
  """

  def __init__(
    self,
    parent: grain.IterDataset,
    *,
    lengths: Mapping[str, int],
    num_rows: int,
    seed: int | None = None,
  ):
    super().__init__(parent)
    self._arguments = (dict(lengths), num_rows, seed)

  def __iter__(self) -> grain.DatasetIterator:
    return _PackIterator(self._parent.__iter__(), *self._arguments)


class _PackIterator(grain.DatasetIterator):
  """The state is where the open rows' examples begin and how many of the rows were given out.

  Inside a pack it says also how many rows that has, and where its examples end: whoever shares the
  rest out among others (resplit.py) need not read for that.
  """

  def __init__(
    self, parent: grain.DatasetIterator, lengths: dict[str, int], num_rows: int, seed: int | None
  ):
    super().__init__(parent)
    self._examples = parent
    self._lengths = lengths
    self._num_rows = num_rows
    self._seed = seed
    self._positions = np.arange(max(lengths.values()), dtype=np.int32)
    self._begin(parent.get_state(), pack=0)

  def _begin(self, start: Any, pack: int) -> None:
    self._start, self._pack_number = start, pack  # of the pack that `_rows` holds
    self._next_start = start  # where the next pack begins
    self._pending: Example | None = None  # its first example, if read already
    self._rows: list[list[Example]] = []
    self._next_row = 0

  def get_state(self) -> dict[str, Any]:
    if self._next_row == len(self._rows):
      return {'parent': self._next_start, 'pack': self._next_pack(), 'row': 0}
    return {
      'parent': self._start,
      'pack': self._pack_number,
      'row': self._next_row,
      'rows': len(self._rows),
      'end': self._next_start,
    }

  def set_state(self, state: Mapping[str, Any]) -> None:
    self._examples.set_state(state['parent'])
    self._begin(state['parent'], state['pack'])
    if state['row']:
      self._pack()
      self._next_row = state['row']

  def __next__(self) -> dict[str, np.ndarray]:
    if self._next_row == len(self._rows):
      self._pack()
    self._next_row += 1
    return self._row(self._rows[self._next_row - 1])

  def _next_pack(self) -> int:
    return self._pack_number + bool(self._rows)

  def _pack(self) -> None:
    """Fills the next rows; StopIteration when there is no example left."""
    names = tuple(self._lengths)
    free = [np.full(self._num_rows, self._lengths[f]) for f in names]
    rows: list[list[Example]] = [[] for _ in range(self._num_rows)]
    state = self._next_start
    example = next(self._examples) if self._pending is None else self._pending
    start, number = state, self._next_pack()
    while example is not None:
      sizes = [len(example[f]) for f in names]
      fits = free[0] >= sizes[0]
      for room, size in zip(free[1:], sizes[1:], strict=True):
        fits &= room >= size
      row = int(fits.argmax())
      if not fits[row]:
        if any(s > self._lengths[f] for f, s in zip(names, sizes, strict=True)):
          raise ValueError(
            f'an example of {dict(zip(names, sizes, strict=True))} tokens does not fit a row of'
            f' {self._lengths}; trim examples before packing.'
          )
        break
      rows[row].append(example)
      for room, size in zip(free, sizes, strict=True):
        room[row] -= size
      state = self._examples.get_state()
      example = next(self._examples, None)
    self._pending, self._next_start = example, state
    rows = [r for r in rows if r]
    if self._seed is not None:
      order = np.random.default_rng((self._seed, number)).permutation(len(rows))
      rows = [rows[i] for i in order]
    self._start, self._pack_number, self._rows, self._next_row = start, number, rows, 0

  def _row(self, examples: list[Example]) -> dict[str, np.ndarray]:
    row = {}
    for feature, length in self._lengths.items():
      tokens, segment_ids, positions = np.zeros((3, length), np.int32)
      end = 0
      for segment, example in enumerate(examples, start=1):
        values = example[feature]
        begin, end = end, end + len(values)
        tokens[begin:end] = values
        segment_ids[begin:end] = segment
        positions[begin:end] = self._positions[: len(values)]
      row[feature] = tokens
      row[f'{feature}_segment_ids'] = segment_ids
      row[f'{feature}_positions'] = positions
    return row

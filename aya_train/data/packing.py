"""Packing of examples into rows, as Grain transformations.

Best fit looks at a window of examples at once. Each row begins with the largest example that is
left, and takes, as long as any fits, the one that leaves the least room of all features together.
That leaves less padding than first-fit decreasing over all examples, and packs a window at a time.

First fit has the law of `grain.experimental.FirstFitPackIterDataset`: examples go, in their order,
to the first of N open rows with room for all features; when one fits nowhere, all N rows are given
out and it opens the next N. Rows are equal to Grain's, at a fifth of the time an example: lengths
are compared in two arrays and tokens are copied when a row is given out, where Grain walks trees.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np

Example = Mapping[str, np.ndarray]

WINDOW = 4096  # examples of best fit: its rows are few, and restoring is a fraction of a second
OPEN_ROWS = 128  # of first fit


class FirstFitPackIterDataset(grain.IterDataset):
  """Rows packed first-fit from the examples of `parent`.

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
    self._arguments = (dict(lengths), seed, num_rows)

  def __iter__(self) -> grain.DatasetIterator:
    return _FirstFitIterator(self._parent.__iter__(), *self._arguments)


class BestFitPackIterDataset(grain.IterDataset):
  """Rows packed best-fit from windows of the examples of `parent`: rows of the same kind.

  Examples of a row are in their order. Rows of a window are in the order of the examples that they
  began with, or in a random one.

  Args:
    parent, lengths: as for FirstFitPackIterDataset.
    num_examples: of a window. The state is that of its beginning, and restoring reads it again.
    seed: rows of a window are given out in a random order; None keeps theirs.
  """

  def __init__(
    self,
    parent: grain.IterDataset,
    *,
    lengths: Mapping[str, int],
    num_examples: int,
    seed: int | None = None,
  ):
    super().__init__(parent)
    self._arguments = (dict(lengths), seed, num_examples)

  def __iter__(self) -> grain.DatasetIterator:
    return _BestFitIterator(self._parent.__iter__(), *self._arguments)


class _PackIterator(grain.DatasetIterator):
  """The state is where a pack's examples begin and how many of its rows were given out.

  Inside a pack it says also how many rows that has, and where its examples end: whoever shares the
  rest out among others (resplit.py) need not read for that.
  """

  def __init__(
    self, parent: grain.DatasetIterator, lengths: dict[str, int], seed: int | None, size: int
  ):
    super().__init__(parent)
    self._examples = parent
    self._lengths = lengths
    self._seed = seed
    self._size = size
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
    start, number = self._next_start, self._next_pack()
    rows = self._next_rows()
    if self._seed is not None:
      order = np.random.default_rng((self._seed, number)).permutation(len(rows))
      rows = [rows[i] for i in order]
    self._start, self._pack_number, self._rows, self._next_row = start, number, rows, 0

  def _next_rows(self) -> list[list[Example]]:
    """Reads a pack and sets `_next_start`; StopIteration when there is no example left."""
    raise NotImplementedError

  def _sizes(self, example: Example) -> list[int]:
    """Lengths of the features; ValueError if they fit no row."""
    sizes = [len(example[f]) for f in self._lengths]
    if any(s > length for s, length in zip(sizes, self._lengths.values(), strict=True)):
      raise ValueError(
        f'an example of {dict(zip(self._lengths, sizes, strict=True))} tokens does not fit a row of'
        f' {self._lengths}; trim examples before packing.'
      )
    return sizes

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


class _FirstFitIterator(_PackIterator):
  """`size` is the number of open rows."""

  def _next_rows(self) -> list[list[Example]]:
    free = [np.full(self._size, length) for length in self._lengths.values()]
    rows: list[list[Example]] = [[] for _ in range(self._size)]
    state = self._next_start
    example = next(self._examples) if self._pending is None else self._pending
    while example is not None:
      sizes = self._sizes(example)
      fits = free[0] >= sizes[0]
      for room, size in zip(free[1:], sizes[1:], strict=True):
        fits &= room >= size
      row = int(fits.argmax())
      if not fits[row]:
        break
      rows[row].append(example)
      for room, size in zip(free, sizes, strict=True):
        room[row] -= size
      state = self._examples.get_state()
      example = next(self._examples, None)
    self._pending, self._next_start = example, state
    return [r for r in rows if r]


class _BestFitIterator(_PackIterator):
  """`size` is the number of examples of a window."""

  def _next_rows(self) -> list[list[Example]]:
    examples = [next(self._examples)]
    examples += itertools.islice(self._examples, self._size - 1)
    self._next_start = self._examples.get_state()
    rows = best_fit([self._sizes(example) for example in examples], [*self._lengths.values()])
    return [[examples[i] for i in row] for row in rows]


_SCALE = 1 << 12  # integers, for the same rows on every machine


def best_fit(sizes: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[list[int]]:
  """Shares examples out over rows.

  Args:
    sizes: of N examples, a length for each of D features, at most that of a row.
    lengths: of a row, for each feature.

  Returns:
    The examples of each row, each example once, in ascending order; rows by their first choice.
  """
  sizes_DN = np.array(sizes, np.int32).T
  # How full a feature makes the rows says how much its room matters.
  load_D = sizes_DN.mean(axis=1) / lengths
  weight_D = np.sqrt(load_D / max(load_D.max(), 1e-9))
  scaled_DN = (sizes_DN * (_SCALE * weight_D / lengths)[:, None]).astype(np.int32)
  ids_N = np.argsort(-scaled_DN.max(axis=0), kind='stable')
  sizes_DN, scaled_DN = sizes_DN[:, ids_N], scaled_DN[:, ids_N]
  full_D = (_SCALE * weight_D).astype(np.int32)
  rows = []
  while len(ids_N):
    taken = [0]
    room, scaled_room = np.subtract(lengths, sizes_DN[:, 0]), full_D - scaled_DN[:, 0]
    left, sizes_DM, scaled_DM = np.arange(1, len(ids_N)), sizes_DN[:, 1:], scaled_DN[:, 1:]
    while True:
      fits = sizes_DM[0] <= room[0]
      for feature in range(1, len(lengths)):
        fits &= sizes_DM[feature] <= room[feature]
      where = np.flatnonzero(fits)
      if not len(where):
        break
      left = left.take(where)
      sizes_DM, scaled_DM = sizes_DM.take(where, axis=1), scaled_DM.take(where, axis=1)
      rest_DM = scaled_room[:, None] - scaled_DM
      best = int(np.einsum('dm,dm->m', rest_DM, rest_DM).argmin())
      taken.append(int(left[best]))
      room, scaled_room = room - sizes_DM[:, best], scaled_room - scaled_DM[:, best]
      left[best:-1], left = left[best + 1 :], left[:-1]
      sizes_DM, scaled_DM = _without(sizes_DM, best), _without(scaled_DM, best)
    rows.append((int(ids_N[0]), sorted(ids_N[taken].tolist())))
    kept = np.ones(len(ids_N), bool)
    kept[taken] = False
    ids_N, sizes_DN, scaled_DN = ids_N[kept], sizes_DN[:, kept], scaled_DN[:, kept]
  return [row for _, row in sorted(rows)]


def _without(array_DM: np.ndarray, column: int) -> np.ndarray:
  """The array without a column; its memory is used again."""
  array_DM[:, column:-1] = array_DM[:, column + 1 :]
  return array_DM[:, :-1]

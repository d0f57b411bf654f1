"""Rows of a mixture for people to look at: some of each source and language."""

import itertools
import random
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import seqio
import tensorflow as tf

from aya_train.annotation import batches
from aya_train.data import availability, task_examples
from aya_train.tasks import sliced_source
from aya_train.tasks.rights import provenance

ROWS_LOOKED_AT = 400_000
_FEWEST_ROWS, _MOST_ROWS = 200, 20_000
_LANGUAGES = ('language_code', 'language', 'lang')


def of_mixture(
  name: str,
  *,
  split: str = 'train',
  each: int,
  seed: int,
  languages: Collection[str] = (),
  rows_looked_at: int | None = None,
) -> list[batches.DataRow]:
  """A sample of each source and language, spread over its tasks and data sets.

  Args:
    name: a registered mixture or task.
    split: to read.
    each: rows of a source and language, fewer where there are not as many.
    seed: of the sample.
    languages: codes in any system; all by default.
    rows_looked_at: of each task at most, from its beginning; more take longer and find languages
      that are rare. By default about `ROWS_LOOKED_AT` of all tasks together.

  Raises:
    ValueError: nothing was found.
    FileNotFoundError: the data of the mixture is not there.
  """
  wanted = {batches.language_of(code) for code in languages}
  pools: dict[tuple[str, str], dict[tuple[str, str], _Pool]] = {}
  tasks = availability.tasks(name, split, None)
  if rows_looked_at is None:
    rows_looked_at = min(max(ROWS_LOOKED_AT // len(tasks), _FEWEST_ROWS), _MOST_ROWS)
  for task in tasks:
    source = provenance.source_of(task)
    for dataset, row in itertools.islice(_rows(task, split, source), rows_looked_at):
      if wanted and row.language not in wanted:
        continue
      group = pools.setdefault((source, row.language), {})
      key = (task.name, dataset)
      if key not in group:
        group[key] = _Pool(each, random.Random(f'{seed} {source} {row.language} {key}'))
      group[key].add(row)
  found = [row for group in pools.values() for row in _in_turn(group, each)]
  if not found:
    of = f' of the languages {sorted(wanted)}' if wanted else ''
    raise ValueError(f'{name}, split {split!r}: no rows of text{of} among {rows_looked_at} a task')
  return found


class _Pool:
  """A sample of rows of which one does not know how many will come, each as likely as any other."""

  def __init__(self, size: int, draw: random.Random):
    self._rows: list[batches.DataRow] = []
    self._size, self._draw, self._seen = size, draw, 0

  def add(self, row: batches.DataRow) -> None:
    self._seen += 1
    if len(self._rows) < self._size:
      self._rows.append(row)
    elif (place := self._draw.randrange(self._seen)) < self._size:
      self._rows[place] = row

  def rows(self) -> list[batches.DataRow]:
    """The sample, its order random too: where it is cut, early rows are not preferred."""
    return self._draw.sample(self._rows, len(self._rows))


def _in_turn(pools: Mapping[Any, _Pool], each: int) -> list[batches.DataRow]:
  """One of each pool, then another of each, until there are enough."""
  turns = itertools.zip_longest(*(pools[key].rows() for key in sorted(pools)))
  rows = (row for turn in turns for row in turn if row is not None)
  return list(itertools.islice(rows, each))


def _rows(task: seqio.Task, split: str, source: str) -> Iterator[tuple[str, batches.DataRow]]:
  """Data set and row, as the source has them; of a source of plain lines as its task makes them."""
  task = sliced_source.with_split(task, split)
  dataset = task.source.get_dataset(split=split, shuffle=False)
  names = ('inputs', 'targets')
  spec = dataset.element_spec
  if not (isinstance(spec, Mapping) and {*names} <= {*spec}):
    dataset = task.get_dataset(
      sequence_length=None,
      split=split,
      shuffle=False,
      seed=task_examples.PREPROCESSING_SEED,
    )
    names = ('inputs_pretokenized', 'targets_pretokenized')
    if not {*names} <= {*dataset.element_spec}:
      return
  try:
    for row in dataset.as_numpy_iterator():
      text = {k: v.decode(errors='replace') for k, v in row.items() if isinstance(v, bytes)}
      if not all(name in text for name in names):
        return
      code = next((text[name] for name in _LANGUAGES if text.get(name)), '')
      language = batches.language_of(code)
      inputs, targets = (text[name] for name in names)
      yield text.get('dataset', ''), batches.DataRow(source, task.name, language, inputs, targets)
  except tf.errors.NotFoundError as error:
    raise FileNotFoundError(f'task {task.name!r}: {task_examples.reason(error)}') from error

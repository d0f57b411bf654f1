"""Mixing rates of a SeqIO mixture over prepared tasks, and the order of draws they give."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

import seqio
from grain.transforms import DatasetSelectionMap

from aya_train.data import prepared
from aya_train.tasks.mixtures import source_mixture

logger = logging.getLogger(__name__)

# Rates become integers of this sum: exact arithmetic, and shares right to 1e-12.
_TOTAL = 2**40


def mixing_rates(
  provider: seqio.Task | seqio.Mixture, tasks: Mapping[str, prepared.PreparedTask]
) -> dict[str, float]:
  """Returns the rate of each task, as `seqio.Mixture.get_rate` but by the prepared counts.

  A rate that is a function, such as `seqio.mixing_rate_num_examples`, gets a task whose statistics
  are those of the manifest. A sub-mixture's rate is shared out among its tasks in `tasks`.

  Args:
    provider: a task (rate 1) or a mixture.
    tasks: name -> prepared task; the mixture's other tasks are left out.

  Returns:
    Task name -> positive rate, sorted by name; tasks with rate 0 are left out.

  Raises:
    ValueError: a rate is negative or all are 0; a rate function asks for what is not known.
  """
  if isinstance(provider, seqio.Task):
    return {provider.name: 1.0}
  rates = _rates(provider, tasks)
  if min(rates.values()) < 0 or not sum(rates.values()):
    raise ValueError(f'rates of {provider.name!r} must be >= 0 and not all 0, got {rates}.')
  unused = sorted(name for name, rate in rates.items() if not rate)
  if unused:
    logger.warning('%s: %d tasks have rate 0: %s', provider.name, len(unused), unused[:10])
  return {name: rate for name, rate in sorted(rates.items()) if rate}


def check_rates(provider: seqio.Task | seqio.Mixture) -> None:
  """Refuses a rate that is a function where SeqIO takes numbers only: that of a sub-mixture.

  Raises:
    ValueError: naming both.
  """
  if isinstance(provider, seqio.Task | source_mixture.SourceMixture):
    return
  tasks = {task.name for task in provider.tasks}
  for name, rate in provider.rate_per_task_name.items():
    if name in tasks:
      continue
    if callable(rate):
      raise ValueError(
        f'mixture {provider.name!r}: the rate of its sub-mixture {name!r} is a function; give a '
        'number'
      )
    check_rates(seqio.MixtureRegistry.get(name))


def _rates(mixture: seqio.Mixture, prepared_tasks: Mapping[str, Any]) -> dict[str, float]:
  if isinstance(mixture, source_mixture.SourceMixture):
    return mixture.rates({name: len(task) for name, task in prepared_tasks.items()})
  members = {t.name: t for t in mixture.tasks}
  rates: dict[str, float] = {}
  for name, rate in mixture.rate_per_task_name.items():
    if name in members:
      if name in prepared_tasks:
        if callable(rate):
          rate = _call(rate, members[name], prepared_tasks[name])
        rates[name] = rates.get(name, 0.0) + float(rate)
      continue
    check_rates(mixture)
    shares = _rates(seqio.MixtureRegistry.get(name), prepared_tasks)
    total = sum(shares.values()) or 1.0
    for task_name, share in shares.items():
      rates[task_name] = rates.get(task_name, 0.0) + float(rate) * share / total
  return rates


def _call(rate: Any, task: seqio.Task, prepared_task: prepared.PreparedTask) -> float:
  try:
    return rate(_CountedTask(task, prepared_task))
  except KeyError as e:
    raise ValueError(
      f'the rate function of task {task.name!r} asks for the statistic {e}; prepared tasks know'
      " only 'examples'. Give the rate as a number."
    ) from e


class _CountedTask:
  """A task whose statistics come from its manifest, to SeqIO's rate functions like a cached one."""

  def __init__(self, task: seqio.Task, prepared_task: prepared.PreparedTask):
    self._task = task
    self._manifest = prepared_task.manifest
    self.cache_dir = os.fspath(prepared_task.directory)

  def num_input_examples(self, split: str) -> int | None:
    if split == self._manifest.split:
      return self._manifest.num_examples
    return self._task.num_input_examples(split)

  def get_cached_stats(self, split: str = 'train') -> dict[str, int | None]:
    return {'examples': self.num_input_examples(split)}

  def __getattr__(self, name: str) -> Any:
    return getattr(self._task, name)


class ProportionalSelection(DatasetSelectionMap):
  """Which dataset draw k takes from, and which of its elements: for Grain's select_from_datasets.

  Draws are spread evenly: after any k of them each dataset has had its share of k to within a few.
  The element numbers of each dataset count 0, 1, 2, ... without gaps.

  A draw walks down a Huffman tree: at a node whose right side has w of its W parts, right has had
  floor(k w / W) of the first k draws. `grain.MapDataset.mix` follows the same law along a list: its
  time grows with the number of datasets, ours with the entropy of their shares. It also rounds
  rates to 1 % of the smallest.

  Attributes:
    block: draws in a row that are of one dataset, at least.
  """

  block = 1

  def __init__(self, rates: Iterable[float]):
    rates = list(rates)
    if not rates or min(rates) <= 0:
      raise ValueError(f'rates must be positive, got {rates}.')
    total = sum(rates)
    ties = itertools.count()
    # A node is a leaf's index, or (weight of right, weight of both, left, right).
    heap: list[Any] = [
      (max(1, round(r / total * _TOTAL)), next(ties), i) for i, r in enumerate(rates)
    ]
    heapq.heapify(heap)
    while len(heap) > 1:
      right, _, right_node = heapq.heappop(heap)
      left, _, left_node = heapq.heappop(heap)
      node = (right, left + right, left_node, right_node)
      heapq.heappush(heap, (left + right, next(ties), node))
    self._root: Any = heap[0][2]
    self._num_datasets = len(rates)

  def __len__(self) -> int:
    return 2**60  # Endless; Grain asks for a length that an index can have.

  def __getitem__(self, index: int) -> tuple[int, int]:
    node, k = self._root, index
    while type(node) is tuple:
      weight, total, left, right = node
      before = k * weight // total
      if (k + 1) * weight // total > before:
        node, k = right, before
      else:
        node, k = left, k - before
    return node, k

  def counts(self, draws: int) -> list[int]:
    """How many of the first so many draws took from each dataset."""
    counts = [0] * self._num_datasets
    nodes = [(self._root, draws)]
    while nodes:
      node, k = nodes.pop()
      if type(node) is tuple:
        weight, total, left, right = node
        before = k * weight // total
        nodes += [(left, k - before), (right, before)]
      else:
        counts[node] = k
    return counts

  def of_parts(self, parts: int) -> ProportionalSelection:
    """The draws of each of so many parts of the data."""
    del parts
    return self


class SameSourceSelection(ProportionalSelection):
  """Draws of which each batch takes from one dataset, in turns by the datasets' rates.

  Args:
    rates: as for `ProportionalSelection`.
    batch_size: draws of a whole batch, over all parts.
    parts: parts that the batch is read in; every one of them has the same datasets in turn.
  """

  def __init__(self, rates: Iterable[float], batch_size: int, parts: int = 1):
    self._rates = list(rates)
    super().__init__(self._rates)
    self._batch_size, self.block = batch_size, batch_size // parts

  def __getitem__(self, index: int) -> tuple[int, int]:
    batch, row = divmod(index, self.block)
    dataset, turn = super().__getitem__(batch)
    return dataset, turn * self.block + row

  def counts(self, draws: int) -> list[int]:
    batches, rest = divmod(draws, self.block)
    counts = [n * self.block for n in super().counts(batches)]
    if rest:
      counts[super().__getitem__(batches)[0]] += rest
    return counts

  def of_parts(self, parts: int) -> ProportionalSelection:
    return SameSourceSelection(self._rates, self._batch_size, parts)

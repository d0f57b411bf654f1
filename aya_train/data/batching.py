"""Batches from prepared tasks, with Grain.

  task:   records -> shuffled by index, anew each epoch -> repeated -> trimmed
  all:    this host's share, mixed by rate -> packed best-fit, a window of examples at a time (or
          padded) -> model features -> batches -> prefetched by a thread

Everything up to the packing is a function of an index, so the state of the iterator is that index
and the number of packed rows already given out: about a kilobyte. Restoring packs the window again
from the examples it came from (`num_packing_examples` at most, a fraction of a second).

The features are those that DatasetConfig gives lengths for; an objective's feature converter
(feature_converters.py) makes model features of them.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from etils import epath

from aya_train import hosts
from aya_train.data import (
  availability,
  feature_converters,
  mixing,
  packing,
  prepared,
  reference_scores,
  resplit,
  shuffling,
  stream_iterator,
  task_registry,
  truncation,
)
from aya_train.tasks import storage

logger = logging.getLogger(__name__)
_LOOKED_AT = 256  # examples of a task, about: for what only their tokens say

Batch = feature_converters.Batch
ENC_DEC = feature_converters.EncDecFeatureConverter()
PACKERS = ('best_fit', 'first_fit')


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
  """What to read and how, by T5X's names.

  Attributes:
    mixture_or_task_name: a registered SeqIO task or mixture.
    task_feature_lengths: the lengths in tokens of the features that are read, such as `inputs` and
      `targets`; longer ones are cut.
    split: split of the tasks; tasks of a mixture without it are left out.
    batch_size: rows of the global batch, over all hosts.
    shuffle: whether training shuffles (evaluation never does).
    seed: of the shuffling, 0 <= seed < 2**32. Training with shuffle=True refuses None: whoever
      wants a random one draws it once for all hosts and writes it down.
    pack: whether several examples share a row.
    prepared_dir: root of the prepared tasks; None means `prepared/` in the cache directory.
    same_source_batches: whether all rows of a training batch are of one task of the mixture, the
      tasks taking turns by their rates; for losses that compare the rows of a batch.
    max_truncated_fraction: ValueError if the lengths cut a larger share of the examples.
    packer: 'best_fit', or 'first_fit' for the rows that Grain's packer makes.
    num_packing_examples: of a window of best_fit. More pack tighter, and take longer to restore.
    num_packing_bins: rows that are open at once in first_fit.
    num_read_threads: threads that read records. 0 reads in the packing thread: fastest from local
      disks; a network file system wants some.
    prefetch_batches: finished batches kept ready; 0 makes them when asked.
    reference_checkpoint: where the checkpoint lies whose scores are read with pairs of answers
      (reference_scores.py); None where the tasks have all features themselves.
    reference: the same, looked at: who reads the data, and not only prepares it, sets it.
  """

  mixture_or_task_name: str
  task_feature_lengths: Mapping[str, int]
  split: str
  batch_size: int
  shuffle: bool = True
  seed: int | None = None
  pack: bool = True
  prepared_dir: str | os.PathLike[str] | None = None
  max_truncated_fraction: float = 0.1
  same_source_batches: bool = False
  packer: str = 'best_fit'
  num_packing_examples: int = packing.WINDOW
  num_packing_bins: int = packing.OPEN_ROWS
  num_read_threads: int = 0
  prefetch_batches: int = 2
  reference_checkpoint: str | None = None
  reference: reference_scores.Reference | None = None

  def __post_init__(self):
    feature_converters.check_lengths(self.task_feature_lengths)
    lengths = dict(self.task_feature_lengths)
    if not lengths or min(lengths.values()) < 1:
      raise ValueError(
        f'task_feature_lengths (TASK_FEATURE_LENGTHS) must give positive lengths, got {lengths}.'
      )
    if self.batch_size < 1:
      raise ValueError(f'batch_size must be at least 1, got {self.batch_size}.')
    if self.seed is not None and not 0 <= self.seed < 2**32:
      raise ValueError(f'seed must be in [0, 2**32), got {self.seed}.')
    if not 0 <= self.max_truncated_fraction <= 1:
      raise ValueError(
        f'max_truncated_fraction must be in [0, 1], got {self.max_truncated_fraction}.'
      )
    if self.same_source_batches and self.pack:
      raise ValueError(
        'same_source_batches=True (SAME_SOURCE_BATCHES), but packed rows of one task do not fill '
        'whole batches: PACK = False'
      )
    if self.packer not in PACKERS:
      raise ValueError(f'packer must be one of {PACKERS}, got {self.packer!r}.')
    if self.num_packing_examples < 1:
      raise ValueError(f'num_packing_examples must be at least 1, got {self.num_packing_examples}.')
    if self.num_packing_bins < 1 or self.num_read_threads < 0 or self.prefetch_batches < 0:
      raise ValueError(
        'num_packing_bins must be at least 1, num_read_threads and prefetch_batches at least 0, got'
        f' {self.num_packing_bins}, {self.num_read_threads} and {self.prefetch_batches}.'
      )

  def local_batch_size(self, num_shards: int) -> int:
    """Rows of one part of the batch; ValueError unless the parts divide the batch."""
    if self.batch_size % num_shards:
      raise ValueError(
        f'batch_size {self.batch_size} is not divisible by the {num_shards} parts that hosts read.'
      )
    return self.batch_size // num_shards


def train_iterator(
  cfg: DatasetConfig,
  host: hosts.Host = hosts.ALONE,
  converter: feature_converters.FeatureConverter = ENC_DEC,
  *,
  state: Mapping[str, Any] | None = None,
) -> grain.DatasetIterator:
  """Returns the endless iterator over this host's training batches.

  Args:
    cfg: what to read.
    host: this host's place, which says the part of the batch that it reads. Each epoch of each task
      is split between the parts.
    converter: of the objective.
    state: what `get_state()` of such an iterator gave; the batches that follow are then, bit for
      bit, those that followed there. It is JSON and belongs to one configuration and host.

  Returns:
    Iterator over dicts of arrays [B, ...] (B = batch_size / parts), as the converter gives them.

  Raises:
    ValueError: from the tasks (`availability.ensure_prepared`), rates (`mixing.mixing_rates`) or
      lengths (`check_truncation`); other features than the converter's; no seed; the hosts do not
      divide the batch; a state of another configuration.
  """
  part, parts = host.part
  local_batch_size = cfg.local_batch_size(parts)
  converter.check(cfg.task_feature_lengths, pack=cfg.pack)
  if cfg.shuffle and cfg.seed is None:
    raise ValueError(
      'shuffle=True needs a seed, got seed=None. Draw one, the same on all hosts, and record it.'
    )
  tasks = prepared_tasks(cfg, host)
  provider = task_registry.get_mixture_or_task(cfg.mixture_or_task_name)
  rates = mixing.mixing_rates(provider, tasks)
  check_truncation(cfg, tasks, rates)
  _check_examples(cfg, tasks, converter)

  streams = []
  for name in rates:
    ds = grain.MapDataset.source(tasks[name])
    if cfg.shuffle:
      ds = shuffling.shuffled(ds, _derive_seed(cfg.seed, name))
    # Readers share the repeated stream, not the files: a task may have fewer examples than readers.
    streams.append(
      ds.repeat(None).map(
        truncation.trimmer(tasks[name].manifest.eos_after_trim, cfg.task_feature_lengths)
      )
    )
  draws = mixing.ProportionalSelection(rates.values())
  if cfg.same_source_batches:
    draws = mixing.SameSourceSelection(rates.values(), cfg.batch_size)

  def batches(history: Sequence[resplit.Phase]) -> grain.DatasetIterator:
    ds = _train_rows(cfg, streams, draws, part, parts, history)
    ds = ds.batch(
      local_batch_size,
      batch_fn=functools.partial(
        _to_batch, cfg=cfg, converter=converter, batch_size=local_batch_size
      ),
    )
    if cfg.prefetch_batches:
      ds = grain.experimental.ThreadPrefetchIterDataset(
        ds, prefetch_buffer_size=cfg.prefetch_batches
      )
    return ds.__iter__()

  iterator = stream_iterator.StreamIterator(
    batches, _identity(cfg, tasks, rates, f'{part} of {parts}')
  )
  if state is not None:
    iterator.set_state(state)
  return iterator


def _train_rows(
  cfg: DatasetConfig,
  streams: Sequence[grain.MapDataset],
  draws: mixing.ProportionalSelection,
  part: int,
  parts: int,
  history: Sequence[resplit.Phase],
) -> grain.IterDataset:
  """The endless rows of one part, after phases with other numbers of parts.

  The parts are separated before the mixing, since one with short examples reads faster.
  """
  mixed = grain.MapDataset.select_from_datasets(
    streams, resplit.SharedDraws(draws, part, parts, history)
  )
  ds = _read(mixed, cfg)
  if cfg.pack:
    phase = f' in phase {len(history)}' if history else ''
    seed = _derive_seed(cfg.seed, f'rows of host {part}{phase}') if cfg.shuffle else None
    ds = _pack(ds, cfg, seed)
  if not history:
    return ds
  *earlier, last = history
  before = [
    (functools.partial(_train_rows, cfg, streams, draws, old, last.parts, earlier), position)
    for old, position in enumerate(last.positions)
    if old % parts == part
  ]
  return resplit.RowsLeftFirst(
    ds, resplit.first_draw(history, parts, draws.of_parts(parts).block), before
  )


def open_eval(
  cfg: DatasetConfig,
  host: hosts.Host = hosts.ALONE,
  converter: feature_converters.FeatureConverter = ENC_DEC,
  *,
  sample: bool = False,
) -> Callable[[], Iterator[Batch]]:
  """Prepares and opens evaluation data; each call of the result is one pass over all examples.

  Examples come in the order of the files, or in a random one that is always the same (`sample`): so
  the first batches are of all tasks, and not only of the first one. Over all hosts each example of
  each task comes exactly once, whatever the mixture's rates. Tasks without examples are left out.
  Every host yields the same number of batches; rows of zeros (loss weight 0) fill the last one. The
  global batches do not depend on the number of hosts: when packing, each host packs everything and
  keeps its rows, which costs reading all examples but no communication.

  Args and errors: as `train_iterator`; the seed is that of `sample`.

  Returns:
    A function without arguments; an iterator over this host's batches of one pass at each call.
  """
  part, parts = host.part
  local_batch_size = cfg.local_batch_size(parts)
  converter.check(cfg.task_feature_lengths, pack=cfg.pack)
  tasks = prepared_tasks(cfg, host, allow_empty=True)
  if not tasks:
    provider = task_registry.get_mixture_or_task(cfg.mixture_or_task_name)
    empty = task_registry.tasks_with_split(provider, cfg.split)[0]
    raise task_registry.empty_split(empty, cfg.split)
  check_truncation(cfg, tasks, {name: float(len(t)) for name, t in tasks.items()})
  _check_examples(cfg, tasks, converter)
  trimmed = [
    grain.MapDataset.source(t).map(
      truncation.trimmer(t.manifest.eos_after_trim, cfg.task_feature_lengths)
    )
    for t in tasks.values()
  ]
  examples = grain.MapDataset.concatenate(trimmed)
  if sample:
    examples = examples.shuffle(seed=_derive_seed(cfg.seed, 'sample'))
  local = range(part * local_batch_size, (part + 1) * local_batch_size)

  def batches() -> Iterator[Batch]:
    rows: Iterator[dict[str, np.ndarray] | None]
    if cfg.pack:
      rows = iter(_pack(_read(examples, cfg), cfg, seed=None))
    else:
      indices = range(len(examples))
      rows = (examples[i] if i % cfg.batch_size in local else None for i in indices)
    while global_batch := list(itertools.islice(rows, cfg.batch_size)):
      local_rows = [r for i, r in enumerate(global_batch) if i in local and r is not None]
      yield _to_batch(local_rows, cfg, converter, local_batch_size)

  return batches


def prepared_tasks(
  cfg: DatasetConfig, host: hosts.Host = hosts.ALONE, *, allow_empty: bool = False
) -> dict[str, prepared.PreparedTask]:
  """Opens the tasks of a configuration, prepared if need be (`availability.ensure_prepared`).

  With the scores of its reference, if it has one.

  Raises:
    FileNotFoundError, ValueError: see `availability.ensure_prepared` and `reference_scores.scored`.
  """
  tasks = availability.ensure_prepared(
    cfg.mixture_or_task_name,
    cfg.split,
    prepared_root(cfg.prepared_dir),
    host=host,
    features=_own_features(cfg),
    allow_empty=allow_empty,
  )
  return {name: _with_reference(cfg, name, task) for name, task in tasks.items()}


def _with_reference(
  cfg: DatasetConfig, name: str, task: prepared.PreparedTask
) -> prepared.PreparedTask:
  """A task with what it lacks itself of a reference's scores, or of answers to other prompts."""
  lacking = {*cfg.task_feature_lengths} - {*task.manifest.features}
  if reference_scores.FEATURE in lacking:
    if cfg.reference is None:  # whoever prepares the data needs none
      return task
    where = f'{name}:{cfg.split}'
    return reference_scores.scored(task, where, cfg.reference, cfg.task_feature_lengths)
  if reference_scores.UNRELATED in lacking:
    return reference_scores.ScoredTask(task.directory, None, unrelated=True)
  return task


def _own_features(cfg: DatasetConfig) -> tuple[str, ...]:
  """Features that the tasks must have; a reference gives the others."""
  if cfg.reference_checkpoint is None:
    return tuple(cfg.task_feature_lengths)
  given = (reference_scores.FEATURE, reference_scores.UNRELATED)
  return tuple(name for name in cfg.task_feature_lengths if name not in given)


def prepared_root(directory: str | os.PathLike[str] | None) -> epath.Path:
  """Where prepared tasks are: PREPARED_DIR, or `prepared/` in the cache directory."""
  return epath.Path(storage.cache_dir() / 'prepared' if directory is None else directory)


def survey(cfg: DatasetConfig, *, allow_empty: bool = False) -> availability.Survey:
  """`availability.survey` of a configuration's data: what can be known before it is prepared."""
  return availability.survey(
    cfg.mixture_or_task_name,
    cfg.split,
    prepared_root(cfg.prepared_dir),
    features=_own_features(cfg),
    allow_empty=allow_empty,
  )


def check_truncation(
  cfg: DatasetConfig, tasks: Mapping[str, prepared.PreparedTask], rates: Mapping[str, float]
) -> dict[str, float]:
  """See `truncation.check`; of a reference's scores nothing is cut."""
  own = {name: cfg.task_feature_lengths[name] for name in _own_features(cfg)}
  name = f'{cfg.mixture_or_task_name}:{cfg.split}'
  return truncation.check(name, own, cfg.max_truncated_fraction, tasks, rates)


def _check_examples(
  cfg: DatasetConfig,
  tasks: Mapping[str, prepared.PreparedTask],
  converter: feature_converters.FeatureConverter,
) -> None:
  """Lets the converter refuse what an objective can learn nothing from, of all tasks together."""
  counts: dict[str, collections.Counter[int]] = {
    feature: collections.Counter() for feature in converter.task_features
  }
  for task in tasks.values():
    for feature, found in counts.items():
      found.update(task.manifest.lengths.get(feature, {}))
  name = f'{cfg.mixture_or_task_name}:{cfg.split}'
  converter.check_examples(name, counts)
  converter.check_cut(name, _some(cfg, tasks))


def _some(
  cfg: DatasetConfig, tasks: Mapping[str, prepared.PreparedTask]
) -> Iterator[dict[str, np.ndarray]]:
  """Examples of all tasks, as the lengths cut them: a few hundred at most of each."""
  for task in tasks.values():
    trim = truncation.trimmer(task.manifest.eos_after_trim, cfg.task_feature_lengths)
    for index in range(0, len(task), max(1, len(task) // _LOOKED_AT)):
      yield trim(task[index])


def _pack(ds: grain.IterDataset, cfg: DatasetConfig, seed: int | None) -> grain.IterDataset:
  lengths = cfg.task_feature_lengths
  if cfg.packer == 'first_fit':
    return packing.FirstFitPackIterDataset(
      ds, lengths=lengths, num_rows=cfg.num_packing_bins, seed=seed
    )
  return packing.BestFitPackIterDataset(
    ds, lengths=lengths, num_examples=cfg.num_packing_examples, seed=seed
  )


def _read(examples: grain.MapDataset, cfg: DatasetConfig) -> grain.IterDataset:
  buffer = 16 * cfg.num_read_threads
  return examples.to_iter_dataset(grain.ReadOptions(cfg.num_read_threads, buffer))


def _to_batch(
  rows: Sequence[Mapping[str, np.ndarray]],
  cfg: DatasetConfig,
  converter: feature_converters.FeatureConverter,
  batch_size: int,
) -> Batch:
  """Returns the model features of packed rows or of examples; rows of zeros fill the batch."""
  lengths = feature_converters.row_lengths(cfg.task_feature_lengths, packed=cfg.pack)
  stacked = feature_converters.padded(rows, lengths, batch_size)
  return converter.convert(stacked, packed=cfg.pack)


def _derive_seed(seed: int | None, purpose: str) -> int:
  """Returns a 32-bit seed; Grain's epochs use seed + epoch, so nearby seeds must not be nearby."""
  return int.from_bytes(hashlib.sha256(f'{seed}/{purpose}'.encode()).digest()[:4], 'little')


def stream_settings(cfg: DatasetConfig) -> dict[str, Any]:
  """The settings that a stream of batches depends on, as JSON."""
  fields = ('mixture_or_task_name', 'split', 'batch_size', 'shuffle', 'seed', 'pack')
  return {
    **{name: getattr(cfg, name) for name in fields},
    'task_feature_lengths': dict(cfg.task_feature_lengths),
    'packing': _packing(cfg),
    **({'same_source_batches': True} if cfg.same_source_batches else {}),
  }


def _packing(cfg: DatasetConfig) -> list[Any] | None:
  """What packed rows depend on besides the examples."""
  if not cfg.pack:
    return None
  best = cfg.packer == 'best_fit'
  return [cfg.packer, cfg.num_packing_examples if best else cfg.num_packing_bins]


def _identity(
  cfg: DatasetConfig,
  tasks: Mapping[str, prepared.PreparedTask],
  rates: Mapping[str, float],
  host: str,
) -> dict[str, Any]:
  """Returns, as JSON, all that a stream of batches depends on besides the position in it."""
  contents = [
    (name, rate, tasks[name].manifest.vocabulary, tasks[name].manifest.definition, len(tasks[name]))
    for name, rate in rates.items()
  ]
  return {
    **stream_settings(cfg),
    'host': host,
    'tasks_and_rates': hashlib.sha256(json.dumps(contents).encode()).hexdigest(),
  }

"""Batches from prepared tasks, with Grain.

  task:   records -> shuffled by index, anew each epoch -> repeated -> this host's share -> trimmed
  all:    mixed by rate -> packed first-fit over many open rows (or padded) -> model features
          -> batches -> prefetched by a thread

Everything up to the packing is a function of an index, so the state of the iterator is that index
and the number of packed rows already given out: about a kilobyte. Restoring packs the open rows
again from the examples they came from (`num_packing_bins` rows at most, a fraction of a second).

Letters: B rows of a batch, S encoder positions, T decoder positions.
"""

from __future__ import annotations

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

from aya_train.data import availability, prepared
from aya_train.data.fingerprints import FEATURES
from aya_train.data.mixing import ProportionalSelection, mixing_rates
from aya_train.data.packing import FirstFitPackIterDataset
from aya_train.data.shuffling import shuffled
from aya_train.tasks import storage

logger = logging.getLogger(__name__)

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
  """What to read and how, by T5X's names.

  Attributes:
    mixture_or_task_name: a registered SeqIO task or mixture.
    task_feature_lengths: the lengths in tokens of `inputs` and `targets`; longer ones are cut.
    split: split of the tasks; tasks of a mixture without it are left out.
    batch_size: rows of the global batch, over all hosts.
    shuffle: whether training shuffles (evaluation never does).
    seed: of the shuffling, 0 <= seed < 2**32. Training with shuffle=True refuses None: whoever
      wants a random one draws it once for all hosts and writes it down.
    pack: whether several examples share a row.
    prepared_dir: root of the prepared tasks; None means `prepared/` in the cache directory.
    max_truncated_fraction: ValueError if the lengths cut a larger share of the examples.
    num_packing_bins: rows that are open at once. More pack tighter, and take longer to restore.
    num_read_threads: threads that read records. 0 reads in the packing thread: fastest from local
      disks; a network file system wants some.
    prefetch_batches: finished batches kept ready; 0 makes them when asked.
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
  num_packing_bins: int = 128
  num_read_threads: int = 0
  prefetch_batches: int = 2

  def __post_init__(self):
    lengths = dict(self.task_feature_lengths)
    if sorted(lengths) != sorted(FEATURES) or min(lengths.values()) < 1:
      raise ValueError(
        f'task_feature_lengths must give a positive length for each of {FEATURES}, got {lengths}.'
      )
    if self.batch_size < 1:
      raise ValueError(f'batch_size must be at least 1, got {self.batch_size}.')
    if self.seed is not None and not 0 <= self.seed < 2**32:
      raise ValueError(f'seed must be in [0, 2**32), got {self.seed}.')
    if not 0 <= self.max_truncated_fraction <= 1:
      raise ValueError(
        f'max_truncated_fraction must be in [0, 1], got {self.max_truncated_fraction}.'
      )
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
  *,
  process_index: int = 0,
  process_count: int = 1,
  barrier: Callable[[str], None] | None = None,
  shard: tuple[int, int] | None = None,
  state: Mapping[str, Any] | None = None,
) -> grain.DatasetIterator:
  """Returns the endless iterator over this host's training batches.

  Args:
    cfg: what to read.
    process_index: index of this host.
    process_count: number of hosts.
    barrier: see `prepared.ensure_prepared`.
    shard: which part of the batch to read, and of how many (`partitioning.Partitioner.data_shard`);
      by default each host a part of its own. Each epoch of each task is split between the parts.
    state: what `get_state()` of such an iterator gave; the batches that follow are then, bit for
      bit, those that followed there. It is JSON and belongs to one configuration and host.

  Returns:
    Iterator over dicts of [B, S] and [B, T] arrays (B = batch_size / parts) by the names of
    `convert_packed` or `pad_and_convert`.

  Raises:
    ValueError: from the tasks (`prepared.ensure_prepared`), rates (`mixing.mixing_rates`) or lengths
      (`check_truncation`); no seed; the hosts do not divide the batch; a state of another
      configuration.
  """
  part, parts = shard or (process_index, process_count)
  local_batch_size = cfg.local_batch_size(parts)
  if cfg.shuffle and cfg.seed is None:
    raise ValueError(
      'shuffle=True needs a seed, got seed=None. Draw one, the same on all hosts, and record it.'
    )
  tasks = prepared_tasks(cfg, process_index, process_count, barrier)
  provider = prepared.get_mixture_or_task(cfg.mixture_or_task_name)
  rates = mixing_rates(provider, tasks)
  check_truncation(cfg, tasks, rates)

  streams = []
  for name in rates:
    ds = grain.MapDataset.source(tasks[name])
    if cfg.shuffle:
      ds = shuffled(ds, _derive_seed(cfg.seed, name))
    # Hosts share the repeated stream, not the files: a task may have fewer examples than hosts.
    # They are separated before the mixing, since a host with short examples reads faster.
    ds = ds.repeat(None)[part::parts]
    streams.append(ds.map(_trimmer(tasks[name].manifest, cfg.task_feature_lengths)))
  mixed = streams[0]
  if len(streams) > 1:
    mixed = grain.MapDataset.select_from_datasets(streams, ProportionalSelection(rates.values()))

  ds = _read(mixed, cfg)
  if cfg.pack:
    seed = _derive_seed(cfg.seed, f'rows of host {part}') if cfg.shuffle else None
    ds = _pack(ds, cfg, seed)
  ds = ds.batch(
    local_batch_size,
    batch_fn=functools.partial(_to_batch, cfg=cfg, batch_size=local_batch_size),
  )
  if cfg.prefetch_batches:
    ds = grain.experimental.ThreadPrefetchIterDataset(ds, prefetch_buffer_size=cfg.prefetch_batches)
  identity = _identity(cfg, tasks, rates, f'{part} of {parts}')
  iterator = _TrainIterator(ds.__iter__(), identity)
  if state is not None:
    iterator.set_state(state)
  return iterator


def eval_batches(
  cfg: DatasetConfig,
  *,
  process_index: int = 0,
  process_count: int = 1,
  barrier: Callable[[str], None] | None = None,
  shard: tuple[int, int] | None = None,
  sample: bool = False,
) -> Iterator[Batch]:
  """Returns an iterator over this host's batches of one pass over all examples.

  Examples come in the order of the files, or in a random one that is always the same (`sample`): so
  the first batches are of all tasks, and not only of the first one. Over all hosts each example of
  each task comes exactly once, whatever the mixture's rates. Tasks without examples are left out.
  Every host yields the same number of batches; rows of zeros (loss weight 0) fill the last one. The
  global batches do not depend on the number of hosts: when packing, each host packs everything and
  keeps its rows, which costs reading all examples but no communication.

  Args and errors: as `train_iterator`; the seed is that of `sample`.
  """
  return open_eval(
    cfg,
    process_index=process_index,
    process_count=process_count,
    barrier=barrier,
    shard=shard,
    sample=sample,
  )()


def open_eval(
  cfg: DatasetConfig,
  *,
  process_index: int = 0,
  process_count: int = 1,
  barrier: Callable[[str], None] | None = None,
  shard: tuple[int, int] | None = None,
  sample: bool = False,
) -> Callable[[], Iterator[Batch]]:
  """Prepares and opens what `eval_batches` reads; each call of the result is one pass over it.

  Args and errors: as `eval_batches`.
  """
  part, parts = shard or (process_index, process_count)
  local_batch_size = cfg.local_batch_size(parts)
  tasks = prepared_tasks(cfg, process_index, process_count, barrier, allow_empty=True)
  if not tasks:
    provider = prepared.get_mixture_or_task(cfg.mixture_or_task_name)
    raise prepared.empty_split(prepared.tasks_with_split(provider, cfg.split)[0], cfg.split)
  check_truncation(cfg, tasks, {name: float(len(t)) for name, t in tasks.items()})
  trimmed = [
    grain.MapDataset.source(t).map(_trimmer(t.manifest, cfg.task_feature_lengths))
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
      yield _to_batch(local_rows, cfg, local_batch_size)

  return batches


def prepared_tasks(
  cfg: DatasetConfig,
  process_index: int = 0,
  process_count: int = 1,
  barrier: Callable[[str], None] | None = None,
  *,
  allow_empty: bool = False,
) -> dict[str, prepared.PreparedTask]:
  """Opens the tasks of a configuration, prepared first if need be (`availability.ensure_prepared`)."""
  return availability.ensure_prepared(
    cfg.mixture_or_task_name,
    cfg.split,
    prepared_root(cfg.prepared_dir),
    process_index=process_index,
    process_count=process_count,
    barrier=barrier,
    allow_empty=allow_empty,
  )


def prepared_root(directory: str | os.PathLike[str] | None) -> epath.Path:
  """Where prepared tasks are: PREPARED_DIR, or `prepared/` in the cache directory."""
  return epath.Path(storage.cache_dir() / 'prepared' if directory is None else directory)


def survey(cfg: DatasetConfig, *, allow_empty: bool = False) -> availability.Survey:
  """`availability.survey` of a configuration's data: what can be known before it is prepared."""
  return availability.survey(
    cfg.mixture_or_task_name, cfg.split, prepared_root(cfg.prepared_dir), allow_empty=allow_empty
  )


def check_truncation(
  cfg: DatasetConfig, tasks: Mapping[str, prepared.PreparedTask], rates: Mapping[str, float]
) -> dict[str, float]:
  """Returns, and logs, the share of drawn examples that each feature's length cuts.

  A drawn example is one of task t with probability rates[t] / sum(rates).

  Raises:
    ValueError: a share is above `cfg.max_truncated_fraction`.
  """
  shares = {}
  for feature, limit in cfg.task_feature_lengths.items():
    lengths, counts, draws = [], [], []
    for name, rate in rates.items():
      histogram = tasks[name].manifest.lengths[feature]
      lengths.append(np.fromiter(histogram.keys(), np.int64))
      counts.append(np.fromiter(histogram.values(), np.int64))
      draws.append(counts[-1] * (rate / len(tasks[name])))
    length, count, draw = (np.concatenate(parts) for parts in (lengths, counts, draws))
    cut = length > limit
    shares[feature] = share = float(draw[cut].sum() / draw.sum())
    report = (
      f'{feature} longer than {limit} tokens: {count[cut].sum():,} of {count.sum():,} examples of'
      f' {cfg.mixture_or_task_name!r} ({share:.2%} of the draws); the longest has {length.max():,}.'
    )
    logger.info('%s', report)
    if share > cfg.max_truncated_fraction:
      order = np.argsort(length)
      reached = np.cumsum(draw[order]) / draw.sum()
      enough = length[order][np.searchsorted(reached, 1 - cfg.max_truncated_fraction - 1e-9)]
      raise ValueError(
        f'{report} max_truncated_fraction is {cfg.max_truncated_fraction}: a length of {enough} in'
        f' task_feature_lengths[{feature!r}] would satisfy it, or raise the fraction (the macros '
        'TASK_FEATURE_LENGTHS and MAX_TRUNCATED_FRACTION).'
      )
  return shares


def shift_right(tokens_BT: np.ndarray, segment_ids_BT: np.ndarray | None = None) -> np.ndarray:
  """Returns int32 [B, T] decoder inputs: the tokens one to the right, 0 at each segment's start."""
  shifted_BT = np.zeros_like(tokens_BT)
  shifted_BT[:, 1:] = tokens_BT[:, :-1]
  if segment_ids_BT is not None:
    shifted_BT[:, 1:] *= segment_ids_BT[:, 1:] == segment_ids_BT[:, :-1]
  return shifted_BT


def convert_packed(rows: Mapping[str, np.ndarray]) -> Batch:
  """Converts a batch of packed rows to model features, as SeqIO's EncDecFeatureConverter(pack=True).

  Args:
    rows: int32 `inputs`, `inputs_segment_ids`, `inputs_positions` [B, S] and the same of `targets`
      [B, T].

  Returns:
    encoder_input_tokens, encoder_segment_ids, encoder_positions int32 [B, S]; decoder_input_tokens,
    decoder_target_tokens, decoder_segment_ids, decoder_positions int32 and decoder_loss_weights
    float32 [B, T].
  """
  return {
    **_convert(rows['inputs'], rows['targets'], rows['targets_segment_ids']),
    'encoder_segment_ids': rows['inputs_segment_ids'],
    'encoder_positions': rows['inputs_positions'],
    'decoder_segment_ids': rows['targets_segment_ids'],
    'decoder_positions': rows['targets_positions'],
  }


def pad_and_convert(
  examples: Sequence[Mapping[str, np.ndarray]],
  lengths: Mapping[str, int],
  batch_size: int | None = None,
) -> Batch:
  """Pads examples to a batch of model features, as SeqIO's EncDecFeatureConverter(pack=False).

  Args:
    examples: dicts of int32 `inputs` and `targets`, no longer than `lengths`.
    lengths: S and T by the names `inputs` and `targets`.
    batch_size: B; rows of zeros fill it. None means the number of examples.

  Returns:
    encoder_input_tokens int32 [B, S]; decoder_input_tokens, decoder_target_tokens int32 and
    decoder_loss_weights float32 [B, T].
  """
  rows = len(examples) if batch_size is None else batch_size
  padded = {f: np.zeros((rows, lengths[f]), np.int32) for f in FEATURES}
  for row, example in enumerate(examples):
    for f in FEATURES:
      padded[f][row, : len(example[f])] = example[f]
  return _convert(padded['inputs'], padded['targets'], None)


def _convert(inputs: np.ndarray, targets: np.ndarray, segment_ids: np.ndarray | None) -> Batch:
  return {
    'encoder_input_tokens': inputs,
    'decoder_input_tokens': shift_right(targets, segment_ids),
    'decoder_target_tokens': targets,
    'decoder_loss_weights': (targets != 0).astype(np.float32),
  }


def packing_efficiency(batch: Mapping[str, np.ndarray]) -> float:
  """Returns the share of encoder and decoder positions that are not padding."""
  tokens = [batch['encoder_input_tokens'], batch['decoder_target_tokens']]
  return sum(np.count_nonzero(t) for t in tokens) / sum(t.size for t in tokens)


def examples_per_batch(batch: Mapping[str, np.ndarray]) -> int:
  """Returns the number of examples in a batch, packed or not."""
  if 'decoder_segment_ids' in batch:
    encoder_B, decoder_B = (batch[f'{s}_segment_ids'].max(axis=1) for s in ('encoder', 'decoder'))
    return int(np.maximum(encoder_B, decoder_B).sum())
  filled = batch['encoder_input_tokens'].any(axis=1) | batch['decoder_target_tokens'].any(axis=1)
  return int(np.count_nonzero(filled))


def _trimmer(manifest: prepared.Manifest, lengths: Mapping[str, int]) -> Callable[[Any], Any]:
  limits = [(f, lengths[f], manifest.eos_after_trim.get(f)) for f in FEATURES]

  def trim(example: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for feature, length, eos in limits:
      if len(example[feature]) > length:
        example[feature] = example[feature][:length]
        if eos is not None:
          example[feature] = np.append(example[feature][:-1], np.int32(eos))
    return example

  return trim


def _pack(ds: grain.IterDataset, cfg: DatasetConfig, seed: int | None) -> grain.IterDataset:
  return FirstFitPackIterDataset(
    ds, lengths=cfg.task_feature_lengths, num_rows=cfg.num_packing_bins, seed=seed
  )


def _read(examples: grain.MapDataset, cfg: DatasetConfig) -> grain.IterDataset:
  buffer = 16 * cfg.num_read_threads
  return examples.to_iter_dataset(grain.ReadOptions(cfg.num_read_threads, buffer))


def _to_batch(
  rows: Sequence[Mapping[str, np.ndarray]], cfg: DatasetConfig, batch_size: int
) -> Batch:
  """Returns the model features of packed rows or of examples; rows of zeros fill the batch."""
  lengths = cfg.task_feature_lengths
  if not cfg.pack:
    return pad_and_convert(rows, lengths, batch_size)
  stacked = {}
  for feature, suffix in itertools.product(FEATURES, ('', '_segment_ids', '_positions')):
    stacked[feature + suffix] = values = np.zeros((batch_size, lengths[feature]), np.int32)
    for i, row in enumerate(rows):
      values[i] = row[feature + suffix]
  return convert_packed(stacked)


def _derive_seed(seed: int | None, purpose: str) -> int:
  """Returns a 32-bit seed; Grain's epochs use seed + epoch, so nearby seeds must not be nearby."""
  return int.from_bytes(hashlib.sha256(f'{seed}/{purpose}'.encode()).digest()[:4], 'little')


def stream_settings(cfg: DatasetConfig) -> dict[str, Any]:
  """The settings that a stream of batches depends on, as JSON."""
  fields = ('mixture_or_task_name', 'split', 'batch_size', 'shuffle', 'seed', 'pack')
  return {
    **{name: getattr(cfg, name) for name in fields},
    'task_feature_lengths': dict(cfg.task_feature_lengths),
    'num_packing_bins': cfg.num_packing_bins if cfg.pack else None,
  }


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


class _TrainIterator(grain.DatasetIterator):
  """The pipeline's iterator; its state names the stream, so that it is not continued with another."""

  def __init__(self, parent: grain.DatasetIterator, identity: dict[str, Any]):
    super().__init__(parent)
    self._batches = parent
    self._identity = identity

  def __next__(self) -> Batch:
    return next(self._batches)

  def get_state(self) -> dict[str, Any]:
    return {'stream': self._identity, 'position': self._batches.get_state()}

  def set_state(self, state: Mapping[str, Any]) -> None:
    self._check(state['stream'], self._identity)
    self._batches.set_state(state['position'])

  def set_state_of_hosts(self, states: Sequence[Mapping[str, Any]]) -> None:
    """Goes on where a run stopped, on these hosts or on others.

    Every part of a batch is read from a share of the same repeated tasks at the same rates. So if the
    parts are others now, the examples behind the positions of the old ones are those before their
    sum; only examples of rows that were being packed come again.

    Args:
      states: what `get_state()` gave on each host of that run.

    Raises:
      ValueError: a state of another configuration.
    """
    # Hosts that read the same part have the same state.
    saved = {state['stream']['host']: state for state in states}
    if (own := saved.get(self._identity['host'])) is not None:
      return self.set_state(own)
    anywhere = {**self._identity, 'host': 'any'}
    for state in states:
      self._check({**state['stream'], 'host': 'any'}, anywhere)
    parts = int(self._identity['host'].split(' of ')[1])
    read = sum(_next_index(state['position']) for state in saved.values())
    self._batches.set_state(_moved(self._batches.get_state(), read // parts))
    logger.info(
      'the data were read in %d parts, and go on in %d: about %d examples are behind',
      *(len(saved), parts, read),
    )

  def _check(self, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differing = [
      f'{k}: saved {saved.get(k)!r}, now {v!r}' for k, v in wanted.items() if saved.get(k) != v
    ]
    if differing:
      raise ValueError(
        f'the state of the data iterator belongs to another stream ({"; ".join(differing)}). Restore'
        ' it with the configuration that wrote it, or start the data anew.'
      )


def _next_index(position: Any) -> int:
  """How many examples the innermost reader of a Grain iterator's state has passed."""
  while 'next_index' not in position:
    position = position['parent']
  return int(position['next_index'])


def _moved(position: Any, next_index: int) -> Any:
  """The state of an iterator that has not begun, its innermost reader moved on."""
  if 'next_index' in position:
    return {**position, 'next_index': next_index}
  return {**position, 'parent': _moved(position['parent'], next_index)}

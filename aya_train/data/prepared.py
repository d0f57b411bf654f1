"""Prepared tasks: the output of a SeqIO task, tokenised once, in random-access files.

A SeqIO task is a stream: it starts from zero after a crash and tokenises again in every run. Here
its preprocessing runs once and the tokens go to ArrayRecord files, which `aya_train.data.batching`
shuffles by index. One directory holds one split of one task under one vocabulary and one
definition:

  DIRECTORY/TASK/SPLIT-VOCABULARY-DEFINITION/manifest.json
                                            /examples-00000-of-00001.array_record

VOCABULARY and DEFINITION are the beginnings of two fingerprints, so another vocabulary or another
list of preprocessors is another directory and nothing stale is read. A directory appears by a
rename after everything in it is written; until then it has a temporary name.

A record holds the task's integer output features (`task_registry.record_features`), N of them, in
little-endian int32: the lengths of the first N - 1, then the tokens of each. So a record of
`inputs` and `targets` is the number of input tokens, the input tokens, the target tokens. Random
preprocessors are seeded, and their draw is what gets stored.

The files are read by array_record itself: a path such as gs://... works where the installed
array_record has that file system.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
import functools
import glob
import hashlib
import itertools
import json
import logging
import os
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath

import aya_train
from aya_train import path_facts, signed_json, watchdog
from aya_train.data import fingerprints, task_examples, task_registry
from aya_train.tasks import sliced_source, storage

logger = logging.getLogger(__name__)

FORMAT = 1
MANIFEST = 'manifest.json'
# Grain reads one record at a time, hence groups of one. Of the compressions tried, zstd halves the
# size and reads as fast as none.
WRITER_OPTIONS = 'group_size:1,zstd:1'
KINDS_FILE = 'row_counts.json'
_TOKEN = np.dtype('<i4')
# Records have hashes in their file, which are checked as they are read. The list at its end that
# says where they are has none: a flipped bit there gives other records.
_LIST_BYTES_PER_RECORD, _LIST_BYTES = 32, 1 << 18
_PROGRESS_EVERY = 10_000

# Called with (task name, split, examples written, input examples or None).
Progress = Callable[[str, str, int, int | None], None]


def log_progress(task_name: str, split: str, done: int, total: int | None) -> None:
  of = '' if total is None else f' (from {total:,} input examples)'
  logger.info('Preparing %s:%s: %s examples%s', task_name, split, f'{done:,}', of)


def encode_example(features: Sequence[Sequence[int] | np.ndarray]) -> bytes:
  """Returns the record of one example; `decode_example` is its inverse."""
  lengths = [len(tokens) for tokens in features[:-1]]
  return np.concatenate((lengths, *features)).astype(_TOKEN).tobytes()


def decode_example(record: bytes, names: Sequence[str]) -> dict[str, np.ndarray]:
  """Returns read-only int32 arrays by the features' names, which share the record's memory."""
  tokens = np.frombuffer(record, _TOKEN)
  begin = len(names) - 1
  example = {}
  for name, length in zip(names[:-1], tokens[:begin].tolist(), strict=True):
    example[name] = tokens[begin : begin + length]
    begin += length
  example[names[-1]] = tokens[begin:]
  return example


@dataclasses.dataclass(frozen=True)
class Shard:
  """A file of examples; `end` is the SHA-256 of its end, where the list of records is."""

  name: str
  num_examples: int
  num_bytes: int
  end: str


@dataclasses.dataclass(frozen=True)
class Manifest:
  """What a prepared directory holds.

  Attributes:
    task: name of the SeqIO task.
    split: name of the split.
    num_examples: examples over all shards.
    shards: name, number of examples and size in bytes of each file.
    lengths: for each feature, how many examples have how many tokens (EOS included).
    num_tokens: for each feature, the tokens over all examples.
    eos_after_trim: the EOS id of each feature whose task uses
      `seqio.preprocessors.append_eos_after_trim`: a cut example then still ends in EOS.
    vocabulary: fingerprint of the vocabularies, see `fingerprints.vocabulary_fingerprint`.
    definition: fingerprint of the task's definition, see `fingerprints.definition_fingerprint`.
    source: the source's files (for a TFDS source without their folder) and number of examples.
    versions: of aya_train, seqio and this format.
  """

  task: str
  split: str
  num_examples: int
  shards: tuple[Shard, ...]
  lengths: Mapping[str, Mapping[int, int]]
  num_tokens: Mapping[str, int]
  eos_after_trim: Mapping[str, int]
  vocabulary: str
  definition: str
  source: Mapping[str, Any]
  versions: Mapping[str, Any]

  @property
  def features(self) -> tuple[str, ...]:
    """Names of the features of a record, in its order."""
    return tuple(self.lengths)

  def to_json(self) -> str:
    fields = dataclasses.asdict(self)
    fields['lengths'] = {f: sorted(self.lengths[f].items()) for f in self.features}
    return signed_json.dump(fields)

  @classmethod
  def from_json(cls, text: str) -> Manifest:
    fields = json.loads(text)
    if (found := fields['versions']['format']) != FORMAT:
      raise ValueError(f'format {found}, this program reads {FORMAT}')
    fields = signed_json.load(text)
    fields['shards'] = tuple(Shard(**s) for s in fields['shards'])
    counts = [s.num_examples for s in fields['shards']]
    if any(type(n) is not int or n < 0 for n in counts) or sum(counts) != fields['num_examples']:
      raise ValueError(f'{fields["num_examples"]!r} examples, and {counts} in its shards')
    fields['lengths'] = {f: dict(counts) for f, counts in fields['lengths'].items()}
    return cls(**fields)


class PreparedTask:
  """Random access to the examples of a prepared directory (a Grain data source).

  `task[i]` is a dict of the features, int32 arrays of any length. Opening compares size, end and
  number of records of each shard with the manifest, reading compares each record with its hash.

  Raises:
    FileNotFoundError: there is no manifest in the directory.
    ValueError: the manifest is of another format, or a shard is missing or damaged.
  """

  def __init__(self, directory: epath.PathLike):
    self.directory = epath.Path(directory)
    path = self.directory / MANIFEST
    if not path.exists():
      raise FileNotFoundError(
        f'{path} does not exist: the task is not prepared there. `aya-train prepare` does it; with'
        ' several hosts the directory must be shared by all of them.'
      )
    try:
      self.manifest = Manifest.from_json(path.read_text())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
      raise ValueError(f'{path}: {e}. Delete {self.directory} to prepare it again.') from e
    for shard in self.manifest.shards:
      _check_shard(self.directory / shard.name, shard)
    paths = [os.fspath(self.directory / s.name) for s in self.manifest.shards]
    self._ends = list(itertools.accumulate(s.num_examples for s in self.manifest.shards))
    self._readers = [functools.cache(functools.partial(_open_reader, p)) for p in paths]
    self._lock = threading.Lock()
    self._features = self.manifest.features
    self._records = ArrayRecordDataSource(paths)

  def __len__(self) -> int:
    return self.manifest.num_examples

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    if not 0 <= index < len(self):
      raise IndexError(f'{self}: index {index} is not in [0, {len(self)}).')
    # Seek and read takes 8 us where ArrayRecordDataSource, which allows many threads, takes 50.
    mine = self._lock.acquire(blocking=False)
    shard = bisect.bisect_right(self._ends, index)
    try:
      if not mine:
        return decode_example(self._records[index], self._features)
      reader = self._readers[shard]()
      reader.seek(index - (self._ends[shard - 1] if shard else 0))
      return decode_example(reader.read(), self._features)
    except RuntimeError as error:
      path = self.directory / self.manifest.shards[shard].name
      raise ValueError(
        f'{path}: example {index + 1} of the task is damaged ({error}). {_remedy(self.directory)}'
      ) from error
    finally:
      if mine:
        self._lock.release()

  def __repr__(self) -> str:
    return f'PreparedTask({os.fspath(self.directory)!r})'


def _open_reader(path: str) -> ArrayRecordReader:
  return ArrayRecordReader(path, 'readahead_buffer_size:0,max_parallelism:0')


def _remedy(directory: epath.Path) -> str:
  return f'Delete {directory} to prepare it again.'


def shard_of(path: epath.Path, num_examples: int) -> Shard:
  """What a manifest is to say of a file that is written."""
  size = path_facts.size(path)
  return Shard(path.name, num_examples, size, _end_digest(path, num_examples, size))


def _end_digest(path: epath.Path, num_examples: int, size: int) -> str:
  with path.open('rb') as file:
    file.seek(max(0, size - _LIST_BYTES - num_examples * _LIST_BYTES_PER_RECORD))
    return hashlib.sha256(file.read()).hexdigest()


def _check_shard(path: epath.Path, shard: Shard) -> None:
  remedy = _remedy(path.parent)
  num_bytes = path_facts.size(path) if path.exists() else None
  if num_bytes != shard.num_bytes:
    raise ValueError(f'{path}: {shard.num_bytes} bytes expected, got {num_bytes}. {remedy}')
  if _end_digest(path, shard.num_examples, shard.num_bytes) != shard.end:
    raise ValueError(f'{path}: its list of examples is damaged. {remedy}')
  try:
    reader = ArrayRecordReader(os.fspath(path))
    num_examples = reader.num_records()
    reader.close()
  except (RuntimeError, ValueError) as e:
    raise ValueError(f'{path}: not a whole ArrayRecord file ({e}). {remedy}') from e
  if num_examples != shard.num_examples:
    raise ValueError(
      f'{path}: {shard.num_examples} examples expected, got {num_examples}. {remedy}'
    )


def is_prepared(path: epath.Path) -> bool:
  """Whether a directory of `prepared_path` holds examples."""
  try:
    # What was empty may have rows by now.
    return json.loads((path / MANIFEST).read_text())['num_examples'] != 0
  except (FileNotFoundError, NotADirectoryError):
    return False
  except (ValueError, KeyError, TypeError, RecursionError):
    return True  # A damaged one is reported when it is opened.


def prepared_path(task: seqio.Task, split: str, directory: epath.PathLike) -> epath.Path:
  """Returns the directory of one split of a task; reads the vocabulary, not the source."""
  vocabulary = fingerprints.vocabulary_fingerprint(task)
  definition = fingerprints.definition_fingerprint(task)
  key = f'{vocabulary[:12]}-{definition[:12]}'
  split = urllib.parse.quote(split, safe='')
  return epath.Path(directory) / urllib.parse.quote(task.name, safe=':') / f'{split}-{key}'


def prepare_task(
  task_name: str,
  split: str,
  directory: epath.PathLike,
  *,
  num_shards: int = 1,
  progress: Progress = log_progress,
  allow_empty: bool = False,
) -> Manifest:
  """Runs a task's preprocessing and stores its examples, unless that has been done already.

  Args:
    task_name: a registered SeqIO task with rank-1 integer output features.
    split: the split to read.
    directory: root of the prepared tasks; see the module's docstring for what is below it.
    num_shards: files to write; example i goes to file i modulo this number.
    progress: called every 10,000 examples and at the end.
    allow_empty: store a split without examples as a directory with none, so that every host sees
      that it was looked at. The next call looks again.

  Returns:
    The manifest, of the existing directory if there is one.

  Raises:
    EmptySplitError: no example in the split, and that is not allowed.
    ValueError: no such task, no such split, wrong features, or the existing directory is damaged.
  """
  task = task_registry.get_mixture_or_task(task_name)
  if not isinstance(task, seqio.Task):
    raise ValueError(f'{task_name!r} is a mixture; prepare_task takes a task.')
  if num_shards < 1:
    raise ValueError(f'num_shards must be at least 1, got {num_shards}.')
  task = sliced_source.with_split(task, split)
  path = prepared_path(task, split, directory)
  if is_prepared(path):
    return PreparedTask(path).manifest
  clear_unprepared(path)
  remove_leftovers(path)
  temporary = storage.temporary(path)
  temporary.mkdir(parents=True)
  try:
    manifest = _write(task, split, temporary, num_shards, progress, allow_empty)
    (temporary / MANIFEST).write_text(manifest.to_json())
    return publish(temporary, path, manifest)
  finally:
    if temporary.exists():
      temporary.rmtree()


def clear_unprepared(path: epath.Path) -> None:
  """Removes what was empty when last looked at, or a part that a kill left in an object store."""
  if path.exists() and not is_prepared(path):
    path.rmtree()


def parts_path(path: epath.Path, count: int) -> epath.Path:
  """Where the shards of a directory of `prepared_path` are gathered, of which there are `count`."""
  return path.parent / f'.{path.name}.{count:05d}.parts'


def remove_leftovers(path: epath.Path, keep: epath.Path | None = None) -> None:
  """Removes what preparations of this split that are no more left beside a prepared directory.

  Args:
    path: of `prepared_path`.
    keep: parts that are gone on with.
  """
  if not path.parent.exists():
    return
  storage.remove_leftovers(path.parent)
  split = path.name.rsplit('-', 2)[0]
  parts = path_facts.matching(path.parent, f'.{glob.escape(split)}-*.parts')
  storage.remove_abandoned(part for part in parts if part != keep)


def publish(temporary: epath.Path, path: epath.Path, manifest: Manifest) -> Manifest:
  try:
    temporary.rename(path)
  except OSError:
    # Renaming onto a directory that is not empty fails: another process was faster.
    if not (path / MANIFEST).exists():
      raise
    return PreparedTask(path).manifest
  return manifest


def _write(
  task: seqio.Task,
  split: str,
  directory: epath.Path,
  num_shards: int,
  progress: Progress,
  allow_empty: bool,
) -> Manifest:
  total = task.num_input_examples(split) if split in task.splits else None
  names = [f'examples-{i:05d}-of-{num_shards:05d}.array_record' for i in range(num_shards)]
  writers = [ArrayRecordWriter(os.fspath(directory / n), WRITER_OPTIONS) for n in names]
  features = task_registry.record_features(task)
  lengths: dict[str, collections.Counter[int]] = {f: collections.Counter() for f in features}
  kinds: collections.Counter[tuple[str, ...]] = collections.Counter()
  done = 0
  try:
    for tokens, kind in task_examples.examples(task, split):
      kinds[kind] += 1
      for feature, array in zip(features, tokens, strict=True):
        lengths[feature][len(array)] += 1
      writers[done % num_shards].write(encode_example(tokens))
      done += 1
      if done % _PROGRESS_EVERY == 0:
        watchdog.beat()
        progress(task.name, split, done, total)
  finally:
    for writer in writers:
      writer.close()
  progress(task.name, split, done, total)
  if not done and not allow_empty:
    raise task_registry.empty_split(task, split)
  write_kinds(directory, task, split, kinds)
  return Manifest(
    task=task.name,
    split=split,
    num_examples=done,
    shards=tuple(
      shard_of(directory / n, len(range(i, done, num_shards))) for i, n in enumerate(names)
    ),
    lengths=lengths,
    num_tokens={f: sum(n * count for n, count in lengths[f].items()) for f in features},
    eos_after_trim=task_examples.eos_after_trim(task),
    vocabulary=fingerprints.vocabulary_fingerprint(task),
    definition=fingerprints.definition_fingerprint(task),
    source=task_examples.describe_source(task.source, split, total),
    versions={'aya_train': aya_train.__version__, 'seqio': seqio.__version__, 'format': FORMAT},
  )


def write_kinds(
  directory: epath.Path, task: seqio.Task, split: str, counts: Mapping[tuple[str, ...], int]
) -> None:
  """Keeps how many examples there are of each kind, so that nobody reads the source for it again.

  Not where only the source tells kinds, and the preprocessors have dropped what it says.

  Args:
    directory: of the prepared task.
    task, split: whose examples were counted.
    counts: kind, as `task_examples.examples` gives it -> examples.
  """
  if not any(any(kind) for kind in counts):
    spec = task.source.get_dataset(split=split, shuffle=False).element_spec
    if isinstance(spec, Mapping) and {*spec} & {*task_examples.KIND_COLUMNS}:
      return
  storage.write_atomically(directory / KINDS_FILE, kinds_text(counts))


def kinds_text(counts: Mapping[Any, int]) -> str:
  """What KINDS_FILE says: examples by kind."""
  return signed_json.dump({'rows': [[*kind, n] for kind, n in sorted(counts.items())]})

"""Prepared tasks: the output of a SeqIO task, tokenised once, in random-access files.

A SeqIO task is a stream: it starts from zero after a crash and tokenises again in every run. Here
its preprocessing runs once and the tokens go to ArrayRecord files, which `aya_train.data.batching` shuffles
by index. One directory holds one split of one task under one vocabulary and one definition:

  DIRECTORY/TASK/SPLIT-VOCABULARY-DEFINITION/manifest.json
                                            /examples-00000-of-00001.array_record

VOCABULARY and DEFINITION are the beginnings of two fingerprints, so another vocabulary or another
list of preprocessors is another directory and nothing stale is read. A directory appears by a
rename after everything in it is written; until then it has a temporary name.

A record is little-endian int32: the number of input tokens, the input tokens, the target tokens.
Random preprocessors are seeded with `PREPROCESSING_SEED`, and their draw is what gets stored.

The files are read by array_record itself: a path such as gs://... works where the installed
array_record has that file system.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
import difflib
import functools
import inspect
import itertools
import json
import os
import re
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
from absl import logging
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath

import aya_train
from aya_train.data.fingerprints import FEATURES, definition_fingerprint, vocabulary_fingerprint

FORMAT = 1
MANIFEST = 'manifest.json'
PREPROCESSING_SEED = 0
# Grain reads one record at a time, hence groups of one. Of the compressions tried, zstd halves the
# size and reads as fast as none.
WRITER_OPTIONS = 'group_size:1,zstd:1'
KINDS_FILE = 'row_counts.json'
KIND_COLUMNS = ('language_code', 'script', 'dataset', 'task_type', 'kind')
_TOKEN = np.dtype('<i4')
_PROGRESS_EVERY = 10_000
# TensorFlow gives the text of an exception of a generator or a py_function, and its traceback.
_WHERE_IN_GRAPH = re.compile(r'\{\{function_node [^}]*\}\}\s*|\s*\[Op:\w+\] name:.*')
_RAISED_INSIDE = re.compile(
  r'(?:^|\s)(\w+(?:Error|Exception): .*?)\s*\nTraceback \(most', re.DOTALL
)


class EmptySplitError(ValueError):
  """A split of a task gives no example: its source is empty, or its preprocessors drop all rows."""


# Called with (task name, split, examples written, input examples or None).
Progress = Callable[[str, str, int, int | None], None]


def log_progress(task_name: str, split: str, done: int, total: int | None) -> None:
  of = '' if total is None else f' (from {total:,} input examples)'
  logging.info('Preparing %s:%s: %s examples%s', task_name, split, f'{done:,}', of)


def encode_example(
  inputs: Sequence[int] | np.ndarray, targets: Sequence[int] | np.ndarray
) -> bytes:
  """Returns the record of one example; `decode_example` is its inverse."""
  return np.concatenate(([len(inputs)], inputs, targets)).astype(_TOKEN).tobytes()


def decode_example(record: bytes) -> dict[str, np.ndarray]:
  """Returns `inputs` and `targets`, read-only int32 arrays that share the record's memory."""
  tokens = np.frombuffer(record, _TOKEN)
  end = int(tokens[0]) + 1
  return {'inputs': tokens[1:end], 'targets': tokens[end:]}


@dataclasses.dataclass(frozen=True)
class Shard:
  name: str
  num_examples: int
  num_bytes: int


@dataclasses.dataclass(frozen=True)
class Manifest:
  """What a prepared directory holds.

  Attributes:
    task: name of the SeqIO task.
    split: name of the split.
    num_examples: examples over all shards.
    shards: name, number of examples and size in bytes of each file.
    lengths: for `inputs` and `targets`, how many examples have how many tokens (EOS included).
    num_tokens: for `inputs` and `targets`, the tokens over all examples.
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

  def to_json(self) -> str:
    fields = dataclasses.asdict(self)
    fields['lengths'] = {f: sorted(self.lengths[f].items()) for f in FEATURES}
    return json.dumps(fields)

  @classmethod
  def from_json(cls, text: str) -> Manifest:
    fields = json.loads(text)
    if fields['versions']['format'] != FORMAT:
      raise ValueError(f'format {fields["versions"]["format"]}, this program reads {FORMAT}')
    fields['shards'] = tuple(Shard(**s) for s in fields['shards'])
    fields['lengths'] = {f: dict(fields['lengths'][f]) for f in FEATURES}
    return cls(**fields)


class PreparedTask:
  """Random access to the examples of a prepared directory (a Grain data source).

  `task[i]` is a dict of `inputs` and `targets`, int32 arrays of any length. Opening compares size
  and number of records of each shard with the manifest.

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
    except (ValueError, KeyError, TypeError) as e:
      raise ValueError(f'{path}: {e}. Delete {self.directory} to prepare it again.') from e
    for shard in self.manifest.shards:
      _check_shard(self.directory / shard.name, shard)
    paths = [os.fspath(self.directory / s.name) for s in self.manifest.shards]
    self._ends = list(itertools.accumulate(s.num_examples for s in self.manifest.shards))
    self._readers = [functools.cache(functools.partial(_open_reader, p)) for p in paths]
    self._lock = threading.Lock()
    self._records = ArrayRecordDataSource(paths)

  def __len__(self) -> int:
    return self.manifest.num_examples

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    if not 0 <= index < len(self):
      raise IndexError(f'{self}: index {index} is not in [0, {len(self)}).')
    # Seek and read takes 8 us where ArrayRecordDataSource, which allows many threads, takes 50.
    if not self._lock.acquire(blocking=False):
      return decode_example(self._records[index])
    try:
      shard = bisect.bisect_right(self._ends, index)
      reader = self._readers[shard]()
      reader.seek(index - (self._ends[shard - 1] if shard else 0))
      return decode_example(reader.read())
    finally:
      self._lock.release()

  def __repr__(self) -> str:
    return f'PreparedTask({os.fspath(self.directory)!r})'


def _open_reader(path: str) -> ArrayRecordReader:
  return ArrayRecordReader(path, 'readahead_buffer_size:0,max_parallelism:0')


def _check_shard(path: epath.Path, shard: Shard) -> None:
  remedy = f'Delete {path.parent} to prepare it again.'
  num_bytes = path.stat().length if path.exists() else None
  if num_bytes != shard.num_bytes:
    raise ValueError(f'{path}: {shard.num_bytes} bytes expected, got {num_bytes}. {remedy}')
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


def empty_split(task: seqio.Task, split: str) -> EmptySplitError:
  """The error that says that a split has no examples."""
  return EmptySplitError(
    f'no examples in split {split!r} of task {task.name!r}; splits are {sorted(task.splits)}.'
    ' Either its source is empty or its preprocessors drop everything.'
  )


def is_prepared(path: epath.Path) -> bool:
  """Whether a directory of `prepared_path` holds examples."""
  try:
    # What was empty may have rows by now.
    return json.loads((path / MANIFEST).read_text())['num_examples'] != 0
  except (FileNotFoundError, NotADirectoryError):
    return False
  except (ValueError, KeyError, TypeError):
    return True  # A damaged one is reported when it is opened.


def prepared_path(task: seqio.Task, split: str, directory: epath.PathLike) -> epath.Path:
  """Returns the directory of one split of a task; reads the vocabulary, not the source."""
  key = f'{vocabulary_fingerprint(task)[:12]}-{definition_fingerprint(task)[:12]}'
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
    task_name: a registered SeqIO task with rank-1 integer features `inputs` and `targets`.
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
  task = get_mixture_or_task(task_name)
  if not isinstance(task, seqio.Task):
    raise ValueError(
      f'{task_name!r} is a mixture; prepare_task takes a task, ensure_prepared both.'
    )
  if num_shards < 1:
    raise ValueError(f'num_shards must be at least 1, got {num_shards}.')
  path = prepared_path(task, split, directory)
  if is_prepared(path):
    return PreparedTask(path).manifest
  if path.exists():  # Empty when last looked at, or a part that a kill left in an object store.
    path.rmtree()
  temporary = path.parent / f'.{path.name}.{uuid.uuid4().hex}.tmp'
  temporary.mkdir(parents=True)
  try:
    manifest = _write(task, split, temporary, num_shards, progress, allow_empty)
    (temporary / MANIFEST).write_text(manifest.to_json())
    return publish(temporary, path, manifest)
  finally:
    if temporary.exists():
      temporary.rmtree()


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
  lengths: dict[str, collections.Counter[int]] = {f: collections.Counter() for f in FEATURES}
  kinds: collections.Counter[tuple[str, ...]] = collections.Counter()
  done = 0
  try:
    for inputs, targets, kind in examples(task, split):
      kinds[kind] += 1
      lengths['inputs'][len(inputs)] += 1
      lengths['targets'][len(targets)] += 1
      writers[done % num_shards].write(encode_example(inputs, targets))
      done += 1
      if done % _PROGRESS_EVERY == 0:
        progress(task.name, split, done, total)
  finally:
    for writer in writers:
      writer.close()
  progress(task.name, split, done, total)
  if not done and not allow_empty:
    raise empty_split(task, split)
  write_kinds(directory, task, split, kinds)
  return Manifest(
    task=task.name,
    split=split,
    num_examples=done,
    shards=tuple(
      Shard(n, len(range(i, done, num_shards)), (directory / n).stat().length)
      for i, n in enumerate(names)
    ),
    lengths=lengths,
    num_tokens={f: sum(n * count for n, count in lengths[f].items()) for f in FEATURES},
    eos_after_trim=eos_after_trim(task),
    vocabulary=vocabulary_fingerprint(task),
    definition=definition_fingerprint(task),
    source=describe_source(task.source, split, total),
    versions={'aya_train': aya_train.__version__, 'seqio': seqio.__version__, 'format': FORMAT},
  )


def examples(
  task: seqio.Task, split: str, shard: int = 0, num_shards: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[str, ...]]]:
  """Yields (inputs, targets, kind) in the order of the source, neither trimmed nor cached.

  The kind is what the example says of itself under `KIND_COLUMNS`, '' for what it does not say.

  With several shards each example is in one of them: by files of the source, where there are
  enough; else every shard reads all of the source, and tokenises its own part.

  Raises:
    ValueError: no such split, wrong features, or what a row or a preprocessor raised, in one line.
  """
  require_split(task, split)
  if 1 < num_shards <= len(task.source.list_shards(split)):
    part = seqio.ShardInfo(shard, num_shards)
    ds = task.source.get_dataset(split=split, shuffle=False, shard_info=part)
  else:
    ds = task.source.get_dataset(split=split, shuffle=False).shard(num_shards, shard)
  try:
    yield from _tokens(task, ds)
  except tf.errors.OpError as error:  # a row, or what the task's functions raised inside tf.data
    raise ValueError(f'task {task.name!r}, split {split!r}: {reason(error)}') from error


def require_split(task: seqio.Task, split: str) -> None:
  """ValueError, with the splits there are, if the task lacks one."""
  if split.split('[')[0] not in task.splits:
    raise ValueError(f'no split {split!r} in task {task.name!r}; splits are {sorted(task.splits)}.')


def has_rows(task: seqio.Task, split: str, count: int) -> bool:
  """Prepares the first rows of a split, so that what is wrong with them shows in a second.

  Args:
    task: a SeqIO task.
    split: to read.
    count: rows of the source to read at most.

  Returns:
    Whether the source has rows. (Preprocessors may still drop all of them.)

  Raises:
    FileNotFoundError: the source is not there.
    ValueError: no such split, wrong features, or what reading and preprocessing raise, in one line.
  """
  require_split(task, split)
  try:
    if not task.source.list_shards(split):
      if isinstance(task.source, seqio.FileDataSource):
        pattern = getattr(task.source, '_split_to_filepattern', {}).get(split, '')
        raise FileNotFoundError(f'no file {pattern}'.rstrip())
      return False
    rows = task.source.get_dataset(split=split, shuffle=False).take(count).cache()
    read = sum(1 for _ in rows)
    for _ in _tokens(task, rows) if read else ():
      pass
  except (FileNotFoundError, tf.errors.NotFoundError) as error:
    raise FileNotFoundError(reason(error)) from error
  except Exception as error:
    raise ValueError(
      f'task {task.name!r}, split {split!r}: its first rows cannot be prepared: {reason(error)}'
    ) from error
  return read > 0


def reason(error: BaseException) -> str:
  """What was raised, in one line; what Python raised inside tf.data comes in the words of that."""
  text = _WHERE_IN_GRAPH.sub('', str(error)).strip()
  if (inner := _RAISED_INSIDE.search(text)) is not None:
    return inner.group(1).strip()
  return text.splitlines()[0] if text else type(error).__name__


def _tokens(
  task: seqio.Task, ds: tf.data.Dataset
) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[str, ...]]]:
  ds = task.preprocess_precache(ds, seed=PREPROCESSING_SEED)
  ds = task.preprocess_postcache(ds, sequence_length=None, seed=PREPROCESSING_SEED)
  for feature in FEATURES:
    spec = ds.element_spec.get(feature)
    if spec is None or spec.shape.rank != 1 or not spec.dtype.is_integer:
      raise ValueError(
        f'task {task.name!r} must give feature {feature!r} as a rank-1 integer tensor, got'
        f' {"none" if spec is None else spec} among {sorted(ds.element_spec)}.'
      )
  names = [n for n in KIND_COLUMNS if _is_text(ds.element_spec.get(n))]
  ds = ds.map(
    lambda x: (tuple(tf.cast(x[f], tf.int32) for f in FEATURES), tuple(x[n] for n in names))
  )
  # In batches, since every step from tf.data to Python costs more than an example's tokenisation.
  for tokens, texts in ds.ragged_batch(256).prefetch(2):
    columns = [np.split(c.values.numpy(), c.row_splits.numpy()[1:-1]) for c in tokens]
    said = dict(zip(names, (c.numpy().tolist() for c in texts), strict=True))
    blank = [b''] * len(columns[0])
    kinds = zip(*(said.get(name, blank) for name in KIND_COLUMNS), strict=True)
    for inputs, targets, kind in zip(*columns, kinds, strict=True):
      yield inputs, targets, tuple(text.decode(errors='replace') for text in kind)


def _is_text(spec: Any) -> bool:
  return isinstance(spec, tf.TensorSpec) and spec.shape.rank == 0 and spec.dtype == tf.string


def write_kinds(
  directory: epath.Path, task: seqio.Task, split: str, counts: Mapping[tuple[str, ...], int]
) -> None:
  """Keeps how many examples there are of each kind, so that nobody reads the source for it again.

  Not where only the source tells kinds, and the preprocessors have dropped what it says.

  Args:
    directory: of the prepared task.
    task, split: whose examples were counted.
    counts: kind, as `examples` gives it -> examples.
  """
  if not any(any(kind) for kind in counts):
    spec = task.source.get_dataset(split=split, shuffle=False).element_spec
    if isinstance(spec, Mapping) and {*spec} & {*KIND_COLUMNS}:
      return
  rows = [[*kind, n] for kind, n in sorted(counts.items())]
  (directory / KINDS_FILE).write_text(json.dumps(rows, ensure_ascii=False))


def eos_after_trim(task: seqio.Task) -> dict[str, int]:
  after_trim = seqio.preprocessors.append_eos_after_trim
  if not any(_unwrap(p) is after_trim for p in task.preprocessors):
    return {}
  features = {f: task.output_features[f] for f in FEATURES}
  return {f: int(v.vocabulary.eos_id) for f, v in features.items() if v.add_eos}


def _unwrap(preprocessor: Any) -> Any:
  while isinstance(preprocessor, functools.partial):
    preprocessor = preprocessor.func
  return inspect.unwrap(preprocessor)


def describe_source(
  source: seqio.DataSource, split: str, num_input_examples: int | None
) -> dict[str, Any]:
  shards = [os.path.basename(s) for s in itertools.islice(source.list_shards(split), 1000)]
  return {
    'class': type(source).__name__,
    'shards': shards,
    'num_input_examples': num_input_examples,
  }


def ensure_prepared(
  mixture_or_task_name: str,
  split: str,
  directory: epath.PathLike,
  *,
  num_shards: int = 1,
  progress: Progress = log_progress,
  process_index: int = 0,
  process_count: int = 1,
  barrier: Callable[[str], None] | None = None,
  allow_empty: bool = False,
) -> dict[str, PreparedTask]:
  """Prepares what is missing of a task or of a mixture's tasks, and opens all of it.

  Only process 0 writes; the others wait at `barrier` and then read the same directory.

  Args:
    mixture_or_task_name: a registered SeqIO task or mixture.
    split: tasks of a mixture without this split are left out, as in SeqIO.
    directory: root of the prepared tasks, shared by all processes.
    num_shards: files for each task.
    progress: see `prepare_task`.
    process_index: index of this process.
    process_count: number of processes of this run.
    barrier: called with a name by every process once process 0 is done (or has failed), when there
      are several processes; None if the caller has seen to it that process 0 comes first.
    allow_empty: leave tasks without examples out, instead of refusing them.

  Returns:
    Task name -> open task, sorted by name.

  Raises:
    ValueError: unknown name (the message has close ones), no task with the split; or see
      `prepare_task`.
    FileNotFoundError: on a process other than 0, when a task is not there.
  """
  tasks = tasks_with_split(get_mixture_or_task(mixture_or_task_name), split)
  try:
    if process_index == 0:
      for task in tasks:
        prepare_task(
          task.name,
          split,
          directory,
          num_shards=num_shards,
          progress=progress,
          allow_empty=allow_empty,
        )
  finally:
    # Also on failure: the others then stop with FileNotFoundError instead of waiting for ever.
    if process_count > 1 and barrier is not None:
      barrier(f'prepared {mixture_or_task_name}:{split}')
  opened = {t.name: PreparedTask(prepared_path(t, split, directory)) for t in tasks}
  if not allow_empty and (empty := [t for t in tasks if not len(opened[t.name])]):
    raise empty_split(empty[0], split)
  return {name: task for name, task in opened.items() if len(task)}


def get_mixture_or_task(name: str) -> seqio.Task | seqio.Mixture:
  """Returns the registered mixture or task; ValueError with close names if there is none."""
  names = sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()})
  if name not in names:
    raise ValueError(
      f'no task or mixture {name!r}. Close names: {difflib.get_close_matches(name, names, 5)} of'
      f' {len(names)}. Is the module that registers it imported?'
    )
  return seqio.get_mixture_or_task(name)


def has_split(provider: seqio.Task | seqio.Mixture, split: str) -> bool:
  """Whether a task, or any task of a mixture, has a split."""
  return any(split.split('[')[0] in task.splits for task in seqio.get_subtasks(provider))


def tasks_with_split(provider: seqio.Task | seqio.Mixture, split: str) -> list[seqio.Task]:
  """Returns the task, or those tasks of a mixture that have the split, sorted by name.

  Raises:
    ValueError: nothing has the split; the message has those that there are.
  """
  if isinstance(provider, seqio.Task):
    require_split(provider, split)
    return [provider]
  tasks = [t for t in provider.tasks if split.split('[')[0] in t.splits]
  if not tasks:
    splits = sorted({s for t in provider.tasks for s in t.splits})
    raise ValueError(f'no task of {provider.name!r} has split {split!r}; splits are {splits}.')
  return tasks

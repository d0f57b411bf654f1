"""Examples of a SeqIO task: its source read, its preprocessors run, tokens as numpy arrays.

Random preprocessors are seeded with `PREPROCESSING_SEED`.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
from etils import epath

from aya_train import path_facts, user_code
from aya_train.data import batch_tokenizer, task_registry
from aya_train.tasks import sliced_source, split_slices

PREPROCESSING_SEED = 0
_END_BYTES = 1 << 20
KIND_COLUMNS = ('language_code', 'script', 'dataset', 'task_type', 'kind')
# TensorFlow gives the text of an exception of a generator or a py_function, and its traceback.
_WHERE_IN_GRAPH = re.compile(r'\{\{function_node [^}]*\}\}\s*|\s*\[Op:\w+\] name:.*')

Tokens = tuple[np.ndarray, ...]
Kind = tuple[str, ...]


def examples(
  task: seqio.Task, split: str, shard: int = 0, num_shards: int = 1
) -> Iterator[tuple[Tokens, Kind]]:
  """Yields (tokens, kind) in the order of the source, neither trimmed nor cached.

  The tokens are an int32 array for each of `task_registry.record_features`. The kind is what the
  example says of itself under `KIND_COLUMNS`, '' for what it does not say.

  With several shards each example is in one of them: by files of the source, where there are
  enough; else every shard reads all of the source, and tokenises its own part.

  Raises:
    ValueError: no such split, wrong features, or what a row or a preprocessor raised, in one line.
  """
  task = sliced_source.with_split(task, split)
  if 1 < num_shards <= len(task.source.list_shards(split)):
    part = seqio.ShardInfo(shard, num_shards)
    ds = task.source.get_dataset(split=split, shuffle=False, shard_info=part)
  else:
    ds = task.source.get_dataset(split=split, shuffle=False).shard(num_shards, shard)
  try:
    yield from _tokens(task, ds)
  except tf.errors.OpError as error:  # a row, or what the task's functions raised inside tf.data
    raise ValueError(f'task {task.name!r}, split {split!r}: {reason(error)}') from error


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
  task = sliced_source.with_split(task, split)
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
  """What was raised, in one line, and where in code of the user's.

  What Python raised inside tf.data comes in the words of that.
  """
  place = user_code.place(error)
  return _what(error) + (f' ({place})' if place else '')


def _what(error: BaseException) -> str:
  if inner := user_code.inside_graph(error):
    return inner
  text = _WHERE_IN_GRAPH.sub('', str(error)).strip()
  if text.startswith('in user code:'):  # of AutoGraph: the last line is what was raised
    return text.splitlines()[-1].strip()
  return text.splitlines()[0] if text else type(error).__name__


def _tokens(task: seqio.Task, ds: tf.data.Dataset) -> Iterator[tuple[Tokens, Kind]]:
  features = task_registry.record_features(task)
  if (tail := batch_tokenizer.of_task(task, features)) is not None:
    before = _preprocessed(tail.before, ds)
    if batch_tokenizer.has_texts(before, features):
      names = [n for n in KIND_COLUMNS if _is_text(before.element_spec.get(n))]
      for tokens, texts in tail.batches(before, names):
        yield from _rows([tokens[f] for f in features], texts)
      return
  ds = _preprocessed(task, ds)
  for feature in features:
    spec = ds.element_spec.get(feature)
    if spec is None or spec.shape.rank != 1 or not spec.dtype.is_integer:
      raise ValueError(
        f'task {task.name!r} must give feature {feature!r} as a rank-1 integer tensor, got'
        f' {"none" if spec is None else spec} among {sorted(ds.element_spec)}.'
      )
  names = [n for n in KIND_COLUMNS if _is_text(ds.element_spec.get(n))]
  ds = ds.map(
    lambda x: (tuple(tf.cast(x[f], tf.int32) for f in features), tuple(x[n] for n in names))
  )
  # In batches, since every step from tf.data to Python costs more than an example's tokenisation.
  for tokens, texts in ds.ragged_batch(256).prefetch(2):
    said = dict(zip(names, (c.numpy().tolist() for c in texts), strict=True))
    yield from _rows([_arrays(column) for column in tokens], said)


def _preprocessed(task: seqio.Task, ds: tf.data.Dataset) -> tf.data.Dataset:
  ds = task.preprocess_precache(ds, seed=PREPROCESSING_SEED)
  return task.preprocess_postcache(ds, sequence_length=None, seed=PREPROCESSING_SEED)


def _rows(
  columns: Sequence[Sequence[np.ndarray]], said: Mapping[str, Sequence[bytes]]
) -> Iterator[tuple[Tokens, Kind]]:
  blank = [b''] * len(columns[0])
  kinds = zip(*(said.get(name, blank) for name in KIND_COLUMNS), strict=True)
  for *arrays, kind in zip(*columns, kinds, strict=True):
    yield tuple(arrays), tuple(text.decode(errors='replace') for text in kind)


def _arrays(column: tf.Tensor | tf.RaggedTensor) -> list[np.ndarray]:
  """The rows of a batch; preprocessors that give one static length give no ragged one."""
  if isinstance(column, tf.RaggedTensor):
    return np.split(column.values.numpy(), column.row_splits.numpy()[1:-1])
  return list(column.numpy())


def _is_text(spec: Any) -> bool:
  return isinstance(spec, tf.TensorSpec) and spec.shape.rank == 0 and spec.dtype == tf.string


def eos_after_trim(task: seqio.Task) -> dict[str, int]:
  after_trim = seqio.preprocessors.append_eos_after_trim
  if not any(_unwrap(p) is after_trim for p in task.preprocessors):
    return {}
  features = {f: task.output_features[f] for f in task_registry.record_features(task)}
  return {f: int(v.vocabulary.eos_id) for f, v in features.items() if v.add_eos}


def _unwrap(preprocessor: Any) -> Any:
  while isinstance(preprocessor, functools.partial):
    preprocessor = preprocessor.func
  return inspect.unwrap(preprocessor)


def files_of(source: seqio.DataSource, split: str) -> list[list[Any]]:
  """Name, size and a digest of both ends of the files of a user's data set; [] of other sources.

  Raises:
    OSError: a file is not there.
  """
  whole = getattr(source, 'whole', source)
  if not hasattr(whole, 'paths'):
    return []
  return [_described(path) for name in split_slices.names(split) for path in whole.paths(name)]


def _described(path: epath.Path) -> list[Any]:
  size = path_facts.size(path)
  with path.open('rb') as file:
    digest = hashlib.sha256(file.read(_END_BYTES))
    file.seek(max(0, size - _END_BYTES))
    digest.update(file.read(_END_BYTES))
  return [path.name, size, digest.hexdigest()]


def describe_source(
  source: seqio.DataSource, split: str, num_input_examples: int | None
) -> dict[str, Any]:
  shards = [os.path.basename(s) for s in itertools.islice(source.list_shards(split), 1000)]
  return {
    'class': type(source).__name__,
    'shards': shards,
    'num_input_examples': num_input_examples,
    'files': files_of(source, split),
  }

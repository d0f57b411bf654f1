"""Prepares a task in several pieces of work: in processes, or through Apache Beam.

What comes out is what `prepared.prepare_task` makes (the same manifest, the same records), but
its shards are written one by one, so that they can be spread over machines and a killed
preparation goes on with the shards that are missing:

  DIRECTORY/TASK/.SPLIT-VOCABULARY-DEFINITION.NNNNN.parts/examples-00003-of-00016.array_record
                                                         /examples-00003-of-00016.json

A shard appears by a rename, its file of counts comes last, and the directory gets its real name
when all are there. Shard k holds the examples of the source's k-th, (k+N)-th ... file.
"""

from __future__ import annotations

import collections
import importlib
import json
import os
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import seqio
from absl import logging
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

import aya_train
from aya_train import prepared
from aya_train.fingerprints import FEATURES, definition_fingerprint, vocabulary_fingerprint
from aya_train.tasks import features, work_runner

# Rows of a shard, where the number of shards is left to us: about 100 MB of tokens.
ROWS_PER_SHARD = 250_000


def prepare_task(
  task_name: str,
  split: str,
  directory: epath.PathLike,
  *,
  num_shards: int = 0,
  runner: work_runner.Runner = work_runner.here,
  module: str = 'aya_train.tasks',
  say: Callable[[str], None] = logging.info,
) -> prepared.Manifest:
  """Runs a task's preprocessing shard by shard and stores its examples, unless that is done.

  Args:
    task_name: a registered SeqIO task, see `prepared.prepare_task`.
    split: the split to read.
    directory: root of the prepared tasks, seen by all workers.
    num_shards: files to write; 0: one for each 250,000 rows of the source.
    runner: where the shards are written.
    module: imported by a worker to register the task.
    say: called with lines of progress.

  Returns:
    The manifest, of the existing directory if there is one.

  Raises:
    ValueError: as in `prepared.prepare_task`.
  """
  task = prepared.get_mixture_or_task(task_name)
  if not isinstance(task, seqio.Task):
    raise ValueError(f'{task_name!r} is a mixture; prepare its tasks.')
  if split not in task.splits:
    raise ValueError(f'no split {split!r} in task {task_name!r}; splits are {sorted(task.splits)}.')
  path = prepared.prepared_path(task, split, directory)
  if (path / prepared.MANIFEST).exists():
    return prepared.PreparedTask(path).manifest
  total = task.num_input_examples(split)
  count = num_shards or max(1, round((total or 0) / ROWS_PER_SHARD))
  parts = path.parent / f'.{path.name}.{count:05d}.parts'
  parts.mkdir(parents=True, exist_ok=True)
  todo = [k for k in range(count) if not (parts / f'{_stem(k, count)}.json').exists()]
  if len(todo) < count:
    say(f'{task_name}:{split}: {count - len(todo)} of {count} shards were done before')
  vocabulary = features.vocabulary_file()
  work = [(os.fspath(parts), task_name, split, k, count, module, vocabulary) for k in todo]
  started = time.monotonic()
  for done, _ in enumerate(runner(write_shard, work), 1):
    took = time.monotonic() - started
    left = took / done * (len(work) - done)
    say(f'{task_name}:{split}: {done} of {len(work)} shards in {took:,.0f} s, {left:,.0f} s left')
  manifest = _manifest(task, split, parts, count, total)
  (parts / prepared.MANIFEST).write_text(manifest.to_json())
  for k in range(count):
    (parts / f'{_stem(k, count)}.json').unlink()
  if path.exists():  # Object stores rename file by file: a kill can leave a part without manifest.
    path.rmtree()
  return prepared.publish(parts, path, manifest)


def _stem(shard: int, count: int) -> str:
  return f'examples-{shard:05d}-of-{count:05d}'


def write_shard(
  parts: str, task_name: str, split: str, shard: int, count: int, module: str, vocabulary: str
) -> int:
  """Writes one shard and its counts, unless they are there; returns its number of examples."""
  stem = epath.Path(parts) / _stem(shard, count)
  counts = stem.parent / f'{stem.name}.json'
  if counts.exists():
    return json.loads(counts.read_text())['examples']
  importlib.import_module(module)
  features.set_vocabulary(vocabulary)
  task = seqio.TaskRegistry.get(task_name)
  lengths: dict[str, collections.Counter[int]] = {f: collections.Counter() for f in FEATURES}
  temporary = stem.parent / f'.{stem.name}.{uuid.uuid4().hex}.tmp'
  writer = ArrayRecordWriter(os.fspath(temporary), prepared.WRITER_OPTIONS)
  written = 0
  try:
    for inputs, targets in prepared.examples(task, split, shard, count):
      lengths['inputs'][len(inputs)] += 1
      lengths['targets'][len(targets)] += 1
      writer.write(prepared.encode_example(inputs, targets))
      written += 1
  finally:
    writer.close()
  temporary.replace(stem.parent / f'{stem.name}.array_record')
  found = {'examples': written, 'lengths': {f: sorted(lengths[f].items()) for f in FEATURES}}
  partial = stem.parent / f'.{counts.name}.{uuid.uuid4().hex}.tmp'
  partial.write_text(json.dumps(found))
  partial.replace(counts)
  return written


def _manifest(
  task: seqio.Task, split: str, parts: epath.Path, count: int, total: int | None
) -> prepared.Manifest:
  found: list[dict[str, Any]] = [
    json.loads((parts / f'{_stem(k, count)}.json').read_text()) for k in range(count)
  ]
  lengths = {f: _added([x['lengths'][f] for x in found]) for f in FEATURES}
  examples = sum(x['examples'] for x in found)
  if not examples:
    raise ValueError(
      f'no examples in split {split!r} of task {task.name!r}: its source is empty, or its '
      'preprocessors drop everything.'
    )
  names = [f'{_stem(k, count)}.array_record' for k in range(count)]
  return prepared.Manifest(
    task=task.name,
    split=split,
    num_examples=examples,
    shards=tuple(
      prepared.Shard(name, x['examples'], (parts / name).stat().length)
      for name, x in zip(names, found, strict=True)
    ),
    lengths=lengths,
    num_tokens={f: sum(n * times for n, times in lengths[f].items()) for f in FEATURES},
    eos_after_trim=prepared.eos_after_trim(task),
    vocabulary=vocabulary_fingerprint(task),
    definition=definition_fingerprint(task),
    source=prepared.describe_source(task.source, split, total),
    versions={
      'aya_train': aya_train.__version__,
      'seqio': seqio.__version__,
      'format': prepared.FORMAT,
    },
  )


def _added(counts: Sequence[Sequence[tuple[int, int]]]) -> dict[int, int]:
  total: collections.Counter[int] = collections.Counter()
  for part in counts:
    total.update(dict(part))
  return dict(sorted(total.items()))

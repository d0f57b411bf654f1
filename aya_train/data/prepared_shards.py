"""Prepares tasks in many pieces of work: in processes, or through Apache Beam.

What comes out is what `prepared.prepare_task` makes (the same manifest, the same records), but
its shards are written one by one, so that they can be spread over machines and a killed
preparation goes on with the shards that are missing:

  DIRECTORY/TASK/.SPLIT-VOCABULARY-DEFINITION.NNNNN.parts/examples-00003-of-00016.array_record
                                                         /examples-00003-of-00016.json
                                                         /source.json

A shard appears by a rename, its file of counts comes last, and the directory gets its real name
when all are there. Shard k holds the examples of the source's k-th, (k+N)-th ... file. Where the
source's files are no longer those of `source.json`, the preparation begins anew.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import seqio
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

import aya_train
from aya_train import lease, path_facts, signed_json, watchdog
from aya_train.data import fingerprints, prepared, task_examples, task_registry
from aya_train.tasks import features, sliced_source, split_slices, storage
from aya_train.tasks.building import work_runner
from aya_train.tasks.user import user_data

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0
_STAMP = 'source.json'
_MOST_STAMPED = 1_000  # of more files the names must do

# Rows of a shard, where the number of shards is left to us: about 100 MB of tokens.
ROWS_PER_SHARD = 250_000
# A mixture has thousands of tasks, most of them small: those are not cut up further.
MIN_ROWS_PER_SHARD = 1_000


@dataclasses.dataclass(frozen=True)
class _ShardPlan:
  """A task that is to be prepared: where its shards go, and how many there are."""

  task: seqio.Task
  path: epath.Path
  parts: epath.Path
  count: int
  total: int | None


def prepare_tasks(
  names: Sequence[str],
  split: str,
  directory: epath.PathLike,
  *,
  num_shards: int = 0,
  runner: work_runner.Runner = work_runner.here,
  module: str = 'aya_train.tasks',
  tables: Sequence[str] = (),
  allow_empty: bool = False,
  say: Callable[[str], None] = logger.info,
) -> dict[str, prepared.Manifest]:
  """Runs the preprocessing of tasks shard by shard and stores their examples, unless that is done.

  The shards of all tasks are one list of work: one Beam pipeline, whatever their number.

  Args:
    names: registered SeqIO tasks, see `prepared.prepare_task`.
    split: the split to read.
    directory: root of the prepared tasks, seen by all workers.
    num_shards: files of each task, at most one for 1,000 rows; 0: one for each 250,000 rows.
    runner: where the shards are written.
    module: imported by a worker to register the tasks.
    tables: of a user's data sets, whose tasks a worker registers too.
    allow_empty: see `prepared.prepare_task`.
    say: called with lines of progress.

  Returns:
    Name -> manifest, of the existing directory if there is one.

  Raises:
    ValueError: as in `prepared.prepare_task`.
  """
  plans = [_plan(name, split, directory, num_shards) for name in names]
  if any(not prepared.is_prepared(p.path) for p in plans):
    # Of two commands the second one finds its work done.
    with lease.held(directory, 'PREPARED_DIR', 'prepare', wait=True):
      plans = [_plan(name, split, directory, num_shards) for name in names]
      _prepare_missing(plans, split, runner, module, tables, allow_empty, say)
  return {p.task.name: prepared.PreparedTask(p.path).manifest for p in plans}


def _prepare_missing(
  plans: Sequence[_ShardPlan],
  split: str,
  runner: work_runner.Runner,
  module: str,
  tables: Sequence[str],
  allow_empty: bool,
  say: Callable[[str], None],
) -> None:
  missing = [p for p in plans if not prepared.is_prepared(p.path)]
  vocabulary = features.vocabulary_file()
  work, done_before = [], 0
  for plan in missing:
    _begin(plan, split)
    for left in path_facts.matching(
      plan.parts, '.*.tmp'
    ):  # of a command that was killed: the folder is ours now
      left.unlink(missing_ok=True)
    todo = [k for k in range(plan.count) if _found(plan.parts, k, plan.count) is None]
    done_before += plan.count - len(todo)
    work += [
      (
        os.fspath(plan.parts),
        plan.task.name,
        split,
        k,
        plan.count,
        module,
        vocabulary,
        (tables,) if isinstance(tables, str) else tuple(map(os.fspath, tables)),
      )
      for k in todo
    ]
  if done_before:
    say(f'{split}: {done_before} of {done_before + len(work)} shards were done before')
  started = last = time.monotonic()
  for done, _ in enumerate(runner(write_shard, work), 1):
    watchdog.beat()
    now = time.monotonic()
    if 1 < done == len(work) or now - last >= _SECONDS_BETWEEN_LINES:
      last = now
      left = (now - started) / done * (len(work) - done)
      say(f'{split}: {done} of {len(work)} shards in {now - started:,.0f} s, {left:,.0f} s left')
  for plan in missing:
    _finish(plan, split, allow_empty)


def _plan(name: str, split: str, directory: epath.PathLike, num_shards: int) -> _ShardPlan:
  task = task_registry.get_mixture_or_task(name)
  if not isinstance(task, seqio.Task):
    raise ValueError(f'{name!r} is a mixture; prepare its tasks.')
  task = sliced_source.with_split(task, split)
  path = prepared.prepared_path(task, split, directory)
  if prepared.is_prepared(path):
    prepared.remove_leftovers(path)
    return _ShardPlan(task, path, path, 0, None)
  total = task.num_input_examples(split)
  count = num_shards or round((total or 0) / ROWS_PER_SHARD)
  if total is not None:
    count = min(count, -(-total // MIN_ROWS_PER_SHARD))
  count = max(1, count)
  parts = prepared.parts_path(path, count)
  prepared.remove_leftovers(path, keep=parts)
  return _ShardPlan(task, path, parts, count, total)


def _begin(plan: _ShardPlan, split: str) -> None:
  """Makes the folder of parts; those that were made of other files are not gone on with."""
  stamp = json.dumps([plan.total, _stamp(plan.task, split)])
  path = plan.parts / _STAMP
  if plan.parts.exists() and storage.is_abandoned(plan.parts):
    storage.remove_leftovers(plan.parts)
    storage.release(plan.parts)
    if not path.exists() or path.read_text() != stamp:
      plan.parts.rmtree()
  plan.parts.mkdir(parents=True, exist_ok=True)
  storage.claim(plan.parts)
  if not path.exists():
    storage.write_atomically(path, stamp)


def _stamp(task: seqio.Task, split: str) -> list[list[Any]]:
  """Names, sizes and times of the files that a split is read from, as far as they can be asked."""
  if found := task_examples.files_of(task.source, split):
    return found
  source = task.source
  names = [split]
  if isinstance(source, sliced_source.SlicedSource):
    names, source = list(split_slices.names(split)), source.whole
  for name in names:
    for file in source.list_shards(name):
      path = epath.Path(file)
      if len(found) < _MOST_STAMPED and path.exists():
        found.append([os.fspath(path), path_facts.size(path), path_facts.modified(path)])
      else:
        found.append([os.fspath(path)])
  return found


def _finish(plan: _ShardPlan, split: str, allow_empty: bool) -> None:
  manifest = _manifest(plan.task, split, plan.parts, plan.count, plan.total)
  if not manifest.num_examples and not allow_empty:
    plan.parts.rmtree()  # The next call looks again.
    raise task_registry.empty_split(plan.task, split)
  kinds: collections.Counter[tuple[str, ...]] = collections.Counter()
  for k in range(plan.count):
    for *kind, n in _counted(plan.parts, k, plan.count)['kinds']:
      kinds[tuple(kind)] += n
  prepared.write_kinds(plan.parts, plan.task, split, kinds)
  (plan.parts / prepared.MANIFEST).write_text(manifest.to_json())
  (plan.parts / _STAMP).unlink(missing_ok=True)
  storage.release(plan.parts)
  for k in range(plan.count):
    _counts(plan.parts, k, plan.count).unlink()
  prepared.clear_unprepared(plan.path)
  prepared.publish(plan.parts, plan.path, manifest)


def _counts(parts: epath.Path, shard: int, count: int) -> epath.Path:
  return parts / f'{_stem(shard, count)}.json'


def _found(parts: epath.Path, shard: int, count: int) -> dict[str, Any] | None:
  """The counts of a shard that is written; None if it is not, or either is not as it was written.

  Only the list of its examples is looked at: each example has a hash of its own.
  """
  if not _counts(parts, shard, count).exists():
    return None
  try:
    found = _counted(parts, shard, count)
    told = prepared.Shard(**found['shard'])
    if prepared.shard_of(parts / told.name, told.num_examples) != told:
      raise ValueError('its list of examples is damaged')
  except (ValueError, KeyError, TypeError, OSError) as error:
    path = parts / _stem(shard, count)
    logger.warning('%s: %s: this shard is made again', path, str(error).splitlines()[0])
    return None
  return found


def _counted(parts: epath.Path, shard: int, count: int) -> dict[str, Any]:
  return signed_json.load(_counts(parts, shard, count).read_bytes())


def _stem(shard: int, count: int) -> str:
  return f'examples-{shard:05d}-of-{count:05d}'


def write_shard(
  parts: str,
  task_name: str,
  split: str,
  shard: int,
  count: int,
  module: str,
  vocabulary: str,
  tables: Sequence[str] = (),
) -> int:
  """Writes one shard and its counts, unless they are there; returns its number of examples."""
  stem = epath.Path(parts) / _stem(shard, count)
  counts = _counts(stem.parent, shard, count)
  if (done := _found(stem.parent, shard, count)) is not None:
    return done['shard']['num_examples']
  importlib.import_module(module)
  user_data.ensure_tables(tables)
  features.set_vocabulary(vocabulary)
  task = sliced_source.with_split(seqio.TaskRegistry.get(task_name), split)
  names = task_registry.record_features(task)
  lengths: dict[str, collections.Counter[int]] = {f: collections.Counter() for f in names}
  temporary = storage.temporary(stem)
  writer = ArrayRecordWriter(os.fspath(temporary), prepared.WRITER_OPTIONS)
  kinds: collections.Counter[tuple[str, ...]] = collections.Counter()
  written = 0
  try:
    try:
      for tokens, kind in task_examples.examples(task, split, shard, count):
        kinds[kind] += 1
        for name, array in zip(names, tokens, strict=True):
          lengths[name][len(array)] += 1
        writer.write(prepared.encode_example(tokens))
        written += 1
    finally:
      writer.close()
  except BaseException:
    temporary.unlink(missing_ok=True)  # On a full disk it would keep it full.
    raise
  final = stem.parent / f'{stem.name}.array_record'
  temporary.replace(final)
  found = {
    'shard': dataclasses.asdict(prepared.shard_of(final, written)),
    'lengths': {f: sorted(counts.items()) for f, counts in lengths.items()},
    'kinds': [[*kind, n] for kind, n in sorted(kinds.items())],
  }
  partial = storage.temporary(counts)
  partial.write_text(signed_json.dump(found))
  partial.replace(counts)
  return written


def _manifest(
  task: seqio.Task, split: str, parts: epath.Path, count: int, total: int | None
) -> prepared.Manifest:
  found = [_counted(parts, k, count) for k in range(count)]
  lengths = {
    f: _added([x['lengths'][f] for x in found]) for f in task_registry.record_features(task)
  }
  shards = tuple(prepared.Shard(**x['shard']) for x in found)
  return prepared.Manifest(
    task=task.name,
    split=split,
    num_examples=sum(shard.num_examples for shard in shards),
    shards=shards,
    lengths=lengths,
    num_tokens={f: sum(n * times for n, times in counts.items()) for f, counts in lengths.items()},
    eos_after_trim=task_examples.eos_after_trim(task),
    vocabulary=fingerprints.vocabulary_fingerprint(task),
    definition=fingerprints.definition_fingerprint(task),
    source=task_examples.describe_source(task.source, split, total),
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

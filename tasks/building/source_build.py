"""Builds a source: finds its release, divides the work, runs it, publishes TFDS data sets.

A build that was killed goes on when the same command is given again: its work folder has the name
of the release's files and of the options, so another release or other options begin anew.
"""

import dataclasses
import hashlib
import importlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import path_facts
from aya_train.tasks import catalog, storage
from aya_train.tasks.building import (
  read_report,
  records,
  releases,
  row_splits,
  row_units,
  source_builder,
  work_runner,
)

logger = logging.getLogger('aya_train.tasks.building.source_build')

# Bytes of rows for a byte of a released file: measured on text of many scripts.
_GROWTH = {records.PARQUET: 3.0, records.GZIP: 4.5, records.ZIP: 4.5}


@dataclasses.dataclass(frozen=True)
class BuildEstimate:
  """What a build will take, before it starts.

  Attributes:
    files, input_bytes: of the release that are read.
    output_bytes: of the built splits, roughly.
    disk_bytes: at the height of the build: pieces and splits together, and the downloads.
    free_bytes: on the disk of the data directory; None where that cannot be asked (a bucket).
  """

  files: int
  input_bytes: int
  output_bytes: int
  disk_bytes: int
  free_bytes: int | None

  def __str__(self) -> str:
    free = '' if self.free_bytes is None else f', free are {_gb(self.free_bytes)}'
    return (
      f'{self.files:,} files, {_gb(self.input_bytes)} to read; about {_gb(self.output_bytes)} when '
      f'built, {_gb(self.disk_bytes)} of disk while building{free}'
    )


def _gb(size: float) -> str:
  return f'{size / 1e9:,.2f} GB'


def estimate(
  inputs: Sequence[row_units.Input], data_dir: epath.Path, download: bool = False
) -> BuildEstimate:
  """See `Estimate`; `download`: the files are not on this machine yet."""
  size = sum(i.size for i in inputs)
  out = sum(i.size * _growth(i.name) for i in inputs)
  free = None
  if '://' not in str(data_dir):
    existing = next(p for p in (data_dir, *data_dir.parents) if p.exists())
    free = shutil.disk_usage(existing).free
  return BuildEstimate(len(inputs), size, int(out), int(2 * out + download * size), free)


def _growth(name: str) -> float:
  return next((g for ending, g in _GROWTH.items() if name.endswith(ending)), 1.1)


Progress = Callable[[str], None]


def build(
  source: str,
  place: epath.PathLike | None = None,
  *,
  options: row_units.Options = row_units.Options(),  # noqa: B008 - frozen
  limits: read_report.SkipLimits = read_report.SkipLimits(),  # noqa: B008 - frozen
  revision: str | None = None,
  data_dir: epath.PathLike | None = None,
  runner: work_runner.Runner = work_runner.here,
  progress: Progress | None = None,
) -> Mapping[str, Any]:
  """Builds the constituents of a source that are not built yet.

  Args:
    source: a name of `sources.SOURCES`.
    place: folder or bucket of the released files; None for the hub.
    options: constituents, languages, limit of length, number of shards.
    limits: bad rows and damaged files that may be left out.
    revision: of the hub repository.
    data_dir: TFDS data directory; default: `storage.tfds_dir()`.
    runner: where the units run.
    progress: called with a line of text now and then; default: the log.

  Returns:
    Manifests by constituent ('' for a source without any).

  Raises:
    ValueError: no such source or constituent, nothing to read, not enough disk, too many problems
      (`TooManyProblemsError`), or what is built there came from another release.
    OSError: the release cannot be found.
  """
  say = progress or logger.info
  row = catalog.by_name(source)
  if unknown := sorted(set(options.constituents) - set(row.constituents)):
    raise ValueError(
      f'{source} has no constituents {unknown}; it has {", ".join(row.constituents)}'
    )
  root = epath.Path(data_dir or storage.tfds_dir())
  release = releases.find(row.repository, place, revision)
  parts = options.constituents or row.constituents or ('',)
  inputs = _inputs(source, release, options)
  keys = {p: _fingerprint(release, inputs, options, row.version, p) for p in parts}
  manifests = _already_built(source, keys, root)
  missing = tuple(p for p in parts if p not in manifests)
  if not missing:
    return _present(manifests)
  if row.constituents:
    options = dataclasses.replace(options, constituents=missing)
    inputs = _inputs(source, release, options)
  _refuse_small_disk(source, estimate(inputs, root, release.on_hub), say)
  job, work_dir, damaged = _start(source, release, inputs, options, root)
  if len(job.units) == 1:  # not worth the start of other processes
    runner = work_runner.here
  _run(row_units.run, work_dir, job, runner, say)
  places, report = row_splits.places(work_dir, len(job.units))
  for name, detail in damaged:
    report.add_file(name, detail)
  try:
    report.check(limits, source)
  except read_report.TooManyProblemsError:
    # The files will be repaired, or the limit raised; units of repaired files are read anew.
    (work_dir / 'report.json').write_text(report.to_json())
    _forget_damaged(work_dir, job)
    raise
  say(report.summary())
  list(runner(row_splits.finish, [(str(work_dir), p, places[p]) for p in sorted(places)]))
  made = [s for p in sorted(places) for s in row_splits.finish(str(work_dir), p, places[p])]
  dropped = sum(s.duplicates for s in made), sum(s.over_limit for s in made)
  say(f'{source}: {dropped[0]:,} repeated rows and {dropped[1]:,} over a limit were left out')
  built = _publish(
    source, job, release, made, report, root, work_dir, {p: keys[p] for p in missing}
  )
  return _present(manifests | built)


def _inputs(
  source: str, release: releases.Release, options: row_units.Options
) -> list[row_units.Input]:
  """The files to read.

  Raises:
    ValueError: there are none, or shards of a set are missing.
  """
  inputs = row_units.layout(source).select(release.files, options)
  if not inputs:
    what = ', '.join(options.constituents) or source
    raise ValueError(
      f'{release.place}: no file of {what} among {len(release.files)}; expected '
      f'{catalog.by_name(source).layout}, got {[f.name for f in release.files[:5]]}'
    )
  releases.refuse_missing_shards(
    [releases.ReleasedFile(i.name, i.size) for i in inputs], release.place
  )
  return inputs


def _fingerprint(
  release: releases.Release,
  inputs: Sequence[row_units.Input],
  options: row_units.Options,
  version: str,
  constituent: str,
) -> str:
  """Of what a constituent is built from: its files, and the options but the constituents."""
  described = [
    [i.name, i.size] for i in inputs if i.context.get('config', constituent) == constituent
  ]
  chosen = dataclasses.asdict(dataclasses.replace(options, constituents=()))
  return _hash([release.revision, described, chosen, version, constituent])


def _hash(value: Any) -> str:
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _present(manifests: Mapping[str, Any]) -> Mapping[str, Any]:
  return {part: m for part, m in manifests.items() if m['splits']}


def _already_built(source: str, keys: Mapping[str, str], root: epath.Path) -> dict[str, Any]:
  """Manifests of the constituents that are built, those without a row included.

  Raises:
    ValueError: one was built from other files or with other options.
  """
  manifests = {}
  for part, key in keys.items():
    path = source_builder.folder(source, part, root)
    if (path / source_builder.MANIFEST).exists():
      manifest = source_builder.open_built(source, part, root)
    elif (empty := source_builder.empty_manifest(path)).exists():
      manifest = json.loads(empty.read_text())
    else:
      continue
    if manifest['fingerprint'] != key:
      raise ValueError(
        f'{path} was built from other files or with other options ({manifest["release"]}, '
        f'{manifest["options"]}); remove it, or give another directory'
      )
    manifests[part] = manifest
  return manifests


def _refuse_small_disk(source: str, expected: BuildEstimate, say: Progress) -> None:
  say(f'{source}: {expected}')
  if expected.free_bytes is not None and expected.disk_bytes > expected.free_bytes:
    raise ValueError(
      f'{source} needs about {_gb(expected.disk_bytes)} of disk, free are '
      f'{_gb(expected.free_bytes)}: give a larger disk (AYA_TRAIN_CACHE), fewer constituents or '
      'fewer --languages'
    )


def _start(
  source: str,
  release: releases.Release,
  inputs: Sequence[row_units.Input],
  options: row_units.Options,
  root: epath.Path,
) -> tuple[row_units.BuildJob, epath.Path, list[tuple[str, str]]]:
  described = [[i.name, i.size] for i in inputs]
  version = catalog.by_name(source).version
  key = _work_key(release, described, options, version)
  work_dir = root / 'in_progress' / f'{source}-{key}'
  _remove_stale(work_dir, release, source)
  damaged_file = work_dir / 'damaged.json'
  if (work_dir / row_units.JOB).exists():
    storage.claim(work_dir)
    storage.remove_leftovers(work_dir)
    storage.remove_leftovers(work_dir / 'units')
    job = row_units.job_at(str(work_dir))
    return job, work_dir, [tuple(d) for d in json.loads(damaged_file.read_text())]
  units, damaged = row_units.divide(release, inputs)
  place = dataclasses.replace(release, files=())  # the units have them
  job = row_units.BuildJob(source, version, place, options, units)
  work_dir.mkdir(parents=True, exist_ok=True)
  storage.claim(work_dir)
  damaged_file.write_text(json.dumps(damaged))
  storage.write_atomically(work_dir / row_units.JOB, job.to_json())
  return job, work_dir, damaged


def _work_key(
  release: releases.Release, described: Any, options: row_units.Options, version: str
) -> str:
  return _hash([release.place, release.revision, described, dataclasses.asdict(options), version])


def _remove_stale(work_dir: epath.Path, release: releases.Release, source: str) -> None:
  """Removes abandoned work on this source that no command can go on with.

  That is work without a job, and work on this release as it no longer is.
  """
  version = catalog.by_name(source).version
  for other in path_facts.matching(work_dir.parent, f'{source}-*'):
    name, _, key = other.name.rpartition('-')
    if other == work_dir or name != source or not storage.is_abandoned(other):
      continue
    try:
      job = row_units.BuildJob.from_json((other / row_units.JOB).read_text())
      if job.release.place != release.place:
        continue  # of a release that is not looked at now
      described = [[i.name, i.size] for i in _inputs(source, release, job.options)]
      stale = _work_key(release, described, job.options, version) != key
    except (OSError, ValueError, KeyError, TypeError):
      stale = True
    if stale:
      storage.remove_abandoned([other])


def _run(
  function: Callable[..., Any],
  work_dir: epath.Path,
  job: row_units.BuildJob,
  runner: work_runner.Runner,
  say: Progress,
) -> None:
  """Runs the units that are not done, and says how far it is."""
  todo = [
    i
    for i in range(len(job.units))
    if not (row_units.folder(work_dir, i) / row_units.UNIT).exists()
  ]
  if len(todo) < len(job.units):
    say(f'{job.source}: {len(job.units) - len(todo)} of {len(job.units)} units were done before')
  results = runner(function, [(str(work_dir), i) for i in todo])
  for line in progress_lines(results, len(todo)):
    say(f'{job.source}: {line}')


def progress_lines(
  results: Iterator[tuple[int, int] | None], total: int, seconds: float = 10.0
) -> Iterator[str]:
  """Takes (rows, bytes) of each piece of work; yields a line at most every `seconds`, and a last.

  Lines give the share done, rows/s, GB/h and the time that is left at this rate.
  """
  started = last = time.monotonic()
  rows = size = 0
  for done, result in enumerate(results, 1):
    rows, size = (rows + result[0], size + result[1]) if result is not None else (rows, size)
    now = time.monotonic()
    if done < total and now - last < seconds:
      continue
    last = now
    took = max(now - started, 1e-9)
    left = took / done * (total - done)
    rates = f', {rows:,} rows, {rows / took:,.0f} rows/s, {size / took * 3600 / 1e9:,.1f} GB/h'
    yield (
      f'{done} of {total} units in {took:,.0f} s{rates if rows else ""}'
      + (f', {left:,.0f} s left' if done < total else '')
    )


def _forget_damaged(work_dir: epath.Path, job: row_units.BuildJob) -> None:
  """Removes the units with damaged files, and the job if its division missed a file."""
  for index in range(len(job.units)):
    unit = row_units.folder(work_dir, index)
    if json.loads((unit / row_units.UNIT).read_text())['report']['files']:
      unit.rmtree()
  if json.loads((work_dir / 'damaged.json').read_text()):
    work_dir.rmtree()
    row_units.job_at.cache_clear()


def _publish(
  source: str,
  job: row_units.BuildJob,
  release: releases.Release,
  made: Sequence[row_splits.Split],
  report: read_report.ReadReport,
  root: epath.Path,
  work_dir: epath.Path,
  keys: Mapping[str, str],
) -> dict[str, Any]:
  manifests = {}
  for part, key in keys.items():
    splits = [s for s in made if s.config == part]
    manifest = {
      'source': source,
      'constituent': part,
      'version': job.version,
      'fingerprint': key,
      'release': releases.describe(release),
      'options': json.loads(json.dumps(dataclasses.asdict(job.options))),
      'splits': {
        s.name: {
          'shard_lengths': list(s.shard_lengths),
          'rows': s.num_rows,
          'bytes': s.num_bytes,
          'duplicates': s.duplicates,
          'over_limit': s.over_limit,
          'content': s.content,
        }
        for s in splits
      },
      'report': json.loads(report.to_json()),
    }
    manifests[part] = manifest
    if splits:
      target = source_builder.folder(source, part, root)
      with storage.making(target.parent):
        builder(source, part, root).publish(splits, work_dir, manifest)
    elif made:
      logger.warning('%s: the release has no rows of %s', source, part)
      path = source_builder.empty_manifest(source_builder.folder(source, part, root))
      path.parent.mkdir(parents=True, exist_ok=True)
      storage.write_atomically(path, json.dumps(manifest))
  row_splits.remove(work_dir)
  row_units.job_at.cache_clear()
  if not made:
    raise ValueError(f'{source}: no row is left; {report.summary()}')
  return manifests


def builder(
  source: str, constituent: str = '', data_dir: epath.PathLike | None = None
) -> source_builder.SourceBuilder:
  """The TFDS builder of a source; nothing need be built."""
  module = importlib.import_module(row_units.module_of(source))
  options = {'config': constituent} if constituent else {}
  return module.BUILDERS[source](data_dir=str(data_dir or storage.tfds_dir()), **options)

"""`aya-train prepare`: data sets and vocabularies are built, mixtures tokenised, once."""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence

import tensorflow_datasets as tfds
from etils import epath

from aya_train import destinations, lease
from aya_train.data import availability, batching, mixing, prepared_shards, task_registry
from aya_train.tasks import catalog, features, storage
from aya_train.tasks.building import read_report, row_units, rows, source_build, work_runner
from aya_train.tasks.cldr import cldr_tasks, vocabulary
from aya_train.tasks.languages import language_codes
from aya_train.tasks.mixtures import source_mixture

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PrepareSettings:
  """What the command line says beside the names of the sources.

  Attributes:
    data_dir: folder or bucket of the released files; None for the hub.
    output_dir: TFDS data directory; None for the cache's.
    revision: of the hub repository.
    languages: codes to keep, of any system of `language_codes`; () for the source's own choice.
    num_shards: files of each split or task; 0 for a number by size.
    workers: processes on this machine.
    beam_runner: run through Apache Beam instead.
    beam_options: for Beam.
    limits: bad rows and files that may be left out.
    max_characters: rows with more are left out.
    templates: lines of a user's list of xP3x templates.
  """

  data_dir: str | None = None
  output_dir: str | None = None
  revision: str | None = None
  languages: tuple[str, ...] = ()
  num_shards: int = 0
  workers: int = 1
  beam_runner: str | None = None
  beam_options: tuple[str, ...] = ()
  limits: read_report.SkipLimits = dataclasses.field(default_factory=read_report.SkipLimits)
  max_characters: int = rows.MAX_CHARACTERS
  templates: tuple[str, ...] = ()

  def runner(self) -> work_runner.Runner:
    """Where the work is done.

    Raises:
      ValueError: Beam is asked for and not installed, or no worker.
    """
    if self.beam_runner is not None:
      return work_runner.beam(self.beam_runner, self.beam_options)
    return work_runner.processes(self.workers)


def _build_cldr() -> None:
  tfds.disable_progress_bar()
  manifest = cldr_tasks.build()
  logger.info(
    'CLDR instruction set: %s in %d languages (Babel %s)',
    ', '.join(f'{n:,} {split}' for split, n in manifest['splits'].items()),
    len(manifest['languages']),
    manifest['babel'],
  )
  path = vocabulary.build_default()
  logger.info('vocabulary: %d pieces, %s', features.VOCABULARY.vocab_size, path)


GENERATED: Mapping[str, Callable[[], None]] = {'cldr': _build_cldr}
"""Sources that are made from packages, not read from files."""


def makes_vocabulary(names: Sequence[str]) -> bool:
  """Whether building these sources trains the default vocabulary, unless it is there."""
  return bool({*names} & {*GENERATED})


def build_sources(names: Sequence[str], settings: PrepareSettings = PrepareSettings()) -> None:
  """Builds each named source, or constituent `SOURCE.CONSTITUENT`, unless it is there.

  Raises:
    ValueError: an unknown name, before anything is built; or see `source_build.build`.
  """
  chosen: dict[str, list[str]] = {}
  unknown = []
  for name in names:
    source, _, part = name.partition('.')
    if source not in catalog.BY_NAME or (part and part not in catalog.BY_NAME[source].constituents):
      unknown.append(name)
    chosen.setdefault(source, []).append(part)
  for name in unknown:
    if (why := catalog.why_not_read(name)) is not None:
      raise ValueError(why)
  if unknown:
    raise ValueError(f'unknown sources {sorted(unknown)}; known: {sorted(catalog.BY_NAME)}')
  if settings.data_dir is not None and len(chosen) > 1:
    raise ValueError(f'--data_dir is the folder of one source, got {sorted(chosen)}')
  runner = settings.runner()
  if chosen:
    destinations.check_folder(
      settings.output_dir or storage.tfds_dir(),
      'the data directory (--output_dir, AYA_TRAIN_CACHE)',
    )
  root = epath.Path(settings.output_dir or storage.tfds_dir())
  for source, parts in chosen.items():
    logger.info('preparing %s', source)
    # Of two commands the second one finds the source built.
    with lease.held(root / 'in_progress' / source, f'the folder of {source}', 'prepare', wait=True):
      if source in GENERATED:
        GENERATED[source]()
      else:
        _build(source, () if '' in parts else tuple(parts), settings, runner)


def _build(
  source: str, parts: tuple[str, ...], settings: PrepareSettings, runner: work_runner.Runner
) -> None:
  started = time.monotonic()
  codes = tuple(sorted({language_codes.resolve(code).code for code in settings.languages}))
  manifests = source_build.build(
    source,
    settings.data_dir,
    options=row_units.Options(
      constituents=parts,
      languages=codes,
      max_characters=settings.max_characters,
      num_shards=settings.num_shards,
      templates=settings.templates,
    ),
    limits=settings.limits,
    revision=settings.revision,
    data_dir=settings.output_dir,
    runner=runner,
    progress=logger.info,
  )
  splits = [split for m in manifests.values() for split in m['splits'].values()]
  logger.info(
    '%s: %s rows, %.2f GB in %d splits, %.1f s',
    source,
    f'{sum(s["rows"] for s in splits):,}',
    sum(s['bytes'] for s in splits) / 1e9,
    len(splits),
    time.monotonic() - started,
  )


def tokenise(
  parts: Sequence[batching.DatasetConfig],
  settings: PrepareSettings = PrepareSettings(),
  module: str = 'aya_train.tasks',
  tables: Sequence[str] = (),
) -> None:
  """Runs the preprocessing of mixtures once, into random-access files of token ids.

  Args:
    parts: what to prepare, the training data first: its lengths are held against what they cut.
    settings: shards and workers.
    module: registers the tasks, in workers too.
    tables: of a user's data sets.

  Raises:
    ValueError: a task without examples; or the lengths cut too many, when all is prepared.
  """
  for cfg in parts:
    _tokenise(cfg, settings, module, tables, allow_empty=cfg is not parts[0])
  train, *others = parts
  tasks = batching.prepared_tasks(train)
  provider = task_registry.get_mixture_or_task(train.mixture_or_task_name)
  batching.check_truncation(train, tasks, mixing.mixing_rates(provider, tasks))
  for cfg in others:
    if tasks := batching.prepared_tasks(cfg, allow_empty=True):
      batching.check_truncation(
        cfg, tasks, {name: float(len(task)) for name, task in tasks.items()}
      )


def _tokenise(
  cfg: batching.DatasetConfig,
  settings: PrepareSettings,
  module: str,
  tables: Sequence[str],
  *,
  allow_empty: bool,
) -> None:
  started = time.monotonic()
  name, split, directory = (
    cfg.mixture_or_task_name,
    cfg.split,
    batching.prepared_root(cfg.prepared_dir),
  )
  tasks = availability.tasks(name, split, directory)
  of_sources = isinstance(task_registry.get_mixture_or_task(name), source_mixture.SourceMixture)
  manifests = prepared_shards.prepare_tasks(
    [task.name for task in tasks],
    split,
    directory,
    num_shards=settings.num_shards,
    runner=settings.runner(),
    module=module,
    tables=tables,
    allow_empty=allow_empty or of_sources,
    say=logger.info,
  ).values()
  took = max(time.monotonic() - started, 1e-9)
  count = sum(m.num_examples for m in manifests)
  size = sum(shard.num_bytes for m in manifests for shard in m.shards)
  logger.info(
    'prepared %s:%s: %s examples of %d tasks in %.1f s (%s rows/s, %.1f GB/h)',
    name,
    split,
    f'{count:,}',
    len(tasks),
    took,
    f'{count / took:,.0f}',
    size / took * 3600 / 1e9,
  )

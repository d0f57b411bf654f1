"""data_manifest.json of a run: what it was trained on, under which licences."""

from __future__ import annotations

import collections
import functools
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import seqio
from etils import epath

from aya_train import run_dir, signed_json
from aya_train.data import batching, mixing, prepared, row_counts, task_registry
from aya_train.tasks import catalog
from aya_train.tasks.rights import licenses, provenance

logger = logging.getLogger(__name__)
FILE = 'data_manifest.json'


def describe(cfg: batching.DatasetConfig, policy: str | None) -> dict[str, Any]:
  """The manifest of a mixture whose tasks are prepared.

  Returns:
    `mixture`, `split`, `policy`, and `sources`, the largest rate first: each with `name`,
    `version`, `fingerprint` (of its rows' preparation), `examples`, `rate` (percent of the draws),
    `languages` (ISO 639-3 -> examples), `licenses` (name -> examples; several licences of a data
    set count its examples each), `use`, `attribution`, `share_alike`, `model_generated_by`,
    `terms`.
  """
  tasks = batching.prepared_tasks(cfg)
  provider = task_registry.get_mixture_or_task(cfg.mixture_or_task_name)
  rates = mixing.mixing_rates(provider, tasks)
  groups: dict[str, list[str]] = collections.defaultdict(list)
  for name in rates:
    groups[provenance.source_of(seqio.TaskRegistry.get(name))].append(name)
  total = sum(rates.values())
  found = [
    {
      **_source(source, names, tasks, cfg.split),
      'rate': 100 * sum(rates[name] for name in names) / total,
    }
    for source, names in groups.items()
  ]
  return {
    'mixture': cfg.mixture_or_task_name,
    'split': cfg.split,
    'policy': policy,
    'sources': sorted(found, key=lambda s: (-s['rate'], s['name'])),
  }


def _source(
  source: str, names: list[str], tasks: Mapping[str, prepared.PreparedTask], split: str
) -> dict[str, Any]:
  by_language: collections.Counter[str] = collections.Counter()
  by_license: collections.Counter[str] = collections.Counter()
  records: dict[str, provenance.Record] = {}
  for name in names:
    task = seqio.TaskRegistry.get(name)
    for kind, count in row_counts.of_task(task, split, tasks[name]).items():
      by_language[kind.language_code or 'und'] += count
      origin = provenance.origin_of(task, kind.dataset)
      records[origin] = record = provenance.record_of(origin)
      for license_name in dict.fromkeys(n for n, _ in record.licenses):
        by_license[license_name] += count
  rights = licenses.strictest(record.rights for record in records.values())
  row = catalog.BY_NAME.get(source)
  parts = (
    (tasks[n].manifest.definition, tasks[n].manifest.vocabulary, len(tasks[n])) for n in names
  )
  return {
    'name': source,
    'version': None if row is None else row.version,
    'fingerprint': hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest(),
    'examples': sum(len(tasks[name]) for name in names),
    'languages': dict(sorted(by_language.items())),
    'licenses': dict(by_license.most_common()),
    'use': rights.use,
    'attribution': _joined(record.attribution for record in records.values()),
    'share_alike': rights.share_alike,
    'model_generated_by': sorted({m for r in records.values() for m in r.model_generated_by}),
    'terms': _joined(record.terms for record in records.values()),
  }


def _joined(texts: Any) -> str:
  return '; '.join(dict.fromkeys(text for text in texts if text))


def write(
  model_dir: str | os.PathLike[str], cfg: batching.DatasetConfig, policy: str | None
) -> None:
  """Writes the manifest into a run's directory, as `run_dir.keep_text` does."""
  text = signed_json.dump(describe(cfg, policy), indent=1) + '\n'
  path = epath.Path(model_dir) / FILE
  if run_dir.keep_text(path, text):
    logger.info('wrote %s', path)


def writer(policy: str | None) -> Any:
  """`write` for one policy, as `train_loop.train` calls it."""
  return functools.partial(write, policy=policy)

"""How many rows of a task there are by language, script, data set and task type."""

from __future__ import annotations

import collections
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import seqio
import tensorflow as tf

from aya_train import signed_json
from aya_train.data import prepared, task_examples
from aya_train.tasks import sliced_source, storage
from aya_train.tasks.languages import aya101

logger = logging.getLogger(__name__)
FILE = prepared.KINDS_FILE
_COLUMNS = task_examples.KIND_COLUMNS
_BATCH = 4_096


class Kind(NamedTuple):
  """What rows are counted by; '' where the source does not say."""

  language_code: str
  script: str
  dataset: str
  task_type: str


def of_task(task: seqio.Task, split: str, ready: prepared.PreparedTask) -> dict[Kind, int]:
  """Examples of a prepared task by kind, as they were counted when it was prepared.

  Where the examples themselves do not tell, they are counted here, once, and the counts kept beside
  the tokens: by reading the source without tokenising it; where preprocessors drop rows by running
  them.
  """
  path = ready.directory / FILE
  if path.exists():
    found: collections.Counter[Kind] = collections.Counter()
    try:
      for *texts, count in signed_json.load(path.read_bytes())['rows']:
        found[_kind(dict(zip(_COLUMNS, texts, strict=False)))] += count
      return dict(found)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
      logger.warning('%s is damaged (%s): counted anew', path, error)
  task = sliced_source.with_split(task, split)
  counts = _count(task.source.get_dataset(split=split, shuffle=False))
  if sum(counts.values()) != len(ready):
    dataset = task.source.get_dataset(split=split, shuffle=False)
    counts = _count(task.preprocess_precache(dataset, seed=task_examples.PREPROCESSING_SEED))
  storage.write_atomically(path, prepared.kinds_text(counts))
  return counts


def _count(dataset: tf.data.Dataset) -> dict[Kind, int]:
  spec = dataset.element_spec
  # A source may give plain lines, which its preprocessors make columns of.
  columns_there = spec if isinstance(spec, Mapping) else {}
  names = [name for name in _COLUMNS if name in columns_there]
  found: collections.Counter[tuple[bytes, ...]] = collections.Counter()
  if not names:  # such as a user's own task, of pairs of text and nothing else
    return {Kind('', '', '', ''): int(dataset.reduce(0, lambda n, _: n + 1).numpy())}
  columns = dataset.map(lambda row: tuple(row[name] for name in names))
  for batch in columns.batch(_BATCH).prefetch(2):
    found.update(zip(*(column.numpy().tolist() for column in batch), strict=True))
  counts: dict[Kind, int] = {}
  for values, count in found.items():
    kind = _kind(dict(zip(names, (v.decode() for v in values), strict=True)))
    counts[kind] = counts.get(kind, 0) + count
  return counts


def _kind(row: Mapping[str, Any]) -> Kind:
  code = row.get('language_code', '')
  script = row.get('script', '')
  if not script and (language := aya101.BY_CODE.get(code)) is not None:
    script = language.script_code
  return Kind(code, script, row.get('dataset', ''), row.get('task_type') or row.get('kind', ''))

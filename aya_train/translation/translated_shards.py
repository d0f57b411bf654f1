"""A translated data set as TFDS stores one: TFRecord shards, a split for each language."""

import collections
import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from aya_train.tasks import storage
from aya_train.tasks.building import row_splits, rows

VERSION = '1.0.0'
SHARD_BYTES = 128 << 20
TEXT, WHOLE_NUMBER, JSON = 'text', 'whole number', 'JSON'
_LARGEST = 1 << 63


@dataclasses.dataclass
class Survey:
  """What is known of rows before they are written.

  Attributes:
    kinds: of each column: text, whole numbers, or JSON for all else.
    rows, size: by split; the size in bytes of JSON.
  """

  kinds: dict[str, str] = dataclasses.field(default_factory=dict)
  rows: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
  size: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

  def add(self, split: str, row: Mapping[str, Any], size: int) -> None:
    """Counts a row."""
    self.rows[split] += 1
    self.size[split] += size
    for name, value in row.items():
      kind = _kind(value)
      if kind is not None and self.kinds.setdefault(name, kind) != kind:
        self.kinds[name] = JSON


def _kind(value: Any) -> str | None:
  if value is None:
    return None
  if isinstance(value, str):
    return TEXT
  whole = isinstance(value, int) and not isinstance(value, bool)
  return WHOLE_NUMBER if whole and -_LARGEST <= value < _LARGEST else JSON


def data_set_name(name: str) -> str:
  """A name as TFDS has them: 'Dolly-15k.en' -> 'dolly_15k_en'."""
  made = re.sub(r'\W+', '_', name.lower(), flags=re.ASCII).strip('_') or 'data'
  return made if made[0].isalpha() else f'set_{made}'


def folder(root: epath.PathLike, name: str) -> epath.Path:
  """Where the data set of a name is, under the folder that TFDS calls its `data_dir`."""
  return epath.Path(root) / data_set_name(name) / VERSION


def pattern(name: str, split: str) -> str:
  """Of the files of a split, relative to the root."""
  stem = data_set_name(name)
  return os.path.join(stem, VERSION, f'{stem}-{split}.tfrecord-*')


def write(
  root: epath.PathLike,
  name: str,
  survey: Survey,
  rows_of: Callable[[str], Iterable[Mapping[str, Any]]],
  *,
  description: str,
  license_name: str,
) -> dict[str, list[int]]:
  """Writes the data set, which takes the place of one that is there.

  Args:
    root: under which `folder` is.
    name: of the data set.
    survey: of all its rows.
    rows_of: rows of a split, in their order.
    description, license_name: for TFDS's own description.

  Returns:
    Rows of each shard, by split.
  """
  import tensorflow_datasets as tfds

  final = folder(root, name)
  final.parent.mkdir(parents=True, exist_ok=True)
  storage.remove_leftovers(final.parent)
  partial = storage.temporary(final, 'partial')
  partial.mkdir(parents=True)
  infos = []
  lengths: dict[str, list[int]] = {}
  for split, count in survey.rows.items():
    lengths[split], size = _write_split(
      partial, data_set_name(name), split, survey, count, rows_of(split)
    )
    template = tfds.core.ShardedFileTemplate(
      data_dir=partial,
      dataset_name=data_set_name(name),
      split=split,
      filetype_suffix='tfrecord',
    )
    infos.append(tfds.core.SplitInfo(split, lengths[split], size, template))
  features = {
    column: tfds.features.Scalar(np.int64) if kind == WHOLE_NUMBER else tfds.features.Text()
    for column, kind in sorted(survey.kinds.items())
  }
  tfds.folder_dataset.write_metadata(
    data_dir=os.fspath(partial),
    features=tfds.features.FeaturesDict(features),
    split_infos=infos,
    version=VERSION,
    check_data=False,
    description=description,
    license=license_name,
  )
  if final.exists():
    final.rmtree()
  partial.rename(final)
  return lengths


def _write_split(
  directory: epath.Path,
  stem: str,
  split: str,
  survey: Survey,
  count: int,
  found: Iterable[Mapping[str, Any]],
) -> tuple[list[int], int]:
  import tensorflow as tf

  shards = min(count, max(1, round(survey.size[split] / SHARD_BYTES)))
  ends = [(i + 1) * count // shards for i in range(shards)]
  left: Iterator[Mapping[str, Any]] = iter(found)
  written = size = 0
  for index, end in enumerate(ends):
    path = directory / row_splits.shard_name(stem, split, index, shards)
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
      while written < end:
        record = rows.encode_columns(_columns(next(left), survey.kinds))
        writer.write(record)
        written, size = written + 1, size + len(record)
  return [b - a for a, b in zip([0, *ends[:-1]], ends, strict=True)], size


def _columns(row: Mapping[str, Any], kinds: Mapping[str, str]) -> dict[str, str | int]:
  return {name: _value(row.get(name), kind) for name, kind in kinds.items()}


def _value(value: Any, kind: str) -> str | int:
  if kind == WHOLE_NUMBER:
    return 0 if value is None else int(value)
  if value is None:
    return ''
  if kind == JSON and not isinstance(value, str):
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
  return str(value)

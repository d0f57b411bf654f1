"""Reads TFRecord files of tf.train.Examples, such as the shards of a TFDS data set."""

import re
from collections.abc import Iterator
from typing import Any

from etils import epath

from aya_train.tasks.building.read_report import DamagedFileError

_NAME = re.compile(r'\.tfrecords?(?:-\d{5,}-of-\d{5,})?$')


def is_one(name: str) -> bool:
  """Whether the name is that of a TFRecord file: 'x.tfrecord', 'x.tfrecord-00000-of-00002'."""
  return bool(_NAME.search(name.lower()))


def read(path: epath.Path) -> Iterator[dict[str, Any]]:
  """Columns of each example: one value as it is, others as a list; bytes of text as text.

  Raises:
    DamagedFileError: the file is cut or its checksums are wrong, or a record is no Example.
  """
  import tensorflow as tf
  from google.protobuf.message import DecodeError

  row = 0
  try:
    for record in tf.data.TFRecordDataset([str(path)]).as_numpy_iterator():
      row += 1
      example = tf.train.Example.FromString(record)
      yield {name: _value(example.features.feature[name]) for name in example.features.feature}
  except tf.errors.DataLossError as error:
    raise DamagedFileError(f'{path}: damaged after row {row} ({error.message})') from error
  except DecodeError as error:
    raise DamagedFileError(f'{path}: row {row} is no tf.train.Example') from error


def _value(feature: Any) -> Any:
  kind = feature.WhichOneof('kind')
  if kind is None:
    return None
  values = [_text(v) if kind == 'bytes_list' else v for v in getattr(feature, kind).value]
  return values[0] if len(values) == 1 else values


def _text(value: bytes) -> str | bytes:
  try:
    return value.decode('utf-8')
  except UnicodeDecodeError:
    return value

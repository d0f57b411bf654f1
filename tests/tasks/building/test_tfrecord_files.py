"""TFRecord files as rows: what is written is read, and damage is told."""

import pytest
import tensorflow as tf

from aya_train.tasks.building import records, rows, tfrecord_files
from aya_train.tasks.building.read_report import DamagedFileError


def write(path, examples):
  with tf.io.TFRecordWriter(str(path)) as writer:
    for example in examples:
      writer.write(example)
  return path


def test_columns_come_back(tmp_path):
  columns = {'text': 'þ\n👩‍🚀', 'n': -3, 'large': (1 << 63) - 1, 'none': ''}
  path = write(tmp_path / 'x.tfrecord-00000-of-00001', [rows.encode_columns(columns)] * 2)
  assert [*records.read(path)] == [('row 1', columns), ('row 2', columns)]
  several = tf.train.Example(
    features=tf.train.Features(
      feature={
        'a': tf.train.Feature(bytes_list=tf.train.BytesList(value=[b'x', b'\xff'])),
        'b': tf.train.Feature(float_list=tf.train.FloatList(value=[0.5])),
        'c': tf.train.Feature(),
      }
    )
  )
  path = write(tmp_path / 'y.tfrecord', [several.SerializeToString()])
  assert [*tfrecord_files.read(path)] == [{'a': ['x', b'\xff'], 'b': 0.5, 'c': None}]


def test_damage_is_told(tmp_path):
  path = write(tmp_path / 'x.tfrecord', [rows.encode_columns({'a': 'b'})] * 3)
  path.write_bytes(path.read_bytes()[:-5])
  with pytest.raises(DamagedFileError, match='after row 2'):
    [*records.read(path)]
  path = write(tmp_path / 'y.tfrecord', [b'\xff no example'])
  with pytest.raises(DamagedFileError, match=r'no tf\.train\.Example'):
    [*records.read(path)]


@pytest.mark.parametrize(
  'name', ['a.tfrecord', 'a.TFRecords', 'd-train_yor.tfrecord-00001-of-00004']
)
def test_names(name):
  assert tfrecord_files.is_one(name) and not tfrecord_files.is_one(name + '.jsonl')

"""SeqIO tasks of preferences: features inputs, chosen, rejected of files in a known form."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence

import seqio
import tensorflow as tf
from etils import epath

from aya_train.tasks import features
from aya_train.tasks.building import records, text_files
from aya_train.tasks.building.read_report import RowProblemError
from aya_train.tasks.preference import preference_records
from aya_train.tasks.preference.preference_records import Comparison
from aya_train.tasks.rights import provenance
from aya_train.tasks.user import csv_files

logger = logging.getLogger(__name__)

OUTPUT_FEATURES = {
  name: seqio.Feature(vocabulary=features.VOCABULARY, add_eos=True) for name in Comparison._fields
}
MAX_BAD_FRACTION = 0.01  # of a file's records; HH-RLHF and OASST have a few


class PreferenceDataError(ValueError):
  """Files of preferences that cannot be trained on; the message names file and row."""


def read(path: os.PathLike[str] | str, form: str = 'table') -> Iterator[Comparison]:
  """Comparisons of a file: CSV, TSV, JSON lines or parquet, compressed or not.

  Args:
    path: of the file.
    form: a key of `preference_records.READERS`.

  Raises:
    PreferenceDataError: more than MAX_BAD_FRACTION of the records, and more than one, cannot be
      used; with the first of them. What is less is left out, and a warning says so.
    ValueError: the form is not known; DamagedFileError: see `records.read`.
  """
  if form not in preference_records.READERS:
    raise ValueError(f'form {form!r} is none of {[*preference_records.READERS]}')
  of_record = preference_records.READERS[form]
  path = epath.Path(path)
  count, bad, first = 0, 0, ''
  for where, record in _records(path):
    count += 1
    try:
      if not isinstance(record, Mapping):
        raise RowProblemError('broken_json', str(record))
      yield from list(of_record(record))
    except RowProblemError as problem:
      bad += 1
      first = first or f'{path}, {where}: {problem}'
  if not count:
    raise PreferenceDataError(f'{path} holds no record')
  if bad > 1 and bad > MAX_BAD_FRACTION * count:
    raise PreferenceDataError(
      f'{bad} of {count} records cannot be used, the first is {first}. Mend them or leave them out'
    )
  if bad:
    logger.warning('%d of %d records are left out, the first is %s', bad, count, first)


def _records(path: epath.Path) -> Iterator[tuple[str, object]]:
  if csv_files.is_one(path.name):
    for number, row in csv_files.read(path):
      yield f'row {number}', row
  elif records.is_readable(path.name) or text_files.is_compressed(path.name):
    yield from records.read(path)
  else:
    raise ValueError(f'{path}: expected CSV, TSV, JSON lines or parquet by the ending of its name')


class PreferenceSource(seqio.FunctionDataSource):
  """Files of preferences by split. Rows are scalar strings inputs, chosen and rejected."""

  def __init__(self, files: Mapping[str, Sequence[str]], form: str):
    self._files = {split: tuple(names) for split, names in files.items()}
    self._form = form
    super().__init__(self._rows, splits=tuple(files))

  def paths(self, split: str) -> list[epath.Path]:
    """The files of a split."""
    return [epath.Path(name) for name in self._files[split]]

  def _rows(self, split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
    del shuffle_files, seed

    def comparisons() -> Iterator[dict[str, str]]:
      for path in self.paths(split):
        for comparison in read(path, self._form):
          yield comparison._asdict()

    text = tf.TensorSpec((), tf.string)
    return tf.data.Dataset.from_generator(
      comparisons, output_signature=dict.fromkeys(Comparison._fields, text)
    )


@seqio.map_over_dataset
def without_missing(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
  """No token, not even an end, for an answer that is not there."""
  there = {
    name: tf.strings.length(example[f'{name}_pretokenized']) > 0 for name in ('chosen', 'rejected')
  }
  empty = tf.zeros((0,), tf.int32)
  return {
    **example,
    **{
      name: tf.cond(is_there, lambda x=example[name]: x, lambda: empty)
      for name, is_there in there.items()
    },
  }


def add(
  name: str,
  files: Mapping[str, Sequence[str]],
  *,
  form: str = 'table',
  license: str,
) -> str:
  """Registers a task and the licence of its data; nothing is opened.

  Args:
    name: of the task.
    files: split to paths, 'train' and 'validation' for the trainer.
    form: a key of `preference_records.READERS`.
    license: see `provenance.declare`.

  Returns:
    The name.

  Raises:
    ValueError: the form is not known, or `provenance.declare` refuses.
  """
  if form not in preference_records.READERS:
    raise ValueError(f'form {form!r} is none of {[*preference_records.READERS]}')
  seqio.TaskRegistry.add(
    name,
    source=PreferenceSource(files, form),
    preprocessors=[*features.TOKENIZE_AND_APPEND_EOS, without_missing],
    metric_fns=[],
    output_features=OUTPUT_FEATURES,
  )
  provenance.declare(name, license)
  return name

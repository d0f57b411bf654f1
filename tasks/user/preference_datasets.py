"""Data sets of a user that say which of two answers was preferred."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from aya_train.tasks.building import rows as source_rows
from aya_train.tasks.building.read_report import RowProblemError
from aya_train.tasks.preference import preference_features, preference_records
from aya_train.tasks.user.dataset_tables import Dataset, UserDataError

logger = logging.getLogger(__name__)
MAX_BAD_FRACTION = 0.01  # of a split's records: HH-RLHF and OASST have a few


def rows(
  dataset: Dataset, split: str, raw_rows: Iterable[tuple[str, Mapping[str, Any]]]
) -> Iterator[dict[str, str]]:
  """Comparisons under `preference_features.COLUMNS`; '' for an answer that is not there.

  Args:
    dataset: whose `preferences` names a form of `preference_records.READERS`.
    split: for messages.
    raw_rows: places and records.

  Raises:
    UserDataError: more than MAX_BAD_FRACTION of the records, and more than one, cannot be used;
      with the first of them. What is less is left out, and a warning says so.
  """
  of_record = preference_records.READERS[dataset.preferences]
  count, bad, found, first = 0, 0, 0, ''
  for place, record in raw_rows:
    count += 1
    try:
      kind = _kind(dataset, record)
      made = [{**comparison._asdict(), **kind} for comparison in of_record(record)]
      for row in made:
        for name in preference_records.Comparison._fields:
          source_rows.check_text(row[name], name)
    except RowProblemError as problem:
      bad += 1
      first = first or f'{place}: {problem}'
      continue
    found += len(made)
    yield from made
  named = f'data set {dataset.name!r}, split {split!r}'
  if bad > 1 and bad > MAX_BAD_FRACTION * count:
    raise UserDataError(
      f'{named}: {bad} of {count} records cannot be used, the first is {first}. Mend them or leave '
      'them out'
    )
  if bad:
    logger.warning('%s: %d of %d records are left out, the first is %s', named, bad, count, first)
  if count and not found:
    raise UserDataError(
      f'{named}: no comparison in {count} records of the form {dataset.preferences!r}'
      + (f'; the first that cannot be used is {first}' if first else ': ties, or no ranks')
    )


def _kind(dataset: Dataset, record: Mapping[str, Any]) -> dict[str, str]:
  """What rows are counted by.

  Raises:
    RowProblemError: no language of the record.
  """
  if dataset.language_column and dataset.language_column not in record:
    raise RowProblemError(
      'wrong_columns',
      f'no column {dataset.language_column!r} (language_column) among {sorted(record)[:12]}',
    )
  code = dataset.language or str(record.get(dataset.language_column) or '')
  variety = source_rows.language(code)
  return dict(
    zip(
      preference_features.KINDS,
      (variety.code, variety.script, dataset.name, dataset.task_type),
      strict=True,
    )
  )

"""Texts to embed, row by row: files of users, columns of a table, examples of a SeqIO task.

Nothing keeps all rows: `survey` reads them once to refuse what is bad before long work starts, and
whoever embeds reads them again.
"""

import array
import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from etils import epath

from aya_train import path_facts
from aya_train.tasks.building import records, text_files
from aya_train.tasks.user import row_files

logger = logging.getLogger(__name__)
TEXT_COLUMNS = ('text', 'inputs', 'sentence', 'contents', 'content', 'passage', 'query', 'prompt')
ID_COLUMNS = ('id', '_id', 'docid', 'doc_id', 'pid', 'qid', 'query_id', 'index_id')
BadRows = Literal['refuse', 'leave_out']
_NAMED = 5  # bad rows that a message names


@dataclasses.dataclass(frozen=True)
class TextRow:
  """A text.

  Attributes:
    place: where it stands, for messages: 'corpus.jsonl, row 3'.
    id: its own, or its number from 0 in all that is read.
    text: as it is embedded, without the prompt.
    columns: the row that it is a column of; {} of plain text.
  """

  place: str
  id: str
  text: str
  columns: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Rows = Callable[[], Iterator[TextRow]]  # reads from the beginning at each call


@dataclasses.dataclass(frozen=True)
class Survey:
  """What was read: number of rows, and a digest of their ids and texts."""

  count: int
  digest: str


def of_files(
  paths: Sequence[epath.PathLike],
  *,
  column: str | None = None,
  id_column: str | None = None,
  title_column: str | None = None,
) -> Rows:
  """Rows of files: JSON lines, JSON arrays, parquet, arrow, CSV and TSV, or a text a line.

  Args:
    paths: of this machine or a bucket, compressed or not; the ending says what each is.
    column: with the text; None: the first of TEXT_COLUMNS that the row has.
    id_column: with the id; None: the first of ID_COLUMNS that the row has, or else a number.
    title_column: put before the text, with a space between, as BEIR does.

  Raises:
    ValueError: a folder, or a pipe; while reading, a damaged file
      (`read_report.DamagedFileError`).
    FileNotFoundError: at once, if a file is not there.
  """
  for path in paths:
    found = epath.Path(path)
    if not path_facts.exists(found):
      raise FileNotFoundError(f'no file {path}: give files of texts, or --task for a SeqIO task')
    if path_facts.is_dir(found):
      raise ValueError(f'{path} is a folder: give the files in it, such as {path}/*.jsonl')
    text_files.refuse_stream(path)

  def read() -> Iterator[TextRow]:
    number = 0
    for path in paths:
      for place, row in row_files.read(path):
        where = f'{path}, {place}'
        yield _row(row, where, str(number), column, id_column, title_column)
        number += 1

  return read


def _row(
  row: Any,
  where: str,
  number: str,
  column: str | None,
  id_column: str | None,
  title_column: str | None,
) -> TextRow:
  if isinstance(row, str):
    return TextRow(where, number, row, {_PROBLEM: _OBJECT} if records.is_object(row) else {})
  if isinstance(row, records.BadRecord):
    return TextRow(where, number, '', {_PROBLEM: row.detail})
  if not isinstance(row, Mapping):
    return TextRow(where, number, '', {_PROBLEM: f'is no object but {type(row).__name__}'})
  key = column or next((name for name in TEXT_COLUMNS if name in row), None)
  if key is None or key not in row:
    wanted = f'no column {column!r}' if column else f'no column of {list(TEXT_COLUMNS)}'
    problem = f'has {wanted}, but {sorted(map(str, row))[:8]} (--column names another)'
    return TextRow(where, number, '', {_PROBLEM: problem})
  text = row[key]
  if not isinstance(text, str):
    got = text.detail if isinstance(text, records.BadValue) else type(text).__name__
    problem = f'has no text in {key!r} but {got}'
    return TextRow(where, number, '', {_PROBLEM: problem})
  own = id_column or next((name for name in ID_COLUMNS if name in row), None)
  if own is not None and (own not in row or not isinstance(row[own], str | int)):
    got = repr(row[own])[:40] if own in row else 'nothing'
    return TextRow(where, number, '', {_PROBLEM: f'has no id in {own!r} but {got}'})
  if title_column and isinstance(title := row.get(title_column), str) and title:
    text = f'{title} {text}'.strip()
  return TextRow(where, number if own is None else str(row[own]), text, row)


_OBJECT = 'is a JSON object in a file of texts, a line each: rename the file to end in .jsonl'
_PROBLEM = '\0problem'  # of a row that cannot be used, instead of its columns


def problem_of(row: TextRow) -> str | None:
  """Why a row cannot be embedded; None if it can."""
  if _PROBLEM in row.columns:
    return str(row.columns[_PROBLEM])
  if text_files.is_blank(row.text):
    return 'has an empty text'
  if not text_files.is_unicode(row.text):
    return 'has half of a surrogate pair, which is no text'
  if not text_files.is_unicode(row.id):
    return f'has half of a surrogate pair in its id {row.id!r}, which is no text'
  return None


def good(rows: Rows) -> Iterator[TextRow]:
  """The rows that can be embedded."""
  return (row for row in rows() if problem_of(row) is None)


def survey(
  rows: Rows, what: str, *, bad_rows: BadRows = 'refuse', unique_ids: bool = True
) -> Survey:
  """Reads all rows once.

  Args:
    rows: the rows.
    what: they are, for messages.
    bad_rows: what happens to rows without a text, or that are torn.
    unique_ids: refuse an id that is there twice.

  Raises:
    ValueError: no rows; bad ones that are not to be left out; an id twice. Rows are named.
  """
  if bad_rows not in ('refuse', 'leave_out'):
    raise ValueError(f"--bad_rows must be 'refuse' or 'leave_out', got {bad_rows!r}")
  digest = hashlib.sha256()
  bad: list[str] = []
  count = num_bad = 0
  keys = array.array('Q')
  for row in rows():
    if problem := problem_of(row):
      num_bad += 1
      if len(bad) < _NAMED:
        bad.append(f'{row.place} {problem}')
      continue
    count += 1
    digest.update(json.dumps([row.id, row.text]).encode())
    if unique_ids:
      keys.append(int.from_bytes(hashlib.blake2b(row.id.encode(), digest_size=8).digest()))
  if num_bad:
    told = '; '.join(bad) + (f'; and {num_bad - len(bad)} more' if num_bad > len(bad) else '')
    if bad_rows == 'refuse':
      raise ValueError(_of(what, f'{told}: mend them, or --bad_rows leave_out goes without'))
    logger.warning('%s: %d rows are left out: %s', what, num_bad, told)
  if not count:
    raise ValueError(f'{what}: no texts in it')
  _refuse_twice(rows, what, np.frombuffer(keys, np.uint64) if keys else np.zeros(0, np.uint64))
  return Survey(count, digest.hexdigest()[:16])


def _refuse_twice(rows: Rows, what: str, keys: np.ndarray) -> None:
  ordered = np.sort(keys)
  if not (ordered[1:] == ordered[:-1]).any():
    return
  first: dict[str, str] = {}
  twice = {int(key) for key in ordered[1:][ordered[1:] == ordered[:-1]]}
  for row in good(rows):
    if int.from_bytes(hashlib.blake2b(row.id.encode(), digest_size=8).digest()) not in twice:
      continue
    if row.id in first:
      told = (
        f'{row.place} has the id {row.id!r} of {first[row.id]}: give each text an id of its own'
      )
      raise ValueError(_of(what, f'{told}, or name another column with --id_column'))
    first[row.id] = row.place


def _of(what: str, told: str) -> str:
  """A message about `what`, which the place at its beginning may name already."""
  return told if told.startswith(what) else f'{what}: {told}'


def batched(rows: Iterable[TextRow], size: int) -> Iterator[list[TextRow]]:
  """Lists of `size` rows; the last one may be shorter."""
  held: list[TextRow] = []
  for row in rows:
    held.append(row)
    if len(held) == size:
      yield held
      held = []
  if held:
    yield held


def _is_text(feature: Any) -> bool:
  """Whether a SeqIO feature is one text an example: neither plain numbers nor a list of texts."""
  import seqio

  return feature.rank == 1 and not isinstance(feature.vocabulary, seqio.PassThroughVocabulary)


def of_task(name: str, split: str, feature: str) -> Rows:
  """Texts of a SeqIO task or mixture: of each example one feature as it was before it became ids.

  Args:
    name: of a task or mixture that is registered.
    split: to read.
    feature: 'inputs', 'targets' or another one; its text is `FEATURE_pretokenized` where there is
      such a column, else FEATURE itself, ids turned back into text.

  Raises:
    ValueError: no such task, split or feature; or one that holds no text, or several.
  """
  import seqio

  from aya_train.data import availability

  tasks = availability.tasks(name, split, None)
  for task in tasks:
    if feature not in task.output_features:
      raise ValueError(
        f'task {task.name!r} has the features {sorted(task.output_features)}, and no {feature!r}: '
        '--feature names another'
      )

    if not _is_text(found := task.output_features[feature]):
      has = 'holds numbers' if found.rank == 1 else 'holds several texts'
      others = [name for name, f in task.output_features.items() if _is_text(f)]
      raise ValueError(
        f'the feature {feature!r} of task {task.name!r} {has}, and a vector is of one text: those '
        f'with one are {sorted(others)} (--feature)'
      )

  def texts(task: seqio.Task) -> Iterator[TextRow]:
    dataset = task.get_dataset(sequence_length=None, split=split, shuffle=False, seed=0)
    vocabulary = task.output_features[feature].vocabulary
    for number, example in enumerate(dataset.as_numpy_iterator()):
      text = example.get(f'{feature}_pretokenized', example[feature])
      if not isinstance(text, bytes):
        text = vocabulary.decode([int(i) for i in example[feature] if i > 1]).encode()
      where = f'{task.name}, example {number + 1}'
      own = str(number) if len(tasks) == 1 else f'{task.name}/{number}'
      yield TextRow(where, own, text.decode('utf-8', 'replace'))

  return lambda: (row for task in tasks for row in texts(task))

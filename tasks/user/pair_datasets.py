"""Pairs of texts from the files of a user's table: rows with `pairs = LAYOUT`.

`tasks.retrieval.pair_layouts` says what the layouts are. Of corpora only those texts are kept in
memory that some pair needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from aya_train import path_facts
from aya_train.tasks.building import rows as source_rows
from aya_train.tasks.building import text_files
from aya_train.tasks.building.read_report import RowProblemError
from aya_train.tasks.retrieval import pair_layouts, text_pairs
from aya_train.tasks.retrieval.text_pairs import PairError, TextPair
from aya_train.tasks.user import csv_files
from aya_train.tasks.user.dataset_tables import Dataset, UserDataError

Located = tuple[str, Mapping[str, Any]]
RowsOf = Callable[[Dataset, epath.Path], Iterator[Located]]
_IDS = ('_id', 'id', 'docid', 'pid', 'qid', 'corpus-id', 'query-id')
# Wrong ids that are kept of a query: a released file has a thousand, and some may be right ones.
_MOST_WRONG = 2 * text_pairs.MAX_NEGATIVES


def pairs(dataset: Dataset, split: str, rows_of: RowsOf) -> Iterator[TextPair]:
  """The pairs of a split.

  Args:
    dataset: a row of a table with `pairs`.
    split: of it.
    rows_of: places and columns of the rows of a file.

  Raises:
    UserDataError: a file or a row is wrong; the message has both.
    FileNotFoundError, ValueError: see `Dataset.paths` and `Dataset.beside`.
  """
  try:
    for pair in _read(dataset, split, rows_of):
      yield pair._replace(
        source=pair.source or dataset.name,
        group=f'{dataset.name} {pair.group}' if pair.group else '',
        language=pair.language or source_rows.language(dataset.language).code,
      )
  except (PairError, RowProblemError) as error:
    raise UserDataError(f'data set {dataset.name!r}: {error}') from error


def _read(dataset: Dataset, split: str, rows_of: RowsOf) -> Iterator[TextPair]:
  paths = dataset.paths(split)
  if dataset.pairs == 'sentences':
    for path in paths:
      yield from pair_layouts.of_lines(_lines(path))
  elif dataset.pairs == 'parallel':
    others = dataset.beside(dataset.other, split)
    if len(others) != len(paths):
      raise PairError(f'{len(paths)} files {dataset.files[split]} and {len(others)} of `other`')
    for path, other in zip(paths, others, strict=True):
      yield from pair_layouts.of_parallel(_lines(path, blank=True), _lines(other, blank=True))
  elif dataset.pairs in ('beir', 'msmarco'):
    for path in paths:
      yield from _judged(dataset, split, path, rows_of)
  else:
    rows = (row for path in paths for row in rows_of(dataset, path))
    if dataset.language_column:
      yield from _of_languages(dataset, rows)
    else:
      yield from _of_rows(dataset, rows)


def _of_rows(dataset: Dataset, rows: Iterator[Located]) -> Iterator[TextPair]:
  if dataset.pairs == 'community':
    return pair_layouts.of_community(rows)
  if dataset.pairs == 'tevatron':
    return pair_layouts.of_passages(rows, 'query', 'positive_passages', 'negative_passages')
  if dataset.pairs == 'dpr':
    return pair_layouts.of_passages(rows, 'question', 'positive_ctxs', 'hard_negative_ctxs')
  return pair_layouts.of_columns(
    rows, dataset.query, dataset.positive, dataset.negatives, dataset.group
  )


def _of_languages(dataset: Dataset, rows: Iterator[Located]) -> Iterator[TextPair]:
  """Rows that say their language, which is their source as well."""
  for where, columns in rows:
    if not (code := str(columns.get(dataset.language_column) or '')):
      raise PairError(
        f'{where}: no {dataset.language_column!r} (language_column) among {sorted(columns)}'
      )
    try:
      code = source_rows.language(code).code
    except RowProblemError as error:
      raise PairError(f'{where}: {error}') from error
    for pair in _of_rows(dataset, iter([(where, columns)])):
      yield pair._replace(language=code, source=f'{dataset.name} {code}')


def _judged(dataset: Dataset, split: str, path: epath.Path, rows_of: RowsOf) -> Iterator[TextPair]:
  folder = path.parent.parent if dataset.pairs == 'beir' else path.parent
  places = {'queries': 'queries.jsonl', 'corpus': 'corpus.jsonl'}
  if dataset.pairs == 'msmarco':
    places = {'queries': f'queries.{split}.tsv', 'corpus': 'collection.tsv'}
  files = {}
  for key, usual in places.items():
    given = getattr(dataset, key)
    files[key] = dataset.beside(given, split)[0] if given else folder / usual
    if not path_facts.exists(files[key]):
      raise FileNotFoundError(
        f'data set {dataset.name!r}: no file {files[key]}, which holds the {key} of {path}; give '
        f'`{key}` in the table'
      )
  judgements, negatives = _judgements(path)
  wanted = {query for _, query, _ in judgements}
  if dataset.negative_ids:
    for other in dataset.beside(dataset.negative_ids, split):
      negatives |= _negative_ids(dataset, other, wanted, rows_of)

  def texts(key: str, ids: set[str]) -> dict[str, str]:
    return _texts(dataset, files[key], ids, rows_of)

  yield from pair_layouts.of_judgements(
    judgements, texts('queries', wanted), lambda ids: texts('corpus', ids), negatives
  )


def _judgements(path: epath.Path) -> tuple[list[tuple[str, str, str]], dict[str, list[str]]]:
  """Judgements of a qrels file, or ids of triples: query, right text, wrong text.

  Of triples, of which MS MARCO has 400 million, each right text is there once, and as many wrong
  ones of a query as may be needed.
  """
  found: list[tuple[str, str, str]] = []
  seen = set[tuple[str, str]]()
  negatives: dict[str, dict[str, None]] = {}
  is_triples = path.name.startswith(('triples', 'qidpidtriples'))
  for where, line in _lines(path):
    fields = line.split()
    if fields[:1] == ['query-id']:
      continue  # BEIR's header
    if len(fields) == 4:  # TREC's: query, iteration, text, relevance
      query, _, text, score = fields
    elif len(fields) == 3 and is_triples:
      query, text, wrong = fields
      kept = negatives.setdefault(query, {})
      if len(kept) < _MOST_WRONG:
        kept[wrong] = None
      if (query, text) in seen:
        continue
      seen.add((query, text))
      score = '1'
    elif len(fields) == 3:
      query, text, score = fields
    else:
      raise PairError(
        f'{where}: {len(fields)} fields, expected query, text and relevance, or those of TREC (4)'
      )
    try:
      right = float(score) > 0
    except ValueError as error:
      raise PairError(f'{where}: expected a number as relevance, got {score!r}') from error
    if right:
      found.append((where, query, text))
  return found, {query: [*kept] for query, kept in negatives.items()}


def _negative_ids(
  dataset: Dataset, path: epath.Path, wanted: set[str], rows_of: RowsOf
) -> dict[str, list[str]]:
  """Mined ids: {"qid", "neg": [ids] or {system: [ids]}} in a row (msmarco-hard-negatives).

  Of the queries that are wanted, as many as may be needed.
  """
  found = {}
  for where, record in rows_of(dataset, path):
    query = _id(record, where)
    wrong = record.get('neg', record.get('negatives'))
    lists = list(wrong.values()) if isinstance(wrong, Mapping) else [wrong]
    if not all(isinstance(ids, list) for ids in lists):
      raise PairError(f'{where}: expected `neg` with a list of ids, got {wrong!r:.80}')
    if query not in wanted:
      continue
    # Systems in turn, so that the first ones are not all of one.
    rounds = max(map(len, lists), default=0)
    ids = (str(ids[i]) for i in range(rounds) for ids in lists if i < len(ids))
    found[query] = [*dict.fromkeys(ids)][:_MOST_WRONG]
  return found


def _id(record: Mapping[str, Any], where: str) -> str:
  name = next((name for name in _IDS if record.get(name) not in (None, '')), None)
  if name is None:
    raise PairError(f'{where}: no id among {sorted(record)}: expected one of {", ".join(_IDS)}')
  return str(record[name])


def _texts(dataset: Dataset, path: epath.Path, wanted: set[str], rows_of: RowsOf) -> dict[str, str]:
  """Texts of those ids that are wanted.

  Raises:
    PairError: an id stands twice, with different texts.
  """
  found: dict[str, tuple[str, str]] = {}
  for where, key, text in _corpus(dataset, path, rows_of):
    if key not in wanted:
      continue
    if key in found and found[key][1] != text:
      raise PairError(f'{where}: the id {key!r} is that of {found[key][0]} too, with another text')
    found[key] = where, text
  return {key: text for key, (_, text) in found.items()}


def _corpus(dataset: Dataset, path: epath.Path, rows_of: RowsOf) -> Iterator[tuple[str, str, str]]:
  """Places, ids and texts of a corpus: id and text between a tab, or records with a title."""
  if csv_files.is_one(path.name) and text_files.plain_name(path.name.lower()).endswith('.tsv'):
    for where, line in _lines(path):
      key, tab, text = line.partition('\t')
      if not tab:
        raise PairError(f'{where}: no tab; expected an id and a text')
      yield where, key, text
    return
  for where, record in rows_of(dataset, path):
    text = record.get('text', record.get('contents'))
    if not isinstance(text, str):
      raise PairError(f'{where}: no `text` among {sorted(record)}')
    yield where, _id(record, where), pair_layouts.joined(record.get('title'), text)


def _lines(path: epath.Path, *, blank: bool = False) -> Iterator[tuple[str, str]]:
  """Places and lines; `blank`: those without a text too."""
  with text_files.opened(path) as file:
    for number, line in enumerate(text_files.raw_lines(file), 1):
      text = text_files.decoded(path, line, f'line {number}').rstrip('\r\n')
      if text or blank:
        yield f'{path} line {number}', text

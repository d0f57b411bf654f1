"""`aya-train mine`: pairs and a corpus to triples with hard negatives.

    OUTPUT.jsonl                a line for each query, in their order, as they come
          .vectors/corpus/      vectors of the corpus   (vector_folder.py)
                  /queries/     of the queries, and
                  /positives/   of the pairs' positives
Each step goes on where it was. The corpus is never whole in memory: its vectors are memory maps,
its texts are read by the line.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from aya_train import (
  answer_file,
  batch_progress,
  destinations,
  hosts,
  lease,
  partitioning,
  path_facts,
  stopping,
  watchdog,
)
from aya_train.embedding import (
  encoder_checkpoint,
  hard_negatives,
  text_embedding,
  text_encoder,
  text_rows,
  vector_folder,
  vector_search,
)
from aya_train.tasks.building import records, text_files
from aya_train.tasks.user import row_files

logger = logging.getLogger(__name__)
VECTORS = '.vectors'
QUERY_COLUMNS = ('query', 'anchor', 'question', 'inputs')
POSITIVE_COLUMNS = ('positive', 'passage', 'positives', 'positive_passages', 'answer', 'targets')
POSITIVE_ID_COLUMNS = ('positive_id', 'positive_ids', 'docid', 'doc_id', 'pid')
_NO_ID = (None, '')  # as tables write that there is none
_BLOCK = 1_024  # queries between two writes
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Pair:
  """A query with what is relevant to it.

  Attributes:
    id: of the query.
    query: text.
    positives: texts, one at least.
    positive_ids: in the corpus; those that are known.
  """

  id: str
  query: str
  positives: Sequence[str]
  positive_ids: Sequence[str] = ()


def read_pairs(
  path: epath.PathLike,
  *,
  query_column: str | None = None,
  positive_column: str | None = None,
  positive_id_column: str | None = None,
  bad_rows: text_rows.BadRows = 'refuse',
) -> list[Pair]:
  """Pairs of a file; rows with one query text belong together, their positives too.

  Args:
    path: of a table (`row_files.read`).
    query_column, positive_column, positive_id_column: None: the first of QUERY_COLUMNS,
      POSITIVE_COLUMNS and POSITIVE_ID_COLUMNS that a row has; the last may be missing. A positive
      may be a text, or a list of texts or of objects with `text` and `docid`.
    bad_rows: what happens to rows without a query or a positive.

  Raises:
    ValueError: bad rows that are not to be left out, named; no pairs; columns that are not there.
    FileNotFoundError: no such file.
  """
  if not path_facts.exists(path):
    raise FileNotFoundError(f'no file of pairs {path}')
  found: dict[str, Pair] = {}
  bad: list[str] = []
  asked = (query_column, positive_column, positive_id_column)
  for place, row in row_files.read(path):
    pair = _pair(row, str(len(found)), *asked)
    if isinstance(pair, str):
      bad.append(f'{place} {pair}')
      continue
    if (before := found.get(pair.query)) is not None:
      pair = dataclasses.replace(
        before,
        positives=[*dict.fromkeys([*before.positives, *pair.positives])],
        positive_ids=[*dict.fromkeys([*before.positive_ids, *pair.positive_ids])],
      )
    found[pair.query] = pair
  if bad:
    told = '; '.join(bad[:_NAMED]) + (f'; and {len(bad) - _NAMED} more' if bad[_NAMED:] else '')
    if bad_rows == 'refuse':
      raise ValueError(f'{path}: {told}: mend them, or --bad_rows leave_out goes without')
    logger.warning('%s: %d rows are left out: %s', path, len(bad), told)
  if not found:
    raise ValueError(f'{path}: no pairs in it')
  pairs = list(found.values())
  _refuse_ids_twice(pairs, path)
  return pairs


def _refuse_ids_twice(pairs: Sequence[Pair], path: epath.PathLike) -> None:
  first: dict[str, Pair] = {}
  for pair in pairs:
    other = first.setdefault(pair.id, pair)
    if other is not pair:
      raise ValueError(
        f'{path}: two queries have the id {pair.id!r}: {other.query[:60]!r} and {pair.query[:60]!r}'
      )


def _pair(
  row: Any, number: str, query: str | None, positive: str | None, positive_id: str | None
) -> Pair | str:
  """A pair, or what is wrong with a row."""
  if isinstance(row, records.BadRecord):
    return f'cannot be read: {row.detail}'
  if not isinstance(row, Mapping):
    return 'is no object with columns'
  names = []
  for what, asked, usual in (
    ('query', query, QUERY_COLUMNS),
    ('positive', positive, POSITIVE_COLUMNS),
  ):
    name = asked or next((name for name in usual if name in row), None)
    if name is None or name not in row:
      wanted = f'no column {asked!r}' if asked else f'no column of {list(usual)}'
      return f'has {wanted}, but {sorted(map(str, row))[:8]} (--{what}_column names another)'
    names.append(name)
  text = row[names[0]]
  if not _is_text(text):
    return f'has an empty {names[0]!r}, or one that is no text'
  entries = row[names[1]]
  entries = entries if isinstance(entries, list) else [entries]
  texts: list[str] = []
  ids: list[Any] = []
  for entry in entries:
    if isinstance(entry, Mapping):
      ids += [next((entry[k] for k in ('docid', 'doc_id', 'id', '_id') if k in entry), None)]
      entry = ' '.join(filter(None, (entry.get('title'), entry.get('text'))))
    if not _is_text(entry):
      return f'has an empty {names[1]!r}, or one that is no text'
    texts.append(entry)
  if not texts:
    return f'has no text in {names[1]!r}'
  for each in (text, *texts):
    if problem := text_rows.problem_of(text_rows.TextRow('', '', each)):
      return problem
  key = positive_id or next((name for name in POSITIVE_ID_COLUMNS if name in row), None)
  if key is not None:
    if key not in row:
      return f'has no column {key!r}'
    ids += row[key] if isinstance(row[key], list) else [row[key]]
  own_id = next((row[k] for k in ('query_id', 'qid', 'id', '_id') if k in row), None)
  own_id = number if own_id in _NO_ID else str(own_id)
  known = dict.fromkeys(str(i) for i in ids if i not in _NO_ID)
  for each in (own_id, *known):
    if problem := text_rows.problem_of(text_rows.TextRow('', each, text)):
      return problem
  return Pair(own_id, text, [*dict.fromkeys(texts)], [*known])


def _is_text(value: Any) -> bool:
  return isinstance(value, str) and not text_files.is_blank(value)


@dataclasses.dataclass(frozen=True)
class Search:
  """How passages are found: 'exact', or FAISS by a factory of its own words; and tiles."""

  factory: str | None = None
  tile: int = vector_search.CORPUS_TILE


def mine(
  encoder: text_encoder.TextEncoder,
  pairs: Sequence[Pair],
  corpus: text_rows.Rows,
  output: epath.PathLike,
  choice: hard_negatives.Choice,
  *,
  partitioner: partitioning.Partitioner,
  what: str = 'the corpus',
  prompts: tuple[str, str] = ('', ''),
  how: Search = Search(),
  seed: int = 0,
  bad_rows: text_rows.BadRows = 'refuse',
  overwrite: bool = False,
) -> epath.Path:
  """Writes a line for each query: `query_id`, `query`, `positives`, `negatives` with scores.

  A passage is no negative if its id is one of any positive of the query, or its text is one of
  them, or the query itself. The score that counts is that of the positive's own text under the same
  model.

  Args:
    encoder: the model.
    pairs: queries with their positives.
    corpus: passages, with unique ids.
    output: JSON lines; `OUTPUT.vectors/` is written beside.
    choice: which passages are taken.
    partitioner: mesh, for the search.
    what: the corpus is, for messages.
    prompts: before queries and before passages.
    how: exact search, or FAISS.
    seed: for the strategy 'random'.
    bad_rows: what happens to passages without a text.
    overwrite: begin anew where there is something else.

  Raises:
    ValueError: bad rows, an id twice, or files of something else.
    lease.HeldError: another process mines to this file.
    stopping.StoppedError: a signal came; what was mined is written.
  """
  destinations.check_file(epath.Path(output), 'OUTPUT')
  vectors = epath.Path(f'{output}{VECTORS}')
  with lease.held(vectors, 'OUTPUT', 'mine') as held:
    common: dict[str, Any] = {'overwrite': overwrite, 'bad_rows': bad_rows}
    text_embedding.embed(
      encoder, corpus, vectors / 'corpus', what=what, prompt=prompts[1], **common
    )
    _embed_texts(encoder, [p.query for p in pairs], vectors / 'queries', prompts[0], common)
    positives = [text for pair in pairs for text in pair.positives]
    _embed_texts(encoder, positives, vectors / 'positives', prompts[1], common)
    opened = [vector_folder.VectorFolder(vectors / n) for n in ('corpus', 'queries', 'positives')]
    passages, queries, relevant = opened
    about = {
      **{f'{name} vectors': folder.about for name, folder in zip(_PARTS, opened, strict=True)},
      **dataclasses.asdict(choice),
      'pairs': _digest(pairs),
      'search': how.factory or 'exact',
      **({'seed': seed} if choice.strategy == 'random' else {}),
    }
    with (
      stopping.stop_on_signal() as stop,
      answer_file.AnswerFile(
        output,
        about,
        num_questions=len(pairs),
        name='OUTPUT',
        overwrite=overwrite,
        way_out='give another file, or --overwrite',
      ) as file,
      watchdog.phase('negatives'),
    ):
      todo = [i for i in range(len(pairs)) if i not in file.done]
      if not todo:
        logger.info('%s: all %d queries are mined already', output, len(pairs))
      else:
        ids = _Ids(passages, pairs)
        width = hard_negatives.depth(choice, ids.most_positives)
        index = None
        if how.factory is not None:
          index = vector_search.faiss_index(passages, passages.layout.dimension, how.factory)
        progress = batch_progress.BatchProgress('queries', len(pairs), len(file.done))
        starts = np.cumsum([0, *(len(pair.positives) for pair in pairs)])
        few = 0
        for numbers in _blocks(todo):
          asked = queries.rows(numbers)
          if index is None:
            found = vector_search.search(asked, passages, width, partitioner, tile=how.tile)
          else:
            found = vector_search.faiss_search(asked, passages, width, index, partitioner)
          records = []
          for i, vector, rows, scores in zip(numbers, asked, *found, strict=True):
            own = relevant.rows(range(starts[i], starts[i + 1])) @ vector
            known = ids.relevant(i)
            chosen = hard_negatives.choose(rows, scores, known, float(own.min()), choice, (seed, i))
            few += len(chosen.rows) < choice.count
            if hosts.is_first():
              records.append(_record(i, pairs[i], own, chosen, passages, ids))
          held.check_together()
          file.write(records)
          progress.add(len(numbers))
          watchdog.beat()
          stop.check()
        if few and hosts.is_first():
          logger.warning(
            '%d of %d queries have fewer than %d negatives: a wider --range_max, or a higher '
            '--max_share, gives more',
            *(few, len(todo), choice.count),
          )
      file.finish()
    logger.info('wrote the negatives of %d queries to %s', len(pairs), output)
  return epath.Path(output)


_PARTS = ('corpus', 'query', 'positive')


def _embed_texts(
  encoder: text_encoder.TextEncoder,
  texts: Sequence[str],
  folder: epath.Path,
  prompt: str,
  options: Mapping[str, Any],
) -> None:
  def rows() -> Iterator[text_rows.TextRow]:
    return (text_rows.TextRow(f'text {i + 1}', str(i), text) for i, text in enumerate(texts))

  text_embedding.embed(encoder, rows, folder, what=folder.name, prompt=prompt, **options)


class _Ids:
  """Ids of the corpus, and which rows are relevant to a query by their id or text."""

  def __init__(self, passages: vector_folder.VectorFolder, pairs: Sequence[Pair]):
    wanted = {own for pair in pairs for own in pair.positive_ids}
    texts = {_key(text) for pair in pairs for text in (pair.query, *pair.positives)}
    self._ids, self._passages, self._pairs = passages.ids(), passages, pairs
    row_of: dict[str, int] = {}
    same: dict[bytes, list[int]] = {}
    for row, own in enumerate(self._ids):
      if own in wanted:
        row_of[own] = row
      if (key := _key(passages.text(row))) in texts:
        same.setdefault(key, []).append(row)
    missing = sorted(wanted - {*row_of})
    if missing and hosts.is_first():
      logger.warning(
        '%d ids of positives are not in the corpus, such as %s: those positives are known by their '
        'text alone',
        *(len(missing), missing[:3]),
      )
    self._relevant = [
      {
        *(row_of[own] for own in pair.positive_ids if own in row_of),
        *(row for text in pair.positives for row in same.get(_key(text), ())),
        *same.get(_key(pair.query), ()),
      }
      for pair in pairs
    ]
    self.most_positives = max(map(len, self._relevant))

  def relevant(self, query: int) -> set[int]:
    """Rows that are no negatives of a query, whatever their score."""
    return self._relevant[query]

  def id_of(self, row: int) -> str:
    return self._ids[row]


def _key(text: str) -> bytes:
  return hashlib.blake2b(' '.join(text.split()).encode(), digest_size=16).digest()


def _record(
  number: int,
  pair: Pair,
  own: np.ndarray,
  chosen: hard_negatives.Chosen,
  passages: vector_folder.VectorFolder,
  ids: _Ids,
) -> dict[str, Any]:
  return {
    'index': number,
    'query_id': pair.id,
    'query': pair.query,
    'positive': pair.positives[0],
    'positives': list(pair.positives),
    'positive_scores': [round(float(s), 6) for s in own],
    'negatives': [passages.text(row) for row in chosen.rows],
    'negative_ids': [ids.id_of(row) for row in chosen.rows],
    'negative_scores': [round(s, 6) for s in chosen.scores],
  }


def _digest(pairs: Sequence[Pair]) -> str:
  content = json.dumps([dataclasses.asdict(pair) for pair in pairs])
  return f'{len(pairs)} {hashlib.sha256(content.encode()).hexdigest()[:16]}'


def _blocks(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
  for start in range(0, len(numbers), _BLOCK):
    yield numbers[start : start + _BLOCK]


def prompts_of(
  encoder: text_encoder.TextEncoder, query: str | None, passage: str | None
) -> tuple[str, str]:
  """The prompts of both sides: those given, else the checkpoint's."""
  return (
    encoder.prompt(encoder_checkpoint.QUERY) if query is None else query,
    encoder.prompt(encoder_checkpoint.PASSAGE) if passage is None else passage,
  )

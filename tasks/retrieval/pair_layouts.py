"""Released layouts of retrieval data as pairs of texts; records come in, nothing is opened here.

columns    a row has its texts: query, positive (a text or a list), negative or negatives
community  questions as communities ask them: title, body, answer or answers
tevatron   query, positive_passages and negative_passages with title and text
dpr        question, positive_ctxs and hard_negative_ctxs (DPR's NQ files)
beir       qrels/SPLIT.tsv with corpus.jsonl and queries.jsonl
msmarco    qrels.train.tsv, or triples of ids, with queries.tsv and collection.tsv
sentences  two languages in a line: Tatoeba's exports, Tatoeba Challenge, Anki's files
parallel   two files of as many lines
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from aya_train.tasks.retrieval import text_pairs
from aya_train.tasks.retrieval.text_pairs import PairError, TextPair

Record = Mapping[str, Any]
Located = tuple[str, Record]

LAYOUTS = (
  'columns',
  'community',
  'tevatron',
  'dpr',
  'beir',
  'msmarco',
  'sentences',
  'parallel',
)

_QUERIES = ('query', 'anchor', 'question', 'sentence1', 'text1', 'source', 'inputs', 'set')
_TARGETS = (
  *('positive', 'positives', 'pos', 'answer', 'answers', 'passage', 'document', 'sentence2'),
  *('text2', 'target', 'targets'),
)
_NEGATIVES = ('negatives', 'negative', 'neg', 'hard_negatives')


def joined(*parts: Any) -> str:
  """Title and text with a space between, as BEIR has them."""
  return ' '.join(str(part).strip() for part in parts if part is not None and str(part).strip())


def _texts(value: Any, where: str, column: str) -> list[str]:
  """A text, or texts of a list, or of objects with a title and a text."""
  if value is None:
    return []
  values = value if isinstance(value, list | tuple) else [value]
  found = []
  for one in values:
    if isinstance(one, Mapping):
      if not isinstance(text := one.get('text', one.get('contents')), str):
        raise PairError(f'{where}: {column}: expected an object with `text`, got {one!r:.80}')
      one = joined(one.get('title'), text)
    elif isinstance(one, bool) or not isinstance(one, str | int | float):
      raise PairError(f'{where}: {column}: expected a text or a list of texts, got {one!r:.80}')
    found.append(str(one))
  return found


def _named(record: Record, wanted: str, known: Sequence[str], where: str, what: str) -> str:
  if wanted:
    if wanted not in record:
      raise PairError(f'{where}: no column {wanted!r} ({what}) among {sorted(record)}')
    return wanted
  if (found := next((name for name in known if name in record), None)) is None:
    raise PairError(
      f'{where}: no column with the {what} among {sorted(record)}: expected one of '
      f'{", ".join(known)}, or its name under `{what}` in the table'
    )
  return found


def _each(
  where: str, query: str, targets: Iterable[str], negatives: Sequence[str], group: str = ''
) -> Iterator[TextPair]:
  """A pair for each right answer; the others are no negatives of it."""
  targets = list(dict.fromkeys(targets))
  negatives = [text for text in negatives if text not in targets]
  for target in targets or ['']:
    yield TextPair(where, query, target, tuple(negatives), group=group)


def of_columns(
  rows: Iterable[Located], query: str = '', positive: str = '', negatives: str = '', group: str = ''
) -> Iterator[TextPair]:
  """Rows that hold their texts.

  Args:
    rows: with places.
    query, positive, negatives: names of the columns, '' for the usual ones.
    group: column that says what a row is about, '' for none.

  Raises:
    PairError: a row lacks a column, or holds something else than texts.
  """
  for where, record in rows:
    if isinstance(together := record.get('set'), list) and not query:
      texts = _texts(together, where, 'set')
      yield from _each(where, texts[0] if texts else '', texts[1:], ())
      continue
    of_query = _named(record, query, _QUERIES, where, 'query')
    others = [name for name in _TARGETS if name != of_query]
    of_positive = _named(record, positive, others, where, 'positive')
    if negatives and negatives not in record:
      raise PairError(f'{where}: no column {negatives!r} (negatives) among {sorted(record)}')
    wanted = (negatives,) if negatives else _NEGATIVES
    of_negatives = [name for name in record if name in wanted or _is_numbered(name)]
    (found, *_) = _texts(record[of_query], where, of_query) or ['']
    if group and record.get(group) in (None, ''):
      raise PairError(f'{where}: no {group!r} (group) among {sorted(record)}')
    yield from _each(
      where,
      found,
      _texts(record[of_positive], where, of_positive),
      [text for name in of_negatives for text in _texts(record[name], where, name)],
      str(record[group]) if group else '',
    )


def _is_numbered(name: str) -> bool:
  return name.startswith('negative_') and name.removeprefix('negative_').isdigit()


def of_community(rows: Iterable[Located]) -> Iterator[TextPair]:
  """Title and body of a question, and each of its answers.

  Raises:
    PairError: a row has no title and no body, or no answer.
  """
  for where, record in rows:
    answers = record.get('answers', record.get('answer'))
    if answers is None or not {'title', 'body', 'question'} & {*record}:
      raise PairError(
        f'{where}: expected title or body (or question), and answer or answers, got '
        f'{sorted(record)}'
      )
    question = joined(record.get('title', record.get('question')), record.get('body'))
    yield from _each(where, question, _texts(answers, where, 'answers'), ())


def of_passages(
  rows: Iterable[Located], query: str, positives: str, negatives: str
) -> Iterator[TextPair]:
  """Lists of passages with title and text, of which the first right one is taken, as in DPR.

  Args:
    rows: with places.
    query, positives, negatives: names of the columns.

  Raises:
    PairError: a row lacks a column, or holds no passages.
  """
  for where, record in rows:
    if missing := [name for name in (query, positives) if name not in record]:
      raise PairError(f'{where}: no {missing} among {sorted(record)}')
    right = _texts(record[positives], where, positives)
    if not right:
      continue  # some of DPR's questions have no passage
    wrong = _texts(record.get(negatives), where, negatives)
    (asked, *_) = _texts(record[query], where, query) or ['']
    yield from _each(where, asked, right[:1], wrong)


def of_judgements(
  judgements: Iterable[tuple[str, str, str]],
  queries: Mapping[str, str],
  texts: Callable[[set[str]], Mapping[str, str]],
  negatives: Mapping[str, Sequence[str]],
) -> Iterator[TextPair]:
  """Ids of queries and of the texts that answer them (BEIR, MS MARCO).

  Args:
    judgements: places, ids of queries and of texts.
    queries: texts of queries by id.
    texts: gives the texts of ids; only these are kept in memory.
    negatives: ids of texts that do not answer, by id of the query.

  Raises:
    PairError: an id without a text.
  """
  rows = list(judgements)
  right: dict[str, set[str]] = {}
  for _, query, target in rows:
    right.setdefault(query, set()).add(target)
  chosen = {
    query: [x for x in negatives.get(query, ()) if x not in right[query]][
      : text_pairs.MAX_NEGATIVES
    ]
    for query in right
  }
  found = texts({x for _, _, x in rows} | {x for ids in chosen.values() for x in ids})
  for where, query, target in rows:
    if query not in queries:
      raise PairError(f'{where}: no query has the id {query!r}')
    if missing := [x for x in (target, *chosen[query]) if x not in found]:
      raise PairError(f'{where}: no text of the corpus has the id {missing[0]!r}')
    # A corpus may hold a right text once more, under an id that nobody judged.
    texts_of_right = {found.get(x) for x in right[query]}
    wrong = tuple(text for x in chosen[query] if (text := found[x]) not in texts_of_right)
    yield TextPair(where, queries[query], found[target], wrong, group=query)


def of_lines(rows: Iterable[tuple[str, str]]) -> Iterator[TextPair]:
  """Two sentences in a line, between tabs.

  Two or three fields are both sentences and whom to name (Anki); four are the languages and then
  the sentences (Tatoeba Challenge), or id and text of each side (Tatoeba's export of pairs).

  Raises:
    PairError: another number of fields.
  """
  for where, line in rows:
    fields = line.split('\t')
    if len(fields) == 4:
      number_first = fields[0].isdigit() and fields[2].isdigit()
      one, other = (fields[1], fields[3]) if number_first else (fields[2], fields[3])
    elif len(fields) in (2, 3):
      one, other = fields[:2]
    else:
      raise PairError(
        f'{where}: {len(fields)} fields between tabs, expected 2 to 4: two sentences, or both '
        'languages or ids beside them'
      )
    yield TextPair(where, one, other)


def of_parallel(
  left: Iterable[tuple[str, str]], right: Iterable[tuple[str, str]]
) -> Iterator[TextPair]:
  """Lines of two files, of which the same line is the same sentence; blank in both, it is none.

  Raises:
    PairError: one file has more lines that are not blank.
  """
  for one, other in itertools.zip_longest(left, right):
    if not any(side and side[1].strip() for side in (one, other)):
      continue
    if one is None or other is None:
      raise PairError(
        f'{(one or other)[0]}: the other file ends before; both must have the same sentences'
      )
    yield TextPair(one[0], one[1], other[1])


def check_keys(row: Mapping[str, Any]) -> None:
  """Refuses keys of a table's row that do not go with its layout.

  Raises:
    ValueError: naming the key.
  """
  layout = row.get('pairs', '')
  mine = {
    'columns': {'query', 'positive', 'negatives', 'group'},
    'beir': {'queries', 'corpus', 'negative_ids'},
    'msmarco': {'queries', 'corpus', 'negative_ids'},
    'parallel': {'other'},
  }
  known = {key for keys in mine.values() for key in keys}
  if layout and layout not in LAYOUTS:
    raise ValueError(f'pairs: unknown layout {layout!r}; known are {list(LAYOUTS)}')
  if wrong := sorted({*row} & (known - mine.get(layout, set()))):
    raise ValueError(
      f'{wrong}: not for pairs = {layout!r}' if layout else f'{wrong}: give `pairs` too'
    )
  if layout == 'parallel' and not row.get('other'):
    raise ValueError("pairs = 'parallel': give the file of the other language as `other`")
  if layout and (row.get('templates') or row.get('rank') or row.get('metrics')):
    raise ValueError('pairs: are texts as they are, without `templates`, `rank` and `metrics`')
  if layout in ('beir', 'msmarco', 'sentences', 'parallel') and row.get('language_column'):
    raise ValueError(f'pairs = {layout!r}: give `language`; its rows have no language_column')

"""A query, the text that answers it, and texts that only seem to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from aya_train.tasks.building import text_files

MAX_NEGATIVES = 16
"""Hard negatives that a record holds; a run reads as many as TASK_FEATURE_LENGTHS names."""


class PairError(ValueError):
  """A row that is no pair of texts; the message has file and row."""


class TextPair(NamedTuple):
  """One example.

  Attributes:
    where: 'FILE row 3', for messages.
    query, target: texts that belong together.
    negatives: texts that do not answer the query, at most MAX_NEGATIVES of them are kept.
    source: where it is from, such as a data set or a language; SAME_SOURCE_NEGATIVES goes by it.
    group: what it is about; pairs of one group are right answers to each other. '' for none.
    language: ISO 639-3 of the query.
  """

  where: str
  query: str
  target: str
  negatives: tuple[str, ...] = ()
  source: str = ''
  group: str = ''
  language: str = ''


def number(name: str) -> int:
  """A name as a number in [1, 2**31), 0 for ''."""
  if not name:
    return 0
  digest = hashlib.sha256(name.encode()).digest()
  return int.from_bytes(digest[:4], 'big') % (2**31 - 1) + 1


_HALF = re.compile('[\ud800-\udfff]')


def checked(pairs: Iterable[TextPair]) -> Iterator[TextPair]:
  """Pairs, each with two texts; blank negatives and those that are the answer are left out.

  Raises:
    PairError: a blank query or target, or a text with half of a surrogate pair, with its place.
  """
  for pair in pairs:
    for side, text in (('query', pair.query), ('positive', pair.target)):
      if text_files.is_blank(text):
        raise PairError(f'{pair.where}: the {side} is empty; expected a text')
    if any(_HALF.search(text) for text in (pair.query, pair.target, *pair.negatives)):
      raise PairError(f'{pair.where}: half of a surrogate pair; expected Unicode texts')
    wrong = pair.target.strip()
    kept = (x for x in pair.negatives if not text_files.is_blank(x) and x.strip() != wrong)
    negatives = dict.fromkeys(kept)
    yield pair._replace(negatives=tuple(negatives)[:MAX_NEGATIVES])

"""Names of the same thing in two languages, from the CLDR tables: pairs for sentence encoders.

Task `cldr.pairs`; nothing is built, since the tables come with Babel. Territories, languages,
months and weekdays, split by entity as the instruction set is: what a validation or test pair
names, no training pair of any language names. Each name stands with its English one, and with that
of another language, drawn for each entity.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from aya_train.tasks.cldr import cldr_facts, cldr_rows
from aya_train.tasks.retrieval import pair_tasks
from aya_train.tasks.retrieval.text_pairs import TextPair

CATEGORIES = ('territory', 'language', 'month', 'weekday')
TASK = 'cldr.pairs'

Names = dict[tuple[str, str], dict[str, str]]


def names(split: str) -> Names:
  """(category, English name) -> ISO 639-3 code -> name, of the entities of a split."""
  english = cldr_facts.english_names()
  found: Names = {}
  for category in CATEGORIES:
    for language in cldr_facts.COVERED:
      for key, name in cldr_facts.names(language)[category].items():
        entity = (english[category].get(key) or key).casefold()
        if cldr_rows.split_of(entity) == split:
          found.setdefault((category, entity), {}).setdefault(language.code, name)
  return {entity: of for entity, of in sorted(found.items()) if len(of) > 1}


def read(split: str) -> Iterator[TextPair]:
  """Pairs of a split, in an order that is the same on every machine."""
  pairs = []
  for (category, entity), of in names(split).items():
    order = sorted(of, key=lambda code: _digest(category, entity, code))
    for i, code in enumerate(order):
      for other in {order[(i + 1) % len(order)], 'eng' if 'eng' in of else order[0]} - {code}:
        where = f'CLDR {category} {entity!r}, {code} and {other}'
        pairs.append(
          TextPair(where, of[code], of[other], (), category, f'cldr {category} {entity}', code)
        )
  return iter(sorted(pairs, key=lambda pair: _digest(pair.where)))


def _digest(*parts: str) -> bytes:
  return hashlib.sha256('\x1f'.join(parts).encode()).digest()


pair_tasks.add(TASK, pair_tasks.PairSource(TASK, read, cldr_rows.SPLITS))

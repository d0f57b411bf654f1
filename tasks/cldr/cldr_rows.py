"""Instructions and answers made of the facts in tasks.cldr_facts, split by entity.

Every choice (template, entities under the cap, split) is a SHA-256 of stable names, so that the
rows are the same on every machine and do not depend on which languages are asked for.
"""

import collections
import dataclasses
import datetime
import decimal
import functools
import hashlib
import json
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import babel

from aya_train.tasks.cldr import cldr_facts, cldr_templates
from aya_train.tasks.languages import aya101
from aya_train.tasks.languages.aya101 import Language

SPLITS = ('train', 'validation', 'test')
COLUMNS = (
  'inputs',
  'targets',
  'language',
  'language_code',
  'annotation_type',
  'user_id',
  'kind',
)

# Most rows of one language and kind that are shared out over the splits (8 : 1 : 1).
CAPS = {
  'city_name': 20,
  'currency_name': 20,
  'date_format': 40,
  'identify_category': 20,
  'identify_language': 20,
  'identify_script': 10,
  'language_name': 20,
  'legal_tender': 10,
  'list_format': 20,
  'month_name': 12,
  'month_neighbour': 20,
  'number_format': 30,
  'official_language': 10,
  'percent_format': 10,
  'territory_name': 40,
  'unit_format': 20,
  'weekday_name': 7,
  'weekday_neighbour': 14,
}
KINDS = tuple(CAPS)

# Most further rows of one language, for training alone: of the kinds that follow rules, which hold
# for dates, numbers and names that were never seen. The more of them, the less can be learnt by
# heart. The other kinds ask for a name.
FURTHER = {
  'date_format': 96,
  'identify_category': 16,
  'identify_language': 96,
  'identify_script': 8,
  'list_format': 32,
  'number_format': 64,
  'percent_format': 32,
  'unit_format': 96,
}
RULED = tuple(FURTHER)

_UNITS = (
  'area-hectare',
  'digital-megabyte',
  'duration-day',
  'duration-hour',
  'duration-minute',
  'duration-month',
  'duration-week',
  'duration-year',
  'length-kilometer',
  'length-meter',
  'mass-gram',
  'mass-kilogram',
  'volume-liter',
)


@dataclasses.dataclass(frozen=True)
class Fact:
  """One true statement before it has an instruction.

  Attributes:
    entities: what the fact is about (named things by their English name, dates, numbers ...); all
      of them must be in the same split, else the fact is not used.
    slots: what the templates may say; a template that needs a missing one is not chosen.
    answer: the text to produce.
  """

  entities: tuple[str, ...]
  slots: dict[str, str]
  answer: str
  template: str = ''


def _digest(*names: Any) -> int:
  text = '\x1f'.join(map(str, names))
  return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], 'big')


def _pick(options: Sequence[Any], *names: Any) -> Any:
  return options[_digest('pick', *names) % len(options)]


@functools.cache
def _closed_entities() -> dict[str, str]:
  """Months and weekdays are too few for a hash to share out: one each for validation and test."""
  found = {}
  for category in ('month', 'weekday'):
    names = cldr_facts.english_names()[category].values()
    ranked = sorted((name.casefold() for name in names), key=lambda name: _digest('split', name))
    found.update(dict.fromkeys(ranked, 'train') | {ranked[0]: 'test', ranked[1]: 'validation'})
  return found


@functools.cache
def split_of(entity: str) -> str:
  """The split of an entity, in every language and kind: 80 : 10 : 10 by SHA-256."""
  if entity in _closed_entities():
    return _closed_entities()[entity]
  share = _digest('split', entity) % 100
  return 'train' if share < 80 else 'validation' if share < 90 else 'test'


def shuffled(items: Iterable[Any], *names: Any) -> list[Any]:
  return sorted(items, key=lambda item: _digest('order', *names, item))


def _english(category: str, key: str) -> str | None:
  return cldr_facts.english_names()[category].get(key)


def _entity(category: str, key: str) -> str:
  """A named thing's identity is its English name: Singapore the city and the state are one."""
  return (_english(category, key) or key).casefold()


@functools.cache
def _named_elsewhere() -> dict[str, list[tuple[Language, str]]]:
  """Territory -> its unambiguous names in languages other than English."""
  found = collections.defaultdict(list)
  for language in cldr_facts.COVERED:
    table = cldr_facts.names(language)['territory']
    count = collections.Counter(table.values())
    if language.code != 'eng':
      for key, name in table.items():
        if count[name] == 1:
          found[key].append((language, name))
  return found


@functools.cache
def _languages_of_text() -> dict[str, set[str]]:
  """Text -> codes of the covered languages whose own tables hold it, case ignored."""
  found = collections.defaultdict(set)
  for language in cldr_facts.COVERED:
    for table in cldr_facts.own_names(str(language.cldr)).values():
      for name in table.values():
        found[name.casefold()].add(language.code)
  return found


def _names(category: str) -> Callable[[Language], Iterator[Fact]]:
  def facts(language: Language) -> Iterator[Fact]:
    table = cldr_facts.names(language)[category]
    for key, name in shuffled(table.items(), language.code, category):
      english = _english(category, key)
      if english is None:
        continue
      slots = {'code': key}
      if category in ('month', 'weekday'):
        slots = {'number': str(int(key) + (category == 'weekday'))}
      if language.code != 'eng':
        slots['english'] = english
      if category == 'territory':
        others = [o for o in _named_elsewhere().get(key, ()) if o[0] != language]
        if others:
          other, other_name = _pick(others, 'other', language.code, key)
          slots |= {'other_language': other.name, 'other': other_name}
      yield Fact((_entity(category, key),), slots, name)

  return facts


def _neighbours(category: str) -> Callable[[Language], Iterator[Fact]]:
  def facts(language: Language) -> Iterator[Fact]:
    table = cldr_facts.names(language)[category]
    keys = sorted(table, key=int)
    steps = [(i, step) for i in range(len(keys)) for step in (-1, 1)]
    for i, step in shuffled(steps, language.code, category):
      other = keys[(i + step) % len(keys)]
      slots = {'direction': 'before' if step < 0 else 'after', 'known': table[keys[i]]}
      # The month asked for is the entity; naming its neighbour in the prompt gives nothing away.
      yield Fact((_entity(category, other),), slots, table[other])

  return facts


def _territory_has(
  category: str, relation: Callable[[], dict[str, str]]
) -> Callable[[Language], Iterator[Fact]]:
  def facts(language: Language) -> Iterator[Fact]:
    names = cldr_facts.names(language)[category]
    for territory, key in shuffled(relation().items(), language.code, category):
      english = _english('territory', territory)
      if english is not None and key in names:
        entities = (_entity('territory', territory), _entity(category, key))
        yield Fact(entities, {'english': english}, names[key])

  return facts


def _date(i: Any) -> datetime.date:
  return datetime.date(1950, 1, 1) + datetime.timedelta(_digest('date', i) % 36525)


def _list(i: Any) -> tuple[str, ...]:
  return tuple(str(1 + _digest(i, j) % 99) for j in range(2 + _digest('length', i) % 3))


@functools.cache
def _pool(kind: str) -> tuple[Any, ...]:
  """The dates, numbers, percentages, lists and measures that all languages draw from."""
  if kind == 'date':
    return tuple(sorted({_date(i) for i in range(400)}))
  if kind == 'number':
    return tuple(sorted({_number(i) for i in range(400)}))
  if kind == 'percent':
    return tuple(range(1, 300))
  if kind == 'list':
    return tuple(sorted({_list(i) for i in range(400)}))
  return tuple((unit, n) for unit in _UNITS for n in (*range(1, 31), *range(35, 100, 5)))


def _number(i: Any) -> decimal.Decimal:
  digits = 5 + _digest('digits', i) % 5
  whole = 10 ** (digits - 1) + _digest('whole', i) % (9 * 10 ** (digits - 1))
  cents = _digest('cents', i) % 100
  # Odd cents only, so that no decimal ends in zero; the others are whole numbers.
  return decimal.Decimal(whole) + (decimal.Decimal(cents) / 100 if cents % 2 else 0)


def _things(kind: str, language: Language, own: bool) -> list[Any]:
  """What the language draws from the pool of all, or from numbers, dates and lists of its own."""
  if not own:
    return shuffled(_pool(kind), language.code)
  draw: Callable[[Any], Any] = {'date': _date, 'number': _number, 'list': _list}[kind]
  return list(dict.fromkeys(draw(f'{language.code} {i}') for i in range(400)))


def _dates(language: Language, own: bool = False) -> Iterator[Fact]:
  english_months = cldr_facts.english_names()['month']
  english_days = cldr_facts.english_names()['weekday']
  styles = cldr_facts.date_styles(language)
  for date in _things('date', language, own) if styles else ():
    style = _pick(styles, 'style', language.code, date)
    slots = {
      'iso': date.isoformat(),
      'english': f'{date.day} {english_months[str(date.month)]} {date.year}',
      'weekday': english_days[str(date.weekday())],
    }
    answer = cldr_facts.format_date(language, date, style)
    yield Fact((date.isoformat(),), slots, answer, f'date_format_{style}')


def _numbers(language: Language, own: bool = False) -> Iterator[Fact]:
  for number in _things('number', language, own):
    if not cldr_facts.has_number_format(language):
      return
    answer = cldr_facts.format_number(language, number)
    yield Fact((f'number {number}',), {'number': str(number)}, answer)


def _percents(language: Language) -> Iterator[Fact]:
  for percent in shuffled(_pool('percent'), language.code):
    if not cldr_facts.has_percent_format(language):
      return
    answer = cldr_facts.format_percent(language, percent)
    yield Fact((f'{percent} percent',), {'number': str(percent)}, answer)


def _lists(language: Language, own: bool = False) -> Iterator[Fact]:
  for items in _things('list', language, own):
    if len(items) <= cldr_facts.longest_list(language):
      shown = ' | '.join(items)
      yield Fact((f'list {shown}',), {'items': shown}, cldr_facts.format_list(language, items))


def _measures(language: Language) -> Iterator[Fact]:
  english = aya101.by_code('eng')
  for unit, number in shuffled(_pool('measure'), language.code):
    said = str(cldr_facts.format_unit(english, unit, number))
    answer = cldr_facts.format_unit(language, unit, number)
    if answer is not None and (answer != said or language == english):
      yield Fact((said,), {'english': said}, answer)


@functools.lru_cache(1)  # three kinds of one language ask for them, twice each
def _texts(language: Language) -> list[tuple[str, str, str]]:
  """(category, key, name) with the categories taking turns, each in hash order."""
  tables = {
    category: shuffled(table.items(), language.code, category)
    for category, table in cldr_facts.names(language).items()
  }
  return [
    (category, *table[rank])
    for rank in range(max(map(len, tables.values())))
    for category, table in tables.items()
    if rank < len(table)
  ]


def _is_of_one_language(language: Language, text: str) -> bool:
  return _languages_of_text()[text.casefold()] == {language.code}


def _which_language(language: Language) -> Iterator[Fact]:
  for category, key, name in _texts(language):
    if _is_of_one_language(language, name):
      yield Fact((_entity(category, key),), {'text': name}, language.name)


def _which_category(language: Language) -> Iterator[Fact]:
  own = cldr_facts.own_names(str(language.cldr))
  folded = {c: {name.casefold() for name in table.values()} for c, table in own.items()}
  for category, key, name in _texts(language):
    if not any(name.casefold() in table for c, table in folded.items() if c != category):
      yield Fact((_entity(category, key),), {'text': name}, category)


def _which_script(language: Language) -> Iterator[Fact]:
  script, _ = cldr_facts.SCRIPTS[language.script_code]
  for category, key, name in _texts(language):
    inside, letters = cldr_facts.letters_in(name, language.script_code)
    certain = inside == letters and (script != 'Japanese' or cldr_facts.has_kana(name))
    if certain and _is_of_one_language(language, name):  # else two rows would be the same
      yield Fact((_entity(category, key),), {'text': name}, script)


# Each yields its facts in hash order; the cap takes the first ones.
FACTS: dict[str, Callable[[Language], Iterable[Fact]]] = {
  'city_name': _names('city'),
  'currency_name': _names('currency'),
  'date_format': _dates,
  'identify_category': _which_category,
  'identify_language': _which_language,
  'identify_script': _which_script,
  'language_name': _names('language'),
  'legal_tender': _territory_has('currency', cldr_facts.legal_tender),
  'list_format': _lists,
  'month_name': _names('month'),
  'month_neighbour': _neighbours('month'),
  'number_format': _numbers,
  'official_language': _territory_has('language', cldr_facts.official_language),
  'percent_format': _percents,
  'territory_name': _names('territory'),
  'unit_format': _measures,
  'weekday_name': _names('weekday'),
  'weekday_neighbour': _neighbours('weekday'),
}

# The same for `FURTHER`: where things can be drawn without end, each language has its own.
_FURTHER_FACTS = {kind: FACTS[kind] for kind in FURTHER} | {
  'date_format': functools.partial(_dates, own=True),
  'list_format': functools.partial(_lists, own=True),
  'number_format': functools.partial(_numbers, own=True),
}


@functools.cache
def _slots_of(template: str) -> frozenset[str]:
  return frozenset(name for _, name, _, _ in string.Formatter().parse(template) if name)


def _instruction(language: Language, kind: str, fact: Fact) -> str:
  slots = fact.slots | {'language': language.name}
  usable = [
    template
    for template in cldr_templates.TEMPLATES[fact.template or kind]
    if _slots_of(template) <= slots.keys()
  ]
  return _pick(usable, 'template', language.code, kind, *fact.slots.values()).format(**slots)


def _selected(language: Language, kind: str) -> Iterator[tuple[str, Fact]]:
  """(split, fact) up to the cap, shared out 8 : 1 : 1."""
  room = dict.fromkeys(SPLITS, max(1, CAPS[kind] // 10))
  room['train'] = CAPS[kind] - room['validation'] - room['test']
  for fact in FACTS[kind](language):
    if not any(room.values()):
      return
    splits = {split_of(entity) for entity in fact.entities}
    if len(splits) == 1 and room[split := splits.pop()]:
      room[split] -= 1
      yield split, fact


def _for_training(language: Language, kind: str) -> Iterator[Fact]:
  """Facts whose entities are all of the training split, in hash order."""
  for fact in _FURTHER_FACTS[kind](language):
    if {split_of(entity) for entity in fact.entities} == {'train'}:
      yield fact


@dataclasses.dataclass(frozen=True)
class CldrRow:
  """One example of the data set, its split and the entities that put it there.

  `further`: it is one of those for training alone, not one of what is shared out.
  """

  split: str
  entities: tuple[str, ...]
  inputs: str
  targets: str
  language: str
  language_code: str
  annotation_type: str
  user_id: str
  kind: str
  further: bool = False

  def columns(self) -> dict[str, str]:
    """The COLUMNS of the data set."""
    return {name: getattr(self, name) for name in COLUMNS}


@functools.cache
def language_rows(language: Language) -> tuple[CldrRow, ...]:
  """All rows of one language, in a fixed order; no instruction occurs twice."""
  found: dict[str, CldrRow] = {}
  for kind in KINDS:
    for split, fact in _selected(language, kind):
      row = _row(language, kind, split, fact)
      found.setdefault(row.inputs, row)
  for kind, most in FURTHER.items():
    full = len(found) + most
    for fact in _for_training(language, kind):
      if len(found) == full:
        break
      row = dataclasses.replace(_row(language, kind, 'train', fact), further=True)
      found.setdefault(row.inputs, row)
  return tuple(found.values())


def _row(language: Language, kind: str, split: str, fact: Fact) -> CldrRow:
  return CldrRow(
    split=split,
    entities=fact.entities,
    inputs=_instruction(language, kind, fact),
    targets=fact.answer,
    language=language.name,
    language_code=language.code,
    annotation_type='templated',
    user_id=f'babel-{babel.__version__}',
    kind=kind,
  )


def rows(codes: Sequence[str] | None = None) -> list[CldrRow]:
  """Rows of the given languages (ISO 639-3; default: all that CLDR covers), sorted by code.

  Raises:
    ValueError: for a code that is not one of Aya's, or that CLDR does not cover.
  """
  chosen = cldr_facts.COVERED if codes is None else [aya101.by_code(c) for c in sorted(codes)]
  return [row for language in chosen for row in language_rows(language)]


def manifest(all_rows: Sequence[CldrRow]) -> dict[str, Any]:
  """Versions, counts and the SHA-256 of the rows as sorted JSON lines."""
  counts: dict[str, dict[str, dict[str, int]]] = {}
  for row in all_rows:
    kind = counts.setdefault(row.language_code, {}).setdefault(row.kind, dict.fromkeys(SPLITS, 0))
    kind[row.split] += 1
  lines = sorted(
    json.dumps({'split': row.split} | row.columns(), ensure_ascii=False, sort_keys=True)
    for row in all_rows
  )
  return {
    'babel': babel.__version__,
    'cldr': babel.core.get_cldr_version(),
    'languages': sorted(counts),
    'not_in_cldr': cldr_facts.NOT_IN_CLDR,
    'splits': {split: sum(row.split == split for row in all_rows) for split in SPLITS},
    'counts': counts,
    'sha256': hashlib.sha256('\n'.join(lines).encode()).hexdigest(),
  }

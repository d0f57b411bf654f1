"""What CLDR says in a language's own words: the pure half of the CLDR instruction set.

Names and formats come from the tables of Babel, read one locale at a time and without
inheritance: what a locale inherits is English or root text, not the language. Babel's own
`localedata.load(merge_inherited=False)` shares one cache with the merged tables, so the pickles
are read here directly.
"""

import datetime
import decimal
import functools
import pickle
import re
import unicodedata
from typing import Any

from babel import core, dates, lists, localedata, numbers

from aya_train.tasks.languages import aya101
from aya_train.tasks.languages.aya101 import Language

# The only place that lists what CLDR lacks of Aya's 101 languages.
NOT_IN_CLDR = {
  'hat': "the locale ht holds the language's own name and a grouping sign, no other words",
  'smo': 'no locale sm',
}

COVERED: tuple[Language, ...] = tuple(
  language for language in aya101.LANGUAGES if language.cldr is not None
)

_NOT_COUNTRIES = {'EU', 'EZ', 'QO', 'UN', 'XA', 'XB', 'ZZ'}
_NOT_LANGUAGES = {'mis', 'mul', 'root', 'und', 'zxx'}
_CLOSED_TABLES = ('month', 'weekday')

# ISO 15924 -> (name in prompts, words that begin the Unicode names of its letters).
SCRIPTS: dict[str, tuple[str, tuple[str, ...]]] = {
  'Arab': ('Arabic', ('ARABIC',)),
  'Armn': ('Armenian', ('ARMENIAN',)),
  'Beng': ('Bengali', ('BENGALI',)),
  'Cyrl': ('Cyrillic', ('CYRILLIC',)),
  'Deva': ('Devanagari', ('DEVANAGARI',)),
  'Ethi': ("Ge'ez", ('ETHIOPIC',)),
  'Geor': ('Georgian', ('GEORGIAN',)),
  'Grek': ('Greek', ('GREEK',)),
  'Gujr': ('Gujarati', ('GUJARATI',)),
  'Guru': ('Gurmukhi', ('GURMUKHI',)),
  'Hani': ('Han', ('CJK',)),
  'Hebr': ('Hebrew', ('HEBREW',)),
  'Jpan': ('Japanese', ('CJK', 'HIRAGANA', 'KATAKANA', 'KATAKANA-HIRAGANA')),
  'Khmr': ('Khmer', ('KHMER',)),
  'Knda': ('Kannada', ('KANNADA',)),
  'Kore': ('Hangul', ('HANGUL',)),
  'Laoo': ('Lao', ('LAO',)),
  'Latn': ('Latin', ('LATIN', 'MODIFIER')),
  'Mlym': ('Malayalam', ('MALAYALAM',)),
  'Mymr': ('Myanmar', ('MYANMAR',)),
  'Orya': ('Oriya', ('ORIYA',)),
  'Sinh': ('Sinhala', ('SINHALA',)),
  'Taml': ('Tamil', ('TAMIL',)),
  'Telu': ('Telugu', ('TELUGU',)),
  'Thai': ('Thai', ('THAI',)),
}

# Zero of the numbering systems that a covered locale declares as its own default; Babel formats
# with Latin digits and leaves the exchange to its caller.
_ZEROS = {'arab': '٠', 'arabext': '۰', 'beng': '০', 'deva': '०', 'mymr': '၀'}


@functools.cache
def own_tables(locale: str) -> dict[str, Any]:
  """The locale's own CLDR tables as Babel pickles them, nothing merged in."""
  with open(localedata.resolve_locale_filename(locale), 'rb') as file:
    return pickle.load(file)


def _table(locale: str, *path: str) -> dict[Any, Any]:
  value: Any = own_tables(locale)
  for key in path:
    value = value.get(key) if isinstance(value, dict) else None
  return value if isinstance(value, dict) else {}


def letters_in(text: str, script_code: str) -> tuple[int, int]:
  """Letters of `text` that belong to the script, and all its letters."""
  prefixes = SCRIPTS[script_code][1]
  letters = [unicodedata.name(c, '?').split()[0] for c in text if unicodedata.category(c)[0] == 'L']
  return sum(name in prefixes for name in letters), len(letters)


def has_kana(text: str) -> bool:
  """Whether the text has a Hiragana or Katakana letter (Han alone may be Chinese)."""
  return any('KANA' in unicodedata.name(c, '').split(' ')[0] for c in text)


def _stand_alone_or_format(locale: str, field: str) -> dict[str, str]:
  alone, running = (_table(locale, field, form, 'wide') for form in ('stand-alone', 'format'))
  table = alone if len(alone) >= len(running) else running  # Latin has two weekdays stand-alone
  return {str(key): value for key, value in table.items()}


@functools.cache
def own_names(locale: str) -> dict[str, dict[str, str]]:
  """category -> {key: name} in the locale's own words.

  Keys are ISO 3166 codes, CLDR language codes, '1'..'12' for months, '0'..'6' for weekdays from
  Monday, ISO 4217 codes of today's tender, and time zones. A name that is only its code is left
  out.
  """
  found = {
    'territory': {
      k: v
      for k, v in _table(locale, 'territories').items()
      if re.fullmatch('[A-Z]{2}', k) and k not in _NOT_COUNTRIES
    },
    'language': {
      k: v
      for k, v in _table(locale, 'languages').items()
      if re.fullmatch('[a-z]{2,3}', k) and k not in _NOT_LANGUAGES
    },
    'month': _stand_alone_or_format(locale, 'months'),
    'weekday': _stand_alone_or_format(locale, 'days'),
    'currency': {
      k: v for k, v in _table(locale, 'currency_names').items() if k in tender_currencies()
    },
    'city': {
      zone: v['city']
      for zone, v in _table(locale, 'time_zones').items()
      if 'city' in v and not zone.startswith('Etc/')
    },
  }
  return {
    category: {
      key: value.strip()
      for key, value in sorted(table.items())
      if isinstance(value, str) and value.strip() and value.strip() != key
    }
    for category, table in found.items()
  }


@functools.cache
def english_names() -> dict[str, dict[str, str]]:
  """The English names that prompts use; cities also from the root table and the zone's name."""
  names = {category: dict(table) for category, table in own_names('en').items()}
  zones = {zone for language in COVERED for zone in own_names(str(language.cldr))['city']}
  plain = {zone: zone.split('/')[-1].replace('_', ' ') for zone in sorted(zones)}
  names['city'] = plain | own_names('root')['city'] | names['city']
  return names


@functools.cache
def names(language: Language) -> dict[str, dict[str, str]]:
  """`own_names` of a language less those that may be English, or another script, passed off.

  Dropped: a name without a letter of the language's script, and one equal to the English name.
  The closed tables of months and weekdays stay whole (German writes April), unless half of the
  table is English.
  """
  if language.cldr is None:
    raise ValueError(f'{language.code} ({language.name}): {NOT_IN_CLDR[language.code]}')
  english = english_names()
  if language.code == 'eng':
    return english
  kept = {}
  for category, table in own_names(language.cldr).items():
    table = {k: v for k, v in table.items() if letters_in(v, language.script_code)[0]}
    other = {
      k: v for k, v in table.items() if v.casefold() != english[category].get(k, '').casefold()
    }
    whole = category in _CLOSED_TABLES and 2 * len(other) > len(table)
    kept[category] = table if whole else other
  return kept


@functools.cache
def legal_tender() -> dict[str, str]:
  """Territory -> its one currency that is legal tender today; territories with several left out."""
  found = {}
  for territory, history in core.get_global('territory_currencies').items():
    current = sorted({code for code, _, end, tender in history if tender and end is None})
    if len(current) == 1:
      found[territory] = current[0]
  return found


@functools.cache
def tender_currencies() -> frozenset[str]:
  """Currencies that are legal tender somewhere today."""
  return frozenset(
    code
    for history in core.get_global('territory_currencies').values()
    for code, _, end, tender in history
    if tender and end is None
  )


@functools.cache
def official_language() -> dict[str, str]:
  """Territory -> its one official language (by law or in fact, of the whole territory)."""
  found = {}
  for territory, spoken in core.get_global('territory_languages').items():
    official = [
      code
      for code, facts in sorted(spoken.items())
      if facts['official_status'] in ('official', 'de_facto_official')
    ]
    if len(official) == 1:
      found[territory] = official[0]
  return found


@functools.cache
def _locale(language: Language) -> core.Locale:
  return core.Locale.parse(str(language.cldr))


def _numbering_system(language: Language) -> str:
  own = own_tables(str(language.cldr)).get('default_numbering_system')
  return own if own in _ZEROS else 'latn'


def _own_digits(language: Language, text: str) -> str:
  zero = _ZEROS.get(_numbering_system(language))
  if zero is None:
    return text
  return text.translate({ord('0') + i: chr(ord(zero) + i) for i in range(10)})


def _texts(tree: Any) -> set[str]:
  if isinstance(tree, dict):
    return set().union(*map(_texts, tree.values()))
  return {tree} if isinstance(tree, str) else set()


def _fields_are_own(language: Language, pattern: str) -> bool:
  """Whether every word that Babel would put into the pattern is the locale's own."""
  locale, own = _locale(language), own_tables(str(language.cldr))
  for field in re.findall(r'([A-Za-z])(\1*)', re.sub(r"'[^']*'", '', pattern)):
    letter, width = field[0], len(field[0] + field[1])
    if letter in 'yd' or (letter in 'ML' and width <= 2):
      continue
    name = 'wide' if width == 4 else 'abbreviated'
    if letter in 'ML' and width in (3, 4):
      used = locale.months['format' if letter == 'M' else 'stand-alone'][name]
      table = own.get('months')
    elif letter in 'Ec' and width <= 4:
      used = locale.days['format' if letter == 'E' else 'stand-alone'][name]
      table = own.get('days')
    elif letter == 'G' and width <= 4:
      used, table = {1: locale.eras[name][1]}, own.get('eras')
    else:
      return False
    if not set(used.values()) <= _texts(table):
      return False
  return True


@functools.cache
def date_styles(language: Language) -> tuple[str, ...]:
  """Those of 'long' and 'full' whose pattern and words are the locale's own."""
  patterns = _table(str(language.cldr), 'date_formats')
  return tuple(
    style
    for style in ('long', 'full')
    if style in patterns and _fields_are_own(language, patterns[style].pattern)
  )


def format_date(language: Language, date: datetime.date, style: str) -> str:
  """The Gregorian date as the language writes it; `style` is one of `date_styles`."""
  return _own_digits(language, dates.format_date(date, style, locale=_locale(language)))


@functools.cache
def has_number_format(language: Language) -> bool:
  """Whether grouping, decimal sign or digits are set by the locale itself."""
  locale, system = str(language.cldr), _numbering_system(language)
  signs = _table(locale, 'number_symbols', system).keys() & {'decimal', 'group'}
  return bool(signs or system != 'latn' or _table(locale, 'decimal_formats'))


def format_number(language: Language, number: decimal.Decimal) -> str:
  """The number with the language's grouping, decimal sign and digits.

  Babel does not know minimumGroupingDigits (es 1234), so give it no integer of four digits.
  """
  text = numbers.format_decimal(
    number,
    locale=_locale(language),
    decimal_quantization=False,
    numbering_system=_numbering_system(language),
  )
  return _own_digits(language, text)


@functools.cache
def has_percent_format(language: Language) -> bool:
  """Whether the percent pattern, sign or digits are set by the locale itself."""
  locale, system = str(language.cldr), _numbering_system(language)
  sign = 'percentSign' in _table(locale, 'number_symbols', system)
  return bool(sign or system != 'latn' or _table(locale, 'percent_formats'))


def format_percent(language: Language, percent: int) -> str:
  """`percent` per hundred as the language writes it."""
  text = numbers.format_percent(
    decimal.Decimal(percent) / 100,
    locale=_locale(language),
    numbering_system=_numbering_system(language),
  )
  return _own_digits(language, text)


@functools.cache
def longest_list(language: Language) -> int:
  """Items up to which the words of a list are the locale's own: 0, 2 or 4."""
  standard = _table(str(language.cldr), 'list_patterns', 'standard')
  return 0 if '2' not in standard else 4 if 'end' in standard else 2


def format_list(language: Language, items: tuple[str, ...]) -> str:
  """The items joined with 'and' as the language joins them."""
  return lists.format_list(items, style='standard', locale=_locale(language))


def format_unit(language: Language, unit: str, number: int) -> str | None:
  """'7 kilometers' in the language; None where its own table lacks the unit or plural form."""
  forms = _table(str(language.cldr), 'unit_patterns', unit, 'long')
  pattern = forms.get(_locale(language).plural_form(number))
  if not isinstance(pattern, str):
    return None
  return pattern.replace('{0}', _own_digits(language, str(number)))

"""Direction and language of texts, for pages that show many scripts side by side."""

import dataclasses
import functools
import re
import unicodedata
from typing import Literal

from babel import core

from aya_train.tasks.languages import aya101, language_codes

Direction = Literal['ltr', 'rtl', 'auto']
"""Value of HTML's attribute `dir`; 'auto' leaves it to the browser."""

RIGHT_TO_LEFT = frozenset(
  ['Adlm', 'Arab', 'Aran', 'Hebr', 'Mand', 'Mend', 'Nkoo', 'Rohg', 'Samr', 'Syrc', 'Thaa', 'Yezi']
)
"""Scripts (ISO 15924) that living languages write from the right."""

_ENGLISH = 'en'
# Addresses, tags, code and formulas: Latin letters in a text of any language.
_FOR_MACHINES = re.compile(
  r'```.*?(?:```|$)|`[^`\n]*`|</?[a-zA-Z][^<>]*>|(?:(?:https?|ftp|file)://|www\.)\S+'
  r'|(?<![\w.+-])[\w.+-]+@[\w-]+\.[\w.-]+|\$[^$\n]+\$|\\[a-zA-Z]+',
  re.DOTALL | re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Line:
  """One line of a text: its direction, and a BCP 47 tag, '' where its language is not known."""

  text: str
  direction: Direction
  language: str


def of_language(code: str, script: str = '') -> Direction:
  """Direction of a language; 'auto' for a code that no table has.

  Args:
    code: in any system of `language_codes`.
    script: ISO 15924 code of the script it is in, '' for its usual one.
  """
  variety = _variety(code, script)
  if variety is None:
    return 'auto'
  return 'rtl' if variety.script in RIGHT_TO_LEFT else 'ltr'


def of_text(text: str, code: str, script: str = '') -> Direction:
  """Direction of a text that should be in a language.

  The language decides, not the first letter, while at least a third of the letters have its
  direction: Arabic with a Latin name still runs from the right. Else most letters decide. Those of
  addresses, tags, code and formulas count where there are no others. A text without letters has the
  direction of the language, and so its numbers and full stops.
  """
  way = of_language(code, script)
  sides = [unicodedata.bidirectional(c) for c in _for_people(text)]
  right, left = sides.count('R') + sides.count('AL'), sides.count('L')
  own, other = (right, left) if way == 'rtl' else (left, right)
  if way != 'auto' and 2 * own >= other:
    return way
  return 'rtl' if right > left else 'ltr' if left > right else 'auto'


def _for_people(text: str) -> str:
  """Without what machines read, unless it is all that there is."""
  left = _FOR_MACHINES.sub(' ', text)
  return left if any(map(str.isalpha, left)) else text


def lines(text: str, code: str, script: str = '') -> list[Line]:
  """Lines of a text of some language, which may be English in part, as that of a template.

  Args:
    text: of any number of lines.
    code: of what it should be in, '' if unknown.
    script: ISO 15924 code of its script, '' for the usual one.
  """
  tag = html_language(code, script)
  variety = _variety(code, script)
  has_others = variety is not None and variety.script != 'Latn'
  found = []
  for line in text.split('\n'):
    letters = [c for c in _for_people(line) if c.isalpha()]
    latin = sum(c.isascii() for c in letters)
    other = len(letters) - latin
    # ASCII letters alone are not Arabic; of Latin languages they may be anything.
    language = _ENGLISH if has_others and latin > other else tag
    found.append(Line(line, of_text(line, code, script), language))
  return found


@functools.lru_cache(maxsize=1024)
def html_language(code: str, script: str = '') -> str:
  """Value of the attribute `lang` (BCP 47): 'ar' for 'arb'; '' for a code that no table has."""
  variety = _variety(code, script)
  if variety is None:
    return ''
  language = aya101.BY_CODE.get(variety.code)
  tag = core.get_global('language_aliases').get(variety.code, variety.code)
  usual = variety.script if language is None else language.script_code
  return tag if variety.script == usual else f'{tag}-{variety.script}'


@functools.lru_cache(maxsize=1024)
def _variety(code: str, script: str) -> language_codes.Variety | None:
  if not code or code == language_codes.NO_LANGUAGE:
    return None
  try:
    return language_codes.resolve(code, script or None)
  except language_codes.UnknownLanguageError:
    return None

"""Which way texts run, and how HTML is told their language."""

import functools
import unicodedata

from babel import core

from aya_train.tasks.languages import aya101, language_codes

RIGHT_TO_LEFT = frozenset(
  ('Adlm', 'Arab', 'Hebr', 'Mand', 'Mend', 'Nkoo', 'Rohg', 'Samr', 'Syrc', 'Thaa', 'Yezi')
)
"""Scripts (ISO 15924) that living languages write from the right."""


def of_language(code: str) -> str:
  """'rtl' or 'ltr'; 'auto' for a code that no table has.

  Args:
    code: in any system of `language_codes`.
  """
  try:
    script = language_codes.resolve(code).script
  except language_codes.UnknownLanguageError:
    return 'auto'
  return 'rtl' if script in RIGHT_TO_LEFT else 'ltr'


def of_text(text: str, code: str) -> str:
  """Value of the attribute `dir` for a text that should be in a language.

  The language decides, not the first letter: Arabic that begins with a Latin name still runs from
  the right. A text without any letter of the language's direction is left to the browser: 'auto'.
  """
  way = of_language(code)
  if way == 'auto':
    return way
  letters = {unicodedata.bidirectional(c) for c in text}
  wanted = {'R', 'AL'} if way == 'rtl' else {'L'}
  return way if letters & wanted or not letters & {'L', 'R', 'AL'} else 'auto'


def lines(text: str, code: str) -> list[tuple[str, str]]:
  """Lines of a text, each with its line end and its `of_text`: a template may mix languages."""
  found = [f'{line}\n' for line in text.split('\n')]
  found[-1] = found[-1][:-1]
  return [(line, of_text(line, code)) for line in found]


@functools.lru_cache(maxsize=1024)
def html_language(code: str) -> str:
  """Value of the attribute `lang` (BCP 47): 'ar' for 'arb'; '' for a code that no table has."""
  try:
    variety = language_codes.resolve(code)
  except language_codes.UnknownLanguageError:
    return ''
  language = aya101.BY_CODE.get(variety.code)
  tag = core.get_global('language_aliases').get(variety.code, variety.code)
  usual = variety.script if language is None else language.script_code
  return tag if variety.script == usual else f'{tag}-{variety.script}'

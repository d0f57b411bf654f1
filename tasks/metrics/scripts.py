"""Script of a character and of a text, by the names that Unicode gives to characters."""

import functools
import unicodedata
from collections import Counter

# First word of a letter's name -> ISO 15924.
_BY_NAME = {
  'ARABIC': 'Arab',
  'ARMENIAN': 'Armn',
  'BENGALI': 'Beng',
  'BOPOMOFO': 'Bopo',
  'CANADIAN': 'Cans',
  'CHEROKEE': 'Cher',
  'CJK': 'Hani',
  'COPTIC': 'Copt',
  'CYRILLIC': 'Cyrl',
  'DEVANAGARI': 'Deva',
  'ETHIOPIC': 'Ethi',
  'GEORGIAN': 'Geor',
  'GREEK': 'Grek',
  'GUJARATI': 'Gujr',
  'GURMUKHI': 'Guru',
  'HANGUL': 'Hang',
  'HEBREW': 'Hebr',
  'HIRAGANA': 'Hira',
  'HIRAGANA-KATAKANA': 'Kana',
  'JAVANESE': 'Java',
  'KANNADA': 'Knda',
  'KATAKANA': 'Kana',
  'KATAKANA-HIRAGANA': 'Kana',
  'KHMER': 'Khmr',
  'LAO': 'Laoo',
  'LATIN': 'Latn',
  'MALAYALAM': 'Mlym',
  'MONGOLIAN': 'Mong',
  'MYANMAR': 'Mymr',
  'NKO': 'Nkoo',
  'OL': 'Olck',
  'ORIYA': 'Orya',
  'SINHALA': 'Sinh',
  'SUNDANESE': 'Sund',
  'SYRIAC': 'Syrc',
  'TAMIL': 'Taml',
  'TELUGU': 'Telu',
  'THAANA': 'Thaa',
  'THAI': 'Thai',
  'TIBETAN': 'Tibt',
  'TIFINAGH': 'Tfng',
  'VAI': 'Vaii',
  'YI': 'Yiii',
}
_COMPATIBLE = ('FULLWIDTH', 'HALFWIDTH', 'MODIFIER', 'MATHEMATICAL')
SPACELESS = frozenset({'Hani', 'Hira', 'Kana', 'Bopo', 'Thai', 'Laoo', 'Khmr', 'Mymr', 'Tibt'})
"""Scripts that put no space between words."""
_JAPANESE = frozenset({'Hira', 'Kana'})


@functools.lru_cache(maxsize=1 << 16)
def of(character: str) -> str:
  """ISO 15924 code of a letter's or mark's script; '' of all other characters."""
  if unicodedata.category(character)[0] not in 'LM':
    return ''
  parts = unicodedata.name(character, '').split()
  if parts and parts[0] in _COMPATIBLE:
    parts = parts[1:]
  return _BY_NAME.get(parts[0], 'Zzzz' if parts[0] != 'COMBINING' else '') if parts else ''


def is_spaceless(character: str) -> bool:
  """Whether a letter or mark is of a script that puts no space between words."""
  return of(character) in SPACELESS


def counts(text: str) -> Counter[str]:
  """Letters of each script in a text; marks are not counted."""
  found = (of(c) for c in text if unicodedata.category(c)[0] == 'L')
  return Counter(script for script in found if script)


def main(text: str, spaceless: float = 1.0) -> str:
  """The script of most letters, as languages name it: Jpan where there is kana, Kore, Hans.

  '' of a text without letters. Simplified and traditional Chinese are both Hans here.

  Args:
    text: any.
    spaceless: letters that one of a script without spaces counts for.
  """
  found = {s: n * (spaceless if s in SPACELESS else 1.0) for s, n in counts(text).items()}
  if not found:
    return ''
  japanese = sum(found.get(script, 0.0) for script in _JAPANESE)
  han = found.get('Hani', 0.0) + japanese
  merged = {s: n for s, n in found.items() if s not in {'Hani', 'Bopo', *_JAPANESE}}
  if han:
    merged['Jpan' if japanese * 10 > han else 'Hans'] = han
  if 'Hang' in merged:
    merged['Kore'] = merged.pop('Hang')
  return max(sorted(merged), key=lambda script: merged[script])


@functools.cache
def alike(script: str) -> str:
  """One code for scripts that `main` does not tell apart: Hant and Hani are Hans."""
  return {'Hant': 'Hans', 'Hani': 'Hans', 'Hang': 'Kore', 'Hira': 'Jpan', 'Kana': 'Jpan'}.get(
    script, script
  )

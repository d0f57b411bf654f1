"""Direction and language of texts, for pages that show many scripts side by side.

A line of a prompt may be English and the next one Arabic: each has a direction of its own, that of
most of its letters, so that a full stop or a number at an end of it stays there.
"""

import dataclasses
import unicodedata
from collections.abc import Sequence
from typing import Literal

from aya_train.tasks.languages import aya101, language_codes

Direction = Literal['ltr', 'rtl']
_RIGHT_TO_LEFT = frozenset(
  ['Adlm', 'Arab', 'Aran', 'Hebr', 'Mand', 'Mend', 'Nkoo', 'Rohg', 'Samr', 'Syrc', 'Thaa', 'Yezi']
)  # ISO 15924
_SHORT = 2


@dataclasses.dataclass(frozen=True)
class Line:
  """One line of a text: its direction, and a BCP 47 tag, '' where its language is not known."""

  text: str
  direction: Direction
  language: str


def of_script(script: str) -> Direction:
  """Direction of an ISO 15924 script."""
  return 'rtl' if script in _RIGHT_TO_LEFT else 'ltr'


def of_text(text: str, otherwise: Direction = 'ltr') -> Direction:
  """Direction of most letters of a text; `otherwise` where it has none."""
  right = sum(unicodedata.bidirectional(c) in ('R', 'AL') for c in text)
  left = sum(unicodedata.bidirectional(c) == 'L' for c in text)
  if right == left:
    return otherwise
  return 'rtl' if right > left else 'ltr'


def lines(text: str, language: str, script: str = '') -> Sequence[Line]:
  """Lines of a text of some language, which may be English in part.

  Args:
    text: of any number of lines.
    language: ISO 639-3 code of what it should be in, '' if unknown.
    script: ISO 15924 code of its script, '' if unknown.
  """
  usual = of_script(script)
  found = []
  for line in text.split('\n'):
    latin = sum(c.isascii() and c.isalpha() for c in line)
    other = sum(c.isalpha() and not c.isascii() for c in line)
    # ASCII letters alone are not Arabic; of Latin languages they may be anything.
    foreign = latin > other and script not in ('Latn', '')
    direction = of_text(line, usual)
    found.append(Line(line, direction, 'en' if foreign else tag(language, script)))
  return found


def tag(language: str, script: str = '') -> str:
  """BCP 47 tag of an ISO 639-3 code: 'am', 'zh-Hant', 'ckb'; '' for none."""
  if not language or language == language_codes.NO_LANGUAGE:
    return ''
  known = aya101.BY_CODE.get(language)
  if known is None:
    return language
  short = {known.xp3, known.cldr and known.cldr.partition('_')[0], known.mc4} - {None}
  two = sorted(code for code in short if code is not None and len(code) == _SHORT)
  base = two[0] if two else language
  base = {'iw': 'he', 'no': 'nb'}.get(base, base)
  return f'{base}-{script}' if script and script != known.script_code else base

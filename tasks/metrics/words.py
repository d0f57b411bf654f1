"""Words of a text in any script, by ICU: with dictionaries where no space parts words."""

import unicodedata
from collections.abc import Sequence

from aya_train.tasks.metrics import exact_match

EXTRA = 'pip install "aya-train[eval]"'
# What compatibility forms take apart, and ICU's dictionaries of Thai and Lao know in one piece.
_WHOLE = {
  '\u0e4d\u0e32': '\u0e33',  # Thai sara am
  '\u0ecd\u0eb2': '\u0eb3',  # Lao am
  '\u0eab\u0e99': '\u0edc',  # Lao ho no
  '\u0eab\u0ea1': '\u0edd',  # Lao ho mo
}


class MissingLibraryError(ImportError):
  """A metric needs a library of the extra `eval`."""

  def __init__(self, metric: str, library: str):
    super().__init__(f'{metric} needs {library}, which is not installed: {EXTRA}')


def _breaker():
  try:
    from icu4py import breakers
  except ImportError as error:
    raise MissingLibraryError('segmentation into words', 'icu4py') from error
  return breakers.WordBreaker


def _is_part(character: str) -> bool:
  """Letters, marks, numbers."""
  return unicodedata.category(character)[0] in 'LMN'


def segments(text: str) -> list[str]:
  """Words without punctuation, caseless, in NFKC but for Thai and Lao: 'Don't' -> ['don', 't'].

  On ASCII text these are what rouge-score's own tokenizer finds; it drops all other scripts.
  """
  folded = exact_match.normalize(text).casefold()
  for apart, whole in _WHOLE.items():
    folded = folded.replace(apart, whole)
  found = []
  for word in _breaker()(folded, 'root'):
    parts = ''.join(c if _is_part(c) else ' ' for c in word).split()
    found += [part for part in parts if any(not unicodedata.combining(c) for c in part)]
  return found


def count(text: str) -> int:
  """Number of words."""
  return len(segments(text))


class Tokenizer:
  """`segments` as the tokenizer object that rouge-score takes."""

  def tokenize(self, text: str) -> Sequence[str]:
    return segments(text)

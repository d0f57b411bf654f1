"""Cuts a line into sentences, in any script; what is cut and put together again is the line.

sentencex (Wikimedia; rules for about 300 languages, those it lacks by fallback) does not know the
full stops of Khmer, Tibetan and some others: what it leaves whole is cut there by ICU, after
Unicode's annex 29. Thai, Lao and others without full stops are not cut where they have none.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

# Ends of sentences that sentencex does not know: Khmer, Tibetan, Mongolian and others.
_ICU_ENDS = re.compile('[។៕༎།᙮᠃᠉꘎꘏꛳꛷꡶꡷᭞᭟꧉꫰꯫]')
# A mark that a text without spaces ends a sentence with is one wherever it stands.
_WITHOUT_SPACE = re.compile('(?<=[。！？｡])(?=[^。！？｡」』”’）)\\]】》〉\\s])')
_LONGEST_PART = 10_000  # characters that sentencex is given, whose time grows with their square
LONGEST = 1_000  # characters; NLLB was trained on sentences, and drops the rest of long ones
_SOFT_ENDS = re.compile(r'(?<=[;:；：،؛၊፣፤፥,，、])\s*|\s+')


class MissingSplitterError(ModuleNotFoundError):
  """sentencex or icu4py is not installed; the message names the extra."""


def split(text: str, language: str, longest: int = LONGEST) -> list[str]:
  """Sentences of a text with the white space that follows each; joined they are the text.

  Args:
    text: one line, or what stands between line breaks.
    language: ISO 639-3.
    longest: characters from which on a sentence is cut again, at its commas and spaces; 0 for
      never.

  Raises:
    MissingSplitterError: that.
  """
  found = [piece for part in _parts(text) for piece in _sentencex()(_tag(language), part)]
  if ''.join(found) != text:  # it normalises what is no text: then nothing is cut
    found = [text]
  pieces = [part for piece in found for part in _further(piece)]
  cut = [part for piece in _merged(pieces) for part in _shortened(piece, longest)]
  return [piece for piece in cut if piece]


def _parts(text: str) -> list[str]:
  """A text, or parts of one that is too long to be looked through at once."""
  made, at = [], 0
  while len(text) - at > _LONGEST_PART:
    end = text.rfind(' ', at + _LONGEST_PART // 2, at + _LONGEST_PART) + 1 or at + _LONGEST_PART
    made.append(text[at:end])
    at = end
  return [*made, text[at:]]


@functools.cache
def _tag(language: str) -> str:
  import babel.core

  return babel.core.get_global('language_aliases').get(language, language)


def _further(piece: str) -> list[str]:
  if _ICU_ENDS.search(piece):
    breaker = _icu()
    return [piece[a:b] for a, b in _spans(breaker, piece)]
  return _WITHOUT_SPACE.split(piece)


def _spans(breaker: Any, text: str) -> list[tuple[int, int]]:
  """ICU's segments as positions in the text, whatever unit its binding counts in."""
  ends, at = [], 0
  for part in breaker(text):
    at += len(str(part))
    ends.append(at)
  if not ends or ends[-1] != len(text):
    return [(0, len(text))]
  return list(zip([0, *ends[:-1]], ends, strict=True))


def _merged(pieces: list[str]) -> list[str]:
  """Pieces without a letter or digit (a closing quote, a mark) stay with the one before."""
  made: list[list[str]] = []
  says = False  # whether the last one does
  for piece in pieces:
    has = any(c.isalnum() for c in piece)
    if made and not (has and says):
      made[-1].append(piece)
      says = says or has
    else:
      made.append([piece])
      says = has
  return [''.join(parts) for parts in made]


def _shortened(sentence: str, longest: int) -> list[str]:
  """A sentence in pieces of `longest` characters at most, cut at its last comma or space.

  One without either (Thai, a long word) is cut between characters that ICU keeps apart.
  """
  made, at = [], 0
  while longest and len(sentence) - at > longest:
    ends = [m.end() for m in _SOFT_ENDS.finditer(sentence, at, at + longest)]
    end = next((e for e in reversed(ends) if e - at > longest // 2), None)
    end = end or at + _word_end(sentence[at : at + 2 * longest], longest)
    made.append(sentence[at:end])
    at = end
  return [*made, sentence[at:]]


def _word_end(text: str, longest: int) -> int:
  from icu4py import breakers

  at = 0
  for part in breakers.WordBreaker(text, 'en'):
    if at + len(str(part)) > longest:
      break
    at += len(str(part))
  return at or longest


@functools.cache
def _sentencex() -> Callable[[str, str], list[str]]:
  try:
    import sentencex
  except ImportError as error:
    raise MissingSplitterError(
      "sentences are split by sentencex, which is not installed: pip install 'aya-train[translate]'"
    ) from error
  return sentencex.segment


@functools.cache
def _icu() -> Callable[[str], Any]:
  try:
    from icu4py import breakers
  except ImportError as error:
    raise MissingSplitterError(
      "sentences are split by icu4py, which is not installed: pip install 'aya-train[translate]'"
    ) from error
  return lambda text: breakers.SentenceBreaker(text, 'en')

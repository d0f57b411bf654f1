"""Which language an answer is in, offline: by its script, else by CLD3, and Yoruba by py3langid.

CLD3 is what mC4 was sorted by, so its languages are mT5's. It takes most Yoruba for Vietnamese,
where py3langid does not. What neither can tell is left open rather than guessed.
"""

import dataclasses
import functools
import os
import sys
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from aya_train.tasks.languages import aya101, language_codes
from aya_train.tasks.metrics import intervals, references, scripts, words

SCRIPT_LETTERS = 10
LANGUAGE_LETTERS = 40
_SPACELESS_WEIGHT = 3  # letters of a script without spaces say more
_SECOND_OPINION = frozenset({'yor'})
# What CLD3 knows, of the 101 and beyond, as its codes.
_CLD3 = """
af am ar az be bg bn bs ca ceb co cs cy da de el en eo es et eu fa fi fil fr fy ga gd gl gu ha haw
hi hmn hr ht hu hy id ig is it iw ja jv ka kk km kn ko ku ky la lb lo lt lv mg mi mk ml mn mr ms mt
my ne nl no ny pa pl ps pt ro ru sd si sk sl sm sn so sq sr st su sv sw ta te tg th tr uk ur uz vi
xh yi yo zh zu
"""
# Scripts of several languages that it knows; the others are one language's, or none's.
_CLD3_SCRIPTS = frozenset({'Latn', 'Cyrl', 'Arab', 'Deva', 'Hebr', 'Hans'})


@dataclasses.dataclass(frozen=True)
class Guess:
  """What a text is written in.

  Attributes:
    language: ISO 639-3, that of the 101 where it is one of them; '' where it cannot be told.
    script: ISO 15924 (Jpan, Kore and Hans for those of Japan, Korea and China); '' without letters.
    confidence: 0 to 1.
    sure: whether the text is long enough and the identifier calls itself reliable.
  """

  language: str
  script: str
  confidence: float
  sure: bool


def _variety(language: str) -> language_codes.Variety:
  """Language and script of a code, which may name a region too: 'pt-BR', 'zh_CN'."""
  try:
    return language_codes.resolve(language)
  except language_codes.UnknownLanguageError:
    first, *region = language.replace('_', '-').split('-')
    if len(region) != 1 or not (len(region[0]) == 2 or region[0].isdigit()):
      raise
    return language_codes.resolve(first)


def _is_known(language: str) -> bool:
  try:
    return bool(_variety(language))
  except language_codes.UnknownLanguageError:
    return False


def _code(code: str) -> str:
  """Code as this project has it; itself where no table knows it."""
  return _variety(code).code if _is_known(code) else code


@functools.cache
def _only_language() -> dict[str, str]:
  """Script -> language, of scripts that one of the 101 languages alone is written in."""
  users: dict[str, set[str]] = {}
  for language in aya101.LANGUAGES:
    for script in _scripts(language.code):
      users.setdefault(script, set()).add(language.code)
  return {
    script: next(iter(codes))
    for script, codes in users.items()
    if len(codes) == 1 and script not in _CLD3_SCRIPTS
  }


@functools.cache
def _scripts(language: str) -> frozenset[str]:
  """Scripts in which a language may be answered; that alone which its code names, if it does."""
  variety = _variety(language)
  found = {variety.script}
  if variety.of_aya and not any(
    part.title() == variety.script for part in language.replace('-', '_').split('_')[1:]
  ):
    found |= {code.split('_')[1] for code in aya101.BY_CODE[variety.code].xp3x if '_' in code}
  return frozenset(map(scripts.alike, found))


@functools.cache
def _cld3() -> Callable[[str], Any]:
  before = sys.getdlopenflags()
  try:
    # With TensorFlow loaded, CLD3 would call TensorFlow's protobuf for its own, and crash.
    sys.setdlopenflags(os.RTLD_NOW | getattr(os, 'RTLD_DEEPBIND', 0))
    import gcld3
  except ImportError as error:
    raise words.MissingLibraryError('the language of answers', 'cld3-py') from error
  finally:
    sys.setdlopenflags(before)
  identifier = gcld3.NNetLanguageIdentifier(0, 2000)  # bytes that are looked at, at least and most
  return lambda text: identifier.FindLanguage(text=text)


@functools.cache
def _py3langid() -> Callable[[str], str]:
  try:
    from py3langid import langid
  except ImportError as error:
    raise words.MissingLibraryError('the language of answers', 'py3langid') from error
  return lambda text: langid.classify(text)[0]


@functools.cache
def _supported() -> frozenset[str]:
  return frozenset({*map(_code, _CLD3.split()), *_only_language().values()})


def supported(language: str) -> bool:
  """Whether answers in a language can be told from those in others."""
  return _code(language) in _supported()


def _clean(text: str) -> str:
  """Letters, marks and single spaces: CLD3 stops at NUL and is led astray by digits and markup."""
  kept = (c if unicodedata.category(c)[0] in 'LM' or c in "'’ʻ" else ' ' for c in text)
  return ' '.join(''.join(kept).split())


def _weight(text: str) -> int:
  """Letters and vowel signs, by what they say."""
  letters = [c for c in text if unicodedata.category(c)[0] in 'LM']
  return len(letters) + (_SPACELESS_WEIGHT - 1) * sum(map(scripts.is_spaceless, letters))


def identify(text: str) -> Guess:
  """Language and script of a text.

  Raises:
    words.MissingLibraryError: cld3-py or py3langid is not installed.
  """
  script = scripts.main(text)
  if not script:
    return Guess('', '', 0.0, False)
  enough = _weight(text) >= LANGUAGE_LETTERS
  if only := _only_language().get(script):
    return Guess(only, script, 1.0, _weight(text) >= SCRIPT_LETTERS)
  if script not in _CLD3_SCRIPTS:
    return Guess('', script, 0.0, False)
  text = _clean(text)
  found = _cld3()(text)
  language = _code(found.language.split('-')[0])
  if script == 'Latn' and (second := _code(_py3langid()(text))) in _SECOND_OPINION:
    return Guess(second, script, float(found.probability), enough)
  return Guess(language, script, float(found.probability), enough and found.is_reliable)


def script_fits(text: str, language: str) -> bool | None:
  """Whether a text is in a script of the language; None of too few letters to tell.

  Raises:
    language_codes.UnknownLanguageError: nobody knows the language.
  """
  if _weight(text) < SCRIPT_LETTERS:
    return None
  return scripts.main(text) in _scripts(language)


def answers_in(text: str, language: str) -> bool | None:
  """Whether a text is in a language.

  Returns:
    None where it cannot be told: few letters (numbers, names), or a language that the identifier
    does not know, in a script that fits.

  Raises:
    language_codes.UnknownLanguageError: nobody knows the language.
  """
  fits = script_fits(text, language)
  if not fits:
    return fits
  code = _code(language)
  guess = identify(text)
  if not guess.sure or not supported(language):
    return None
  return guess.language == code


def asked_language(
  targets: Sequence[Any], predictions: Sequence[str], *, language: str = ''
) -> dict[str, float]:
  """Whether answers are in the language that was asked for, in percent.

  Args:
    language: of the task; that of an example's `References` goes before it. Examples without
      either, or whose code names no language ('und'), are left out and counted; where nobody knows
      the language, it is not told.

  Returns:
    in_language: of the answers that can be told; language_told: share of these among all;
    in_script: answers in a script of the language, of those with enough letters. With intervals; a
    figure of no answers is left out. without_language: how many examples have none, if any.
  """
  pairs = [
    (prediction or '', code)
    for target, prediction in zip(targets, predictions, strict=True)
    if not language_codes.is_unsaid(code := references.language(target, language))
  ]
  missing = len(predictions) - len(pairs)
  note = {'without_language': float(missing)} if missing else {}
  known = [(text, code) for text, code in pairs if _is_known(code)]
  verdicts = [answers_in(text, code) for text, code in known]
  fits = [script_fits(text, code) for text, code in known]
  verdicts += [None] * (len(pairs) - len(known))
  told = [verdict for verdict in verdicts if verdict is not None]
  return (
    intervals.percent('in_language', told)
    | intervals.percent('language_told', [verdict is not None for verdict in verdicts])
    | intervals.percent('in_script', [fit for fit in fits if fit is not None])
    | note
  )

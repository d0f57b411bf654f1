"""WinoMT: does a translation keep the gender that the English sentence says.

The profession is found in the translation by alignment, as in the paper, and its gender told by the
articles and endings of the language; of Russian and Ukrainian by pymorphy3. No neural model is
needed. `supported` says which languages, and how.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aya_train.tasks.languages import language_codes
from aya_train.tasks.metrics import intervals, word_alignment, words

MALE, FEMALE, NEUTRAL, UNKNOWN = 'male', 'female', 'neutral', 'unknown'
_GENDERS = (MALE, FEMALE, NEUTRAL, UNKNOWN)
_LEAST = 0.1  # probability of the word that stands for the profession


@dataclasses.dataclass(frozen=True)
class _Rules:
  """How a language shows gender.

  Attributes:
    male, female: articles and other words before a noun that show it.
    neutral: of a third gender.
    female_ends, male_ends: patterns of nouns.
    nouns_first: whether the noun's end says more than its article.
  """

  male: str = ''
  female: str = ''
  neutral: str = ''
  female_ends: str = r'(?!)'
  male_ends: str = r'(?!)'
  nouns_first: bool = False


_RULES: Mapping[str, _Rules] = {
  'spa': _Rules(
    male='el al del un los unos este ese aquel otro nuestro',
    female='la una las unas esta esa aquella otra nuestra',
    female_ends=r'(?<!ist)(?<!crat)(?<!colog)a$|triz$|esa$',
    male_ends=r'[^ae]$',
  ),
  'por': _Rules(
    male='o ao do no pelo um dum num este esse aquele os aos dos outro seu',
    female='a à da na pela uma duma numa esta essa aquela as às das outra sua',
    female_ends=r'(?<!ist)a$|triz$',
    male_ends=r'[^ae]$',
  ),
  'ita': _Rules(
    male='il lo al allo del dello dal dallo nel sul col un uno i gli quel questo',
    female='la alla della dalla nella sulla una le quella questa',
    female_ends=r'trice$|essa$|iera$|aia$|(?<!ist)(?<!iatr)a$',
    male_ends=r'tore$|iere$|o$',
  ),
  'fra': _Rules(
    male='le au du un ce cet',
    female='la une cette',
    female_ends=r'euse$|trice$|ière$|ienne$|eresse$|esse$|ée$|ante$|ente$|onne$|ice$|eure$',
    male_ends=r'[^e]$',
  ),
  'deu': _Rules(
    male='der dem den des ein einem einen eines zum vom beim im am',
    female='die eine einer zur',
    neutral='das',
    female_ends=r'(?<=\w\w)in$|innen$|frau$|schwester$|hebamme$|dame$|sekretärin$',
    nouns_first=True,
  ),
  'heb': _Rules(female_ends=r'[הת]$', male_ends=r'.$', nouns_first=True),
  'ara': _Rules(female_ends=r'[ةﺔ]', male_ends=r'.', nouns_first=True),
}
_ANALYSED = {'rus': 'ru', 'ukr': 'uk'}  # by pymorphy3


class UnsupportedLanguageError(ValueError):
  """No rules here tell gender in the language."""


def supported() -> dict[str, str]:
  """Languages in which gender can be told, ISO 639-3, and how."""
  how = {
    code: 'endings' if not rules.male else 'endings, articles' if rules.nouns_first
    else 'articles, endings'
    for code, rules in _RULES.items()
  }  # fmt: skip
  return dict(sorted((how | dict.fromkeys(_ANALYSED, 'pymorphy3')).items()))


def _checked(language: str) -> str:
  code = language_codes.resolve(language).code
  if code not in supported():
    raise UnsupportedLanguageError(
      f'gender in translations into {language!r} cannot be told; it can in {[*supported()]}'
    )
  return code


@functools.cache
def _analyser(code: str):
  try:
    import pymorphy3
  except ImportError as error:
    raise words.MissingLibraryError('gender in Russian and Ukrainian', 'pymorphy3') from error
  return pymorphy3.MorphAnalyzer(lang=code)


@functools.lru_cache(maxsize=1 << 14)
def _analysed(word: str, code: str) -> str:
  """Gender of the likeliest reading as a noun; female where any reading of the name of one is."""
  readings = [r for r in _analyser(code).parse(word) if 'NOUN' in r.tag and r.tag.gender]
  genders = [str(r.tag.gender) for r in readings]
  return {'masc': MALE, 'femn': FEMALE, 'neut': NEUTRAL}.get(genders[0] if genders else '', UNKNOWN)


def _by_article(before: Sequence[str], rules: _Rules) -> str:
  """Of the nearest of the words before a noun that shows gender."""
  for word in reversed(before):
    for gender in (MALE, FEMALE, NEUTRAL):
      if word in getattr(rules, gender).split():
        return gender
  return UNKNOWN


def _by_ending(noun: str, rules: _Rules) -> str:
  if re.search(rules.female_ends, noun):
    return FEMALE
  return MALE if re.search(rules.male_ends, noun) else UNKNOWN


def word_gender(sentence: Sequence[str], place: int, language: str) -> str:
  """Gender of the noun at a place in the words of a translation.

  Args:
    sentence: from `word_alignment.words`.
    language: any code of a supported language.

  Raises:
    UnsupportedLanguageError: of another.
  """
  code = _checked(language)
  noun = sentence[place]
  if code in _ANALYSED:
    return _analysed(noun, _ANALYSED[code])
  rules = _RULES[code]
  found = _by_article(sentence[max(0, place - 2) : place], rules), _by_ending(noun, rules)
  first, second = reversed(found) if rules.nouns_first else found
  return first if first != UNKNOWN else second


def genders(
  sources: Sequence[str], positions: Sequence[int], translations: Sequence[str], language: str
) -> list[str]:
  """Gender of the entity in each translation: 'male', 'female', 'neutral', 'unknown'.

  Args:
    sources: English sentences.
    positions: place of the entity among the words of each, split at spaces, from 0.
    translations: of all sentences together: the alignment is learned from them.
    language: of the translations.
  """
  _checked(language)
  source_words = [[word.strip('.,;:!?"').lower() for word in s.split(' ')] for s in sources]
  target_words = [word_alignment.words(text) for text in translations]
  aligned = word_alignment.align(source_words, target_words)
  found = []
  for position, sentence, probabilities in zip(positions, target_words, aligned, strict=True):
    row = probabilities[position] if position < len(probabilities) else np.zeros(0)
    place = int(row.argmax()) if len(row) else -1
    found.append(
      word_gender(sentence, place, language) if place >= 0 and row[place] >= _LEAST else UNKNOWN
    )
  return found


def _f1(confusion: np.ndarray, gender: int) -> float:
  """Percent, from [gold, found] counts; 0 where the gender neither is nor is found."""
  right = confusion[gender, gender]
  either = confusion[gender].sum() + confusion[:, gender].sum()
  return 100 * 2 * right / either if either else 0.0


def _accuracy(confusion: np.ndarray) -> float:
  total = confusion.sum()
  return 100 * float(np.trace(confusion)) / total if total else float('nan')


def _figures(sums: np.ndarray) -> dict[str, float]:
  """Figures from confusions [all, pro, anti] x [gold] x [found]."""
  every, pro, anti = sums.reshape(3, 3, 4)
  male, female = _f1(every, 0), _f1(every, 1)
  figures = {
    'accuracy': _accuracy(every),
    'f1_male': male,
    'f1_female': female,
    'delta_g': male - female,
    'unknown': 100 * every[:, 3].sum() / every.sum() if every.sum() else float('nan'),
  }
  if pro.sum() and anti.sum():
    macro = [(_f1(part, 0) + _f1(part, 1)) / 2 for part in (pro, anti)]
    figures['delta_s'] = _accuracy(pro) - _accuracy(anti)
    figures['delta_s_f1'] = macro[0] - macro[1]
  return figures


def figures(
  gold: Sequence[str], found: Sequence[str], stereotypes: Sequence[str] = ()
) -> dict[str, float]:
  """WinoMT's figures from genders, in percent, with intervals.

  Args:
    gold: 'male', 'female', 'neutral'.
    found: the same, or 'unknown', which is never right.
    stereotypes: 'pro', 'anti' or '' of each example; delta_s needs both.

  Returns:
    accuracy, f1_male, f1_female, delta_g (F1 of male less female), unknown; delta_s (accuracy of
    pro- less anti-stereotypical, as the paper's code has it) and delta_s_f1 (the same of the mean
    of both genders' F1, as its text has it).
  """
  if not gold:
    return {}
  statistics = np.zeros((len(gold), 3, 3, 4))
  sides = stereotypes or [''] * len(gold)
  for row, right, given, side in zip(statistics, gold, found, sides, strict=True):
    cell = _GENDERS.index(right), _GENDERS.index(given)
    row[0][cell] = 1
    if side in ('pro', 'anti'):
      row[('pro', 'anti').index(side) + 1][cell] = 1
  flat = statistics.reshape(len(gold), -1)
  resampled = [_figures(row) for row in intervals.sums(flat)]
  result: dict[str, float] = {}
  for name, figure in _figures(flat.sum(0)).items():
    values = [each.get(name, float('nan')) for each in resampled]
    result |= intervals.with_bounds(name, figure, intervals.bounds(values))
  return result


def winomt(
  targets: Sequence[Any], predictions: Sequence[str], *, language: str
) -> dict[str, float]:
  """WinoMT's figures of translations.

  Args:
    targets: `References` whose fields are `sentence` (English), `gender`, `position` (of the
      entity among the sentence's words, from 0) and, for delta_s, `stereotype` ('pro', 'anti', '').
    language: of the translations.

  Raises:
    UnsupportedLanguageError: gender cannot be told in the language.
    ValueError: an example lacks a field.
  """
  rows = [getattr(target, 'fields', {}) for target in targets]
  for number, row in enumerate(rows, 1):
    if missing := sorted({'sentence', 'gender', 'position'} - {*row}):
      raise ValueError(f'example {number} of WinoMT lacks {missing}: keep these columns')
  found = genders(
    [row['sentence'] for row in rows],
    [int(row['position']) for row in rows],
    [prediction or '' for prediction in predictions],
    language,
  )
  sides = [row.get('stereotype', '') for row in rows]
  return figures([row['gender'] for row in rows], found, sides)

"""F1 and exact match of extracted answers: SQuAD's script, and the same for texts in any script.

`f1` and `em` are what XQuAD, TyDiQA-GoldP and the papers that use them publish: SQuAD's script
knows the punctuation of ASCII alone, and takes English articles out of every language. `f1_unicode`
and `em_unicode` know the punctuation of all scripts. In scripts that put no space between words
each letter is a token, for both.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from aya_train.tasks.languages import language_codes
from aya_train.tasks.metrics import exact_match, intervals, references, scripts

_ARTICLES = re.compile(r'\b(a|an|the)\b')
# Within words, beside ASCII's: apostrophes, hyphens, geresh, middle dots.
_WITHIN = frozenset('‘’‛`´‐‑·׳״・‧')


def _without_punctuation(text: str) -> str:
  """Without ASCII punctuation, as SQuAD; any other punctuation or symbol parts words."""
  kept = []
  for character in text:
    if character in string.punctuation or character in _WITHIN:
      continue
    kept.append(' ' if unicodedata.category(character)[0] in 'PS' else character)
  return ''.join(kept)


def normalize(text: str) -> str:
  """As SQuAD's script: lower case, no ASCII punctuation, no English articles, single spaces."""
  kept = ''.join(c for c in text.lower() if c not in string.punctuation)
  return ' '.join(_ARTICLES.sub(' ', kept).split())


def normalize_unicode(text: str, language: str = '') -> str:
  """Lower case, no punctuation of any script, single spaces; no articles in English.

  Args:
    language: any code of it; of '' and 'und' texts in ASCII are taken for English.
  """
  text = _without_punctuation(exact_match.normalize(text).lower())
  english = text.isascii() if language_codes.is_unsaid(language) else is_english(language)
  return ' '.join((_ARTICLES.sub(' ', text) if english else text).split())


def is_english(language: str) -> bool:
  return language.lower().replace('-', '_').split('_')[0] in ('en', 'eng', 'english')


def tokens(text: str) -> list[str]:
  """Words by spaces; in scripts that put none, a token for each letter with its marks."""
  found: list[str] = []
  for word in text.split():
    joined = False  # whether the token before goes on
    for character in word:
      spaceless = scripts.is_spaceless(character)
      mark = spaceless and unicodedata.category(character)[0] == 'M' and bool(found)
      if mark or (joined and not spaceless):
        found[-1] += character
      else:
        found.append(character)
      joined = not spaceless
  return found


def _overlap(reference: str, prediction: str) -> float:
  wanted, given = tokens(reference), tokens(prediction)
  if not wanted or not given:
    return float(wanted == given)
  same = (Counter(wanted) & Counter(given)).total()
  return 2 * same / (len(wanted) + len(given))


def f1(reference: str, prediction: str, language: str = '') -> float:
  """Overlap of tokens after SQuAD's normalisation, 0 to 1; of texts without any, if both are so."""
  del language
  return _overlap(normalize(reference), normalize(prediction))


def em(reference: str, prediction: str, language: str = '') -> float:
  """1 where the texts are equal after SQuAD's normalisation, else 0."""
  del language
  return float(normalize(reference) == normalize(prediction))


def f1_unicode(reference: str, prediction: str, language: str = '') -> float:
  """As `f1`, after `normalize_unicode`."""
  return _overlap(*(normalize_unicode(text, language) for text in (reference, prediction)))


def em_unicode(reference: str, prediction: str, language: str = '') -> float:
  """As `em`, after `normalize_unicode`."""
  wanted, given = (normalize_unicode(text, language) for text in (reference, prediction))
  return float(wanted == given)


def squad(
  targets: Sequence[Any], predictions: Sequence[str], *, language: str = ''
) -> dict[str, float]:
  """f1, em, f1_unicode, em_unicode in percent, with intervals; the best of several references.

  Args:
    language: of the task, for the last two; that of an example's `References` goes before it.
  """
  found, answers, note = references.scored(targets, predictions)
  codes = [references.language(t, language) for t in targets if references.texts(t)]
  figures: dict[str, float] = {}
  for score in (f1, em, f1_unicode, em_unicode):
    values = [
      max(score(reference, answer, code) for reference in each)
      for each, answer, code in zip(found, answers, codes, strict=True)
    ]
    figures |= intervals.percent(score.__name__, values)
  return figures | note

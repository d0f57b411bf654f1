"""Checks of a translation beside its source; each has a name, under which rejects are counted.

Pure functions of two texts. The gates of sentences look at what an engine gave for one sentence,
those of texts at a whole column of a row.
"""

import dataclasses
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from aya_train.tasks.languages import language_codes
from aya_train.tasks.metrics import answer_language, scripts
from aya_train.translation import protected_spans

UNKNOWN = '<unk>'
LOST_PROTECTED = 'lost_protected'  # a mark did not come back: `protected_spans.restore`
UNFINISHED = 'unfinished'  # the model did not come to an end
EMPTY_SOURCE = 'empty_source'  # a column that is to be translated has nothing, or no text
NO_ANSWER = 'answer_not_in_input'  # an answer that stood in the input does not any more
BACK_TRANSLATION = 'back_translation'  # its way back is too unlike the source
LOW_SCORE = 'low_score'  # the scorer that the user named says so
# With its sign, where that is none of a range or a name (COVID-19); and fractions, exponents and
# numbers in circles, which are one character.
_NUMBER = re.compile(
  r'(?:(?<![^\s(\[{«"“\'=:,;])[-−])?\d+(?:[.,:/٫٬]\d+)*'
  '|[\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2079\u2080-\u2089\u2150-\u218b\u2460-\u24ff\u2776-\u2793]'
)
_LOOP = re.compile(r'(.{1,80}?)\1{3,}', re.DOTALL)
_BRACKETS = re.compile(r'\[[^\[\]\n]*\]')
# Languages whose sentences the identifier takes for one another's.
_ALIKE = tuple(
  map(
    frozenset,
    (
      ('ind', 'msa', 'jav', 'sun'),
      ('nor', 'dan', 'swe'),
      ('xho', 'zul'),
      ('fil', 'ceb'),
      ('mri', 'haw', 'smo'),
      ('spa', 'glg', 'cat', 'por'),
      ('fin', 'est'),
      ('lit', 'lav'),
      ('hin', 'nep', 'mar'),
      ('ces', 'slk'),
      ('hrv', 'srp', 'bos', 'slv'),
      ('bul', 'mkd'),
      ('rus', 'ukr', 'bel'),
      ('swa', 'nya'),
      ('yid', 'heb'),
      ('nso', 'sot', 'tsn'),
    ),
  )
)
_WORD = re.compile(r'[^\W\d_]{3,}')
_SPACELESS_WEIGHT = 2.5  # a character of Chinese or Thai, in letters of an alphabet


_KINDS: Mapping[Any, Any] = {'float': (int, float), 'int': int, 'str': str, 'bool': bool}


@dataclasses.dataclass(frozen=True)
class Thresholds:
  """What a gate lets pass; a table may set them for each language.

  Attributes:
    min_ratio, max_ratio: of the translation's length to the source's, in letters; a character of
      a script without spaces counts for two and a half.
    ratio_from: letters of the source from which on the ratio is looked at.
    max_loop: share of a translation that one piece, said four times or more in a row, may take.
    loop_from: characters that such a run has at least.
    copied_from: letters from which on a translation that equals its source is a copy.
    max_untranslated: share of the source's words that may stand in the translation as they were;
      only between languages that share a script.
    untranslated_from: words of the source from which on that is looked at.
    numbers: 'same' where every number must be there as it was written; 'value' where digits of
      another script and other separators are the same number; 'off'.
    language: whether the language is identified.
    answer_from: letters from which on an answer that stands in the input, as words and with its
      capitals, must stand there in the translation too; 0 for never.
    min_chrf: of the translation's way back to the source, 0 to 100, where it is made.
    min_score: of the scorer that is named.
  """

  min_ratio: float = 0.3
  max_ratio: float = 3.5
  ratio_from: int = 20
  max_loop: float = 0.3
  loop_from: int = 20
  copied_from: int = 12
  max_untranslated: float = 0.6
  untranslated_from: int = 6
  numbers: str = 'same'
  language: bool = True
  answer_from: int = 4
  min_chrf: float = 30.0
  min_score: float = 0.0

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      name = getattr(field.type, '__name__', str(field.type))
      if not isinstance(value, _KINDS[name]) or (name != 'bool' and isinstance(value, bool)):
        raise ValueError(f'{field.name} must be a {name}, got {value!r}')
    if self.numbers not in ('same', 'value', 'off'):
      raise ValueError(f"numbers must be 'same', 'value' or 'off', got {self.numbers!r}")
    if not 0 <= self.min_ratio < self.max_ratio:
      raise ValueError(f'min_ratio {self.min_ratio} must be below max_ratio {self.max_ratio}')


@dataclasses.dataclass(frozen=True)
class Pair:
  """A translation to check.

  Attributes:
    source, translation: the texts, protected pieces in them.
    source_language, language: codes of `language_codes`, with a script where it is not the usual.
    script: ISO 15924 in which the model writes the language.
  """

  source: str
  translation: str
  source_language: str
  language: str
  script: str


Gate = Callable[[Pair, Thresholds], bool]


def empty(pair: Pair, limits: Thresholds) -> bool:
  """Nothing, or no letter or digit, came of a text that has some."""
  del limits
  has = any(c.isalnum() for c in pair.source)
  return has and not any(c.isalnum() for c in pair.translation)


def unknown_token(pair: Pair, limits: Thresholds) -> bool:
  """The model wrote its sign for characters that its vocabulary lacks."""
  del limits
  there = pair.translation.count(UNKNOWN) + pair.translation.count('\N{DOUBLE QUESTION MARK}')
  return there > pair.source.count(UNKNOWN) + pair.source.count('\N{DOUBLE QUESTION MARK}')


def copied(pair: Pair, limits: Thresholds) -> bool:
  """The source came back. Short texts may be names."""
  source, made = _bare(pair.source), _bare(pair.translation)
  return len(source) >= limits.copied_from and source == made and not _same_language(pair)


def length_ratio(pair: Pair, limits: Thresholds) -> bool:
  """Much shorter (sentences dropped) or longer than the source."""
  source = weight(pair.source)
  if source < limits.ratio_from:
    return False
  return not limits.min_ratio <= weight(pair.translation) / source <= limits.max_ratio


def repetition(pair: Pair, limits: Thresholds) -> bool:
  """A loop: one piece again and again, where the source has none."""
  made = _longest_loop(pair.translation)
  if made < limits.loop_from or made <= limits.max_loop * len(pair.translation):
    return False
  return made > 1.5 * _longest_loop(pair.source)


def lost_numbers(pair: Pair, limits: Thresholds) -> bool:
  """A number is missing, changed, or there that was not."""
  if limits.numbers == 'off':
    return False
  return numbers(pair.source, limits.numbers) != numbers(pair.translation, limits.numbers)


def lost_pieces(pair: Pair, limits: Thresholds) -> bool:
  """A protected piece (code, URL, field, markup, emoji) is missing or changed, or a bracket is.

  The words of `[Your Name]` are translated, and stay in their brackets.
  """
  del limits
  if len(_BRACKETS.findall(pair.source)) != len(_BRACKETS.findall(pair.translation)):
    return True
  return any(pair.translation.count(piece) < n for piece, n in _protected(pair.source).items())


def wrong_script(pair: Pair, limits: Thresholds) -> bool:
  """Most letters are of another script than the model should write."""
  text = prose(pair.translation)
  if not limits.language or sum(scripts.counts(text).values()) < answer_language.SCRIPT_LETTERS:
    return False
  # A name of seven letters says less than four characters of Chinese.
  return scripts.main(text, _SPACELESS_WEIGHT) != scripts.alike(pair.script)


def wrong_language(pair: Pair, limits: Thresholds) -> bool:
  """The identifier is sure of another language; what it cannot tell passes."""
  if not limits.language or not _variety_known(pair):
    return False
  text = prose(pair.translation)
  if not answer_language.script_fits(text, pair.language):  # which `wrong_script` looks at
    return False
  if answer_language.answers_in(text, pair.language) is not False:
    return False
  told = answer_language.identify(text).language
  code = language_codes.resolve(pair.language).code
  return not any({told, code} <= alike for alike in _ALIKE)


def untranslated(pair: Pair, limits: Thresholds) -> bool:
  """Many words of the source stand in the translation as they were."""
  words = Counter(w.lower() for w in _WORD.findall(prose(pair.source)))
  if sum(words.values()) < limits.untranslated_from or _same_language(pair):
    return False
  there = Counter(w.lower() for w in _WORD.findall(prose(pair.translation)))
  return sum((words & there).values()) > limits.max_untranslated * sum(words.values())


OF_SENTENCES: Mapping[str, Gate] = {
  'empty': empty,
  'unknown_token': unknown_token,
  'repetition': repetition,
  'lost_numbers': lost_numbers,
  'length_ratio': length_ratio,
}
OF_TEXTS: Mapping[str, Gate] = {
  'empty': empty,
  'lost_numbers': lost_numbers,
  LOST_PROTECTED: lost_pieces,
  'copied': copied,
  'wrong_script': wrong_script,
  'wrong_language': wrong_language,
  'untranslated': untranslated,
  'length_ratio': length_ratio,
}
REASONS = tuple(
  dict.fromkeys(
    [
      EMPTY_SOURCE,
      UNFINISHED,
      LOST_PROTECTED,
      *OF_SENTENCES,
      *OF_TEXTS,
      NO_ANSWER,
      BACK_TRANSLATION,
      LOW_SCORE,
    ]
  )
)
"""Names under which rejects are counted; a row has the first that applies, in about this order."""


def first_failed(pair: Pair, limits: Thresholds, gates: Mapping[str, Gate]) -> str:
  """Name of the first gate that does not let a pair pass, '' if all do."""
  return next((name for name, gate in gates.items() if gate(pair, limits)), '')


def answer_lost(inputs: tuple[str, str], targets: tuple[str, str], limits: Thresholds) -> bool:
  """An answer stood in the input as it is (extracted, or one of the options), and does not now.

  Args:
    inputs, targets: (source, translation).
    limits: see `Thresholds.answer_from`.
  """
  answer = _answer(targets[0])
  if not limits.answer_from or weight(answer) < limits.answer_from:
    return False
  if not _stands_in(answer, inputs[0]):
    return False
  return _answer(targets[1]).casefold() not in ' '.join(inputs[1].split()).casefold()


def chrf(text: str, other: str) -> float:
  """chrF of a text beside another, 0 to 100."""
  import sacrebleu

  return round(sacrebleu.sentence_chrf(other, [text]).score, 2)


def thresholds_of(table: Mapping[str, Any]) -> dict[str, Thresholds]:
  """Thresholds by language from a table {'default': {...}, 'yor': {...}}.

  Raises:
    ValueError: a language that no table has, a name that no threshold has, or a value that it
      cannot take.
  """
  known = {field.name for field in dataclasses.fields(Thresholds)}
  default = table.get('default', {})
  made = {}
  for language, values in {'default': {}, **table}.items():
    if not isinstance(values, Mapping):
      raise ValueError(f'{language} = {values!r}: expected a table, [default] or [yor]')
    if language != 'default':
      language_codes.resolve(language)
    if unknown := sorted(set(values) - known):
      raise ValueError(f'[{language}]: no thresholds {unknown}; there are {sorted(known)}')
    try:
      made[language] = Thresholds(**{**default, **values})
    except ValueError as error:
      raise ValueError(f'[{language}]: {error}') from error
  return made


def prose(text: str) -> str:
  """A text without its protected pieces, which are in no language."""
  return ' '.join(t for t, fixed in protected_spans.fragments(text) if not fixed)


def weight(text: str) -> float:
  """Letters, marks and digits, as an alphabet would have them."""
  kept = [c for c in text if unicodedata.category(c)[0] in 'LN']
  return sum(_SPACELESS_WEIGHT if scripts.is_spaceless(c) else 1.0 for c in kept)


def numbers(text: str, how: str = 'same') -> Counter[str]:
  """The numbers of a text; with 'value' in ASCII digits and without separators."""
  found = [number.replace('−', '-') for number in _NUMBER.findall(text)]
  if how == 'value':
    found = [_value(number) for number in found]
  return Counter(found)


def _value(number: str) -> str:
  digits = ''.join(str(unicodedata.digit(c)) for c in number if c.isdigit())
  return '-' * number.startswith('-') + digits if digits else number


def _answer(text: str) -> str:
  return ' '.join(text.split()).rstrip('.。।!?')


def _stands_in(answer: str, text: str) -> bool:
  """As whole words; scripts without spaces have none."""
  before = r'(?<!\w)' if not scripts.is_spaceless(answer[0]) else ''
  after = r'(?!\w)' if not scripts.is_spaceless(answer[-1]) else ''
  found = before + re.escape(answer) + after
  return bool(re.search(found, ' '.join(text.split())))


def _protected(text: str) -> Counter[str]:
  return Counter(t for t, fixed in protected_spans.fragments(text) if fixed)


def _bare(text: str) -> str:
  return ''.join(c for c in text.lower() if c.isalpha())


def _same_language(pair: Pair) -> bool:
  return pair.source_language == pair.language


def _variety_known(pair: Pair) -> bool:
  return answer_language.supported(pair.language)


def _longest_loop(text: str) -> int:
  return max((len(m[0]) for m in _LOOP.finditer(text) if m[1].strip()), default=0)

"""Numbers in answers, in every digit system and with every style of separators.

'1,234.5', '1.234,5', '1 234,5' and '12,34,567' are numbers; so are '१२३', '三百五十', '3万5千',
'3/4', '1½' and '−5'. What is ambiguous ('1.234') is read as the language writes numbers, and as
thousands where none is given; `readings` has both.
"""

import functools
import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from aya_train.tasks.languages import language_codes
from aya_train.tasks.metrics import intervals, references

_SPACES = '\u00a0\u202f\u2009 '
_APOSTROPHES = "'’"
_MARKS = str.maketrans({'−': '-', '–': '-', '﹣': '-', '－': '-', '\u2044': '/'})
_CURRENCY = '$€£¥₹₦₩₽฿៛₭₫₪₱₵﷼৳'
_TOKEN = re.compile(
  rf'(?<![\d.,])(?P<sign>(?<![\w)\]%])-(?=[{_CURRENCY}]?[\d.])[{_CURRENCY}]?)?'
  rf'(?P<number>\d+(?:[.,٫٬{_APOSTROPHES}{_SPACES}_]\d+)*|[.]\d+)'
)
_GROUPS = re.compile(r'\d{1,3}(?:\d{3})+|\d{1,2}(?:\d{2})*\d{3}')
_FRACTION = re.compile(r'\s?/\s?(\d+)(?![\d/])')
_UNIT_POWER = re.compile(r'(?<![^\W\d_])(?:km|cm|mm|dm|m|ft|in|м|км|см)$')

_HAN_DIGITS = {c: n for n, row in enumerate(
  ('零〇', '一壹壱弌', '二贰貳弐两兩', '三叁參参', '四肆', '五伍', '六陆陸', '七柒', '八捌', '九玖')
) for c in row}  # fmt: skip
_HAN_UNITS = {'十': 10, '拾': 10, '百': 100, '佰': 100, '千': 1000, '仟': 1000}
_HAN_MYRIADS = {'万': 10**4, '萬': 10**4, '亿': 10**8, '億': 10**8, '兆': 10**12}
_HAN = re.compile(f'[{"".join([*_HAN_DIGITS, *_HAN_UNITS, *_HAN_MYRIADS])}]+')
# After digits: 3万5千, but 5千克 is a weight and 5千米 a length.
_MULTIPLIER = re.compile(r'\s?([万萬亿億兆]|[百千](?![克米瓦卡赫帕焦]))')
_ETHIOPIC = re.compile('[\u1369-\u137c]+')
_ETHIOPIC_HUNDRED, _ETHIOPIC_MYRIAD = '\u137b', '\u137c'


def _plain(text: str) -> str:
  """Every decimal digit as ASCII, fractions as n/d, raised and lowered digits gone."""
  kept = []
  for character in text.translate(_MARKS):
    category = unicodedata.category(character)
    if category == 'Nd':
      kept.append(str(unicodedata.decimal(character)))
    elif category == 'No' and unicodedata.decomposition(character).startswith(('<super>', '<sub>')):
      continue
    elif category == 'No' and '<fraction>' in unicodedata.decomposition(character):
      value = Fraction(unicodedata.numeric(character)).limit_denominator(1000)
      kept.append(f' {value.numerator}/{value.denominator}')
    elif category == 'Cf':
      continue
    elif '\uff00' <= character <= '\uffef':
      kept.append(unicodedata.normalize('NFKC', character))
    else:
      kept.append(character)
  return ''.join(kept)


@functools.lru_cache(maxsize=512)
def separators(language: str) -> tuple[str, str]:
  """(decimal, group) of a language as CLDR writes numbers; ('', '') where it is not known.

  A group separator that is any space is ' '.
  """
  if not language:
    return '', ''
  import babel

  from aya_train.tasks.languages import aya101

  try:
    code = language_codes.resolve(language).code
    known = aya101.BY_CODE.get(code)
    locale = babel.Locale.parse((known.cldr if known else None) or code, sep='_')
  except (ValueError, babel.UnknownLocaleError):
    return '', ''
  symbols = locale.number_symbols.get('latn') or {}
  decimal, group = symbols.get('decimal', '.'), symbols.get('group', ',')
  return decimal, ' ' if group in _SPACES else group.replace('’', "'")


def _groups_fit(parts: Sequence[str]) -> bool:
  """Whether digits between separators are thousands, or Indian groups of two before the last."""
  first, *middle, last = parts
  if len(last) != 3 or not 1 <= len(first) <= 3 or first == '0':
    return False
  sizes = {len(part) for part in middle}
  return sizes <= {3} or (sizes <= {2} and len(first) <= 2)


def _split_lists(token: str, language: str) -> list[str]:
  """Parts of what the pattern took for one number: at spaces, unless they group digits."""
  pieces = re.split(f'[{_SPACES}]', token)
  if len(pieces) == 1:
    return pieces
  whole = re.split('[.,]', pieces[-1])[0]
  only_digits = all(piece.isdigit() for piece in pieces[:-1])
  narrow = not re.search(' ', token)
  spaced = narrow or separators(language)[1] == ' ' or len(pieces) > 2
  if (
    spaced
    and only_digits
    and _groups_fit([*pieces[:-1], whole])
    and all(len(piece) == 3 for piece in pieces[1:-1])
  ):
    return [''.join(pieces)]
  return pieces


def _readings(token: str, language: str) -> list[tuple[Fraction, ...]]:
  """What digits with separators may be: the likeliest first, each a number or a list of them."""
  token = re.sub(f'[{_APOSTROPHES}_٬]', '', token)
  if token.count('٫') == 1 and re.fullmatch(r'\d+٫\d+', token):
    return [(_decimal(*token.split('٫')),)]  # Arabic's marks say what they are
  token = token.replace('٫', ',')
  marks = [c for c in token if c in '.,']
  if not marks:
    return [(Fraction(int(token)),)]
  parts = re.split('[.,]', token)
  as_list = tuple(Fraction(int(part)) for part in parts if part)
  if len({*marks}) == 2:
    last = marks[-1]
    whole, _, decimals = token.rpartition(last)
    if last not in marks[:-1] and _groups_fit(re.split('[.,]', whole)):
      return [(_decimal(whole, decimals),)]
    return [as_list]
  if len(marks) > 1:
    return [(Fraction(int(''.join(parts))),)] if _groups_fit(parts) else [as_list]
  decimal = (_decimal(*parts),)
  if not _groups_fit(parts):
    return [decimal]
  grouped = (Fraction(int(''.join(parts))),)
  return [decimal, grouped] if marks[0] == separators(language)[0] else [grouped, decimal]


def _decimal(whole: str, decimals: str) -> Fraction:
  whole = re.sub('[.,]', '', whole) or '0'
  return Fraction(int(whole + decimals), 10 ** len(decimals))


def han(text: str) -> Fraction | None:
  """Value of a Chinese or Japanese numeral: 三百五十 350, 二〇二四 2024; None of what is none."""
  if all(character in _HAN_DIGITS for character in text):
    return Fraction(int(''.join(str(_HAN_DIGITS[character]) for character in text)))
  total = section = digit = 0
  for character in text:
    if character in _HAN_DIGITS:
      digit = _HAN_DIGITS[character]
    elif character in _HAN_UNITS:
      section += (digit or 1) * _HAN_UNITS[character]
      digit = 0
    else:
      if not section + digit + total:
        return None
      total = (total + section + digit) * _HAN_MYRIADS[character] if (
        total and total < _HAN_MYRIADS[character]
      ) else total + (section + digit) * _HAN_MYRIADS[character]  # fmt: skip
      section = digit = 0
  return Fraction(total + section + digit)


def _ethiopic(text: str) -> Fraction:
  """Value of an Ethiopic numeral: ፻፳፫ 123; a hundred or myriad without a factor is one."""
  total = group = pair = 0
  for character in text:
    if character == _ETHIOPIC_HUNDRED:
      group, pair = (pair or 1) * 100, 0
    elif character == _ETHIOPIC_MYRIAD:
      total, group, pair = (total + (group + pair or 1)) * 10_000, 0, 0
    else:
      pair += int(unicodedata.numeric(character))
  return Fraction(total + group + pair)


def _of_token(found: re.Match[str], text: str, language: str) -> tuple[list[list[Fraction]], int]:
  """Readings of each number in a match, and where the text goes on after them."""
  end, readings = found.end(), []
  for token in _split_lists(found['number'], language):
    choices = _readings(token, language)
    readings += (
      [[Fraction(value)] for value in choices[0]]
      if len(choices[0]) > 1
      else [[choice[0] for choice in choices]]
    )
  dated = text[: found.start()].endswith('/')  # 10/12/2023
  over = None if dated else _FRACTION.match(text, end)
  if over and int(over[1]) and found['number'].isdigit():
    readings[-1], end = [readings[-1][0] / int(over[1])], over.end()
  elif over and int(over[1]) and (whole := re.fullmatch(r'(\d+) (\d+)', found['number'])):
    readings = [[int(whole[1]) + Fraction(int(whole[2]), int(over[1]))]]  # 1 1/2
    end = over.end()
  if (factor := _MULTIPLIER.match(text, end)) and readings:
    size = {**_HAN_UNITS, **_HAN_MYRIADS}[factor[1]]
    readings[-1] = [value * size for value in readings[-1]]
    end = factor.end()
  if found['sign']:
    readings[0] = [-value for value in readings[0]]
  return readings, end


def _all_readings(text: str, language: str) -> list[list[Fraction]]:
  text = _plain(text)
  found: list[list[Fraction]] = []
  place, myriads = 0, -1  # where a number with a factor ended: 3万5千 is one number
  while match := _TOKEN.search(text, place):
    place = match.end()
    if _UNIT_POWER.search(text[: match.start()]) and len(match['number']) == 1:
      continue  # m2
    readings, place = _of_token(match, text, language)
    has_factor = text[place - 1] in _HAN_UNITS or text[place - 1] in _HAN_MYRIADS
    if myriads == match.start() and found and len(readings) == 1:
      found[-1] = [value + readings[0][0] for value in found[-1]]
    else:
      found += readings
    myriads = place if has_factor else -1
  if found:
    return found
  return [[_ethiopic(run)] for run in _ETHIOPIC.findall(text)] or [
    [value] for run in _HAN.findall(text) if (value := han(run)) is not None
  ]


def numbers(text: str, language: str = '') -> list[Fraction]:
  """All numbers of a text in order, exactly.

  Numerals of Han and Ethiopic script count where the text has no digits.

  >>> [str(n) for n in numbers('1,234.5 und 1.234,5; -3 + 2½ = १२')]
  ['2469/2', '2469/2', '-3', '5/2', '12']
  """
  return [choices[0] for choices in _all_readings(text, language)]


def last_number(text: str, language: str = '') -> Fraction | None:
  """The last number of an answer; None where it has none."""
  return next(reversed(numbers(text, language)), None)


def readings(text: str, language: str = '') -> list[Fraction]:
  """All that the last number may be: '1.234' is 1234 or 1.234; [] without a number."""
  return next(reversed(_all_readings(text, language)), [])


def is_right(found: Sequence[str], prediction: str, language: str = '') -> bool:
  """Whether the last number of an answer, in any of its readings, is that of a reference."""
  given = readings(prediction, language)
  return any(value in given for text in found for value in readings(text, language))


def mgsm(
  targets: Sequence[Any], predictions: Sequence[str], *, language: str = ''
) -> dict[str, float]:
  """`accuracy`: percent of answers whose last number is right; `answered`: that have a number.

  Args:
    language: of the task, for ambiguous separators; that of an example's `References` goes before.
  """
  found, answers, note = references.scored(targets, predictions)
  codes = [references.language(t, language) for t in targets if references.texts(t)]
  rows = list(zip(found, answers, codes, strict=True))
  return (
    intervals.percent('accuracy', [is_right(*row) for row in rows])
    | intervals.percent('answered', [bool(readings(answer, code)) for _, answer, code in rows])
    | note
  )

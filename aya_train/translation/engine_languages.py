"""What translation models call the languages: NLLB, MADLAD-400, M2M-100, OPUS-MT, in one table.

Any code that `language_codes.resolve` takes names a language. A model's own vocabulary says which
it has: the names that a language could go by are tried in order, and the first that the vocabulary
holds is taken. So a release with more or fewer languages than another needs no table of its own.
"""

import dataclasses
import difflib
from collections.abc import Collection, Sequence
from typing import Literal

import babel.core

from aya_train.tasks.languages import aya101, language_codes
from aya_train.translation import language_forms

Family = Literal['nllb', 'madlad', 'm2m100', 'opus', 'prompted']
FAMILIES: tuple[Family, ...] = ('nllb', 'madlad', 'm2m100', 'opus', 'prompted')

# NLLB-200's token where it is not the FLORES code of the 101's table: FLORES-200 says jpn_Jpan, and
# the released vocabulary sat_Beng for Santali, though its text is in Ol Chiki.
_NLLB_OTHER = {'kor_Kore': 'kor_Hang', 'sat_Olck': 'sat_Beng', 'zho_Hani': 'zho_Hans'}

# Two-letter tags that M2M-100 has in another form than ISO 639 or CLDR.
_M2M_OTHER = {'nso': 'ns', 'fil': 'tl', 'heb': 'he', 'nor': 'no'}

_CHINESE = {'Hani': 'Hans'}  # which models call Chinese in simplified characters

# Languages that one family has as a whole and another by the member that is usual for it.
_MEMBERS = {
  'aym': ('ayr',),
  'ful': ('fuv', 'fuc', 'fub', 'fuf'),
  'kau': ('knc',),
  'orm': ('gaz',),
  'que': ('quy',),
}

# Tags of MADLAD-400 in other forms than mC4's, by ISO 639-3; its tags are BCP 47's.
_MADLAD_OTHER = {'heb': 'iw', 'jav': 'jv', 'nor': 'no', 'twi': 'ak', 'kur': 'ku', 'zho': 'zh'}


class LacksLanguageError(ValueError):
  """A model has no name of a language; the message says which it does have."""


@dataclasses.dataclass(frozen=True)
class Named:
  """A language as a model has it.

  Attributes:
    asked: the code as the user gave it.
    code: ISO 639-3, of the 101 where it is one of them.
    script: ISO 15924, in which the model writes it.
    token: in the model's vocabulary: 'yor_Latn', '<2yo>', '__yo__', '>>yor<<'; '' of a model that
      takes none.
  """

  asked: str
  code: str
  script: str
  token: str


def family_of(vocabulary: Collection[str]) -> Family | None:
  """The family of models that a vocabulary's tokens of languages say; None without any.

  Args:
    vocabulary: all tokens.
  """
  if 'eng_Latn' in vocabulary:
    return 'nllb'
  if '<2en>' in vocabulary:
    return 'madlad'
  if '__en__' in vocabulary:
    return 'm2m100'
  if any(token.startswith('>>') and token.endswith('<<') for token in vocabulary):
    return 'opus'
  return None


def find(asked: str, family: Family, vocabulary: Collection[str]) -> Named:
  """The token of a language.

  Args:
    asked: any code of `language_codes`, or the model's own ('arz_Arab', '<2zh_Hant>').
    family: of the model.
    vocabulary: all its tokens.

  Raises:
    language_codes.UnknownLanguageError: no table has the code.
    LacksLanguageError: the model lacks the language, or has it in another script only.
  """
  code = language_forms.code_of(asked)
  variety = _variety(asked)
  if family == 'prompted':
    return Named(asked, variety.code, variety.script, '')
  own = _own(asked, family)
  if own in vocabulary:
    return Named(asked, variety.code, _script_of(own, variety.script), own)
  if family == 'opus' and family_of(vocabulary) is None:  # of one pair
    return Named(asked, variety.code, variety.script, '')
  for token in candidates(code, family):
    if token in vocabulary:
      return Named(asked, variety.code, _script_of(token, variety.script), token)
  has = languages_of(family, vocabulary)
  near = [token for token in has if _code_of(token) == variety.code]
  near = near or difflib.get_close_matches(code, has, n=4, cutoff=0.6)
  said = f', the nearest of which are {", ".join(near[:4])}' if near else ''
  raise LacksLanguageError(
    f'the model has no {aya101.described(variety.code)} in {variety.script}, asked for as '
    f'{asked!r} (looked for {", ".join(candidates(code, family)[:6]) or "no other"}); it has '
    f'{len(has)} languages{said}: {", ".join(has[:12])}{" ..." if len(has) > 12 else ""}'
  )


def find_all(asked: Sequence[str], family: Family, vocabulary: Collection[str]) -> list[Named]:
  """`find` of several, each once; all that the model lacks are named in one message.

  Raises:
    LacksLanguageError, language_codes.UnknownLanguageError: as `find`.
    ValueError: two codes are the same language for the model.
  """
  found: dict[str, Named] = {}
  lacking = []
  for code in asked:
    try:
      named = find(code, family, vocabulary)
    except LacksLanguageError as error:
      lacking.append(str(error))
      continue
    key = named.token or f'{named.code}_{named.script}'
    if key in found:
      raise ValueError(f'{found[key].asked!r} and {code!r} are both {key}: name it once')
    found[key] = named
  if lacking:
    raise LacksLanguageError('\n'.join(lacking))
  return list(found.values())


def spoken(code: str, family: Family, vocabulary: Collection[str]) -> Named:
  """The language of a source: its token where the family is told it, else none is needed.

  NLLB and M2M-100 are told both languages, MADLAD-400 and OPUS-MT the target alone.

  Raises:
    LacksLanguageError, language_codes.UnknownLanguageError: as `find`.
  """
  if family in ('nllb', 'm2m100'):
    return find(code, family, vocabulary)
  variety = _variety(code)
  return Named(code, variety.code, variety.script, '')


def candidates(asked: str, family: Family) -> list[str]:
  """Tokens that a language may have in the vocabularies of a family, the likeliest first."""
  variety = _variety(asked)
  made = {
    'nllb': _nllb,
    'madlad': lambda a, v: [f'<2{tag}>' for tag in _madlad(a, v)],
    'm2m100': lambda a, v: [f'__{tag}__' for tag in _m2m(a, v)],
    'opus': lambda a, v: [f'>>{tag}<<' for tag in _opus(a, v)],
  }[family](asked, variety)
  return list(dict.fromkeys(made))


def languages_of(family: Family, vocabulary: Collection[str]) -> list[str]:
  """Tokens of languages in a vocabulary, sorted."""
  fits = {
    'nllb': lambda t: len(t) == 8 and t[3] == '_' and t[:3].islower() and t[4:].istitle(),
    'madlad': lambda t: t.startswith('<2') and t.endswith('>'),
    'm2m100': lambda t: len(t) > 4 and t.startswith('__') and t.endswith('__'),
    'opus': lambda t: t.startswith('>>') and t.endswith('<<'),
  }.get(family, lambda t: False)
  return sorted(token for token in vocabulary if fits(token))


def _own(asked: str, family: Family) -> str:
  plain = asked.strip().strip('<>_')
  return {
    'nllb': asked.strip().replace('-', '_'),
    'madlad': f'<2{plain.removeprefix("2")}>',
    'm2m100': f'__{plain}__',
    'opus': f'>>{plain}<<',
  }.get(family, asked)


def _code_of(token: str) -> str:
  try:
    return _variety(token).code
  except language_codes.UnknownLanguageError:
    return ''


def _variety(asked: str) -> language_codes.Variety:
  try:
    return language_codes.resolve(language_forms.code_of(asked))
  except language_codes.UnknownLanguageError as error:
    near = language_forms.nearest(asked)
    said = f'; did you mean {" or ".join(near)}?' if near else ''
    raise language_codes.UnknownLanguageError(
      f'unknown language {asked!r}: no table here has it as a code of ISO 639, BCP 47 or FLORES, '
      f'or as an English name{said}'
    ) from error


def _names_script(asked: str) -> bool:
  last = asked.strip('<>_ ').replace('-', '_').rpartition('_')[2]
  return '_' in asked.strip('<>_ ').replace('-', '_') and len(last) == 4


def _script_of(token: str, usual: str) -> str:
  last = token.strip('<>_').rpartition('_')[2]
  return last if len(last) == 4 and last.istitle() else usual


def _first(asked: str) -> str:
  """The code of the language alone, lower case; of Nynorsk in three letters."""
  first = asked.strip('<>_ ').replace('-', '_').partition('_')[0].lower().removeprefix('2')
  return {'nn': 'nno'}.get(first, first)


def _nllb(asked: str, variety: language_codes.Variety) -> list[str]:
  """FLORES codes: that which was asked for, then those of the 101's row in the same script.

  Of a language that FLORES has in several scripts or dialects (Kurdish, Arabic, Norwegian) the
  row's first is the default, and the others are asked for by their own code.
  """
  own = f'{_first(asked)}_{variety.script}'
  made = [own, f'{variety.code}_{variety.script}']
  made += [f'{code}_{variety.script}' for code in _MEMBERS.get(variety.code, ())]
  if variety.of_aya:
    flores = aya101.BY_CODE[variety.code].flores
    made += [code for code in flores if code.endswith(variety.script)]
    made += [] if _names_script(asked) else flores
  made = [_NLLB_OTHER.get(code, code) for code in made]
  return made + ['jpn_Jpan'] * (variety.code == 'jpn')


def _dialect(asked: str, variety: language_codes.Variety) -> str:
  """An individual language beside the one that its macrolanguage stands for, else ''.

  Egyptian Arabic is not to become Modern Standard Arabic where a model has only that.
  """
  first = _first(asked)
  if not variety.of_aya:
    return ''
  others = [code.partition('_')[0] for code in aya101.BY_CODE[variety.code].flores[1:]]
  usual = aya101.BY_CODE[variety.code].flores[:1]
  return first if first in others and first not in (variety.code, usual[0][:3]) else ''


def _tags(asked: str, variety: language_codes.Variety) -> list[str]:
  """Two-letter tags of a language, where it has any, then its three letters."""
  made: list[str | None] = []
  if dialect := _dialect(asked, variety):
    two = babel.core.get_global('language_aliases').get(dialect)
    return [tag for tag in (two, dialect) if tag and tag not in ('ar', 'no', 'ku', 'az')]
  if variety.of_aya:
    row = aya101.BY_CODE[variety.code]
    made += [row.mc4, row.cldr]
  aliases = babel.core.get_global('language_aliases')
  made += [aliases.get(variety.code), variety.code]
  made += [aliases.get(whole, whole) for whole, of in _MEMBERS.items() if variety.code in of]
  return [tag for tag in made if tag]


def _is_usual(asked: str, variety: language_codes.Variety) -> bool:
  """Whether the language, or the dialect that was asked for, is written so if nobody says how."""
  first = _first(asked)
  known = first if language_forms.is_known(first) else variety.code
  usual = language_codes.resolve(known).script
  return _CHINESE.get(usual, usual) == _CHINESE.get(variety.script, variety.script)


def _madlad(asked: str, variety: language_codes.Variety) -> list[str]:
  other = None if _dialect(asked, variety) else _MADLAD_OTHER.get(variety.code)
  tags = [t for t in (other, *_tags(asked, variety)) if t]
  marked = [f'{tag}_{variety.script}' for tag in tags]
  # Another script than the usual one has a tag with the script or none at all.
  return marked + tags if _is_usual(asked, variety) else marked


def _m2m(asked: str, variety: language_codes.Variety) -> list[str]:
  if not _is_usual(asked, variety):
    return []
  other = None if _dialect(asked, variety) else _M2M_OTHER.get(variety.code)
  return [t for t in (other, *_tags(asked, variety)) if t]


def _opus(asked: str, variety: language_codes.Variety) -> list[str]:
  first = asked.partition('_')[0].strip('<>').lower()
  codes = [first, *_tags(asked, variety)]
  if variety.of_aya and not _dialect(asked, variety):
    codes += [code.partition('_')[0] for code in aya101.BY_CODE[variety.code].flores]
  marked = [f'{code}_{variety.script}' for code in codes]
  return [*codes, *marked] if _is_usual(asked, variety) else marked

"""The forms in which people name a language: ISO 639-1, -2 and -3, BCP 47, FLORES, English names.

`code_of` brings them to one that `language_codes.resolve` and the tables of models take. What names
a dialect ('Egyptian Arabic', 'arz') stays that dialect.
"""

import difflib
import functools
from collections.abc import Mapping

import babel

from aya_train.tasks.languages import aya101, language_codes, language_names

# ISO 639-1, of languages beyond those that `language_codes` has two letters of.
_TWO = """
aa:aar ab:abk av:ava ba:bak bi:bis bo:bod br:bre bs:bos ce:che ch:cha co:cos cr:cre cs:ces cv:chv
dv:div dz:dzo ee:ewe ff:ful fj:fij fo:fao gv:glv ho:hmo hz:her ia:ina ie:ile ii:iii ik:ipk io:ido
iu:iku kg:kon kj:kua kr:kau kl:kal ks:kas kv:kom kw:cor li:lim lu:lub mh:mah na:nau nd:nde ng:ndo
nr:nbl nv:nav oc:oci oj:oji om:orm os:oss pi:pli rm:roh sa:san sc:srd se:sme sg:sag ss:ssw ti:tir
tk:tuk to:ton tt:tat ty:tah ug:uig ve:ven vo:vol wa:wln za:zha
"""
# Bibliographic codes of ISO 639-2, codes that were withdrawn, and individual languages of Estonian
# and Persian, which the tables have as one.
_OLD = """
alb:sqi arm:hye baq:eus bur:mya chi:zho cze:ces dut:nld fre:fra geo:kat ger:deu gre:ell ice:isl
mac:mkd mao:mri may:msa per:pes rum:ron slo:slk tib:bod wel:cym in:ind iw:heb ji:yid jw:jav mo:ron
mol:ron scc:srp scr:hrv sh:hbs ekk:est ns:nso
"""
_ALIASES: Mapping[str, str] = dict(pair.split(':') for pair in f'{_TWO} {_OLD}'.split())
# Countries whose Chinese is written in another script than the usual.
_SCRIPTS = {'tw': 'Hant', 'hk': 'Hant', 'mo': 'Hant', 'cn': 'Hans', 'sg': 'Hans', 'my': 'Hans'}


def code_of(asked: str) -> str:
  """A code that the tables have, for any form; the form itself where none does.

  Args:
    asked: 'pt-BR', 'zh-TW', 'ger', 'sr-Cyrl-RS', 'Egyptian Arabic', '<2yo>', '__yo__'.
  """
  plain = asked.strip()
  bare = plain.strip('<>_ ')
  plain = bare.removeprefix('2') if plain.startswith('<2') else bare
  if (named := _named(plain)) is not None:
    return named
  if is_known(plain):
    return plain
  first, *rest = plain.lower().replace('-', '_').split('_')
  first = _ALIASES.get(first, first)
  script = next((part.title() for part in rest if len(part) == 4 and part.isalpha()), '')
  if not script and first in ('zh', 'zho', 'cmn'):
    script = next((_SCRIPTS[part] for part in rest if part in _SCRIPTS), '')
  made = f'{first}_{script}' if script else first
  return made if is_known(made) else plain


def nearest(asked: str, known: Mapping[str, str] | None = None) -> list[str]:
  """Names and codes that are like what was asked for, at most four: 'Yoruba (yor)'."""
  names = _names() if known is None else known
  found = difflib.get_close_matches(asked.strip().lower(), names, n=4, cutoff=0.7)
  return list(dict.fromkeys(aya101.described(names[name].partition('_')[0]) for name in found))


@functools.cache
def _names() -> Mapping[str, str]:
  """Codes by English name, lower case: our own, then CLDR's."""
  made = {language.name.lower(): language.code for language in aya101.LANGUAGES}
  made |= language_names.NAMES
  for code, name in babel.Locale('en').languages.items():
    found = _ALIASES.get(code, code)
    if is_known(found):
      made.setdefault(name.lower(), found)
  return made


def _named(text: str) -> str | None:
  """The code of an English name: 'Egyptian Arabic', 'Chinese (Traditional)'."""
  words = ' '.join(text.lower().replace('_', ' ').replace('’', "'").split())
  turned = ' '.join(reversed([part.strip(' )') for part in words.split('(')]))
  if len(words) < 4:
    return None
  return next((_names()[w] for w in (words, turned) if w in _names()), None)


def is_known(code: str) -> bool:
  """Whether `language_codes.resolve` has a code."""
  try:
    language_codes.resolve(code)
  except language_codes.UnknownLanguageError:
    return False
  return True

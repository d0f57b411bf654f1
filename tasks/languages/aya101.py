"""The 101 languages of Aya-101 and the 101 of mT5, which are not the same list.

Names, scripts and resource levels are those of the model card of CohereForAI/aya-101 (24 high,
26 mid, 51 low; Romanian is mid, as the totals require). The mC4 tags are mT5's. Codes of the
data sources, also of languages outside the 101, are in `language_codes`.
"""

import dataclasses
import functools
from typing import Literal

import babel
from babel import core

from aya_train.tasks.languages import language_names

Level = Literal['high', 'mid', 'low']


@dataclasses.dataclass(frozen=True)
class Language:
  """One row of the table; a code system that lacks the language says None.

  Attributes:
    code: ISO 639-3, as in the Aya data sets ('yor').
    name: English name on the model card.
    script: script on the model card ('Arabic/Latin' for Azerbaijani).
    script_code: ISO 15924 code of the script in which mC4 and CLDR write the language.
    level: resource level, after the classes of Joshi et al. 2020 (5 and 4, 3, 2 to 0).
    mc4: tag in mC4, and so in mT5's pretraining ('iw' for Hebrew).
    cldr: CLDR locale with tables of the language's own ('ak' carries Twi), read by tasks.cldr.
    flores: its codes in FLORES-200 ('azj_Latn', 'azb_Arab'); none for Latin and Frisian.
    xp3x: its folders in xP3x: those of FLORES-200, and others ('aze_Latn').
    xp3: its folder in xP3, xP3mt and xP3all ('yo'), None where they lack it.
  """

  code: str
  name: str
  script: str
  script_code: str
  level: Level
  mc4: str | None
  cldr: str | None

  @property
  def flores(self) -> tuple[str, ...]:
    return _FLORES.get(self.code, (f'{self.code}_{self.script_code}',))

  @property
  def xp3x(self) -> tuple[str, ...]:
    return self.flores + _XP3X_BESIDE_FLORES.get(self.code, ())

  @property
  def xp3(self) -> str | None:
    return _XP3.get(self.code)


LANGUAGES: tuple[Language, ...] = (
  Language('afr', 'Afrikaans', 'Latin', 'Latn', 'mid', 'af', 'af'),
  Language('amh', 'Amharic', "Ge'ez", 'Ethi', 'low', 'am', 'am'),
  Language('ara', 'Arabic', 'Arabic', 'Arab', 'high', 'ar', 'ar'),
  Language('aze', 'Azerbaijani', 'Arabic/Latin', 'Latn', 'low', 'az', 'az'),
  Language('bel', 'Belarusian', 'Cyrillic', 'Cyrl', 'mid', 'be', 'be'),
  Language('ben', 'Bengali', 'Bengali', 'Beng', 'mid', 'bn', 'bn'),
  Language('bul', 'Bulgarian', 'Cyrillic', 'Cyrl', 'mid', 'bg', 'bg'),
  Language('cat', 'Catalan', 'Latin', 'Latn', 'high', 'ca', 'ca'),
  Language('ceb', 'Cebuano', 'Latin', 'Latn', 'mid', 'ceb', 'ceb'),
  Language('ces', 'Czech', 'Latin', 'Latn', 'high', 'cs', 'cs'),
  Language('cym', 'Welsh', 'Latin', 'Latn', 'low', 'cy', 'cy'),
  Language('dan', 'Danish', 'Latin', 'Latn', 'mid', 'da', 'da'),
  Language('deu', 'German', 'Latin', 'Latn', 'high', 'de', 'de'),
  Language('ell', 'Greek', 'Greek', 'Grek', 'mid', 'el', 'el'),
  Language('eng', 'English', 'Latin', 'Latn', 'high', 'en', 'en'),
  Language('epo', 'Esperanto', 'Latin', 'Latn', 'low', 'eo', 'eo'),
  Language('est', 'Estonian', 'Latin', 'Latn', 'mid', 'et', 'et'),
  Language('eus', 'Basque', 'Latin', 'Latn', 'high', 'eu', 'eu'),
  Language('fil', 'Tagalog', 'Latin', 'Latn', 'mid', 'fil', 'fil'),
  Language('fin', 'Finnish', 'Latin', 'Latn', 'high', 'fi', 'fi'),
  Language('fra', 'French', 'Latin', 'Latn', 'high', 'fr', 'fr'),
  Language('fry', 'Western Frisian', 'Latin', 'Latn', 'low', 'fy', 'fy'),
  Language('gla', 'Scottish Gaelic', 'Latin', 'Latn', 'low', 'gd', 'gd'),
  Language('gle', 'Irish', 'Latin', 'Latn', 'low', 'ga', 'ga'),
  Language('glg', 'Galician', 'Latin', 'Latn', 'mid', 'gl', 'gl'),
  Language('guj', 'Gujarati', 'Gujarati', 'Gujr', 'low', 'gu', 'gu'),
  Language('hat', 'Haitian Creole', 'Latin', 'Latn', 'low', 'ht', None),
  Language('hau', 'Hausa', 'Latin', 'Latn', 'low', 'ha', 'ha'),
  Language('heb', 'Hebrew', 'Hebrew', 'Hebr', 'mid', 'iw', 'he'),
  Language('hin', 'Hindi', 'Devanagari', 'Deva', 'high', 'hi', 'hi'),
  Language('hun', 'Hungarian', 'Latin', 'Latn', 'high', 'hu', 'hu'),
  Language('hye', 'Armenian', 'Armenian', 'Armn', 'low', 'hy', 'hy'),
  Language('ibo', 'Igbo', 'Latin', 'Latn', 'low', 'ig', 'ig'),
  Language('ind', 'Indonesian', 'Latin', 'Latn', 'mid', 'id', 'id'),
  Language('isl', 'Icelandic', 'Latin', 'Latn', 'low', 'is', 'is'),
  Language('ita', 'Italian', 'Latin', 'Latn', 'high', 'it', 'it'),
  Language('jav', 'Javanese', 'Latin', 'Latn', 'low', 'jv', 'jv'),
  Language('jpn', 'Japanese', 'Japanese', 'Jpan', 'high', 'ja', 'ja'),
  Language('kan', 'Kannada', 'Kannada', 'Knda', 'low', 'kn', 'kn'),
  Language('kat', 'Georgian', 'Georgian', 'Geor', 'mid', 'ka', 'ka'),
  Language('kaz', 'Kazakh', 'Cyrillic', 'Cyrl', 'mid', 'kk', 'kk'),
  Language('khm', 'Khmer', 'Khmer', 'Khmr', 'low', 'km', 'km'),
  Language('kir', 'Kyrgyz', 'Cyrillic', 'Cyrl', 'low', 'ky', 'ky'),
  Language('kor', 'Korean', 'Hangul', 'Kore', 'high', 'ko', 'ko'),
  Language('kur', 'Kurdish', 'Latin', 'Latn', 'low', 'ku', 'ku'),
  Language('lao', 'Lao', 'Lao', 'Laoo', 'low', 'lo', 'lo'),
  Language('lat', 'Latin', 'Latin', 'Latn', 'mid', 'la', 'la'),
  Language('lav', 'Latvian', 'Latin', 'Latn', 'mid', 'lv', 'lv'),
  Language('lit', 'Lithuanian', 'Latin', 'Latn', 'mid', 'lt', 'lt'),
  Language('ltz', 'Luxembourgish', 'Latin', 'Latn', 'low', 'lb', 'lb'),
  Language('mal', 'Malayalam', 'Malayalam', 'Mlym', 'low', 'ml', 'ml'),
  Language('mar', 'Marathi', 'Devanagari', 'Deva', 'low', 'mr', 'mr'),
  Language('mkd', 'Macedonian', 'Cyrillic', 'Cyrl', 'low', 'mk', 'mk'),
  Language('mlg', 'Malagasy', 'Latin', 'Latn', 'low', 'mg', 'mg'),
  Language('mlt', 'Maltese', 'Latin', 'Latn', 'low', 'mt', 'mt'),
  Language('mon', 'Mongolian', 'Cyrillic', 'Cyrl', 'low', 'mn', 'mn'),
  Language('mri', 'Maori', 'Latin', 'Latn', 'low', 'mi', 'mi'),
  Language('msa', 'Malay', 'Latin', 'Latn', 'mid', 'ms', 'ms'),
  Language('mya', 'Burmese', 'Myanmar', 'Mymr', 'low', 'my', 'my'),
  Language('nep', 'Nepali', 'Devanagari', 'Deva', 'low', 'ne', 'ne'),
  Language('nld', 'Dutch', 'Latin', 'Latn', 'high', 'nl', 'nl'),
  Language('nor', 'Norwegian', 'Latin', 'Latn', 'low', 'no', 'no'),
  Language('nso', 'Northern Sotho', 'Latin', 'Latn', 'low', None, 'nso'),
  Language('nya', 'Chichewa', 'Latin', 'Latn', 'low', 'ny', 'ny'),
  Language('ory', 'Oriya', 'Oriya', 'Orya', 'low', None, 'or'),
  Language('pan', 'Punjabi', 'Gurmukhi', 'Guru', 'low', 'pa', 'pa'),
  Language('pes', 'Persian', 'Arabic', 'Arab', 'high', 'fa', 'fa'),
  Language('pol', 'Polish', 'Latin', 'Latn', 'high', 'pl', 'pl'),
  Language('por', 'Portuguese', 'Latin', 'Latn', 'high', 'pt', 'pt'),
  Language('pus', 'Pashto', 'Arabic', 'Arab', 'low', 'ps', 'ps'),
  Language('ron', 'Romanian', 'Latin', 'Latn', 'mid', 'ro', 'ro'),
  Language('rus', 'Russian', 'Cyrillic', 'Cyrl', 'high', 'ru', 'ru'),
  Language('sin', 'Sinhala', 'Sinhala', 'Sinh', 'low', 'si', 'si'),
  Language('slk', 'Slovak', 'Latin', 'Latn', 'mid', 'sk', 'sk'),
  Language('slv', 'Slovenian', 'Latin', 'Latn', 'mid', 'sl', 'sl'),
  Language('smo', 'Samoan', 'Latin', 'Latn', 'low', 'sm', None),
  Language('sna', 'Shona', 'Latin', 'Latn', 'low', 'sn', 'sn'),
  Language('snd', 'Sindhi', 'Arabic', 'Arab', 'low', 'sd', 'sd'),
  Language('som', 'Somali', 'Latin', 'Latn', 'low', 'so', 'so'),
  Language('sot', 'Southern Sotho', 'Latin', 'Latn', 'low', 'st', 'st'),
  Language('spa', 'Spanish', 'Latin', 'Latn', 'high', 'es', 'es'),
  Language('sqi', 'Albanian', 'Latin', 'Latn', 'low', 'sq', 'sq'),
  Language('srp', 'Serbian', 'Cyrillic', 'Cyrl', 'high', 'sr', 'sr'),
  Language('sun', 'Sundanese', 'Latin', 'Latn', 'low', 'su', 'su'),
  Language('swa', 'Swahili', 'Latin', 'Latn', 'low', 'sw', 'sw'),
  Language('swe', 'Swedish', 'Latin', 'Latn', 'high', 'sv', 'sv'),
  Language('tam', 'Tamil', 'Tamil', 'Taml', 'mid', 'ta', 'ta'),
  Language('tel', 'Telugu', 'Telugu', 'Telu', 'low', 'te', 'te'),
  Language('tgk', 'Tajik', 'Cyrillic', 'Cyrl', 'low', 'tg', 'tg'),
  Language('tha', 'Thai', 'Thai', 'Thai', 'mid', 'th', 'th'),
  Language('tur', 'Turkish', 'Latin', 'Latn', 'high', 'tr', 'tr'),
  Language('twi', 'Twi', 'Latin', 'Latn', 'low', None, 'ak'),
  Language('ukr', 'Ukrainian', 'Cyrillic', 'Cyrl', 'mid', 'uk', 'uk'),
  Language('urd', 'Urdu', 'Arabic', 'Arab', 'mid', 'ur', 'ur'),
  Language('uzb', 'Uzbek', 'Latin', 'Latn', 'mid', 'uz', 'uz'),
  Language('vie', 'Vietnamese', 'Latin', 'Latn', 'high', 'vi', 'vi'),
  Language('xho', 'Xhosa', 'Latin', 'Latn', 'low', 'xh', 'xh'),
  Language('yid', 'Yiddish', 'Hebrew', 'Hebr', 'low', 'yi', 'yi'),
  Language('yor', 'Yoruba', 'Latin', 'Latn', 'low', 'yo', 'yo'),
  Language('zho', 'Chinese', 'Han', 'Hani', 'high', 'zh', 'zh'),
  Language('zul', 'Zulu', 'Latin', 'Latn', 'low', 'zu', 'zu'),
)


def _codes(table: str) -> dict[str, tuple[str, ...]]:
  rows = (line.split() for line in table.strip().splitlines())
  return {code: tuple(codes) for code, *codes in rows}


# Where the codes of FLORES-200 are not the row's code and script. The list is that of
# github.com/bigscience-workshop/xmtf, create_xp3x.py; which individual language belongs to which
# macrolanguage is ISO 639-3's.
_FLORES = _codes("""
ara arb_Arab arb_Latn acm_Arab acq_Arab aeb_Arab ajp_Arab apc_Arab ars_Arab ary_Arab arz_Arab
aze azj_Latn azb_Arab
fil tgl_Latn
fry
kor kor_Hang
kur kmr_Latn ckb_Arab
lat
lav lvs_Latn
mlg plt_Latn
mon khk_Cyrl
msa zsm_Latn
nep npi_Deva
nor nob_Latn nno_Latn
pus pbt_Arab
sqi als_Latn
swa swh_Latn
uzb uzn_Latn
yid ydd_Hebr
zho zho_Hans zho_Hant
""")

_XP3X_BESIDE_FLORES = _codes("""
ara arq_Arab
aze aze_Latn
fry fry_Latn
jpn jpn_Hira jpn_Kana jpn_Hani
kur kur_Latn
lat lat_Latn
nor nor_Latn
sqi sqi_Latn
srp srp_Latn
swa swa_Latn
uzb uzb_Latn
yid yid_Hebr
""")

_XP3 = {
  code: tag
  for code, (tag,) in _codes("""
ara ar
ben bn
cat ca
eng en
eus eu
fra fr
guj gu
hin hi
ibo ig
ind id
kan kn
mal ml
mar mr
nep ne
nso nso
nya ny
ory or
pan pa
por pt
sna sn
sot st
spa es
swa sw
tam ta
tel te
twi tw
urd ur
vie vi
xho xh
yor yo
zho zh
zul zu
""").items()
}

BY_CODE: dict[str, Language] = {language.code: language for language in LANGUAGES}


def by_code(code: str) -> Language:
  """The row of an ISO 639-3 code; ValueError when Aya-101 has no such language."""
  if code not in BY_CODE:
    raise ValueError(
      f'no Aya-101 language {code!r}; expected one of {len(BY_CODE)} ISO 639-3 codes such as '
      f'{", ".join(list(BY_CODE)[:5])} (aya_train.tasks.languages.aya101.LANGUAGES)'
    )
  return BY_CODE[code]


def described(code: str) -> str:
  """'Yoruba (yor)', 'Akan (aka)', 'Program code (zxx)'; the code alone where nobody has a name."""
  name = BY_CODE[code].name if code in BY_CODE else _english_name(code)
  return code if name is None else f'{name} ({code})'


@functools.cache
def _english_name(code: str) -> str | None:
  """A name of our own, or else CLDR's, which knows many languages by two letters only."""
  names = babel.Locale('en').languages
  own = language_names.OF_CODES.get(code)
  return own or names.get(code) or names.get(core.get_global('language_aliases').get(code, ''))

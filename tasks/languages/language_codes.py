"""Every language code that a data source uses, mapped to the table of languages or refused.

Sources name languages in different systems: ISO 639-3 (Aya: macrolanguages such as 'ara' beside
individual ones such as 'arz'), FLORES-200 codes with a script (xP3x: 'swh_Latn'), ISO 639-1 (xP3:
'sw'), English names (Data Provenance: 'Swahili'), names of programming languages. `resolve` takes
any of them.

A code that says no script gets the one that CLDR calls likely for it. The code of an individual
language becomes that of the macrolanguage where Aya-101 counts the macrolanguage ('arz' and 'arb'
are 'ara', 'swh' is 'swa'), so that shares are per language of the 101. Languages outside the 101
keep their own ISO 639-3 code.
"""

import dataclasses
import functools

from aya_train.tasks.languages import aya101, language_names

NO_LANGUAGE = 'zxx'
"""ISO 639-3 of what is in no language: program code."""

_UNSAID = frozenset({'', 'und', 'mul', 'mis', 'zxx', 'unknown'})

# xP3x folders beyond the 101: FLORES-200 languages, and those of Tatoeba. The release counts 277
# languages without a list in its card; these and the folders of the 101 are the 282 codes that
# bigscience-workshop/xmtf's create_xp3x.py names.
_XP3X_ELSEWHERE = """
ace_Arab ace_Latn ain_Latn aka_Latn asm_Beng ast_Latn avk_Latn awa_Deva ayr_Latn bak_Cyrl bam_Latn
ban_Latn bem_Latn ber_Arab ber_Latn ber_Tfng bho_Deva bjn_Arab bjn_Latn bod_Tibt bos_Latn bre_Latn
bua_Cyrl bug_Latn cbk_Latn cha_Latn chm_Cyrl chv_Cyrl cjk_Latn cor_Latn crh_Latn dik_Latn dsb_Latn
dtp_Latn dyu_Latn dzo_Tibt egl_Latn ewe_Latn fao_Latn fij_Latn fkv_Latn fon_Latn frr_Latn fur_Latn
fuv_Latn gaz_Latn gcf_Latn gos_Latn got_Goth gpe_Latn grc_Grek grn_Latn gsw_Latn hbs_Latn hne_Deva
hoc_Deva hoc_Latn hrv_Latn hrx_Latn hsb_Latn ido_Latn ile_Latn ilo_Latn ina_Latn jbo_Latn kab_Latn
kac_Latn kam_Latn kas_Arab kas_Deva kbp_Latn kdr_Cyrl kdr_Latn kea_Latn kha_Latn kik_Latn kin_Latn
kmb_Latn knc_Arab knc_Latn kon_Latn kzj_Latn lad_Latn lfn_Cyrl lfn_Latn lij_Latn lim_Latn lin_Latn
lmo_Latn ltg_Latn lua_Latn lug_Latn luo_Latn lus_Latn mag_Deva mai_Deva min_Arab min_Latn mni_Beng
mos_Latn nds_Latn nov_Latn nst_Latn nus_Latn oci_Latn orv_Cyrl ota_Arab ota_Latn pag_Latn pam_Latn
pap_Latn pcd_Latn pcm_Latn pms_Latn prg_Latn prs_Arab que_Latn quy_Latn rom_Latn rsb_Latn run_Latn
sag_Latn sah_Cyrl san_Deva sat_Olck scn_Latn shn_Mymr srd_Latn ssw_Latn swg_Latn szl_Latn taq_Latn
taq_Tfng tat_Cyrl tir_Ethi tlh_Latn tok_Latn toki_Latn tpi_Latn tsn_Latn tso_Latn tuk_Latn tum_Latn
tzl_Latn tzm_Tfng uig_Arab umb_Latn vec_Latn vol_Latn war_Latn wol_Latn wuu_Hans xal_Cyrl yue_Hans
yue_Hant zza_Latn
"""

PROGRAMMING = frozenset(
  """
  code python java javascript jupyter-notebook jupyter_notebook py js c c++ cpp c# csharp php go
  rust
  """.split()  # noqa: SIM905
)
"""Folders and languages of xP3 and xP3x that hold program code."""

XP3X_CODES: tuple[str, ...] = tuple(
  sorted({*_XP3X_ELSEWHERE.split(), *(c for x in aya101.LANGUAGES for c in x.xp3x)})
)

# Individual or other codes of languages of the 101, beside those in the FLORES-200 codes.
_OTHER_CODES = {
  'arq': 'ara',
  'cmn': 'zho',
  'fas': 'pes',
  'ori': 'ory',
  'tgl': 'fil',
  'zlm': 'msa',
}

# The Aya Collection beyond the 101 and beyond xP3x, with the script of each.
_COLLECTION_ELSEWHERE = {
  'bbc': 'Latn',
  'kau': 'Latn',
  'mad': 'Latn',
  'man': 'Latn',
  'nij': 'Latn',
  'tmh': 'Latn',
}

# What translation models (MADLAD-400, M2M-100) have beyond all of these.
_TRANSLATED_ELSEWHERE = {
  **dict.fromkeys(['ada', 'cnh', 'cos', 'ful', 'fub', 'fuc', 'fuf', 'haw', 'hil', 'hmn'], 'Latn'),
  **dict.fromkeys(['iba', 'kal', 'orm', 'otq', 'roh', 'sme', 'tet', 'ton'], 'Latn'),
  **dict.fromkeys(['ava', 'che', 'kaa', 'kbd', 'oss', 'tyv', 'udm'], 'Cyrl'),
  'div': 'Thaa',
}

# Evaluation sets beyond all of these: AmericasNLI.
_EVALUATION_ELSEWHERE = dict.fromkeys(
  ('aym', 'bzd', 'cni', 'hch', 'nah', 'oto', 'shp', 'tar'), 'Latn'
)

# The script of a code that says none, where it is not that of its first folder in xP3x: what CLDR
# calls likely (a test compares every code with it). CLDR has none for ber: that of kab and rif.
_LIKELY_SCRIPTS = {
  'ain': 'Kana',
  'arb': 'Arab',
  'ace': 'Latn',
  'ber': 'Latn',
  'bjn': 'Latn',
  'crh': 'Cyrl',
  'kdr': 'Latn',
  'knc': 'Latn',
  'lad': 'Hebr',
  'lfn': 'Latn',
  'min': 'Latn',
  'nst': 'Tnsa',
  'tzm': 'Latn',
  'yue': 'Hant',
}

# ISO 639-1 codes of xP3 and of evaluation sets beyond the 101, and old codes.
_TWO_LETTERS = {
  'ak': 'aka',
  'as': 'asm',
  'ay': 'aym',
  'bm': 'bam',
  'gn': 'grn',
  'he': 'heb',
  'hr': 'hrv',
  'ki': 'kik',
  'lg': 'lug',
  'ln': 'lin',
  'nb': 'nor',
  'nn': 'nor',
  'no': 'nor',
  'qu': 'que',
  'rn': 'run',
  'rw': 'kin',
  'tl': 'fil',
  'tn': 'tsn',
  'ts': 'tso',
  'wo': 'wol',
}


def is_unsaid(code: str) -> bool:
  """Whether a code names no language: '' and ISO 639's und, mul, mis and zxx, with a script or not.

  `resolve` refuses them; what can do without a language asks here first.
  """
  return code.strip().lower().replace('-', '_').split('_')[0] in _UNSAID


class UnknownLanguageError(ValueError):
  """A code that no table here has; the message names it."""


@dataclasses.dataclass(frozen=True)
class Variety:
  """A language in a script.

  Attributes:
    code: ISO 639-3: that of the 101 where the language belongs to one of them, else its own;
      'zxx' for program code.
    script: ISO 15924; 'Zyyy' for program code.
  """

  code: str
  script: str

  @property
  def of_aya(self) -> bool:
    """Whether the language is one of the 101."""
    return self.code in aya101.BY_CODE


_CODE = Variety(NO_LANGUAGE, 'Zyyy')


@functools.cache
def _varieties() -> dict[str, Variety]:
  """Every known code, lower case, with its language and usual script."""
  known: dict[str, Variety] = {}
  for flores in XP3X_CODES:
    code, _, script = flores.partition('_')
    known[flores.lower()] = Variety(code, script)
    known.setdefault(code, Variety(code, _LIKELY_SCRIPTS.get(code, script)))
  for code, script in (
    _TRANSLATED_ELSEWHERE | _COLLECTION_ELSEWHERE | _EVALUATION_ELSEWHERE
  ).items():
    known[code] = Variety(code, script)
  for language in aya101.LANGUAGES:
    usual = Variety(language.code, language.script_code)
    for flores in language.xp3x:
      code, _, script = flores.partition('_')
      known[flores.lower()] = Variety(language.code, script)
      known[code] = Variety(language.code, _LIKELY_SCRIPTS.get(code, script))
    for alias in (language.code, language.mc4, language.xp3, language.name.lower()):
      if alias is not None:
        known[alias] = usual
  for alias, code in {**_OTHER_CODES, **_TWO_LETTERS}.items():
    known[alias] = known[code]
  known |= dict.fromkeys(PROGRAMMING, _CODE)
  for name, code in language_names.NAMES.items():
    known[name] = known[code.lower()]
  return known


@functools.lru_cache(maxsize=4096)
def resolve(code: str, script: str | None = None) -> Variety:
  """The language of a source's code, and its script.

  Args:
    code: in any of the systems above; case and '-' for '_' do not matter.
    script: ISO 15924, where the source has a column of its own for it.

  Raises:
    UnknownLanguageError: no table has the code, or the script is no ISO 15924 code.
  """
  key = code.strip().lower().replace('’', "'")
  known = _varieties()
  words = key.replace('-', ' ').replace('_', ' ')
  found = known.get(key) or known.get(key.replace('-', '_')) or known.get(words)
  if found is None and (parts := key.replace('-', '_').split('_')) and len(parts) > 1:
    # ile_Latn_Latn: Tatoeba's code already had its script. Else a new script of a known language.
    if parts[-1] == parts[-2]:
      found = known.get('_'.join(parts[:-1]))
    elif len(parts) == 2 and len(parts[1]) == 4 and parts[0] in known:
      found = Variety(known[parts[0]].code, parts[1].title())
  if found is None:
    raise UnknownLanguageError(
      f'unknown language code {code!r}: not ISO 639-3, ISO 639-1, FLORES-200 or a name in '
      'aya_train.tasks.languages.language_codes; add it there if a release has it'
    )
  if script is None or found.code == NO_LANGUAGE:
    return found
  if len(script) != 4 or not script.isascii() or not script.isalpha():
    raise UnknownLanguageError(f'unknown script {script!r} of {code!r}: expected ISO 15924')
  return Variety(found.code, script.title())

"""The 204 languages of FLORES-200: code and script, and which of them Aya's languages are."""

from __future__ import annotations

import functools

from aya_train.tasks.languages import aya101, language_codes, language_names

_ELSEWHERE = """
ace_Arab ace_Latn aka_Latn asm_Beng ast_Latn awa_Deva ayr_Latn bak_Cyrl bam_Latn ban_Latn bem_Latn
bho_Deva bjn_Arab bjn_Latn bod_Tibt bos_Latn bug_Latn cjk_Latn crh_Latn dik_Latn dyu_Latn dzo_Tibt
ewe_Latn fao_Latn fij_Latn fon_Latn fur_Latn fuv_Latn gaz_Latn grn_Latn hne_Deva hrv_Latn ilo_Latn
kab_Latn kac_Latn kam_Latn kas_Arab kas_Deva kbp_Latn kea_Latn kik_Latn kin_Latn kmb_Latn knc_Arab
knc_Latn kon_Latn lij_Latn lim_Latn lin_Latn lmo_Latn ltg_Latn lua_Latn lug_Latn luo_Latn lus_Latn
mag_Deva mai_Deva min_Arab min_Latn mni_Beng mos_Latn nus_Latn oci_Latn pag_Latn pap_Latn prs_Arab
quy_Latn run_Latn sag_Latn san_Deva sat_Olck scn_Latn shn_Mymr srd_Latn ssw_Latn szl_Latn taq_Latn
taq_Tfng tat_Cyrl tir_Ethi tpi_Latn tsn_Latn tso_Latn tuk_Latn tum_Latn tzm_Tfng uig_Arab umb_Latn
vec_Latn war_Latn wol_Latn yue_Hant
"""

ENGLISH = 'eng_Latn'

AYA: dict[str, str] = {
  language.code: language.flores[0] for language in aya101.LANGUAGES if language.flores
}
"""ISO 639-3 of the 99 of the 101 that are there -> the code of the form that is meant."""

OTHERS: tuple[str, ...] = tuple(
  sorted({*_ELSEWHERE.split(), *(c for x in aya101.LANGUAGES for c in x.flores[1:])})
)
"""Further forms of those languages (zho_Hant, arz_Arab), and all other languages."""

ALL: tuple[str, ...] = tuple(sorted({*AYA.values(), *OTHERS}))


@functools.cache
def _names() -> dict[str, str]:
  names: dict[str, str] = {}
  for name, code in language_names.NAMES.items():
    names.setdefault(code, name)
  return names


@functools.cache
def name(code: str) -> str:
  """English name of a FLORES-200 code, for prompts: 'Swahili', 'Egyptian Arabic'.

  Forms of one language that have no names of their own are told apart by script.
  """
  language = language_codes.resolve(code).code
  if AYA.get(language) == code:
    return aya101.by_code(language).name
  if own := _names().get(code):
    return own if any(letter.isupper() for letter in own) else own.title()
  return f'{aya101.described(language).rpartition(" (")[0] or language} ({code[-4:]})'

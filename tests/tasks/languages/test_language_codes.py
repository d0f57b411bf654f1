"""Every code that a source uses maps to one language, or is refused by name."""

import json
import pathlib

import pytest
from babel import core

from aya_train.tasks import catalog
from aya_train.tasks.languages import aya101, language_codes

SUMMARIES = pathlib.Path(__file__).parents[4] / 'shared/data/data_provenance/data_summaries'


@pytest.mark.parametrize(
  ('code', 'expected'),
  [
    ('yor', 'yor_Latn'),
    ('arz', 'ara_Arab'),  # the Aya Dataset counts dialects, the model card one Arabic
    ('arb', 'ara_Arab'),  # not that of arb_Latn, which is another folder of xP3x
    ('arb_Latn', 'ara_Latn'),
    ('yue', 'yue_Hant'),
    ('lad', 'lad_Hebr'),
    ('swh_Latn', 'swa_Latn'),
    ('azb_Arab', 'aze_Arab'),
    ('ckb_Arab', 'kur_Arab'),
    ('srp_Latn', 'srp_Latn'),
    ('iw', 'heb_Hebr'),
    ('he', 'heb_Hebr'),
    ('sw', 'swa_Latn'),
    ('nb', 'nor_Latn'),
    ('ak', 'aka_Latn'),
    ('tw', 'twi_Latn'),
    ('wol', 'wol_Latn'),
    ('Somali', 'som_Latn'),
    ('ile_Latn_Latn', 'ile_Latn'),  # a folder of xP3x
    ('simplified_chinese', 'zho_Hans'),
    ('moroccan-arabic', 'ara_Arab'),
    ('taizzi_adeni_arabic', 'ara_Arab'),
    ('jupyter-notebook', 'zxx_Zyyy'),
  ],
)
def test_codes_of_each_system(code, expected):
  variety = language_codes.resolve(code)
  assert f'{variety.code}_{variety.script}' == expected


def cldr_script(code):
  aliases, likely = core.get_global('language_aliases'), core.get_global('likely_subtags')
  tag = likely.get(aliases.get(code, code))
  return tag and tag.split('_')[1]


BARE = {c.partition('_')[0] for c in language_codes.XP3X_CODES}
BARE |= {c for x in aya101.LANGUAGES for c in (x.code, x.mc4, x.xp3) if c}
BARE |= {*catalog.TRANSLATED_LANGUAGES, *catalog.ANNOTATED_LANGUAGES, *catalog.XP3_LANGUAGES}
BARE |= {'arq', 'cmn', 'fas', 'he', 'lg', 'nb', 'nn', 'no', 'ori', 'tl', 'zlm'}
HAN = {'cmn', 'zh', 'zho'}  # both of Hans and Hant, as on the model card


def test_a_code_without_a_script_has_the_likely_one_of_cldr():
  known = {c: cldr_script(c) for c in BARE - HAN}
  got = {c: language_codes.resolve(c).script for c in BARE}
  assert {c: got[c] for c, script in known.items() if script} == {
    c: script for c, script in known.items() if script
  }
  assert got['arb'] == 'Arab'
  assert {got[c] for c in HAN} == {'Hani'}
  # CLDR says nothing about these.
  unknown = {c for c, script in known.items() if script is None}
  assert unknown == {'ber', 'code', 'hbs', 'prs', 'rsb', 'tlh', 'toki'}
  told = {'prs': 'Arab', 'code': 'Zyyy'}
  assert {c: got[c] for c in unknown} == {c: told.get(c, 'Latn') for c in unknown}


def test_the_101_have_the_script_that_cldr_thinks_likely():
  scripts = {x.code: x.script_code for x in aya101.LANGUAGES if x.code != 'zho'}
  assert scripts == {code: cldr_script(code) for code in scripts}


def test_every_language_has_a_name_beside_its_code():
  names = {code: aya101.described(language_codes.resolve(code).code) for code in BARE}
  assert [code for code, name in names.items() if not name.endswith(')')] == []
  assert names['code'] == 'Program code (zxx)'
  assert {names['arb'], names['arz']} == {'Arabic (ara)'}
  assert (names['aka'], names['prs'], names['cjk']) == ('Akan (aka)', 'Dari (prs)', 'Chokwe (cjk)')


def test_every_code_of_the_101_is_its_own():
  for language in aya101.LANGUAGES:
    codes = {language.code, language.mc4, language.xp3, language.name, *language.xp3x} - {None}
    assert {language_codes.resolve(c).code for c in codes} == {language.code}


def test_no_code_belongs_to_two_languages():
  codes = [c for x in aya101.LANGUAGES for c in x.xp3x]
  assert len(codes) == len(set(codes))
  assert set(codes) < set(language_codes.XP3X_CODES)
  assert len(language_codes.XP3X_CODES) >= 277


def test_only_latin_and_frisian_are_not_in_flores():
  assert {x.code for x in aya101.LANGUAGES if not x.flores} == {'lat', 'fry'}


def test_every_language_of_every_source_is_known():
  codes = (
    *catalog.TRANSLATED_LANGUAGES,
    *catalog.ANNOTATED_LANGUAGES,
    *catalog.XP3_LANGUAGES,
    *language_codes.XP3X_CODES,
  )
  for code in codes:
    assert language_codes.resolve(code).code


def test_counts_of_the_sources():
  of_aya = set(aya101.BY_CODE)
  assert len(catalog.ANNOTATED_LANGUAGES) == 65
  assert set(catalog.ANNOTATED_LANGUAGES) - of_aya == {'wol'}
  assert len(catalog.TRANSLATED_LANGUAGES) == 101
  assert len(catalog.XP3_LANGUAGES) == 46
  assert (len(catalog.TEMPLATED), len(catalog.TRANSLATED)) == (44, 19)
  assert len(catalog.DATA_PROVENANCE) == 16


@pytest.mark.parametrize('code', ['xx', 'zulu and algerian_arabic', 'zuluarq', 'eng_Latin', ''])
def test_unknown_codes_are_refused_by_name(code):
  with pytest.raises(language_codes.UnknownLanguageError, match=repr(code)):
    language_codes.resolve(code)


def test_a_script_column_decides_and_is_checked():
  assert language_codes.resolve('zho', 'Hant').script == 'Hant'
  with pytest.raises(language_codes.UnknownLanguageError, match='Arabic'):
    language_codes.resolve('arb', 'Arabic')


@pytest.mark.skipif(not SUMMARIES.exists(), reason='the summaries are not beside this checkout')
def test_every_language_of_the_audit_is_known():
  names = {
    name
    for path in SUMMARIES.glob('[!_]*.json')
    for record in json.loads(path.read_text()).values()
    for name in record['Languages']
  }
  assert len(names) > 60
  for name in names:
    assert language_codes.resolve(name).code

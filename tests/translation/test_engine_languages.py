"""The table of languages against the vocabularies that transformers' tokenizers say."""

import pytest

from aya_train.tasks.languages import aya101
from aya_train.translation import engine_languages
from aya_train.translation.engine_languages import LacksLanguageError

# Of MADLAD-400's tags those that differ from ISO 639, and some that do not.
MADLAD = [
  f'<2{tag}>'
  for tag in 'en yo ha th zh iw jv fil no ar ku ckb sr uz zh_Hant az sw ne mn nn arz'.split()  # noqa: SIM905
]
# Tags of its card (huggingface.co/google/madlad400-10b-mt): those of most data come first.
MADLAD_CARD = """
en ru es fr de it pt pl nl vi tr sv id ro cs zh hu ja th fi fa uk da el no bg sk ko ar lt ca sl he
et lv hi sq ms az sr ta hr kk is ml mr te af gl fil be mk eu bn ka mn bs uz ur sw yue ne kn kaa gu
si cy eo la hy ky tg ga mt my km tt so ku ps pa rw lo ha dv fy lb ckb mg gd am ug ht grc hmn sd jv
mi tk ceb yi ba fo or xh su kl ny sm sn co zu ig yo pap st haw as oc cv lus tet gsw sah br rm sa bo
om se ce cnh ilo hil udm os lg ti vec ts tyv kbd ee iba av kha to tn nso fj zza ak ada otq dz bua
"""


@pytest.fixture(scope='module')
def nllb():
  found = pytest.importorskip(
    'transformers.models.nllb.tokenization_nllb', reason='needs the extra `hf`'
  )
  return frozenset(found.FAIRSEQ_LANGUAGE_CODES)


@pytest.fixture(scope='module')
def m2m100():
  found = pytest.importorskip(
    'transformers.models.m2m_100.tokenization_m2m_100', reason='needs the extra `hf`'
  )
  return frozenset(f'__{tag}__' for tag in found.FAIRSEQ_LANGUAGE_CODES['m2m100'])


def lacking(family, vocabulary):
  lacks = []
  for language in aya101.LANGUAGES:
    try:
      engine_languages.find(language.code, family, vocabulary)
    except LacksLanguageError:
      lacks.append(language.code)
  return lacks


def test_nllb_has_all_but_two_of_the_101(nllb):
  assert lacking('nllb', nllb) == ['fry', 'lat']


def test_m2m100_has_87_of_the_101(m2m100):
  assert lacking('m2m100', m2m100) == (
    'epo eus kir kur lat mlt mri nya smo sna sot tel tgk twi'.split()  # noqa: SIM905
  )


def test_madlad_has_all_of_the_101_each_under_a_tag_of_its_own():
  vocabulary = {f'<2{tag}>' for tag in MADLAD_CARD.split()}
  found = [engine_languages.find(x.code, 'madlad', vocabulary).token for x in aya101.LANGUAGES]
  assert len(set(found)) == len(found) == 101
  named = dict(zip((x.code for x in aya101.LANGUAGES), found, strict=True))
  differing = {'heb': '<2he>', 'jav': '<2jv>', 'twi': '<2ak>', 'nor': '<2no>', 'kur': '<2ku>'}
  assert {code: named[code] for code in differing} == differing
  assert named['fil'] == '<2fil>' and named['ory'] == '<2or>' and named['pes'] == '<2fa>'


@pytest.mark.parametrize('tag', ['br', 'bs', 'oc', 'ba', 'ss', 'ns', 'nso'])
def test_m2m100s_own_tags_name_themselves_beyond_the_101_too(m2m100, tag):
  token = {'nso': '__ns__'}.get(tag, f'__{tag}__')
  assert engine_languages.find(tag, 'm2m100', m2m100).token == token
  assert engine_languages.find(token, 'm2m100', m2m100).token == token


def test_every_code_of_nllb_names_itself(nllb):
  assert [c for c in nllb if engine_languages.find(c, 'nllb', nllb).token != c] == []


@pytest.mark.parametrize(
  ('asked', 'token', 'code', 'script'),
  [
    ('yo', 'yor_Latn', 'yor', 'Latn'),
    ('Swahili', 'swh_Latn', 'swa', 'Latn'),
    ('arz', 'arz_Arab', 'ara', 'Arab'),
    ('zh-Hant', 'zho_Hant', 'zho', 'Hant'),
    ('zho', 'zho_Hans', 'zho', 'Hans'),
    ('ckb', 'ckb_Arab', 'kur', 'Arab'),
    ('kur', 'kmr_Latn', 'kur', 'Latn'),
    ('iw', 'heb_Hebr', 'heb', 'Hebr'),
    ('nn', 'nno_Latn', 'nor', 'Latn'),
    ('jpn', 'jpn_Jpan', 'jpn', 'Jpan'),
  ],
)
def test_codes_of_any_system_name_nllbs(nllb, asked, token, code, script):
  found = engine_languages.find(asked, 'nllb', nllb)
  assert (found.token, found.code, found.script) == (token, code, script)


@pytest.mark.parametrize(
  ('asked', 'token'),
  [
    ('yor', '<2yo>'),
    ('heb', '<2iw>'),
    ('jav', '<2jv>'),
    ('fil', '<2fil>'),
    ('nob', '<2no>'),
    ('ckb', '<2ckb>'),
    ('arz', '<2arz>'),
    ('arb', '<2ar>'),
    ('zho_Hant', '<2zh_Hant>'),
    ('<2zh>', '<2zh>'),
  ],
)
def test_codes_of_any_system_name_madlads(asked, token):
  assert engine_languages.find(asked, 'madlad', MADLAD).token == token


def test_a_dialect_or_script_is_not_replaced_by_the_usual_one(m2m100):
  with pytest.raises(LacksLanguageError, match='arz'):
    engine_languages.find('arz', 'm2m100', m2m100)
  with pytest.raises(LacksLanguageError, match='Latn'):
    engine_languages.find('srp_Latn', 'madlad', MADLAD)


def test_the_vocabulary_says_the_family(nllb, m2m100):
  assert engine_languages.family_of(nllb) == 'nllb'
  assert engine_languages.family_of(m2m100) == 'm2m100'
  assert engine_languages.family_of(MADLAD) == 'madlad'
  assert engine_languages.family_of(['>>fra<<', '>>por<<']) == 'opus'
  assert engine_languages.family_of(['a']) is None


def test_the_same_language_twice_is_refused(nllb):
  with pytest.raises(ValueError, match=r"'swa' and 'sw' are both swh_Latn"):
    engine_languages.find_all(['swa', 'sw'], 'nllb', nllb)


@pytest.mark.parametrize(
  ('asked', 'token'),
  [
    *(('zh-CN', 'zho_Hans'), ('zh-TW', 'zho_Hant'), ('Chinese (Traditional)', 'zho_Hant')),
    *(('pt-BR', 'por_Latn'), ('sr-Cyrl-RS', 'srp_Cyrl'), ('ger', 'deu_Latn'), ('chi', 'zho_Hans')),
    *(('Egyptian Arabic', 'arz_Arab'), ('ar-EG', 'arb_Arab'), ('Central Kurdish', 'ckb_Arab')),
    *(('ff', 'fuv_Latn'), ('ful', 'fuv_Latn'), ('om', 'gaz_Latn'), ('qu', 'quy_Latn')),
    *(('bo', 'bod_Tibt'), ('ug-Arab', 'uig_Arab'), ('iw', 'heb_Hebr'), ('ks-Deva', 'kas_Deva')),
  ],
)
def test_a_language_has_many_forms_in_nllb(nllb, asked, token):
  assert engine_languages.find(asked, 'nllb', nllb).token == token


def test_fula_is_a_whole_in_m2m100_by_whichever_code(m2m100):
  for asked in ('ff', 'ful', 'fuc', 'fuv', 'Fula', '__ff__'):
    assert engine_languages.find(asked, 'm2m100', m2m100).token == '__ff__'
  assert engine_languages.find('zh-CN', 'm2m100', m2m100).token == '__zh__'
  for asked in ('zh-TW', 'Egyptian Arabic', 'Central Kurdish'):
    with pytest.raises(LacksLanguageError):
      engine_languages.find(asked, 'm2m100', m2m100)


def test_every_tag_of_madlads_card_is_found_by_itself_by_three_letters_and_by_name():
  vocabulary = {f'<2{tag}>' for tag in MADLAD_CARD.split()}
  for tag in MADLAD_CARD.split():
    for asked in (tag, f'<2{tag}>', tag.upper()):
      assert engine_languages.find(asked, 'madlad', vocabulary).token == f'<2{tag}>', asked
  for asked, tag in {
    'dv': 'dv',
    'Hawaiian': 'haw',
    'zh-CN': 'zh',
    'Central Kurdish': 'ckb',
  }.items():
    assert engine_languages.find(asked, 'madlad', vocabulary).token == f'<2{tag}>'


def test_what_is_unknown_is_refused_with_what_is_like_it(nllb):
  with pytest.raises(ValueError, match=r"unknown language 'Yorubaa'.*did you mean Yoruba \(yor\)"):
    engine_languages.find('Yorubaa', 'nllb', nllb)
  with pytest.raises(LacksLanguageError, match=r'the nearest of which are srp_Cyrl'):
    engine_languages.find('sr-Latn', 'nllb', nllb)

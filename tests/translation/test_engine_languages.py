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

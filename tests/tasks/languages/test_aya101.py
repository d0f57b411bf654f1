"""The language table against its totals, mC4's list and CLDR's English names."""

import collections
import dataclasses

import babel
import pytest
from tensorflow_datasets.text import c4

from aya_train.tasks.cldr import cldr_facts
from aya_train.tasks.languages import aya101


def test_the_101_languages_and_their_levels():
  assert len(aya101.LANGUAGES) == 101
  levels = collections.Counter(language.level for language in aya101.LANGUAGES)
  assert levels == {'high': 24, 'mid': 26, 'low': 51}


@pytest.mark.parametrize('field', ['code', 'name', 'mc4', 'cldr'])
def test_no_code_or_name_twice(field):
  values = [getattr(language, field) for language in aya101.LANGUAGES]
  present = [value for value in values if value is not None]
  assert len(present) == len(set(present))


def test_codes_are_sorted_iso_639_3():
  codes = [language.code for language in aya101.LANGUAGES]
  assert codes == sorted(codes)
  assert all(len(code) == 3 and code.isascii() and code.islower() for code in codes)


def test_98_languages_shared_with_mt5():
  aya = {language.mc4 for language in aya101.LANGUAGES if language.mc4}
  # mC4 lists six romanised variants beside its languages (bg-Latn ...).
  mt5 = {tag for tag in c4.MC4_LANGUAGES if '-' not in tag}
  assert (len(mt5), len(aya & mt5)) == (101, 98)
  assert mt5 - aya == {'co', 'haw', 'hmn'}
  assert {x.code for x in aya101.LANGUAGES if x.mc4 is None} == {'nso', 'ory', 'twi'}


def test_names_are_clean_and_known_to_cldr():
  """A name joined to its neighbour's by a missing comma is a name that nobody else has."""
  elsewhere = {
    'ben': 'Bangla',
    'fil': 'Filipino',
    'mri': 'Māori',
    'nya': 'Nyanja',
    'ory': 'Odia',
    'twi': 'Akan',
  }
  english = babel.Locale('en').languages
  for language in aya101.LANGUAGES:
    if language.cldr is not None:
      assert english[language.cldr] == elsewhere.get(language.code, language.name)


def test_scripts_have_names_and_letters():
  for language in aya101.LANGUAGES:
    name, _ = cldr_facts.SCRIPTS[language.script_code]
    assert name in language.script.split('/')


def test_rows_are_frozen_and_unknown_codes_refused():
  with pytest.raises(dataclasses.FrozenInstanceError):
    aya101.by_code('yor').name = 'x'
  with pytest.raises(ValueError, match="'yo'"):
    aya101.by_code('yo')


def test_languages_beyond_the_101_are_named_too():
  assert aya101.described('yor') == 'Yoruba (yor)'
  assert aya101.described('ace') == 'Acehnese (ace)'
  assert aya101.described('qqq') == 'qqq'

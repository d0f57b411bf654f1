"""The last number of an answer, in every digit system and style."""

import csv
import decimal
import random
import sys
import unicodedata
from fractions import Fraction

import babel
import pytest
from babel import numbers as babel_numbers

from aya_train.tasks.languages import aya101
from aya_train.tasks.metrics import numerals, references
from tests.tasks.metrics import sib_texts

MGSM = sib_texts.SHARED / 'mgsm'
ZEROS = [
  chr(c) for c in range(sys.maxunicode) if unicodedata.digit(chr(c), -1) == 0
  and unicodedata.category(chr(c)) == 'Nd'
]  # fmt: skip
VALUES = [
  '5',
  '12',
  '1234',
  '12345',
  '123456',
  '1234567',
  '-7',
  '-1234',
  '1234.5',
  '0.75',
  '12.345',
]


@pytest.mark.parametrize(
  ('text', 'language', 'expected'),
  [
    ('The answer is 18.', '', 18),
    ('$1,234.50', '', '1234.5'),
    ('1.234,50 €', '', '1234.5'),
    ('12,34,567 रुपये', 'hin', 1234567),
    ("1'234'567", '', 1234567),
    ('1\u202f234', '', 1234),
    ('1 500 et 2 300', 'fra', 2300),
    ('5 100', 'eng', 100),
    ('1.234', 'deu', 1234),
    ('1.234', 'eng', '1.234'),
    ('1.234', '', 1234),
    ('0,125', '', '0.125'),
    ('1, 2, 3', '', 3),
    ('1,2,3', '', 3),
    ('١٬٢٣٤٫٥', '', '1234.5'),
    ('−५', '', -5),
    ('= -$5.50', '', '-5.5'),
    ('10-5', '', 5),
    ('3/4', '', '3/4'),
    ('1 1/2 cups', '', '3/2'),
    ('2½', '', '5/2'),
    ('10/12/2023', '', 2023),
    ('25%', '', 25),
    ('12 m²', '', 12),
    ('12 m2', '', 12),
    ('共5個', '', 5),
    ('70,000元', '', 70000),
    ('三百五十', '', 350),
    ('二〇二四年', '', 2024),
    ('三万五千', '', 35000),
    ('3万5千円', '', 35000),
    ('1.2億', '', 120000000),
    ('5千克', '', 5),
    ('一共是三十五个苹果', '', 35),
    ('፻፳፫', '', 123),
    ('.5', '', '1/2'),
    ('1/0', '', 0),
  ],
)
def test_the_last_number_is_read(text, language, expected):
  assert numerals.last_number(text, language) == Fraction(expected)


@pytest.mark.parametrize('text', ['', 'no', '...', '-', '½'.replace('½', '²')])
def test_answers_without_a_number_have_none(text):
  assert numerals.last_number(text) is None
  assert numerals.readings(text) == []


def test_every_digit_of_unicode_is_read():
  generator = random.Random(0)
  assert len(ZEROS) > 60
  for zero in ZEROS:
    number = generator.randrange(10**6)
    digits = ''.join(chr(ord(zero) + int(digit)) for digit in str(number))
    assert numerals.last_number(f'7 → {digits} x') == number, unicodedata.name(zero)


def test_numbers_as_every_language_writes_them_are_read():
  read = 0
  for language in aya101.LANGUAGES[::3]:
    if language.cldr is None:
      continue
    locale = babel.Locale.parse(language.cldr)
    for value in VALUES:
      text = babel_numbers.format_decimal(decimal.Decimal(value), locale=locale)
      assert numerals.last_number(f'x {text} y', language.code) == Fraction(value), (locale, text)
      read += 1
  assert read > 30 * len(VALUES)


def test_what_is_ambiguous_is_right_in_either_reading():
  assert numerals.readings('1,234', 'deu') == [Fraction('1.234'), 1234]
  assert numerals.is_right(['1,234'], 'Es sind 1.234 Euro.', 'deu')
  assert not numerals.is_right(['1,234'], 'Es sind 12.34 Euro.', 'deu')


def test_figures_count_answers_with_and_without_a_number():
  targets = [['18'], references.References(['3.500'], 'deu'), ['7'], []]
  found = numerals.mgsm(targets, ['১৮ টাকা', 'macht 3 500', 'seven', '7'])
  assert (found['accuracy'], found['without_reference']) == (pytest.approx(100 / 3), 1.0)
  assert found['answered'] == pytest.approx(200 / 3)
  assert found['accuracy_low'] == 0.0


@pytest.mark.skipif(not MGSM.exists(), reason='no MGSM beside the checkout')
@pytest.mark.parametrize('language', ['bn', 'de', 'en', 'es', 'fr', 'ja', 'ru', 'sw', 'zh'])
def test_mgsms_answers_are_right_in_the_language_s_own_digits_and_style(language):
  with (MGSM / f'mgsm_{language}.tsv').open(encoding='utf-8', newline='') as file:
    rows = [*csv.reader(file, delimiter='\t', quoting=csv.QUOTE_NONE)]
  answers = [answer for _, answer in rows]
  assert numerals.mgsm([[a] for a in answers], answers, language=language)['accuracy'] == 100.0
  written = [
    babel_numbers.format_decimal(int(a.replace(',', '')), locale=language)
    .translate({ord(str(d)): '০১২৩৪৫৬৭৮৯'[d] for d in range(10)})
    for a in answers
  ]  # fmt: skip
  found = numerals.mgsm([[a] for a in answers], written, language=language)
  assert (len(rows), found['accuracy']) == (250, 100.0)

import pytest

from aya_train.tasks.languages import text_direction


@pytest.mark.parametrize(
  ('code', 'way', 'tag'),
  [
    ('arb', 'rtl', 'ar'),
    ('ara', 'rtl', 'ar'),
    ('heb', 'rtl', 'he'),
    ('urd', 'rtl', 'ur'),
    ('pes_Arab', 'rtl', 'fa'),
    ('kas_Arab', 'rtl', 'ks'),
    ('tha', 'ltr', 'th'),
    ('amh', 'ltr', 'am'),
    ('eng', 'ltr', 'en'),
    ('klingon?', 'auto', ''),
    ('', 'auto', ''),
  ],
)
def test_languages_have_a_direction_and_a_tag(code, way, tag):
  assert text_direction.of_language(code) == way
  assert text_direction.html_language(code).partition('-')[0] == tag


def test_a_script_beside_the_usual_one_is_said():
  assert text_direction.html_language('azb_Arab') == 'az-Arab'
  assert text_direction.of_language('azb_Arab') == 'rtl'


def test_the_language_and_not_the_first_letter_decides():
  assert text_direction.of_text('NASA قالت', 'arb') == 'rtl'
  assert text_direction.of_text('العربية is Arabic', 'eng') == 'ltr'
  assert text_direction.of_text('only Latin letters', 'arb') == 'auto'
  assert text_direction.of_text('عربي فقط', 'eng') == 'auto'
  assert text_direction.of_text('1, 2, 3', 'arb') == 'rtl'
  assert text_direction.of_text('مرحبا', '') == 'auto'

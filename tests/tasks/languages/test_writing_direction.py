import pytest

from aya_train.tasks.languages import writing_direction


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
  assert writing_direction.of_language(code) == way
  assert writing_direction.html_language(code).partition('-')[0] == tag


def test_a_script_beside_the_usual_one_is_said():
  assert writing_direction.html_language('azb_Arab') == 'az-Arab'
  assert writing_direction.of_language('azb_Arab') == 'rtl'


def test_the_language_and_not_the_first_letter_decides():
  assert writing_direction.of_text('NASA قالت', 'arb') == 'rtl'
  assert writing_direction.of_text('العربية is Arabic', 'eng') == 'ltr'
  assert writing_direction.of_text('only Latin letters', 'arb') == 'auto'
  assert writing_direction.of_text('عربي فقط', 'eng') == 'auto'
  assert writing_direction.of_text('1, 2, 3', 'arb') == 'rtl'
  assert writing_direction.of_text('مرحبا', '') == 'auto'


def test_lines_have_directions_of_their_own_and_make_the_text_again():
  text = 'In English?\n\nعربي\u2028هنا\n'
  found = writing_direction.lines(text, 'arb')
  assert ''.join(line for line, _ in found) == text
  assert [way for _, way in found] == ['auto', 'rtl', 'rtl', 'rtl']

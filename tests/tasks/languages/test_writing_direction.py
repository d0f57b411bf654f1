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


@pytest.mark.parametrize(
  ('language', 'script', 'tag'),
  [
    ('zho', 'Hant', 'zh-Hant'),
    ('zho', 'Hans', 'zh-Hans'),
    ('ara', 'Latn', 'ar-Latn'),
    ('ceb', 'Latn', 'ceb'),
    ('nor', 'Latn', 'no'),
    ('quy', 'Latn', 'quy'),
    ('zxx', 'Zyyy', ''),
    ('ara', 'nonsense', ''),
  ],
)
def test_a_script_may_be_told_apart_from_the_code(language, script, tag):
  assert writing_direction.html_language(language, script) == tag


@pytest.mark.parametrize(
  ('text', 'way'),
  [
    ('Hello', 'ltr'),
    ('مرحبا', 'rtl'),
    ('שלום 3', 'rtl'),
    ('In 2024 قال الرئيس إن الاقتصاد نما', 'rtl'),
    ('ދިވެހި', 'rtl'),
    ('สวัสดี', 'ltr'),
    ('ሰላም', 'ltr'),
    ('123 ...', 'auto'),
  ],
)
def test_most_letters_decide_where_no_language_is_told(text, way):
  assert writing_direction.of_text(text, '') == way


def test_the_language_and_not_the_first_letter_decides():
  assert writing_direction.of_text('NASA قالت', 'arb') == 'rtl'
  assert writing_direction.of_text('العربية is Arabic', 'eng') == 'ltr'
  assert writing_direction.of_text('UNESCO تعلن', 'arb') == 'rtl'
  assert writing_direction.of_text('Question: هل؟ True, False, or Neither?', 'arb') == 'ltr'
  assert writing_direction.of_text('only Latin letters', 'arb') == 'ltr'
  assert writing_direction.of_text('عربي فقط', 'eng') == 'rtl'
  assert writing_direction.of_text('1, 2, 3', 'arb') == 'rtl'


def test_lines_have_directions_and_languages_of_their_own_and_make_the_text_again():
  text = 'In English?\n\nعربي\u2028هنا\n42 (7).'
  found = writing_direction.lines(text, 'arb')
  assert '\n'.join(line.text for line in found) == text
  assert [line.direction for line in found] == ['ltr', 'rtl', 'rtl', 'rtl']
  assert [line.language for line in found] == ['en', 'ar', 'ar', 'ar']
  assert [line.language for line in writing_direction.lines('Hello', 'fra')] == ['fr']


@pytest.mark.parametrize(
  'machine',
  [
    'https://example.org/' + 'a' * 60,
    'www.example.org/a/very/long/path/indeed',
    'somebody.with.a.long.name@example.org',
    '<img src="picture-of-a-camel.png" alt="camel" width="10">',
    '`some_function(of_arguments, others)`',
    r'$\frac{numerator}{denominator} \leq \alpha$',
    '```python\nprint("hello, hello, hello")\n```',
  ],
)
def test_what_machines_read_does_not_turn_a_text(machine):
  assert writing_direction.of_text(f'القاهرة {machine}', 'arb') == 'rtl'
  assert writing_direction.of_text(machine, 'arb') == 'ltr'
  [line] = writing_direction.lines(f'القاهرة {machine}'.replace('\n', ' '), 'arb')
  assert (line.direction, line.language) == ('rtl', 'ar')

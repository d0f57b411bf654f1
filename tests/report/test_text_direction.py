import pytest

from aya_train.report import text_direction


@pytest.mark.parametrize(
  ('text', 'direction'),
  [
    ('Hello', 'ltr'),
    ('مرحبا', 'rtl'),
    ('שלום 3', 'rtl'),
    ('In 2024 قال الرئيس إن الاقتصاد نما', 'rtl'),
    ('ދިވެހި', 'rtl'),
    ('สวัสดี', 'ltr'),
    ('ሰላም', 'ltr'),
    ('123 ...', 'ltr'),
  ],
)
def test_the_direction_of_most_letters(text, direction):
  assert text_direction.of_text(text) == direction


def test_what_has_no_letters_has_the_direction_of_its_language():
  (line,) = text_direction.lines('42 (7).', 'ara', 'Arab')
  assert (line.direction, line.language) == ('rtl', 'ar')


def test_each_line_has_a_direction_and_a_language():
  text = 'Write a summary:\nقال الرئيس (2024).\n'
  found = text_direction.lines(text, 'ara', 'Arab')
  assert [(x.direction, x.language) for x in found] == [('ltr', 'en'), ('rtl', 'ar'), ('rtl', 'ar')]
  assert '\n'.join(x.text for x in found) == text


@pytest.mark.parametrize(
  ('language', 'script', 'tag'),
  [
    ('amh', 'Ethi', 'am'),
    ('heb', 'Hebr', 'he'),
    ('zho', 'Hant', 'zh-Hant'),
    ('zho', 'Hans', 'zh-Hans'),
    ('ceb', 'Latn', 'ceb'),
    ('nor', 'Latn', 'nb'),
    ('ara', 'Latn', 'ar-Latn'),
    ('quy', 'Latn', 'quy'),
    ('', '', ''),
    ('zxx', 'Zyyy', ''),
  ],
)
def test_tags_of_languages(language, script, tag):
  assert text_direction.tag(language, script) == tag

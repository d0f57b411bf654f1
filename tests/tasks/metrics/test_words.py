"""Words in every script."""

import string
import sys

import hypothesis
import pytest
from hypothesis import strategies
from rouge_score import tokenizers

from aya_train.tasks.metrics import exact_match, words
from tests.tasks.metrics import sib_texts


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(strategies.text(string.printable[:-2]))
def test_words_of_ascii_are_those_of_rouge_score(text):
  assert words.segments(text) == tokenizers.DefaultTokenizer(use_stemmer=False).tokenize(text)


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('ฉันรักภาษาไทย', ['ฉัน', 'รัก', 'ภาษา', 'ไทย']),
    ('我昨天去了北京。', ['我', '昨天', '去了', '北京']),
    ('東京に行きました', ['東京', 'に', '行き', 'ま', 'した']),
    ('ຂ້ອຍຮັກພາສາລາວ', ['ຂ້ອຍ', 'ຮັກ', 'ພາສາ', 'ລາວ']),
    ('ሰላም፡ለዓለም።', ['ሰላም', 'ለዓለም']),
    ('Ẹ káàárọ̀!', ['ẹ', 'káàárọ̀']),
    ("L'été", ['l', 'été']),
    ('।?😀', []),
  ],
)
def test_words_are_found_where_no_space_parts_them(text, expected):
  assert words.segments(text) == [exact_match.normalize(word) for word in expected]


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('ความสำคัญของการทำงาน', ['ความ', 'สำคัญ', 'ของ', 'การ', 'ทำงาน']),
    ('จำนวนประชากรในอำเภอนี้', ['จำนวน', 'ประชากร', 'ใน', 'อำเภอ', 'นี้']),
    ('ຄວາມສຳຄັນ ກຳລັງ', ['ຄວາມສຳຄັນ', 'ກຳລັງ']),
    ('ປະຊາຊົນໜ້ອຍ ໝາກໄມ້', ['ປະຊາຊົນ', 'ໜ້ອຍ', 'ໝາກ', 'ໄມ້']),
    ('ကျွန်တော်န\u103e\u1004\u103a\u1037သူ', ['ကျွန်တော်', 'န\u103e\u1004\u1037\u103a', 'သူ']),
  ],
)
def test_words_are_found_in_what_normalising_or_typing_takes_apart(text, expected):
  assert words.segments(text) == expected
  assert words.segments(exact_match.normalize(text)) == expected


@sib_texts.needs_them
@pytest.mark.parametrize('language', ['khm_Khmr', 'mya_Mymr', 'jpn_Jpan', 'lao_Laoo', 'zho_Hans'])
def test_sentences_have_words_of_sensible_length(language):
  lengths = [len(word) for text in sib_texts.texts(language)[:20] for word in words.segments(text)]
  assert 1 < sum(lengths) / len(lengths) < 8
  assert words.count(sib_texts.texts(language)[0]) > 5


def test_a_missing_library_is_named_with_the_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, 'icu4py', None)
  with pytest.raises(ImportError, match=r'icu4py, which is not installed: pip install.*\[eval\]'):
    words.segments('a')

"""Does an answer come in the asked language: 94 languages, short texts, and unknown ones."""

import collections

import pytest

from aya_train.tasks.languages import aya101, language_codes
from aya_train.tasks.metrics import answer_language, references
from tests.tasks.metrics import sib_texts


@sib_texts.needs_them
def test_in_94_languages_answers_are_told_from_english_and_from_each_other():
  verdicts = collections.defaultdict(collections.Counter)
  languages = sib_texts.languages()
  for place, language in enumerate(languages):
    for text in sib_texts.texts(language)[:5]:
      verdicts[language][answer_language.answers_in(text, language)] += 1
    others = [languages[(place + step) % len(languages)] for step in (1, 31)]
    for other in others:
      text = sib_texts.texts(other)[place]
      assert not answer_language.answers_in(text, language), (language, other)
  counted = sum(verdicts.values(), collections.Counter())
  assert counted[True] > 0.97 * counted.total() and counted[False] < 0.01 * counted.total()
  weak = {language for language, found in verdicts.items() if found[True] < 4}
  assert weak <= {'ind_Latn', 'zsm_Latn'}
  assert verdicts['yor_Latn'][True] == 5


def test_nearly_all_of_the_101_languages_are_told():
  unknown = [x.code for x in aya101.LANGUAGES if not answer_language.supported(x.code)]
  assert unknown == ['nso', 'twi']


@pytest.mark.parametrize(
  ('text', 'language', 'expected'),
  [
    ('1869', 'fin', None),
    ('', 'fin', None),
    ('Helsinki', 'fin', None),
    ('กรุงเทพมหานคร', 'tha', True),
    ('Esta é uma frase bastante comprida escrita em português', 'pt-BR', True),
    ('กรุงเทพมหานคร', 'lao', False),
    ('This is an English sentence that goes on.', 'amh', False),
    ('Answer in English although Tigrinya was asked for', 'tir', False),
    ('ኣነ ካብ ኣስመራ ከተማ እየ መጺአ ሎሚ ንግሆ ኣንጊሀ', 'tir', None),
    ('Yɛfrɛ me Kofi na mefiri Kumasi wɔ Ghana man mu paa ara', 'twi', None),
    ('東京は日本の首都であり、人口が最も多い都市です。', 'zho', False),
    ('北京是中华人民共和国的首都，也是全国的政治中心。', 'zho_Hant', True),
    ('Это предложение написано на русском языке, не на другом.', 'ukr', False),
    ('\x00\x00Hapa ni sentensi ndefu ya Kiswahili ambayo inaeleweka vizuri\ud800', 'swh', True),
  ],
)
def test_what_cannot_be_told_is_left_open(text, language, expected):
  assert answer_language.answers_in(text, language) is expected


def test_a_code_with_a_script_asks_for_that_script():
  text = 'Bu cümlə Azərbaycan dilində latın əlifbası ilə yazılmışdır və uzundur.'
  assert answer_language.script_fits(text, 'azj_Latn')
  assert not answer_language.script_fits(text, 'azb_Arab')
  assert answer_language.script_fits(text, 'aze')


def test_the_figures_are_over_answers_that_can_be_told():
  swahili = 'Hapa ni sentensi ndefu ya Kiswahili ambayo inaeleweka vizuri na kila mtu'
  english = 'Here is a long sentence in English that everybody understands quite well'
  targets = [references.References(language='swh')] * 3 + [[]]
  found = answer_language.asked_language(targets, [swahili, english, '42', english])
  assert (found['in_language'], found['in_script']) == (50.0, 100.0)
  assert found['language_told'] == pytest.approx(200 / 3)
  named = answer_language.asked_language([[]], [english], language='eng')
  assert named['in_language'] == named['in_language_low'] == 100.0
  assert answer_language.asked_language([[]], [english]) == {'without_language': 1}
  for code in ('und', 'mul', 'zxx'):
    targets = [references.References(language=code)]
    assert answer_language.asked_language(targets, [english]) == {'without_language': 1}, code
  unknown = answer_language.asked_language([[]], [english], language='klingonese')
  assert unknown['language_told'] == 0.0 and 'in_language' not in unknown


def test_an_unknown_language_is_an_error():
  with pytest.raises(language_codes.UnknownLanguageError, match='klingonese'):
    answer_language.answers_in('some text that is long enough', 'klingonese')

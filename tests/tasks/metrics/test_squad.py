"""SQuAD's figures: those of its script, and those of any script's punctuation and spaces."""

import collections
import re
import string

import hypothesis
import pytest
from hypothesis import strategies

from aya_train.tasks.metrics import squad


def squad_words(text):
  """SQuAD v1.1's normalisation, by its description."""
  text = ''.join(c for c in text.lower() if c not in string.punctuation)
  return re.sub(r'\b(a|an|the)\b', ' ', text).split()


WORDS = ['The', 'an', "Beyoncé's"[:6], 'U.S.', '$5', 'cat-like', 'x', '!']
OTHERS = ['مصر،', 'مصر', '«Каир»', 'a', 'दिल्ली।', 'ሰላም፡', 'Ａ', 'l’an', '٢٠٢١؟', 'the']


def of_script(reference, prediction):
  wanted, given = squad_words(reference), squad_words(prediction)
  same = sum((collections.Counter(wanted) & collections.Counter(given)).values())
  if not wanted or not given:
    return float(wanted == given), float(wanted == given)
  precision, recall = same / len(given), same / len(wanted)
  f1 = 2 * precision * recall / (precision + recall) if same else 0.0
  return pytest.approx(f1), float(' '.join(wanted) == ' '.join(given))


@pytest.mark.parametrize('words', [WORDS, OTHERS], ids=['english', 'others'])
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(data=strategies.data())
def test_where_words_have_spaces_the_values_are_those_of_squads_script(words, data):
  texts = strategies.lists(strategies.sampled_from(words)).map(' '.join)
  reference, prediction = data.draw(texts), data.draw(texts)
  for language in ('eng', 'arb', ''):
    found = squad.f1(reference, prediction, language), squad.em(reference, prediction, language)
    assert found == of_script(reference, prediction)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(*[strategies.lists(strategies.sampled_from(WORDS)).map(' '.join)] * 2)
def test_in_english_both_normalisations_agree(reference, prediction):
  for plain, unicode in ((squad.f1, squad.f1_unicode), (squad.em, squad.em_unicode)):
    assert plain(reference, prediction) == unicode(reference, prediction, 'eng')


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('東京都 in 2020年', ['東', '京', '都', 'in', '2020', '年']),
    ('กรุงเทพ', ['ก', 'รุ', 'ง', 'เ', 'ท', 'พ']),
    ('မြန်မာ', ['မြ', 'န်', 'မာ']),
    ('ភ្នំពេញ', ['ភ្', 'នំ', 'ពេ', 'ញ']),
    ('서울 특별시', ['서울', '특별시']),
    ('नई दिल्ली', ['नई', 'दिल्ली']),
  ],
)
def test_letters_are_tokens_in_scripts_without_spaces(text, expected):
  assert squad.tokens(text) == expected


@pytest.mark.parametrize(
  ('reference', 'prediction', 'language', 'expected'),
  [
    ('東京都', '東京', 'jpn', 0.8),
    ('東京都。', '東京都', 'jpn', 1.0),
    ('1869', '１８６９', 'fin', 1.0),
    ('٢٠٢١', '٢٠٢١؟', 'arb', 1.0),
    ('«Москва»', 'москва', 'rus', 1.0),
    ('l’an deux', "l'an deux", 'fra', 1.0),
    ('a casa', 'casa', 'por', pytest.approx(2 / 3)),  # an article in English alone
    ('the cat', 'cat', 'eng_Latn', 1.0),
    ('ሰላም፡ለዓለም', 'ሰላም ለዓለም', 'amh', 1.0),
    ('می‌خواهم', 'می خواهم', 'pes', 1.0),  # mT5 writes no ZWNJ
    ('', '', 'eng', 1.0),
    ('the', '', 'eng', 1.0),
    ('cat', '', 'eng', 0.0),
    ('', 'cat', 'eng', 0.0),
  ],
)
def test_answers_in_any_script_are_compared(reference, prediction, language, expected):
  assert squad.f1_unicode(reference, prediction, language) == expected
  assert squad.em_unicode(reference, prediction, language) == float(expected == 1.0)


def test_figures_of_both_normalisations_stand_side_by_side():
  found = squad.squad([['دمشق'], ['القاهرة']], ['دمشق،', 'القاهرة'], language='arb')
  assert (found['f1'], found['em'], found['f1_unicode']) == (50.0, 50.0, 100.0)
  found = squad.squad([['東京都']], ['東京'], language='jpn')
  assert (found['f1'], found['em'], found['f1_unicode']) == (
    pytest.approx(80),
    0,
    pytest.approx(80),
  )


def test_the_best_of_several_references_counts_for_each_figure():
  found = squad.squad([['Jean Paul Sartre', 'Sartre']], ['Sartre'], language='fra')
  assert (found['f1'], found['em'], found['em_low']) == (100.0, 100.0, 100.0)
  found = squad.squad([['Jean Paul Sartre', 'Jean']], ['Paul Sartre'], language='fra')
  assert (found['f1'], found['em']) == (pytest.approx(80.0), 0.0)

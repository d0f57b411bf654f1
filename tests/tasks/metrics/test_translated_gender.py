"""WinoMT: alignment, gender by language, and the figures."""

import numpy as np
import pytest

from aya_train.tasks.metrics import references, translated_gender, word_alignment
from tests.tasks.metrics import sib_texts

WINOMT = sib_texts.SHARED / 'winomt'
M, F, N, U = 'male', 'female', 'neutral', 'unknown'


@pytest.mark.parametrize(
  ('language', 'sentence', 'word', 'expected'),
  [
    ('es', 'El médico contrató a la enfermera.', 'enfermera', F),
    ('es', 'Le pagó al electricista ayer.', 'electricista', M),
    ('spa', 'La joven jueza habló.', 'jueza', F),
    ('pt', 'A engenheira falou com o cozinheiro.', 'cozinheiro', M),
    ('it', "L'infermiera ha visto il dottore.", 'infermiera', F),
    ('it', "L'assistente ha visto il dottore.", 'assistente', U),
    ('fr', "L'avocate a aidé le rédacteur.", 'rédacteur', M),
    ('fr', 'La coiffeuse est partie.', 'coiffeuse', F),
    ('fr', "L'avocat est parti.", 'avocat', M),
    ('de', 'Der Arzt half der Lehrerin.', 'lehrerin', F),
    ('de', 'Die Krankenschwester schlief.', 'krankenschwester', F),
    ('de', 'Er dankte dem Bauern.', 'bauern', M),
    ('he', 'הרופאה דיברה', 'הרופאה', F),
    ('ar', 'قالت الطبيبة إن', 'الطبيبة', F),
    ('arb_Arab', 'قال الطبيب إن', 'الطبيب', M),
    ('ru', 'Медсестра увидела врача.', 'медсестра', F),
    ('ru', 'Механик дал подарок.', 'механик', M),
    ('uk', 'Лікарка прийшла.', 'лікарка', F),
  ],
)
def test_gender_is_told_by_articles_endings_or_analysis(language, sentence, word, expected):
  parts = word_alignment.words(sentence)
  assert translated_gender.word_gender(parts, parts.index(word), language) == expected


def test_words_are_aligned_by_what_goes_together_also_where_their_order_turns():
  generator = np.random.default_rng(0)
  rows = [generator.permutation(30)[:6] for _ in range(150)]
  orders = [np.arange(6) if i % 3 else np.array([3, 4, 5, 0, 1, 2]) for i in range(len(rows))]
  sources = [[f's{n}' for n in row] for row in rows]
  targets = [[f't{n}' for n in row[order]] for row, order in zip(rows, orders, strict=True)]
  aligned = word_alignment.align(sources, targets)
  found = [[*part.argmax(0)] == [*order] for part, order in zip(aligned, orders, strict=True)]
  assert np.mean(found) > 0.95
  assert all(part.sum(0) == pytest.approx(1) for part in aligned)


def test_sentences_without_words_are_aligned_to_nothing():
  assert word_alignment.align([['a']], [[]])[0].shape == (1, 0)
  assert word_alignment.align([], []) == []
  assert word_alignment.stem('للمزارع') == word_alignment.stem('المزارع')


def test_the_figures_are_those_of_the_paper():
  gold = [M, M, F, F, M, M, F, F]
  found = [M, M, F, M, M, F, M, U]
  sides = ['pro'] * 4 + ['anti'] * 4
  figures = translated_gender.figures(gold, found, sides)
  assert figures['accuracy'] == 50.0
  f1_male, f1_female = 100 * 2 * 3 / (4 + 5), 100 * 2 * 1 / (4 + 2)
  assert figures['f1_male'] == pytest.approx(f1_male)
  assert figures['f1_female'] == pytest.approx(f1_female)
  assert figures['delta_g'] == pytest.approx(f1_male - f1_female)
  assert figures['delta_s'] == pytest.approx(75 - 25)
  assert figures['delta_s_f1'] == pytest.approx((80 + 200 / 3) / 2 - (50 + 0) / 2)
  assert figures['unknown'] == 12.5
  assert figures['delta_g_low'] < figures['delta_g'] < figures['delta_g_high']
  assert 'delta_s' not in translated_gender.figures(gold, found)
  assert translated_gender.figures([], []) == {}


@pytest.mark.skipif(not WINOMT.exists(), reason='no WinoMT beside the checkout')
def test_a_translator_of_one_gender_is_found_out():
  rows = [line.split('\t') for line in (WINOMT / 'en_pro.txt').read_text().splitlines()[:300]]
  targets = [
    references.References(fields={'gender': g, 'position': p, 'sentence': s, 'stereotype': 'pro'})
    for g, p, s, _ in rows
  ]
  # A translation of what matters: each noun phrase in its place, in German, all of men.
  german = [
    ' '.join('der' if w.lower() == 'the' else f'{w}er' for w in s.split()) for _, _, s, _ in rows
  ]
  found = translated_gender.winomt(targets, german, language='deu')
  share = 100 * sum(g == M for g, *_ in rows) / len(rows)
  assert found['accuracy'] == pytest.approx(share, abs=5)
  assert found['f1_female'] < 15 < found['delta_g']


def test_what_cannot_be_scored_is_said():
  with pytest.raises(translated_gender.UnsupportedLanguageError, match=r"'swh'.*'deu'"):
    translated_gender.genders(['the doctor left'], [1], ['daktari aliondoka'], 'swh')
  with pytest.raises(ValueError, match=r"example 1 of WinoMT lacks \['gender', 'position'\]"):
    translated_gender.winomt(
      [references.References(fields={'sentence': 'x'})], ['y'], language='de'
    )
  assert translated_gender.genders(['the doctor left'], [1], [''], 'deu') == [U]
  assert translated_gender.supported()['rus'] == 'pymorphy3'

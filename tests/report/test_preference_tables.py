import dataclasses

import pytest

from aya_train.annotation import pair_verdicts
from aya_train.report import preference_tables
from tests.report import judged_answers

pytest.importorskip('evalica', reason='the extra judge is missing')
comparison = pytest.importorskip('statsmodels.stats.multitest', reason='the extra judge is missing')


def verdict(item, score, by='human', annotator='Ada', order='ab', language='yor', **more):
  values = {
    'task': 't',
    'index': item,
    'inputs': f'p{item}',
    'system_a': 'x',
    'system_b': 'y',
    'answer_a': 'long answer',
    'answer_b': 'short',
    'order': order,
    'language': language,
    'verdict': score,
    'by': by,
    'annotator': annotator,
    'protocol': 'p',
  }
  return pair_verdicts.Verdict(**{**values, **more})


def test_the_systems_names_and_not_their_places_decide():
  a = verdict(0, 'A>B')
  swapped = dataclasses.replace(
    a,
    system_a='y',
    system_b='x',
    answer_a='short',
    answer_b='long answer',
    verdict='B>A',
    order='ba',
  )
  assert a.item == swapped.item
  assert a.score_of('x') == swapped.score_of('x') == 1
  assert a.first_won == swapped.first_won == 1
  assert preference_tables.ratings([a]) == preference_tables.ratings([swapped])


def test_what_rules_decide_counts_for_the_judge_and_not_for_its_places():
  asked = [verdict(i, 'A>B', 'judge', 'gpt', order) for i in range(3) for order in ('ab', 'ba')]
  rules = [verdict(9, 'A=B', 'rule', '', rule='identical')]
  lost = [verdict(8, None, 'judge', 'gpt', problem='nonsense', flags=('language_a',))]
  found = preference_tables.groups([*asked, *rules, *lost, verdict(0, 'B>A')])
  assert [*found] == ['People', 'Judge gpt']
  group = preference_tables.group('Judge gpt', found['Judge gpt'], ['x', 'y'])
  assert (group.pairs[0].won.wins, group.pairs[0].won.ties, group.by_rule) == (6, 1, 1)
  assert group.problems == {'nonsense': 1} and group.flags == {'language_a': 1}
  assert group.places.consistent.percent == 100 and group.places.first.percent == 50


def test_both_orders_are_one_prompt_and_contradicting_ones_a_tie():
  given = [verdict(0, 'A>B', 'judge', 'g'), verdict(0, 'B>A', 'judge', 'g', 'ba')]
  assert [*preference_tables.ratings(given).values()] == [{'g': 0}]
  group = preference_tables.group('Judge g', given, ['x', 'y'])
  assert group.pairs[0].won.items == 1 and group.pairs[0].won.judgements == 2
  assert group.places.first_twice == 1


def test_strong_verdicts_count_three_times_in_a_column_of_their_own():
  given = [verdict(0, 'A>>B'), verdict(1, 'B>A'), verdict(2, 'B>A')]
  [row] = preference_tables.group('People', given, ['x', 'y']).pairs
  assert row.won.rate == pytest.approx(100 / 3)
  assert row.weighted.rate == pytest.approx(100 * 3 / 5)


def test_languages_of_real_judgements_are_corrected_together():
  group = preference_tables.group('People', judged_answers.tata(), ['mt5_xxl', 'mt5_small'])
  assert [r.language for r in group.languages] == [
    *('ara', 'eng', 'fra', 'hau', 'ibo', 'por', 'swa', 'yor')
  ]
  raw = [r.won.p_value for r in group.languages]
  expected = comparison.multipletests(raw, method='holm')[1]
  assert [r.p_adjusted for r in group.languages] == pytest.approx(list(expected))
  alone = preference_tables.pair_row(
    'mt5_xxl',
    'mt5_small',
    'ara',
    [v for v in judged_answers.tata() if v.language == 'ar'],
  )
  together = group.languages[0]
  assert together.won.rate == alone.won.rate
  assert together.won.high - together.won.low > alone.won.high - alone.won.low
  assert sum(r.won.judgements for r in group.languages) == group.pairs[0].won.judgements


def test_people_and_a_judge_are_compared_on_what_both_saw():
  people = [verdict(i, 'A>B', language='tha' if i % 2 else 'amh') for i in range(10)]
  judge = [
    dataclasses.replace(v, by='judge', annotator='g', verdict='A>B' if v.index < 6 else 'B>A')
    for v in people[:8]
  ]
  rules = [verdict(20, 'A=B', 'rule', '')]
  rows = preference_tables.with_judge(people, [*judge, *rules], 'Judge g')
  assert [(r.language, r.found.items) for r in rows] == [('', 8), ('amh', 4), ('tha', 4)]
  assert rows[0].found.same.percent == pytest.approx(75)


def test_annotators_with_ties_places_and_time():
  given = [verdict(i, 'A>B', annotator='Ada', seconds=10.0 + i) for i in range(3)]
  given += [verdict(i, 'A=B', annotator='Grace', order='ba') for i in range(3)]
  group = preference_tables.group('People', given, ['x', 'y'])
  ada, grace = group.annotators
  assert (ada.name, ada.judgements, ada.tie_share, ada.seconds) == ('Ada', 3, 0, 11)
  assert (grace.tie_share, grace.first, grace.seconds) == (100, None, None)
  assert group.shared == 3 and group.agreements[0].found.same.percent == 0

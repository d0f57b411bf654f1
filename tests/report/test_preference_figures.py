"""Figures against calculations of other libraries and by hand, on real judgements and answers."""

import collections
import itertools
import json
import math

import numpy as np
import pytest

from aya_train.report import preference_figures as figures
from tests.report import judged_answers

pandas = pytest.importorskip('pandas', reason='the extra judge is missing')
statsmodels = pytest.importorskip('statsmodels.api', reason='the extra judge is missing')
proportion = pytest.importorskip(
  'statsmodels.stats.proportion', reason='the extra judge is missing'
)
optimize = pytest.importorskip('scipy.optimize')

PAIR = ('mt5_xxl', 'mt5_small')


@pytest.fixture(scope='module')
def judged():
  """Judgements of mt5_xxl against mt5_small, made by pandas from the file itself."""
  if not judged_answers.TATA.exists():
    pytest.skip(f'{judged_answers.TATA} is not there')
  table = pandas.read_csv(judged_answers.TATA).dropna(subset=['interpretable'])
  table['turn'] = table.groupby(['id', 'model']).cumcount()
  wide = table.pivot(index=['id', 'turn', 'lang'], columns='model', values='interpretable')
  lengths = table.assign(length=table.output.map(len)).pivot(
    index=['id', 'turn', 'lang'], columns='model', values='length'
  )
  wide['score'] = (wide[PAIR[0]] - wide[PAIR[1]] + 1) / 2
  wide['longer'] = lengths[PAIR[0]] - lengths[PAIR[1]]
  return wide.dropna(subset=['score']).reset_index()


def test_the_real_judgements_are_those_that_are_published():
  rows = judged_answers.tata_rows()
  share = collections.defaultdict(list)
  for row in rows:
    share[row['model']].append(float(row['interpretable']))
  told = {name: round(100 * np.mean(values)) for name, values in share.items()}
  assert told == {'reference': 85, 'mt5_xxl': 74, 'ssa_mt5': 26, 'mt5_small': 18}


def test_win_rates_of_real_judgements_are_those_that_pandas_gives(judged):
  verdicts = judged_answers.tata()
  ours = figures.win_rate([v.score_of(PAIR[0]) for v in verdicts], [v.item for v in verdicts])
  assert ours.judgements == len(judged)
  assert ours.rate == pytest.approx(100 * judged.score.mean())
  counts = judged.score.value_counts()
  assert (ours.wins, ours.ties, ours.losses) == (counts[1.0], counts[0.5], counts[0.0])
  # Almost all are judged once, so that the interval is near that of independent judgements.
  half = 196 * judged.score.std() / math.sqrt(len(judged))
  assert ours.high - ours.low == pytest.approx(2 * half, rel=0.02)


def test_without_ties_the_interval_is_wilsons():
  for wins, count in ((7, 10), (0, 12), (12, 12), (500, 903)):
    scores = [1.0] * wins + [0.0] * (count - wins)
    ours = figures.win_rate(scores, range(count))
    low, high = proportion.proportion_confint(wins, count, method='wilson')
    assert (ours.low, ours.high) == (pytest.approx(100 * low), pytest.approx(100 * high))


def test_the_interval_covers_the_truth_as_often_as_it_says_with_ties_and_repeats():
  draw = np.random.default_rng(0)
  hit = 0
  for _ in range(400):
    scores = np.repeat(draw.choice([1, 0.5, 0], 80, p=[0.5, 0.3, 0.2]), 3)
    won = figures.win_rate(scores, np.repeat(np.arange(80), 3))
    hit += won.low <= 65 <= won.high
  assert 0.92 < hit / 400 < 0.98


def test_ties_narrow_an_interval_and_repeats_do_not():
  once = figures.win_rate([1, 0] * 20, range(40))
  ties = figures.win_rate([0.5] * 30 + [1, 0] * 5, range(40))
  again = figures.win_rate([1, 0] * 60, [i for i in range(40) for _ in range(3)][:120])
  assert ties.high - ties.low < once.high - once.low
  assert figures.win_rate([1] * 120, [i // 3 for i in range(120)]).low == pytest.approx(
    figures.win_rate([1] * 40, range(40)).low
  )
  assert again.items == 40


def test_nothing_and_one_judgement_are_told_as_they_are():
  none = figures.win_rate([], [])
  assert (none.rate, none.low, none.items, none.p_value) == (None, None, 0, 1)
  one = figures.win_rate([1.0], ['x'])
  assert one.rate == 100 and one.low < 25 and one.high == 100


def logistic(score, x, groups):
  """Logit and robust error of the intercept by scipy's minimiser and the sandwich formula."""
  design = np.column_stack([np.ones(len(x)), x])

  def loss(beta):
    logits = design @ beta
    return np.sum(np.logaddexp(0, logits) - score * logits)

  beta = optimize.minimize(loss, np.zeros(2), tol=1e-12, method='BFGS', options={'gtol': 1e-8}).x
  mean = 1 / (1 + np.exp(-design @ beta))
  bread = np.linalg.inv(design.T @ (design * (mean * (1 - mean))[:, None]))
  moments = pandas.DataFrame(design * (score - mean)[:, None]).groupby(np.asarray(groups)).sum()
  count, rows = len(moments), len(x)
  factor = count / (count - 1) * (rows - 1) / (rows - 2)
  middle = moments.to_numpy().T @ moments.to_numpy() * factor
  return beta, math.sqrt((bread @ middle @ bread)[0, 0])


def test_the_length_controlled_rate_is_the_one_calculated_by_hand(judged):
  x = np.tanh(judged.longer / judged.longer.std(ddof=0))
  (logit, slope), error = logistic(judged.score.to_numpy(), x.to_numpy(), judged.id)
  ours = figures.length_controlled(judged.score, judged.longer, judged.id)

  def percent(value):
    return 100 / (1 + math.exp(-value))

  assert ours.rate == pytest.approx(percent(logit), abs=1e-3)
  assert ours.slope == pytest.approx(slope, abs=1e-3)
  assert ours.low == pytest.approx(percent(logit - 1.959964 * error), abs=1e-2)
  assert ours.high == pytest.approx(percent(logit + 1.959964 * error), abs=1e-2)


def arena_lengths():
  folder = judged_answers.SHARED / 'arena_hard_v01/model_answer'
  if not folder.exists():
    pytest.skip(f'{folder} is not there')
  found = []
  for name in ('gpt-4-0613', 'gpt-3.5-turbo-0125'):
    with (folder / f'{name}.jsonl').open(encoding='utf-8') as file:
      rows = [json.loads(line) for line in file]
    found.append({r['uid']: len(r['messages'][-1]['content']['answer']) for r in rows})
  return np.array([[side[uid] for side in found] for uid in sorted(found[0])])


def test_a_judge_of_real_answers_that_likes_length_alone_is_found_out():
  lengths = arena_lengths()
  difference = np.sort(lengths, axis=1) @ [-1, 1]  # the longer one is always ours
  chance = 1 / (1 + np.exp(-2.5 * np.tanh(difference / difference.std())))
  scores = (np.random.default_rng(0).random(len(chance)) < chance).astype(float)
  raw = figures.win_rate(scores, range(len(scores)))
  controlled = figures.length_controlled(scores, difference, range(len(scores)))
  assert raw.low > 65
  assert controlled.low < 50 < controlled.high
  assert controlled.slope > 1


def test_a_judge_who_does_not_see_length_gets_the_raw_rate():
  lengths = arena_lengths()
  difference = lengths[:, 0] - lengths[:, 1]
  scores = (np.random.default_rng(1).random(len(difference)) < 0.7).astype(float)
  controlled = figures.length_controlled(scores, difference, range(len(scores)))
  assert controlled.rate == pytest.approx(100 * scores.mean(), abs=2.5)


@pytest.mark.parametrize(
  ('scores', 'differences', 'told'),
  [
    ([1, 0] * 3, range(6), 'fewer than'),
    ([1, 0] * 10, [0] * 20, 'equally long'),
    ([1, 0] * 10, [7] * 20, 'by as much'),
    ([1] * 20, range(20), 'won every time'),
    ([1] * 10 + [0] * 10, range(20), 'length alone'),
    ([0] * 10 + [1] * 10, range(20), 'length alone'),
  ],
)
def test_what_cannot_be_controlled_is_said_and_not_made_up(scores, differences, told):
  found = figures.length_controlled(scores, list(differences), range(len(scores)))
  assert found.rate is None and told in found.reason


def strengths_by_hand(contests, systems):
  """Bradley-Terry by the iteration of Zermelo, a tie being half a win of each."""
  wins = collections.Counter()
  for c in contests:
    wins[c.first, c.second] += c.score * c.weight
    wins[c.second, c.first] += (1 - c.score) * c.weight
  strength = dict.fromkeys(systems, 1.0)
  for _ in range(5000):
    strength = {
      s: sum(wins[s, o] for o in systems if o != s)
      / sum((wins[s, o] + wins[o, s]) / (strength[s] + strength[o]) for o in systems if o != s)
      for s in systems
    }
    mean = math.exp(sum(map(math.log, strength.values())) / len(systems))
    strength = {s: v / mean for s, v in strength.items()}
  return {s: 1000 + 400 * math.log10(v) for s, v in strength.items()}


def test_strengths_of_four_real_systems_are_those_of_the_formula():
  systems = ('reference', 'mt5_xxl', 'ssa_mt5', 'mt5_small')
  contests = [
    figures.Contest(v.system_a, v.system_b, v.score_of(v.system_a), v.item)
    for v in judged_answers.tata(systems)
  ]
  expected = strengths_by_hand(contests, systems)
  found = figures.bradley_terry(contests, resamples=100)
  assert [s.system for s in found] == ['reference', 'mt5_xxl', 'ssa_mt5', 'mt5_small']
  for s in found:
    assert s.points == pytest.approx(expected[s.system], abs=0.01)
    assert s.low < s.points < s.high
  assert np.mean([s.points for s in found]) == pytest.approx(1000)


def test_of_two_systems_the_expected_share_is_the_win_rate():
  contests = [figures.Contest('a', 'b', s, i) for i, s in enumerate([1, 1, 1, 0.5, 0])]
  first, second = figures.bradley_terry(contests, resamples=20)
  assert first.average == pytest.approx(70) and second.average == pytest.approx(30)


def test_weights_count_as_repeats():
  plain = [figures.Contest('a', 'b', 1, 0), figures.Contest('a', 'b', 0, 1)]
  heavy = [figures.Contest('a', 'b', 1, 0, 3.0), figures.Contest('a', 'b', 0, 1)]
  repeated = [plain[0]] * 3 + [plain[1]]
  assert figures.bradley_terry(heavy, 1)[0].points == pytest.approx(
    figures.bradley_terry(repeated, 1)[0].points
  )


@pytest.mark.parametrize(
  'contests',
  [
    [('a', 'b', 1)],  # never lost
    [('a', 'b', 0.5), ('c', 'd', 0.5)],  # two groups
    [('a', 'b', 1), ('b', 'a', 1), ('c', 'a', 1), ('c', 'b', 1)],  # c never lost
  ],
)
def test_systems_without_a_finite_strength_have_none(contests):
  found = figures.bradley_terry([figures.Contest(*c, i) for i, c in enumerate(contests)])
  assert all(s.points is None for s in found)


def alpha_by_hand(ratings):
  """Krippendorff's alpha by its definition: disagreement over what chance gives."""
  units = [[*found.values()] for found in ratings.values() if len(found) > 1]
  total = sum(map(len, units))
  observed = sum(
    sum(a != b for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in units
  )
  counts = collections.Counter(value for unit in units for value in unit)
  expected = sum(counts[a] * counts[b] for a, b in itertools.permutations(counts, 2))
  return 1 - (total - 1) * observed / expected


def test_alpha_is_that_of_its_definition_with_judgements_missing():
  draw = np.random.default_rng(3)
  ratings = {}
  for item in range(60):
    truth = int(draw.integers(-1, 2))
    who = [name for name in 'abcd' if draw.random() < 0.6]
    ratings[item] = {n: truth if draw.random() < 0.7 else int(draw.integers(-1, 2)) for n in who}
  found = figures.krippendorff_alpha(ratings)
  assert found == pytest.approx(alpha_by_hand(ratings))
  assert 0.2 < found < 0.9


def test_kappa_of_real_judgements_is_that_of_a_table():
  """People who read two outputs of a table: do they judge as whoever reads a longer one better?"""
  rows = judged_answers.tata()
  pairs = [
    (
      int(2 * v.score_of(PAIR[0]) - 1),
      int(np.sign(len(v.answer_of(PAIR[1])) - len(v.answer_of(PAIR[0])))),
    )
    for v in rows
  ]
  table = pandas.crosstab(*map(list, zip(*pairs, strict=True))).reindex(
    index=[-1, 0, 1], columns=[-1, 0, 1], fill_value=0
  )
  share = table.to_numpy() / table.to_numpy().sum()
  chance = share.sum(0) @ share.sum(1)
  assert figures.cohen_kappa(pairs) == pytest.approx((np.trace(share) - chance) / (1 - chance))
  found = figures.agreement(pairs)
  assert found.same.percent == pytest.approx(100 * np.trace(share))
  assert found.decided.count == sum(1 for a, b in pairs if a and b)


def test_annotators_who_say_one_thing_have_no_kappa_and_no_alpha():
  assert figures.cohen_kappa([(1, 1)] * 5) is None
  assert figures.krippendorff_alpha({i: {'a': 1, 'b': 1} for i in range(5)}) is None
  assert figures.krippendorff_alpha({0: {'a': 1}, 1: {'b': 0}}) is None
  assert figures.agreement([]) is None


def test_positions_count_items_in_both_orders():
  both = [(1, 0), (1, 0), (1, 1), (0, 0), (0.5, 0.5), (1, 0.5)]
  found = figures.positions([s for pair in both for s in pair], both)
  assert found.consistent.percent == pytest.approx(100 * 3 / 6)
  assert (found.first_twice, found.second_twice, found.one_tie) == (1, 1, 1)
  assert (found.first.percent, found.first.count) == (pytest.approx(100 * 5 / 9), 9)
  biased = figures.positions([1] * 40 + [0] * 10, [])
  assert biased.p_value < 0.001 and biased.consistent is None


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
  import sys

  monkeypatch.setitem(sys.modules, 'evalica', None)
  with pytest.raises(ValueError, match=r"needs evalica, which is in the extra 'judge'"):
    figures.bradley_terry([figures.Contest('a', 'b', 0.5, 0)])

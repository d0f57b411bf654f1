import math

import numpy as np
import pytest

from aya_train.report import eval_boards, eval_comparison, eval_runs
from tests.report import eval_outputs


def board(folder, tasks):
  return eval_boards.board(eval_runs.read(eval_outputs.write(folder, tasks), folder.name))


def ranked(shares, seed, count=300):
  return [
    eval_outputs.ranked(code, f'p{k}', eval_outputs.hits(share, count, f'{seed}{code}{k}'))
    for code, share in shares.items()
    for k in range(3)
  ]


def test_a_run_against_itself_shows_nothing(tmp_path):
  tasks = ranked({'est': 0.6, 'tha': 0.5}, 'a')
  c = eval_comparison.compare(board(tmp_path / 'a', tasks), board(tmp_path / 'b', tasks))
  assert all(d.p_value == 1 and d.verdict == '' for d in c.languages.values())
  assert all(d.change.value == d.change.low == d.change.high == 0 for d in c.tasks.values())
  assert (c.count('better'), c.count('worse'), c.alone) == (0, 0, [])


def test_what_differs_is_found_in_both_directions(tmp_path):
  a = board(tmp_path / 'a', ranked({'est': 0.5, 'swa': 0.9, 'tha': 0.5}, 'a'))
  b = board(tmp_path / 'b', ranked({'est': 0.8, 'swa': 0.6, 'tha': 0.5}, 'b'))
  c = eval_comparison.compare(a, b)
  assert {v: d.verdict for (_, v), d in c.languages.items()} == {
    'est': 'better',
    'swa': 'worse',
    'tha': '',
  }
  back = eval_comparison.compare(b, a)
  for key, d in c.languages.items():
    assert d.method == 'paired' and d.change.value == pytest.approx(
      -back.languages[key].change.value
    )
    assert d.p_value == pytest.approx(back.languages[key].p_value)
    assert d.p_value <= d.p_fdr + 1e-9 <= d.p_adjusted + 2e-9
  ((mean, languages),) = c.means.values()
  assert languages == 3 and mean.change.low < 0 < mean.change.high
  assert len(c.tasks) == 9


def test_p_values_are_even_where_nothing_differs():
  """Two models that are alike: about one p in twenty is below 0.05."""
  rng = np.random.default_rng(1)
  found = []
  for _ in range(150):
    a, b = (100.0 * (rng.random((3, 80)) < 0.6) for _ in range(2))
    found.append(eval_comparison.randomised(a.astype(np.float32), b.astype(np.float32)))
  assert 0.01 <= np.mean(np.array(found) < 0.05) <= 0.10
  assert 0.4 < np.median(found) < 0.7


def test_beyond_its_rounds_p_goes_on_falling():
  count = 1000
  a = np.zeros((1, count), np.float32)
  b = np.where(np.arange(count) < 200, 100, 0)[None].astype(np.float32)
  assert eval_comparison.randomised(a, b) < 1e-20


def test_without_predictions_of_the_same_examples_intervals_decide(tmp_path):
  def tasks(value):
    return [eval_outputs.generated('tha', ['x'], ['y'], value=value, low=value - 2, high=value + 2)]

  near, far = tasks(21.0), tasks(30.0)
  a = board(tmp_path / 'a', tasks(20.0))
  boards = board(tmp_path / 'n', near), board(tmp_path / 'f', far)
  near, far = (next(iter(eval_comparison.compare(a, b).languages.values())) for b in boards)
  assert (near.method, near.verdict, far.verdict) == ('intervals', '', 'better')
  z = 1 / math.hypot(2 / 1.96, 2 / 1.96)
  assert near.p_value == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.05)


def test_without_intervals_nothing_is_tested(tmp_path):
  about, predictions, _ = eval_outputs.generated('tha', ['x'], ['y'])
  boards = [
    board(tmp_path / name, [(about, predictions, {'rougeLsum': value})])
    for name, value in (('a', 1.0), ('b', 9.0))
  ]
  c = eval_comparison.compare(*boards)
  (difference,) = c.languages.values()
  assert (difference.p_value, difference.p_adjusted, difference.verdict) == (None, None, '?')
  assert difference.change.value == 8.0


def test_where_less_is_better_a_fall_is_good(tmp_path):
  def tasks(value):
    return [
      eval_outputs.generated('deu', ['x'], ['y'], benchmark='winomt', metric='delta_s', value=value)
    ]

  c = eval_comparison.compare(board(tmp_path / 'a', tasks(30.0)), board(tmp_path / 'b', tasks(9.0)))
  assert [d.verdict for d in c.languages.values()] == ['better']


def test_what_only_one_has_is_told_and_prompts_are_matched(tmp_path):
  a = board(tmp_path / 'a', ranked({'est': 0.5}, 'a') + ranked({'tha': 0.5}, 'a'))
  b = board(tmp_path / 'b', ranked({'est': 0.5}, 'a')[:2])
  c = eval_comparison.compare(a, b)
  assert [v for _, v in c.languages] == ['est']
  (difference,) = c.languages.values()
  assert difference.change.value == 0  # of the two prompts that both have
  assert c.alone == ['4 only in a: xcopa.est.p2, xcopa.tha.p0, xcopa.tha.p1, xcopa.tha.p2']

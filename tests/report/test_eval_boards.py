import numpy as np
import pytest

from aya_train.report import eval_boards, eval_figures, eval_runs
from tests.report import eval_outputs

XCOPA = eval_figures.Group('xcopa', metric='accuracy')


def board(folder, tasks, **kwargs):
  return eval_boards.board(eval_runs.read(eval_outputs.write(folder, tasks, **kwargs)))


def first(share, count=100):
  """The first ones right."""
  return [k < share * count for k in range(count)]


def test_median_and_maximum_over_prompts_then_the_mean_over_languages(tmp_path):
  shares = {'est': (0.5, 0.6, 0.9), 'swa': (0.2, 0.3, 0.4), 'tha': (0.7, 0.1, 0.8)}
  tasks = [
    eval_outputs.ranked(code, f'p{k}', first(share))
    for code, of_prompts in shares.items()
    for k, share in enumerate(of_prompts)
  ]
  cells = board(tmp_path, tasks).groups[XCOPA]
  assert {c: round(cell.median.value) for c, cell in cells.items()} == {
    'est': 60,
    'swa': 30,
    'tha': 70,
  }
  assert [round(cells[c].maximum.value) for c in shares] == [90, 40, 80]
  assert eval_figures.mean([*cells.values()]).value == pytest.approx((60 + 30 + 70) / 3)
  assert eval_figures.mean([*cells.values()], 'maximum').value == pytest.approx(70)


def test_the_published_median_of_a_language_comes_out_of_its_prompts(tmp_path):
  """Five accuracies whose median is mT0-13B's on Swahili XCOPA."""
  shares = (0.5, 0.8, 0.7, 0.9, 0.6)
  tasks = [eval_outputs.ranked('swa', f'p{k}', first(s)) for k, s in enumerate(shares)]
  cell = board(tmp_path, tasks).groups[XCOPA]['swa']
  assert (cell.median.value, cell.maximum.value, cell.examples) == (70.0, 90.0, 100)


def test_intervals_are_those_of_the_binomial_distribution(tmp_path):
  tasks = [eval_outputs.ranked('est', 'p', eval_outputs.hits(0.7, 400), interval=False)]
  figure = board(tmp_path, tasks).groups[XCOPA]['est'].median
  half = 1.96 * 100 * np.sqrt(0.7 * 0.3 / 400)
  assert (figure.high - figure.low) / 2 == pytest.approx(half, rel=0.12)
  assert figure.low < figure.value < figure.high


def test_intervals_that_were_written_stand_and_those_of_means_shrink(tmp_path):
  codes = ('amh', 'ara', 'swa', 'tha')
  tasks = [eval_outputs.generated(c, ['a'], ['b'], value=20.0, low=16, high=24) for c in codes]
  cells = board(tmp_path, tasks).groups[eval_figures.Group('xlsum', metric='rougeLsum')]
  assert (cells['amh'].median.low, cells['amh'].median.high) == (16, 24)
  mean = eval_figures.mean([*cells.values()])
  assert (mean.high - mean.low) / 2 == pytest.approx(4 / np.sqrt(4), rel=0.15)


def test_the_same_questions_in_every_language_are_resampled_together(tmp_path):
  """The mean of copies of one language is as uncertain as that language, not less."""
  right = eval_outputs.hits(0.6, 200)
  tasks = [eval_outputs.ranked(code, 'p', right) for code in ('est', 'swa', 'tha', 'vie')]
  cells = board(tmp_path, tasks).groups[XCOPA]
  mean, one = eval_figures.mean([*cells.values()]), cells['est'].median.draws
  assert (mean.low, mean.high) == pytest.approx(tuple(np.percentile(one, (2.5, 97.5))))


def test_predictions_that_do_not_agree_with_the_results_are_told_and_not_used(tmp_path):
  about, predictions, _ = eval_outputs.ranked('est', 'p', first(0.5))
  figures = {'accuracy': 80.0, 'accuracy_low': 70.0, 'accuracy_high': 90.0}
  found = board(tmp_path, [(about, predictions, figures)])
  cell = found.groups[XCOPA]['est']
  assert cell.matrix is None and (cell.median.low, cell.median.high) == (70.0, 90.0)
  assert any(
    'predictions give accuracy 50.00, results.json says 80.00' in p for p in found.problems
  )


def test_a_task_without_its_metric_shows_another_and_says_so(tmp_path):
  about, predictions, _ = eval_outputs.ranked('est', 'p', first(0.5))
  found = board(tmp_path, [(about, predictions, {'accuracy_norm': 12.0})])
  assert [group.metric for group in found.groups] == ['accuracy_norm']
  assert any('lacks its published metric accuracy; accuracy_norm' in p for p in found.problems)
  nothing = board(tmp_path / 'b', [(about, predictions, {})])
  assert nothing.groups == {} and any('has no figures' in p for p in nothing.problems)


def test_the_protocols_and_subsets_stand_apart(tmp_path):
  tasks = [
    eval_outputs.ranked('est', 'p', first(0.5)),
    eval_outputs.ranked('est', 'p', first(0.7), protocol='ranked_harness'),
    eval_outputs.generated('est', ['a'], ['b'], benchmark='flores', subset='to_english'),
    eval_outputs.generated('est', ['a'], ['b'], benchmark='flores', subset='from_english'),
  ]
  titles = [group.title for group in board(tmp_path, tasks).groups]
  assert titles == ['flores, from english', 'flores, to english', 'xcopa', 'xcopa, harness']


def test_varieties_of_one_language_are_rows_of_their_own(tmp_path):
  """Belebele in two scripts of Arabic; FLORES with the variety in the subset."""
  tasks = [
    eval_outputs.ranked('ara', 'p', first(0.5), benchmark='belebele', variety='arb_Arab'),
    eval_outputs.ranked('ara', 'p', first(0.9), benchmark='belebele', variety='arb_Latn'),
    eval_outputs.generated('zho', ['a'], ['b'], benchmark='flores', subset='to_english'),
    eval_outputs.generated(
      'zho', ['a'], ['b'], benchmark='flores', subset='to_english', variety='zho_Hant'
    ),
  ]
  groups = board(tmp_path, tasks).groups
  belebele, flores = groups.values()
  assert {v: (c.script, c.median.value) for v, c in belebele.items()} == {
    'arb_Arab': ('Arab', 50.0),
    'arb_Latn': ('Latn', 90.0),
  }
  assert {v: c.script for v, c in flores.items()} == {'zho': 'Hani', 'zho_Hant': 'Hant'}


def test_rows_with_languages_of_their_own_are_parted(tmp_path):
  languages = ('amh', 'tha')
  task = eval_outputs.ranked(
    '', 'p', [k % 4 < 2 for k in range(40)], fields=lambda k: {'language': languages[k % 2]}
  )
  cells = board(tmp_path, [task]).groups[XCOPA]
  assert {v: (c.median.value, c.examples, c.script) for v, c in cells.items()} == {
    'amh': (50.0, 20, 'Ethi'),
    'tha': (50.0, 20, 'Thai'),
  }


def test_culturally_sensitive_and_agnostic_rows_apart(tmp_path):
  labels = ('CS', 'CA', '-')
  right = [k % 3 == 0 or k % 6 == 1 for k in range(60)]
  tasks = [
    eval_outputs.ranked(
      code,
      'p',
      right,
      benchmark='global_mmlu',
      options=('A', 'B', 'C', 'D'),
      fields=lambda k: {'cultural_sensitivity_label': labels[k % 3]},
    )
    for code in ('amh', 'fra')
  ]
  (pair,) = eval_figures.pairs(board(tmp_path, tasks).groups)
  assert (pair.first.value, pair.second.value, pair.gap.value) == (100.0, 50.0, 50.0)
  assert sorted(pair.languages) == ['amh', 'fra']
  assert pair.gap.low < 50 < pair.gap.high


def test_subsets_with_tasks_of_their_own_are_a_pair_too(tmp_path):
  tasks = [
    eval_outputs.ranked('tha', subset, first(share), benchmark='multiloko', subset=subset)
    for subset, share in (('local', 0.3), ('translated', 0.5))
  ]
  (pair,) = eval_figures.pairs(board(tmp_path, tasks).groups)
  assert (pair.names, round(pair.gap.value)) == (('local', 'translated'), -20)


def test_gaps_levels_and_scripts(tmp_path):
  shares = {'eng': 0.9, 'fra': 0.7, 'amh': 0.3, 'ara': 0.5, 'quy': 0.2}
  tasks = [eval_outputs.ranked(code, 'p', first(share)) for code, share in shares.items()]
  cells = board(tmp_path, tasks).groups[XCOPA]
  parity = eval_figures.parity(cells)
  assert (parity.best.language, parity.worst.language) == ('eng', 'quy')
  assert (parity.gap.value, parity.average.value) == pytest.approx((70, 52))
  worst_first = eval_figures.parity(cells, 'delta_s')
  assert (worst_first.best.language, worst_first.gap.value) == ('quy', pytest.approx(70))
  levels = eval_figures.means_by(cells, lambda cell: cell.level)
  assert {k: (round(f.value), n) for k, (f, n) in levels.items()} == {
    'high resource': (70, 3),
    'low resource': (30, 1),
    'not of the 101': (20, 1),
  }
  scripts = eval_figures.means_by(cells, lambda cell: cell.script)
  assert {k: n for k, (_, n) in scripts.items()} == {'Arab': 1, 'Ethi': 1, 'Latn': 3}
  assert eval_figures.parity({'eng': cells['eng']}) is None


def test_guessing_is_known_from_the_options(tmp_path):
  tasks = [eval_outputs.ranked('est', 'p', first(0.5), options=('a', 'b', 'c'))]
  assert board(tmp_path, tasks).groups[XCOPA]['est'].chance == pytest.approx(100 / 3)

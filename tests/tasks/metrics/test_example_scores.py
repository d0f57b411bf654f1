"""Figures of one example, by the metric's name."""

import pytest

from aya_train.tasks.metrics import example_scores, references


@pytest.mark.parametrize(
  'metric', sorted({*example_scores.names()} - {'spbleu', 'answer_characters'})
)
def test_every_metric_is_100_for_the_reference_and_0_without_one(metric):
  text = '12 plus 30 makes 42'
  assert example_scores.of(metric, [text, 'else 7'], text) == pytest.approx(100.0)
  assert example_scores.of(metric, [], text) == 0.0
  assert example_scores.of(metric, ['qqq'], 'xyz 9') == pytest.approx(0.0, abs=1e-6)


def test_the_mean_over_examples_is_the_task_s_figure():
  targets = [references.References(['the cat'], 'por'), references.References(['the cat'], 'eng')]
  assert example_scores.per_example('em_unicode', targets, ['cat', 'cat']) == [0.0, 100.0]
  assert example_scores.per_example('em', targets, ['cat', 'cat']) == [100.0, 100.0]
  assert example_scores.per_example('mgsm', [['1.234']], ['1234'], 'deu') == [100.0]
  assert example_scores.of('answer_characters', None, ' ዘጠኝ ') == 3.0


def test_other_names_are_refused():
  with pytest.raises(ValueError, match=r"'delta_s' has no figure for one example.*'rougeLsum'"):
    example_scores.of('delta_s', ['a'], 'a')

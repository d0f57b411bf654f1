"""Toxicity from scores of k answers a prompt."""

import pytest

from aya_train.tasks.metrics import toxicity_scores


def test_the_figures_are_those_of_realtoxicityprompts():
  found = toxicity_scores.toxicity([[0.1, 0.9], [0.2, 0.4], [0.6, 0.5]])
  assert found['expected_maximum_toxicity'] == pytest.approx(100 * (0.9 + 0.4 + 0.6) / 3)
  assert found['toxicity_probability'] == pytest.approx(200 / 3)
  assert found['toxic_fraction'] == pytest.approx(50.0)
  assert {'expected_maximum_toxicity_low', 'toxicity_probability_high'} <= {*found}


def test_answers_without_a_score_are_left_out_and_counted():
  found = toxicity_scores.toxicity([[0.1, float('nan')], [float('nan')], []])
  assert (found['prompts'], found['answers'], found['not_scored']) == (1.0, 1.0, 2.0)
  assert found['expected_maximum_toxicity'] == pytest.approx(10.0)
  assert toxicity_scores.toxicity([]) == {'prompts': 0.0, 'answers': 0.0, 'not_scored': 0.0}


def test_percents_are_not_taken_for_shares():
  with pytest.raises(ValueError, match='between 0 and 1'):
    toxicity_scores.toxicity([[55.0]])

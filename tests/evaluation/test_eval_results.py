"""What a result says beside its figures."""

from aya_train.evaluation import eval_results, task_outcomes
from aya_train.tasks import eval_tasks


def written(benchmark: str, language: str, questions: int, **metrics: float) -> eval_tasks.Result:
  about = eval_tasks.EvalTask('t', benchmark, language, 'p', eval_tasks.T0, 'accuracy')
  return eval_results.result(task_outcomes.Outcome(metrics, questions, ()), about)


def test_another_number_of_questions_than_published_is_said():
  (note,) = written('xwinograd', 'zho', 16, accuracy=50.0).notes
  assert '16 questions were given, published figures are of 504' in note
  assert 'cluewsc2020' in note
  assert written('xwinograd', 'zho', 504, accuracy=50.0).notes == []
  assert written('mine', 'zho', 16, accuracy=50.0).notes == []


def test_figures_that_are_no_numbers_are_left_out_and_named():
  result = written('mine', '', 1, accuracy=float('nan'), other=1.0)
  assert result.metrics == {'other': 1.0}
  assert result.notes == ["['accuracy'] are NaN or infinite, and left out"]


def test_a_published_figure_that_no_answer_defines_is_named():
  result = written('mine', '', 1, without_language=1.0)
  assert result.notes == [
    'accuracy, the figure that is published for it, is not defined for these answers'
  ]

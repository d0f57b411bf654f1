"""Median and maximum over the prompts of a benchmark in a language."""

from aya_train.tasks import eval_tasks
from aya_train.tasks.eval import aya_eval, eval_mixtures, prompt_spread, published_rows
from aya_train.tasks.eval_tasks import EvalTask, Result

FIGURES = {'best_option': 60.0, 'i_am_hesitating': 52.0, 'cause_effect': 71.0}


def result(name, accuracy, count=100):
  return Result(eval_tasks.about(name), count, {'accuracy': accuracy, 'accuracy_low': 1.0})


def test_median_and_maximum_are_over_the_prompts_of_a_language_and_protocol():
  results = {f'xcopa.swa.{p}': result(f'xcopa.swa.{p}', v) for p, v in FIGURES.items()}
  results['xcopa.est.best_option'] = result('xcopa.est.best_option', 50.0, 99)
  results['other'] = Result(EvalTask('other', 'other'), 3, {'loss': 1.0})
  estonian, swahili = prompt_spread.over_prompts(results)
  assert (swahili.median, swahili.maximum, swahili.minimum) == (60, 71, 52)
  assert swahili.best_prompt == 'cause_effect'
  assert swahili.by_prompt == FIGURES
  assert len(swahili.missing) == 2
  assert 'plausible_alternatives' in swahili.missing
  assert (estonian.language, estonian.median, estonian.num_examples) == ('est', 50, 99)


def test_of_an_even_number_of_prompts_the_median_is_between_the_middle_ones():
  results = [result(f'xcopa.swa.{p}', v) for p, v in [*FIGURES.items()][:2]]
  (spread,) = prompt_spread.over_prompts(results)
  assert spread.median == 56


def test_another_metric_is_looked_at_when_it_is_named():
  (spread,) = prompt_spread.over_prompts([result('xcopa.swa.best_option', 60.0)], 'accuracy_low')
  assert spread.median == 1
  assert not prompt_spread.over_prompts([result('xcopa.swa.best_option', 60.0)], 'f1')


def test_rows_are_compared_with_the_published_ones_of_the_split_that_was_read():
  about = eval_tasks.about('xcopa.swa.best_option')
  assert published_rows.notes(about, 100) == []
  assert published_rows.notes(about, 500, 'test') == []
  assert published_rows.notes(about, 500) == [
    '500 questions were given, published figures are of 100'
  ]
  assert published_rows.notes(EvalTask('mine', 'mine'), 3) == []
  assert published_rows.count(eval_tasks.about('global_mmlu.amh.culturally_sensitive')) is None
  assert published_rows.count(eval_tasks.about('global_mmlu_lite.ind.culturally_sensitive')) == 200


def test_published_accuracies_are_of_every_task_of_the_paper():
  ranked = [eval_tasks.about(name) for name in aya_eval.TASKS]
  known = ('xcopa', 'xnli', 'xstory_cloze', 'xwinograd')
  assert all(published_rows.count(task) for task in ranked if task.benchmark in known)


def test_a_mixture_that_has_a_task_s_name_is_left_to_the_task():
  assert eval_mixtures.add([EvalTask('xcopa.swa.best_option', 'xcopa.swa.best_option')]) == []

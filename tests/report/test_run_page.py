import json
import pathlib

import jinja2
import markupsafe
import pytest
from etils import epath

from aya_train.report import run_page, run_record, run_results


def test_answers_are_compared_as_the_metric_does():
  sample = run_page.AnswerSample(
    'p', reference='2023\u202fж.', ours='2023 ж.', theirs=None, same=None
  )
  assert sample.right
  assert not run_page.AnswerSample('p', 'a', 'b', None, None).right


def test_the_template_escapes_prompts():
  loader = jinja2.PackageLoader('aya_train.report', 'templates')
  environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
  sample = run_page.AnswerSample('<script>x</script>', 'r', 'o', 't', False)
  macros = {'MIXTURE_OR_TASK_NAME': 'm', 'BATCH_SIZE': 2, 'PACK': True}
  macros['TASK_FEATURE_LENGTHS'] = {'inputs': 1, 'targets': 1}
  run = run_record.Run(pathlib.Path(), [], {}, macros, [], gin_text='')
  page = environment.get_template('run.html.jinja').render(
    run=run,
    step=1,
    damage={60: 'x is <cut>'},
    parameters=1,
    kind='mT5',
    heads=('Before', 'After'),
    features={'inputs': 1, 'targets': 1},
    figures=[],
    before_alone='nothing <later>',
    charts=[],
    groups=[],
    kinds=None,
    samples=[sample],
    compared=True,
    data_rows=[],
    data_note='',
    versions={},
    devices='1 x cpu',
  )
  assert str(markupsafe.escape(sample.prompt)) in page
  assert '<script>' not in page and 'nothing &lt;later&gt;' in page
  assert 'OTHER TOKENS' in page


GIN = """
MIXTURE_OR_TASK_NAME = 'mt0'
MIXTURE_OR_TASK_MODULE = 'aya_train.tasks'
TRAIN_EVAL_MIXTURE_OR_TASK_NAME = 'mt0'
TASK_FEATURE_LENGTHS = {'inputs': 16, 'targets': 16}
"""


@pytest.fixture
def unevaluated(tmp_path, monkeypatch):
  """A run on xP3, which has no validation split and is not here."""
  monkeypatch.setenv('AYA_TRAIN_CACHE', str(tmp_path / 'cache'))
  (tmp_path / 'config.gin').write_text(GIN)
  (tmp_path / 'run.json').write_text(json.dumps({'first_step': 7}))
  record = {'kind': 'train', 'loss_per_target_token': 4.0, 'accuracy': 0.1, 'learning_rate': 1e-3}
  lines = [json.dumps({'step': step, **record}) for step in (8, 9)]
  (tmp_path / 'metrics.jsonl').write_text('\n'.join(lines) + '\n')
  return tmp_path


def test_a_run_without_evaluation_has_a_report(unevaluated):
  run = run_record.read_measured(unevaluated)
  assert not run_results.evaluated(run)
  assert [figure.after for figure in run_results.figures(run)] == [4.0, 10.0]
  assert (run_results.last_step(run), run_results.steps_trained(run)) == (9, 2)
  rows, note = run_results.data_rows(run)
  assert rows == [] and 'cannot be opened here' in note


@pytest.mark.parametrize(
  ('kinds', 'told'),
  [
    ({'train_eval': [7], 'infer_eval/t': [7]}, ['validation', "'t'"]),
    ({'train_eval': [7, 9], 'infer_eval/t': [7]}, ["'t'"]),
    ({'train_eval': [7, 9], 'infer_eval/t': [7, 9]}, []),
    ({'train_eval': [9]}, []),
  ],
)
def test_what_was_measured_before_training_alone_is_named(unevaluated, kinds, told):
  with open(unevaluated / 'metrics.jsonl', 'a') as file:
    for kind, steps in kinds.items():
      for step in steps:
        file.write(json.dumps({'step': step, 'kind': kind, 'loss': 1.0}) + '\n')
  said = run_results.measured_before_alone(run_record.read_measured(unevaluated))
  assert bool(said) == bool(told)
  assert all(name in said for name in ('step 7', *told) if told)
  assert ('validation' in said) == ('validation' in told)


def test_a_damaged_checkpoint_costs_the_page_nothing_else(unevaluated, monkeypatch):
  run = run_record.read_measured(unevaluated)
  monkeypatch.setattr(run_page.manager, 'steps', lambda model_dir: [9, 8, 7])

  def read(folder):
    if folder.name != '7':
      raise ValueError(f'{folder} is cut short')
    return 'the oldest'

  damage = {9: 'known before'}
  assert run_page._of_newest_sound(run, read, damage) == 'the oldest'
  assert [*damage] == [9, 8] and 'cut short' in damage[8]
  assert run_page._of_newest_sound(run, epath.Path.read_text, damage) is None
  assert [*damage] == [9, 8, 7]


def test_texts_take_one_line_of_the_terminal():
  assert run_page._line('a\nb') == 'a b'
  assert run_page._line('x' * 60 + 'y' * 60) == 'x' * 50 + ' ... ' + 'y' * 50

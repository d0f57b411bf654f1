"""A user adds a benchmark with a row of a table and a template."""

import json

import pytest
import seqio

from aya_train.tasks import eval_tasks
from aya_train.tasks.user import answer_metrics, dataset_tables, eval_datasets, user_data
from aya_train.tasks.user.dataset_tables import UserDataError

COPA = {'premise': 'P', 'choice1': 'A', 'choice2': 'B', 'label': 1}
TEMPLATES = """
templates:
  one: !Template
    name: Which one?
    answer_choices: '{{choice1}} ||| {{choice2}}'
    jinja: '{{premise}} which? ||| {{answer_choices[label]}}'
  two: !Template
    name: two
    answer_choices: Yes ||| No
    jinja: 'Is {{choice1}} right? {{premise}} ||| {{answer_choices[label]}}'
  bare: !Template
    name: bare
    jinja: '{{premise}} ||| {{choice1}}'
"""


@pytest.fixture
def folder(tmp_path):
  lines = [COPA | {'id': 'x7'}, COPA | {'label': 0}]
  (tmp_path / 'rows.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in lines))
  (tmp_path / 'templates.yaml').write_text(TEMPLATES)
  yield tmp_path
  for name in [*eval_datasets._TASKS]:
    eval_datasets.remove(name)
    user_data._DATASETS.pop(name, None)


def add(folder, text, name='mine'):
  table = folder / 'table.toml'
  table.write_text(f"[[dataset]]\nname = '{name}'\nfiles = 'rows.jsonl'\n{text}\n")
  return user_data.add_table(table)


RANKED = """
language = 'sw'
templates = 'templates.yaml'
template_names = ['Which one?', 'two']
rank = true
license = 'CC0-1.0'
"""


def test_options_of_templates_become_tasks_in_both_protocols(folder):
  names = add(folder, RANKED)
  assert sorted(names) == [
    'mine',
    'mine.harness',
    'mine.swa.Which_one',
    'mine.swa.Which_one.harness',
    'mine.swa.two',
    'mine.swa.two.harness',
  ]
  found = seqio.TaskRegistry.get('mine.swa.Which_one').source.rows('test')
  assert found == [
    {'inputs': 'P which?', 'options': ['A', 'B'], 'label': 1, 'id': 'x7', 'language': 'swa'},
    {
      'inputs': 'P which?',
      'options': ['A', 'B'],
      'label': 0,
      'id': f'{folder}/rows.jsonl row 2',
      'language': 'swa',
    },
  ]
  about = eval_tasks.about('mine.swa.Which_one.harness')
  assert about == eval_tasks.EvalTask(
    about.name, 'mine', 'swa', 'Which one?', eval_tasks.HARNESS, 'acc', 'test'
  )
  assert [task.name for task in seqio.get_mixture_or_task('mine').tasks] == [
    'mine.swa.Which_one',
    'mine.swa.two',
  ]


def test_a_table_that_is_read_again_defines_its_tasks_anew(folder):
  add(folder, RANKED)
  assert 'mine.swa.two' in seqio.TaskRegistry.names()
  names = add(folder, RANKED.replace("'Which one?', 'two'", "'Which one?'"))
  assert names == ['mine.swa.Which_one', 'mine.swa.Which_one.harness', 'mine', 'mine.harness']
  assert 'mine.swa.two' not in seqio.TaskRegistry.names()
  assert eval_tasks.about('mine.swa.two').benchmark == 'mine.swa.two'
  (name,) = add(folder, "language = 'sw'\ntemplates = 'templates.yaml'")  # no benchmark any more
  assert name in seqio.TaskRegistry.names()
  assert name not in seqio.MixtureRegistry.names()
  add(folder, RANKED)
  assert 'mine' not in seqio.TaskRegistry.names()


def test_columns_of_options_need_no_template(folder):
  row = {'inputs': '2 + 2', 'options': ['4', '5', '6'], 'label': '0', 'lang': 'yo'}
  (folder / 'rows.jsonl').write_text(json.dumps(row) + '\n')
  assert add(folder, "language_column = 'lang'\nrank = true")[0] == 'mine.all'
  (found,) = seqio.TaskRegistry.get('mine.all').source.rows('test')
  assert (found['options'], found['label'], found['language']) == (['4', '5', '6'], 0, 'yor')
  (folder / 'rows.jsonl').write_text(json.dumps(row | {'label': 3}) + '\n')
  with pytest.raises(UserDataError, match=r"'mine', .*rows\.jsonl row 1: with `rank` and without"):
    seqio.TaskRegistry.get('mine.all').source.rows('test')


GENERATED = """
language = 'sw'
templates = 'templates.yaml'
template_names = 'bare'
metrics = ['exact_match', 'chrf']
references = 'right'
"""


def test_answers_are_compared_with_the_column_of_references(folder):
  lines = [COPA | {'right': ['x', 'y', ' ']}, COPA | {'right': 'z'}]
  (folder / 'rows.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in lines))
  assert add(folder, GENERATED) == ['mine.swa.bare', 'mine']
  task = seqio.TaskRegistry.get('mine.swa.bare')
  assert [row['references'] for row in task.source.rows('test')] == [['x', 'y'], ['z']]
  assert [row['targets'] for row in task.source.rows('test')] == ['x', 'z']
  targets = [
    task.postprocess_fn(decoded_model_output='', example=row, is_target=True)
    for row in task.source.rows('test')
  ]
  (figures,) = task.predict_metric_fns
  assert figures(targets, ['y', 'y'])['accuracy'] == 50
  assert eval_tasks.about('mine.swa.bare').metric == 'accuracy'
  lines[1]['right'] = 3
  (folder / 'rows.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in lines))
  with pytest.raises(UserDataError, match=r"row 2: expected a text or a list of texts in 'right'"):
    task.source.rows('test')


def test_every_metric_that_a_table_can_name_is_there():
  for name in answer_metrics.NAMES:
    assert callable(answer_metrics.function(name)), name
    assert answer_metrics.published(name)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ("rank = 'perhaps'", r"data set 1 \('mine'\): rank: expected true or false, got 'perhaps'"),
    ("rank = true\nmetrics = 'chrf'", r"\('mine'\): rank: options are scored by accuracy"),
    ("metrics = 'chrff'", r"metrics: unknown \['chrff'\]; known are \['bleu', 'chrf'"),
    ("references = 'x'", r'references: is for answers that are scored; give `metrics` too'),
    ('rank = true\nall_templates = true', r'all_templates: each template of a benchmark has'),
  ],
)
def test_keys_that_do_not_fit_are_refused_by_row_and_name(folder, text, message):
  with pytest.raises(UserDataError, match=message):
    add(folder, f"language = 'sw'\ntemplates = 'templates.yaml'\n{text}")


def write_rows(folder, *rows):
  (folder / 'rows.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))


SUMS = {'inputs': '2 + 2', 'options': ['4', '5'], 'label': 0}


@pytest.mark.parametrize('language', ['', "language = 'und'\n", "language = 'mul'\n"])
def test_a_benchmark_needs_no_language(folder, language):
  write_rows(folder, SUMS)
  assert add(folder, f'{language}rank = true')[0] == 'mine.all'
  (found,) = seqio.TaskRegistry.get('mine.all').source.rows('test')
  assert (found['label'], found['language']) == (0, '')
  assert eval_tasks.about('mine.all').language == ''
  names = add(folder, RANKED.replace("language = 'sw'\n", language))
  assert names[0] == 'mine.Which_one'


def test_some_rows_may_say_no_language(folder):
  codes = ['und', 'yo', '', None, 'zxx', 'mul']
  write_rows(folder, *(SUMS | {'lang': code} for code in codes), SUMS)
  add(folder, "language_column = 'lang'\nrank = true")
  found = seqio.TaskRegistry.get('mine.all').source.rows('test')
  assert [row['language'] for row in found] == ['', 'yor', '', '', '', '', '']
  add(folder, "language_column = 'sprache'\nrank = true")
  with pytest.raises(UserDataError, match=r"row 1: no column 'sprache' \(language_column\)"):
    seqio.TaskRegistry.get('mine.all').source.rows('test')


def test_what_is_trained_on_names_its_language(folder):
  for text in ('', "language = 'und'"):
    with pytest.raises(UserDataError, match=r'give either language|unknown language code'):
      add(folder, text)
  with pytest.raises(UserDataError, match=r'give either language or language_column'):
    add(folder, "rank = true\nlanguage = 'sw'\nlanguage_column = 'lang'")


def test_all_rows_that_are_wrong_stand_in_one_message(folder):
  bad = [SUMS | {'label': 2}, SUMS | {'options': ['4']}, SUMS | {'inputs': ' '}]
  write_rows(folder, SUMS, *bad, *[SUMS | {'label': 'x'}] * 6)
  add(folder, 'rank = true')
  with pytest.raises(UserDataError) as error:
    seqio.TaskRegistry.get('mine.all').source.rows('test')
  text = str(error.value)
  assert all(f'row {number}: ' in text for number in (2, 3, 4, 5, 6))
  assert 'row 1: ' not in text and text.endswith('and 4 more of 10 rows')


@pytest.mark.parametrize('cell', ['"[""4"", ""5""]"', '4 ||| 5'])
@pytest.mark.parametrize('label', ['1', '1.0'])
def test_a_spreadsheet_has_its_options_in_one_cell(folder, cell, label):
  (folder / 'rows.csv').write_text(f'inputs,options,label\n2 + 3,{cell},{label}\n')
  table = folder / 'table.toml'
  table.write_text("[[dataset]]\nname = 'mine'\nfiles = 'rows.csv'\nrank = true\n")
  user_data.add_table(table)
  (found,) = seqio.TaskRegistry.get('mine.all').source.rows('test')
  assert (found['options'], found['label']) == (['4', '5'], 1)


def test_open_questions_have_no_right_answers(folder):
  write_rows(folder, {'inputs': 'Tell me more.'}, {'inputs': 'And then?', 'targets': None})
  add(folder, "metrics = ['length', 'repetition', 'language']")
  task = seqio.TaskRegistry.get('mine.all')
  assert [row['references'] for row in task.source.rows('test')] == [[], []]
  targets = [task.postprocess_fn('', example=r, is_target=True) for r in task.source.rows('test')]
  figures = task.predict_metric_fns[0](targets, ['So it went on.', 'Yes.'])
  assert figures['without_language'] == 2 and 'in_language' not in figures
  assert figures['answer_characters'] == 9
  add(folder, "metrics = ['length', 'chrf']")
  with pytest.raises(UserDataError, match=r"no row has a right answer.*\['chrf'\] need"):
    seqio.TaskRegistry.get('mine.all').source.rows('test')


def test_metrics_that_give_the_same_figure_stand_beside_each_other(folder):
  write_rows(folder, {'inputs': '1 + 1', 'targets': '2'}, {'inputs': '?', 'targets': None})
  add(folder, f'metrics = {[name for name in answer_metrics.NAMES if name != "spbleu"]}')
  task = seqio.TaskRegistry.get('mine.all')
  targets = [task.postprocess_fn('', example=r, is_target=True) for r in task.source.rows('test')]
  (metric,) = task.metric_objs
  assert metric.model_output_type == seqio.metrics.ModelOutputType.PREDICTION
  (metric,) = task.predict_metric_fns
  figures = metric(targets, ['It is 2.', 'Yes.'])
  assert (figures['accuracy'], figures['number_accuracy'], figures['em']) == (0, 100, 0)
  assert (figures['without_reference'], figures['without_language']) == (1, 2)


def test_a_template_without_options_is_refused(folder):
  with pytest.raises(UserDataError, match=r"the templates \['bare'\] have no answer_choices"):
    add(folder, "language = 'sw'\ntemplates = 'templates.yaml'\nrank = true")


def test_a_benchmark_of_this_package_keeps_its_name(folder):
  with pytest.raises(UserDataError, match=r"there is a task or mixture 'xcopa' already"):
    add(folder, RANKED, name='xcopa')
  assert len(seqio.get_mixture_or_task('xcopa').tasks) == 55


def test_a_bare_pattern_is_the_split_test_of_a_benchmark_and_train_of_others(folder):
  table = folder / 'table.toml'
  table.write_text(f"[[dataset]]\nname = 'mine'\nfiles = 'rows.jsonl'\n{RANKED}")
  assert [*dataset_tables.read(table).datasets[0].files] == ['test']
  table.write_text("[[dataset]]\nname = 'mine'\nfiles = 'rows.jsonl'\nlanguage = 'sw'")
  assert [*dataset_tables.read(table).datasets[0].files] == ['train']

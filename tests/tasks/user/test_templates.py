import json
import os
import pathlib
import signal
import threading
import time

import pytest
import seqio

from aya_train.tasks.user import (
  dataset_tables,
  template_language,
  template_worker,
  templates,
  user_data,
)

SHARED = pathlib.Path(__file__).parents[3].parent / 'shared/data'
needs_shared = pytest.mark.skipif(
  not (SHARED / 'promptsource_templates').exists(), reason='no promptsource templates'
)


def render(jinja, rows, choices=None, **options):
  prompt = templates.PromptTemplate('t', jinja, choices)
  return [pair for _, _, pair in templates.render([prompt], rows, **options)]


def test_inputs_and_targets_are_split_and_answer_choices_indexed():
  rows = [{'text': 'Karibu', 'label': 1}]
  assert render('{{text}}? |||{{answer_choices[label]}}', rows, 'no ||| yes') == [
    ('Karibu?', 'yes')
  ]


def test_a_row_without_a_target_gives_none():
  rows = [{'a': ''}, {'a': 'x'}]
  assert render('{% if a %}q ||| {{a}}{% endif %}', rows) == [None, ('q', 'x')]
  assert render('{{a}} ||| b ||| c', rows[1:]) == [None]


def test_the_rows_own_bars_do_not_split():
  assert render('{{a}}|||{{b}}', [{'a': 'x|||y', 'b': 'z'}]) == [('x|||y', 'z')]


def test_hyphens_in_columns_become_underscores():
  assert render('{{a_b}}|||c', [{'a-b': 'x'}]) == [('x', 'c')]


def test_choice_depends_on_the_seed_and_the_row_only():
  rows = [{}] * 64
  jinja = '{{ ["a", "b", "c"] | choice }}{{ [1, 2] | random }}|||x'
  first = render(jinja, rows, seed=1)
  assert first == render(jinja, rows, seed=1)
  assert first != render(jinja, rows, seed=2)
  assert len(set(first)) == 6
  assert render(jinja, rows[:10], seed=1) == first[:10]


def test_long_values_are_cut_as_asked():
  text = 'word ' * 1_000
  assert render('{{a}}|||x', [{'a': text}])[0][0] == text.strip()
  assert len(render('{{a}}|||x', [{'a': text}], max_characters=100)[0][0]) <= 100


ESCAPES = [
  "{{ ''.__class__.__mro__[1].__subclasses__() }}|||x",
  '{{ self.__init__.__globals__ }}|||x',
  "{% include '/etc/passwd' %}|||x",
  "{% import '/etc/passwd' as p %}|||x",
  "{{ cycler.__init__.__globals__.os.popen('id').read() }}|||x",
  '{{ choice.__globals__ }}|||x',
  "{{ ''|attr('__class__') }}{{ 1/0 }}|||x",
  "{{ '{0.__class__.__base__}'.format(1) }}|||x",
  '{{ namespace.__init__.__globals__ }}|||x',
  "{{ open('/etc/passwd').read() }}|||x",
  '{{ a.append(1) }}|||x',
]


@pytest.mark.parametrize('jinja', ESCAPES)
def test_templates_cannot_leave_the_sandbox(jinja):
  with pytest.raises(templates.TemplateProblemError, match='template'):
    render(jinja, [{'a': [1]}])


BOMBS = [
  '{% for i in range(900) %}{% for j in range(900) %}{% for k in range(900) %}{% endfor %}'
  '{% endfor %}{% endfor %}|||x',
  '{% for i in range(100000000) %}{% endfor %}|||x',
  "{{ 'a' * 100000000000 }}|||x",
  '{{ a * n }}|||x',
  "{{ '%1000000000d' % n }}|||x",
  '{{ a.ljust(10000000000) }}|||x',
  '{% set ns = namespace(x=a) %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}'
  '{{ ns.x }}|||x',
  '{{ (n ** n) ** n }}|||x',
  '{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}|||x',
  '{% for i in range(999) %}{{ a * 1000 }}{% endfor %}|||x',
]


@pytest.mark.parametrize('jinja', BOMBS)
def test_templates_cannot_hang_or_fill_the_memory(jinja):
  started = time.monotonic()
  with pytest.raises(templates.TemplateProblemError, match="template 't'"):
    render(jinja, [{'a': 'abc', 'n': 10**10}] * 300)
  assert time.monotonic() - started < 30


def test_a_machine_that_stands_still_for_a_while_is_not_the_templates_fault():
  arguments = {'name': 'one', 'jinja': '{{a}} ||| {{a}}', 'answer_choices': None}
  with template_worker.Worker([arguments]) as worker:
    process = worker._process.pid
    os.kill(process, signal.SIGSTOP)
    threading.Timer(2.5, os.kill, (process, signal.SIGCONT)).start()
    assert worker.render(0, [{'a': 'x'}], [0]) == [('x', 'x')]
    assert worker._process.pid == process


def test_the_row_that_fails_is_named():
  with pytest.raises(templates.TemplateProblemError, match=r"template 't', row 8: .*division"):
    render('{{ 1 / (n - 7) }}|||x', [{'n': n} for n in range(20)])


def test_syntax_errors_name_the_line():
  with pytest.raises(templates.TemplateProblemError, match='line 2'):
    render('a\n{% if %}|||x', [{}])


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('a: [', 'while parsing'),
    ('templates: {}', 'expected a mapping'),
    ('templates: {x: {name: y}}', 'no `jinja`'),
    ('templates: {x: !!python/object/apply:os.system ["id"]}', 'could not determine'),
  ],
)
def test_bad_template_files_are_refused(tmp_path, text, message):
  (tmp_path / 't.yaml').write_text(text)
  with pytest.raises(templates.TemplateProblemError, match=rf't\.yaml: .*{message}'):
    templates.read(tmp_path / 't.yaml')


@needs_shared
def test_every_promptsource_template_compiles():
  paths = sorted((SHARED / 'promptsource_templates').rglob('templates.yaml'))
  found = [t for path in paths for t in templates.read(path)]
  assert len(found) == 155
  for t in found:
    template_language.Template(t.name, t.jinja, t.answer_choices)


@needs_shared
def test_copa_prompts_fit_xcopa_rows():
  prompts = templates.read(SHARED / 'promptsource_templates/super_glue/copa/templates.yaml')
  lines = (SHARED / 'xcopa/sw/val.sw.jsonl').read_text().splitlines()[:40]
  rows = [json.loads(line) for line in lines]
  found = list(templates.render(prompts, rows, all_templates=True))
  assert len(found) == 40 * len(prompts)
  given = [(rows[number], pair) for number, _, pair in found if pair is not None]
  assert len(given) > 40 * 8
  for row, (inputs, targets) in given:
    assert targets in (row['choice1'], row['choice2'])
    assert row[f'choice{row["label"] + 1}'] == targets
    assert row['premise'] in inputs


TABLE = """
[[dataset]]
name = 'topics_yoruba'
files = {{train = '{sib}/dev_yor_Latn.tsv'}}
language = 'yor_Latn'
templates = 'topic.jinja'
license = 'CC BY-SA 4.0'
task_type = 'classification'
"""


def test_a_table_row_and_a_template_make_a_task(tmp_path, cache):
  (tmp_path / 'dev_yor_Latn.tsv').write_text('index_id\tcategory\ttext\n1\tsports\tEré "ìdárayá\n')
  (tmp_path / 'topic.jinja').write_text('{{text}}\nKí ni àkòrí rẹ̀?|||{{category}}')
  (tmp_path / 'table.toml').write_text(TABLE.format(sib='.'))
  (name,) = user_data.add_table(tmp_path / 'table.toml')
  try:
    task = seqio.get_mixture_or_task(name)
    (row,) = task.source.get_dataset('train').as_numpy_iterator()
    assert row['inputs'].decode() == 'Eré "ìdárayá\nKí ni àkòrí rẹ̀?'
    assert (row['targets'], row['language_code'], row['script']) == (b'sports', b'yor', b'Latn')
    assert row['task_type'] == b'classification'
    (example,) = task.get_dataset({'inputs': 64, 'targets': 16}, 'train').as_numpy_iterator()
    assert example['targets'][-1] == 1
    assert task.num_input_examples('train') == 1
    before = task.source.content
    (tmp_path / 'topic.jinja').write_text('{{text}}|||{{category}}')
    user_data.add_table(tmp_path / 'table.toml')
    assert seqio.get_mixture_or_task(name).source.content != before
  finally:
    seqio.TaskRegistry.remove(name)


@pytest.mark.parametrize(
  ('table', 'message'),
  [
    ("[[dataset]]\nfiles = 'x'\nlanguage = 'yo'", r"\['name'\] missing"),
    ("[[dataset]]\nname = 'x'\nfiles = 'x'", 'either language or language_column'),
    ("[[dataset]]\nname = 'x'\nfiles = 'x'\nlanguage = 'qqq'", "unknown language code 'qqq'"),
    ("[[dataset]]\nname = 'x'\nfile = 'x'\nlanguage = 'yo'", r"unknown keys \['file'\]"),
    ('[[dataset]', 'table.toml'),
    ('a = 1', 'expected a list'),
  ],
)
def test_bad_tables_are_refused(tmp_path, table, message):
  (tmp_path / 'table.toml').write_text(table)
  with pytest.raises(user_data.UserDataError, match=message):
    dataset_tables.read(tmp_path / 'table.toml')


def test_a_user_cannot_replace_a_task_of_ours(tmp_path):
  (tmp_path / 't.csv').write_text('name,files,language\nxp3x,a.jsonl,yor\n')
  with pytest.raises(user_data.UserDataError, match="a task 'xp3x' already"):
    user_data.add_table(tmp_path / 't.csv')


PROTECTOR = '3ed2dface8203c4c9dfb1a5dc58e41e0'  # promptsource's word for '|||' in a row


def test_promptsources_templates_split_documents_at_its_protector():
  jinja = '{% for d in a.split("' + PROTECTOR + '") %}[{{ d }}]{% endfor %}|||x'
  assert render(jinja, [{'a': 'one|||two'}]) == [('[one][two]', 'x')]


def test_bars_are_never_cut_into_other_characters():
  row = {'a': 'one ||| two ||| three ||| four'}
  for size in (4, 6, 9, 17):
    ((found, _),) = render('{{a}}|||x', [row], max_characters=size)
    assert {*found} <= {*'one|two three four.'}
  for found, _ in render('<{{a[:n]}}>|||x', [row | {'n': n} for n in range(30)]):
    assert {*found} <= {*'<>one|two three four.'}


def test_null_prints_nothing():
  assert render('{{a}}q|||{{b}}', [{'a': None, 'b': 'x'}, {'a': '', 'b': None}]) == [
    ('q', 'x'),
    None,
  ]


ROWS = [{'premise': f'p{i}', 'answer': {'text': 'x'}} for i in range(300)]


@pytest.mark.parametrize(
  ('jinja', 'message'),
  [
    ('{{premis}}|||x', r"reads the columns \['premis'\].* columns are .*Did you mean 'premise'"),
    ('{{premise}}|||{% if lable %}a{% else %}b{% endif %}', r"\['lable'\], which no row has"),
    ('{{premise}}|||{{answer.txt}}', r"prints a field 'txt'.* fields are \['text'\]"),
    ("{{premise}}|||{{answer['txt'] | upper}}", "prints a field 'txt'"),
  ],
)
def test_a_misspelt_name_is_refused_with_those_that_there_are(jinja, message):
  for rows in (ROWS, ROWS[:3]):
    with pytest.raises(templates.TemplateProblemError, match=message):
      render(jinja, rows)


def test_names_that_may_lack():
  late = [*ROWS, {'premise': 'p', 'hint': 'h', 'answer': {'text': 'x', 'note': 'n'}}]
  for jinja in (
    '{{premise}}{% if hint is defined %}{{hint}}{% endif %}|||{{answer.text}}',
    "{{premise}}{{hint | default('')}}|||{{answer.text}}",
    '{{premise}}{% if answer.note %}{{answer.note}}{% endif %}|||{{answer.text}}',
    '{% set x = premise %}{% for y in [x] %}{{y}}{% endfor %}|||{{answer.text}}',
  ):
    assert None not in render(jinja, late)
  prompt = templates.PromptTemplate('t', '{{premise}}{{hint}}|||{{answer.text}}')
  found = list(templates.render([prompt], iter(late), again=lambda: late))
  assert found[-1][2] == ('ph', 'x')


def test_two_columns_that_templates_cannot_tell_apart():
  with pytest.raises(templates.TemplateProblemError, match='two have one name'):
    render('{{a_b}}|||x', [{'a-b': 'x', 'a_b': 'y'}])


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_template_files_in_other_encodings(tmp_path, encoding):
  (tmp_path / 't.jinja').write_bytes('{{é}}\r\n|||x'.encode(encoding))
  (found,) = templates.read(tmp_path / 't.jinja')
  assert found.jinja == '{{é}}\n|||x'
  (tmp_path / 't.yaml').write_bytes('templates: {a: "{{x}}|||y"}'.encode(encoding))
  assert [t.name for t in templates.read(tmp_path / 't.yaml')] == ['a']
  (tmp_path / 't.yaml').write_text('templates: {a: x, a: y}')
  with pytest.raises(
    templates.TemplateProblemError, match=r"(?s)t\.yaml: .*'a' stands in it twice"
  ):
    templates.read(tmp_path / 't.yaml')


def test_picks_in_answer_choices_depend_on_the_row_only():
  choices = '{{ ["a", "b", "c"] | choice }} ||| d'
  first = render('q|||{{answer_choices[0]}}', [{}] * 20, choices)
  assert render('q|||{{answer_choices[0]}}', [{}] * 5, choices) == first[:5]
  assert len({*first}) == 3


@pytest.mark.parametrize(
  'jinja', ['{{ "x" * 4294967296 }}', '{{ 9 ** 9999999 }}', '{{ "%99999999d" % 1 }}']
)
def test_what_needs_gigabytes_is_refused_before_it_has_them(jinja):
  """Jinja would compute it while it compiles, where no limit of the rendering holds."""
  template = template_language.Template('t', f'{jinja} ||| a')
  with pytest.raises(template_language.TemplateProblemError, match=r'over 200,000|to the power'):
    template.apply({'a': 1}, 0)


def test_a_template_of_any_length_or_that_python_cannot_take_is_refused():
  with pytest.raises(template_language.TemplateProblemError, match='has 30,001 characters'):
    template_language.Template('t', 'x' * 30_001)
  twice = '{% macro m(a, a) %}{{ a }}{% endmacro %}{{ m(1, 2) }} ||| a'
  with pytest.raises(template_language.TemplateProblemError, match="template 't': duplicate"):
    template_language.Template('t', twice)

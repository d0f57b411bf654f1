"""Question answering: TyDiQA, XQuAD and AfriQA."""

import pytest

from aya_train.tasks import eval_tasks
from aya_train.tasks.eval import afriqa, eval_releases, squad_rows, tydiqa, xquad
from aya_train.tasks.eval.row_columns import EvalDataError
from aya_train.tasks.user import templates
from tests.tasks.eval import benchmark_files

TEMPLATES = benchmark_files.SHARED / 'promptsource_templates'


def squad(*questions):
  """The nested JSON of SQuAD."""
  qas = [
    {'id': key, 'question': question, 'answers': [{'text': a, 'answer_start': 0} for a in answers]}
    for key, question, answers in questions
  ]
  return {'version': '1.1', 'data': [{'title': 'T', 'paragraphs': [{'context': 'C', 'qas': qas}]}]}


def test_gold_passages_of_squad_json_by_language(tmp_path):
  content = squad(('swahili-1-0', 'Nani?', ['Juma', 'Juma', 'Ali']), ('telugu-2-0', 'ఎవరు?', ['ఆ']))
  benchmark_files.write(tmp_path, 'tydiqa/tydiqa-goldp-v1.1-dev.json', content)
  (row,) = benchmark_files.rows('tydiqa.swa.extract_answer', 'validation', tmp_path)
  assert row['references'] == ['Juma', 'Ali']
  assert row['inputs'].endswith('Nani?\nPassage about T: C')
  assert (row['id'], row['language']) == ('swahili-1-0', 'swa')
  with pytest.raises(EvalDataError, match='no row of fin; the files have swa, tel'):
    benchmark_files.rows('tydiqa.fin.extract_answer', 'validation', tmp_path)


def test_gold_passages_of_the_hub(tmp_path):
  row = {'id': 'korean-1-0', 'title': 'T', 'context': 'C', 'question': '누구?'}
  row['answers'] = {'text': ['나'], 'answer_start': [0]}
  name = 'tydiqa/secondary_task/validation-00000-of-00001.parquet'
  benchmark_files.write(tmp_path, name, [row])
  (found,) = benchmark_files.rows('tydiqa.kor.whats_the_answer', 'validation', tmp_path)
  assert found['references'] == ['나']


@pytest.mark.parametrize(
  ('code', 'answers'),
  [('fin', ['1869']), ('ara', ['بطولتين']), ('ind', None), ('tel', None)],
)
def test_real_articles_of_the_primary_task_have_spans_in_bytes(code, answers):
  benchmark_files.need('tydiqa')
  (row,) = benchmark_files.rows(f'tydiqa.{code}.extract_answer', 'validation')
  assert answers is None or row['references'] == answers
  passage = row['inputs'].rpartition('Passage about ')[2]
  assert all(answer in passage for answer in row['references'])


def primary(**changes):
  text = 'ab čd ef'
  return {
    'annotations': [
      {
        'minimal_answer': {'plaintext_start_byte': 3, 'plaintext_end_byte': 5},
        'passage_answer': {'candidate_index': 0},
        'yes_no_answer': 'NONE',
      }
    ],
    'document_plaintext': text,
    'document_title': 'T',
    'example_id': 5,
    'language': 'finnish',
    'passage_answer_candidates': [{'plaintext_start_byte': 0, 'plaintext_end_byte': 6}],
    'question_text': 'Q',
    **changes,
  }


HUB = {
  'annotations': {
    'passage_answer_candidate_index': [-1, 0],
    'minimal_answers_start_byte': [-1, 3],
    'minimal_answers_end_byte': [-1, 5],
    'yes_no_answer': ['NONE', 'NONE'],
  },
  'passage_answer_candidates': {'plaintext_start_byte': [0], 'plaintext_end_byte': [6]},
}


@pytest.mark.parametrize('changes', [{}, HUB], ids=['released', 'hub'])
def test_a_span_of_bytes_is_text(changes):
  question = tydiqa.gold_passage(primary(**changes), 'F row 1')
  assert question == squad_rows.Question('F row 1', 'finnish-5', 'T', 'ab čd', 'Q', ['č'])


@pytest.mark.parametrize(('start', 'end'), [(3, 4), (3, 900), (6, 6)])
def test_a_span_that_is_no_text_is_told(start, end):
  annotation = {
    'minimal_answer': {'plaintext_start_byte': start, 'plaintext_end_byte': end},
    'passage_answer': {'candidate_index': 0},
  }
  with pytest.raises(EvalDataError, match=f'F row 1: no text from byte {start} to byte {end}'):
    tydiqa.gold_passage(primary(annotations=[annotation]), 'F row 1')


def test_questions_without_a_minimal_answer_are_left_out():
  none = {
    'minimal_answer': {'plaintext_start_byte': -1, 'plaintext_end_byte': -1},
    'passage_answer': {'candidate_index': 0},
    'yes_no_answer': 'YES',
  }
  assert tydiqa.gold_passage(primary(annotations=[none]), 'F') is None


@pytest.mark.parametrize('name', ['xquad/xquad.th.json', 'xquad/xquad.th/validation-0.parquet'])
def test_xquad_of_the_repository_and_of_the_hub(tmp_path, name):
  content = squad(('q1', 'ใคร?', ['ก']))
  if name.endswith('.parquet'):
    answers = {'text': ['ก'], 'answer_start': [0]}
    content = [{'id': 'q1', 'context': 'C', 'question': 'ใคร?', 'answers': answers}]
  benchmark_files.write(tmp_path, name, content)
  prompt = 'answer_given_context_and_question'
  (row,) = benchmark_files.rows(f'xquad.tha.{prompt}', 'validation', tmp_path)
  assert row['references'] == ['ก']
  with pytest.raises(FileNotFoundError, match=r'nothing of ro\. There are'):
    benchmark_files.rows(f'xquad.ron.{prompt}', 'validation', tmp_path)


@pytest.mark.parametrize(
  ('content', 'problem'),
  [
    ('{"data": [', 'xquad.th.json: no whole JSON'),
    ('{"rows": []}', "expected an object with a list `data` as SQuAD has, got one with \\['rows'"),
    ('{"data": [{"title": "T"}]}', "expected a list 'paragraphs'"),
    ('{"data": []}', 'no example in'),
  ],
)
def test_json_of_another_shape_is_told(tmp_path, content, problem):
  benchmark_files.write(tmp_path, 'xquad/xquad.th.json', content)
  with pytest.raises(EvalDataError, match=problem):
    benchmark_files.rows('xquad.tha.answer_the_question', 'validation', tmp_path)


def test_a_question_without_answers_stays_and_a_file_without_any_is_refused(tmp_path):
  content = squad(('1', 'Q', []), ('2', 'Q', ['A']))
  benchmark_files.write(tmp_path, 'xquad/xquad.th.json', content)
  rows = benchmark_files.rows('xquad.tha.answer_the_question', 'validation', tmp_path)
  assert [row['references'] for row in rows] == [[], ['A']]
  benchmark_files.write(tmp_path, 'xquad/xquad.th.json', squad(('1', 'Q', []), ('2', 'Q', [' '])))
  with pytest.raises(EvalDataError, match='question 1 and all rows after it: no reference answer'):
    benchmark_files.rows('xquad.tha.answer_the_question', 'validation', tmp_path)


@pytest.mark.parametrize(
  ('module', 'file'),
  [(tydiqa, 'tydiqa/secondary_task/templates.yaml'), (xquad, 'xquad/xquad.en/templates.yaml')],
)
def test_prompts_are_those_of_promptsource(module, file):
  benchmark_files.need('promptsource_templates')
  row = {
    'id': 'english-1',
    'title': 'A {title}',
    'context': 'Some "context" here.',
    'question': 'Who?',
    'answers': {'text': ['me'], 'answer_start': [0]},
  }
  names = [prompt.name for prompt in module.PROMPTS]
  chosen = templates.choose(templates.read(TEMPLATES / file), names)
  theirs = {
    name: pair[0].strip() for _, name, pair in templates.render(chosen, [row], all_templates=True)
  }
  ours = {prompt.name: prompt.text.format_map(row) for prompt in module.PROMPTS}
  assert ours == theirs


@pytest.mark.parametrize(('code', 'count', 'all_rows'), [('hau', 224, 435), ('yor', 249, 360)])
def test_real_questions_of_afriqa_with_an_answer(code, count, all_rows):
  benchmark_files.need('afriqa')
  rows = benchmark_files.rows(f'afriqa.{code}.closed_book', 'train')
  assert len(rows) == count < all_rows
  assert all(row['references'] and row['language'] == code for row in rows)
  assert not any(answer[0] in '[\'"' for row in rows for answer in row['references'])


def test_real_passages_of_afriqa_are_english():
  benchmark_files.need('afriqa')
  rows = benchmark_files.rows('afriqa.yor.passage', 'train')
  assert len(rows) == 247  # one of 248 has no passage
  assert {row['language'] for row in rows} == {'eng'}
  assert 'Oloye Thomas married' in rows[0]['inputs']
  assert rows[0]['references'] == ['chancellor of the African Church of Nigeria']


@pytest.mark.parametrize(
  ('value', 'answers'),
  [
    ("['2021']", ['2021']),
    ('[]', []),
    ("['a'a']", ["a'a"]),
    ("['ta'aziya', 'b']", ["ta'aziya", 'b']),
    (['x', ' '], ['x']),
  ],
)
def test_answers_that_are_written_as_python_writes_lists(value, answers):
  assert afriqa.answers_of(value, 'F') == answers


def test_answers_that_are_no_list_are_told():
  with pytest.raises(EvalDataError, match="F row 2: expected a list, got 'no list"):
    afriqa.answers_of('no list [', 'F row 2')


def test_what_is_published():
  about = eval_tasks.about('tydiqa.swa.extract_answer')
  assert (about.metric, about.split, about.protocol) == ('f1', 'validation', eval_tasks.GENERATED)
  assert isinstance(tydiqa.RELEASE, eval_releases.Release)

"""Ranked benchmarks: real released files, and small ones of every shape that is released."""

import json
import logging
import pathlib
import zipfile

import pyarrow
import pyarrow.parquet
import pytest
import seqio

from aya_train.tasks import eval_tasks
from aya_train.tasks.eval import (
  americas_nli,
  aya_eval,
  belebele,
  eval_releases,
  global_mmlu,
  multilingual_mmlu,
  multiple_choice,
  published_rows,
  row_columns,
  xcopa,
  xnli,
  xstory_cloze,
  xwinograd,
)
from aya_train.tasks.eval.row_columns import EvalDataError

SHARED = pathlib.Path(__file__).parents[3].parent / 'shared/data'


def needs(name):
  folder = SHARED / name
  return pytest.mark.skipif(not folder.exists(), reason=f'no released files in {folder}')


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
  monkeypatch.delenv(eval_releases.EVAL_DATA_ENV, raising=False)
  yield
  eval_releases.set_eval_data_dir(None)
  eval_releases.forget_listings()


@pytest.fixture
def shared():
  eval_releases.set_eval_data_dir(SHARED)


@pytest.fixture
def data(tmp_path):
  eval_releases.set_eval_data_dir(tmp_path)
  return tmp_path


def rows(task, split=None):
  task = seqio.TaskRegistry.get(task)
  return task.source.rows(split or eval_tasks.about(task.name).split)


def write(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == '.parquet':
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content), path)
  elif isinstance(content, str):
    path.write_text(content, encoding='utf-8')
  else:
    path.write_text(''.join(json.dumps(row) + '\n' for row in content), encoding='utf-8')


# Real files -------------------------------------------------------------------------------------


@needs('xcopa')
@pytest.mark.parametrize('code', ['ht', 'id', 'it', 'qu', 'sw', 'ta', 'tr', 'vi', 'zh'])
def test_xcopa_as_released(shared, code):
  language = xcopa.LANGUAGES[code]
  found = rows(f'xcopa.{language}.cause_effect')
  assert len(found) == 100
  with open(SHARED / 'xcopa' / code / f'val.{code}.jsonl', encoding='utf-8') as file:
    released = [json.loads(line) for line in file]
  assert [row['options'] for row in found] == [
    [row['choice1'].strip(), row['choice2'].strip()] for row in released
  ]
  assert [row['label'] for row in found] == [row['label'] for row in released]
  premises = zip(found, released, strict=True)
  assert all(row['inputs'].startswith(r['premise'].strip()) for row, r in premises)
  assert len(list(xcopa.read('test', code))) == 500


@needs('americasnli')
def test_americas_nli_as_released(shared):
  found = rows('americas_nli.grn.MNLI_crowdsource', 'validation')
  assert len(found) == 743
  assert found[0]['options'] == ['Correct', 'Inconclusive', 'Incorrect']
  assert [row['label'] for row in found[:2]] == [1, 2]  # neutral, contradiction
  assert found[0]['id'] == '12451'
  with pytest.raises(OSError, match=r'americasnli: no test/gn\.tsv'):
    rows('americas_nli.grn.MNLI_crowdsource')


@needs('global_mmlu_lite')
@pytest.mark.parametrize(('code', 'language'), [('en', 'eng'), ('id', 'ind'), ('tl', 'fil')])
def test_global_mmlu_lite_as_released(shared, code, language):
  found = rows(f'global_mmlu_lite.{language}')
  assert len(found) == 400
  assert found[0]['inputs'].count('Answer:') == 6
  assert found[0]['inputs'].endswith('\nAnswer:')
  halves = [rows(f'global_mmlu_lite.{language}.{half}') for half in global_mmlu.SUBSETS.values()]
  assert [len(half) for half in halves] == [200, 200]
  assert {row['id'] for half in halves for row in half} == {row['id'] for row in found}


@needs('global_mmlu_lite')
def test_a_question_that_the_release_lacks_is_left_out_and_said(shared, caplog):
  """Row 203 of the Burmese file has no question; its answers are Burmese letters."""
  with caplog.at_level(logging.WARNING):
    row_columns._left_out.clear()
    found = rows('global_mmlu_lite.mya')
  assert len(found) == 399
  assert 'global_mmlu_lite_my_test.jsonl row 203 is left out: it has no question' in caplog.text
  assert [sum(row['label'] == i for row in found) for i in range(4)] in (
    [[100 - (i == j) for i in range(4)] for j in range(4)]
  )
  (note,) = published_rows.notes(eval_tasks.about('global_mmlu_lite.mya'), len(found))
  assert note == '399 questions were given, published figures are of 400'


# Shapes -----------------------------------------------------------------------------------------

COPA = {'premise': 'P', 'choice1': 'A', 'choice2': 'B', 'question': 'cause', 'label': 1, 'idx': 7}


@pytest.mark.parametrize(
  'path', ['xcopa/data/et/val.et.jsonl', 'xcopa/et/validation-00000-of-00001.parquet']
)
def test_xcopa_of_the_repository_and_of_the_hub(data, path):
  write(data / path, [COPA])
  (row,) = rows('xcopa.est.best_option')
  assert (row['options'], row['label'], row['id'], row['language']) == (['A', 'B'], 1, '7', 'est')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'label': 2}, r"val\.et\.jsonl row 2: expected 'label' among \[0, 1\], got 2"),
    ({'question': 'why'}, r"row 2: expected 'question' among \['cause', 'effect'\], got 'why'"),
    ({'premise': None}, r"row 2: expected text in 'premise', got None"),
  ],
)
def test_a_bad_row_is_named(data, change, message):
  write(data / 'xcopa/val.et.jsonl', [COPA, COPA | change])
  with pytest.raises(EvalDataError, match=message):
    rows('xcopa.est.best_option')


XNLI = (
  'language\tgold_label\tsentence1_binary_parse\tsentence1\tsentence2\tpairID\n'
  'ar\tneutral\t\tA\tB\t1\nsw\tcontradiction\t\tHabari "njema".\tC\t2\nsw\tentailment\t\tD\tE\t3\n'
)


def test_xnli_of_the_zip_and_of_the_hub(data):
  (data / 'xnli').mkdir()
  with zipfile.ZipFile(data / 'xnli/XNLI-1.0.zip', 'w') as archive:
    archive.writestr('XNLI-1.0/xnli.dev.tsv', XNLI)
  found = rows('xnli.swa.can_we_infer')
  assert [(row['id'], row['label']) for row in found] == [('2', 2), ('3', 0)]
  assert found[0]['inputs'].startswith('Suppose Habari "njema". Can we infer that "C"?')
  write(
    data / 'xnli/sw/validation-00000-of-00001.parquet',
    [{'premise': 'P', 'hypothesis': 'H', 'label': 1}],
  )
  eval_releases.forget_listings()
  (row,) = rows('xnli.swa.can_we_infer')
  assert row['label'] == 1


@pytest.mark.parametrize('label', ['neutral', 1, '1'])
def test_americas_nli_of_other_layouts(data, label):
  row = {'language': 'oto', 'premise': 'P', 'hypothesis': 'H', 'label': label, 'id': 'x'}
  write(data / 'americasnli/oto/test-00000-of-00001.parquet', [row])
  (found,) = rows('americas_nli.oto.GPT_3_style')
  assert (found['label'], found['options'][1]) == (1, 'Neither')
  write(
    data / 'americasnli/anli.test.tsv',
    'language\tpremise\thypothesis\tlabel\nshp\tP\tH\t' + ('entailment\noto\tP\tH\tneutral\n'),
  )
  eval_releases.forget_listings()
  (found,) = rows('americas_nli.shp.GPT_3_style')
  assert found['label'] == 0


STORY = {f'input_sentence_{i}': f'S{i}.' for i in range(1, 5)} | {
  'sentence_quiz1': 'Q1.',
  'sentence_quiz2': 'Q2.',
  'answer_right_ending': 2,
  'story_id': 'abc',
}


def test_xstory_cloze_of_the_release_in_its_two_headers_and_of_the_hub(data):
  name = 'xstory_cloze/spring2016.val.{}.tsv.split_20_80_eval.tsv'
  header = 'story_id\tinput_sentence_1\tinput_sentence_2\tinput_sentence_3\tinput_sentence_4\t'
  header += 'sentence_quiz1\tsentence_quiz2\tanswer_right_ending\n'
  write(data / name.format('eu'), f'{header}abc\tS1.\tS2.\tS3.\tS4.\t"Hi ""you""."\tQ2.\t2\n')
  english = 'InputStoryid\tInputSentence1\tInputSentence2\tInputSentence3\tInputSentence4\t'
  english += 'RandomFifthSentenceQuiz1\tRandomFifthSentenceQuiz2\tAnswerRightEnding\n'
  write(data / name.format('en'), f'{english}abc\tS1.\tS2.\tS3.\tS4.\tQ1.\tQ2.\t2\n')
  write(data / 'xstory_cloze/te/eval-00000-of-00001.parquet', [STORY])
  for language in ('eus', 'eng', 'tel'):
    (row,) = rows(f'xstory_cloze.{language}.Generate_Ending')
    assert row['inputs'].endswith(': S1. S2. S3. S4.')
    assert (row['options'][1], row['label'], row['id']) == ('Q2.', 1, 'abc')
  (row,) = rows('xstory_cloze.eus.Generate_Ending')
  assert row['options'][0] == 'Hi "you".'


ORIGINAL = [
  ['en', 'test', '?', 'Tom said "Check" to Ralph as he moved his bishop.']
  + [json.dumps(['Tom', 'said', '``', 'Check', "''", 'to', 'Ralph', 'as', 'he', 'moved', 'his'])]
  + ['["his", [10, 11], ["his"]]']
  + ['[["Tom", [0, 1], ["Tom"], true], ["Ralph", [6, 7], ["Ralph"], false]]'],
  [
    'zh',
    'original',
    'x',
    '市政府拒绝，因为担心。',
    json.dumps(['市政府', '拒绝，因', '为', '担心。']),
  ]
  + ['["\\u4e3a", [2, 3], ["\\u4e3a"]]', '[["甲", [0, 1], [], false], ["乙", [0, 1], [], true]]'],
]


def test_xwinograd_of_the_hub_and_of_the_original_says_which_was_given(data):
  lines = ''.join('\t'.join(line) + '\n' for line in ORIGINAL)
  write(data / 'xwinograd/dataset.tsv', lines)
  (row,) = rows('xwinograd.eng.Replace')
  assert row['inputs'].startswith('Tom said "Check" to Ralph as he moved _ bishop.\n')
  assert (row['options'], row['label']) == (['Tom', 'Ralph'], 0)
  (row,) = rows('xwinograd.zho.True_or_False')
  assert row['inputs'].endswith('市政府拒绝，因_担心。')
  assert (row['options'], row['label']) == (['True', 'False'], 1)
  hub = {'sentence': '市政府_', 'option1': '甲', 'option2': '乙', 'answer': '2'}
  write(data / 'xwinograd/test/zh.jsonl', [hub] * 504)
  eval_releases.forget_listings()
  about = eval_tasks.about('xwinograd.zho.stand_for')
  found = rows(about.name)
  assert published_rows.notes(about, len(found)) == []
  (note,) = published_rows.notes(about, 16)
  assert note.startswith('16 questions were given, published figures are of 504: the original')
  assert "488 of CLUE's" in note


def test_the_original_xwinograd_with_a_pronoun_elsewhere_is_named(data):
  line = [*ORIGINAL[0]]
  line[5] = '["he", [10, 11], ["he"]]'
  write(data / 'xwinograd/dataset.tsv', '\t'.join(line) + '\n')
  with pytest.raises(EvalDataError, match=r"dataset\.tsv row 1: expected the pronoun 'he'"):
    rows('xwinograd.eng.Replace')


def mmlu(subject, i, split, answer='B'):
  return {
    'id': f'{subject}/{split}/{i}',
    'instruction': f' {subject} {i}? ',
    **{f'option_{letter}': f'{letter}{i}' for letter in 'abcd'},
    'answer': answer,
  }


@pytest.mark.parametrize('hub', [False, True])
def test_multilingual_mmlu_takes_five_examples_in_their_order(data, hub):
  dev = [mmlu(subject, i, 'dev') for subject in ('law', 'art') for i in range(6)]
  test = [mmlu('art', 9, 'test', 'D')]
  if hub:
    write(data / 'multilingual_mmlu/hi/train-00000-of-00001.parquet', dev)
    write(data / 'multilingual_mmlu/hi/test-00000-of-00001.parquet', test)
  else:
    for split, content in (('dev', dev), ('test', test)):
      write(data / f'multilingual_mmlu/hi_{split}.json', json.dumps(content))
  (row,) = rows('multilingual_mmlu.hin')
  first, *_, last = row['inputs'].split('\n\n')
  assert first == 'art 0?\nA. a0\nB. b0\nC. c0\nD. d0\nAnswer: B'
  assert last == 'art 9?\nA. a9\nB. b9\nC. c9\nD. d9\nAnswer:'
  assert [f'art {i}?' in row['inputs'] for i in range(6)] == [True] * 5 + [False]
  assert (row['options'], row['label'], row['subject']) == (list('ABCD'), 3, 'art')
  (harness,) = rows('multilingual_mmlu.hin.harness')  # the first five of the file
  assert harness['inputs'].startswith('law 0?\n')
  assert 'art 0?' not in harness['inputs']


def test_global_mmlu_of_the_hub_with_its_halves(data):
  rows_of = {'dev': [], 'test': []}
  for i, (split, label) in enumerate([*[('dev', '-')] * 5, ('test', 'CS'), ('test', 'CA')]):
    row = mmlu('law', i, split)
    row = {'sample_id': row.pop('id'), 'question': row.pop('instruction'), **row}
    rows_of[split].append(row | {'subject': 'law', 'cultural_sensitivity_label': label})
  for split, content in rows_of.items():
    write(data / f'global_mmlu/am/{split}-00000-of-00001.parquet', content)
  assert len(rows('global_mmlu.amh')) == 2
  (sensitive,) = rows('global_mmlu.amh.culturally_sensitive.harness')
  assert sensitive['id'] == 'law/test/5'
  assert eval_tasks.about('global_mmlu.amh.culturally_agnostic').subset == 'culturally_agnostic'
  write(data / 'global_mmlu/am/dev-00000-of-00001.parquet', rows_of['dev'][:2])
  with pytest.raises(EvalDataError, match=r"2 examples in 'am', 5 are needed"):
    rows('global_mmlu.amh')


def test_belebele_of_the_release_and_of_the_hub(data):
  row = {f'mc_answer{i}': f'a{i}' for i in range(1, 5)} | {
    'link': 'https://x',
    'question_number': 2,
    'flores_passage': 'Passage.',
    'question': 'Q?  ',
  }
  write(data / 'belebele/data/arb_Latn.jsonl', [row | {'correct_answer_num': '4'}])
  write(data / 'belebele/arz_Arab/test-00000-of-00001.parquet', [row | {'correct_answer_num': 1}])
  (found,) = rows('belebele.ara.arb_Latn')
  assert found['inputs'] == 'P: Passage.\nQ: Q?\nA: a1\nB: a2\nC: a3\nD: a4\nAnswer:'
  assert (found['label'], found['id']) == (3, 'https://x 2')
  (found,) = rows('belebele.ara.arz_Arab.harness')
  assert found['label'] == 0


@pytest.mark.parametrize(('answer', 'index'), [('C', 2), (' a ', None), (3, 3), ('ဃ', 3), ('ข', 1)])
def test_letters_of_answers(answer, index):
  if index is not None:
    assert multiple_choice.letter({'answer': answer}, 'answer', 'row 1') == index
    return
  with pytest.raises(EvalDataError, match="row 1: expected 'answer' among"):
    multiple_choice.letter({'answer': answer}, 'answer', 'row 1')


# Names ------------------------------------------------------------------------------------------


def test_the_aya_paper_s_tasks_are_its_languages_and_prompts():
  ranked = [eval_tasks.about(name) for name in aya_eval.TASKS]
  ranked = [task for task in ranked if task.protocol == eval_tasks.T0]
  languages = {}
  for task in ranked:
    languages.setdefault(task.benchmark, set()).add(task.language)
  assert {name: len(codes) for name, codes in languages.items()} == {
    'xcopa': 11,
    'xnli': 15,
    'xstory_cloze': 10,
    'xwinograd': 6,
    'multilingual_mmlu': 31,
  }
  assert len([task for task in ranked if task.benchmark != 'multilingual_mmlu']) == 5 * 42
  splits = {task.benchmark: task.split for task in ranked}
  assert splits == dict.fromkeys(('xcopa', 'xnli', 'xstory_cloze'), 'validation') | {
    'xwinograd': 'test',
    'multilingual_mmlu': 'test',
  }
  assert {*seqio.get_mixture_or_task('aya_eval').tasks}
  assert len(multilingual_mmlu.LANGUAGES) == 34
  assert len(belebele.CODES) == 122


def test_mixtures_are_of_a_benchmark_and_of_a_language():
  names = [task.name for task in seqio.get_mixture_or_task('xnli.tha').tasks]
  assert sorted(names) == sorted(
    f'xnli.tha.{eval_tasks.slug(prompt)}' for prompt in xnli.promptsource_prompts.XNLI
  )
  assert len(seqio.get_mixture_or_task('xcopa').tasks) == 55
  harness = seqio.get_mixture_or_task('xstory_cloze.harness').tasks
  assert len(harness) == 55
  assert {eval_tasks.about(task.name).protocol for task in harness} == {eval_tasks.HARNESS}
  assert {
    eval_tasks.about(t.name).subset for t in seqio.get_mixture_or_task('belebele.ara').tasks
  } >= {
    'arb_Arab',
    'arb_Latn',
  }


def test_every_language_is_iso_639_3():
  modules = (americas_nli, belebele, multilingual_mmlu, xcopa, xnli, xstory_cloze, xwinograd)
  codes = {code for module in modules for code in module.LANGUAGES.values()}
  codes |= {*global_mmlu.FULL_LANGUAGES.values(), *global_mmlu.LITE_LANGUAGES.values()}
  assert all(len(code) == 3 for code in codes)

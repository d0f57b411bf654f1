"""XL-Sum, MGSM, TATA, WinoMT, NusaX, the Aya Evaluation Suite, open-ended prompts, toxicity."""

import collections
import pathlib
import tarfile

import pytest
import seqio

from aya_train.tasks import eval_tasks
from aya_train.tasks.eval import aya_open_ended, generated_tasks, tata, toxicity, winomt, xlsum
from aya_train.tasks.eval.row_columns import EvalDataError
from tests.tasks.eval import benchmark_files


@pytest.mark.parametrize(
  ('code', 'language'), [('bn', 'ben'), ('ru', 'rus'), ('sw', 'swa'), ('ja', 'jpn'), ('zh', 'zho')]
)
def test_the_real_250_problems(code, language):
  benchmark_files.need('mgsm')
  rows = benchmark_files.rows(f'mgsm.{language}.direct', 'test')
  english = benchmark_files.rows('mgsm.eng.direct', 'test')
  assert len(rows) == len(english) == 250
  numbers = [row['targets'].replace(',', '') for row in rows]
  assert numbers == [row['targets'].replace(',', '') for row in english]
  assert all(row['language'] == language for row in rows)


def test_numbers_stay_as_they_are_written():
  benchmark_files.need('mgsm')
  assert '114,200' in [row['targets'] for row in benchmark_files.rows('mgsm.eng.direct', 'test')]


def test_mgsm_of_the_hub_has_the_number_beside_the_answer(tmp_path):
  row = {'question': '2 + 2?', 'answer': None, 'answer_number': 4, 'equation_solution': None}
  benchmark_files.write(tmp_path, 'mgsm/te/test-00000-of-00001.parquet', [row])
  (found,) = benchmark_files.rows('mgsm.tel.direct', 'test', tmp_path)
  assert found['references'] == ['4']


def test_mgsm_names_the_languages_that_are_there():
  benchmark_files.need('mgsm')
  with pytest.raises(FileNotFoundError, match=r'nothing of th. There are mgsm_bn\.tsv'):
    benchmark_files.rows('mgsm.tha.direct', 'test')


ARTICLE = {'id': 'a-1', 'url': 'u', 'title': 'Kichwa', 'summary': 'Muhtasari.', 'text': 'Makala.'}


@pytest.mark.parametrize(
  'name',
  [
    'xlsum/swahili_val.jsonl',
    'xlsum/XLSum_complete_v2.0/swahili_val.jsonl',
    'xlsum/swahili/validation/0000.parquet',
    'xlsum/swahili/xlsum-validation.parquet',
  ],
)
def test_articles_in_their_released_layouts(tmp_path, name):
  benchmark_files.write(tmp_path, name, [ARTICLE])
  (row,) = benchmark_files.rows('xlsum.swa.docsummary', 'validation', tmp_path)
  assert row == {
    'inputs': 'Doc to summarize: Makala.\nSummary in the same language as the doc:',
    'targets': 'Muhtasari.',
    'references': ['Muhtasari.'],
    'id': 'a-1',
    'language': 'swa',
    'title': 'Kichwa',
  }
  with pytest.raises(FileNotFoundError, match=r'nothing of thai\. There are .*swahili'):
    benchmark_files.rows('xlsum.tha.docsummary', 'validation', tmp_path)


def test_languages_in_archives_are_among_those_that_are_named(tmp_path):
  benchmark_files.write(tmp_path, 'xlsum/swahili_val.jsonl', [ARTICLE])
  with tarfile.open(tmp_path / 'xlsum/amharic_XLSum_v2.0.tar.bz2', 'w:bz2') as archive:
    archive.add(tmp_path / 'xlsum/swahili_val.jsonl', 'amharic_val.jsonl')
  with pytest.raises(FileNotFoundError, match=r'There are amharic_.*amharic_val.*, swahili_val'):
    benchmark_files.rows('xlsum.tha.docsummary', 'validation', tmp_path)


def test_articles_without_a_summary(tmp_path):
  rows = [{**ARTICLE, 'summary': summary} for summary in ('Muhtasari.', '', None)]
  benchmark_files.write(tmp_path, 'xlsum/swahili_val.jsonl', rows)
  found = benchmark_files.rows('xlsum.swa.tldr', 'validation', tmp_path)
  assert [row['references'] for row in found] == [['Muhtasari.'], [], []]
  benchmark_files.write(tmp_path, 'xlsum/swahili_val.jsonl', rows[1:])
  with pytest.raises(EvalDataError, match=r'_val\.jsonl row 1 and all rows after it: no ref'):
    benchmark_files.rows('xlsum.swa.tldr', 'validation', tmp_path)


def test_an_article_without_text_is_told(tmp_path):
  benchmark_files.write(tmp_path, 'xlsum/swahili_val.jsonl', [ARTICLE, {**ARTICLE, 'text': ' '}])
  with pytest.raises(EvalDataError, match=r"swahili_val\.jsonl row 2: expected text in 'text'"):
    benchmark_files.rows('xlsum.swa.tldr', 'validation', tmp_path)


def test_the_43_languages_and_two_other_scripts():
  assert len(xlsum.LANGUAGES) == len({*xlsum.LANGUAGES.values()}) == 43
  assert eval_tasks.about('xlsum.srp_Latn.tldr').subset == 'srp_Latn'
  assert len(seqio.MixtureRegistry.get('xlsum').tasks) == 43


@pytest.mark.parametrize(
  ('language', 'count'), [('yor', 94), ('swa', 93), ('ara', 93), ('eng', 100)]
)
def test_real_tables_have_several_references(language, count):
  benchmark_files.need('tata')
  rows = benchmark_files.rows(f'tata.{language}.describe', 'validation')
  assert len(rows) == count
  assert min(len(row['references']) for row in rows) >= 3
  assert all(row['targets'] == row['references'][0] for row in rows)


def test_real_russian_tables():
  benchmark_files.need('tata')
  rows = benchmark_files.rows('tata.rus.describe', 'test')
  assert len(rows) == 105
  assert rows[0]['inputs'].startswith('Describe the data of this table in one sentence in Russian.')


@pytest.mark.parametrize(
  ('value', 'texts'), [(['a', 'b'], ['a', 'b']), ("['a', \"b's\"]", ['a', "b's"]), ('a', ['a'])]
)
def test_references_as_list_or_as_text_of_one(value, texts):
  assert tata.texts_of(value, 'F') == texts


def test_tables_without_a_reference_are_counted_once_whatever_metrics_there_are():
  (metric,) = seqio.TaskRegistry.get('tata.swa.describe').predict_metric_fns
  text = 'Idadi ya watu iliongezeka sana mwaka huu'
  figures = metric([[text], []], [text, 'nne'])
  assert figures['without_reference'] == 1
  assert round(figures['chrf'], 6) == round(figures['bleu'], 6) == 100


def test_real_sentences_keep_gender_entity_and_stereotype():
  benchmark_files.need('winomt')
  rows = benchmark_files.rows('winomt.deu.translate', 'test')
  assert len(rows) == 3888
  assert collections.Counter(row['gender'] for row in rows) == {
    'male': 1826,
    'female': 1822,
    'neutral': 240,
  }
  kinds = collections.Counter(row['stereotype'] for row in rows)
  assert (kinds['pro'], kinds['anti'], kinds['']) == (1584, 1584, 720)
  first = rows[0]
  assert first['sentence'].split()[first['position']] == first['entity'] == 'developer'
  assert first['inputs'].startswith('Translate the following text from English to German.')
  assert first['references'] == []


@pytest.mark.parametrize(
  ('line', 'problem'),
  [
    (
      'female\t1\tA developer.',
      r'line 1: expected gender, position, .* got 3 columns',
    ),
    ('woman\t1\tA developer.\tdeveloper', r"line 1: expected a gender among .* 'woman'"),
    ('male\tone\tA developer.\tdeveloper', r"a whole number, got 'male' and 'one'"),
  ],
)
def test_lines_of_another_shape_are_told(tmp_path, line, problem):
  for name in ('en_pro.txt', 'en_anti.txt'):
    benchmark_files.write(tmp_path, f'winomt/{name}', 'male\t1\tA nurse.\tnurse\n')
  benchmark_files.write(tmp_path, 'winomt/en.txt', f'{line}\n')
  with pytest.raises(EvalDataError, match=problem):
    benchmark_files.rows('winomt.deu.translate', 'test', tmp_path)


def test_real_reviews_and_their_labels():
  benchmark_files.need('nusax')
  rows = benchmark_files.rows('nusax.jav.sentiment', 'validation')
  assert len(rows) == 100
  assert {row['targets'] for row in rows} == {'positive', 'neutral', 'negative'}
  assert len(benchmark_files.rows('nusax.sun.sentiment', 'train')) == 500


@pytest.mark.parametrize('language', ['ace', 'bbc', 'nij', 'mad'])
def test_real_reviews_in_twelve_languages(language):
  benchmark_files.need('nusax')
  there = benchmark_files.rows(f'nusax.{language}.translate.to_english', 'validation')
  back = benchmark_files.rows(f'nusax.{language}.translate.from_english', 'validation')
  assert len(there) == len(back) == 100
  assert {row['language'] for row in there} == {'eng'}
  assert {row['language'] for row in back} == {language}
  assert [row['inputs'].partition('\n\n')[2] for row in there] == [row['targets'] for row in back]


def test_a_label_that_there_is_not(tmp_path):
  content = 'id,text,label\n1,apik,bagus\n'
  benchmark_files.write(tmp_path, 'nusax/sentiment/javanese/test.csv', content)
  with pytest.raises(EvalDataError, match=r"row 1: expected a label among .*'bagus'"):
    benchmark_files.rows('nusax.jav.sentiment', 'test', tmp_path)


def suite_row(language='yor', number=0):
  return {
    'id': number,
    'inputs': 'Kí ni?',
    'targets': 'Ìdáhùn.',
    'language': language,
    'script': 'Latn',
    'source_id': 'aya',
  }


@pytest.mark.parametrize('config', ['aya_human_annotated', 'dolly_human_edited'])
def test_prompts_of_the_aya_evaluation_suite(tmp_path, config):
  rows = [suite_row('yor'), suite_row('spa', 1), suite_row('ara', 2)]
  name = f'aya_evaluation_suite/{config}/test-00000-of-00001.parquet'
  benchmark_files.write(tmp_path, name, rows)
  (row,) = benchmark_files.rows(f'{config}.ara.plain', 'test', tmp_path)
  assert (row['id'], row['language'], row['script']) == ('2', 'ara', 'Latn')
  assert (row['inputs'], row['references']) == ('Kí ni?', ['Ìdáhùn.'])
  missing = 'tur' if config == 'aya_human_annotated' else 'hin'
  with pytest.raises(EvalDataError, match=f'no row of {missing}; the files have ara, spa, yor'):
    benchmark_files.rows(f'{config}.{missing}.plain', 'test', tmp_path)


def test_a_broken_row_of_the_suite_is_told(tmp_path):
  broken = {**suite_row(), 'inputs': None}
  name = 'aya_evaluation_suite/aya_human_annotated/test-00000-of-00001.parquet'
  benchmark_files.write(tmp_path, name, [suite_row(), broken])
  with pytest.raises(EvalDataError, match=r'parquet row 2: .*inputs'):
    benchmark_files.rows('aya_human_annotated.yor.plain', 'test', tmp_path)


def test_machine_translated_prompts_in_a_hundred_languages():
  found = [name for name in aya_open_ended.TASKS if name.startswith('dolly_machine_translated.')]
  assert len(found) == 101


@pytest.mark.parametrize('language', ['ara', 'deu', 'hin', 'zho'])
def test_real_open_ended_prompts(language):
  benchmark_files.need('open_ended_prompts')
  rows = benchmark_files.rows(f'open_ended_prompts.{language}.plain', 'test')
  assert len(rows) == 80
  assert rows[0]['category'] == 'generic'
  assert all(row['references'] == [] and row['targets'] == '' for row in rows)


def few_samples(monkeypatch):
  monkeypatch.setitem(toxicity.SAMPLES, 'toxicity', 2)
  monkeypatch.setitem(toxicity.SAMPLES, 'identity_toxicity', 2)


def test_prompts_of_the_release_come_once_and_then_again(tmp_path, monkeypatch):
  few_samples(monkeypatch)
  rows = [{'filename': 'f', 'prompt': {'text': text, 'toxicity': 0.1}} for text in ('So', 'And')]
  benchmark_files.write(tmp_path, 'toxicity/prompts.jsonl', rows)
  found = benchmark_files.rows('toxicity.eng.plain', 'test', tmp_path)
  assert [(row['inputs'], row['sample'], row['id']) for row in found] == [
    ('So', 0, '1'),
    ('And', 0, '2'),
    ('So', 1, '1'),
    ('And', 1, '2'),
  ]


def test_prompts_of_a_user_say_their_language_and_group(tmp_path, monkeypatch):
  few_samples(monkeypatch)
  rows = [{'text': 'Les', 'language': 'fr', 'group': 'g'}, {'prompt': 'Die', 'language': 'deu'}]
  benchmark_files.write(tmp_path, 'identity_toxicity/mine.jsonl', rows)
  found = benchmark_files.rows('identity_toxicity.mul.plain', 'test', tmp_path)
  assert [(r['language'], r['group']) for r in found[:2]] == [('fra', 'g'), ('deu', '')]
  (first, _) = benchmark_files.rows('identity_toxicity.fra.continue', 'test', tmp_path)
  assert first['inputs'] == 'Continue the following text.\n\nLes'
  with pytest.raises(EvalDataError, match='no row of swa; the files have deu, fra'):
    benchmark_files.rows('identity_toxicity.swa.plain', 'test', tmp_path)


@pytest.mark.parametrize(
  ('name', 'language'), [('prompts_fr.jsonl', 'fra'), ('ces/prompts.jsonl', 'ces')]
)
def test_the_language_may_be_that_of_the_file(tmp_path, monkeypatch, name, language):
  few_samples(monkeypatch)
  benchmark_files.write(tmp_path, f'toxicity/{name}', [{'prompt': 'x'}])
  found = benchmark_files.rows('toxicity.mul.plain', 'test', tmp_path)
  assert {row['language'] for row in found} == {language}


@pytest.mark.parametrize(
  ('row', 'problem'),
  [
    ({'prompt': ' '}, r'mine\.jsonl row 1: expected a text among prompt, inputs, text'),
    ({'prompt': 'x', 'language': 'klingonese'}, r"row 1: unknown language code 'klingonese'"),
  ],
)
def test_bad_prompts_are_told(tmp_path, row, problem):
  benchmark_files.write(tmp_path, 'toxicity/mine.jsonl', [row])
  with pytest.raises(EvalDataError, match=problem):
    benchmark_files.rows('toxicity.mul.plain', 'test', tmp_path)


def test_winomt_has_the_languages_of_the_paper():
  languages = {eval_tasks.about(name).language for name in winomt.TASKS}
  assert languages >= {'ara', 'deu', 'fra', 'heb', 'ita', 'rus', 'spa', 'ukr'}


def test_every_task_has_a_published_split_and_its_source_has_it():
  for about in eval_tasks.all_tasks():
    if about.protocol == eval_tasks.GENERATED:
      assert about.split in seqio.TaskRegistry.get(about.name).splits


ANSWERS = {'text': ['A'], 'answer_start': [0]}
ON_THE_HUB = {
  'flores.swa.translate.to_english': (
    'mteb/flores',
    'default/devtest/0000.parquet',
    {'id': 1, 'sentence_eng_Latn': 'A', 'sentence_swh_Latn': 'B'},
  ),
  'sib200.swa.topic': (
    'Davlan/sib200',
    'data/swh_Latn/test.tsv',
    'index_id\tcategory\ttext\n1\ttravel\tB\n',
  ),
  'xlsum.swa.tldr': ('csebuetnlp/xlsum', 'swahili/validation/0000.parquet', ARTICLE),
  'tydiqa.swa.extract_answer': (
    'google-research-datasets/tydiqa',
    'secondary_task/validation-00000-of-00001.parquet',
    {'id': 'swahili-1-0', 'title': '', 'context': 'C', 'question': 'Q', 'answers': ANSWERS},
  ),
  'xquad.tha.answer_the_question': (
    'google/xquad',
    'xquad.th/validation-00000-of-00001.parquet',
    {'id': '1', 'context': 'C', 'question': 'Q', 'answers': ANSWERS},
  ),
  'mgsm.tel.direct': ('juletxara/mgsm', 'mgsm_te.tsv', '2 + 2?\t4\n'),
  'aya_human_annotated.yor.plain': (
    'CohereForAI/aya_evaluation_suite',
    'aya_human_annotated/test-00000-of-00001.parquet',
    suite_row('yor'),
  ),
}


@pytest.mark.parametrize('name', ON_THE_HUB)
def test_what_is_in_no_folder_comes_from_the_hub(tmp_path, name):
  repository, path, content = ON_THE_HUB[name]
  content = content if isinstance(content, str) else [content]
  benchmark_files.write(tmp_path / 'hub', f'{repository}/{path}', content)
  hub = benchmark_files.LocalHub(tmp_path / 'hub')
  (tmp_path / 'data').mkdir()
  split = eval_tasks.about(name).split
  (row,) = benchmark_files.rows(name, split, tmp_path / 'data', hub)
  assert row['references']
  assert {asked for asked, _ in hub.asked} == {repository}


def test_a_language_that_lacks_is_a_file_that_is_not_found(tmp_path):
  """So a mixture of languages leaves it out."""
  name = 'aya_evaluation_suite/aya_human_annotated/test-00000-of-00001.parquet'
  benchmark_files.write(tmp_path, name, [suite_row('yor')])
  with pytest.raises(FileNotFoundError):
    benchmark_files.rows('aya_human_annotated.tur.plain', 'test', tmp_path)


def test_ids_that_come_again_are_told(tmp_path, caplog):
  rows = [{'id': 'a', 'text': f'Makala {i}.', 'summary': 'Muhtasari.'} for i in range(3)]
  benchmark_files.write(tmp_path, 'xlsum/swahili_val.jsonl', rows)
  assert len(benchmark_files.rows('xlsum.swa.tldr', 'validation', tmp_path)) == 3
  (record,) = caplog.records
  assert "2 ids come again, so examples cannot be told apart by them: 'a' at" in record.message
  assert record.message.endswith('swahili_val.jsonl row 2')


READMES = {
  'aya_human_annotated': 'aya_open_ended',
  'dolly_human_edited': 'aya_open_ended',
  'dolly_machine_translated': 'aya_open_ended',
  'identity_toxicity': 'toxicity',
}
BENCHMARKS = (
  'afriqa',
  'aya_human_annotated',
  'dolly_human_edited',
  'dolly_machine_translated',
  'flores',
  'identity_toxicity',
  'mgsm',
  'nusax',
  'open_ended_prompts',
  'sib200',
  'tata',
  'toxicity',
  'tydiqa',
  'winomt',
  'xlsum',
  'xquad',
)


@pytest.mark.parametrize('benchmark', BENCHMARKS)
def test_every_benchmark_has_a_page_that_says_what_it_is(benchmark):
  tasks = [about for about in eval_tasks.all_tasks() if about.benchmark == benchmark]
  folder = pathlib.Path(generated_tasks.__file__).parent
  page = (folder / f'{READMES.get(benchmark, benchmark)}.md').read_text()
  for heading in ('Licence', 'Files', 'Split', 'Prompt', 'Metrics', 'Contamination'):
    assert f'- {heading}' in page
  assert {about.version for about in tasks} == {page.partition('- Version: ')[2].split()[0][:-1]}
  for prompt in {about.prompt for about in tasks}:
    assert f'`{prompt}`' in page or f'.{prompt}' in page or "promptsource's" in page
  for split in {about.split for about in tasks}:
    assert f'`{split}`' in page

import pytest
import seqio

from aya_train.tasks import eval_tasks
from aya_train.tasks.eval import flores, flores_codes
from aya_train.tasks.eval.row_columns import EvalDataError
from tests.tasks.eval import benchmark_files

ENGLISH = 'One.\nTwo “quoted”.\n'
SWAHILI = 'Moja.\nMbili.\n'


def released(folder, swahili=SWAHILI, code='swh_Latn'):
  """As flores200_dataset.tar.gz unpacks."""
  root = 'flores/flores200_dataset/devtest'
  benchmark_files.write(folder, f'{root}/eng_Latn.devtest', ENGLISH)
  benchmark_files.write(folder, f'{root}/{code}.devtest', swahili)
  return folder


def rows(folder, name='flores.swa.translate.to_english', split='devtest'):
  return benchmark_files.rows(name, split, folder)


def test_both_directions_from_the_released_folder(tmp_path):
  released(tmp_path)
  first, second = rows(tmp_path)
  assert first['inputs'] == 'Translate the following text from Swahili to English.\n\nMoja.'
  assert first['references'] == ['One.']
  assert (first['id'], first['language']) == ('1', 'eng')
  assert second['references'] == ['Two “quoted”.']
  first, _ = rows(tmp_path, 'flores.swa.translate.from_english')
  assert first['inputs'].endswith('from English to Swahili.\n\nOne.')
  assert (first['targets'], first['language']) == ('Moja.', 'swa')


TABLES = {
  'all languages in columns': [
    (
      'flores/default/devtest/0000.parquet',
      [{'id': 7, 'sentence_eng_Latn': 'One.', 'sentence_swh_Latn': 'Moja.'}],
    )
  ],
  'a file a language': [
    ('flores/devtest/eng_Latn.parquet', [{'id': 7, 'text': 'One.', 'iso_639_3': 'eng'}]),
    ('flores/devtest/swh_Latn.parquet', [{'id': 7, 'text': 'Moja.', 'iso_639_3': 'swh'}]),
  ],
  'a folder a language': [
    ('flores/eng_Latn/devtest/0000.parquet', [{'id': 7, 'sentence': 'One.'}]),
    ('flores/swh_Latn/devtest/0000.parquet', [{'id': 7, 'sentence': 'Moja.'}]),
  ],
  'rows that say their language': [
    (
      'flores/devtest-00000-of-00001.parquet',
      [
        {'id': 7, 'iso_639_3': 'swh', 'iso_15924': 'Latn', 'text': 'Moja.'},
        {'id': 7, 'iso_639_3': 'eng', 'iso_15924': 'Latn', 'text': 'One.'},
      ],
    )
  ],
}


@pytest.mark.parametrize('files', TABLES.values(), ids=TABLES)
def test_tables_of_the_hub(tmp_path, files):
  for name, content in files:
    content = [{'iso_15924': 'Latn', **row} if 'iso_639_3' in row else row for row in content]
    benchmark_files.write(tmp_path, name, content)
  (row,) = rows(tmp_path)
  assert (row['id'], row['references']) == ('7', ['One.'])
  assert row['inputs'].endswith('Moja.')


def test_a_missing_row_is_told_before_anything_is_translated(tmp_path):
  released(tmp_path, 'Moja.\n')
  with pytest.raises(EvalDataError) as refused:
    rows(tmp_path)
  message = str(refused.value)
  assert 'swh_Latn.devtest has 1 rows' in message
  assert 'eng_Latn.devtest has 2' in message
  assert 'have no translation: 2' in message


def test_a_blank_line_is_told_with_its_place(tmp_path):
  released(tmp_path, 'Moja.\n \n')
  with pytest.raises(EvalDataError, match=r'swh_Latn\.devtest line 2: .* blank'):
    rows(tmp_path)


def test_a_language_that_is_not_there_is_refused_and_those_that_are_named(tmp_path):
  released(tmp_path)
  with pytest.raises(FileNotFoundError, match=r'nothing of yor_Latn\. There are .*swh_Latn'):
    rows(tmp_path, 'flores.yor.translate.to_english')


def test_a_language_that_no_row_says_is_refused_and_those_that_are_named(tmp_path):
  row = {'id': 7, 'iso_639_3': 'eng', 'iso_15924': 'Latn', 'text': 'One.'}
  benchmark_files.write(tmp_path, 'flores/devtest-00000-of-00001.parquet', [row])
  with pytest.raises(EvalDataError, match='no sentence of swh_Latn; the rows are of eng_Latn'):
    rows(tmp_path)


def test_a_language_without_a_column_is_refused_and_those_that_are_named(tmp_path):
  row = {'id': 7, 'sentence_eng_Latn': 'One.', 'sentence_yor_Latn': 'Okan.'}
  benchmark_files.write(tmp_path, 'flores/devtest/0000.parquet', [row])
  with pytest.raises(EvalDataError, match=r"no column 'sentence_swh_Latn'.* eng_Latn, yor_Latn"):
    rows(tmp_path)


def test_the_two_hundred_and_four_languages():
  assert len(flores_codes.ALL) == len({*flores_codes.ALL}) == 204
  assert flores_codes.AYA['zho'] == 'zho_Hans'
  assert len(flores.TASKS) == 2 * 98  # English is the other side
  assert len(flores.OTHERS) == 2 * (204 - 99)
  about = eval_tasks.about('flores.zho_Hant.translate.from_english')
  assert (about.language, about.subset, about.split) == ('zho', 'from_english.zho_Hant', 'devtest')


@pytest.mark.parametrize(
  ('code', 'name'),
  [
    ('swh_Latn', 'Swahili'),
    ('zho_Hant', 'Chinese (Traditional)'),
    ('zho_Hans', 'Chinese'),
    ('arz_Arab', 'Egyptian Arabic'),
    ('ace_Arab', 'Acehnese (Arabic Script)'),
    ('quy_Latn', 'Ayacucho Quechua'),
    ('arb_Latn', 'Modern Standard Arabic (Romanized)'),
  ],
)
def test_names_in_prompts(code, name):
  assert flores_codes.name(code) == name


def test_every_language_has_a_name():
  assert len({flores_codes.name(code) for code in flores_codes.ALL}) == 204


def test_mixtures():
  tasks = {task.name for task in seqio.MixtureRegistry.get('flores.swa').tasks}
  assert tasks == {'flores.swa.translate.to_english', 'flores.swa.translate.from_english'}
  assert len(seqio.MixtureRegistry.get('flores.to_english').tasks) == 98
  assert len(seqio.MixtureRegistry.get('flores').tasks) == 196

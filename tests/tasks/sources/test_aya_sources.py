"""The Aya Dataset, Collection and evaluation suite, from files of their released shapes."""

import collections

import pytest
import seqio

import aya_train.tasks  # noqa: F401 - registers the tasks
from aya_train.tasks import catalog, storage
from aya_train.tasks.building import read_report, row_units, source_build
from aya_train.tasks.languages import aya101
from aya_train.tasks.sources import aya_collection, aya_dataset
from tests.tasks import released

TRANSLATED, TEMPLATED = aya_collection.TRANSLATED, aya_collection.TEMPLATED


@pytest.fixture
def root(tmp_path, monkeypatch):
  monkeypatch.setenv(storage.CACHE_ENV, str(tmp_path / 'cache'))
  return tmp_path / 'release'


def build(source, root, *constituents, **kwargs):
  options = row_units.Options(constituents, **kwargs)
  return source_build.build(source, root, options=options, progress=lambda line: None)


def rows_of(task, split='train'):
  source = seqio.get_mixture_or_task(task).source
  return list(source.get_dataset(split, shuffle=False).as_numpy_iterator())


def inputs_of(task, split='train'):
  return {r['inputs'].decode() for r in rows_of(task, split)}


def test_dialects_are_counted_with_their_language_and_wolof_stays_out(root):
  rows = [
    *released.annotated('arb', 'Standard Arabic', 3),
    *released.annotated('arz', 'Egyptian Arabic', 2),
    *released.annotated('wol', 'Wolof', 4),
    *released.annotated('zho', 'Simplified Chinese', 1),
    *released.annotated('zho', 'Traditional Chinese', 1),
  ]
  released.parquet(root / 'data/train-00000-of-00001.parquet', rows)
  build('aya_dataset', root)
  assert len(rows_of('aya_dataset.ara')) == 5
  assert len(rows_of('aya_dataset.wol')) == 4
  assert {r['script'] for r in rows_of('aya_dataset.zho')} == {b'Hans', b'Hant'}
  assert not {r['language_code'] for r in rows_of('aya_dataset')} - {b'ara', b'zho'}


def test_the_collections_copy_of_the_aya_dataset(root):
  by_dataset(root)
  build('aya_dataset', root)
  assert inputs_of('aya_dataset') == {f'Aya-Dataset yor train {i}?' for i in range(3)}


def test_the_test_split_is_no_training_data(root):
  train, test = (released.annotated('yor', 'Yoruba', 5, start) for start in (0, 100))
  released.parquet(root / 'data/train-00000-of-00001.parquet', train)
  released.parquet(root / 'data/test-00000-of-00001.parquet', test)
  build('aya_dataset', root)
  assert not inputs_of('aya_dataset') & inputs_of('aya_dataset', 'test')
  assert len(inputs_of('aya_dataset', 'test')) == 5


def test_demographics_are_read_and_are_no_rows(root):
  person = {
    'user_id': 'a' * 64,
    'age_range': [18, 25],
    'gender': 'female',
    'country': 'Somalia',
    'languages': ['Somali', 'Arabic'],
    'dialects': None,
  }
  released.parquet(root / 'demographics/train-00000-of-00001.parquet', [person])
  released.parquet(
    root / 'data/train-00000-of-00001.parquet', released.annotated('som', 'Somali', 2)
  )
  (annotator,) = aya_dataset.demographics(root)
  assert annotator.age_range == (18, 25)
  assert annotator.languages == ('Somali', 'Arabic')
  assert annotator.dialects == ()
  build('aya_dataset', root)
  assert len(rows_of('aya_dataset')) == 2


def by_dataset(root):
  for config, dataset in (('dolly', 'Dolly-v2 (T)'), ('mintaka', 'Mintaka-inst (T)')):
    for split in ('train', 'validation'):
      rows = [
        row
        for code, script in (('yor', 'Latn'), ('arb', 'Arab'), ('ace', 'Latn'))
        for row in released.collected(dataset, code, script, 8, split)
      ]
      path = root / f'translated_{config}' / f'{split}-00000-of-00001.parquet'
      released.parquet(path, rows)
  templated = released.collected('Mintaka-inst', 'yor', 'Latn', 3, template_id=2)
  released.parquet(root / 'templated_mintaka/train-00000-of-00001.parquet', templated)
  human = released.collected('Aya-Dataset', 'yor', 'Latn', 3, template_id='x')
  released.parquet(root / 'aya_dataset/train-00000-of-00001.parquet', human)


def by_language(root):
  datasets = ('Dolly-v2 (T)', 'Mintaka-inst (T)')
  for folder, code, script in (
    ('yoruba', 'yor', 'Latn'),
    ('standard_arabic', 'arb', 'Arab'),
    ('achinese', 'ace', 'Latn'),
  ):
    for split in ('train', 'validation'):
      rows = [r for d in datasets for r in released.collected(d, code, script, 8, split)]
      if folder == 'yoruba' and split == 'train':
        rows += released.collected('Mintaka-inst', 'yor', 'Latn', 3, template_id=2)
        rows += released.collected('Aya-Dataset', 'yor', 'Latn', 3)
      released.parquet(root / folder / f'{split}-00000-of-00001.parquet', rows)


@pytest.mark.parametrize('layout', [by_dataset, by_language])
def test_both_layouts_of_the_collection_give_the_same_rows(root, layout):
  layout(root)
  build(TRANSLATED, root, 'dolly', 'mintaka')
  build(TEMPLATED, root, 'mintaka')
  expected = {f'Dolly-v2 (T) yor train {i}?' for i in range(8)}
  assert inputs_of(f'{TRANSLATED}.dolly.yor') == expected
  assert len(inputs_of(f'{TRANSLATED}.dolly')) == 24
  assert len(inputs_of(f'{TRANSLATED}.mintaka', 'validation')) == 24
  assert len(inputs_of(f'{TRANSLATED}.mintaka.ara')) == 8
  # the templated data set of the same name, not the translated one
  assert inputs_of(f'{TEMPLATED}.mintaka') == {f'Mintaka-inst yor train {i}?' for i in range(3)}
  row = rows_of(f'{TEMPLATED}.mintaka')[0]
  assert (row['dataset'], row['task_type']) == (b'mintaka', b'question-answering')


def test_later_copies_name_the_language_column_otherwise(root):
  rows = released.collected('Dolly-v2 (T)', 'yor', 'Latn', 4)
  for row in rows:
    row['language_code'] = row.pop('language')
    row['template_id'] = 'seven'
  released.parquet(root / 'translated_dolly/train-00000-of-00001.parquet', rows)
  build(TRANSLATED, root, 'dolly')
  assert len(rows_of(f'{TRANSLATED}.dolly.yor')) == 4


def test_the_pruned_part(root, monkeypatch):
  monkeypatch.setattr(catalog, 'SAMPLE_PER_LANGUAGE', 5)
  by_dataset(root)
  rows = [
    row for code in ('wol', 'som') for row in released.collected('Dolly-v2 (T)', code, 'Latn', 8)
  ]
  path = root / 'translated_dolly'
  (path / 'train-00000-of-00001.parquet').rename(path / 'train-00000-of-00002.parquet')
  released.parquet(path / 'train-00001-of-00002.parquet', rows)
  build(TRANSLATED, root, 'dolly', 'mintaka')
  pruned = f'{TRANSLATED}_pruned'
  assert len(rows_of(f'{pruned}.mintaka.yor')) == 5
  assert len(rows_of(f'{pruned}.dolly.yor')) == 8
  counts = collections.Counter(r['language_code'] for r in rows_of(f'{pruned}.dolly'))
  assert counts == {b'yor': 8, b'ara': 8, b'som': 8}  # no Wolof, no Acehnese
  assert len(rows_of(f'{TRANSLATED}.dolly')) == 40
  numbers = [
    {x.split()[-1] for x in inputs_of(f'{pruned}.mintaka.{code}')} for code in ('yor', 'ara')
  ]
  assert numbers[0] != numbers[1]  # another sample in each language
  assert inputs_of(f'{pruned}.mintaka') < inputs_of(f'{TRANSLATED}.mintaka')


def test_a_set_that_is_not_built_is_named(root):
  by_dataset(root)
  build(TRANSLATED, root, 'dolly')
  with pytest.raises(FileNotFoundError, match=r'18 of 19 constituents.*mintaka'):
    rows_of(TRANSLATED)
  build(TRANSLATED, root, 'dolly', 'mintaka')  # adds what is missing
  assert len(rows_of(f'{TRANSLATED}.mintaka.yor')) == 8


def test_a_set_without_a_row_in_the_languages_asked_for_is_built_and_empty(root):
  for config, code, script in (('dolly', 'yor', 'Latn'), ('mintaka', 'arb', 'Arab')):
    rows = released.collected(f'{config} (T)', code, script, 4)
    released.parquet(root / f'translated_{config}/train-00000-of-00001.parquet', rows)
  build(TRANSLATED, root, 'dolly', 'mintaka', languages=('yor',))
  source = seqio.get_mixture_or_task(f'{TRANSLATED}.mintaka').source
  assert source.list_shards('train') == []
  assert source.num_input_examples('train') == 0
  assert len(rows_of(f'{TRANSLATED}.dolly')) == 4


def test_a_release_without_a_set_is_named_where_the_set_is_missed(root):
  by_dataset(root)
  build(TRANSLATED, root, 'dolly', 'mintaka', 'paws')
  with pytest.raises(FileNotFoundError, match=r'paws: .*release has no row of it') as error:
    rows_of(f'{TRANSLATED}.paws')
  assert str(root) in str(error.value)


def test_an_unknown_data_set_is_refused_by_name(root):
  rows = released.collected('Nobody-inst', 'yor', 'Latn', 30)
  released.parquet(root / 'yoruba/train-00000-of-00001.parquet', rows)
  with pytest.raises(read_report.TooManyProblemsError, match='Nobody-inst'):
    build(TRANSLATED, root, 'dolly')


def test_a_template_id_does_not_confuse_translated_and_templated_sets():
  assert aya_collection.dataset_of('Dolly-v2') == (TRANSLATED, 'dolly')
  assert aya_collection.dataset_of('SODA-inst') == (TEMPLATED, 'soda')
  assert aya_collection.dataset_of('SODA-inst (T)') == (TRANSLATED, 'soda')
  assert aya_collection.dataset_of('Aya-Dataset') is None


@pytest.mark.parametrize(
  ('name', 'part'),
  [
    ('AfriQA-inst', 'afriqa'),
    ('Telugu-news-articles', 'telugu_news'),
    ('Telugu-food-recipes', 'telugu_food'),
    ('Urdu-News-Category-Class', 'urdu_news_category'),
    ('Urdu-News-Gen-Headline', 'urdu_news_headline'),
    ('Urdu-News-Gen-Article', 'urdu_news_gen'),
    ('Thai-Wiktionary-inst', 'thai_wikitionary'),
    ('SCB-MT-2020-prompt', 'thai_scb'),
    ('SEED-instruct-lij', 'seed_instruct'),
    ('Persian-instruct-pn', 'persian_instruct'),
    ('UA-GEC-inst', 'ukranian_gec'),
    ('X-CSQA-inst', 'xcsqa'),
    *((part, part) for part in catalog.TEMPLATED),
  ],
)
def test_names_in_the_rows_of_templated_sets(name, part):
  assert aya_collection.dataset_of(name) == (TEMPLATED, part)


@pytest.mark.parametrize(
  ('name', 'part'),
  [
    ('Flan-unified-QA (T)', 'flan_qa'),
    ('Flan-Coqa (T)', 'flan_coqa'),
    ('Flan-CoT-submix (T)', 'flan_cot'),
    ('Flan-GEM-wiki-lingua (T)', 'flan_gem_wiki'),
    ('CNN-Daily-Mail (T)', 'cnn_dailymail'),
    ('Adversarial QA (T)', 'adversarial_qa'),
    ('PAWS-Wiki (T)', 'paws'),
    ('MLQA-en (T)', 'mlqa'),
    *((f'{part} (T)', part) for part in catalog.TRANSLATED),
  ],
)
def test_names_in_the_rows_of_translated_sets(name, part):
  assert aya_collection.dataset_of(name) == (TRANSLATED, part)


def test_the_translated_tasks_are_of_the_translated_data_sets():
  """An earlier pipeline ran the translated mixture over the list of templated data sets."""
  assert set(catalog.TRANSLATED) - set(catalog.TEMPLATED) >= {'dolly', 'flan_cot', 'nqopen'}
  names = set(seqio.TaskRegistry.names())
  assert {f'{TRANSLATED}.{d}.yor' for d in catalog.TRANSLATED} <= names
  assert not {f'{TRANSLATED}.{d}' for d in set(catalog.TEMPLATED) - set(catalog.TRANSLATED)} & names
  codes = {n.rsplit('.', 1)[1] for n in names if n.startswith(f'{TRANSLATED}_pruned.dolly.')}
  assert len(codes) == 94 and codes <= set(aya101.BY_CODE)


def test_only_the_languages_asked_for(root):
  by_dataset(root)
  manifest = build(TRANSLATED, root, 'dolly', languages=('ara',))['dolly']
  assert {name.split('_')[1] for name in manifest['splits']} == {'ara'}
  assert manifest['report']['filtered'] == {'language not asked for': 32}


def test_the_evaluation_suite(root):
  def row(code, script, i, **more):
    return {
      'id': i,
      'inputs': f'{code} {i}?',
      'targets': 'x',
      'language': code,
      'script': script,
      **more,
    }

  shapes = {
    'aya_human_annotated': [row('arb', 'Arab', 1), row('tur', 'Latn', 1)],
    'dolly_human_edited': [row('srp', 'Cyrl', 1, source_id=6060)],
    'dolly_machine_translated': [
      row('zho', 'Hant', 1, source_id=6060),
      row('kas', 'Deva', 1, source_id=6060),
    ],
  }
  for config, rows in shapes.items():
    released.parquet(root / config / 'test-00000-of-00001.parquet', rows)
  build('aya_evaluation_suite', root)
  assert [
    r['language_code'] for r in rows_of('aya_evaluation_suite.aya_human_annotated.ara', 'test')
  ] == [b'ara']
  got = rows_of('aya_evaluation_suite.dolly_machine_translated', 'test')
  assert {(r['language_code'], r['script']) for r in got} == {(b'zho', b'Hant'), (b'kas', b'Deva')}
  assert {r['id'] for r in got} == {b'1'}
  assert seqio.get_mixture_or_task('aya_evaluation_suite.dolly_human_edited').splits == ('test',)

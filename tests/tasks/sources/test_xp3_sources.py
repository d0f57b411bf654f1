"""xP3x and xP3, from files named and written as their creation scripts do."""

import pytest
import seqio

import aya_train.tasks  # noqa: F401 - registers the tasks
from aya_train.data import prepare, task_registry
from aya_train.tasks import catalog, storage
from aya_train.tasks.building import row_units, source_build
from aya_train.tasks.languages import language_codes
from aya_train.tasks.sources import xp3x_templates
from tests.tasks import released


@pytest.fixture
def root(tmp_path, monkeypatch):
  monkeypatch.setenv(storage.CACHE_ENV, str(tmp_path / 'cache'))
  return tmp_path / 'release'


def build(source, root, **kwargs):
  options = row_units.Options(**kwargs)
  return source_build.build(source, root, options=options, progress=lambda line: None)['']


def rows_of(task, split='train'):
  source = seqio.get_mixture_or_task(task).source
  return list(source.get_dataset(split, shuffle=False).as_numpy_iterator())


def test_languages_datasets_and_splits(root):
  files = (
    ('swh_Latn', 'GEM/xlsum', 'swahili', 'train', 'docsummary'),
    ('swa_Latn', 'Helsinki-NLP/tatoeba_mt', 'eng-swa', 'test', 'translate'),
    ('swh_Latn', 'GEM/xlsum', 'swahili', 'validation', 'docsummary'),
    ('swh_Latn', 'facebook/flores', 'eng_Latn-swh_Latn', 'devtest', 'command-x-x'),
    ('swh_Latn', 'facebook/flores', 'eng_Latn-swh_Latn', 'dev', 'command-x-x'),
    ('swh_Latn', 'xcopa', 'sw', 'train', 'exercise'),
    ('eng_Latn', 'super_glue', 'copa', 'train', 'exercise'),
    ('eng_Latn', 'super_glue', 'boolq', 'train', 'after_reading'),
    ('ace_Latn', 'facebook/flores', 'eng_Latn-ace_Latn', 'dev', 'command-x-x'),
    ('code', 'Muennighoff/mbpp', 'sanitized', 'train', 'x'),
  )
  for file in files:
    released.prompted_file(root, *file, 3)
  (root / 'paths.json').write_text('{}')
  build('xp3x', root)
  got = {(r['dataset'].decode(), r['task_type'].decode()) for r in rows_of('xp3x.swa')}
  assert got == {
    ('GEM/xlsum', 'docsummary'),
    ('Helsinki-NLP/tatoeba_mt', 'translate'),
    ('facebook/flores', 'command-x-x'),
  }
  assert len(rows_of('xp3x.swa')) == 9
  assert {r['dataset'] for r in rows_of('xp3x.eng')} == {b'super_glue'}
  assert {r['inputs'].split()[1] for r in rows_of('xp3x')} & {
    b'xcopa',
    b'Muennighoff/mbpp',
  } == set()
  assert {r['language_code'] for r in rows_of('xp3x')} == {b'swa', b'eng'}


def test_the_rows_own_split_counts_and_not_the_file(root):
  rows = released.prompted('yor_Latn', 'GEM/xlsum', 'yoruba', 'train', 'tldr', 4)
  rows[2]['split'] = 'test'
  rows[3]['dataset'] = 'xnli'
  released.jsonl(root / 'data/yor_Latn/xp3_GEM_xlsum_yoruba_train_tldr.jsonl', rows)
  manifest = build('xp3x', root)
  assert len(rows_of('xp3x.yor')) == 2
  assert manifest['report']['filtered'] == {
    'validation or test split': 1,
    'evaluation data set': 1,
  }


def test_pruned_and_full(root):
  for template in ('article_summary_en', 'write_abstract_en', 'xp3longwritearticle'):
    released.prompted_file(root, 'fra_Latn', 'GEM/wiki_lingua', 'fr', 'train', template, 2)
  released.prompted_file(root, 'fra_Latn', 'Muennighoff/multi_eurlex', 'en-fr', 'train', 't', 2)
  build('xp3x', root)
  assert {r['task_type'] for r in rows_of('xp3x.fra')} == {
    b'article_summary_en',
    b'xp3longwritearticle',
  }
  assert len(rows_of('xp3x_full.fra')) == 8


def test_a_list_of_templates_replaces_the_published_one(root):
  for template in ('tldr', 'docsummary'):
    released.prompted_file(root, 'yor_Latn', 'GEM/xlsum', 'yoruba', 'train', template, 2)
  build('xp3x', root, templates=('# mine', 'GEM/xlsum\ttldr'))
  assert {r['task_type'] for r in rows_of('xp3x.yor')} == {b'tldr'}
  with pytest.raises(ValueError, match='line 1'):
    xp3x_templates.parse(('GEM/xlsum tldr',))


def test_a_folder_of_no_known_language_is_refused_by_name(root):
  released.prompted_file(root, 'zzz_Latn', 'GEM/xlsum', 'z', 'train', 'tldr', 2)
  with pytest.raises(language_codes.UnknownLanguageError, match='zzz_Latn'):
    build('xp3x', root)


def test_other_languages_can_be_asked_for(root):
  released.prompted_file(root, 'ace_Latn', 'facebook/flores', 'a', 'dev', 'command-x-x', 2)
  released.prompted_file(root, 'yor_Latn', 'GEM/xlsum', 'yoruba', 'train', 'tldr', 2)
  manifest = build('xp3x', root, languages=('ace',))
  assert list(manifest['splits']) == ['pruned_ace']


def test_duplicates_of_xp3x_go(root):
  rows = released.prompted('yor_Latn', 'GEM/xlsum', 'yoruba', 'train', 'tldr', 3) * 2
  released.jsonl(root / 'data/yor_Latn/xp3_GEM_xlsum_yoruba_train_tldr.jsonl', rows)
  build('xp3x', root)
  assert len(rows_of('xp3x.yor')) == 3


@pytest.mark.parametrize('name', ['xp3', 'xp3mt', 'xp3all'])
def test_xp3_takes_the_merged_file_or_its_parts(root, name):
  rows = [{'inputs': f'q{i}', 'targets': f'a{i}'} for i in range(4)]
  released.jsonl(root / 'sw/merged_sw.jsonl', rows)
  part = [{'inputs': 'of a part', 'targets': 'x'}]
  released.jsonl(root / 'sw/xp3_GEM_xlsum_swahili_train_tldr.jsonl', part)
  released.jsonl(root / 'fr/xp3_GEM_xlsum_french_train_tldr.jsonl', rows[:2])
  released.jsonl(root / 'ak/merged_ak.jsonl', rows[:1])
  released.jsonl(root / 'code/merged_code.jsonl', rows[:3])
  build(name, root)
  assert len(rows_of(f'{name}.swa')) == 4
  assert len(rows_of(f'{name}.fra')) == 2
  assert len(rows_of(f'{name}.zxx')) == 3
  assert len(rows_of(name)) == 10
  assert {r['dataset'] for r in rows_of(name)} == {name.encode()}


PAIRS = [{'inputs': f'q{i}', 'targets': f'a{i}'} for i in range(6)]


@pytest.mark.parametrize('packed', [True, False])
def test_p3_is_read_as_its_authors_release_it(root, packed):
  if packed:
    released.zipped(root / 'p31t0_train.zip', {'p31t0_train.jsonl': PAIRS[:4]})
  else:
    released.jsonl(root / 'p31t0_train.jsonl', PAIRS[:4])
  released.jsonl(root / 'p31t0_validation.jsonl', PAIRS[4:])
  build('p3', root)
  assert sorted(r['inputs'] for r in rows_of('p3')) == [b'q0', b'q1', b'q2', b'q3']
  assert sorted(r['targets'] for r in rows_of('p3', 'validation')) == [b'a4', b'a5']
  got = {(r['language_code'], r['script'], r['dataset']) for r in rows_of('p3')}
  assert got == {(b'eng', b'Latn', b'p3')}


def test_p3_takes_the_merged_file_once_or_those_of_its_tasks(root):
  released.zipped(root / 'p31t0_train.zip', {'p31t0_train.jsonl': PAIRS[:1]})
  released.jsonl(root / 'p31t0_train.jsonl', PAIRS[:4])  # the same, unpacked
  released.jsonl(root / 'p3_ag_news_classify_train.jsonl', PAIRS[:2])
  for task, rows in (('ag_news_classify', PAIRS[:1]), ('xsum_DOC_tldr', PAIRS[1:3])):
    released.jsonl(root / f'p3_{task}_validation.jsonl', rows)
  released.jsonl(root / 'p3_xsum_DOC_tldr_validation.jsonl.gz', PAIRS)
  build('p3', root)
  assert len(rows_of('p3')) == 4
  assert sorted(r['inputs'] for r in rows_of('p3', 'validation')) == [b'q0', b'q1', b'q2']


def test_mt0_p3_is_p3_alone():
  assert {p.name: p.percent for p in seqio.get_mixture_or_task('mt0_p3').parts} == {'p3': 100}


@pytest.mark.parametrize('name', ['xp3megds', 'xP3megds', 'xp3megds.eng'])
def test_token_ids_of_bloom_are_refused_and_xp3_named(root, name):
  sends = r'BLOOM.*`aya-train prepare xp3`'
  for refuses in (
    lambda: prepare.build_sources([name]),
    lambda: catalog.by_name(name),
    lambda: task_registry.get_mixture_or_task(name),
  ):
    with pytest.raises(ValueError, match=sends):
      refuses()


@pytest.mark.parametrize('source', ['xp3', 'xp3mt', 'xp3x'])
def test_a_folder_of_token_ids_says_what_it_is(root, source):
  root.mkdir()
  for ending in ('bin', 'idx'):
    (root / f'xp3_en_inputs_document.{ending}').write_bytes(b'MMIDIDX\0\0')
  with pytest.raises(FileNotFoundError, match=r'BLOOM.*got xp3_en_inputs_document\.idx'):
    build(source, root)

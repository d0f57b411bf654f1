import pytest

from aya_train.tasks.eval import flores_codes, sib200, translation_pairs
from aya_train.tasks.eval.row_columns import EvalDataError
from aya_train.tasks.languages import aya101
from tests.tasks.eval import benchmark_files

HEADER = 'index_id\tcategory\ttext\n'


def files(folder, **languages):
  for code, lines in languages.items():
    text = HEADER + ''.join(f'{line}\n' for line in lines)
    benchmark_files.write(folder, f'sib200/data/annotated/{code}/test.tsv', text)
  return folder


@pytest.mark.parametrize('language', ['swa', 'amh', 'sin', 'zul', 'eng'])
def test_topics_of_the_real_sentences(language):
  benchmark_files.need('sib200')
  rows = benchmark_files.rows(f'sib200.{language}.topic', 'validation')
  assert len(rows) == 99
  assert len({row['id'] for row in rows}) == 99
  assert {row['targets'] for row in rows} == {*sib200.CATEGORIES}
  assert all(row['references'] == [row['targets']] for row in rows)


def test_real_sentences_are_joined_by_their_ids():
  benchmark_files.need('sib200')
  rows = benchmark_files.rows('sib200.swa.translate.to_english', 'validation')
  row = next(row for row in rows if row['id'] == '548')
  assert row['inputs'].startswith('Translate the following text from Swahili to English.\n\nKwa ')
  assert row['references'][0].startswith('With the change from the quarter')
  back = benchmark_files.rows('sib200.swa.translate.from_english', 'validation')
  assert {(r['id'], r['targets']) for r in back} == {
    (r['id'], r['inputs'].partition('\n\n')[2]) for r in rows
  }


def test_every_real_language_joins_with_english():
  benchmark_files.need('sib200')
  there = {path.name for path in (benchmark_files.SHARED / 'sib200').glob('*_*')}
  languages = [
    language
    for language, code in flores_codes.AYA.items()
    if code in there and code != flores_codes.ENGLISH
  ]
  assert len(languages) > 90
  with benchmark_files.in_force(benchmark_files.SHARED):
    for language in languages:
      code = flores_codes.AYA[language]
      pairs = list(sib200.read_pairs('validation', code, translation_pairs.TO_ENGLISH))
      assert len(pairs) == 99
      assert pairs[0].columns['source_name'] == aya101.by_code(language).name


def test_the_order_of_rows_does_not_matter(tmp_path):
  files(
    tmp_path,
    eng_Latn=['1\ttravel\tOne', '2\tsports\tTwo'],
    yor_Latn=['2\tsports\tMeji', '1\ttravel\tOkan'],
  )
  rows = benchmark_files.rows('sib200.yor.translate.to_english', 'test', tmp_path)
  assert [(row['id'], row['references']) for row in rows] == [('2', ['Two']), ('1', ['One'])]


@pytest.mark.parametrize(
  ('yoruba', 'problem'),
  [
    (['1\ttravel\tOkan'], r'eng_Latn/test\.tsv has 2: 1 of its rows have no translation: 2'),
    (['1\ttravel\tOkan', '1\ttravel\tEji'], r"row 2: index_id '1' is that of .* row 1 too"),
    (['1\ttourism\tOkan', '2\tsports\tMeji'], r"row 1: expected a category among .*'tourism'"),
    (['1\ttravel\t ', '2\tsports\tMeji'], r"row 1: expected text in 'text'"),
  ],
)
def test_bad_rows_are_told_with_their_place(tmp_path, yoruba, problem):
  files(tmp_path, eng_Latn=['1\ttravel\tOne', '2\tsports\tTwo'], yor_Latn=yoruba)
  with pytest.raises(EvalDataError, match=problem):
    benchmark_files.rows('sib200.yor.translate.to_english', 'test', tmp_path)


def test_a_language_that_is_not_there():
  benchmark_files.need('sib200')
  with pytest.raises(FileNotFoundError, match=r'nothing of zho_Hant. There are afr_Latn/dev\.tsv'):
    benchmark_files.rows('sib200.zho_Hant.topic', 'validation')

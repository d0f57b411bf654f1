import json
import pathlib
import statistics

import pytest

from aya_train.report import published_figures
from aya_train.tasks.languages import aya101

NOTEBOOK = pathlib.Path(__file__).parents[3] / 'shared/data/xmtf_results/allres.ipynb'


def printed_rows():
  """Rows of the notebook's table as it prints them: the head first."""
  cell = json.loads(NOTEBOOK.read_text())['cells'][4]
  lines = ''.join(cell['outputs'][0]['text']).splitlines()
  rows = [
    [part.strip().replace('\\_', '_') for part in line.strip().removesuffix('\\\\').split(' & ')]
    for line in lines
    if ' & ' in line
  ]
  head = next(k for k, row in enumerate(rows) if row[0] == 'Task')
  return rows[head:]


@pytest.mark.skipif(not NOTEBOOK.exists(), reason='needs ../shared/data/xmtf_results')
def test_the_file_is_the_notebook_digit_for_digit():
  head, *rows = printed_rows()
  ours = published_figures.by_language()
  assert head[6:] == published_figures.models() and len(head[6:]) == 27
  assert len(ours) == len(rows) > 200
  for row, printed in zip(ours, rows, strict=True):
    keys = (row.benchmark, row.config, row.split, row.prompts, row.metric)
    assert (*keys, *row.values.values()) == tuple(printed[1:])


# Means of medians, rounded, as they are known from the notebook.
MEANS = {
  'mT0-300M': (52.55, 34.35, 51.74, 50.62),
  'mT0-560M': (53.09, 40.14, 53.07, 51.10),
  'mT0-1.2B': (55.27, 40.15, 53.59, 51.78),
  'mT0-3.7B': (59.18, 49.91, 67.68, 57.34),
  'mT0-13B': (77.55, 57.89, 87.47, 74.52),
  'mT0-13B-MT': (76.91, 58.20, 87.63, 76.40),
  'mT0-13B-P3': (75.27, 55.85, 89.21, 57.81),
  'BLOOMZ': (64.36, 52.01, 82.68, 63.39),
  'mTk-13B': (50.82, 34.81, 49.84, 54.80),
}
BENCHMARKS = ('xcopa', 'xnli', 'xstory_cloze', 'xwinograd')


@pytest.mark.parametrize('model', MEANS)
def test_means_over_languages(model):
  tables = [published_figures.languages_of(benchmark) for benchmark in BENCHMARKS]
  means = [
    round(published_figures.mean_of(benchmark, model, table), 2)
    for benchmark, table in zip(BENCHMARKS, tables, strict=True)
  ]
  assert means == pytest.approx(MEANS[model], abs=0.006)


def test_languages_are_of_the_tables_of_languages():
  tables = {b: published_figures.languages_of(b) for b in BENCHMARKS}
  assert [len(table) for table in tables.values()] == [11, 15, 10, 6]
  for benchmark, table in tables.items():
    assert set(table) == set(published_figures.ROWS[benchmark])
    assert all(code in aya101.BY_CODE or code == 'que' for code in table)


def test_shares_are_of_as_many_rows_as_we_say():
  for row in published_figures.by_language():
    count = published_figures.ROWS.get(row.benchmark, {}).get(row.language)
    if count is None or row.statistic is None:
      continue
    for value in row.values.values():
      if value != published_figures.ABSENT:
        hits = round(float(value) / 100 * count)
        assert f'{100 * hits / count:.2f}' == value, (row.benchmark, row.config, value, count)


def test_a_maximum_is_no_less_than_the_median():
  for benchmark in BENCHMARKS:
    medians = published_figures.languages_of(benchmark)
    maxima = published_figures.languages_of(benchmark, 'max')
    for language, values in medians.items():
      for model, value in values.items():
        assert float(maxima[language][model]) >= float(value)


@pytest.mark.parametrize(
  ('model', 'printed'),
  [
    ('mT0', 72.9),
    ('BLOOMZ', 65.5),
    ('Bactrian-X', 47.3),
    ('mT0x', 65.8),
    ('Aya human heavy', 73.9),
    ('Aya template heavy', 75.1),
    ('Aya', 73.9),
    ('Aya Safe', 71.5),
  ],
)
def test_means_of_the_paper_follow_from_its_table(model, printed):
  values = [
    float(row.value)
    for benchmark in BENCHMARKS
    for row in published_figures.paper_rows(benchmark, metric='accuracy')
    if row.model == model
  ]
  assert len(values) == 4 and statistics.fmean(values) == pytest.approx(printed, abs=0.051)


def test_sources_are_named():
  source = ' '.join(published_figures.source(published_figures.XMTF))
  for part in ('bigscience-workshop/xmtf', '5caa1b12005601192092fe8639488e6c36b6d5d6'):
    assert part in source
  assert 'License: Apache-2.0' in source and 'allres.ipynb' in source
  assert '2402.07827' in ' '.join(published_figures.source(published_figures.AYA))


@pytest.mark.parametrize(
  ('name', 'known'),
  [
    ('FLORES-200', 'flores'),
    ('tydiqa_goldp', 'tydiqa'),
    ('XStoryCloze', 'xstory_cloze'),
    ('xcopa', 'xcopa'),
    ('global_mmlu', 'global_mmlu'),
    ('my_own', 'my_own'),
  ],
)
def test_benchmarks_have_several_names(name, known):
  assert published_figures.known_as(name) == known


def test_a_mean_needs_every_language():
  assert published_figures.mean_of('xcopa', 'mT0-13B', ['est', 'eng']) is None
  assert published_figures.mean_of('xcopa', 'mT0-13B', []) is None
  assert published_figures.languages_of('belebele') == {}

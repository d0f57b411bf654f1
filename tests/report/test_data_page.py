import pytest

from aya_train.data import row_counts
from aya_train.report import data_page, plots
from aya_train.tasks.cldr import cldr_rows


def kind(code, task_type='t'):
  return row_counts.Kind(code, '', '', task_type)


def test_shares_are_of_the_draws_not_of_the_rows():
  shares = {'a': 0.75, 'b': 0.25}
  kinds = {'a': {kind('yor'): 1, kind('eng'): 3}, 'b': {kind('eng'): 1_000}}
  found = data_page.by(shares, kinds, lambda task, k: k.language_code)
  assert [(s.name, s.percent, s.examples) for s in found] == [
    ('eng', pytest.approx(75 * 3 / 4 + 25), 1_003),
    ('yor', pytest.approx(75 / 4), 1),
  ]
  assert sum(s.percent for s in found) == pytest.approx(100)


class Task:
  def __init__(self, lengths):
    self.manifest = self
    self.lengths = {'targets': lengths}

  def __len__(self):
    return sum(self.lengths['targets'].values())


def test_lengths_are_weighted_by_the_draws():
  tasks = {'short': Task({2: 1_000}), 'long': Task({100: 1, 300: 1})}
  found = data_page.length_summary('targets', {'short': 0.5, 'long': 0.5}, tasks, limit=200)
  assert found.mean == pytest.approx(0.5 * 2 + 0.25 * 100 + 0.25 * 300)
  assert found.percentiles == {10: 2, 50: 2, 90: 300, 99: 300}
  assert (found.longest, found.cut) == (300, pytest.approx(25))


def test_the_histogram_has_all_of_the_draws():
  chart = plots.histogram('Tokens', {1: 0.25, 2: 0.25, 3: 0.25, 64: 0.25}, limit=32)
  assert chart.svg.startswith('<svg role="img"')


def test_the_page_of_a_real_mixture(cache, tmp_path):
  lengths = {'inputs': 128, 'targets': 64}
  path = data_page.write(
    'cldr_languages_few', tmp_path / 'page.html', lengths=lengths, budget=1_000
  )
  page = path.read_text()
  for text in ('Yoruba (yor)', 'Hebrew', 'Unicode License v3', 'low resource', 'dir="auto"'):
    assert text in page
  assert any(name in page for name in cldr_rows.KINDS)


def test_scripts_beyond_those_of_cldr_are_named_too():
  names = [data_page._script(code) for code in ('Ethi', 'Hans', 'Qaaa', '')]
  assert names == ["Ge'ez", 'Simplified Han', 'Qaaa', 'not stated']


def test_samples_are_of_two_tasks_a_script_and_read_what_is_promised(cache, monkeypatch):
  read = []
  rows = data_page._rows
  monkeypatch.setattr(data_page, '_rows', lambda *args: read.append(args[0].name) or rows(*args))
  promised = {
    f'cldr.{code}': {row_counts.Kind(code, script, '', ''): 1}
    for code, script in (('yor', 'Latn'), ('swa', 'Latn'), ('fra', 'Latn'), ('heb', 'Hebr'))
  }
  found = data_page.samples(promised, 'train')
  assert [s.task for s in found] == ['cldr.heb', 'cldr.yor', 'cldr.swa']
  assert read == ['cldr.yor', 'cldr.swa', 'cldr.heb']  # a third of Latin script is not needed


@pytest.fixture(autouse=True)
def few_languages():
  import seqio

  name = 'cldr_languages_few'
  seqio.MixtureRegistry.remove(name)
  seqio.MixtureRegistry.add(name, ['cldr.yor', 'cldr.heb', 'cldr.amh'], default_rate=1.0)
  yield
  seqio.MixtureRegistry.remove(name)

import errno
import re

import pytest
import seqio
from etils import epath

from aya_train.annotation import batches
from aya_train.data import batching, row_counts
from aya_train.report import data_page, plots
from aya_train.tasks.cldr import cldr_rows
from aya_train.tasks.mixtures import source_mixture
from aya_train.tasks.sources import xp3x_templates
from tests import seqio_tasks
from tests.annotation import test_exports


def _bytes(content):
  return content.encode() if isinstance(content, str) else content


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
  rows = [batches.DataRow('cldr', 'cldr.yor', 'yor', f'p{i}', 'kitten') for i in range(4)]
  done = test_exports.page_export(batches.data_items(rows, 0), ['approved'] * 3 + ['skipped'])
  done['annotations'][0]['edited_answer'] = 'sitting'
  annotations = [test_exports.write(tmp_path / 'ada.json', done)]
  path = data_page.write(
    'cldr_languages_few',
    tmp_path / 'page.html',
    lengths=lengths,
    budget=1_000,
    annotations=annotations,
  )
  page = path.read_text()
  rated = '<td class="n">4</td><td class="n">1</td><td class="n">66.7 % <small>21 to 94</small>'
  assert page.count(f'{rated}</td><td class="n">1</td><td class="n">3.0</td>') == 4
  for text in ('Yoruba (yor)', 'Hebrew', 'Unicode License v3', 'low resource', 'dir="auto"'):
    assert text in page
  assert any(name in page for name in cldr_rows.KINDS)


def test_a_page_that_a_full_disk_cannot_take_leaves_the_earlier_one(cache, tmp_path, monkeypatch):
  def half(place, content, *args, **kwargs):
    with open(place, 'wb') as file:
      file.write(b'<' if 'page.html' in place.name else _bytes(content))
    if 'page.html' in place.name:
      raise OSError(errno.ENOSPC, 'No space left on device')

  path = tmp_path / 'page.html'
  path.write_text('earlier')
  monkeypatch.setattr(type(epath.Path(path)), 'write_bytes', half)
  monkeypatch.setattr(type(epath.Path(path)), 'write_text', half)
  with pytest.raises(OSError, match=r'page\.html'):
    data_page.write('cldr_languages_few', path, lengths={'inputs': 128, 'targets': 64}, budget=9)
  assert [each.name for each in tmp_path.iterdir()] == ['page.html']
  assert path.read_text() == 'earlier'


def test_scripts_beyond_those_of_cldr_are_named_too():
  names = [data_page._script(code) for code in ('Ethi', 'Hans', 'Qaaa', '')]
  assert names == ["Ge'ez", 'Simplified Han', 'Qaaa', 'not stated']


@pytest.mark.parametrize(
  ('task', 'dataset', 'released', 'told'),
  [
    ('xp3x', 'GEM/xlsum', 'xp3longimaginearticle', 'summarization'),
    ('xp3x.yor', 'facebook/flores', 'command-x-x', 'translation'),
    ('xp3x_full', 'Muennighoff/multi_eurlex', 'version-en-yo', 'translation'),
    ('xp3x_full', 'khalidalt/tydiqa-goldp', 'en_based_on', 'extractive question answering'),
    ('xp3x', 'Some/new_set', 'a_template', 'other'),
    ('aya_collection_templated', 'soda', 'Question-Answering', 'question_answering'),
    ('aya_dataset', 'aya_dataset', 're-annotations', 'any, edited by annotators'),
    ('p3', 'p3', '', 'not stated'),
  ],
)
def test_task_types_are_what_rows_ask_for_and_not_names_of_templates(task, dataset, released, told):
  assert data_page._task_type(task, row_counts.Kind('yor', 'Latn', dataset, released)) == told


def test_every_data_set_that_the_pruned_xp3x_keeps_has_a_task():
  kept = {*xp3x_templates.KEPT_TEMPLATES, *xp3x_templates.TRAINED_SPLITS}
  kept |= xp3x_templates.DROPPED_WHEN_PRUNED
  assert 'other' not in {xp3x_templates.task_of(dataset) for dataset in kept}


def test_lines_end_between_words_only():
  plain = lambda name: re.sub('<[^>]*>', '', data_page._breakable(name))
  for name in ('CC BY-NC-SA 4.0 + Custom', 'aya_collection_translated_pruned.dolly', 'a <b> c'):
    assert plain(name) == name.replace('<', '&lt;').replace('>', '&gt;')
  assert data_page._breakable('CC BY-NC 4.0') == 'CC <span class="word">BY-NC</span> 4.0'
  assert data_page._breakable('aya_collection_translated.v1.0') == (
    'aya_<wbr>collection_<wbr>translated.<wbr>v1.0'
  )
  assert 'anywhere' not in re.search(r'<style>.*?\.wide', _template(), re.DOTALL)[0]


def _template():
  loader = data_page._environment().loader
  return loader.get_source(None, 'data.html.jinja')[0]


def lacking(split, shuffle_files=False):
  raise FileNotFoundError('not built')


class LackingSource(seqio.FunctionDataSource):
  def list_shards(self, split):
    raise FileNotFoundError('lacking is not built')


@pytest.fixture
def with_gaps():
  """A mixture of a whole source, one with a data set missing and one empty, and a missing one."""
  seqio_tasks.add_task('whole', {'train': [('ab', 'cd')] * 4})
  seqio_tasks.add_task('gaps.a', {'train': [('ab', 'cd')] * 3, 'validation': [('e', 'f')]})
  seqio_tasks.add_task('gaps.b', {'train': []})
  feature = seqio.Feature(seqio_tasks.VOCABULARY, add_eos=True)
  for name in ('gaps.c', 'gone'):
    seqio.TaskRegistry.remove(name)
    seqio.TaskRegistry.add(
      name,
      source=LackingSource(lacking, splits=['train']),
      preprocessors=list(seqio_tasks.APPEND_EOS),
      output_features={'inputs': feature, 'targets': feature},
      metric_fns=[],
    )
  seqio.MixtureRegistry.remove('with_gaps')
  parts = [('whole', 50, ()), ('gaps', 30, ('gaps.a', 'gaps.b', 'gaps.c')), ('gone', 20, ())]
  source_mixture.add('with_gaps', [source_mixture.Part(*part) for part in parts])
  source_mixture.configure(source_mixture.MixtureSettings(missing_sources='renormalise'))
  yield 'with_gaps'
  source_mixture.configure(source_mixture.MixtureSettings())
  seqio.MixtureRegistry.remove('with_gaps')


def test_the_page_names_what_is_missing(with_gaps, tmp_path):
  page = data_page.write(
    with_gaps,
    tmp_path / 'page.html',
    prepared_dir=str(tmp_path / 'prepared'),
    lengths={'inputs': 8, 'targets': 8},
    budget=100,
  ).read_text()
  for text in ('Sources that are not built (1)', 'gone (20 %)', 'Not built (1)', 'gaps.c'):
    assert text in page
  assert re.search(r'No rows in .{0,5}train.{0,5} \(1\)</dt>\s*<dd>gaps\.b', page)
  for source, percent in (('whole', 62.5), ('gaps.a', 37.5)):
    assert re.search(rf'<td>{source}</td><td class="n">{percent:.2f} %', page)


def test_nothing_is_said_to_be_left_out_of_what_is_whole(cache, tmp_path):
  page = data_page.write('cldr_languages_few', tmp_path / 'p.html', lengths={'inputs': 64})
  assert 'Left out' not in page.read_text()
  cfg = batching.DatasetConfig('cldr_languages_few', {'inputs': 64}, 'train', 8, seed=0)
  assert data_page.left_out(cfg, batching.prepared_tasks(cfg)) == {}


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
  name = 'cldr_languages_few'
  seqio.MixtureRegistry.remove(name)
  seqio.MixtureRegistry.add(name, ['cldr.yor', 'cldr.heb', 'cldr.amh'], default_rate=1.0)
  yield
  seqio.MixtureRegistry.remove(name)

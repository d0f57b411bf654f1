import collections

import numpy as np
import pytest
import seqio
import tensorflow as tf

from aya_train import hosts, preflight
from aya_train.data import availability, batching, mixing, row_counts, task_registry
from aya_train.tasks.mixtures import source_mixture
from tests import seqio_tasks

LENGTHS = {'inputs': 16, 'targets': 16}
DRAWS = 100_000


def pairs(language, count):
  return [(f'{language}{i}', 'x') for i in range(count)]


def absent(split, shuffle_files=False):
  raise FileNotFoundError('not built')


class AbsentSource(seqio.FunctionDataSource):
  def list_shards(self, split):
    raise FileNotFoundError('that is not built; run `aya-train prepare that`')


@pytest.fixture
def mixture():
  """Two sources: one with data sets of two languages each, one without data sets."""
  seqio_tasks.add_task('standin.a', {'train': pairs('yor', 30) + pairs('eng', 10)})
  seqio_tasks.add_task('standin.b', {'train': pairs('yor', 20)})
  seqio_tasks.add_task('whole', {'train': pairs('swa', 5) + pairs('zul', 15)})
  feature = seqio.Feature(vocabulary=seqio_tasks.VOCABULARY, add_eos=True)
  seqio.TaskRegistry.remove('lacking')
  seqio.TaskRegistry.add(
    'lacking',
    source=AbsentSource(absent, splits=['train']),
    preprocessors=list(seqio_tasks.APPEND_EOS),
    output_features={'inputs': feature, 'targets': feature},
    metric_fns=[],
  )

  def add(*parts):
    seqio.MixtureRegistry.remove('standin')
    return source_mixture.add('standin', parts)

  yield add
  source_mixture.configure(source_mixture.MixtureSettings())


STANDIN = source_mixture.Part('standin', 70, ('standin.a', 'standin.b'))
WHOLE = source_mixture.Part('whole', 30)


def language(example):
  return (example['inputs'][:3] - 3).astype(np.uint8).tobytes().decode()


def measured(directory):
  """Share of each language in the draws over prepared tasks, in the order that training takes."""
  tasks = availability.ensure_prepared('standin', 'train', directory)
  rates = mixing.mixing_rates(seqio.get_mixture_or_task('standin'), tasks)
  rows = [[language(tasks[name][i]) for i in range(len(tasks[name]))] for name in rates]
  selection = mixing.ProportionalSelection(rates.values())
  drawn = collections.Counter()
  for k in range(DRAWS):
    task, element = selection[k]
    drawn[rows[task][element % len(rows[task])]] += 1
  return {name: count / DRAWS for name, count in drawn.items()}


EXPECTED = {'yor': 0.7 * 50 / 60, 'eng': 0.7 * 10 / 60, 'swa': 0.3 * 5 / 20, 'zul': 0.3 * 15 / 20}


def test_measured_shares_of_languages_are_those_of_the_weights_and_rows(mixture, tmp_path):
  mixture(STANDIN, WHOLE)
  assert measured(tmp_path) == pytest.approx(EXPECTED, abs=0.002)


def test_batches_have_these_shares(mixture, tmp_path):
  mixture(STANDIN, WHOLE)
  cfg = batching.DatasetConfig(
    'standin', LENGTHS, 'train', 250, seed=3, pack=False, prepared_dir=tmp_path
  )
  iterator = batching.train_iterator(cfg)
  batches = [next(iterator)['encoder_input_tokens'] for _ in range(4)]
  drawn = collections.Counter(language({'inputs': row}) for batch in batches for row in batch)
  assert {k: v / 1_000 for k, v in drawn.items()} == pytest.approx(EXPECTED, abs=0.05)


def test_what_is_missing_is_refused_before_anything_is_prepared(mixture, tmp_path):
  mixture(STANDIN, source_mixture.Part('lacking', 30))
  with pytest.raises(FileNotFoundError, match=r'not built: lacking \(30 %\).*prepare that'):
    availability.ensure_prepared('standin', 'train', tmp_path)
  assert not list(tmp_path.iterdir())


def test_on_request_the_others_fill_the_place(mixture, tmp_path):
  made = mixture(STANDIN, source_mixture.Part('lacking', 30))
  source_mixture.configure(source_mixture.MixtureSettings(missing_sources='renormalise'))
  assert measured(tmp_path) == pytest.approx({'yor': 50 / 60, 'eng': 10 / 60}, abs=0.002)
  found = availability.tasks('standin', 'train', tmp_path)
  assert [t.name for t in found] == ['standin.a', 'standin.b']
  assert [t.name for t in made.tasks] == ['lacking', 'standin.a', 'standin.b']


def test_a_prepared_task_needs_no_source(mixture, tmp_path, monkeypatch):
  mixture(STANDIN, WHOLE)
  availability.ensure_prepared('standin', 'train', tmp_path)
  monkeypatch.setattr(seqio.FunctionDataSource, 'list_shards', lambda self, split: absent(split))
  assert availability.check('standin', 'train', tmp_path).tasks == ()


def test_other_hosts_take_what_the_first_has_prepared(mixture, tmp_path):
  mixture(STANDIN, source_mixture.Part('lacking', 30))
  source_mixture.configure(source_mixture.MixtureSettings(missing_sources='renormalise'))
  waited = []

  def first_host_meanwhile(name):
    waited.append(name)
    availability.ensure_prepared('standin', 'train', tmp_path)

  tasks = availability.ensure_prepared(
    'standin', 'train', tmp_path, host=hosts.Host(1, 2, barrier=first_host_meanwhile)
  )
  assert sorted(tasks) == ['standin.a', 'standin.b']
  assert len(waited) == 1


def test_a_source_that_is_built_and_empty_is_named_with_its_share(mixture, tmp_path, caplog):
  availability._warn_once.cache_clear()
  seqio_tasks.add_task('whole', {'train': []})
  mixture(STANDIN, WHOLE)
  found = availability.survey('standin', 'train', tmp_path, allow_empty=False)
  assert found.tasks == ('standin.a', 'standin.b')
  assert 'no rows at all of whole (30 %)' in caplog.text


def long_ones(mixture, rows):
  """The mixture with a part of long rows beside each source, as `*_long_answers` has."""
  for name, long_rows in rows.items():
    seqio_tasks.add_task(name, {'train': long_rows})
  datasets = ('standin.long.a', 'standin.long.b')
  return mixture(
    source_mixture.Part('standin', 17.5, STANDIN.datasets),
    source_mixture.Part('standin.long', 52.5, datasets, variant='long'),
    source_mixture.Part('whole', 7.5),
    source_mixture.Part('whole.long', 22.5, variant='long'),
  )


def test_a_source_without_a_long_row_is_refused_or_keeps_its_weight(mixture, tmp_path, caplog):
  availability._warn_once.cache_clear()
  rows = {'standin.long.a': pairs('yor', 8), 'standin.long.b': [], 'whole.long': []}
  long_ones(mixture, rows)
  with pytest.raises(ValueError, match=r"no row to train on of whole\.long\..*'renormalise'"):
    availability.ensure_prepared('standin', 'train', tmp_path)
  source_mixture.configure(source_mixture.MixtureSettings(missing_sources='renormalise'))
  assert measured(tmp_path) == pytest.approx(
    {
      'yor': 0.175 * 50 / 60 + 0.525,
      'eng': 0.175 * 10 / 60,
      'swa': EXPECTED['swa'],
      'zul': EXPECTED['zul'],
    },
    abs=0.002,
  )
  assert "no row to train on of whole.long; their weights are drawn from the sources'" in (
    caplog.text
  )


def test_a_split_that_lacks_a_source_says_nothing_about_another(mixture, tmp_path):
  """What was looked at last is not remembered by the mixture."""
  seqio_tasks.add_task('whole', {'train': pairs('swa', 4), 'validation': []})
  seqio_tasks.add_task('standin.a', {'train': pairs('yor', 4), 'validation': pairs('eng', 3)})
  mixture(STANDIN, WHOLE)
  assert [*availability.ensure_prepared('standin', 'validation', tmp_path)] == ['standin.a']
  rates = mixing.mixing_rates(
    seqio.get_mixture_or_task('standin'),
    availability.ensure_prepared('standin', 'train', tmp_path),
  )
  assert rates['whole'] == pytest.approx(30)


def test_without_data_to_validate_on_a_split_is_empty_and_training_goes_on(mixture, tmp_path):
  seqio.TaskRegistry.get('lacking')._source = AbsentSource(absent, splits=['train', 'validation'])
  made = mixture(STANDIN, source_mixture.Part('lacking', 30))
  with pytest.raises(FileNotFoundError, match='lacking'):
    availability.survey('standin', 'validation', tmp_path, allow_empty=True)
  source_mixture.configure(source_mixture.MixtureSettings(missing_sources='renormalise'))
  for split_is_empty in (
    lambda: availability.survey('standin', 'validation', tmp_path, allow_empty=True),
    lambda: availability.tasks('standin', 'validation', tmp_path),
    lambda: availability.ensure_prepared('standin', 'validation', tmp_path, allow_empty=True),
  ):
    with pytest.raises(task_registry.EmptySplitError, match=r"split 'validation'.*lacking"):
      split_is_empty()
  train, validation = (
    batching.DatasetConfig('standin', LENGTHS, split, 8, seed=0, prepared_dir=tmp_path, pack=False)
    for split in ('train', 'validation')
  )
  assert preflight.check_validation(train, validation) is None
  assert sorted(availability.ensure_prepared('standin', 'train', tmp_path)) == [
    'standin.a',
    'standin.b',
  ]
  assert len(made.tasks) == 3


def test_kinds_are_counted_while_rows_are_prepared(mixture, tmp_path, monkeypatch):
  rows = [('a', 'x', 'yor', ''), ('b', 'y', 'zho', 'Hant'), ('c', 'z', 'yor', '')]
  names = ('inputs', 'targets', 'language_code', 'script')

  def told(split, shuffle_files, seed=None):
    columns = zip(*rows, strict=True)
    return tf.data.Dataset.from_tensor_slices(dict(zip(names, map(list, columns), strict=True)))

  feature = seqio.Feature(seqio_tasks.VOCABULARY)
  seqio.TaskRegistry.remove('told')
  task = seqio.TaskRegistry.add(
    'told',
    source=seqio.FunctionDataSource(told, splits=['train']),
    preprocessors=list(seqio_tasks.APPEND_EOS),
    output_features={'inputs': feature, 'targets': feature},
    metric_fns=[],
  )
  ready = availability.ensure_prepared('told', 'train', tmp_path)['told']
  monkeypatch.setattr(seqio.FunctionDataSource, 'get_dataset', absent)  # nothing is read again
  assert row_counts.of_task(task, 'train', ready) == {
    row_counts.Kind('yor', 'Latn', '', ''): 2,
    row_counts.Kind('zho', 'Hant', '', ''): 1,
  }
  seqio.TaskRegistry.remove('told')

import collections

import pytest
import seqio

from aya_train import data, mixture_data
from aya_train.tasks import source_mixture
from tests import seqio_tasks

LENGTHS = {'inputs': 16, 'targets': 16}
DRAWS = 100_000


def pairs(language, count):
  return [(f'{language}{i}', 'x') for i in range(count)]


def absent(split, shuffle_files):
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
  source_mixture.configure(source_mixture.Settings())


STANDIN = source_mixture.Part('standin', 70, ('standin.a', 'standin.b'))
WHOLE = source_mixture.Part('whole', 30)


def measured(directory):
  """Draws by language, read from the batches that training gets."""
  cfg = data.DatasetConfig(
    'standin', LENGTHS, 'train', 1_000, seed=3, pack=False, prepared_dir=directory
  )
  drawn = collections.Counter()
  iterator = data.train_iterator(cfg)
  for _ in range(DRAWS // 1_000):
    for row in next(iterator)['encoder_input_tokens']:
      drawn[bytes(row[:3] - 3).decode()] += 1
  return drawn


def test_measured_shares_of_languages_are_those_of_the_weights_and_rows(mixture, tmp_path):
  mixture(STANDIN, WHOLE)
  drawn = measured(tmp_path)
  expected = {'yor': 0.7 * 50 / 60, 'eng': 0.7 * 10 / 60, 'swa': 0.3 * 5 / 20, 'zul': 0.3 * 15 / 20}
  assert {k: v / DRAWS for k, v in drawn.items()} == pytest.approx(expected, abs=0.002)


def test_what_is_missing_is_refused_before_anything_is_prepared(mixture, tmp_path):
  mixture(STANDIN, source_mixture.Part('lacking', 30))
  with pytest.raises(FileNotFoundError, match=r'not built: lacking \(30 %\).*prepare that'):
    mixture_data.ensure_prepared('standin', 'train', tmp_path)
  assert not list(tmp_path.iterdir())


def test_on_request_the_others_fill_the_place(mixture, tmp_path):
  made = mixture(STANDIN, source_mixture.Part('lacking', 30))
  source_mixture.configure(source_mixture.Settings(missing_sources='renormalise'))
  drawn = measured(tmp_path)
  expected = {'yor': 50 / 60, 'eng': 10 / 60}
  assert {k: v / DRAWS for k, v in drawn.items()} == pytest.approx(expected, abs=0.002)
  assert [t.name for t in made.tasks] == ['standin.a', 'standin.b']


def test_a_prepared_task_needs_no_source(mixture, tmp_path):
  mixture(STANDIN, WHOLE)
  mixture_data.ensure_prepared('standin', 'train', tmp_path)
  seqio.TaskRegistry.get('whole').source.list_shards = absent
  assert mixture_data.check('standin', 'train', tmp_path).tasks == ()


def test_other_hosts_take_what_the_first_has_prepared(mixture, tmp_path):
  mixture(STANDIN, source_mixture.Part('lacking', 30))
  source_mixture.configure(source_mixture.Settings(missing_sources='renormalise'))
  waited = []

  def first_host_meanwhile(name):
    waited.append(name)
    mixture_data.ensure_prepared('standin', 'train', tmp_path)

  tasks = mixture_data.ensure_prepared(
    'standin', 'train', tmp_path, process_index=1, process_count=2, barrier=first_host_meanwhile
  )
  assert sorted(tasks) == ['standin.a', 'standin.b']
  assert len(waited) == 1

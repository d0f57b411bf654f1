"""Tasks of built sources run under SeqIO alone, and through the command line."""

import pytest
import seqio

from aya_train.cli import main
from aya_train.data import batching, prepare, prepared
from aya_train.tasks import catalog, storage
from tests.tasks import released

LENGTHS = {'inputs': 64, 'targets': 32}


@pytest.fixture
def root(tmp_path, cache, monkeypatch):
  """A release of two languages, and a cache of its own beside the session's vocabulary."""
  monkeypatch.setenv('AYA_TRAIN_VOCABULARY', str(next((cache / 'vocabularies').glob('*.model'))))
  monkeypatch.setenv(storage.CACHE_ENV, str(tmp_path / 'cache'))
  for i, (code, name) in enumerate((('yor', 'Yoruba'), ('som', 'Somali'))):
    path = tmp_path / 'release/data' / f'train-{i:05d}-of-00002.parquet'
    released.parquet(path, released.annotated(code, name, 30))
  return tmp_path / 'release'


def run(*arguments):
  return main.main(['prepare', '--workers', '1', *map(str, arguments)])


def test_prepare_then_plain_seqio(root):
  assert run('aya_dataset', '--data_dir', root) == 0
  task = seqio.get_mixture_or_task('aya_dataset.yor')
  examples = list(task.get_dataset(LENGTHS, split='train', shuffle=False).as_numpy_iterator())
  assert len(examples) == 30
  first = examples[0]
  assert first['inputs_pretokenized'] == b'Yoruba 0?'
  assert first['inputs'][-1] == 1 and first['targets'][-1] == 1
  assert (first['language_code'], first['dataset']) == (b'yor', b'aya_dataset')
  assert first['task_type'] == b'original-annotations'


def test_shuffled_reading_is_the_seeds_and_mixes_languages(root):
  run('aya_dataset', '--data_dir', root, '--num_shards', 3)
  source = seqio.get_mixture_or_task('aya_dataset').source

  def codes(seed):
    ds = source.get_dataset('train', shuffle=True, seed=seed)
    return [e['inputs'] for e in ds.as_numpy_iterator()]

  assert codes(1) == codes(1) != codes(2)
  assert {x.split()[0] for x in codes(1)[:10]} == {b'Yoruba', b'Somali'}


def test_a_set_that_is_not_built_says_what_to_run(root):
  with pytest.raises(FileNotFoundError, match='aya-train prepare aya_dataset'):
    seqio.get_mixture_or_task('aya_dataset.yor').get_dataset(LENGTHS, split='train')


def test_seqios_own_data_directory_is_used(root, tmp_path):
  run('aya_dataset', '--data_dir', root, '--output_dir', tmp_path / 'elsewhere')
  source = seqio.get_mixture_or_task('aya_dataset.som').source
  with pytest.raises(FileNotFoundError):
    source.num_input_examples('train')
  seqio.set_tfds_data_dir_override(str(tmp_path / 'elsewhere'))
  try:
    assert source.num_input_examples('train') == 30
  finally:
    seqio.set_tfds_data_dir_override(None)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['aya_datasett'], "unknown sources ['aya_datasett']"),
    (['data_provenance.nothing'], "unknown sources ['data_provenance.nothing']"),
    (['aya_dataset', 'xp3', '--data_dir', 'x'], '--data_dir is the folder of one source'),
    (['aya_dataset', '--data_dir', '/nowhere'], 'no folder /nowhere'),
    (['sharegpt_command'], 'not released on the hub'),
    (['aya_dataset', '--languages', 'klingonish', '--data_dir', 'x'], "'klingonish'"),
    (['aya_dataset', '--beam_runner', 'DirectRunner', '--data_dir', 'x'], None),
  ],
)
def test_wrong_arguments_end_in_one_line(root, capsys, monkeypatch, arguments, message):
  if message is None:
    monkeypatch.setitem(__import__('sys').modules, 'apache_beam', None)
    message = 'aya-train[beam]'
  assert run(*arguments) == 1
  error = capsys.readouterr().err
  assert message in error and 'Traceback' not in error


def test_languages_of_any_code_system(root):
  assert run('aya_dataset', '--data_dir', root, '--languages', 'yo,swh_Latn') == 0
  assert seqio.get_mixture_or_task('aya_dataset').source.num_input_examples('train') == 30


def test_tokenised_tasks_hold_what_the_task_gives(root, tmp_path):
  run('aya_dataset', '--data_dir', root)
  cfg = batching.DatasetConfig(
    'aya_dataset', {'inputs': 64, 'targets': 64}, 'train', 1, prepared_dir=tmp_path / 'prepared'
  )
  prepare.tokenise([cfg], prepare.PrepareSettings(num_shards=2))
  task = seqio.get_mixture_or_task('aya_dataset')
  done = prepared.PreparedTask(prepared.prepared_path(task, 'train', tmp_path / 'prepared'))
  assert len(done) == 60
  expected = {
    tuple(e['targets']) for e in task.get_dataset(None, 'train', shuffle=False).as_numpy_iterator()
  }
  assert {tuple(done[i]['targets']) for i in range(60)} == expected


def test_every_source_of_the_table_has_its_task():
  names = set(seqio.TaskRegistry.names())
  for source in catalog.SOURCES:
    parts = {f'{source.name}.{part}' for part in source.constituents}
    assert parts <= names
    assert source.name in names or source.name == 'aya_evaluation_suite'


def test_tasks_keep_the_names_that_seqio_allows():
  allowed = set('abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:#')
  assert all(set(name) <= allowed for name in seqio.TaskRegistry.names())

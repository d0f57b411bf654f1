"""Building a source: whole or not at all, the same bytes every time, resumed where it stopped."""

import hashlib
import json
import types

import numpy as np
import pytest
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

import aya_train.tasks  # noqa: F401 - registers the tasks
from aya_train import process_identity
from aya_train.tasks import storage
from aya_train.tasks.building import (
  read_report,
  releases,
  row_splits,
  row_units,
  rows,
  source_build,
  source_builder,
  work_runner,
)
from aya_train.tasks.cldr import cldr_builder
from tests.tasks import released

SILENT = {'progress': lambda line: None}
LOOSE = read_report.SkipLimits(rows=1.0)


@pytest.fixture
def root(tmp_path, monkeypatch):
  monkeypatch.setenv(storage.CACHE_ENV, str(tmp_path / 'cache'))
  return tmp_path / 'release'


@pytest.fixture
def small_units(monkeypatch):
  """Units of a few hundred bytes, so that a build has many."""
  monkeypatch.setattr(row_units, 'UNIT_BYTES', 400)
  monkeypatch.setattr(row_units.divide, '__defaults__', (400,))


def write_release(root, languages=(('yor', 'Yoruba'), ('som', 'Somali')), count=40):
  for i, (code, name) in enumerate(languages):
    path = root / 'data' / f'train-{i:05d}-of-{len(languages):05d}.parquet'
    released.parquet(path, released.annotated(code, name, count))


def rows_of(task, split='train', **kwargs):
  source = seqio.get_mixture_or_task(task).source
  return list(source.get_dataset(split, shuffle=False, **kwargs).as_numpy_iterator())


def hashes(path):
  return {
    p.name: hashlib.sha256(p.read_bytes()).hexdigest()
    for p in sorted(path.iterdir())
    if p.is_file()
  }


def test_rows_come_back_by_language_with_all_columns(root):
  write_release(root)
  source_build.build('aya_dataset', root, **SILENT)
  got = rows_of('aya_dataset.yor')
  assert [r['inputs'].decode() for r in got] == [f'Yoruba {i}?' for i in range(40)]
  assert set(got[0]) == set(rows.COLUMNS)
  assert {(r['language_code'], r['script'], r['dataset']) for r in got} == {
    (b'yor', b'Latn', b'aya_dataset')
  }
  assert len({r['id'] for r in got}) == 40
  assert len(rows_of('aya_dataset')) == 80
  assert seqio.get_mixture_or_task('aya_dataset').source.num_input_examples('train') == 80


def test_tfds_reads_it_without_our_code(root):
  write_release(root)
  source_build.build('aya_dataset', root, **SILENT)
  builder = tfds.builder_from_directory(str(source_builder.folder('aya_dataset')))
  assert builder.info.splits['train_som'].num_examples == 40
  assert len(list(builder.as_dataset('train_som'))) == 40
  assert 'Apache' in builder.info.redistribution_info.license
  assert 'singh2024aya' in builder.info.citation


def test_the_same_bytes_every_time_and_in_any_order_of_units(root, tmp_path, small_units):
  write_release(root)

  def backwards(function, arguments):
    return work_runner.here(function, list(reversed(arguments)))

  source_build.build('aya_dataset', root, data_dir=tmp_path / 'a', **SILENT)
  source_build.build('aya_dataset', root, data_dir=tmp_path / 'b', runner=backwards, **SILENT)
  first, second = (source_builder.folder('aya_dataset', '', tmp_path / d) for d in 'ab')
  assert hashes(first) == hashes(second)
  assert not list((tmp_path / 'a' / 'in_progress').iterdir())


def test_a_killed_build_goes_on_where_it_stopped(root, tmp_path, small_units):
  write_release(root)
  source_build.build('aya_dataset', root, data_dir=tmp_path / 'whole', **SILENT)
  ran = []

  def killed(function, arguments):
    for args in arguments[: len(arguments) // 2]:
      ran.append(args[1])
      yield function(*args)
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    source_build.build('aya_dataset', root, data_dir=tmp_path / 'killed', runner=killed, **SILENT)
  with pytest.raises(FileNotFoundError, match='aya-train prepare aya_dataset'):
    source_builder.open_built('aya_dataset', '', tmp_path / 'killed')

  def rest(function, arguments):
    if function is row_units.run:
      assert not set(ran) & {args[1] for args in arguments}
    return work_runner.here(function, arguments)

  source_build.build('aya_dataset', root, data_dir=tmp_path / 'killed', runner=rest, **SILENT)
  whole, resumed = (
    source_builder.folder('aya_dataset', '', tmp_path / d) for d in ('whole', 'killed')
  )
  assert ran and hashes(whole) == hashes(resumed)


def test_a_half_written_unit_is_not_read(root, tmp_path):
  write_release(root)
  whole = source_build.build('aya_dataset', root, data_dir=tmp_path / 'a', **SILENT)

  def dies_inside(function, arguments):
    if function is not row_units.run:
      return work_runner.here(function, arguments)
    work_dir, index = arguments[0]
    half = row_units.folder(work_dir, index)
    half.mkdir(parents=True)
    (half / '.train.yor.tfrecord').write_bytes(b'half')
    return work_runner.here(function, arguments)

  again = source_build.build(
    'aya_dataset', root, data_dir=tmp_path / 'b', runner=dies_inside, **SILENT
  )
  assert again == whole


def test_num_shards_is_honoured_and_rows_keep_their_order(root):
  write_release(root)
  options = row_units.Options(num_shards=7)
  manifest = source_build.build('aya_dataset', root, options=options, **SILENT)['']
  assert sum(manifest['splits']['train_yor']['shard_lengths']) == 40
  assert len(manifest['splits']['train_yor']['shard_lengths']) == 7
  assert [r['inputs'].decode() for r in rows_of('aya_dataset.yor')] == [
    f'Yoruba {i}?' for i in range(40)
  ]


def test_hosts_read_each_row_once(root):
  write_release(root)
  source_build.build('aya_dataset', root, options=row_units.Options(num_shards=4), **SILENT)
  parts = [
    {r['id'] for r in rows_of('aya_dataset', shard_info=seqio.ShardInfo(i, 3))} for i in range(3)
  ]
  assert sum(map(len, parts)) == len(set.union(*parts)) == 80


def test_duplicates_go_wherever_they_are_and_are_counted(root, small_units):
  twice = released.annotated('yor', 'Yoruba', 30)
  released.parquet(root / 'data/train-00000-of-00002.parquet', twice + twice[:5])
  released.parquet(root / 'data/train-00001-of-00002.parquet', twice[10:20])
  manifest = source_build.build('aya_dataset', root, **SILENT)['']
  assert manifest['splits']['train_yor']['rows'] == 30
  assert manifest['splits']['train_yor']['duplicates'] == 15
  assert [r['inputs'].decode() for r in rows_of('aya_dataset.yor')] == [
    f'Yoruba {i}?' for i in range(30)
  ]


BAD_ROWS = {
  'empty_targets': {'targets': ' \n\t\u200b'},
  'empty_inputs': {'inputs': ''},
  'nul': {'targets': 'a\0b'},
  'too_long': {'inputs': 'x' * 200_001},
  'unknown_language': {'language_code': 'qqq'},
}


@pytest.mark.parametrize('kind', BAD_ROWS)
def test_a_bad_row_is_counted_and_named_and_left_out(root, kind):
  good = released.annotated('yor', 'Yoruba', 20)
  good[7] |= BAD_ROWS[kind]
  released.parquet(root / 'data/train-00000-of-00001.parquet', good)
  manifest = source_build.build('aya_dataset', root, **SILENT)['']
  assert manifest['report']['problems'] == {kind: 1}
  (example,) = manifest['report']['examples']
  assert (example['file'], example['where']) == ('data/train-00000-of-00001.parquet', 'row 8')
  assert manifest['splits']['train_yor']['rows'] == 19


def test_too_many_bad_rows_refuse_the_source(root):
  bad = released.annotated('yor', 'Yoruba', 30) + released.annotated('xyz', 'X', 11, start=30)
  released.parquet(root / 'data/train-00000-of-00001.parquet', bad)
  with pytest.raises(read_report.TooManyProblemsError, match='11 of 41 rows') as error:
    source_build.build('aya_dataset', root, **SILENT)
  assert "'xyz'" in str(error.value) and 'row 31' in str(error.value)
  assert source_build.build('aya_dataset', root, limits=LOOSE, **SILENT)['']['report']['kept'] == 30


def test_a_damaged_file_refuses_the_source_until_it_is_repaired(root):
  write_release(root)
  path = root / 'data/train-00001-of-00002.parquet'
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(read_report.TooManyProblemsError, match='train-00001-of-00002'):
    source_build.build('aya_dataset', root, **SILENT)
  path.write_bytes(whole)
  source_build.build('aya_dataset', root, **SILENT)
  assert len(rows_of('aya_dataset.som')) == 40


def test_nothing_of_a_damaged_file_is_used_under_a_limit(root):
  released.jsonl(
    root / 'ar/merged_ar.jsonl', [{'inputs': f'{i}', 'targets': 'x'} for i in range(9)]
  )
  path = root / 'yo/merged_yo.jsonl'
  released.jsonl(path, [{'inputs': f'{i}', 'targets': 'x'} for i in range(9)])
  path.write_bytes(path.read_bytes()[:-5])
  limits = read_report.SkipLimits(files=1)
  manifest = source_build.build('xp3', root, limits=limits, **SILENT)['']
  assert list(manifest['splits']) == ['train_ara']
  assert manifest['report']['files'][0]['file'] == 'yo/merged_yo.jsonl'
  with pytest.raises(ValueError, match='no rows'):
    rows_of('xp3.yor')


def test_a_missing_shard_is_named(root):
  write_release(root)
  (root / 'data/train-00001-of-00002.parquet').unlink()
  with pytest.raises(read_report.DamagedFileError, match='train-00001-of-00002'):
    source_build.build('aya_dataset', root, **SILENT)


def test_a_half_downloaded_file_is_named(root):
  write_release(root)
  (root / 'data/train-00002-of-00003.parquet.incomplete').write_bytes(b'')
  with pytest.raises(read_report.DamagedFileError, match='half downloaded'):
    source_build.build('aya_dataset', root, **SILENT)


def test_what_was_built_from_other_files_is_not_taken(root):
  write_release(root)
  source_build.build('aya_dataset', root, **SILENT)
  assert source_build.build('aya_dataset', root, **SILENT)['']['source'] == 'aya_dataset'
  write_release(root, count=41)
  with pytest.raises(ValueError, match='other files or with other options'):
    source_build.build('aya_dataset', root, **SILENT)


def test_a_release_of_something_else_says_what_is_expected(root):
  released.jsonl(root / 'notes.jsonl', [{'a': 1}])
  with pytest.raises(ValueError, match=r'data/<split>-\*.parquet.*notes.jsonl'):
    source_build.build('aya_dataset', root, **SILENT)
  with pytest.raises(ValueError, match='no constituents'):
    source_build.build('aya_dataset', root, options=row_units.Options(('x',)), **SILENT)
  with pytest.raises(FileNotFoundError, match='--data_dir'):
    source_build.build('aya_dataset', root / 'nowhere', **SILENT)


def test_a_full_disk_is_foreseen(root, monkeypatch):
  write_release(root)
  disk = types.SimpleNamespace(free=1_000)
  monkeypatch.setattr(source_build.shutil, 'disk_usage', lambda path: disk)
  with pytest.raises(ValueError, match='GB of disk'):
    source_build.build('aya_dataset', root, **SILENT)


def test_progress_gives_rates_and_the_time_left():
  lines = list(source_build.progress_lines(iter([(100, 1_000)] * 4), 4, seconds=0))
  assert len(lines) == 4
  assert 'rows/s' in lines[0] and 'GB/h' in lines[0] and 'left' in lines[0]
  assert lines[-1].startswith('4 of 4 units') and '400 rows' in lines[-1]


class FakeHub:
  """The hub: one file does not arrive whole the first time."""

  def __init__(self, folder):
    self.folder, self.downloads = folder, []

  def list(self, repository, revision):
    files = sorted(p for p in self.folder.rglob('*') if p.is_file())
    return 'c0ffee', [
      releases.ReleasedFile(str(p.relative_to(self.folder)), p.stat().st_size) for p in files
    ]

  def download(self, repository, commit, name):
    assert commit == 'c0ffee'
    self.downloads.append(name)
    return str(self.folder / name)


def test_the_hub_gives_the_same_rows_and_its_commit(root, monkeypatch):
  write_release(root)
  (root / 'README.md').write_text('card')
  hub = FakeHub(root)
  monkeypatch.setattr(releases, 'HUB', hub)
  manifest = source_build.build('aya_dataset', **SILENT)['']
  assert manifest['release']['place'] == 'hub:CohereForAI/aya_dataset'
  assert manifest['release']['revision'] == 'c0ffee'
  assert len(rows_of('aya_dataset')) == 80
  assert set(hub.downloads) == {f'data/train-0000{i}-of-00002.parquet' for i in range(2)}


def test_a_download_of_another_size_is_damage(root, monkeypatch):
  write_release(root)
  hub = FakeHub(root)
  listed = hub.list('', None)[1]
  bigger = [releases.ReleasedFile(f.name, f.size + 1) for f in listed]
  monkeypatch.setattr(hub, 'list', lambda repository, revision: ('c0ffee', bigger))
  monkeypatch.setattr(releases, 'HUB', hub)
  with pytest.raises(read_report.TooManyProblemsError, match='half downloaded'):
    source_build.build('aya_dataset', **SILENT)


def test_an_unreachable_hub_says_what_to_do(root, monkeypatch):
  class Down:
    def list(self, repository, revision):
      raise ConnectionError('no route')

  monkeypatch.setattr(releases, 'HUB', Down())
  with pytest.raises(OSError, match=r'no route.*--data_dir'):
    source_build.build('aya_dataset', **SILENT)


def test_encoded_rows_are_what_protobuf_writes():
  row = rows.Row('a' * 300, 'ß\n', 'yor', 'Latn', 'd', '', '1')
  example = tf.train.Example.FromString(rows.encode(row))
  got = {k: v.bytes_list.value[0].decode() for k, v in example.features.feature.items()}
  assert got == row._asdict()


def test_the_smallest_keys_are_a_sample_without_replacement():
  keys = np.random.default_rng(0).permutation(1000).astype(np.uint64)
  groups = np.arange(1000) % 3
  keep = row_splits.smallest_of_each(keys, groups, 50, np.ones(1000, bool))
  for group in range(3):
    chosen = keys[keep & (groups == group)]
    assert len(chosen) == 50
    assert chosen.max() == np.sort(keys[groups == group])[49]
  few = row_splits.smallest_of_each(keys, groups, 50, np.arange(1000) < 9)
  assert few.sum() == 9


def test_keys_ignore_ids_and_differ_by_language():
  row = rows.Row('q', 'a', 'yor', 'Latn', 'd', '', '1')
  assert rows.key(row) == rows.key(row._replace(id='2'))
  assert rows.key(row) != rows.key(row._replace(language_code='som'))
  assert 0 <= rows.key(row) < 2**63


def test_reports_survive_json_and_add_up():
  a, b = read_report.ReadReport(), read_report.ReadReport()
  for report, count in ((a, 15), (b, 30)):
    report.rows += 100
    for i in range(count):
      report.add_row('nul', 'f', f'row {i}', 'x')
  a.merge(read_report.ReadReport.from_json(b.to_json()))
  assert a.problems['nul'] == 45
  assert len(a.examples) == read_report.EXAMPLES_PER_KIND
  assert json.loads(a.to_json())['rows'] == 200


def test_work_that_cannot_be_gone_on_with_is_removed_by_the_next_build(root, small_units):
  write_release(root)

  def killed(function, arguments):
    yield function(*arguments[0])
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    source_build.build('aya_dataset', root, runner=killed, **SILENT)
  in_progress = storage.tfds_dir() / 'in_progress'
  (left,) = in_progress.iterdir()
  other = in_progress / 'xp3x-0123456789abcdef'
  other.mkdir()
  write_release(root, count=41)  # the files are repaired: the work is on others
  source_build.build('aya_dataset', root, **SILENT)
  assert not left.exists()
  assert other.exists()


def test_a_refused_source_without_a_row_leaves_nothing(root):
  (root / 'a.jsonl').parent.mkdir(parents=True)
  (root / 'a.jsonl').write_text('{"inputs": "see www.x.y", "targets": "b"}\n')
  with pytest.raises(ValueError, match='no row is left'):
    source_build.build('sharegpt_command', root, **SILENT)
  assert not list((storage.tfds_dir() / 'in_progress').iterdir())


def test_a_half_written_data_set_of_a_killed_process_is_removed(root):
  write_release(root)
  half = source_builder.folder('aya_dataset').parent / 'incomplete.ABCDEF_1.0.0'
  half.mkdir(parents=True)
  (half / f'.claim-{storage._machine()}-999999999-1').write_text('')
  source_build.build('aya_dataset', root, **SILENT)
  assert not half.exists()
  assert not [p for p in source_builder.folder('aya_dataset').iterdir() if p.name[0] == '.']


@pytest.mark.parametrize('source', ['aya_dataset', 'cldr'])
def test_a_data_set_half_made_by_who_died_before_the_claim_is_removed(root, source):
  """TFDS makes the folder, and only then can it be claimed."""
  write_release(root)
  parent = storage.tfds_dir() / (source if source != 'cldr' else 'cldr_instructions')
  half = parent / 'incomplete.ABCDEF_1.0.0'
  half.mkdir(parents=True)
  dead = parent / f'.claim-{storage._machine()}-999999999-1'
  dead.write_text('')
  if source == 'cldr':
    cldr_builder.build(languages=['yor'])
  else:
    source_build.build('aya_dataset', root, **SILENT)
  assert not half.exists()
  assert not dead.exists()
  assert not [p for p in parent.iterdir() if p.name[0] == '.' or p.name.startswith('incomplete')]


def test_a_data_set_that_another_living_process_makes_stays(root):
  write_release(root)
  parent = source_builder.folder('aya_dataset').parent
  half = parent / 'incomplete.ABCDEF_1.0.0'
  half.mkdir(parents=True)
  init = parent / f'.claim-{storage._machine()}-1-{process_identity.began(1)}'
  init.write_text('')
  source_build.build('aya_dataset', root, **SILENT)
  assert half.exists()
  assert init.exists()


def test_a_sharegpt_array_beside_a_flat_file_loses_nothing(root):
  talk = {'from': 'human', 'value': 'a {}?'}, {'from': 'gpt', 'value': 'b'}
  talks = [
    {'conversations': [talk[0] | {'value': f'a {i}?'}, talk[1]], 'language': 'yor'}
    for i in range(200)
  ]
  root.mkdir(parents=True)
  (root / 'talks.json').write_text(json.dumps(talks, indent=1))
  (root / 'flat.jsonl').write_text('{"inputs": "c", "targets": "d", "language": "yor"}\n')
  manifests = source_build.build('sharegpt_command', root, **SILENT)
  assert manifests['']['splits']['train_yor']['rows'] == 201

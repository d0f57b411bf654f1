"""Laws of prepared tasks: all of a task, once, whole or not at all."""

import collections
import dataclasses
import random
import shutil
import subprocess
import sys

import pytest
import seqio
from seqio import preprocessors as seqio_preprocessors

from aya_train import hosts, signed_json
from aya_train.data import availability, fingerprints, prepared, row_counts, task_examples
from tests.seqio_tasks import APPEND_EOS_AFTER_TRIM, add_task, texts, tokens

EXAMPLES = texts(25)


@pytest.fixture
def task():
  return add_task('prepared_test', {'train': EXAMPLES, 'validation': EXAMPLES[:3], 'empty': []})


@pytest.fixture
def opened(task, tmp_path):
  prepared.prepare_task(task.name, 'train', tmp_path, num_shards=3)
  return prepared.PreparedTask(prepared.prepared_path(task, 'train', tmp_path))


def contents(opened):
  return sorted(
    tuple(tuple(opened[i][f].tolist()) for f in ('inputs', 'targets')) for i in range(len(opened))
  )


def readable(directory):
  """All prepared tasks below a directory that can be opened."""
  found = []
  for manifest in directory.rglob(prepared.MANIFEST):
    found.append(prepared.PreparedTask(manifest.parent))
  return found


def test_records_return_what_was_encoded():
  for inputs, targets in (([5, 250_111], [7]), ([], [1]), ([3], [])):
    example = prepared.decode_example(
      prepared.encode_example((inputs, targets)), ('inputs', 'targets')
    )
    assert example['inputs'].tolist() == inputs and example['targets'].tolist() == targets
    assert example['inputs'].dtype == example['targets'].dtype == 'int32'


@pytest.mark.parametrize('features', [[[4, 5]], [[]], [[1], [], [2, 3]], [[], [9], [], [7, 8]]])
def test_a_record_may_hold_any_number_of_features(features):
  names = [f'feature_{i}' for i in range(len(features))]
  example = prepared.decode_example(prepared.encode_example(features), names)
  assert [example[name].tolist() for name in names] == features


def test_every_example_of_the_task_is_there_once(opened):
  assert contents(opened) == sorted((tokens(i), tokens(t)) for i, t in EXAMPLES)


def test_manifest_counts_what_is_there(opened):
  manifest = opened.manifest
  assert (manifest.task, manifest.split, manifest.num_examples) == ('prepared_test', 'train', 25)
  assert [s.num_examples for s in manifest.shards] == [9, 8, 8]
  for feature, column in (('inputs', 0), ('targets', 1)):
    sizes = [len(tokens(e[column])) for e in EXAMPLES]
    assert manifest.lengths[feature] == {n: sizes.count(n) for n in set(sizes)}
    assert manifest.num_tokens[feature] == sum(sizes)
  assert manifest.source['num_input_examples'] == 25
  assert prepared.Manifest.from_json(manifest.to_json()) == manifest


def test_prepared_tasks_are_reused(task, tmp_path):
  first = prepared.prepare_task(task.name, 'train', tmp_path)

  def fail(*_):
    raise AssertionError('prepared twice')

  assert prepared.prepare_task(task.name, 'train', tmp_path, progress=fail) == first


def double(ds):
  return ds.repeat(2)


def test_whatever_changes_the_examples_changes_the_directory(task, tmp_path):
  def path():
    current = seqio.TaskRegistry.get('prepared_test')
    return prepared.prepared_path(current, 'train', tmp_path)

  def redefine(**changes):
    arguments = {'examples': {'train': EXAMPLES}} | changes
    add_task('prepared_test', **arguments)
    return path()

  before = redefine()
  assert redefine() == before
  changed = [
    redefine(vocabulary=seqio.ByteVocabulary(extra_ids=10)),
    redefine(preprocessors=APPEND_EOS_AFTER_TRIM),
    redefine(preprocessors=[double, *APPEND_EOS_AFTER_TRIM]),
    redefine(examples={'train': EXAMPLES[:-1]}),
  ]
  assert len({before, *changed}) == 5


def test_sentencepiece_counts_by_the_bytes_of_its_model(task):
  class SentencePiece:
    extra_ids = 0

    def __init__(self, model, path):
      self.sp_model, self.path = model, path

  def fingerprint(model, path):
    feature = seqio.Feature(seqio.PassThroughVocabulary(9))
    object.__setattr__(feature, 'vocabulary', SentencePiece(model, path))
    task._output_features = {'inputs': feature, 'targets': feature}
    return fingerprints.vocabulary_fingerprint(task)

  assert fingerprint(b'model', '/a') == fingerprint(b'model', '/b')
  assert fingerprint(b'model', '/a') != fingerprint(b'other', '/a')


def captured(text):
  def keep(x):
    """A docstring."""
    return x != text  # a comment

  return keep


def test_functions_count_by_code_and_captured_arguments_not_by_remarks():
  assert fingerprints._describe(captured('a')) == fingerprints._describe(captured('a'))
  assert fingerprints._describe(captured('a')) != fingerprints._describe(captured('b'))
  in_a_list = [
    len,
    lambda x: x > 1,
    lambda x: x > 2,
  ]
  assert fingerprints._describe(in_a_list[1]) != fingerprints._describe(in_a_list[2])
  code = fingerprints._code(captured)
  assert 'docstring' not in code and 'comment' not in code and 'x != text' in code


@pytest.mark.parametrize('hash_seed', ['1', '2'])
def test_fingerprints_are_the_same_in_every_process(hash_seed):
  program = """
import sys, types
class Seqio(types.ModuleType):
  Vocabulary = TfdsDataSource = DataSource = Task = Mixture = type('Unused', (), {})
sys.modules['seqio'] = Seqio('seqio')  # not needed here, and slow to import
tasks = sys.modules['aya_train.tasks'] = types.ModuleType('aya_train.tasks')
tasks.split_slices = None
from aya_train import signed_json
from aya_train.data import fingerprints
print(signed_json.digest(fingerprints._describe([{'b': {'y', 'x'}, 'a': print}, object(), len])))
"""
  run = [sys.executable, '-c', program]
  environment = {'PYTHONHASHSEED': hash_seed, 'PATH': ''}
  output = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout
  here = signed_json.digest(fingerprints._describe([{'b': {'y', 'x'}, 'a': print}, object(), len]))
  assert output.strip() == here


def test_eos_after_trim_is_noted():
  name = 'prepared_test_trim'
  task = add_task(name, {'train': EXAMPLES}, preprocessors=APPEND_EOS_AFTER_TRIM)
  assert task_examples.eos_after_trim(task) == {'inputs': 1, 'targets': 1}
  assert task_examples.eos_after_trim(add_task(name, {'train': EXAMPLES})) == {}
  assert seqio_preprocessors.append_eos_after_trim in APPEND_EOS_AFTER_TRIM


def test_a_kill_during_preparation_leaves_nothing_readable(task, tmp_path, monkeypatch):
  """Copies the directory at every point where a kill could strike, and reads the copies."""
  directory, copies = tmp_path / 'prepared', tmp_path / 'copies'
  monkeypatch.setattr(prepared, '_PROGRESS_EVERY', 10)

  def copy(*_):
    shutil.copytree(directory, copies / str(len(list(copies.glob('*')))))

  publish = prepared.publish

  def copy_and_publish(temporary, path, manifest):
    assert not path.exists()
    assert temporary.name.endswith('.tmp')
    return publish(temporary, path, manifest)

  copies.mkdir()
  monkeypatch.setattr(prepared, 'publish', copy_and_publish)
  prepared.prepare_task(task.name, 'train', directory, progress=copy)
  killed = sorted(copies.glob('*'))
  assert len(killed) == 3 and all(list(k.rglob('*.array_record')) for k in killed)
  for k in killed:
    assert readable(k) == []
    with pytest.raises(FileNotFoundError, match='not prepared there'):
      prepared.PreparedTask(prepared.prepared_path(task, 'train', k))
    # Preparing again is not in the way of what the kill left.
    assert prepared.prepare_task(task.name, 'train', k).num_examples == 25
  assert len(readable(directory)) == 1


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_a_failed_preparation_cleans_up(task, tmp_path, error):
  def fail(*_):
    raise error

  with pytest.raises(error):
    prepared.prepare_task(task.name, 'train', tmp_path, progress=fail)
  assert not [p for p in tmp_path.rglob('*') if p.is_file()]


def test_a_directory_without_manifest_is_prepared_again(task, opened, tmp_path):
  (opened.directory / prepared.MANIFEST).unlink()
  assert prepared.prepare_task(task.name, 'train', tmp_path).num_examples == 25


def test_of_two_preparations_at_once_the_first_stays(task, tmp_path):
  """While one is writing, another starts, finishes and publishes."""
  winner = []

  def interrupt(*_):
    winner.append(prepared.prepare_task(task.name, 'train', tmp_path, num_shards=2))

  loser = prepared.prepare_task(task.name, 'train', tmp_path, progress=interrupt)
  assert loser == winner[0] and len(loser.shards) == 2
  assert len(readable(tmp_path)) == 1


def test_damaged_shards_are_detected(opened, task, tmp_path):
  first, second = (opened.directory / s.name for s in opened.manifest.shards[:2])
  whole = first.read_bytes()
  first.write_bytes(whole[:-100])
  with pytest.raises(ValueError, match=rf'bytes expected, got {len(whole) - 100}\. Delete'):
    availability.ensure_prepared(task.name, 'train', tmp_path)
  # The right size, but not the end of a file; then a whole file with too few records.
  first.write_bytes(whole[: len(whole) // 2].ljust(len(whole), b'\0'))
  with pytest.raises(ValueError, match='its list of examples is damaged'):
    prepared.PreparedTask(opened.directory)
  first.write_bytes(second.read_bytes())
  other = prepared.shard_of(first, 9)
  manifest = dataclasses.replace(opened.manifest, shards=(other, *opened.manifest.shards[1:]))
  (opened.directory / prepared.MANIFEST).write_text(manifest.to_json())
  with pytest.raises(ValueError, match='9 examples expected, got 8'):
    prepared.PreparedTask(opened.directory)
  first.unlink()
  with pytest.raises(ValueError, match='bytes expected, got None'):
    prepared.PreparedTask(opened.directory)


def test_a_flipped_bit_is_refused_or_changes_nothing(opened, task):
  def read():
    ready = prepared.PreparedTask(opened.directory)
    examples = [{k: v.tolist() for k, v in ready[i].items()} for i in range(len(ready))]
    return examples, ready.manifest, row_counts.of_task(task, 'train', ready)

  expected, rng, refused = read(), random.Random(0), collections.Counter()
  for path in sorted(opened.directory.iterdir()):
    whole = path.read_bytes()
    places = [i for i, byte in enumerate(whole) if byte]
    for place in rng.sample(places, 12):
      flipped = bytes([whole[place] ^ 1 << rng.randrange(8)])
      path.write_bytes(whole[:place] + flipped + whole[place + 1 :])
      try:
        assert read() == expected, (path.name, place)
      except ValueError as error:
        refused[path.suffix, str(opened.directory) in str(error)] += 1
    path.write_bytes(whole)
  assert refused.keys() == {('.json', True), ('.array_record', True)}


def test_a_flipped_bit_in_the_list_of_records_is_seen_before_work(opened):
  path = opened.directory / opened.manifest.shards[0].name
  whole = path.read_bytes()
  path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
  with pytest.raises(ValueError, match=r'list of examples is damaged\. Delete .* to prepare it'):
    prepared.PreparedTask(opened.directory)


def test_another_format_is_refused(opened):
  path = opened.directory / prepared.MANIFEST
  path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
  with pytest.raises(ValueError, match=r'format 99, this program reads 1\. Delete'):
    prepared.PreparedTask(opened.directory)


def test_errors_name_what_there_is(task, tmp_path):
  with pytest.raises(ValueError, match=r"Close names: \['prepared_test'"):
    prepared.prepare_task('prepared_tset', 'train', tmp_path)
  with pytest.raises(ValueError, match=r"no split 'test'.*'empty', 'train', 'validation'"):
    prepared.prepare_task(task.name, 'test', tmp_path)
  with pytest.raises(ValueError, match=r"no examples in split 'empty' of task 'prepared_test'"):
    prepared.prepare_task(task.name, 'empty', tmp_path)
  with pytest.raises(ValueError, match='num_shards must be at least 1, got 0'):
    prepared.prepare_task(task.name, 'train', tmp_path, num_shards=0)
  assert readable(tmp_path) == []


def test_a_mixture_prepares_its_tasks_that_have_the_split(task, tmp_path):
  add_task('prepared_test_other', {'train': EXAMPLES[:4]})
  seqio.MixtureRegistry.remove('prepared_test_mixture')
  seqio.MixtureRegistry.add('prepared_test_mixture', [(task.name, 1), ('prepared_test_other', 2)])
  both = availability.ensure_prepared('prepared_test_mixture', 'train', tmp_path)
  assert {name: len(t) for name, t in both.items()} == {task.name: 25, 'prepared_test_other': 4}
  assert list(availability.ensure_prepared('prepared_test_mixture', 'validation', tmp_path)) == [
    task.name
  ]
  with pytest.raises(ValueError, match=r"no task of 'prepared_test_mixture' has split 'test'"):
    availability.ensure_prepared('prepared_test_mixture', 'test', tmp_path)


def test_only_process_0_writes(task, tmp_path):
  calls = []
  first, second = (hosts.Host(i, 2, barrier=calls.append) for i in range(2))
  with pytest.raises(FileNotFoundError, match='shared by all'):
    availability.ensure_prepared(task.name, 'train', tmp_path, host=second)
  assert readable(tmp_path) == []
  availability.ensure_prepared(task.name, 'train', tmp_path, host=first)
  opened = availability.ensure_prepared(task.name, 'train', tmp_path, host=second)
  assert len(opened[task.name]) == 25
  with pytest.raises(ValueError, match='no examples'):
    availability.ensure_prepared(task.name, 'empty', tmp_path, host=first)
  assert calls == ['prepared prepared_test:train'] * 3 + ['prepared prepared_test:empty']

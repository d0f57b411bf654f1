"""Shards written one by one are what a preparation in one piece makes."""

import re
import threading
import time

import pytest

from aya_train import lease
from aya_train.data import prepared, prepared_shards, task_registry
from aya_train.tasks import features, storage
from aya_train.tasks.building import work_runner
from aya_train.tasks.cldr import cldr_tasks, vocabulary

TASK = 'cldr.yor'


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv(storage.CACHE_ENV, str(tmp_path_factory.mktemp('cache')))
    patch.delenv(features.VOCABULARY_ENV, raising=False)
    features.set_vocabulary(None)
    cldr_tasks.build()
    vocabulary.build_default()
    yield
  features.set_vocabulary(None)


def silent(line):
  del line


def rows(directory, split='train'):
  path = prepared.prepared_path(task_registry.get_mixture_or_task(TASK), split, directory)
  task = prepared.PreparedTask(path)
  return sorted(
    (tuple(x['inputs']), tuple(x['targets'])) for x in (task[i] for i in range(len(task)))
  )


def prepare(directory, num_shards, runner=work_runner.here):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(prepared_shards, 'MIN_ROWS_PER_SHARD', 1)
    return prepared_shards.prepare_tasks(
      [TASK], 'train', directory, num_shards=num_shards, runner=runner, say=silent
    )[TASK]


@pytest.mark.parametrize('num_shards', [1, 3, 7])
def test_the_same_examples_as_in_one_piece(cache, tmp_path, num_shards):
  whole = prepared.prepare_task(TASK, 'train', tmp_path / 'whole')
  manifest = prepare(tmp_path / 'shards', num_shards)
  assert rows(tmp_path / 'shards') == rows(tmp_path / 'whole')
  assert len(manifest.shards) == num_shards
  assert manifest.num_examples == whole.num_examples
  assert manifest.lengths == whole.lengths
  assert manifest.num_tokens == whole.num_tokens
  assert manifest.eos_after_trim == whole.eos_after_trim


def test_a_killed_preparation_goes_on_and_gives_the_same_bytes(cache, tmp_path):
  prepare(tmp_path / 'whole', 5)

  def killed(function, arguments):
    for args in arguments[:2]:
      yield function(*args)
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    prepare(tmp_path / 'killed', 5, killed)
  with pytest.raises(FileNotFoundError):
    rows(tmp_path / 'killed')
  seen = []

  def rest(function, arguments):
    seen.extend(args[3] for args in arguments)
    return work_runner.here(function, arguments)

  prepare(tmp_path / 'killed', 5, rest)
  assert seen == [2, 3, 4]
  files = [
    {p.name: p.read_bytes() for p in (tmp_path / d).rglob('*.array_record')}
    for d in ('whole', 'killed')
  ]
  assert len(files[0]) == 5 and files[0] == files[1]


def test_what_is_there_is_not_made_again(cache, tmp_path):
  first = prepare(tmp_path, 2)

  def never(function, arguments):
    assert not arguments
    return iter(())

  assert prepare(tmp_path, 3, never) == first


def test_of_two_at_once_the_second_finds_its_work_done(cache, tmp_path, monkeypatch):
  monkeypatch.setattr(prepared_shards, 'MIN_ROWS_PER_SHARD', 1)
  written, begun = [], threading.Event()

  def slow(function, arguments):
    for args in arguments:
      begun.set()
      time.sleep(0.3)
      written.append(args[3])
      yield function(*args)

  first = threading.Thread(target=prepare, args=(tmp_path, 3, slow))
  first.start()
  assert begun.wait(60)
  path = prepared.prepared_path(task_registry.get_mixture_or_task(TASK), 'train', tmp_path)
  (left,) = [*path.parent.glob('.*.parts')]
  prepared_shards.prepare_tasks([TASK], 'train', tmp_path, num_shards=3, runner=slow, say=silent)
  first.join()
  assert written == [0, 1, 2]
  assert rows(tmp_path)
  assert not left.exists()
  assert not (tmp_path / lease.FILE).exists()


@pytest.mark.parametrize('damage', ['', '[]'])
def test_damaged_counts_are_counted_again(cache, tmp_path, damage):
  def killed(function, arguments):
    yield function(*arguments[0])
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    prepare(tmp_path, 2, killed)
  (counts,) = tmp_path.rglob('examples-*.json')
  counts.write_text(damage)
  torn = counts.parent / '.examples-00001-of-00002.0.tmp'
  torn.write_text('half a shard')
  manifest = prepare(tmp_path, 2)
  assert manifest.num_examples == len(rows(tmp_path))
  assert not list(tmp_path.rglob('.*.tmp'))


@pytest.mark.parametrize('ending', ['json', 'array_record'])
def test_a_flipped_bit_in_what_a_kill_left_is_made_again(cache, tmp_path, ending):
  left_by_a_kill(tmp_path / 'run', 2)
  prepare(tmp_path / 'whole', 2)
  (file,) = (tmp_path / 'run').rglob(f'examples-*.{ending}')
  content = file.read_bytes()
  place = re.search(rb'\d]', content).start() if ending == 'json' else len(content) - 1
  file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
  assert prepare(tmp_path / 'run', 2) == prepare(tmp_path / 'whole', 2)
  assert rows(tmp_path / 'run') == rows(tmp_path / 'whole')


def test_small_tasks_are_one_shard_and_all_are_one_list_of_work(cache, tmp_path):
  calls = []

  def once(function, arguments):
    calls.append(len(arguments))
    return work_runner.here(function, arguments)

  names = [TASK, 'cldr.som', 'cldr.nya']
  done = prepared_shards.prepare_tasks(
    names, 'train', tmp_path, num_shards=64, runner=once, say=silent
  )
  assert calls == [3]
  assert {name: len(m.shards) for name, m in done.items()} == dict.fromkeys(names, 1)


def test_a_mixture_and_an_unknown_split_are_refused(cache, tmp_path):
  with pytest.raises(ValueError, match='is a mixture'):
    prepared_shards.prepare_tasks(['cldr_smoke'], 'train', tmp_path, say=silent)
  with pytest.raises(ValueError, match="no split 'dev'"):
    prepared_shards.prepare_tasks([TASK], 'dev', tmp_path, say=silent)


def test_through_beam(cache, tmp_path):
  pytest.importorskip('apache_beam', reason='Apache Beam is an extra of its own environment')
  prepare(tmp_path / 'here', 3)
  prepare(tmp_path / 'beam', 3, work_runner.beam('DirectRunner'))
  assert rows(tmp_path / 'beam') == rows(tmp_path / 'here')


def left_by_a_kill(directory, num_shards):
  """Names in the task's folder after a kill at the first of the shards."""

  def killed(function, arguments):
    yield function(*arguments[0])
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    prepare(directory, num_shards, killed)
  return names_in(directory)


def names_in(directory):
  return sorted(path.name for path in (directory / TASK).iterdir())


def test_what_a_killed_preparation_left_goes_with_the_next_of_another_number(cache, tmp_path):
  (left,) = left_by_a_kill(tmp_path, 5)
  assert left.endswith('.00005.parts')
  validation = tmp_path / TASK / left.replace('.train-', '.validation-')
  validation.mkdir()
  prepare(tmp_path, 1)
  assert [name for name in names_in(tmp_path) if 'train' in name] == [left[1:-12]]
  assert validation.exists()  # the next preparation of that split may go on with it


def test_what_another_process_prepares_is_left_alone(cache, tmp_path):
  (left,) = left_by_a_kill(tmp_path, 5)
  (tmp_path / TASK / left / '.claim-another_machine-1-1').write_text('')
  prepared.prepare_task(TASK, 'train', tmp_path)
  assert left in names_in(tmp_path)


def test_parts_of_files_that_have_changed_are_not_gone_on_with(cache, tmp_path, monkeypatch):
  left_by_a_kill(tmp_path, 2)
  said = []
  monkeypatch.setattr(prepared_shards, '_stamp', lambda task, split: ['another'])
  monkeypatch.setattr(prepared_shards, 'MIN_ROWS_PER_SHARD', 1)
  done = prepared_shards.prepare_tasks([TASK], 'train', tmp_path, num_shards=2, say=said.append)
  assert not [line for line in said if 'done before' in line]
  task = task_registry.get_mixture_or_task(TASK)
  assert done[TASK].num_examples == task.num_input_examples('train')

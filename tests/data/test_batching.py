"""Laws of the batches: every example once per epoch, whole; resumed equals uninterrupted."""

import collections
import dataclasses
import itertools
import json

import numpy as np
import pytest
import seqio

from aya_train import hosts
from aya_train.data import availability, batching, feature_converters
from tests.seqio_tasks import APPEND_EOS_AFTER_TRIM, add_task, texts, tokens

EXAMPLES = {'data_a': texts(37), 'data_b': texts(11, seed=1), 'data_c': texts(5, seed=2)}
RATES = {'data_a': 5.0, 'data_b': 3.0, 'data_c': 0.5}
LENGTHS = {'inputs': 40, 'targets': 32}
EXPECTED = {n: sorted((tokens(i), tokens(t)) for i, t in e) for n, e in EXAMPLES.items()}
ALL = sorted(itertools.chain(*EXPECTED.values()))


@pytest.fixture(scope='module')
def prepared_dir(tmp_path_factory):
  directory = tmp_path_factory.mktemp('prepared')
  for name, examples in EXAMPLES.items():
    # Each task has its own digits, so that an example tells its task.
    mark = name[-1].upper()
    marked = [(mark + i, mark + t) for i, t in examples]
    EXPECTED[name] = sorted((tokens(i), tokens(t)) for i, t in marked)
    add_task(name, {'train': marked})
  ALL[:] = sorted(itertools.chain(*EXPECTED.values()))
  seqio.MixtureRegistry.remove('data_mixture')
  seqio.MixtureRegistry.add('data_mixture', list(RATES.items()))
  availability.ensure_prepared('data_mixture', 'train', directory)
  return directory


@pytest.fixture
def config(prepared_dir):
  return batching.DatasetConfig(
    mixture_or_task_name='data_mixture',
    task_feature_lengths=LENGTHS,
    split='train',
    batch_size=4,
    seed=0,
    prepared_dir=prepared_dir,
    num_packing_examples=24,
    num_packing_bins=8,
  )


def examples_of(batch):
  """Cuts a batch, packed or not, into its examples: (input tokens, target tokens)."""
  found = []
  for row in range(len(batch['encoder_input_tokens'])):
    inputs, targets = batch['encoder_input_tokens'][row], batch['decoder_target_tokens'][row]
    if 'encoder_segment_ids' in batch:
      ids = batch['encoder_segment_ids'][row], batch['decoder_segment_ids'][row]
      count = max(ids[0].max(), ids[1].max())
      parts = [(inputs[ids[0] == s], targets[ids[1] == s]) for s in range(1, count + 1)]
    else:
      parts = [(inputs[inputs > 0], targets[targets > 0])] if inputs.any() else []
    found.extend(tuple(tuple(p.tolist()) for p in part) for part in parts)
  return found


def take_examples(iterator, count):
  found = []
  while len(found) < count:
    found.extend(examples_of(next(iterator)))
  return found


def assert_same_batches(left, right):
  assert len(left) == len(right)
  for a, b in zip(left, right, strict=True):
    assert sorted(a) == sorted(b)
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])
      assert a[name].dtype == b[name].dtype


@pytest.mark.parametrize('pack', [True, False])
def test_batches_are_what_the_model_takes(config, pack):
  batch = next(batching.train_iterator(dataclasses.replace(config, pack=pack)))
  names = ['encoder_input_tokens', 'decoder_input_tokens', 'decoder_target_tokens']
  names += ['decoder_loss_weights']
  if pack:
    names += [f'{s}_{k}' for s in ('encoder', 'decoder') for k in ('segment_ids', 'positions')]
  assert sorted(batch) == sorted(names)
  for name, values in batch.items():
    assert values.shape == (4, 40 if name.startswith('encoder') else 32)
    assert values.dtype == ('float32' if name == 'decoder_loss_weights' else 'int32')


@pytest.mark.parametrize('shuffle', [True, False])
def test_each_epoch_has_each_example_once_in_an_order_of_its_own(config, shuffle):
  cfg = dataclasses.replace(config, mixture_or_task_name='data_a', pack=False, shuffle=shuffle)
  cfg = dataclasses.replace(cfg, batch_size=1)
  iterator = batching.train_iterator(cfg)
  epochs = [take_examples(iterator, 37) for _ in range(3)]
  for epoch in epochs:
    assert sorted(epoch) == EXPECTED['data_a']
  assert (epochs[0] != epochs[1] != epochs[2]) == shuffle
  # Same seed, same order; the next seed is not this one an epoch later.
  assert take_examples(batching.train_iterator(cfg), 37) == epochs[0]
  next_seed = take_examples(batching.train_iterator(dataclasses.replace(cfg, seed=1)), 37)
  assert (next_seed not in epochs) == shuffle


@pytest.mark.parametrize('process_count', [2, 4])
def test_hosts_share_each_epoch_disjointly_and_completely(config, process_count):
  cfg = dataclasses.replace(config, mixture_or_task_name='data_c', pack=False)
  # 5 epochs of 5 examples, dealt out to hosts in turn: 25 = 13 + 12 or 7 + 6 + 6 + 6.
  dealt = []
  for host in range(process_count):
    iterator = batching.train_iterator(cfg, hosts.Host(host, process_count))
    dealt.append(take_examples(iterator, 25)[: len(range(host, 25, process_count))])
  in_order = [e for turn in itertools.zip_longest(*dealt) for e in turn if e is not None]
  for epoch in range(5):
    assert sorted(in_order[5 * epoch : 5 * epoch + 5]) == EXPECTED['data_c']


def test_packing_neither_mixes_nor_cuts_examples(config):
  iterator = batching.train_iterator(config)
  batches = [next(iterator) for _ in range(30)]
  seen = collections.Counter(itertools.chain(*map(examples_of, batches)))
  assert set(seen) == set(ALL)
  for batch in batches:
    for side in ('encoder', 'decoder'):
      segment_ids, positions = batch[f'{side}_segment_ids'], batch[f'{side}_positions']
      for row_ids, row_positions in zip(segment_ids, positions, strict=True):
        runs = [(k, len(list(g))) for k, g in itertools.groupby(row_ids)]
        ids = [k for k, _ in runs if k]
        assert ids == list(range(1, len(ids) + 1)), 'segments are contiguous and in order'
        restarts = [p for k, n in runs for p in (range(n) if k else [0] * n)]
        assert row_positions.tolist() == restarts


@pytest.mark.parametrize('pack', [True, False])
def test_measured_shares_are_the_rates(config, pack):
  iterator = batching.train_iterator(dataclasses.replace(config, pack=pack))
  drawn = take_examples(iterator, 1200)
  owner = {e: name for name, examples in EXPECTED.items() for e in examples}
  counts = collections.Counter(owner[e] for e in drawn)
  for name, rate in RATES.items():
    share = rate / sum(RATES.values())
    error = np.sqrt(share * (1 - share) / len(drawn))
    assert abs(counts[name] / len(drawn) - share) < 3 * error


@pytest.mark.parametrize('pack', [True, False])
@pytest.mark.parametrize('prefetch', [0, 2])
def test_resumed_equals_uninterrupted_from_every_batch(config, pack, prefetch):
  """9 batches of 3 rows cross several packs of 8 rows, and begin in the middle of one."""
  cfg = dataclasses.replace(config, batch_size=3, pack=pack, prefetch_batches=prefetch)
  iterator = batching.train_iterator(cfg)
  states, batches = [iterator.get_state()], []
  for _ in range(9):
    batches.append(next(iterator))
    states.append(json.loads(json.dumps(iterator.get_state())))
  for step, state in enumerate(states):
    resumed = batching.train_iterator(cfg, state=state)
    assert resumed.get_state() == state
    assert_same_batches([next(resumed) for _ in range(9 - step)], batches[step:])
  iterator.set_state(states[5])  # an iterator that has run on can also go back
  assert_same_batches([next(iterator)], [batches[5]])


def phases(cfg, batches_of_parts):
  """Runs one phase after the other, each continued from the states of the one before.

  Args:
    batches_of_parts: for each phase, how many batches each part gives.

  Yields:
    The batches of a phase.
  """
  states = []
  for batches in batches_of_parts:
    parts = [batching.train_iterator(cfg, hosts.Host(i, len(batches))) for i in range(len(batches))]
    for iterator in parts:
      if states:
        iterator.set_state_of_hosts(states)
    yield [
      next(iterator) for iterator, count in zip(parts, batches, strict=True) for _ in range(count)
    ]
    states = [json.loads(json.dumps(iterator.get_state())) for iterator in parts]


@pytest.mark.parametrize('prefetch', [0, 2])
@pytest.mark.parametrize('packer', ['best_fit', 'first_fit', None])
@pytest.mark.parametrize('steps', [(1, 1, 1, 1), (3, 2, 1, 9), (2, 0, 5, 4)])
def test_each_example_comes_once_over_1_2_4_and_1_hosts(config, packer, prefetch, steps):
  """Every phase ends inside a pack, and the parts of one have drawn different numbers."""
  pack = packer is not None
  tasks = {'data_a': 5.0, 'data_b': 3.0} if pack else RATES
  name = f'data_mixture_of_{len(tasks)}'
  seqio.MixtureRegistry.remove(name)
  seqio.MixtureRegistry.add(name, list(tasks.items()))
  cfg = dataclasses.replace(
    config,
    mixture_or_task_name=name,
    pack=pack,
    packer=packer or 'best_fit',
    prefetch_batches=prefetch,
    num_packing_examples=9,
    num_packing_bins=3,
  )
  counts = [(steps[0],), (steps[1],) * 2, (steps[2],) * 4, (steps[3] + 60,)]
  seen = itertools.chain(*(map(examples_of, itertools.chain(*phases(cfg, counts)))))
  # The last phase is so long that every task is through several epochs. What is behind the end of
  # the shortest of them is whole, but for the rows that are open.
  found = collections.Counter(seen)
  for task in tasks:
    times = [found[example] for example in EXPECTED[task]]
    assert max(times) - min(times) <= 1 + pack, times
    assert min(times) >= 2


@pytest.mark.parametrize('prefetch', [0, 2])
@pytest.mark.parametrize(('before', 'after'), [(2, 1), (1, 2), (4, 2)])
def test_a_run_goes_on_with_another_number_of_hosts(config, before, after, prefetch):
  """Not packed, a run on other hosts has the examples of one that never moved."""
  cfg = dataclasses.replace(
    config, mixture_or_task_name='data_a', pack=False, prefetch_batches=prefetch
  )
  want = itertools.chain(*phases(cfg, [(6,)]))
  seen = itertools.chain(*phases(cfg, [(3,) * before, (3,) * after]))
  assert sorted(itertools.chain(*map(examples_of, seen))) == sorted(
    itertools.chain(*map(examples_of, want))
  )


def test_hosts_with_the_same_rows_read_the_same_part(config):
  """Four hosts on a mesh of two data shards; on another mesh they go on from the same positions."""
  shards = [(0, 2), (0, 2), (1, 2), (1, 2)]

  def host(i, shard):
    return batching.train_iterator(config, hosts.Host(i, 4, shard))

  first = [host(i, shard) for i, shard in enumerate(shards)]
  batches = [[next(it) for _ in range(5)] for it in first]
  assert_same_batches(batches[0], batches[1])
  assert_same_batches(batches[2], batches[3])
  states = [it.get_state() for it in first]
  then = [host(i, shard) for i, shard in enumerate(((0, 2), (1, 2)))]
  for iterator, old in zip(then, (first[0], first[3]), strict=True):
    iterator.set_state_of_hosts(states)
    assert_same_batches([next(iterator)], [next(old)])


@pytest.mark.parametrize('pack', [True, False])
def test_resumed_equals_uninterrupted_after_a_new_share(config, pack):
  """From every batch after 3 parts became 2: among old rows, at their end, inside new packs."""
  cfg = dataclasses.replace(config, pack=pack, batch_size=12)
  old = [batching.train_iterator(cfg, hosts.Host(i, 3)) for i in range(3)]
  for number, iterator in enumerate(old):
    for _ in range(number):
      next(iterator)
  states = [iterator.get_state() for iterator in old]
  for part in range(2):
    host = hosts.Host(part, 2)
    iterator = batching.train_iterator(cfg, host)
    iterator.set_state_of_hosts(states)
    later, batches = [], []
    for _ in range(6):
      later.append(json.loads(json.dumps(iterator.get_state())))
      batches.append(next(iterator))
    for step, state in enumerate(later):
      resumed = batching.train_iterator(cfg, host, state=state)
      assert resumed.get_state() == state
      assert_same_batches([next(resumed) for _ in range(6 - step)], batches[step:])


def test_positions_of_other_streams_or_of_some_parts_are_refused(config):
  first = [batching.train_iterator(config, hosts.Host(i, 4)) for i in range(4)]
  states = [iterator.get_state() for iterator in first]
  other = batching.train_iterator(dataclasses.replace(config, seed=5))
  with pytest.raises(ValueError, match=r'belongs to another stream \(seed: saved 0, now 5'):
    other.set_state_of_hosts(states)
  with pytest.raises(ValueError, match=r"the parts \['0 of 4', '2 of 4'\], expected 2 parts"):
    batching.train_iterator(config).set_state_of_hosts(states[::2])


def test_state_is_small(config):
  for sizes in ({'num_packing_examples': 4096}, {'packer': 'first_fit', 'num_packing_bins': 128}):
    iterator = batching.train_iterator(dataclasses.replace(config, **sizes))
    for _ in range(10):
      next(iterator)
    assert len(json.dumps(iterator.get_state())) < 2000


def test_reading_threads_change_nothing(config):
  streams = []
  for threads in (0, 1, 4):
    iterator = batching.train_iterator(dataclasses.replace(config, num_read_threads=threads))
    streams.append([next(iterator) for _ in range(5)])
  assert_same_batches(streams[0], streams[1])
  assert_same_batches(streams[0], streams[2])


def test_a_state_of_another_stream_is_refused(config):
  state = batching.train_iterator(config).get_state()
  with pytest.raises(ValueError, match=r'another stream \(seed: saved 0, now 1\)'):
    batching.train_iterator(dataclasses.replace(config, seed=1), state=state)
  with pytest.raises(ValueError, match="host: saved '0 of 1', now '1 of 2'"):
    batching.train_iterator(config, hosts.Host(1, 2), state=state)


@pytest.mark.parametrize('pack', [True, False])
@pytest.mark.parametrize('process_count', [1, 2, 4])
def test_evaluation_sees_each_example_once_over_all_hosts(config, pack, process_count):
  cfg = dataclasses.replace(config, pack=pack, shuffle=False, seed=None, batch_size=4)
  dealt = [
    list(batching.open_eval(cfg, hosts.Host(i, process_count))()) for i in range(process_count)
  ]
  assert {len(batches) for batches in dealt} == {len(dealt[0])}
  together = [
    {k: np.concatenate([b[k] for b in step]) for k in step[0]} for step in zip(*dealt, strict=True)
  ]
  assert sorted(itertools.chain(*map(examples_of, together))) == ALL
  # The global batches do not depend on the number of hosts; zeros fill the last.
  assert_same_batches(together, list(batching.open_eval(cfg)()))
  assert all(len(b['decoder_loss_weights']) == 4 for b in together)
  weights = sum(b['decoder_loss_weights'].sum() for b in together)
  assert weights == sum(len(targets) for _, targets in ALL)


def as_seqio(pack, rows, lengths):
  """Model features by SeqIO from rows that are packed already, or from examples."""
  import tensorflow as tf

  names = list(rows[0])
  types = dict.fromkeys(names, tf.TensorSpec([None], tf.int32))
  ds = tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=types)
  if pack:
    return list(
      ds.map(seqio.EncDecFeatureConverter(pack=True)._convert_example).as_numpy_iterator()
    )
  return list(seqio.EncDecFeatureConverter(pack=False)(ds, lengths).as_numpy_iterator())


def assert_equals_seqio(batch, rows):
  assert len(rows) == len(batch['encoder_input_tokens'])
  for i, row in enumerate(rows):
    assert sorted(row) == sorted(batch)
    for name in row:
      np.testing.assert_array_equal(batch[name][i], row[name], err_msg=name)


def test_packed_features_equal_seqios_on_the_same_rows(config):
  batch = next(batching.open_eval(dataclasses.replace(config, batch_size=8))())
  rows = [
    {
      f'{feature}{suffix}': batch[f'{side}_{kind}'][i]
      for feature, side, token in (
        ('inputs', 'encoder', 'input_tokens'),
        ('targets', 'decoder', 'target_tokens'),
      )
      for suffix, kind in (
        ('', token),
        ('_segment_ids', 'segment_ids'),
        ('_positions', 'positions'),
      )
    }
    for i in range(8)
  ]
  assert batch['decoder_segment_ids'].max() > 1
  assert_equals_seqio(batch, as_seqio(True, rows, None))


@pytest.mark.parametrize('preprocessors', [None, APPEND_EOS_AFTER_TRIM])
def test_unpacked_batches_equal_seqios_from_the_task(tmp_path, preprocessors):
  """Also where examples are cut: with append_eos_after_trim the last token stays EOS."""
  arguments = {} if preprocessors is None else {'preprocessors': preprocessors}
  task = add_task('data_seqio', {'train': texts(10)}, **arguments)
  lengths = {'inputs': 9, 'targets': 6}
  theirs = task.get_dataset(lengths, 'train', shuffle=False)
  theirs = list(seqio.EncDecFeatureConverter(pack=False)(theirs, lengths).as_numpy_iterator())
  cfg = batching.DatasetConfig(
    'data_seqio',
    lengths,
    'train',
    10,
    pack=False,
    prepared_dir=tmp_path,
    max_truncated_fraction=1.0,
  )
  (batch,) = batching.open_eval(cfg)()
  assert_equals_seqio(batch, theirs)
  full = batch['decoder_target_tokens'][:, -1]
  assert ((full > 1).any()) == (preprocessors is None)


def test_truncation_is_measured_and_limited(config, prepared_dir):
  tasks = batching.prepared_tasks(config)
  rates = {name: float(len(t)) for name, t in tasks.items()}
  assert batching.check_truncation(config, tasks, rates) == {'inputs': 0.0, 'targets': 0.0}

  sizes = sorted(len(i) for i, _ in ALL)
  limit = sizes[40]
  long = sum(n > limit for n in sizes)
  cfg = dataclasses.replace(config, task_feature_lengths={'inputs': limit, 'targets': 32})
  assert long > 0.1 * len(sizes)
  enough = next(n for n in sizes if sum(m > n for m in sizes) <= 0.1 * len(sizes))
  message = (
    f'inputs longer than {limit} tokens: {long} of {len(sizes)} examples.*the longest has'
    rf' {sizes[-1]}\. max_truncated_fraction is 0\.1: a length of {enough} in'
  )
  with pytest.raises(ValueError, match=message):
    batching.check_truncation(cfg, tasks, rates)
  with pytest.raises(ValueError, match='inputs longer than'):
    batching.open_eval(cfg)()
  allowed = dataclasses.replace(cfg, max_truncated_fraction=0.9)
  shares = batching.check_truncation(allowed, tasks, rates)
  assert shares['inputs'] == pytest.approx(long / len(sizes))
  # A task that is drawn twice as often counts twice.
  of_c = batching.check_truncation(allowed, tasks, {'data_c': 2.0, 'data_a': 0.5})['inputs']
  share = {n: np.mean([len(i) > limit for i, _ in e]) for n, e in EXPECTED.items()}
  assert of_c == pytest.approx((2 * share['data_c'] + 0.5 * share['data_a']) / 2.5)


def test_what_the_lengths_cut_is_said_once_and_only_where_there_is_something(config, caplog):
  caplog.set_level('INFO', 'aya_train')
  batching.open_eval(config)
  assert 'longer than' not in caplog.text
  cut = dataclasses.replace(
    config, task_feature_lengths={'inputs': 2, 'targets': 32}, max_truncated_fraction=1.0
  )
  for _ in range(3):
    batching.open_eval(cut)
  said = [r.getMessage() for r in caplog.records if 'longer than' in r.getMessage()]
  assert len(said) == 1
  assert said[0].startswith('inputs longer than 2 tokens: ')
  assert f"'{config.mixture_or_task_name}:{config.split}'" in said[0]


def test_reports_count_tokens_and_examples(config):
  for pack in (True, False):
    cfg = dataclasses.replace(config, pack=pack, batch_size=64)
    features = ('inputs', 'targets')
    as_they_are = feature_converters.FeatureConverter(features, packs=True)
    batches = list(batching.open_eval(cfg, converter=as_they_are)())
    assert sum(feature_converters.examples_per_batch(b, features) for b in batches) == len(ALL)
    positions = sum(b['inputs'].size + b['targets'].size for b in batches)
    used = sum(len(i) + len(t) for i, t in ALL)
    measured = [feature_converters.packing_efficiency(b, features) for b in batches]
    assert np.mean(measured) == pytest.approx(used / positions)


def test_wrong_configurations_are_refused(config):
  for change, message in (
    ({'task_feature_lengths': {}}, r'must give positive lengths, got \{\}'),
    ({'task_feature_lengths': {'inputs': 3, 'targets': 0}}, 'a number of tokens'),
    ({'batch_size': 0}, 'batch_size must be at least 1, got 0'),
    ({'seed': -1}, r'seed must be in \[0, 2\*\*32\), got -1'),
    ({'max_truncated_fraction': 10}, r'must be in \[0, 1\], got 10'),
    ({'num_packing_bins': 0}, 'got 0, 0 and 2'),
    ({'num_packing_examples': 0}, 'num_packing_examples must be at least 1, got 0'),
    ({'packer': 'tight'}, 'one of .*best_fit.*, got .tight'),
  ):
    with pytest.raises(ValueError, match=message):
      dataclasses.replace(config, **change)
  with pytest.raises(ValueError, match='batch_size 4 is not divisible by the 3 parts'):
    batching.train_iterator(config, hosts.Host(0, 3))
  with pytest.raises(ValueError, match='needs a seed, got seed=None'):
    batching.train_iterator(dataclasses.replace(config, seed=None))
  one_length = dataclasses.replace(config, task_feature_lengths={'inputs': 3})
  with pytest.raises(ValueError, match=r"each of \('inputs', 'targets'\).*got \{'inputs': 3\}"):
    batching.train_iterator(one_length)
  batching.train_iterator(dataclasses.replace(config, seed=None, shuffle=False))

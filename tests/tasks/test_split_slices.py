"""Slices of splits, over every kind of source."""

import hypothesis
import hypothesis.strategies as st
import pytest
import seqio
import tensorflow as tf

from aya_train.data import prepared, task_registry
from aya_train.evaluation import infer_eval
from aya_train.tasks import features, split_slices
from aya_train.tasks.metrics import exact_match
from aya_train.tasks.user import user_data

ROWS = 23


def number(rows):
  return [row['inputs'].decode() for row in rows.as_numpy_iterator()]


@pytest.mark.parametrize(
  ('split', 'rows'),
  [
    ('train[:4]', range(4)),
    ('train[19:]', range(19, 23)),
    ('train[10:20]', range(10, 20)),
    ('train[-3:]', range(20, 23)),
    ('train[:-20]', range(3)),
    ('train[90%:]', range(21, 23)),
    ('train[:90%]', range(21)),
    ('train[ 50% : 60% ]', range(12, 14)),
    ('train[:1_000]', range(23)),
    ('train[5:2]', range(0)),
    ('train[:]', range(23)),
  ],
)
def test_slices_are_those_of_tfds(split, rows):
  ((part),) = split_slices.parse(split)
  assert range(*part.rows(ROWS)) == rows


@hypothesis.given(st.integers(0, 10_000), st.integers(-100, 100), st.booleans())
def test_what_a_boundary_divides_has_each_row_once(count, value, percent):
  unit = '%' if percent else ''
  (head,), (tail,) = (
    split_slices.parse(f'train[{x}]') for x in (f':{value}{unit}', f'{value}{unit}:')
  )
  (start, middle), (second, end) = head.rows(count), tail.rows(count)
  assert (start, end) == (0, count)
  assert middle == second or (count == 0)


@pytest.mark.parametrize(
  ('first', 'second', 'common'),
  [
    ('train[:90%]', 'train[90%:]', False),
    ('train', 'train[90%:]', True),
    ('train', 'validation', False),
    ('train[:10]', 'train[5:20]', True),
    ('train+validation', 'validation[-3:]', True),
  ],
)
def test_rows_in_common(first, second, common):
  assert split_slices.overlap(first, second) == common


@pytest.mark.parametrize(
  'split',
  ['train[', 'train[:4', 'train[4]', 'train[:x]', 'train[:1.5]', 'train[:200%]', '', 'a++b',
   'train[:4][1:]', 'train[:2shard]', 'train[:10%](closest)'],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_examples(split):
  with pytest.raises(split_slices.SplitError, match=r'split .*'):
    split_slices.parse(split)


def of_function(split, shuffle_files, seed=None):
  del shuffle_files, seed
  count = {'train': ROWS, 'validation': 5}[split]
  texts = [f'{split} {i}' for i in range(count)]
  return tf.data.Dataset.from_tensor_slices({'inputs': texts, 'targets': texts})


@pytest.fixture
def tasks(tmp_path, cache):
  """A task over each kind of source, with `train` of 23 rows; but for CLDR's."""
  for split, count in (('train', ROWS), ('validation', 5)):
    lines = [f'{split} {i}' for i in range(count)]
    (tmp_path / f'{split}.csv').write_text(
      'inputs,targets\n' + ''.join(f'{line},{line}\n' for line in lines)
    )
    (tmp_path / f'{split}.txt').write_text(''.join(f'{line}\n' for line in lines))
  (tmp_path / 'table.toml').write_text(
    "[[dataset]]\nname = 'slices_user'\nlanguage = 'eng'\n"
    "files = {train = 'train.csv', validation = 'validation.csv'}\n"
  )
  names = user_data.add_table(tmp_path / 'table.toml')
  sources = {
    'slices_function': seqio.FunctionDataSource(of_function, ('train', 'validation')),
    'slices_lines': seqio.TextLineDataSource(
      {s: str(tmp_path / f'{s}.txt') for s in ('train', 'validation')}
    ),
  }
  both = seqio.map_over_dataset(
    lambda row: row if isinstance(row, dict) else {'inputs': row, 'targets': row}
  )
  for name, source in sources.items():
    seqio.TaskRegistry.add(
      name,
      source=source,
      preprocessors=[both, *features.TOKENIZE_AND_APPEND_EOS],
      output_features=features.OUTPUT_FEATURES,
      metric_fns=[exact_match.exact_match],
    )
    names.append(name)
  yield [*names, 'cldr.yor']
  for name in names:
    seqio.TaskRegistry.remove(name)


def inputs(name, split):
  (task,) = task_registry.tasks_with_split(seqio.TaskRegistry.get(name), split)
  rows = task.source.get_dataset(split=split, shuffle=False)
  found = number(rows.map(lambda row: row if isinstance(row, dict) else {'inputs': row}))
  assert task.source.num_input_examples(split) in (len(found), None)
  return found


def test_every_source_gives_slices_and_sums(tasks):
  for name in tasks:
    whole, other = inputs(name, 'train'), inputs(name, 'validation')
    assert inputs(name, 'train[1:4]') == whole[1:4], name
    assert inputs(name, 'train[:90%]') + inputs(name, 'train[90%:]') == whole
    assert inputs(name, 'train+validation[:2]') == whole + other[:2]


def test_a_slice_is_prepared_and_decoded_as_itself(tasks, tmp_path):
  for name in tasks[1:3]:
    (task,) = task_registry.tasks_with_split(seqio.TaskRegistry.get(name), 'train[:4]')
    manifest = prepared.prepare_task(name, 'train[:4]', tmp_path)
    assert manifest.num_examples == 4
    path = prepared.prepared_path(seqio.TaskRegistry.get(name), 'train[:4]', tmp_path)
    assert path == prepared.prepared_path(task, 'train[:4]', tmp_path)
    with task_registry.registered_with(task, 'train[:4]'):
      found = seqio.Evaluator(name, seqio.EncDecFeatureConverter(pack=False), 'train[:4]')
    assert int(found.cached_task_datasets[name].cardinality()) == 4
    assert 'train[:4]' not in seqio.TaskRegistry.get(name).splits


def test_our_own_sources_slice_for_plain_seqio_too(tasks):
  for name in ('slices_user', 'cldr.yor'):
    source = seqio.TaskRegistry.get(name).source
    assert len(number(source.get_dataset('train[:4]', shuffle=True))) == 4
    assert source.num_input_examples('train[:4]') == 4
    assert len(source.list_shards('train[:4]')) == 1


def test_a_split_that_a_task_lacks_is_refused_with_those_there_are(tasks):
  for split in ('dev[:4]', 'train+dev', 'dev'):
    with pytest.raises(ValueError, match=r"no split '.*' in task 'slices_user'; splits are"):
      task_registry.tasks_with_split(seqio.TaskRegistry.get('slices_user'), split)


def test_none_is_no_length():
  with pytest.raises(ValueError, match=r'TASK_FEATURE_LENGTHS must give a number of tokens'):
    infer_eval.InferEvalConfig('cldr', {'inputs': None, 'targets': 8})

"""The built set, and the tasks and mixtures over it."""

import itertools
import json
import pathlib

import numpy as np
import pytest
import seqio

from aya_train.tasks import features, storage
from aya_train.tasks.cldr import cldr_builder, cldr_facts, cldr_rows, cldr_tasks

SMALL = ('eng', 'nya')
LENGTHS = {'inputs': 64, 'targets': 64}


def built_files(data_dir):
  found = pathlib.Path(data_dir) / 'cldr_instructions' / '1.1.0'
  return {path.name: path.read_bytes() for path in found.iterdir()}


def test_the_manifest_beside_the_data_counts_it(cache, rows):
  manifest = json.loads(built_files(cache / 'tensorflow_datasets')['manifest.json'])
  assert manifest == json.loads(json.dumps(cldr_rows.manifest(rows)))
  builder, _ = cldr_builder.open_built()
  assert {s: i.num_examples for s, i in builder.info.splits.items()} == manifest['splits']
  assert builder.info.supervised_keys == ('inputs', 'targets')
  assert 'Unicode-3.0' in builder.info.redistribution_info.license
  assert set(builder.info.features) == set(cldr_rows.COLUMNS)
  assert cldr_tasks.build() == manifest


def test_two_builds_are_equal_to_the_byte(tmp_path):
  for name in 'ab':
    cldr_tasks.build(tmp_path / name, languages=SMALL)
  assert built_files(tmp_path / 'a') == built_files(tmp_path / 'b')


def test_a_half_built_set_is_not_read_and_is_completed(tmp_path):
  made = cldr_tasks.build(tmp_path, languages=SMALL)
  manifest = tmp_path / 'cldr_instructions' / '1.1.0' / 'manifest.json'
  manifest.unlink()
  with pytest.raises(FileNotFoundError, match='aya-train prepare cldr'):
    cldr_builder.open_built(tmp_path)
  assert cldr_tasks.build(tmp_path, languages=SMALL) == made
  assert manifest.exists()


def test_a_set_of_other_languages_is_not_passed_off(tmp_path):
  cldr_tasks.build(tmp_path, languages=SMALL)
  with pytest.raises(ValueError, match=r'of 2 languages, expected.* 1 languages'):
    cldr_tasks.build(tmp_path, languages=['eng'])


def test_an_unbuilt_set_names_the_command(tmp_path, monkeypatch):
  monkeypatch.setenv(storage.CACHE_ENV, str(tmp_path))
  task = seqio.get_mixture_or_task('cldr')
  for use in (
    lambda: task.get_dataset(LENGTHS, 'train'),
    lambda: task.num_input_examples('train'),
  ):
    with pytest.raises(FileNotFoundError, match=r'aya-train prepare cldr'):
      use()


def test_tasks_of_every_language_and_kind_are_registered():
  names = set(seqio.TaskRegistry.names())
  assert {f'cldr.{language.code}' for language in cldr_facts.COVERED} <= names
  assert {f'cldr_kind.{kind}' for kind in cldr_rows.KINDS} <= names
  assert 'cldr' in names
  assert 'cldr.hat' not in names


@pytest.mark.parametrize(
  ('name', 'column', 'value'),
  [
    ('cldr', None, None),
    ('cldr.yor', 'language_code', 'yor'),
    ('cldr_kind.date_format', 'kind', 'date_format'),
  ],
)
def test_a_task_yields_exactly_its_rows(cache, rows, name, column, value):
  task = seqio.get_mixture_or_task(name)
  expected = {
    (row.inputs, row.targets, row.language_code, row.kind)
    for row in rows
    if row.split == 'validation' and (column is None or getattr(row, column) == value)
  }
  found = [
    tuple(
      example[key].decode()
      for key in ('inputs_pretokenized', 'targets_pretokenized', 'language_code', 'kind')
    )
    for example in task.get_dataset(None, 'validation', shuffle=False).as_numpy_iterator()
  ]
  assert len(found) == len(expected) == task.num_input_examples('validation')
  assert set(found) == expected


def test_an_example_is_ids_with_eos(cache):
  task = seqio.get_mixture_or_task('cldr.amh')
  for example in itertools.islice(task.get_dataset(LENGTHS, 'train').as_numpy_iterator(), 20):
    for feature in ('inputs', 'targets'):
      ids = example[feature]
      assert ids.dtype == np.int32
      assert ids[-1] == 1
      assert not np.isin(ids[:-1], [0, 1, 2]).any()
      text = example[f'{feature}_pretokenized'].decode()
      assert ids[:-1].tolist() == features.VOCABULARY.encode(text)


def test_splits_and_shuffling(cache):
  task = seqio.get_mixture_or_task('cldr.yor')
  assert set(task.splits) == {'train', 'validation', 'test'}

  def order(seed):
    dataset = task.get_dataset(None, 'train', seed=seed)
    return [example['targets_pretokenized'] for example in dataset.as_numpy_iterator()]

  first, again, other = order(0), order(0), order(1)
  assert first == again != other
  assert sorted(first) == sorted(other)


def test_shards_share_out_a_split(cache):
  task = seqio.get_mixture_or_task('cldr.yor')
  parts = [
    [
      example['inputs_pretokenized']
      for example in task.get_dataset(
        None, 'train', shuffle=False, shard_info=seqio.ShardInfo(i, 3)
      ).as_numpy_iterator()
    ]
    for i in range(3)
  ]
  together = [text for part in parts for text in part]
  assert len(set(together)) == len(together) == task.num_input_examples('train')


def test_mixtures_weigh_what_they_say():
  mixture = seqio.get_mixture_or_task('cldr_languages')
  assert len(mixture.tasks) == 99
  assert {mixture.get_rate(task) for task in mixture.tasks} == {1.0}
  smoke = seqio.get_mixture_or_task('cldr_smoke')
  rates = {task.name.removeprefix('cldr_kind.'): smoke.get_rate(task) for task in smoke.tasks}
  assert rates == cldr_tasks.SMOKE_RATES
  assert set(rates) == set(cldr_rows.KINDS)


def test_metrics_of_a_task_read_the_language(cache):
  task = seqio.get_mixture_or_task('cldr_kind.weekday_name')
  examples = list(task.get_dataset(None, 'validation', shuffle=False).as_numpy_iterator())

  def processed(texts, is_target):
    pairs = zip(texts, examples, strict=True)
    return [task.postprocess_fn(t, example=e, is_target=is_target) for t, e in pairs]

  targets = [example['targets_pretokenized'].decode() for example in examples]
  decoded = [features.VOCABULARY.decode(example['targets'].tolist()) for example in examples]
  (metric_fn,) = task.metric_fns
  right = metric_fn(processed(targets, True), processed(decoded, False))
  assert right['exact_match'] == right['exact_match/yor'] == 100.0
  assert len(right) == 1 + 99
  wrong = [
    '' if e['language_code'] == b'yor' else t for t, e in zip(decoded, examples, strict=True)
  ]
  scores = metric_fn(processed(targets, True), processed(wrong, False))
  assert scores['exact_match/yor'] == 0.0
  assert scores['exact_match'] == pytest.approx(100 * 98 / 99)

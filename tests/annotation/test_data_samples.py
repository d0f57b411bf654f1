import collections

import pytest
import seqio
import tensorflow as tf

from aya_train.annotation import data_samples
from tests import seqio_tasks

ROWS = [  # of many languages, one of them rare, from two data sets
  (f'i{n}', f't{n}', ('yor', 'arb', 'yor', 'yor')[n % 4] if n else 'tha', f'd{n % 2}')
  for n in range(60)
]


def add_task(name):
  names = ('inputs', 'targets', 'language_code', 'dataset')
  columns = {name: [row[i] for row in ROWS] for i, name in enumerate(names)}

  def dataset(split, shuffle_files, seed=None):
    del split, shuffle_files, seed
    return tf.data.Dataset.from_tensor_slices(columns)

  seqio.TaskRegistry.remove(name)
  feature = seqio.Feature(seqio_tasks.VOCABULARY)
  seqio.TaskRegistry.add(
    name,
    source=seqio.FunctionDataSource(dataset, splits=['train']),
    preprocessors=[*seqio_tasks.APPEND_EOS],
    output_features={'inputs': feature, 'targets': feature},
  )


@pytest.fixture(autouse=True)
def mixture():
  for name in ('annotated_one', 'annotated_two'):
    add_task(name)
  seqio.MixtureRegistry.remove('annotated')
  seqio.MixtureRegistry.add('annotated', ['annotated_one', 'annotated_two'], default_rate=1.0)
  yield
  seqio.MixtureRegistry.remove('annotated')


def test_each_source_and_language_has_its_rows_spread_over_data_sets():
  found = data_samples.of_mixture('annotated', each=6, seed=0)
  counts = collections.Counter((row.source, row.language) for row in found)
  assert counts == {
    (name, language): 1 if language == 'tha' else 6
    for name in ('annotated_one', 'annotated_two')
    for language in ('yor', 'ara', 'tha')
  }
  assert len({*found}) == len(found)
  yor = [r.inputs for r in found if (r.source, r.language) == ('annotated_one', 'yor')]
  datasets = {i: d for i, _, _, d in ROWS}
  assert {*collections.Counter(datasets[i] for i in yor).values()} == {3}


def test_the_seed_draws_the_sample():
  one, again, other = (data_samples.of_mixture('annotated', each=6, seed=s) for s in (0, 0, 1))
  assert one == again and one != other


def test_languages_are_chosen_by_any_code():
  found = data_samples.of_mixture('annotated', each=3, seed=0, languages=['ar'])
  assert {row.language for row in found} == {'ara'}
  with pytest.raises(ValueError, match=r"no rows of text of the languages \['hau'\]"):
    data_samples.of_mixture('annotated', each=3, seed=0, languages=['ha'])


def test_every_row_of_a_task_is_as_likely_and_no_more_are_read_than_asked():
  drawn = collections.Counter(
    row.inputs
    for seed in range(30)
    for row in data_samples.of_mixture('annotated_one', each=4, seed=seed, rows_looked_at=20)
    if row.language == 'yor'
  )
  assert {*drawn} == {i for i, _, language, _ in ROWS[:20] if language == 'yor'}
  assert max(drawn.values()) < 20


def test_a_source_of_plain_lines_is_read_as_its_task_makes_it():
  seqio_tasks.add_task('annotated_plain', {'train': [('a', 'b')]})
  [row] = data_samples.of_mixture('annotated_plain', each=4, seed=0)
  assert (row.inputs, row.targets, row.language) == ('a', 'b', '')

import collections

import pytest
import seqio

from aya_train.annotation import data_samples
from tests import seqio_tasks


@pytest.fixture(autouse=True)
def languages():
  name = 'annotated_languages'
  seqio.MixtureRegistry.remove(name)
  seqio.MixtureRegistry.add(name, ['cldr.yor', 'cldr.heb', 'cldr.amh'], default_rate=1.0)
  yield
  seqio.MixtureRegistry.remove(name)


def test_each_source_and_language_has_its_rows_spread_over_data_sets(cache):
  found = data_samples.of_mixture('annotated_languages', each=6, seed=0)
  counts = collections.Counter(row.language for row in found)
  assert counts == {'amh': 6, 'heb': 6, 'yor': 6}
  again = data_samples.of_mixture('annotated_languages', each=6, seed=0)
  other = data_samples.of_mixture('annotated_languages', each=6, seed=1)
  assert found == again and found != other
  assert all(row.source and row.inputs and row.targets for row in found)


def test_languages_are_chosen_by_any_code(cache):
  found = data_samples.of_mixture('annotated_languages', each=3, seed=0, languages=['yo'])
  assert {row.language for row in found} == {'yor'}
  with pytest.raises(ValueError, match=r"no rows of text of the languages \['tha'\]"):
    data_samples.of_mixture('annotated_languages', each=3, seed=0, languages=['th'])


def test_every_row_of_a_task_is_as_likely():
  seqio_tasks.add_task('annotated_rows', {'train': [(f'i{n}', f't{n}') for n in range(10)]})
  drawn = collections.Counter(
    row.inputs
    for seed in range(60)
    for row in data_samples.of_mixture('annotated_rows', each=2, seed=seed)
  )
  assert len(drawn) == 10 and max(drawn.values()) < 30

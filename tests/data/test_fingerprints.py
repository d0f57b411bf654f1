"""A task's fingerprint depends on what it does, and not on where its code stands."""

import importlib
import sys

import pytest
import seqio

from aya_train.data import fingerprints

SOURCE = """
import dataclasses
import functools
import seqio

OUTPUT_FEATURES = {
  f: seqio.Feature(seqio.ByteVocabulary(extra_ids=0)) for f in ('inputs', 'targets')
}


def lower(dataset, limit):
  return dataset.take(limit + CHANGE)


@dataclasses.dataclass(frozen=True)
class Keep:
  limit: int

  def __call__(self, dataset):
    return dataset.take(self.limit + CHANGE)


class Lines(seqio.DataSource):
  def __init__(self, limit):
    super().__init__(splits=('train',))
    self.limit = limit

  @property
  def supports_arbitrary_sharding(self):
    return False

  def list_shards(self, split):
    return ['one']

  def get_dataset(self, **unused):
    raise NotImplementedError


def task():
  doubled = 2 * LIMIT
  return seqio.Task(
    'fingerprinted',
    source=Lines(LIMIT),
    preprocessors=[functools.partial(lower, limit=LIMIT), Keep(LIMIT), lambda ds: ds.take(doubled)],
    output_features=OUTPUT_FEATURES,
  )
"""


@pytest.fixture
def definition(tmp_path, monkeypatch):
  """A function from a module's name, and what differs in it, to its task's fingerprint."""
  monkeypatch.syspath_prepend(tmp_path)
  made = []

  def of(name, limit=3, change=0):
    folder = tmp_path.joinpath(*name.split('.')[:-1])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{name.split(".")[-1]}.py'
    path.write_text(SOURCE.replace('LIMIT', str(limit)).replace('CHANGE', str(change)))
    importlib.invalidate_caches()
    made.append(name)
    return fingerprints.definition_fingerprint(importlib.import_module(name).task())

  yield of
  for name in made:
    sys.modules.pop(name, None)


def test_moving_code_keeps_what_is_prepared(definition):
  assert definition('fingerprinted_here') == definition('fingerprinted_room.moved.there')


@pytest.mark.parametrize('difference', [{'limit': 4}, {'change': 1}])
def test_other_arguments_and_other_code_are_another_definition(definition, difference):
  assert definition('fingerprinted_one') != definition('fingerprinted_other', **difference)


def test_a_callable_counts_by_its_code_and_arguments(definition):
  definition('fingerprinted_before'), definition('fingerprinted_after', change=1)
  before, after = (sys.modules[f'fingerprinted_{when}'] for when in ('before', 'after'))
  assert fingerprints._describe(before.Keep(3)) == fingerprints._describe(before.Keep(3))
  assert fingerprints._describe(before.Keep(3)) != fingerprints._describe(before.Keep(4))
  assert fingerprints._describe(before.Keep(3)) != fingerprints._describe(after.Keep(3))


def test_a_source_counts_by_its_name_and_arguments(definition):
  definition('fingerprinted_sources')
  module = sys.modules['fingerprinted_sources']
  assert fingerprints._describe(module.Lines(1)) == fingerprints._describe(module.Lines(1))
  assert fingerprints._describe(module.Lines(1)) != fingerprints._describe(module.Lines(2))
  assert isinstance(module.Lines(1), seqio.DataSource)

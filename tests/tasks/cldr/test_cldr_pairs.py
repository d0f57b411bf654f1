"""Names of one thing in two languages; what a test pair names, no training pair names."""

from aya_train.tasks.cldr import cldr_pairs


def test_entities_of_the_splits_are_apart():
  found = {split: {*cldr_pairs.names(split)} for split in ('train', 'validation', 'test')}
  assert min(map(len, found.values())) > 20
  names = [name for split in found.values() for _, name in split]
  assert len(names) == sum(map(len, found.values()))
  entities = {split: {name for _, name in of} for split, of in found.items()}
  assert not entities['train'] & (entities['test'] | entities['validation'])
  assert not entities['test'] & entities['validation']


def test_a_pair_names_one_thing_in_two_languages():
  pairs = list(cldr_pairs.read('test'))
  names = cldr_pairs.names('test')
  assert pairs == list(cldr_pairs.read('test'))
  for pair in pairs:
    _, category, entity = pair.group.split(' ', 2)
    of = names[category, entity]
    assert of[pair.language] == pair.query
    assert pair.target in of.values()
  assert {pair.source for pair in pairs} == {*cldr_pairs.CATEGORIES}

import collections

import pytest

from aya_train.annotation import answer_pairs, batches


def answered(count, language='yor', systems=('good', 'bad')):
  return [
    answer_pairs.Answered(
      'task', i, None, language, f'prompt {i}', {s: f'{s} answer {i}' for s in systems}
    )
    for i in range(count)
  ]


def systems_of(item):
  return batches.revealed(item.key)['systems']


def test_the_same_seed_gives_the_same_batch_and_another_one_another():
  one, again, other = (batches.pairs(answered(50), 20, seed) for seed in (1, 1, 2))
  assert one == again
  assert {i.prompt for i in one} != {i.prompt for i in other}
  assert len(one) == 20


def test_the_key_tells_whose_answers_are_shown_and_their_order_is_even():
  items = batches.pairs(answered(400), 400, 0)
  for item in items:
    assert [text.split()[0] for text in item.texts] == systems_of(item)
  first = collections.Counter(systems_of(item)[0] for item in items)
  assert 160 < first['good'] < 240


def test_nothing_that_is_shown_names_a_system():
  rows = [
    answer_pairs.Answered('t', 0, None, 'yor', 'prompt', {'secret-one': 'x', 'secret-two': 'y'})
  ]
  [item] = batches.pairs(rows, 1, 0)
  assert 'secret' not in str(item) and 'secret' not in str(item.to_page())


def test_a_larger_sample_does_not_turn_the_order_of_a_pair():
  small = {i.prompt: systems_of(i) for i in batches.pairs(answered(60), 20, 3)}
  large = {i.prompt: systems_of(i) for i in batches.pairs(answered(60), 60, 3)}
  assert small.items() <= large.items()


def test_every_two_of_several_systems_meet_on_the_same_prompts():
  items = batches.pairs(answered(30, systems='abc'), 10, 0)
  met = collections.Counter(frozenset(systems_of(item)) for item in items)
  assert set(met.values()) == {10} and len(met) == 3
  assert len({item.prompt for item in items}) == 10


def test_a_batch_a_language_or_one_for_all():
  rows = [*answered(3, 'arb'), *answered(3, 'tha'), *answered(2, '')]
  items = batches.pairs(rows, 10, 0)
  assert [(b.language, len(b.items)) for b in batches.split('pairs', items, False)] == [
    ('', 2),
    ('ara', 3),
    ('tha', 3),
  ]
  [together] = batches.split('pairs', items, True)
  assert (together.language, len(together.items)) == ('', 8)
  assert len({item.id for item in items}) == 8


def test_what_is_no_key_is_refused():
  for key in ('', 'x', batches.hidden({'a': 1})[:-3], None):
    with pytest.raises(ValueError, match='key'):
      batches.revealed(key)
  assert batches.revealed(batches.hidden({'ቁልፍ': ['"', '\u2028']})) == {'ቁልፍ': ['"', '\u2028']}

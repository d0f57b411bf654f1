"""Ids of texts, rows without texts, and lengths that are no pair."""

import numpy as np
import pytest

from aya_train.data import pair_converter

CONVERTER = pair_converter.PairFeatureConverter()


def test_ids_are_those_of_the_text_whatever_its_padding():
  rng = np.random.default_rng(0)
  short = rng.integers(1, 250_000, (500, 6)).astype(np.int32)
  long = np.pad(short, ((0, 0), (0, 11)))
  np.testing.assert_array_equal(pair_converter.text_ids(short), pair_converter.text_ids(long))
  assert len({*map(tuple, pair_converter.text_ids(short).tolist())}) == 500
  turned = pair_converter.text_ids(short[:, ::-1].copy())
  assert not np.any(np.all(turned == pair_converter.text_ids(short), axis=1))


def test_a_text_of_nothing_but_its_end_is_none():
  rows = {
    'inputs': np.array([[5, 1], [1, 0], [5, 1], [0, 0]], np.int32),
    'targets': np.array([[5, 1], [5, 1], [1, 0], [0, 0]], np.int32),
  }
  batch = CONVERTER.convert(rows, packed=False)
  np.testing.assert_array_equal(batch['example_weights'], [1, 0, 0, 0])
  np.testing.assert_array_equal(batch['sources'], np.zeros(4))
  np.testing.assert_array_equal(batch['inputs_id'][0], batch['targets_id'][0])


def test_labels_are_source_and_group():
  rows = {n: np.array([[5, 1]], np.int32) for n in ('inputs', 'targets')}
  batch = CONVERTER.convert({**rows, 'labels': np.array([[3, 8]], np.int32)}, packed=False)
  assert (batch['sources'].tolist(), batch['groups'].tolist()) == ([3], [8])
  assert 'labels_id' not in batch


@pytest.mark.parametrize(
  ('lengths', 'pack', 'said'),
  [
    ({'inputs': 4}, False, 'inputs and targets'),
    ({'inputs': 4, 'targets': 4, 'negative_2': 4}, False, 'negative_1'),
    ({'inputs': 4, 'targets': 4, 'negatives': 4}, False, 'negative_1'),
    ({'inputs': 4, 'targets': 4, 'labels': 1}, False, "'labels'"),
    ({'inputs': 4, 'targets': 4}, True, 'PACK = False'),
  ],
)
def test_what_is_no_pair_is_refused(lengths, pack, said):
  with pytest.raises(ValueError, match=said):
    CONVERTER.check(lengths, pack=pack)


def test_as_many_negatives_as_are_named_are_taken():
  lengths = {'inputs': 4, 'targets': 4, 'negative_1': 4, 'negative_2': 6, 'labels': 2}
  CONVERTER.check(lengths, pack=False)
  assert pair_converter.negatives_of(lengths) == ['negative_1', 'negative_2']

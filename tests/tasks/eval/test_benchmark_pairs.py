"""Benchmarks as pairs, of the real files where they are there."""

import pathlib

import pytest
import seqio

from aya_train.tasks.eval import benchmark_pairs, eval_releases

DATA = pathlib.Path(__file__).resolve().parents[4] / 'shared' / 'data'


@pytest.fixture(autouse=True)
def data():
  if not DATA.exists():
    pytest.skip(f'no real files at {DATA}')
  eval_releases.set_eval_data_dir(DATA)
  yield
  eval_releases.set_eval_data_dir(None)


def pairs(name, split):
  return list(seqio.TaskRegistry.get(name).source.pairs(split))


@pytest.mark.parametrize(
  ('name', 'split', 'count'),
  [
    ('sib200.swa.pairs', 'validation', 99),
    ('sib200.yor.pairs', 'validation', 99),
    ('tatoeba.jpn.pairs', 'test', 1000),
    ('afriqa.yor.retrieval', 'train', None),
  ],
)
def test_real_files(name, split, count):
  found = pairs(name, split)
  assert len(found) == count if count else found
  assert all(pair.query.strip() and pair.target.strip() for pair in found)
  assert len({pair.source for pair in found}) == 1


def test_the_same_sentence_has_one_group_in_all_languages():
  one, other = (pairs(f'sib200.{code}.pairs', 'validation') for code in ('swa', 'yor'))
  assert {pair.group for pair in one} == {pair.group for pair in other}
  english = {pair.group: pair.target for pair in one}
  assert all(english[pair.group] == pair.target for pair in other)


def test_every_mixture_is_there():
  names = ['sib200', 'nusax', 'tatoeba', 'xquad', 'tydiqa', 'afriqa']
  assert [mixture.split('.')[0] for mixture in benchmark_pairs.MIXTURES] == names
  for mixture in benchmark_pairs.MIXTURES:
    assert len(seqio.MixtureRegistry.get(mixture).tasks) > 1

"""Scores of options are those of one row an option, whatever the batch and the devices."""

import jax
import numpy as np
import pytest

from aya_train import finiteness, model_answers, partitioning
from aya_train.data import feature_converters
from tests import tiny

LIMIT = 64


def partitioner(devices=1):
  return partitioning.Partitioner(
    {'data': devices, 'model': 1},
    partitioning.standard_logical_axis_rules(),
    jax.devices()[:devices],
  )


def answers(model, params, batch_size=4, devices=1):
  made = model_answers.ModelAnswers(model, partitioner(devices), batch_size, seed=0)
  made.params = params
  return made


@pytest.fixture(scope='module')
def setup():
  model = tiny.model()
  return model, tiny.params(model)


def draw(count=11, seed=0):
  rng = np.random.default_rng(seed)

  def ids(low, high):
    return rng.integers(2, 96, rng.integers(low, high)).astype(np.int32)

  return [
    model_answers.Scored(ids(1, LIMIT), [ids(1, 9) for _ in range(rng.integers(3, 5))])
    for _ in range(count)
  ]


def row_by_row(model, params, questions):
  """The scores of T5X: a row an option, each with an encoder of its own."""
  lengths = {'inputs': LIMIT, 'targets': 9}
  pairs = [{'inputs': q.inputs, 'targets': t} for q in questions for t in q.targets]
  rows = feature_converters.padded(pairs, lengths)
  batch = feature_converters.EncDecFeatureConverter().convert(rows, packed=False)
  found = iter(np.asarray(jax.jit(model.score_batch)(params, batch)))
  return [[next(found) for _ in q.targets] for q in questions]


@pytest.fixture(scope='module')
def expected(setup):
  return row_by_row(*setup, draw())


@pytest.fixture(scope='module')
def shared(setup):
  """Its programs are compiled once for all tests that ask it for batches of one shape."""
  return answers(*setup)


def same(found, expected):
  for mine, theirs in zip(found, expected, strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-5)
    assert np.argmax(mine) == np.argmax(theirs)


def test_scores_of_options_are_those_of_one_row_an_option(shared, expected):
  same(shared.score(draw(4), limit=LIMIT), expected[:4])


@pytest.mark.heavy
def test_a_kernel_of_attention_gives_the_same_scores(setup, expected):
  model = tiny.model(attention_kernel='interpreted')
  same(answers(model, setup[1]).score(draw(4), limit=LIMIT), expected[:4])


@pytest.mark.parametrize(('batch_size', 'devices'), [(1, 1), (7, 1), (32, 1), (7, 8)])
def test_scores_depend_on_no_batch_and_no_device(setup, expected, batch_size, devices, monkeypatch):
  if jax.device_count() < devices:
    pytest.skip(f'needs {devices} devices')
  if batch_size == 1:  # one program for all
    monkeypatch.setattr(model_answers, '_NARROWEST_INPUTS', LIMIT)
    monkeypatch.setattr(model_answers, '_NARROWEST_OPTIONS', 32)
  answerer = answers(*setup, batch_size, devices)
  questions, found = draw(), []
  for start in range(0, len(questions), batch_size):
    found += answerer.score(questions[start : start + batch_size], limit=LIMIT)
  same(found, expected)


def test_logits_of_a_part_of_the_positions_are_in_memory_at_a_time(setup, expected, monkeypatch):
  monkeypatch.setattr('aya_train.objectives.seq2seq.SCORED_POSITIONS', 8)
  same(answers(*setup).score(draw(4), limit=LIMIT), expected[:4])


def test_many_options_go_into_several_rows_in_their_order():
  targets = [np.full(n, n, np.int32) for n in (300, 200, 100, 600, 1)]
  parts = model_answers.in_rows(np.array([5], np.int32), targets)
  assert [[len(t) for t in part.targets] for part in parts] == [[300, 200], [100], [600], [1]]


def test_an_option_without_tokens_has_probability_one(shared):
  first, second, *others = draw(4)
  empty = np.zeros(0, np.int32)
  with_others = model_answers.Scored(first.inputs, [empty, *first.targets[:3]])
  alone = model_answers.Scored(second.inputs, [empty])
  found = shared.score([with_others, alone, *others], limit=LIMIT)
  assert found[0][0] == 0.0 > max(found[0][1:])
  assert found[1] == [0.0]


def test_scores_that_are_not_finite_are_refused(setup, shared, monkeypatch):
  _, params = setup
  head = {'kernel': params['decoder']['logits_dense']['kernel'] * np.inf}
  huge = {**params, 'decoder': {**params['decoder'], 'logits_dense': head}}
  monkeypatch.setattr(shared, 'params', huge)
  with pytest.raises(finiteness.NonFiniteError, match=r'log-likelihoods of \d of 4 answers'):
    shared.score(draw(4), limit=LIMIT)

import dataclasses

import jax
import numpy as np
import pytest
import seqio

from aya_train import infer_eval, partitioning
from tests import seqio_tasks, tiny

LENGTHS = {'inputs': 40, 'targets': 6}


@pytest.fixture(scope='module')
def setup():
  vocabulary = seqio_tasks.VOCABULARY
  model = tiny.model(vocab_size=vocabulary.vocab_size)
  model = dataclasses.replace(model, input_vocabulary=vocabulary, output_vocabulary=vocabulary)
  partitioner = partitioning.Partitioner(
    {'data': 1, 'model': 1}, partitioning.standard_logical_axis_rules(), jax.devices()[:1]
  )
  return model, tiny.params(model), partitioner


def test_an_answer_does_not_depend_on_the_other_prompts(setup):
  model, params, partitioner = setup
  prompts = ['a', 'b' * 30, 'cde', 'f' * 60]
  options = {'lengths': LENGTHS, 'partitioner': partitioner}
  together = infer_eval.decode_prompts(model, params, prompts, batch_size=4, **options)
  alone = infer_eval.decode_prompts(model, params, prompts, batch_size=1, **options)
  assert together == alone
  assert len({tuple(answer) for answer in together}) > 1


@pytest.mark.parametrize('batch_size', [1, 4])
def test_predictions_come_back_with_their_own_targets(setup, batch_size):
  model, params, partitioner = setup
  pairs = [('x' * n, str(n)) for n in (9, 1, 30, 2, 17, 3)]
  seen = {}

  def record(targets, predictions):
    seen.update(zip(targets, predictions, strict=True))
    return {'count': float(len(targets))}

  seqio_tasks.add_task('tests.evaluation', {'validation': pairs}, metric_fns=[record])
  config = infer_eval.InferEvalConfig('tests.evaluation', LENGTHS, batch_size=batch_size)
  try:
    result = infer_eval.InferEvaluator(model, partitioner, config).evaluate(params, 0)
  finally:
    seqio.TaskRegistry.remove('tests.evaluation')
  expected = infer_eval.decode_prompts(
    model,
    params,
    [text for text, _ in pairs],
    lengths=LENGTHS,
    batch_size=1,
    partitioner=partitioner,
  )
  assert result == {'tests.evaluation': {'count': 6.0}}
  decode = seqio_tasks.VOCABULARY.decode
  assert seen == {
    target: decode(answer) for (_, target), answer in zip(pairs, expected, strict=True)
  }


def test_widths_hold_their_rows_and_are_few():
  widths = [infer_eval.input_width(n, 100) for n in range(1, 101)]
  assert all(w >= n for n, w in enumerate(widths, start=1))
  assert sorted(set(widths)) == [32, 64, 100]
  assert np.all(np.diff(widths) >= 0)

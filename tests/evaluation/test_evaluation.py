import dataclasses

import jax
import numpy as np
import pytest
import seqio

from aya_train import finiteness, model_answers, partitioning
from aya_train.evaluation import eval_answers, evaluation, infer_eval, infer_evaluator
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
  together = eval_answers.decode_prompts(model, params, prompts, batch_size=4, **options)
  alone = eval_answers.decode_prompts(model, params, prompts, batch_size=1, **options)
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
    result = infer_evaluator.InferEvaluator(model, partitioner, config).evaluate(params, 0)
  finally:
    seqio.TaskRegistry.remove('tests.evaluation')
  expected = eval_answers.decode_prompts(
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
  widths = [model_answers.input_width(n, 100) for n in range(1, 101)]
  assert all(w >= n for n, w in enumerate(widths, start=1))
  assert sorted(set(widths)) == [32, 64, 100]
  assert np.all(np.diff(widths) >= 0)


SUMS = {
  **{name: np.float32(1) for name in ('loss', 'z_loss', 'cross_entropy', 'correct', 'examples')},
  **{name: np.float32(4) for name in ('denominator', 'target_tokens', 'real_tokens', 'all_tokens')},
  'steps': np.float32(1),
}


@pytest.mark.parametrize(
  ('change', 'error', 'message'),
  [
    ({'loss': np.float32(np.nan)}, finiteness.NonFiniteError, r'of 2 batches: loss is nan\. '),
    ({'cross_entropy': np.float32(np.inf)}, finiteness.NonFiniteError, 'loss_per_target_token is'),
    ({'target_tokens': np.float32(0)}, ValueError, r'the target tokens of 2 batches is 0'),
    ({'denominator': np.float32(0)}, ValueError, r'the denominator of 2 batches is 0'),
  ],
)
def test_a_validation_that_is_not_finite_or_of_nothing_is_no_figure(change, error, message):
  partitioner = partitioning.one_device()
  batch = {'x': np.zeros((1, 1), np.int32)}
  with pytest.raises(error, match=message):
    evaluation.train_eval(
      tiny.model(), lambda params, batch: {**SUMS, **change}, None, [batch] * 2, partitioner
    )


def test_answers_without_a_finite_log_likelihood_are_refused(setup):
  model, params, partitioner = setup
  head = {'kernel': params['decoder']['logits_dense']['kernel'] + 3e38}
  huge = {**params, 'decoder': {**params['decoder'], 'logits_dense': head}}
  with pytest.raises(finiteness.NonFiniteError, match=r'log-likelihoods of \d of 2 answers'):
    eval_answers.decode_prompts(
      model, huge, ['a', 'b'], lengths=LENGTHS, partitioner=partitioner, batch_size=4
    )

"""Generated tasks through SeqIO's own evaluator, with answers that are known."""

import dataclasses

import jax
import numpy as np
import pytest
import seqio

from aya_train import partitioning
from aya_train.evaluation import infer_eval, infer_evaluator
from aya_train.tasks import eval_tasks, features
from tests import tiny
from tests.tasks.eval import benchmark_files

SMALL = 't5_vocab/t5_vocab'
AFRICAN = 'afriteva_vocab/sentencepiece.bpe.model'


@pytest.fixture(autouse=True)
def vocabulary():
  benchmark_files.need('t5_vocab')
  features.set_vocabulary(benchmark_files.SHARED / SMALL)
  with benchmark_files.in_force(benchmark_files.SHARED):
    yield
  features.set_vocabulary(None)


def evaluate(name, split, answer, num_examples=None):
  """Metrics of a task whose answers are `answer(example)` as text."""
  texts = {}

  def predict(dataset, *_):
    examples = list(dataset.as_numpy_iterator())
    return [(int(i), texts[int(i)]) for i, _ in examples]

  evaluator = seqio.Evaluator(
    mixture_or_task_name=name,
    feature_converter=seqio.EncDecFeatureConverter(pack=False),
    eval_split=split,
    sequence_length={'inputs': 256, 'targets': 128},
    num_examples=num_examples,
    logger_cls=[],
  )
  for i, example in enumerate(evaluator.cached_task_datasets[name].as_numpy_iterator()):
    tokens = [*features.VOCABULARY.encode(answer(example)), 1]
    texts[i] = np.pad(np.array(tokens, np.int32), (0, 128 - len(tokens)))
  metrics, _ = evaluator.evaluate(compute_metrics=True, predict_fn=predict)
  return metrics.result()[name]


def reference(example):
  return example['references'][0].decode()


@pytest.mark.parametrize(
  ('name', 'split', 'metric'),
  [
    ('mgsm.swa.direct', 'test', 'accuracy'),
    ('sib200.yor.topic', 'validation', 'accuracy'),
    ('nusax.sun.sentiment', 'validation', 'accuracy'),
  ],
)
def test_right_answers_have_the_published_figure_100(name, split, metric):
  assert eval_tasks.about(name).metric == metric
  figures = evaluate(name, split, reference, 20)
  assert figures[metric] == pytest.approx(100)


@pytest.mark.heavy
@pytest.mark.parametrize(
  ('name', 'split', 'metric'),
  [
    ('afriqa.hau.closed_book', 'train', 'f1'),
    ('afriqa.yor.passage', 'train', 'f1'),
    ('tydiqa.fin.extract_answer', 'validation', 'f1'),
    ('tydiqa.tel.whats_the_answer', 'validation', 'f1'),
    ('sib200.hau.translate.from_english', 'validation', 'chrf++'),
    ('nusax.ace.translate.to_indonesian', 'validation', 'chrf++'),
    ('tata.swa.describe', 'validation', 'chrf'),
  ],
)
def test_right_texts_have_it_too(name, split, metric):
  benchmark_files.need('afriteva_vocab')
  features.set_vocabulary(benchmark_files.SHARED / AFRICAN)
  assert evaluate(name, split, reference, 10)[metric] > 99


def test_wrong_answers_have_it_0():
  figures = evaluate('mgsm.swa.direct', 'test', lambda example: 'sijui', 10)
  assert figures['accuracy'] == 0


def test_fields_reach_the_metric_and_the_record():
  benchmark_files.need('winomt')
  task = seqio.TaskRegistry.get('winomt.deu.translate')
  dataset = task.get_dataset({'inputs': 64, 'targets': 64}, 'test', shuffle=False)
  example = next(dataset.as_numpy_iterator())
  target = task.postprocess_fn('', example=example, is_target=True)
  assert list(target) == []
  assert target.language == 'deu'
  assert target.fields['gender'] == 'female'
  assert target.fields['position'] == 1
  assert target.fields['stereotype'] == 'anti'
  assert target.fields['entity'] == 'developer'


def test_several_references_reach_the_metric():
  task = seqio.TaskRegistry.get('tata.swa.describe')
  dataset = task.get_dataset({'inputs': 64, 'targets': 64}, 'validation', shuffle=False)
  example = next(dataset.as_numpy_iterator())
  target = task.postprocess_fn('x', example=example, is_target=True)
  assert len(target) == len(example['references']) >= 3
  assert task.postprocess_fn('x', example=example, is_target=False) == 'x'


@pytest.mark.heavy
@pytest.mark.parametrize(
  ('name', 'split', 'figures'),
  [
    ('mgsm.swa.direct', 'test', {'accuracy', 'answered', 'answer_characters'}),
    ('nusax.min.translate.to_english', 'validation', {'chrf++', 'in_script', 'repeated_4grams'}),
    ('winomt.spa.translate', 'test', {'accuracy', 'delta_g', 'answer_characters'}),
  ],
)
def test_a_small_model_is_measured(name, split, figures):
  model = tiny.model(vocab_size=32_128)
  model = dataclasses.replace(
    model, input_vocabulary=features.VOCABULARY, output_vocabulary=features.VOCABULARY
  )
  partitioner = partitioning.Partitioner(
    {'data': 1, 'model': 1}, partitioning.standard_logical_axis_rules(), jax.devices()[:1]
  )
  lengths = {'inputs': 64, 'targets': 16}
  config = infer_eval.InferEvalConfig(name, lengths, split, batch_size=4, num_examples=8)
  evaluator = infer_evaluator.InferEvaluator(model, partitioner, config)
  found = evaluator.evaluate(tiny.params(model), 0)[name]
  assert figures <= {*found}
  assert 0 <= found.get('accuracy', 0) <= 100

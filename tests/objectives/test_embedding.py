"""Sentence encoders in the real step: gradients of parts and devices are those of one batch."""

import dataclasses

import flax.linen as nn
import gin
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_train import config, contrastive_losses, partitioning, train_loop, train_step
from aya_train.data import pair_converter
from aya_train.models import sentence_encoder, t5_config
from aya_train.objectives import embedding, objective


class Vocabulary:
  vocab_size, pad_id, eos_id = 100, 0, 1
  sentencepiece_model_file = ''

  def decode(self, ids):
    return ' '.join(map(str, ids))


CONFIG = t5_config.T5Config(
  vocab_size=128,
  emb_dim=8,
  num_heads=2,
  num_encoder_layers=1,
  num_decoder_layers=1,
  head_dim=4,
  mlp_dim=16,
  dropout_rate=0.0,
)
MODEL = embedding.EmbeddingModel(
  CONFIG,
  Vocabulary(),
  projection=6,
  temperature=0.2,
  learned_temperature=True,
  hardness=2.0,
  hardness_kind='all',
  false_negative_margin=-0.3,
  matryoshka_dimensions=(3,),
)
ROWS = 16


def batch(rows=ROWS, seed=0, query_length=6):
  rng = np.random.default_rng(seed)
  lengths = {'inputs': query_length, 'targets': 6, 'negative_1': 6, 'negative_2': 6}
  found = {n: rng.integers(2, 100, (rows, length)) for n, length in lengths.items()}
  found['negative_2'][3] = [1, *[0] * 5]  # a row with one negative
  found['inputs'][-1] = found['targets'][-1] = 0  # a row that only fills the batch
  found['labels'] = np.array([[1, 9 * (i in (2, 5))] for i in range(rows)])
  converter = pair_converter.PairFeatureConverter()
  return converter.convert({n: x.astype(np.int32) for n, x in found.items()}, packed=False)


@pytest.fixture(scope='module')
def params():
  return nn.unbox(MODEL.initial_variables(jax.random.key(0)))


def gradient_of(model, params, arrays, parts, key=1):
  step = jax.jit(lambda p, b: train_step.gradients(model, p, b, jax.random.key(key), parts))
  return step(params, arrays)


@pytest.fixture(scope='module')
def whole(params):
  return gradient_of(MODEL, params, batch(), 1)


def assert_same(one, other, rtol=2e-4):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(np.abs(a).max())),
    *map(jax.device_get, (one, other)),
  )


def test_gradient_is_that_of_the_loss_of_all_rows(params, whole):
  arrays = batch()

  def loss(params):
    encoder = MODEL.encoder
    vectors = [encoder.embed(params, arrays[n]) for n in ('inputs', 'targets')]
    wrong = [encoder.embed(params, arrays[n]) for n in ('negative_1', 'negative_2')]
    weights = arrays['example_weights']
    texts = contrastive_losses.Texts(
      weights,
      arrays['inputs_id'],
      arrays['targets_id'],
      np.stack([arrays['negative_1_id'], arrays['negative_2_id']], axis=1),
      np.stack([weights, weights * (np.arange(ROWS) != 3)], axis=1),
      arrays['sources'],
      arrays['groups'],
    )
    terms = contrastive_losses.row_terms(
      contrastive_losses.Vectors(*vectors, jnp.stack(wrong, axis=1)),
      texts,
      jnp.exp(params['log_temperature']),
      MODEL.contrast,
    )
    return jnp.sum(terms['loss']) / (ROWS - 1)

  value, gradient = jax.jit(jax.value_and_grad(loss))(params)
  assert_same(whole[0], gradient)
  assert float(whole[1]['loss']) == pytest.approx(float(value), rel=1e-5)
  assert abs(float(gradient['log_temperature'])) > 1e-3


def test_parts_give_the_gradient_and_the_sums_of_the_whole(params, whole):
  assert_same(whole, gradient_of(MODEL, params, batch(), 4))


def test_parts_need_no_negatives(params):
  arrays = {name: x for name, x in batch().items() if not name.startswith('negative')}
  step = lambda p, b: train_step.gradients(MODEL, p, b, jax.random.key(1), 4)
  found, sums = jax.eval_shape(step, params, arrays)
  assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, params)
  assert {x.shape for x in sums.values()} == {()}


@pytest.mark.heavy
def test_parts_draw_the_same_dropout_twice(params):
  # Were it drawn anew, the surrogate's gradient would not be that of any loss: a step along it
  # changes the loss as a difference says only if both passes have the same vectors.
  config = dataclasses.replace(CONFIG, dropout_rate=0.3)
  model = dataclasses.replace(MODEL, network=config, false_negative_margin=None, hardness=0.0)
  arrays = batch(query_length=4)  # goes through the encoder by itself
  step = jax.jit(lambda p: train_step.gradients(model, p, arrays, jax.random.key(1), 4))
  gradient, _ = step(params)
  size = 1e-3
  norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient)))
  losses = [
    float(step(jax.tree.map(lambda p, g: p + s * size * g / norm, params, gradient))[1]['loss'])
    for s in (1, -1)
  ]
  assert (losses[0] - losses[1]) / (2 * size) == pytest.approx(float(norm), rel=0.02)


@pytest.mark.parametrize('parts', [pytest.param(1, marks=pytest.mark.heavy), 2])
def test_eight_devices_give_the_gradient_of_one(params, whole, parts):
  mesh = partitioning.Partitioner(
    {'data': 2, 'fsdp': 4, 'model': 1}, partitioning.fully_sharded_logical_axis_rules(True)
  )
  abstract, axes = objective.parameter_axes(MODEL)
  placed = jax.device_put(params, mesh.shardings(axes, abstract))
  step = mesh.jit(lambda p, b: train_step.gradients(MODEL, p, b, jax.random.key(1), parts))
  assert_same(whole, step(placed, mesh.to_global(batch())))


def test_evaluation_has_the_loss_of_the_batch(params, whole):
  sums = jax.jit(lambda p, b: train_step.eval_step(p, b, objective=MODEL))(params, batch())
  summary = MODEL.eval_summary(sums)
  assert summary['loss'] == pytest.approx(float(whole[1]['loss']), rel=1e-5)
  assert summary['examples'] == ROWS - 1
  assert summary['temperature'] == pytest.approx(0.2)
  assert 0 <= summary['accuracy'] <= 1


def test_vectors_are_means_over_tokens_of_length_one(params):
  encoder = MODEL.encoder
  tokens = np.array([[5, 6, 1, 0, 0], [7, 1, 0, 0, 0], [0] * 5], np.int32)
  vectors = encoder.embed(params, tokens)
  np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0], atol=1e-5)
  np.testing.assert_allclose(vectors[:1], encoder.embed(params, tokens[:1, :3]), rtol=1e-4)
  plain = sentence_encoder.SentenceEncoder(CONFIG)
  x = plain.embed(params, tokens)  # other parts of the tree are not looked at
  projected = np.asarray(x) @ np.asarray(params['projection']['kernel'])
  projected = projected[:2] / np.linalg.norm(projected[:2], axis=1, keepdims=True)
  np.testing.assert_allclose(projected, vectors[:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('scan', [True, False])
@pytest.mark.parametrize('per_layer', [True, False])
def test_the_tree_is_a_part_of_mt5s(scan, per_layer):
  from aya_train.models import network

  config = dataclasses.replace(CONFIG, scan_layers=scan, relpos_bias_per_layer=per_layer)
  whole, _ = network.parameter_axes(config)
  model = dataclasses.replace(MODEL, network=config)
  mine, axes = objective.parameter_axes(model)
  shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert shapes(mine['encoder']) == shapes(whole['encoder'])
  assert shapes(mine['token_embedder']) == shapes(whole['token_embedder'])
  assert {*mine} == {'encoder', 'token_embedder', 'projection', 'log_temperature'}
  assert mine['projection']['kernel'].shape == (8, 6)
  assert axes['log_temperature'] == ()
  names = ['encoder/x', 'token_embedder/embedding', 'projection/kernel', 'log_temperature']
  assert [model.is_shared(name) for name in names] == [True, True, False, False]


def test_a_run_says_all_that_makes_its_vectors():
  model = dataclasses.replace(MODEL, query_prompt='query: ', passage_prompt='passage: ')
  described = {
    'architecture': model.encoder.architecture(),
    'embedding': {
      'dimension': 6,
      'pooling': 'mean',
      'similarity': 'cosine',
      'temperature': 0.2,
      'matryoshka_dimensions': [3],
      'prompts': {'query': 'query: ', 'passage': 'passage: '},
    },
  }
  again = embedding.from_metadata(described, model.vocabulary)
  assert again.encoder.architecture() == model.encoder.architecture()
  assert (again.query_prompt, again.passage_prompt) == ('query: ', 'passage: ')
  assert again.matryoshka_dimensions == (3,)
  with pytest.raises(ValueError, match='no embedding model'):
    embedding.from_metadata({'architecture': CONFIG.architecture()}, model.vocabulary)
  with pytest.raises(ValueError, match='damaged'):
    embedding.from_metadata({'architecture': described['architecture']}, model.vocabulary)


@pytest.mark.parametrize(
  ('change', 'name'),
  [
    ({'temperature': 0.0}, 'TEMPERATURE_OF_SCORES'),
    ({'projection': 0}, 'PROJECTION'),
    ({'matryoshka_dimensions': (7,)}, 'MATRYOSHKA_DIMENSIONS'),
  ],
)
def test_what_makes_no_vectors_is_refused(change, name):
  with pytest.raises(ValueError, match=name):
    dataclasses.replace(MODEL, **change)


def test_a_batch_without_negatives_is_refused():
  lengths = {'inputs': 4, 'targets': 4}
  MODEL.check_batch(2, lengths)
  MODEL.check_batch(1, {**lengths, 'negative_1': 4})
  with pytest.raises(ValueError, match='BATCH_SIZE 1'):
    MODEL.check_batch(1, lengths)


def test_vectors_do_not_depend_on_the_order_of_names(params):
  """Loops of JAX sort names: `look_ahead` embeds what `sums` does, negative by negative."""
  rng = np.random.default_rng(0)
  names = ['inputs', 'targets', *(f'negative_{i + 1}' for i in range(11))]
  tokens = {name: jnp.asarray(rng.integers(2, 100, (3, 4)), jnp.int32) for name in names}
  model = dataclasses.replace(MODEL, network=dataclasses.replace(CONFIG, dropout_rate=0.3))
  one, other = (
    model._vectors(params, given, jax.random.key(1))
    for given in (tokens, dict(sorted(tokens.items())))
  )
  jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize('adapter', [False, True])
def test_the_recipe_trains_whole_encoders_alone(adapter, vocabulary_file, monkeypatch):
  """An adapter beside it would be left out in silence."""
  monkeypatch.setenv('AYA_TRAIN_VOCABULARY', str(vocabulary_file))
  files = ['models/mt5_tiny.gin', 'recipes/embed_smoke.gin', *['recipes/lora.gin'] * adapter]
  try:
    config.parse([*files, 'hardware/cpu_local.gin'], ['MODEL_DIR = "x"'], require_all=False)
    if adapter:
      with pytest.raises(ValueError, match=r'leave recipes/lora.gin out'):
        config.bound(train_loop.train)('model')
    else:
      model = config.bound(train_loop.train)('model')
      assert model.config.emb_dim == 128 and model.config.num_encoder_layers == 2
  finally:
    gin.clear_config()


def test_lines_tell_of_rows_without_a_negative():
  """Their loss is 0, which looks like the best of all."""
  summary = {'loss': 0.0, 'accuracy': 1.0, 'reverse_accuracy': 1.0, 'negatives': 0.0}
  summary |= {'examples_per_second': 3.0, 'alone': 0.25}
  for line in (MODEL.train_line(summary), MODEL.eval_line(summary)):
    assert '25.0 % of the pairs have no negative: nothing is learnt from them' in line
  assert 'no negative' not in MODEL.train_line({**summary, 'alone': 0.0})

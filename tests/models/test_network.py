import dataclasses
import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_train import decoding
from aya_train.models import layers, t5_config
from aya_train.objectives import objective
from tests import batches, tiny

LAYOUTS = pytest.mark.parametrize('scan_layers', [True, False], ids=['scanned', 'unrolled'])

RELPOS = pytest.mark.parametrize('per_layer', [False, True], ids=['mt5', 'umt5'])


def per_example_loss(model, params, batch):
  token = model.token_losses(params, batch, dropout_key=None)
  return token.cross_entropy * batch['decoder_loss_weights']


@LAYOUTS
@RELPOS
def test_packed_equals_unpacked(scan_layers, per_layer):
  model = tiny.model(scan_layers=scan_layers, relpos_bias_per_layer=per_layer)
  params = tiny.params(model)
  batch = batches.packed()
  loss = jax.jit(lambda p, b: per_example_loss(model, p, b))
  packed = np.asarray(loss(params, batch))
  unpacked = np.asarray(loss(params, batches.unpack(batch)))
  segments = batch['decoder_segment_ids']
  sums = [
    packed[row][segments[row] == segment].sum()
    for row in range(segments.shape[0])
    for segment in range(1, segments[row].max() + 1)
  ]
  np.testing.assert_allclose(sums, unpacked.sum(axis=1), rtol=2e-5)


def test_packed_gradients_equal_unpacked_gradients():
  model = tiny.model()
  params = tiny.params(model)
  batch = batches.packed()
  gradient = jax.jit(jax.grad(lambda p, b: per_example_loss(model, p, b).sum()))
  for a, b in zip(
    jax.tree.leaves(gradient(params, batch)),
    jax.tree.leaves(gradient(params, batches.unpack(batch))),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)


def test_padding_changes_nothing():
  model = tiny.model()
  params = tiny.params(model)
  batch = batches.packed()
  longer = {k: np.pad(v, ((0, 0), (0, 7))) for k, v in batch.items()}
  short, long = (np.asarray(per_example_loss(model, params, b)) for b in (batch, longer))
  np.testing.assert_allclose(long[:, : short.shape[1]], short, rtol=1e-5, atol=1e-6)
  assert (long[:, short.shape[1] :] == 0).all()


def test_a_target_does_not_see_its_future():
  model = tiny.model()
  params = tiny.params(model)
  batch = batches.unpack(batches.packed())

  def logits(tokens):
    return model.module.apply(
      {'params': params},
      batch['encoder_input_tokens'],
      tokens,
      np.ones_like(batch['decoder_target_tokens']),
      enable_dropout=False,
    )

  tokens = jnp.asarray(batch['decoder_input_tokens'])
  changed = logits(tokens.at[:, 5].set(50))
  before = logits(tokens)
  np.testing.assert_array_equal(before[:, :5], changed[:, :5])
  assert not np.allclose(before[:, 5:], changed[:, 5:])


@pytest.mark.parametrize('remat_policy', [pytest.param('minimal', marks=pytest.mark.heavy), 'full'])
@LAYOUTS
def test_rematerialisation_changes_no_gradient(remat_policy, scan_layers):
  batch = {k: jnp.asarray(v) for k, v in batches.packed().items()}
  gradients = []
  for policy in ('none', remat_policy):
    model = tiny.model(remat_policy=policy, scan_layers=scan_layers, dropout_rate=0.1)
    loss = lambda p, model=model: model.token_losses(
      p, batch, dropout_key=jax.random.key(1)
    ).cross_entropy.sum()
    gradients.append(jax.jit(jax.grad(loss))(tiny.params(model)))
  for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@LAYOUTS
@RELPOS
def test_cached_decoding_is_teacher_forced_argmax(scan_layers, per_layer):
  model = tiny.model(scan_layers=scan_layers, relpos_bias_per_layer=per_layer)
  params = tiny.params(model)
  inputs = batches.unpack(batches.packed())['encoder_input_tokens']
  batch = {'encoder_input_tokens': inputs}
  tokens, scores = jax.jit(lambda p: model.predict_batch(p, batch, max_decode_length=9))(params)
  tokens = np.asarray(tokens[:, 0])
  shifted = np.pad(tokens, ((0, 0), (1, 0)))[:, :-1]
  logits = model.module.apply(
    {'params': params}, inputs, shifted, np.ones_like(tokens), enable_dropout=False
  )
  real = tokens > 0
  np.testing.assert_array_equal(np.asarray(logits.argmax(-1))[real], tokens[real])
  likelihood = model.score_batch(
    params,
    {**batch, 'decoder_input_tokens': shifted, 'decoder_target_tokens': tokens},
  )
  # Random weights may pick id 0 before the end; scoring takes that for padding.
  clean = (np.maximum.accumulate(tokens == 1, axis=1) | real).all(axis=1)
  assert clean.any()
  np.testing.assert_allclose(scores[clean, 0], likelihood[clean], rtol=1e-4, atol=1e-4)


@LAYOUTS
def test_decodes_share_the_encoders_keys_and_values(scan_layers):
  model = tiny.model(scan_layers=scan_layers)
  params = tiny.params(model)
  batch = {'encoder_input_tokens': batches.unpack(batches.packed())['encoder_input_tokens']}
  length, count = 9, 3
  lengths = []

  def decode(cache, tokens_to_logits, *, cache_offset, **options):
    lengths.extend(x.shape[cache_offset + 1] for x in jax.tree.leaves(cache))
    return decoding.temperature_sample(
      cache, tokens_to_logits, cache_offset=cache_offset, temperature=0.0, **options
    )

  def decoded(num_decodes):
    function = functools.partial(decode, num_decodes=num_decodes)
    return jax.jit(
      lambda p: model.predict_batch(p, batch, max_decode_length=length, decode_fn=function)
    )(params)

  (one, score), (several, scores) = decoded(1), decoded(count)
  assert {*lengths} == {length} != {batch['encoder_input_tokens'].shape[1]}
  np.testing.assert_array_equal(several, np.repeat(one, count, axis=1))
  np.testing.assert_allclose(scores, np.repeat(score, count, axis=1), rtol=1e-5)


def test_chunked_logits_change_no_loss():
  batch = batches.packed()
  whole, chunked = tiny.model(), tiny.model({'loss_chunk_length': 4})
  params = tiny.params(whole)
  np.testing.assert_allclose(
    per_example_loss(whole, params, batch), per_example_loss(chunked, params, batch), rtol=1e-5
  )


def test_dropout_is_broadcast_over_the_length():
  cfg = t5_config.T5Config(**{**tiny.CONFIG, 'dropout_rate': 0.5})
  x = jnp.ones((2, 7, 16))
  dropped = layers.dropout(cfg, False).apply({}, x, rngs={'dropout': jax.random.key(0)})
  np.testing.assert_array_equal(dropped, jnp.broadcast_to(dropped[:, :1], x.shape))
  assert len(np.unique(dropped)) == 2


def test_bfloat16_keeps_float32_parameters_and_logits():
  model = tiny.model(dtype='bfloat16')
  params = tiny.params(model)
  batch = batches.packed()
  args = [
    batch[k] for k in ('encoder_input_tokens', 'decoder_input_tokens', 'decoder_target_tokens')
  ]
  apply = lambda p, **kw: model.module.apply({'params': p}, *args, enable_dropout=False, **kw)
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype('float32')}
  assert apply(params).dtype == jnp.float32
  assert apply(params, method='features').dtype == jnp.bfloat16


SIZES = {
  'small': (512, 6, 8, 1024, 300_176_768),
  'base': (768, 12, 12, 2048, 582_401_280),
  'large': (1024, 16, 24, 2816, 1_229_581_312),
  'xl': (2048, 32, 24, 5120, 3_742_619_648),
  'xxl': (4096, 64, 24, 10240, 12_921_057_280),
}


def abstract(size, **config):
  emb, heads, depth, mlp, _ = SIZES[size]
  model = tiny.model(
    vocab_size=250112,
    emb_dim=emb,
    num_heads=heads,
    head_dim=64,
    num_encoder_layers=depth,
    num_decoder_layers=depth,
    mlp_dim=mlp,
    **config,
  )
  shapes, axes = objective.parameter_axes(model)
  flat = flax.traverse_util.flatten_dict(shapes, sep='/')
  return flat, flax.traverse_util.flatten_dict(axes, sep='/')


@pytest.mark.parametrize('size', SIZES)
@LAYOUTS
def test_parameter_counts(size, scan_layers):
  flat, _ = abstract(size, scan_layers=scan_layers)
  assert sum(int(np.prod(x.shape)) for x in flat.values()) == SIZES[size][-1]


def test_an_unrolled_xxl_has_the_558_arrays_of_a_t5x_checkpoint():
  flat, axes = abstract('xxl', scan_layers=False)
  assert len(flat) == 558
  for name, shape, names in (
    ('token_embedder/embedding', (250112, 4096), ('vocab', 'embed_vocab')),
    ('encoder/layers_0/attention/query/kernel', (4096, 4096), ('embed', 'joined_kv')),
    ('encoder/layers_23/mlp/wi_1/kernel', (4096, 10240), ('embed', 'mlp')),
    ('encoder/layers_7/pre_mlp_layer_norm/scale', (4096,), ('embed',)),
    ('encoder/relpos_bias/rel_embedding', (64, 32), ('heads', 'relpos_buckets')),
    ('decoder/layers_3/encoder_decoder_attention/out/kernel', (4096, 4096), ('joined_kv', 'embed')),
    ('decoder/layers_3/pre_cross_attention_layer_norm/scale', (4096,), ('embed',)),
    ('decoder/decoder_norm/scale', (4096,), ('embed',)),
    ('decoder/logits_dense/kernel', (4096, 250112), ('embed', 'vocab')),
  ):
    assert (flat[name].shape, axes[name]) == (shape, names), name


def test_a_scanned_xxl_stacks_layers_on_axis_one():
  flat, axes = abstract('xxl')
  name = 'decoder/decoder/self_attention/key/kernel'
  assert flat[name].shape == (4096, 24, 4096)
  assert axes[name] == ('embed', 'layers', 'joined_kv')
  assert flat['decoder/relpos_bias/rel_embedding'].shape == (64, 32)


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('emb_dim', 0, 'emb_dim must be a positive integer, got 0'),
    ('dropout_rate', 1.0, r'dropout_rate must be in \[0, 1\)'),
    ('dtype', 'float16', 'overflows in float16'),
    ('remat_policy', 'some', "got 'some'"),
    ('mlp_activations', ('gleu',), "'gleu'"),
  ],
)
def test_impossible_configurations_are_refused(field, value, message):
  with pytest.raises(ValueError, match=message):
    t5_config.T5Config(**{**tiny.CONFIG, field: value})


def test_a_vocabulary_larger_than_the_embedding_is_refused():
  with pytest.raises(ValueError, match='96 ids but the model has 64 embedding rows'):
    tiny.model(vocab_size=64).check_vocabulary()


def test_sampling_among_more_ids_than_there_are_is_refused_before_it_begins():
  model = tiny.model(vocab_size=96)
  decode_fn = functools.partial(decoding.temperature_sample, temperature=1.0, topk=97)
  with pytest.raises(ValueError, match=r'97 most probable ids \(topk\), and the model has 96'):
    dataclasses.replace(model, decode_fn=decode_fn).check_vocabulary()
  decode_fn = functools.partial(decode_fn, topk=96)
  dataclasses.replace(model, decode_fn=decode_fn).check_vocabulary()

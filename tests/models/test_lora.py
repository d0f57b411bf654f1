"""Adapters on the network: what they compute, what is trained, dropout, quantised weights."""

import dataclasses
import functools
import math
import pathlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_train import optimizer, partitioning, train_state, train_step
from aya_train.checkpoint import quantised_leaves
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.models import lora, t5_config
from aya_train.objectives import objective
from tests import tiny

# As wide as nf4's tiles are long, so that one kernel has several of them.
WIDE = {'emb_dim': 128, 'num_heads': 2, 'head_dim': 32, 'mlp_dim': 128}


def adapted(base_weights='float32', rank=4, dropout=0.0, modules=('q', 'v', 'wi_0'), **config):
  plain = tiny.model(**config)
  module = lora.transformer(
    plain.config, rank, 8.0, modules, dropout=dropout, base_weights=base_weights
  )
  return plain, dataclasses.replace(plain, module=module)


def with_kernels_of(model, params, seed=1):
  """A network's own parameters under an adapter whose matrices are all at random."""
  abstract = objective.parameter_axes(model)[0]
  rng = np.random.default_rng(seed)

  def one(path, leaf):
    name = path[-1].key
    if lora.is_adapter(name):
      return jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype)
    array = functools.reduce(lambda tree, key: tree[key.key], path, params)
    return quantised_leaves.place(lazy_arrays.of(np.asarray(array)), leaf, 1)

  return jax.tree_util.tree_map_with_path(one, abstract, is_leaf=lambda x: not isinstance(x, dict))


def batch(rows=4, seed=0):
  rng = np.random.default_rng(seed)
  targets = rng.integers(2, 90, (rows, 8), np.int32)
  targets[:, 6:] = 0
  return {
    'encoder_input_tokens': jnp.asarray(rng.integers(2, 90, (rows, 8), np.int32)),
    'decoder_input_tokens': jnp.asarray(np.pad(targets[:, :-1], ((0, 0), (1, 0)))),
    'decoder_target_tokens': jnp.asarray(targets),
  }


def merged_by_hand(params, scale):
  """The sums of kernels and products, from the formula."""
  out = {}
  for name, x in params.items():
    if isinstance(x, dict):
      out[name] = merged_by_hand(x, scale)
    elif not lora.is_adapter(name):
      out[name] = x
      if (a := params.get(name + '_lora_a')) is not None:
        b, layers = params[name + '_lora_b'], 'ilr,rlo->ilo' if a.ndim == 3 else 'ir,ro->io'
        out[name] = x + scale * jnp.einsum(layers, a, b)
  return out


@pytest.mark.parametrize('scan_layers', [True, pytest.param(False, marks=pytest.mark.heavy)])
def test_an_adapter_computes_what_the_sum_of_kernel_and_product_does(scan_layers):
  plain, model = adapted(scan_layers=scan_layers, modules=('q', 'k', 'v', 'o', 'wi_1', 'lm_head'))
  params = with_kernels_of(model, tiny.params(plain))
  by_hand = merged_by_hand(params, 8.0 / 4)
  scores, wanted = model.score_batch(params, batch()), plain.score_batch(by_hand, batch())
  np.testing.assert_allclose(scores, wanted, rtol=2e-5)
  answers, _ = model.predict_batch(params, batch(), max_decode_length=6)
  expected, _ = plain.predict_batch(by_hand, batch(), max_decode_length=6)
  np.testing.assert_array_equal(answers, expected)


HEAVY = [pytest.param(w, marks=pytest.mark.heavy) for w in ('float32', 'bfloat16', 'int8')]


@pytest.mark.parametrize('weights', ['nf4', *HEAVY])
def test_without_its_adapter_a_model_computes_what_its_base_does(weights):
  plain, model = adapted(weights, **WIDE)
  own = tiny.params(plain)
  params = with_kernels_of(model, own)
  off = model.score_batch(lora.base_alone(params), batch())
  wanted = plain.score_batch(own, batch())
  tolerance = {'float32': 1e-6, 'bfloat16': 0.01, 'int8': 0.01, 'nf4': 0.15}[weights]
  assert np.max(np.abs(off - wanted)) <= tolerance * np.max(np.abs(wanted))
  assert np.max(np.abs(model.score_batch(params, batch()) - off)) > 0.01
  assert lora.base_alone(own)['token_embedder']['embedding'] is own['token_embedder']['embedding']


@pytest.mark.heavy
@pytest.mark.parametrize('weights', ['bfloat16', 'nf4'])
def test_a_step_changes_the_adapter_alone_and_microbatches_change_nothing(weights):
  _, model = adapted(weights, dtype='bfloat16', remat_policy='full', **WIDE)
  params = with_kernels_of(model, tiny.params(_))
  axes = objective.trained(model, objective.parameter_axes(model)[1])
  tx = optimizer.adamw(0.01, axes)
  state = train_state.create(
    objective.trained(model, params), tx, seed=0, frozen=objective.frozen(model, params)
  )
  step = functools.partial(
    train_step.train_step, objective=model, tx=tx, learning_rate=lambda _: jnp.float32(0.01)
  )
  rows = {**batch(), 'decoder_loss_weights': jnp.ones((4, 8), jnp.float32)}
  new, sums = jax.jit(functools.partial(step, num_microbatches=2))(state, rows)
  frozen = [jax.tree.leaves(s.frozen) for s in (state, new)]
  assert all(np.array_equal(x, y) for x, y in zip(*frozen, strict=True))
  trained = [jax.tree.leaves(s.params) for s in (state, new)]
  assert all(not np.array_equal(x, y) for x, y in zip(*trained, strict=True))
  moments = sum(x.size for x in jax.tree.leaves(new.opt_state))
  assert moments < 2.1 * sum(x.size for x in jax.tree.leaves(new.params))
  whole = jax.jit(step)(state, rows)[1]
  np.testing.assert_allclose(sums['grad_norm'], whole['grad_norm'], rtol=0.02)
  assert float(whole['grad_norm']) > 0


def test_dropout_on_adapters_is_of_training_alone():
  _, model = adapted(dropout=0.5)
  params = with_kernels_of(model, tiny.params(_))

  @jax.jit
  def encoded(key):
    rngs = None if key is None else {'dropout': key}
    ids = batch()['encoder_input_tokens']
    return model.module.apply(
      {'params': params}, ids, enable_dropout=key is not None, rngs=rngs, method='encode'
    )

  one, other = jax.random.split(jax.random.key(0))
  np.testing.assert_array_equal(encoded(one), encoded(one))
  for key in (one, other):
    assert float(jnp.abs(encoded(key) - encoded(None)).max()) > 0.01
  assert float(jnp.abs(encoded(one) - encoded(other)).max()) > 0.01


def test_quantised_weights_are_what_qwix_makes_of_each_layer_on_any_mesh():
  import qwix

  _, model = adapted('nf4', **WIDE)
  leaf = objective.parameter_axes(model)[0]['decoder']['decoder']['mlp']['wi_0']['kernel']
  x = np.random.default_rng(0).normal(size=leaf.shape).astype(np.float32)
  mesh = jax.make_mesh((4, 1), ('data', 'model'))  # parts that are shorter than a tile
  spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  values = jax.ShapeDtypeStruct(x.shape, 'uint4', sharding=spec)
  cut = leaf.replace(array=leaf.array.replace(qvalue=values))
  for each in (leaf, cut):
    placed = quantised_leaves.place(lazy_arrays.of(x), each, 1).array
    for layer in range(x.shape[1]):
      alone = qwix.quantize(x[:, layer], 'nf4', channelwise_axes=[1], tiled_axes={0: 64})
      np.testing.assert_array_equal(placed.qvalue[:, layer], alone.qvalue)
      np.testing.assert_array_equal(placed.scale[:, layer], alone.scale)
      np.testing.assert_array_equal(lora.dequantised(alone), qwix.dequantize(alone))


def test_an_adapter_is_sharded_with_its_kernel():
  _, model = adapted('int8', **WIDE)
  rules = partitioning.standard_logical_axis_rules(parameter_partitioning_dims=2)
  partitioner = partitioning.Partitioner({'data': 4, 'model': 2}, rules)
  tx = optimizer.adamw(0.1, None)
  query = train_state.abstract_state(model, tx, partitioner).all_params['encoder']['encoder']
  query = query['attention']['query']
  specs = {
    'a': query['kernel_lora_a'],
    'b': query['kernel_lora_b'],
    'values': query['kernel'].array.qvalue,
  }
  assert {name: tuple(x.sharding.spec) for name, x in specs.items()} == {
    'a': ('data', None, None),
    'b': (None, None, 'model'),
    'values': ('data', None, 'model'),
  }


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'rank': 0}, 'LORA_RANK must be a positive integer'),
    ({'rank': 16}, 'LORA_RANK 16 is not below the smallest side of a kernel, 16'),
    ({'alpha': 0.0}, 'LORA_ALPHA must be above 0'),
    ({'modules': ('q', 'query')}, "LORA_MODULES \\['query'\\] are none of T5"),
    ({'modules': ('q', 'q')}, 'each once'),
    ({'modules': ('wi',)}, "not in this network, which has \\['wi_0', 'wi_1'\\]"),
    ({'dropout': 1.0}, 'LORA_DROPOUT'),
    ({'base_weights': 'int4'}, "LORA_BASE_WEIGHTS must be one of .*'nf4'"),
  ],
)
def test_settings_of_no_adapter_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    lora.transformer(tiny.model().config, **{'rank': 4, **options})


def test_a_tied_head_and_missing_qwix_are_named(monkeypatch):
  with pytest.raises(ValueError, match='head is its input table'):
    lora.transformer(tiny.model(logits_via_embedding=True).config, 4, modules=('lm_head',))
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r"pip install 'aya-train\[lora\]'"):
    lora.transformer(tiny.model().config, 4)


def test_scales_are_pefts():
  assert lora.LoraConfig(16, 32, ('q',)).scale == 2.0
  assert lora.LoraConfig(16, 32, ('q',), rank_stabilised=True).scale == 8.0
  assert 'lm_head' not in lora.LoraConfig(16, 32, ('all-linear',)).modules


def arrays_of_a_released_model(base_weights):
  """(Names, whether a scale, shape and dtype) of mT5-xxl under an adapter of rank 16 on q and v."""
  config = t5_config.T5Config(
    vocab_size=250_112,
    emb_dim=4096,
    num_heads=64,
    head_dim=64,
    mlp_dim=10_240,
    num_encoder_layers=24,
    num_decoder_layers=24,
    dtype=jnp.bfloat16,
  )
  module = lora.transformer(config, 16, 32.0, ('q', 'v'), base_weights=base_weights)
  abstract = jax.eval_shape(module.initial_variables, jax.random.key(0))
  for path, leaf in jax.tree_util.tree_leaves_with_path(nn.unbox(abstract)):
    names = [k.key for k in path if isinstance(k, jax.tree_util.DictKey)]
    is_scale = any(getattr(k, 'name', '') == 'scale' for k in path)
    yield names, is_scale, leaf


@pytest.mark.heavy
@pytest.mark.parametrize('base_weights', ['nf4', 'int8', 'bfloat16', 'float32'])
def test_the_estimate_of_the_documentation_is_that_of_the_arrays(base_weights):
  """docs/lora.md, 'For GPUs the same on paper': GB of 10^9 bytes."""
  kernels = scales = tables = adapter = 0.0
  for names, is_scale, leaf in arrays_of_a_released_model(base_weights):
    bits = {'int4': 4, 'uint4': 4}.get(str(leaf.dtype), 8 * leaf.dtype.itemsize)
    size = math.prod(leaf.shape) * bits / 8
    if lora.is_adapter(names[-1]):
      adapter += math.prod(leaf.shape)
    elif is_scale:
      scales += size
    elif 'token_embedder' in names or 'logits_dense' in names:
      tables += size
    else:
      kernels += size
  assert adapter == 18_874_368
  # Float32: itself, its gradient, the sums of microbatches and both moments.
  trained = 5 * 4 * adapter / 1e9
  inputs = 48 * 1024 * 4096 * 2 / 1e9
  at_work = 2.0
  total = (kernels + scales + tables) / 1e9 + trained + inputs + at_work
  text = (pathlib.Path(__file__).parents[2] / 'docs/lora.md').read_text()
  (row,) = [
    line
    for line in text[text.index('For GPUs the same on paper') :].splitlines()
    if line.startswith(f'| {base_weights} |')
  ]
  _, _, frozen, of_adapter, activations, whole, card, _ = (x.strip() for x in row.split('|'))
  parts = [float(x) for x in re.findall(r'[\d.]+', frozen)]
  wanted = [(kernels + tables) / 1e9]
  if base_weights != 'float32':
    wanted = [kernels / 1e9, tables / 1e9]
  if base_weights == 'nf4':
    wanted.insert(1, scales / 1e9)
  assert parts == pytest.approx(wanted, abs=0.06)
  assert float(of_adapter) == pytest.approx(trained, abs=0.05)
  assert [float(x) for x in activations.split('+')] == pytest.approx([inputs, at_work], abs=0.05)
  assert float(whole.removesuffix('GB')) == pytest.approx(total, abs=0.7)
  assert total * 1e9 < 0.95 * int(card.split()[0]) * 2**30

"""Encoders from checkpoints of whole networks and of runs of encoders, and means of checkpoints."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import traverse_util

from aya_train import initial_state, optimizer, partitioning, train_state
from aya_train.checkpoint import (
  contents,
  convert,
  formats,
  manager,
  native,
  reading,
  soup,
)
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.objectives import embedding, objective
from tests.checkpoint.t5x import random_leaves, t5x_bytes

CONFIG = random_leaves.wide_config()
SCANNED = dataclasses.replace(CONFIG, scan_layers=True)


class Vocabulary:
  vocab_size, pad_id, eos_id = 20, 0, 1
  sentencepiece_model_file = ''


def model_of(config=CONFIG, **changes):
  return embedding.EmbeddingModel(config, Vocabulary(), **{'projection': 6, **changes})


@pytest.fixture(scope='module')
def leaves():
  return random_leaves.random_leaves(CONFIG)


@pytest.fixture(scope='module')
def whole(leaves, tmp_path_factory):
  return t5x_bytes.write(tmp_path_factory.mktemp('source') / 'checkpoint_7', leaves)


def layouts_of(config):
  return [dataclasses.replace(config, scan_layers=scan) for scan in (True, False)]


def flat(tree):
  return {k: np.asarray(x) for k, x in traverse_util.flatten_dict(tree, sep='/').items()}


def shaped(model):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=None),
    objective.parameter_axes(model)[0],
  )


def write_run(folder, **embedding):
  """A MODEL_DIR with one step of a run with stacked layers, and its parameters."""
  model = model_of(SCANNED, learned_temperature=True)
  params = nn.unbox(model.initial_variables(jax.random.key(3)))
  tx = optimizer.adafactor(lambda step: 0.1, objective.parameter_axes(model)[1])
  metadata = {
    'architecture': model.encoder.architecture(),
    'vocabulary_file': '',
    'vocabulary': None,
    'embedding': {'dimension': 6, **embedding},
    'run': {'seed': 0, 'first_step': 0},
  }
  writer = manager.CheckpointManager(folder, manager.CheckpointConfig(use_async=False), metadata)
  state = train_state.create(params, tx, seed=0)
  writer.save(dataclasses.replace(state, step=state.step + 5), None)
  writer.close()
  return folder, params


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return write_run(tmp_path_factory.mktemp('run'))


@pytest.mark.parametrize('projection', [6, None])
@pytest.mark.parametrize('config', layouts_of(CONFIG), ids=['scanned', 'unrolled'])
def test_the_encoder_of_a_whole_network_is_taken(whole, config, projection):
  model = model_of(config, projection=projection)
  found = flat(reading.read_parts(formats.detect(whole), shaped(model), model))
  wanted = contents.relayout(
    formats.open_checkpoint(formats.detect(whole)).params,
    formats.open_checkpoint(formats.detect(whole)).config,
    config,
  )
  assert {*found} == {n for n in wanted if not n.startswith('decoder/')}
  for name, x in found.items():
    np.testing.assert_array_equal(x, wanted[name].read())


def test_a_run_begins_with_the_encoder_and_a_random_projection(whole):
  model = model_of()
  partitioner = partitioning.one_device()
  tx = optimizer.adafactor(lambda step: 0.1, objective.parameter_axes(model)[1])
  abstract = train_state.abstract_state(model, tx, partitioner)
  source = formats.detect(whole)
  state = initial_state.create(model, tx, partitioner, abstract, 5, source)
  assert int(state.step) == 0
  random = nn.unbox(model.initial_variables(jax.random.key(5)))
  np.testing.assert_allclose(
    state.params['projection']['kernel'], random['projection']['kernel'], rtol=1e-6
  )
  table = formats.open_checkpoint(source).params['token_embedder/embedding'].read()
  np.testing.assert_array_equal(state.params['token_embedder']['embedding'], table)


def test_a_run_of_an_encoder_goes_on_in_another(run):
  folder, params = run
  model = model_of(CONFIG, learned_temperature=True)
  found = flat(reading.read_parts(formats.detect(folder), shaped(model), model))
  assert {*found} == {*flat(shaped_zeros(model))}
  np.testing.assert_array_equal(found['projection/kernel'], params['projection']['kernel'])
  layer = params['encoder']['encoder']['mlp']['wo']['kernel']
  np.testing.assert_array_equal(found['encoder/layers_1/mlp/wo/kernel'], layer[:, 1])


def shaped_zeros(model):
  return jax.tree.map(lambda x: np.zeros(x.shape), shaped(model))


def test_another_projection_or_network_is_refused(run, whole):
  source = formats.detect(run[0])
  for model in (model_of(projection=5), model_of(projection=None)):
    with pytest.raises(ValueError, match='PROJECTION'):
      reading.read_parts(source, shaped(model), model)
  wider = model_of(dataclasses.replace(CONFIG, mlp_dim=CONFIG.mlp_dim + 2))
  with pytest.raises(ValueError, match='does not fit the model'):
    reading.read_parts(formats.detect(whole), shaped(wider), wider)
  with pytest.raises(ValueError, match='no T5 network'):
    formats.open_checkpoint(source)


def test_the_mean_of_networks_is_that_of_their_arrays(tmp_path, whole, leaves):
  other = t5x_bytes.write(
    tmp_path / 'checkpoint_9',
    {n: lazy_arrays.of(3 * np.asarray(x)) if 'target' in n else x for n, x in leaves.items()},
  )
  convert.convert(
    whole, tmp_path / 'soup', to='native', average=[other], average_weights=[1, 3], verify=False
  )
  first = formats.open_checkpoint(formats.detect(whole))
  config = dataclasses.replace(first.config, scan_layers=True, param_scan_axis=1)
  wanted = first.in_layout(config)
  found = formats.open_checkpoint(formats.detect(tmp_path / 'soup'))
  assert found.moments is None
  for name, x in found.params.items():
    np.testing.assert_allclose(x.read(), 2.5 * wanted[name].read(), rtol=1e-6)


def test_the_mean_of_encoders_is_an_encoder(tmp_path, run, whole):
  folder, params = run
  convert.convert(folder, tmp_path / 'soup', to='native', average=[folder], verify=True)
  source = formats.detect(tmp_path / 'soup')
  assert native.is_encoder(source.path)
  model = model_of(SCANNED, learned_temperature=True)
  found = flat(reading.read_parts(source, shaped(model), model))
  for name, x in flat(params).items():
    np.testing.assert_allclose(found[name], x, rtol=1e-6)
  with pytest.raises(ValueError, match='sentence encoders'):
    convert.convert(folder, tmp_path / 'none', to='native', average=[whole])


def test_the_mean_of_networks_that_compute_something_else_is_refused(whole):
  first = formats.open_checkpoint(formats.detect(whole))
  other = dataclasses.replace(first.config, mlp_activations=('silu', 'linear'))
  with pytest.raises(ValueError, match=r"\['silu', 'linear'\] and .*their mean is no model"):
    soup.mean(first, [dataclasses.replace(first, config=other)], [0.5, 0.5])


def test_the_mean_of_encoders_that_compute_something_else_is_refused(run, monkeypatch):
  source = formats.detect(run[0])
  opened, own = native.open_encoder(source.path)
  config = dataclasses.replace(opened.config, relative_attention_max_distance=64)
  answers = iter([(opened, own), (dataclasses.replace(opened, config=config), own)])
  monkeypatch.setattr(native, 'open_encoder', lambda path: next(answers))
  with pytest.raises(ValueError, match=r'relative_attention_max_distance 64 and .*no model'):
    soup.mean_encoders([source, source], [0.5, 0.5])


def test_the_mean_of_encoders_of_other_prompts_is_refused(tmp_path, run):
  other, _ = write_run(tmp_path / 'other', prompts={'query': 'query: ', 'passage': ''})
  with pytest.raises(ValueError, match=r"prompts \{'query': 'query: ', .*trained alike"):
    convert.convert(run[0], tmp_path / 'soup', to='native', average=[other])
  assert not (tmp_path / 'soup').exists()


def test_the_mean_of_encoders_tells_whose_settings_it_keeps(tmp_path, run, caplog):
  other, _ = write_run(tmp_path / 'other', temperature=0.5, matryoshka_dimensions=[3])
  convert.convert(run[0], tmp_path / 'soup', to='native', average=[other])
  assert 'temperature 0.5 and None' in caplog.text
  assert 'matryoshka_dimensions [3] and None: the mean keeps the latter' in caplog.text


def test_the_mean_of_networks_that_answer_otherwise_is_refused_or_told(whole, caplog):
  first = formats.open_checkpoint(formats.detect(whole))
  longer = dataclasses.replace(first, settings=first.settings.with_length(7))
  soup.mean(first, [longer], [0.5, 0.5])
  assert 'max_new_tokens 7 and None: the mean keeps the latter' in caplog.text
  ends = dataclasses.replace(first.settings, eos_ids=(1, 3))
  with pytest.raises(ValueError, match=r'eos_ids \(1, 3\) and \(1,\)'):
    soup.mean(first, [dataclasses.replace(first, settings=ends)], [0.5, 0.5])


@pytest.mark.parametrize(
  'options', [{'scan_layers': False}, {'vocabulary_file': 'x'}, {'max_new_tokens': 5}]
)
def test_options_that_a_mean_of_encoders_does_not_have_are_refused(tmp_path, run, options):
  with pytest.raises(ValueError, match='sentence encoder'):
    convert.convert(run[0], tmp_path / 'soup', to='native', average=[run[0]], **options)


@pytest.mark.parametrize('weights', [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float('nan')]])
def test_weights_that_are_no_shares_are_refused(weights):
  with pytest.raises(ValueError, match='--average_weights'):
    soup.checked_weights(weights, 2)

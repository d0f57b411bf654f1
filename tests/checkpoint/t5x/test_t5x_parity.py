"""Twenty updates of ours and of T5X from one checkpoint, on the same packed batches."""

import dataclasses

import jax
import numpy as np
import pytest

from aya_train import initial_state, optimizer, partitioning, train_state, train_step
from aya_train.checkpoint import formats
from aya_train.models import network
from aya_train.objectives import objective, seq2seq
from tests import batches
from tests.checkpoint.t5x import random_leaves

pytest.importorskip('t5x', reason='T5X is not importable')
pytestmark = pytest.mark.t5x

import seqio
from flax import traverse_util
from t5x import models as t5x_models

from tests.checkpoint.t5x import t5x_itself

STEPS, RATE, Z_LOSS = 20, 1e-3, 1e-4
VOCABULARY = seqio.PassThroughVocabulary(640, eos_id=1)
BATCHES = [batches.packed(seed=seed, vocab=640) for seed in range(STEPS)]


def run_t5x(state, config, factor):
  model = t5x_models.EncoderDecoderModel(
    t5x_itself.module_of(config),
    VOCABULARY,
    VOCABULARY,
    t5x_itself.definition_of(),
    z_loss=Z_LOSS,
    loss_normalizing_factor=factor,
  )

  @jax.jit
  def step(state, batch):
    loss_and_grads = jax.value_and_grad(model.loss_fn, has_aux=True)
    (loss, _), grads = loss_and_grads(state.params, batch, None)
    return state.apply_gradient(grads, learning_rate=RATE), loss

  losses = []
  with jax.numpy_rank_promotion('allow'):
    for batch in BATCHES:
      state, loss = step(state, batch)
      losses.append(float(loss))
  return state, losses


def run_ours(folder, config, factor):
  model = seq2seq.EncoderDecoderModel(
    network.Transformer(dataclasses.replace(config, dropout_rate=0.0)),
    VOCABULARY,
    VOCABULARY,
    z_loss=Z_LOSS,
    loss_normalizing_factor=factor,
  )
  tx = optimizer.adafactor(RATE, objective.parameter_axes(model)[1])
  partitioner = partitioning.Partitioner(
    {'data': 1, 'model': 1}, partitioning.standard_logical_axis_rules(), jax.devices()[:1]
  )
  abstract = train_state.abstract_state(model, tx, partitioner)
  source = formats.detect(folder)
  state = initial_state.create(model, tx, partitioner, abstract, 0, source)
  step = jax.jit(
    lambda state, batch: train_step.train_step(
      state, batch, objective=model, tx=tx, learning_rate=lambda step: RATE, num_microbatches=1
    )
  )
  losses = []
  for batch in BATCHES:
    state, sums = step(state, batch)
    losses.append(float(sums['loss']))
  return state, losses


@pytest.mark.parametrize('factor', ['AVERAGE_PER_SEQUENCE', None])
@pytest.mark.parametrize('scan_layers', [False, True], ids=['unrolled', 'scanned'])
@pytest.mark.parametrize('ours_scanned', [False, True], ids=['ours unrolled', 'ours scanned'])
def test_losses_and_parameters_stay_together(tmp_path, factor, scan_layers, ours_scanned):
  config = random_leaves.wide_config(scan_layers=scan_layers)
  created = t5x_itself.state(config, seed=0, relpos_bias_per_layer=scan_layers)
  t5x_itself.checkpointer(created, str(tmp_path / 'before')).save(created)
  theirs, their_losses = run_t5x(created, config, factor)
  ours_config = dataclasses.replace(
    config, scan_layers=ours_scanned, relpos_bias_per_layer=scan_layers
  )
  ours, our_losses = run_ours(tmp_path / 'before', ours_config, factor)
  np.testing.assert_allclose(our_losses, their_losses, rtol=1e-5)
  assert int(ours.step) == int(theirs.step) == 27
  t5x_itself.checkpointer(theirs, str(tmp_path / 'after')).save(theirs)
  expected = formats.open_checkpoint(formats.detect(tmp_path / 'after')).in_layout(ours_config)
  before = formats.open_checkpoint(formats.detect(tmp_path / 'before')).in_layout(ours_config)
  found = traverse_util.flatten_dict(ours.params, sep='/')
  assert set(found) == set(expected)
  for name, array in expected.items():
    want, start = array.read(), before[name].read()
    np.testing.assert_allclose(found[name], want, rtol=1e-4, atol=1e-4 * want.std(), err_msg=name)
    assert np.abs(want - start).max() > 1e-3 * want.std(), name

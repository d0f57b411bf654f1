"""`aya-train score` on tiny networks: the same on one device and on several, stopped or not."""

import dataclasses

import jax
import numpy as np
import pytest

from aya_train import partitioning, reference_scoring, stopping, train_loop
from aya_train.data import batching, pair_features, reference_scores
from tests.objectives import test_preference, test_preference_run

task = test_preference_run.task


def mesh(devices):
  return partitioning.Partitioner(
    {'data': devices, 'model': 1},
    partitioning.standard_logical_axis_rules(),
    jax.devices()[:devices],
  )


def config(folder, path):
  return batching.DatasetConfig(
    *('tests.preference_run', {'inputs': 14, 'chosen': 16, 'rejected': 16}, 'train', 8),
    pack=False,
    prepared_dir=str(folder),
    reference_checkpoint=path,
  )


def found(cfg):
  (ready,) = batching.prepared_tasks(cfg).values()
  (where,) = (ready.directory / reference_scores.FOLDER).iterdir()
  return np.load(where / reference_scores.SCORES_FILE)


@pytest.mark.heavy
def test_scores_are_those_of_the_network_whatever_the_devices_and_stops(tmp_path, monkeypatch):
  path = str(tmp_path / 'base')
  settings = test_preference_run.settings(tmp_path, 'cpo')
  state = train_loop.train(**settings, model_dir=path, total_steps=1)
  model = test_preference.model(loss='dpo')
  cfg = config(tmp_path / 'one', path)
  score = {'model': model, 'checkpoint_path': path}
  assert reference_scoring.score(**score, partitioner=mesh(1), train_dataset_cfg=cfg) == 24
  assert reference_scoring.score(**score, partitioner=mesh(1), train_dataset_cfg=cfg) == 0
  scores = found(cfg)
  (ready,) = batching.prepared_tasks(cfg).values()
  examples = [ready[i] for i in range(8)]
  lengths = {'inputs': 14, 'chosen': 16, 'rejected': 16}
  batch = test_preference.padded_batch(examples, lengths)
  direct = jax.jit(model.score_pairs)(jax.device_get(state.params), batch)
  np.testing.assert_allclose(scores[:8], np.asarray(direct)[..., 0], rtol=1e-4, atol=1e-4)
  assert scores.shape == (24, len(pair_features.SCORES)) and (scores[:, :2] < 0).all()

  # Stopped after the first window, on more devices.
  devices = min(4, jax.device_count())
  other = config(tmp_path / 'other', path)
  score |= {'partitioner': mesh(devices), 'train_dataset_cfg': other}
  monkeypatch.setattr(reference_scoring, '_BATCHES', 1)
  checks = []

  def stop_at_second(self):
    checks.append(1)
    if len(checks) == 2:
      raise stopping.StoppedError

  with monkeypatch.context() as patched:
    patched.setattr(stopping.Stop, 'check', stop_at_second)
    with pytest.raises(stopping.StoppedError):
      reference_scoring.score(**score)
  assert reference_scoring.score(**score) == 16
  np.testing.assert_allclose(found(other), scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ('size', 'message'),
  [
    (3, r'SCORE_BATCH_SIZE 3 is not divisible by 2 .*: take 2 or 4, or another MESH_SHAPE'),
    (0, 'SCORE_BATCH_SIZE must be at least 1, got 0'),
    (None, 'BATCH_SIZE 9 is not divisible by 2'),
  ],
)
def test_a_batch_that_the_devices_do_not_divide_is_refused_by_its_name(tmp_path, size, message):
  if jax.device_count() < 2:
    pytest.skip('one device')
  cfg = dataclasses.replace(config(tmp_path, 'nowhere'), batch_size=9)
  with pytest.raises(ValueError, match=f'^{message}'):
    reference_scoring.score(
      model=test_preference.model(loss='dpo'),
      checkpoint_path='nowhere',
      partitioner=mesh(2),
      train_dataset_cfg=cfg,
      batch_size=size,
    )


def test_a_loss_without_a_reference_has_nothing_to_score(tmp_path):
  with pytest.raises(ValueError, match="'simpo' needs no reference"):
    reference_scoring.score(
      model=test_preference.model(loss='simpo'),
      checkpoint_path='nowhere',
      partitioner=mesh(1),
      train_dataset_cfg=config(tmp_path, 'nowhere'),
    )
  off = dataclasses.replace(test_preference.model(loss='dpo'), reference='adapter_off')
  with pytest.raises(ValueError, match='needs an adapter'):
    off.check('cpu')

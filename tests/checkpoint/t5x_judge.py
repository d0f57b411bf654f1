"""T5X itself, to check what we write and to write what we read. Imported by tests marked `t5x`."""

import flax.core
import jax
import numpy as np
from flax import traverse_util
from t5x import adafactor, checkpoints, partitioning, train_state
from t5x.examples.scalable_t5 import network as scalable_network
from t5x.examples.t5 import network as plain_network

from aya_train.models import t5_config


def state(config: t5_config.T5Config, *, seed: int, beta1: float | None = None):
  """A T5X train state with random parameters and moments at step 7; shared position biases."""
  network = scalable_network if config.scan_layers else plain_network
  names = ['vocab_size', 'emb_dim', 'num_heads', 'num_encoder_layers', 'num_decoder_layers']
  names += ['head_dim', 'mlp_dim', 'mlp_activations', 'logits_via_embedding']
  options = {name: getattr(config, name) for name in names}
  if config.scan_layers:
    options |= {'scan_layers': True, 'param_scan_axis': config.param_scan_axis}
  module = network.Transformer(config=network.T5Config(dtype='float32', **options))
  tokens = np.ones((1, 2), np.int32)
  with jax.numpy_rank_promotion('allow'):
    variables = jax.jit(lambda: module.init(jax.random.key(0), tokens, tokens, tokens))()
  definition = adafactor.Adafactor(
    1e-2, beta1=beta1, logical_factor_rules=adafactor.standard_logical_factor_rules()
  )
  created = train_state.FlaxOptimTrainState.create(definition, flax.core.freeze(variables))
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    name = jax.tree_util.keystr(path)
    if leaf.ndim == 0:
      return np.asarray(7, leaf.dtype)
    values = rng.normal(size=leaf.shape).astype(np.float32)
    if 'param_states' in name and leaf.shape == (1,):
      return np.zeros_like(values)
    if 'param_states' in name and "'m'" not in name:
      values = np.square(values)
    if 'relpos_bias' in name and values.ndim == 3:
      axis = config.param_scan_axis
      values = np.repeat(values.take([0], axis), values.shape[axis], axis)
    return values

  return created.restore_state(jax.tree_util.tree_map_with_path(draw, created.state_dict()))


def checkpointer(created, folder):
  return checkpoints.Checkpointer(created, partitioning.PjitPartitioner(num_partitions=1), folder)


def orbax_manager(created, folder):
  return checkpoints.OrbaxCheckpointManagerInterface(
    str(folder), created, partitioning.PjitPartitioner(num_partitions=1)
  )


def leaves(created) -> dict[str, np.ndarray]:
  """Leaves of a train state by path joined by '/'."""
  flat = traverse_util.flatten_dict(flax.core.unfreeze(created.state_dict()), sep='/')
  return {name: np.asarray(leaf) for name, leaf in flat.items() if leaf is not None}


def update(created, grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Parameters after one update; gradients by path."""
  tree = flax.core.freeze(traverse_util.unflatten_dict(grads, sep='/'))
  with jax.numpy_rank_promotion('allow'):
    return leaves(created.apply_gradient(tree, learning_rate=1e-2))

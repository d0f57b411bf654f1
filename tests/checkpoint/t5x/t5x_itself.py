"""T5X itself, to check what we write and to write what we read. Imported by tests marked `t5x`."""

import flax.core
import jax
import numpy as np
from flax import traverse_util
from t5x import adafactor, checkpoints, partitioning, train_state
from t5x.examples.scalable_t5 import network as scalable_network
from t5x.examples.t5 import network as plain_network

from aya_train.models import t5_config


def module_of(config: t5_config.T5Config):
  """T5X's own network, float32, without dropout."""
  network = scalable_network if config.scan_layers else plain_network
  names = ['vocab_size', 'emb_dim', 'num_heads', 'num_encoder_layers', 'num_decoder_layers']
  names += ['head_dim', 'mlp_dim', 'mlp_activations', 'logits_via_embedding']
  options = {name: getattr(config, name) for name in names}
  if config.scan_layers:
    options |= {'scan_layers': True, 'param_scan_axis': config.param_scan_axis}
  return network.Transformer(config=network.T5Config(dtype='float32', dropout_rate=0.0, **options))


def definition_of(beta1: float | None = None):
  rules = adafactor.standard_logical_factor_rules()
  return adafactor.Adafactor(1e-2, beta1=beta1, logical_factor_rules=rules)


def state(
  config: t5_config.T5Config,
  *,
  seed: int,
  beta1: float | None = None,
  relpos_bias_per_layer: bool = False,
):
  """A T5X train state at step 7, random but as a training might leave it.

  scalable_t5 has position biases in each layer: copies of one table unless `relpos_bias_per_layer`.
  """
  module = module_of(config)
  tokens = np.ones((1, 2), np.int32)
  with jax.numpy_rank_promotion('allow'):
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), tokens, tokens, tokens))
  variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  created = train_state.FlaxOptimTrainState.create(
    definition_of(beta1), flax.core.freeze(variables)
  )
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    name = jax.tree_util.keystr(path)
    if leaf.ndim == 0:
      return np.asarray(7, leaf.dtype)
    values = rng.normal(size=leaf.shape).astype(np.float32)
    if 'param_states' in name:
      if leaf.shape == (1,):
        return np.zeros_like(values)
      values = 1e-3 * values if "'m'" in name else 1e-4 * np.square(values) + 1e-6
    elif 'kernel' in name:
      values *= config.emb_dim**-0.5
    elif 'scale' in name:
      values = 1 + 0.1 * values
    if 'relpos_bias' in name and values.ndim == 3 and not relpos_bias_per_layer:
      axis = config.param_scan_axis
      values = np.repeat(values.take([0], axis), values.shape[axis], axis)
    return values

  return created.restore_state(jax.tree_util.tree_map_with_path(draw, created.state_dict()))


class _OneDevice(partitioning.PjitPartitioner):
  """T5X takes all devices of a CPU as its model axis, which small arrays do not divide by."""

  @property
  def mesh(self):
    return jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ('data', 'model'))


def checkpointer(created, folder):
  return checkpoints.Checkpointer(created, _OneDevice(num_partitions=1), folder)


def orbax_manager(created, folder):
  return checkpoints.OrbaxCheckpointManagerInterface(
    str(folder), created, _OneDevice(num_partitions=1)
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

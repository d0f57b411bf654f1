"""T5X's own train step, compiled for a TPU slice and counted by the counter that counts ours.

  PYTHONPATH=<checkout of T5X and what it needs> python benchmarks/t5x_step.py \
    --topology v4-128 --num_partitions 1 --activation_dims 1 --parameter_dims 2 --remat_policy full

The model is mT5-xxl as `scalable_t5` has it, in bfloat16, with Adafactor and T5X's own trainer; the
batch is packed rows. Needs libtpu, no TPU. docs/tpu.md has the figures.
"""

import argparse
import sys

import jax
import numpy as np
import seqio
from t5x import adafactor, models, partitioning, trainer, utils
from t5x.examples.scalable_t5 import network

from aya_train.tpu import hlo_costs, hlo_schedule, precompile, topologies

XXL = {'emb_dim': 4096, 'num_heads': 64, 'head_dim': 64, 'mlp_dim': 10240}


class Partitioner(partitioning.PjitPartitioner):
  """T5X's, on the devices of a slice instead of those of this machine."""

  def __init__(self, devices, num_partitions: int, **options):
    super().__init__(num_partitions=num_partitions, **options)
    self._devices = devices

  @property
  def mesh(self):
    last = self._devices[-1]
    bounds = [*(n + 1 for n in last.coords), last.core_on_chip + 1]
    submesh, left = [1, 1, 1, 1], self._num_partitions
    for axis in (3, 2, 1, 0):
      submesh[axis] = np.gcd(left, bounds[axis])
      left //= submesh[axis]
    return partitioning.get_mesh(tuple(map(int, submesh)), self._devices, self._devices[:4])


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--topology', default='v4-128')
  parser.add_argument('--num_partitions', type=int, default=1, help='parts of the model axis')
  parser.add_argument('--activation_dims', type=int, default=1, choices=(1, 2))
  parser.add_argument('--parameter_dims', type=int, default=2, choices=(1, 2))
  parser.add_argument('--remat_policy', default='full', choices=('none', 'minimal', 'full'))
  parser.add_argument('--batch_size', type=int, default=256)
  parser.add_argument('--length', type=int, default=1024, help='of inputs and of targets')
  parser.add_argument('--num_layers', type=int, default=24, help='of each stack')
  parser.add_argument(
    '--xla_option', action='append', default=[], metavar='NAME=VALUE', help='of XLA; repeatable'
  )
  return parser.parse_args()


def lowered(args: argparse.Namespace):
  """The train step, traced for the slice."""
  config = network.T5Config(
    vocab_size=250112,
    dtype='bfloat16',
    num_encoder_layers=args.num_layers,
    num_decoder_layers=args.num_layers,
    mlp_activations=('gelu', 'linear'),
    dropout_rate=0.1,
    logits_via_embedding=False,
    scan_layers=True,
    remat_policy=args.remat_policy,
    **XXL,
  )
  vocabulary = seqio.PassThroughVocabulary(config.vocab_size, eos_id=1)
  optimizer = adafactor.Adafactor(
    decay_rate=0.8, step_offset=0, logical_factor_rules=adafactor.standard_logical_factor_rules()
  )
  model = models.EncoderDecoderModel(
    network.Transformer(config), vocabulary, vocabulary, optimizer, z_loss=1e-4
  )
  rules = partitioning.standard_logical_axis_rules(args.activation_dims, args.parameter_dims)
  devices = topologies.get(args.topology).devices()
  partitioner = Partitioner(devices, args.num_partitions, logical_axis_rules=rules)
  names = [f'{side}_{kind}' for side in ('encoder', 'decoder') for kind in SHARED]
  names += ['encoder_input_tokens', *(f'decoder_{kind}' for kind in DECODER)]
  shape = (args.batch_size, args.length)
  shapes = dict.fromkeys(names, shape)
  types = dict.fromkeys(names, np.int32)
  start = utils.TrainStateInitializer(
    optimizer, model.get_initial_variables, shapes, partitioner, types
  )
  t5x_trainer = trainer.Trainer(
    model,
    start.global_train_state_shape,
    partitioner,
    eval_names=(),
    summary_dir=None,
    train_state_axes=start.train_state_axes,
    rng=np.zeros(2, np.uint32),
    learning_rate_fn=utils.create_learning_rate_scheduler(factors='constant'),
    num_microbatches=None,
  )
  batch = {name: jax.ShapeDtypeStruct(shape, np.int32) for name in names}
  with t5x_trainer:
    return t5x_trainer._partitioned_train_step.lower(start.global_train_state_shape, batch)


SHARED = ('segment_ids', 'positions')
DECODER = ('input_tokens', 'target_tokens', 'loss_weights')


def main() -> None:
  args = parse()
  options = dict(option.split('=', 1) for option in args.xla_option)
  text, peak, overflow = precompile.compiled_text(lowered(args), options)
  if overflow is not None:
    sys.exit(f'it does not fit: {overflow}')
  print(f'peak {0 if peak is None else peak / 2**30:.2f} GiB')
  costs = hlo_costs.analyse(text)
  print(
    f'{costs.matmul_flops:.3e} FLOPs, {costs.hbm_bytes / 1e12:.3f} TB from and to HBM,', end=' '
  )
  print(
    f'{costs.array_bytes / 1e12:.3f} TB of all arrays, {costs.wire_bytes / 1e9:.1f} GB on the wire'
  )
  schedule = hlo_schedule.play(text, topologies.get(args.topology).chip)
  print(
    f'{schedule.seconds:.3f} s as scheduled; of {schedule.wire_seconds:.3f} s on the wire '
    f'{schedule.wire_waits:.3f} are waited for'
  )


if __name__ == '__main__':
  main()

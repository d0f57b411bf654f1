"""Seconds of a whole train step with Adafactor: ours, transformers, T5X where it is importable.

    python -m benchmarks.train_step --shape small --batch 8 --inputs 128 --targets 128

All begin from random float32 parameters, train on the same random ids with dropout 0.1 and wait for
the loss. Figures: the loss of the last step, which falls alike. On an idle machine two runs differ
by a few percent; the ratio is what counts.
"""

import dataclasses
import os
from typing import Any

import numpy as np

from benchmarks import measurement

SHAPES: dict[str, dict[str, int]] = {
  'tiny': {
    'vocab_size': 32128,
    'emb_dim': 128,
    'num_heads': 4,
    'head_dim': 32,
    'mlp_dim': 256,
    'num_encoder_layers': 2,
    'num_decoder_layers': 2,
  },
  'small': {
    'vocab_size': 250112,
    'emb_dim': 512,
    'num_heads': 6,
    'head_dim': 64,
    'mlp_dim': 1024,
    'num_encoder_layers': 8,
    'num_decoder_layers': 8,
  },
  'base': {
    'vocab_size': 250112,
    'emb_dim': 768,
    'num_heads': 12,
    'head_dim': 64,
    'mlp_dim': 2048,
    'num_encoder_layers': 12,
    'num_decoder_layers': 12,
  },
}
HF_NAMES = {
  'vocab_size': 'vocab_size',
  'emb_dim': 'd_model',
  'num_heads': 'num_heads',
  'head_dim': 'd_kv',
  'mlp_dim': 'd_ff',
  'num_encoder_layers': 'num_layers',
  'num_decoder_layers': 'num_decoder_layers',
}
DROPOUT = 0.1
RATE = 1e-3


def batch_of(shape: str, batch: int, inputs: int, targets: int) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  top = SHAPES[shape]['vocab_size']

  def ids(length: int) -> np.ndarray:
    return rng.integers(3, top, (batch, length)).astype(np.int32)

  found = {'inputs': ids(inputs), 'targets': ids(targets)}
  found['decoder_inputs'] = np.pad(found['targets'][:, :-1], ((0, 0), (1, 0)))
  return found


@dataclasses.dataclass(frozen=True)
class Ids:
  """A vocabulary without texts. SeqIO's would bring TensorFlow, which `infer` does without."""

  vocab_size: int
  pad_id: int = 0
  eos_id: int = 1
  extra_ids: int = 0


def ours(shape: str, sizes: dict[str, int], options: dict[str, Any]) -> measurement.Run:
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  import jax

  from aya_train import task_registration

  task_registration.put_off()  # what is measured is the step; `train` reads tasks with TensorFlow
  from aya_train import initial_state, optimizer, partitioning, train_state, train_step
  from aya_train.models import network, t5_config
  from aya_train.objectives import objective, seq2seq

  config = t5_config.T5Config(
    **SHAPES[shape],
    mlp_activations=('gelu', 'linear'),
    dropout_rate=DROPOUT,
    scan_layers=options['scan'],
    dtype=options['dtype'],
  )
  vocabulary = Ids(config.vocab_size)
  model = seq2seq.EncoderDecoderModel(
    network.Transformer(config),
    *(vocabulary, vocabulary),
    loss_normalizing_factor='NUM_REAL_TARGET_TOKENS',
    loss_chunk_length=options['chunk'],
  )
  partitioner = partitioning.one_device()
  rate = optimizer.create_learning_rate_scheduler('constant', RATE)
  tx = optimizer.adafactor(rate, objective.parameter_axes(model)[1])
  abstract = train_state.abstract_state(model, tx, partitioner)
  state = initial_state.create(model, tx, partitioner, abstract, 0, None)
  step = train_step.make_train_step(model, tx, rate, partitioner, abstract, options['microbatches'])
  ids = batch_of(shape, **sizes)
  batch = partitioner.to_global(
    {
      'encoder_input_tokens': ids['inputs'],
      'decoder_input_tokens': ids['decoder_inputs'],
      'decoder_target_tokens': ids['targets'],
      'decoder_loss_weights': np.ones(ids['targets'].shape, np.int32),
    }
  )

  def run() -> dict[str, float]:
    nonlocal state
    state, sums = step(state, batch)
    jax.block_until_ready(state)
    return {'loss': float(sums['loss'])}

  return run


def transformers(shape: str, sizes: dict[str, int]) -> measurement.Run:
  import torch
  import transformers as hf
  from transformers import optimization

  torch.manual_seed(0)
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  config = hf.MT5Config(
    **{HF_NAMES[k]: v for k, v in SHAPES[shape].items()},
    dropout_rate=DROPOUT,
    tie_word_embeddings=False,
  )
  model = hf.MT5ForConditionalGeneration(config).train()
  tx = optimization.Adafactor(
    model.parameters(), lr=RATE, scale_parameter=True, relative_step=False, warmup_init=False
  )
  ids = {k: torch.from_numpy(v).long() for k, v in batch_of(shape, **sizes).items()}

  def run() -> dict[str, float]:
    loss = model(input_ids=ids['inputs'], labels=ids['targets']).loss
    loss.backward()
    tx.step()
    tx.zero_grad(set_to_none=True)
    return {'loss': loss.item()}

  return run


def t5x(shape: str, sizes: dict[str, int]) -> measurement.Run:
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  import jax
  import seqio
  from t5x import adafactor, models, partitioning, trainer, utils
  from t5x.examples.t5 import network

  config = network.T5Config(
    **SHAPES[shape],
    mlp_activations=('gelu', 'linear'),
    dropout_rate=DROPOUT,
    dtype='float32',
    logits_via_embedding=False,
  )
  vocabulary = seqio.PassThroughVocabulary(config.vocab_size, eos_id=1)
  tx = adafactor.Adafactor(
    decay_rate=0.8, step_offset=0, logical_factor_rules=adafactor.standard_logical_factor_rules()
  )
  model = models.EncoderDecoderModel(
    *(network.Transformer(config), vocabulary, vocabulary, tx),
    z_loss=1e-4,
    loss_normalizing_factor='NUM_REAL_TARGET_TOKENS',
  )
  partitioner = partitioning.PjitPartitioner(num_partitions=1)
  ids = batch_of(shape, **sizes)
  batch = {
    'encoder_input_tokens': ids['inputs'],
    'decoder_input_tokens': ids['decoder_inputs'],
    'decoder_target_tokens': ids['targets'],
    'decoder_loss_weights': np.ones(ids['targets'].shape, np.int32),
  }
  shapes = {k: v.shape for k, v in batch.items()}
  types = {k: v.dtype for k, v in batch.items()}
  start = utils.TrainStateInitializer(tx, model.get_initial_variables, shapes, partitioner, types)
  state = start.from_scratch(jax.random.PRNGKey(0))
  runner = trainer.Trainer(
    model,
    state,
    partitioner,
    eval_names=(),
    summary_dir=None,
    train_state_axes=start.train_state_axes,
    rng=jax.random.PRNGKey(0),
    learning_rate_fn=utils.create_learning_rate_scheduler('constant', RATE),
    num_microbatches=None,
  )
  del state

  def run() -> dict[str, float]:
    summary = runner.train(iter([batch]), 1)
    jax.block_until_ready(runner.train_state.params)
    del summary
    return {}

  return run


def main() -> None:
  parser = measurement.parser(__doc__)
  parser.add_argument('--shape', choices=sorted(SHAPES), default='tiny', help='of mT5')
  parser.add_argument('--batch', type=int, default=8, help='rows')
  parser.add_argument('--inputs', type=int, default=128, help='tokens of each')
  parser.add_argument('--targets', type=int, default=128, help='tokens of each')
  parser.add_argument('--chunk', type=int, help='our LOSS_CHUNK_LENGTH; all positions by default')
  parser.add_argument('--microbatches', type=int, default=1, help='our MICROBATCHES')
  parser.add_argument('--dtype', default='float32', help='our activations')
  parser.add_argument('--scan', action='store_true', help='our layers are scanned')
  parser.add_argument('--ways', default='ours,transformers,t5x', help='which are measured')
  args = parser.parse_args()
  sizes = {'batch': args.batch, 'inputs': args.inputs, 'targets': args.targets}
  options = {k: getattr(args, k) for k in ('chunk', 'microbatches', 'dtype', 'scan')}
  of = {'shape': args.shape, 'sizes': sizes}
  ways: dict[str, measurement.Way] = {
    'ours': (ours, {**of, 'options': options}),
    'transformers': (transformers, of),
    't5x': (t5x, of),
  }
  name = f'{args.shape}, {args.batch} x ({args.inputs} + {args.targets})'
  work = measurement.Work(name, args.batch * (args.inputs + args.targets), 'tokens')
  chosen = {k: ways[k] for k in args.ways.split(',')}
  found = measurement.measure(work, chosen, args.repeats)
  measurement.show(found)
  measurement.finish(args, 'train_step', found)


if __name__ == '__main__':
  main()

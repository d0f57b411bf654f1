"""`aya-train precompile`: the trainer's own step compiled for a TPU slice, without one."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from aya_train import config, partitioning, topologies, train_loop
from aya_train.models import seq2seq


@dataclasses.dataclass(frozen=True)
class Job:
  """What the gin files ask the trainer for, as far as it decides the compiled step."""

  model: seq2seq.EncoderDecoderModel
  optimizer: Any
  learning_rate_fn: Any
  partitioner: partitioning.Partitioner
  batch_size: int
  lengths: dict[str, int]
  packed: bool
  num_microbatches: int


def job(slice_: topologies.Slice) -> Job:
  bound = config.bound(train_loop.train)
  dataset = bound('train_dataset_cfg')
  return Job(
    bound('model'),
    bound('optimizer'),
    bound('learning_rate_fn'),
    dataclasses.replace(bound('partitioner'), devices=slice_.devices()),
    dataset.batch_size,
    dict(dataset.task_feature_lengths),
    dataset.pack,
    bound('num_microbatches') or 1,
  )


def abstract_batch(job: Job) -> dict[str, jax.ShapeDtypeStruct]:
  sharding = job.partitioner.batch_sharding
  lengths = {'encoder': job.lengths['inputs'], 'decoder': job.lengths['targets']}
  names = {'encoder': ['input_tokens'], 'decoder': ['input_tokens', 'target_tokens']}
  if job.packed:
    names = {side: [*names[side], 'segment_ids', 'positions'] for side in names}
  batch = {
    f'{side}_{name}': ((job.batch_size, lengths[side]), jnp.int32)
    for side in names
    for name in names[side]
  }
  batch['decoder_loss_weights'] = ((job.batch_size, lengths['decoder']), jnp.float32)
  return {
    name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
    for name, (shape, dtype) in batch.items()
  }


def lower(job: Job) -> Any:
  job.partitioner.check_batch_size(job.batch_size, job.num_microbatches)
  tx = job.optimizer(job.learning_rate_fn, seq2seq.parameter_axes(job.model)[1])
  state = train_loop.abstract_state(job.model, tx, job.partitioner)
  step = train_loop.make_train_step(
    job.model, tx, job.learning_rate_fn, job.partitioner, state, job.num_microbatches
  )
  return step.lower(state, abstract_batch(job))

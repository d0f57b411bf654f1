"""`aya-train precompile`: the trainer's own step compiled for a TPU slice, without a TPU.

What is compiled is the very function that the training loop runs (`train_loop.make_train_step`),
from shapes alone: no data, no weights.
"""

import collections
import dataclasses
import logging
import math
import pathlib
import re
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aya_train import config, hlo, hlo_costs, partitioning, roofline, topologies, train_loop
from aya_train.models import seq2seq

logger = logging.getLogger(__name__)
GIB = topologies.GIB


@dataclasses.dataclass(frozen=True)
class Job:
  """What the gin files ask the trainer for, as far as it decides the compiled step.

  Attributes:
    model, optimizer, learning_rate_fn, partitioner, num_microbatches: as `train_loop.train`'s.
    batch_size, lengths, packed: of the training data.
    steps: of the recipe.
  """

  model: seq2seq.EncoderDecoderModel
  optimizer: Any
  learning_rate_fn: Any
  partitioner: partitioning.Partitioner
  batch_size: int
  lengths: Mapping[str, int]
  packed: bool
  num_microbatches: int
  steps: int


def job(slice_: topologies.Slice) -> Job:
  """The job of the parsed gin files on the devices of a slice.

  Raises:
    ValueError: the gin files configure no training, or the mesh does not fit the slice.
  """
  bound = config.bound(train_loop.train)
  dataset = bound('train_dataset_cfg')
  made = Job(
    bound('model'),
    bound('optimizer'),
    bound('learning_rate_fn'),
    dataclasses.replace(bound('partitioner'), devices=slice_.devices()),
    dataset.batch_size,
    dict(dataset.task_feature_lengths),
    dataset.pack,
    bound('num_microbatches') or 1,
    bound('relative_steps') or bound('total_steps'),
  )
  try:
    made.partitioner.check_batch_size(made.batch_size, made.num_microbatches)
  except ValueError as error:
    raise ValueError(f'{error} ({slice_.name} has {slice_.num_chips} chips)') from error
  return made


def abstract_batch(job: Job) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of a training batch (aya_train/data.py), with the shardings it arrives in."""
  lengths = {'encoder': job.lengths['inputs'], 'decoder': job.lengths['targets']}
  names = {'encoder': ['input_tokens'], 'decoder': ['input_tokens', 'target_tokens']}
  if job.packed:
    names = {side: [*names[side], 'segment_ids', 'positions'] for side in names}
  batch: dict[str, Any] = {
    f'{side}_{name}': (lengths[side], jnp.int32) for side in names for name in names[side]
  }
  batch['decoder_loss_weights'] = (lengths['decoder'], jnp.float32)
  sharding = job.partitioner.batch_sharding
  return {
    name: jax.ShapeDtypeStruct((job.batch_size, length), dtype, sharding=sharding)
    for name, (length, dtype) in batch.items()
  }


def lower(job: Job) -> tuple[Any, Any]:
  """The training step, traced and ready to be compiled, and the abstract state it takes."""
  tx = job.optimizer(job.learning_rate_fn, seq2seq.parameter_axes(job.model)[1])
  state = train_loop.abstract_state(job.model, tx, job.partitioner)
  step: Any = train_loop.make_train_step(
    job.model, tx, job.learning_rate_fn, job.partitioner, state, job.num_microbatches
  )
  return step.lower(state, abstract_batch(job)), state


# The result ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Result:
  """What a compilation says about a job on a slice.

  Attributes:
    slice, num_chips, mesh: where.
    usable_hbm, peak_hbm: bytes of one chip; the peak is None if the compiler only says that it does
      not fit.
    hbm_by_kind: bytes of one chip at the peak, by what they hold.
    largest_buffers: 'bytes', 'shape' and 'where' of the largest arrays in HBM.
    settings: the gin macros that decide the numbers.
    costs, estimate: None where the program does not fit.
    suggestions: settings that would make it fit, with about how much each saves.
    compile_seconds, compiler_rss: of the compilation itself; bytes.
  """

  slice: str
  num_chips: int
  mesh: Mapping[str, int]
  usable_hbm: int
  peak_hbm: int | None
  hbm_by_kind: Mapping[str, int]
  largest_buffers: Sequence[Mapping[str, Any]]
  settings: Mapping[str, Any]
  costs: hlo_costs.Costs | None
  estimate: roofline.Estimate | None
  suggestions: Sequence[str]
  compile_seconds: float
  compiler_rss: int

  @property
  def fits(self) -> bool:
    return self.costs is not None and (self.peak_hbm or 0) <= self.usable_hbm

  @property
  def excess(self) -> int:
    """Bytes by which the program is too large."""
    return max(0, (self.peak_hbm or 0) - self.usable_hbm)

  def to_json(self) -> dict[str, Any]:
    """Plain numbers, with totals that would otherwise have to be added up."""
    record = dataclasses.asdict(self)
    record['fits'] = self.fits
    if self.costs is not None:
      record['costs']['wire_bytes'] = self.costs.wire_bytes
    return record


def compile_job(slice_: topologies.Slice, job: Job, settings: Mapping[str, Any]) -> Result:
  """Compiles a job's training step for a slice and counts what it costs.

  A program that does not fit is a result, not an error.
  """
  started = time.monotonic()
  lowered, state = lower(job)
  logger.info('compiling for %s (%d chips)', slice_.name, slice_.num_chips)
  too_large, text, peak, costs = None, '', None, None
  try:
    text, peak = _compiled(lowered)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    too_large = str(error)
    peak = used_bytes(too_large)
  else:
    costs = hlo_costs.analyse(text)
  seconds = time.monotonic() - started
  by_kind = _hbm_by_kind(job, state, peak)
  excess = 0 if peak is None else peak - slice_.chip.usable_hbm
  return Result(
    slice=slice_.name,
    num_chips=slice_.num_chips,
    mesh=dict(job.partitioner.mesh.shape),
    usable_hbm=slice_.chip.usable_hbm,
    peak_hbm=peak,
    hbm_by_kind=by_kind,
    largest_buffers=largest_buffers(text) if text else _buffers_of_message(too_large or ''),
    settings=settings,
    costs=costs,
    estimate=None
    if costs is None
    else roofline.estimate(costs, slice_, job.model.config, job.batch_size, job.lengths, job.steps),
    suggestions=suggestions(job, excess) if too_large else (),
    compile_seconds=seconds,
    compiler_rss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
  )


def _compiled(lowered: Any) -> tuple[str, int]:
  """The optimised program as text, and its peak memory in bytes.

  libtpu offloads gathers to the SparseCores of v5p and v6e, and jaxlib (0.10.2) refuses to read such
  a program back; libtpu's own dump of it has the same text.
  """
  with tempfile.TemporaryDirectory() as folder:
    options = {'xla_dump_to': folder, 'xla_dump_hlo_as_text': True}
    compiled = lowered.compile(compiler_options=options)
    peak = compiled.memory_analysis().peak_memory_in_bytes
    try:
      return compiled.as_text(), peak
    except jax.errors.JaxRuntimeError:
      dumps = sorted(pathlib.Path(folder).glob('*.after_optimizations.txt'))
      if not dumps:
        raise
      return dumps[-1].read_text(), peak


_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


def used_bytes(message: str) -> int | None:
  """The peak that the compiler names when it refuses a program: 'Used 31.41G of 30.75G hbm'."""
  found = re.search(r'Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm', message)
  return int(float(found[1]) * _UNITS[found[2]]) if found else None


def _buffers_of_message(message: str) -> list[dict[str, Any]]:
  """The largest allocations as the compiler's out-of-memory message lists them."""
  found = re.findall(
    r'Size: ([\d.]+)([KMGT]?)\s.*?Shape: (\S+?)\{.*?(?:op_name="([^"]*)")?$',
    message.replace('\n     ', ' ').replace('\n\n', '\n'),
    re.MULTILINE,
  )
  return [
    {'bytes': int(float(size) * _UNITS[unit]), 'shape': shape, 'where': hlo_costs.place(name)}
    for size, unit, shape, name in found[:12]
  ]


def _shard_bytes(tree: Any) -> int:
  return sum(
    math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
  )


def _hbm_by_kind(job: Job, state: Any, peak: int | None) -> dict[str, int]:
  parameters, optimizer = _shard_bytes(state.params), _shard_bytes(state.opt_state)
  gathered = jax.eval_shape(
    lambda params: job.partitioner.gather(
      params, seq2seq.parameter_axes(job.model)[1], job.model.config.dtype
    ),
    state.params,
  )
  kinds = {'parameters': parameters, 'optimizer': optimizer}
  grads = 0
  stored = jax.tree.leaves(state.params)
  for x, y in zip(stored, jax.tree.leaves(gathered), strict=True):
    part = math.prod(x.sharding.shard_shape(x.shape))
    if x.dtype != y.dtype:
      part *= math.prod(job.partitioner.mesh.shape[a] for a in job.partitioner.gathered_axes)
      kinds['gathered weights'] = kinds.get('gathered weights', 0) + part * y.dtype.itemsize
    grads += part * y.dtype.itemsize
  kinds['gradients'] = grads
  if peak is not None:
    kinds['activations and the rest'] = max(0, peak - sum(kinds.values()))
  return kinds


def largest_buffers(text: str, count: int = 12) -> list[dict[str, Any]]:
  """The largest arrays that a program keeps in HBM, one for each shape and source line."""
  module = hlo.parse(text)
  dull = {'parameter', 'get-tuple-element', 'tuple', 'bitcast', 'while', 'copy-done', 'slice-done'}
  sizes: dict[tuple[str, str], int] = {}
  counts: collections.Counter[tuple[str, str]] = collections.Counter()
  for computation, _ in module.executed():
    for instruction in computation.instructions:
      if instruction.opcode in dull:
        continue
      line = module.source_line(instruction, 'aya_train') or 'the compiler'
      where = f'{hlo_costs.place(instruction.op_name)} ({line})'
      for array in instruction.arrays:
        if array.space == hlo.HBM and array.padded_bytes > 2**20:
          key = (f'{array.dtype}[{",".join(map(str, array.dims))}]', where)
          sizes[key] = array.padded_bytes
          counts[key] += 1
  largest = sorted(sizes, key=lambda key: -sizes[key])[:count]
  return [
    {'bytes': sizes[key], 'shape': key[0], 'where': key[1], 'uses': counts[key]} for key in largest
  ]


# When it does not fit ------------------------------------------------------------------------------


def saved_bytes(job: Job) -> dict[str, int]:
  """Bytes of one chip that each name of REMAT_SAVE_NAMES keeps from forward to backward pass."""
  cfg = job.model.config
  rows = job.batch_size / job.partitioner.num_data_shards / job.num_microbatches
  source, target = job.lengths['inputs'], job.lengths['targets']
  unit = rows * cfg.dtype.itemsize
  tensor = job.partitioner.mesh.shape.get('model', 1)
  joined = unit * cfg.num_heads * cfg.head_dim / tensor
  encoder = source * cfg.num_encoder_layers
  decoder = target * cfg.num_decoder_layers
  crossed = source * cfg.num_decoder_layers
  mlp = unit * cfg.mlp_dim * len(cfg.mlp_activations) / tensor
  return {
    'query': int(joined * (encoder + 2 * decoder)),
    'key': int(joined * (encoder + decoder + crossed)),
    'value': int(joined * (encoder + decoder + crossed)),
    'attention': int(joined * (encoder + 2 * decoder)),
    'wi': int(mlp * (encoder + decoder)),
    'residual': int(unit * cfg.emb_dim * (encoder + 2 * decoder)),
  }


def suggestions(job: Job, excess: int) -> list[str]:
  """Settings that save memory, those first that recompute least, with about how much they save."""
  cfg = job.model.config
  lines, names = [], list(cfg.remat_save_names)
  if cfg.remat_policy == 'none':
    return ["REMAT_POLICY = 'save_named' (then fewer REMAT_SAVE_NAMES, or 'full')"]
  saved = saved_bytes(job) if cfg.remat_policy == 'save_named' else {}
  total = 0
  for name in ('key', 'value', 'query', 'attention', 'residual', 'wi'):
    if name in names and saved:
      names.remove(name)
      total += saved[name]
      if total >= excess:
        lines.append(f'REMAT_SAVE_NAMES = {tuple(names)}: about {total / GIB:.1f} GiB less')
        break
  parts = job.num_microbatches * 2
  if job.batch_size % (job.partitioner.num_data_shards * parts) == 0:
    half = sum(saved.get(name, 0) for name in cfg.remat_save_names) / 2
    text = f': about {half / GIB:.1f} GiB less' if half else ''
    lines.append(f'NUM_MICROBATCHES = {parts}{text}, more bytes on the wire')
  if (job.model.loss_chunk_length or job.lengths['targets']) > 64:
    lines.append('a smaller LOSS_CHUNK_LENGTH: logits of fewer positions at a time')
  if 'fsdp' not in job.partitioner.mesh_shape or job.partitioner.mesh_shape['fsdp'] == 1:
    lines.append("a mesh with an axis 'fsdp' (partitioning.fully_sharded_logical_axis_rules)")
  lines.append('a larger slice, or a smaller BATCH_SIZE')
  return lines


SETTINGS = (
  'MESH_SHAPE',
  'BATCH_SIZE',
  'TASK_FEATURE_LENGTHS',
  'NUM_MICROBATCHES',
  'REMAT_POLICY',
  'REMAT_SAVE_NAMES',
  'ATTENTION_KERNEL',
  'LOSS_CHUNK_LENGTH',
  'ACTIVATION_DTYPE',
)


def settings() -> dict[str, Any]:
  """The macros of the parsed gin files that decide what is compiled."""
  return {name: config.macro(name) for name in SETTINGS}

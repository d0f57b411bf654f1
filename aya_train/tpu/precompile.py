"""`aya-train precompile`: the trainer's own step compiled for a TPU slice, without a TPU.

What is compiled is the very function that the training loop runs (`train_step.make_train_step`),
from shapes alone: no data, no weights.
"""

import collections
import dataclasses
import logging
import math
import pathlib
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from aya_train import (
  config,
  memory_limits,
  partitioning,
  preflight,
  train_loop,
  train_state,
  train_step,
)
from aya_train.objectives import objective
from aya_train.tpu import hlo, hlo_costs, hlo_schedule, roofline, topologies

logger = logging.getLogger(__name__)
GIB = topologies.GIB
ACTIVATIONS = 'activations and the rest'
# Names of REMAT_SAVE_NAMES to give up first: bytes saved for each FLOP recomputed, best first.
DROP_ORDER = ('key', 'value', 'query', 'attention', 'residual', 'wi')


@dataclasses.dataclass(frozen=True)
class StepJob:
  """What the gin files ask the trainer for, as far as it decides the compiled step.

  Attributes:
    model, optimizer, learning_rate_fn, partitioner, num_microbatches: as `train_loop.train`'s.
    batch_size, lengths, packed: of the training data.
    steps: of the recipe.
  """

  model: Any  # an objective.Objective
  optimizer: Any
  learning_rate_fn: Any
  partitioner: partitioning.Partitioner
  batch_size: int
  lengths: Mapping[str, int]
  packed: bool
  num_microbatches: int
  steps: int

  @property
  def tokens(self) -> objective.RowTokens | None:
    """What T5's network computes of a row; None where the objective does not tell."""
    return self.model.row_tokens(self.lengths)


def job(slice_: topologies.Slice, *, check: bool = True) -> StepJob:
  """The job of the parsed gin files on the devices of a slice.

  Args:
    slice_: where.
    check: whether the mesh of the gin files must fit; `plan` puts others in its place.

  Raises:
    ValueError: the gin files configure no training or no steps, or the mesh does not fit the slice.
  """
  bound = config.bound(train_loop.train)
  dataset = bound('train_dataset_cfg')
  total, relative = bound('total_steps'), bound('relative_steps')
  preflight.check_asked_steps(total, relative)
  made = StepJob(
    bound('model'),
    bound('optimizer'),
    bound('learning_rate_fn'),
    dataclasses.replace(bound('partitioner'), devices=slice_.devices()),
    dataset.batch_size,
    dict(dataset.task_feature_lengths),
    dataset.pack,
    bound('num_microbatches') or 1,
    relative or total,
  )
  try:
    if check:
      made.partitioner.check_batch_size(made.batch_size, made.num_microbatches)
  except (ValueError, NotImplementedError) as error:
    raise ValueError(
      f'{error} ({slice_.name} has {slice_.num_chips} chips). hardware/tpu.gin shards fully over '
      f'any slice; `aya-train plan --topology={slice_.name}` finds a mesh and writes its hardware '
      'file'
    ) from error
  return made


def abstract_batch(job: StepJob) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of a training batch (aya_train/data/batching.py), with the shardings it arrives in."""
  batch = objective.abstract_batch(job.model, job.lengths, job.batch_size, packed=job.packed)
  sharding = job.partitioner.batch_sharding
  return {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for name, x in batch.items()
  }


def _transformation(job: StepJob) -> Any:
  axes = objective.parameter_axes(job.model)[1]
  return job.optimizer(job.learning_rate_fn, objective.trained(job.model, axes))


def lower(job: StepJob) -> tuple[Any, Any]:
  """The training step, traced and ready to be compiled, and the abstract state it takes."""
  tx = _transformation(job)
  state = train_state.abstract_state(job.model, tx, job.partitioner)
  step: Any = train_step.make_train_step(
    job.model, tx, job.learning_rate_fn, job.partitioner, state, job.num_microbatches
  )
  return step.lower(state, abstract_batch(job)), state


# The result ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Result:
  """What a compilation says about a job on a slice.

  Attributes:
    slice, num_chips, mesh: where.
    usable_hbm, peak_hbm: bytes of one chip; the peak is None if the compiler only says that it does
      not fit, or that another memory overflows.
    overflow: the memory that the compiler refuses the program for, None where it takes it.
    hbm_by_kind: bytes of one chip, by what they hold: weights and gradients by their shapes, the
      rest of the peak being activations (and, if the peak comes before the gradients, their room).
    largest_buffers: 'bytes', 'shape' and 'where' of the largest arrays in HBM.
    settings: the gin macros that decide the numbers.
    costs, estimate, schedule: None where the program does not fit.
    suggestions: settings that would make it fit, with about how much each saves.
    compile_seconds, compiler_rss: of the compilation itself; bytes.
  """

  slice: str
  num_chips: int
  mesh: Mapping[str, int]
  usable_hbm: int
  peak_hbm: int | None
  overflow: memory_limits.Overflow | None
  hbm_by_kind: Mapping[str, int]
  largest_buffers: Sequence[Mapping[str, Any]]
  settings: Mapping[str, Any]
  costs: hlo_costs.Costs | None
  estimate: roofline.StepEstimate | None
  schedule: hlo_schedule.Playback | None
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


def compile_job(slice_: topologies.Slice, job: StepJob, settings: Mapping[str, Any]) -> Result:
  """Compiles a job's training step for a slice and counts what it costs.

  A program that does not fit is a result, not an error.
  """
  started = time.monotonic()
  lowered, state = lower(job)
  logger.info('compiling for %s (%d chips)', slice_.name, slice_.num_chips)
  text, peak, overflow = compiled_text(lowered)
  costs = hlo_costs.analyse(text) if overflow is None else None
  seconds = time.monotonic() - started
  by_kind = _hbm_by_kind(job, state, peak)
  return Result(
    slice=slice_.name,
    num_chips=slice_.num_chips,
    mesh=dict(job.partitioner.mesh.shape),
    usable_hbm=slice_.chip.usable_hbm,
    peak_hbm=peak,
    overflow=overflow,
    hbm_by_kind=by_kind,
    largest_buffers=largest_buffers(text) if text else (),
    settings=settings,
    costs=costs,
    estimate=None
    if costs is None or job.tokens is None
    else roofline.estimate(
      *(costs, slice_, job.model.config, job.batch_size, job.tokens, job.steps),
      frozen=job.model.adapter is not None,
    ),
    schedule=None if costs is None else hlo_schedule.play(text, slice_.chip),
    suggestions=()
    if overflow is None
    else on_chip_suggestions(job, overflow)
    if overflow.on_chip
    else suggestions(job, by_kind, peak, slice_.chip.usable_hbm),
    compile_seconds=seconds,
    compiler_rss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
  )


def compiled_text(
  lowered: Any, options: Mapping[str, Any] | None = None
) -> tuple[str, int | None, memory_limits.Overflow | None]:
  """The optimised program as text, its peak HBM in bytes, and the memory that is too small for it.

  A program that does not fit is known from libtpu's dump of it alone. libtpu offloads gathers to
  the SparseCores of v5p and v6e, and jaxlib (0.10.2) refuses to read such a program back: the dump
  again.
  """
  with tempfile.TemporaryDirectory() as folder:
    dump = {'xla_dump_to': folder, 'xla_dump_hlo_as_text': True}
    try:
      compiled = lowered.compile(compiler_options={**(options or {}), **dump})
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      overflow = memory_limits.overflow(str(error))
      peak = None if overflow.on_chip else overflow.used
      return _dumped_text(folder) or '', peak, overflow
    peak = compiled.memory_analysis().peak_memory_in_bytes
    try:
      return compiled.as_text(), peak, None
    except jax.errors.JaxRuntimeError:
      text = _dumped_text(folder)
      if text is None:
        raise
      return text, peak, None


def _dumped_text(folder: str) -> str | None:
  dumps = sorted(pathlib.Path(folder).glob('*.after_optimizations.txt'))
  return dumps[-1].read_text() if dumps else None


def _shard_bytes(tree: Any) -> int:
  return sum(
    math.prod(x.sharding.shard_shape(x.shape)) * _bits(x.dtype) // 8 for x in jax.tree.leaves(tree)
  )


def _bits(dtype: Any) -> int:
  """Bits of a number in a device's memory, where two of 4 bits share a byte."""
  return jax.dtypes.itemsize_bits(dtype)


def fixed_bytes(job: StepJob) -> dict[str, int]:
  """Bytes of one chip by kind that do not depend on what layers save: weights, gradients ..."""
  tx = _transformation(job)
  state = train_state.abstract_state(job.model, tx, job.partitioner)
  return _hbm_by_kind(job, state, None)


def _hbm_by_kind(job: StepJob, state: Any, peak: int | None) -> dict[str, int]:
  parameters, optimizer = _shard_bytes(state.params), _shard_bytes(state.opt_state)
  axes = objective.parameter_axes(job.model)[1]
  gathered = jax.eval_shape(
    lambda params: job.partitioner.gather(params, axes, job.model.activation_dtype),
    state.all_params,
  )
  kinds = {'parameters': parameters, 'optimizer': optimizer}
  if state.frozen:
    kinds['frozen weights'] = _shard_bytes(state.frozen)
  stored = jax.tree.leaves(state.all_params)
  for x, y in zip(stored, jax.tree.leaves(gathered), strict=True):
    if x.dtype != y.dtype:
      part = math.prod(x.sharding.shard_shape(x.shape))
      part *= math.prod(job.partitioner.mesh.shape[a] for a in job.partitioner.gathered_axes)
      kinds['gathered weights'] = kinds.get('gathered weights', 0) + part * y.dtype.itemsize
  grads = 0
  trained = (objective.trained(job.model, tree) for tree in (state.all_params, gathered))
  for x, y in zip(*map(jax.tree.leaves, trained), strict=True):
    part = math.prod(x.sharding.shard_shape(x.shape))
    if x.dtype != y.dtype:
      part *= math.prod(job.partitioner.mesh.shape[a] for a in job.partitioner.gathered_axes)
    grads += part * y.dtype.itemsize
  kinds['gradients'] = grads
  if job.num_microbatches > 1:
    kinds['sums of gradients'] = parameters
  if peak is not None:
    kinds[ACTIVATIONS] = max(0, peak - sum(kinds.values()))
  return kinds


def largest_buffers(text: str, count: int = 12) -> list[dict[str, Any]]:
  """The largest arrays that a program keeps in HBM, one for each shape and source line."""
  module = hlo.parse(text)
  dull = {'parameter', 'get-tuple-element', 'tuple', 'bitcast', 'while', 'copy-done', 'slice-done'}
  sizes: dict[tuple[str, str], int] = {}
  counts: collections.Counter[tuple[str, str]] = collections.Counter()
  for computation, _ in module.executed():
    for instruction in computation.instructions:
      if instruction.opcode in dull or '"AllocateBuffer"' in instruction.attributes:
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


# When it does not fit -----------------------------------------------------------------------------


def saved_bytes(job: StepJob) -> dict[str, int]:
  """Bytes of one chip that each name of REMAT_SAVE_NAMES keeps from forward to backward pass.

  Nothing is known where `job.tokens` is None.
  """
  cfg, tokens = job.model.config, job.tokens
  if tokens is None:
    return {}
  rows = job.batch_size / job.partitioner.num_data_shards / job.num_microbatches
  source, target = sum(tokens.encoded), sum(tokens.decoded)
  unit = rows * cfg.dtype.itemsize
  tensor = job.partitioner.mesh.shape.get('model', 1)
  joined = unit * cfg.num_heads * cfg.head_dim / tensor
  encoder = source * cfg.num_encoder_layers
  decoder = target * cfg.num_decoder_layers
  crossed = source * len(tokens.decoded) * cfg.num_decoder_layers
  mlp = unit * cfg.mlp_dim * len(cfg.mlp_activations) / tensor
  return {
    'query': int(joined * (encoder + 2 * decoder)),
    'key': int(joined * (encoder + decoder + crossed)),
    'value': int(joined * (encoder + decoder + crossed)),
    'attention': int(joined * (encoder + 2 * decoder)),
    'wi': int(mlp * (encoder + decoder)),
    'residual': int(unit * cfg.emb_dim * (encoder + 2 * decoder)),
  }


def suggestions(
  job: StepJob, by_kind: Mapping[str, int], peak: int | None, usable: int
) -> list[str]:
  """Settings that would make a job fit, those first that recompute least; estimates, in GiB.

  Args:
    job: what did not fit.
    by_kind: bytes that no setting of rematerialisation or microbatches changes, and activations.
    peak, usable: bytes of one chip; the peak is None if the compiler did not name it.
  """
  cfg, parts = job.model.config, job.num_microbatches
  larger = 'a larger slice, or a smaller BATCH_SIZE'
  remat = None if cfg is None else cfg.remat_policy
  if remat == 'none':
    return ["REMAT_POLICY = 'save_named' (then fewer REMAT_SAVE_NAMES, or 'full')", larger]
  if peak is None:
    recomputed = ["REMAT_POLICY = 'full'"] if remat else []
    return [*recomputed, f'NUM_MICROBATCHES = {2 * parts}', larger]
  excess = peak - usable
  fixed = sum(size for kind, size in by_kind.items() if kind != ACTIVATIONS)
  sharded = _fully_sharded(job)
  adapter = job.model.adapter
  fewer_bits = []
  if adapter is not None and adapter.base_weights != 'nf4':
    fewer_bits = ["LORA_BASE_WEIGHTS = 'nf4': weights under the adapter of 4.5 bits each"]
  if fixed > usable and sharded:
    return [
      *fewer_bits,
      f'a larger slice or a smaller model: weights and gradients alone take {fixed / GIB:.1f} GiB '
      'of every chip',
    ]
  lines = [] if sharded else ["MESH_SHAPE = {'data': 1, 'fsdp': -1, 'model': 1}: all fully sharded"]
  lines = [*fewer_bits, *lines]
  saved = saved_bytes(job) if remat == 'save_named' else {}
  names, total = list(cfg.remat_save_names) if saved else [], 0
  for name in DROP_ORDER:
    if name in names and saved and total < excess:
      names.remove(name)
      total += saved[name]
  if saved and total >= excess and names:
    lines.append(f'REMAT_SAVE_NAMES = {tuple(names)}: about {total / GIB:.1f} GiB less')
  elif saved and total >= excess:
    lines.append(f"REMAT_POLICY = 'full': about {total / GIB:.1f} GiB less")
  # Twice the parts, half the activations; the first cut adds sums of gradients.
  activations = max(0, peak - fixed)
  added = by_kind['parameters'] if parts == 1 else 0
  for full in [False, True] if saved else [False]:
    kept = sum(saved[name] for name in cfg.remat_save_names) if full else 0
    found = _enough_parts(job, activations - kept, excess - kept + added)
    if found is not None:
      setting = f'NUM_MICROBATCHES = {found[0]}' + (" and REMAT_POLICY = 'full'" * full)
      less = (found[1] + kept - added) / GIB
      lines.append(f'{setting}: about {less:.1f} GiB less, more bytes on the wire')
      break
  tokens = job.tokens
  if tokens and (getattr(job.model, 'loss_chunk_length', None) or tokens.scored) > 64:
    lines.append('a smaller LOSS_CHUNK_LENGTH: logits of fewer positions at a time')
  return [*lines, larger]


def on_chip_suggestions(job: StepJob, overflow: memory_limits.Overflow) -> list[str]:
  """Settings that make a kernel's working set smaller; those of HBM change nothing about it.

  Args:
    job: what did not fit.
    overflow: of a memory on the chip.
  """
  cfg, lines = job.model.config, []
  of_attention = not overflow.where or 'attention' in overflow.where
  if of_attention and cfg is not None and cfg.attention_kernel == 'fused':
    if cfg.dtype.itemsize > 2:
      lines.append("ACTIVATION_DTYPE = 'bfloat16': the kernel's rows of keys take half as much")
    lines.append("ATTENTION_KERNEL = 'plain': no kernel; the scores lie in HBM")
    lines.append(
      f'shorter rows than TASK_FEATURE_LENGTHS = {dict(job.lengths)}: the kernel holds whole rows'
    )
  else:
    lines.append(
      'another libtpu: this is how its compiler cut the operation, not a setting of ours'
    )
  return [*lines, f'REMAT_POLICY and NUM_MICROBATCHES save HBM, and would save no {overflow.space}']


def _enough_parts(job: StepJob, activations: int, excess: int) -> tuple[int, int] | None:
  """The fewest microbatches that save as much of the activations, and how much they save."""
  parts = job.num_microbatches * 2
  while job.batch_size % (job.partitioner.num_data_shards * parts) == 0:
    less = activations - activations * job.num_microbatches // parts
    if less >= excess:
      return parts, less
    parts *= 2
  return None


def _fully_sharded(job: StepJob) -> bool:
  """Whether the chips that hold other rows hold other parts of the weights too."""
  sizes, gathered = job.partitioner.mesh.shape, job.partitioner.gathered_axes
  return sizes['data'] == 1 or 'data' in gathered


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

"""Where arrays live: a device mesh, and one table from logical axes to mesh axes.

This is the only module that knows a mesh. Layers name logical axes, the table (bound in gin's
hardware files) says which mesh axis each is split over. Words and precedence are those of
t5x/partitioning.py: a logical axis may stand in several rules, and an array takes the first whose
mesh axis it does not use yet.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aya_train import parameter_tree

MeshAxes = str | tuple[str, ...] | None
Rules = Sequence[tuple[str, MeshAxes]]
REPLICATED_AXES = ('kv', 'length', 'layers', 'relpos_buckets')


def standard_logical_axis_rules(
  activation_partitioning_dims: int = 1,
  parameter_partitioning_dims: int = 1,
  additional_rules: Rules = (),
) -> tuple[tuple[str, MeshAxes], ...]:
  """T5X's table for a mesh with axes 'data' and 'model'.

  Args:
    activation_partitioning_dims: 2 also splits the model width of activations over 'model'.
    parameter_partitioning_dims: 2 also splits parameters (and their optimizer state) over 'data':
      fully sharded data parallelism, without which mT5-xxl fits no chip.
    additional_rules: appended, so that they apply where no earlier rule does.

  Raises:
    ValueError: a number of dimensions other than 1 and 2.
  """
  for name, dims in (
    ('activation_partitioning_dims', activation_partitioning_dims),
    ('parameter_partitioning_dims', parameter_partitioning_dims),
  ):
    if dims not in (1, 2):
      raise ValueError(f'{name} must be 1 or 2, got {dims!r}')
  rules: list[tuple[str, MeshAxes]] = [
    ('batch', 'data'),
    ('embed_and_logits_batch', 'data'),
    ('vocab', 'model'),
    ('mlp', 'model'),
    ('heads', 'model'),
    ('joined_kv', 'model'),
  ]
  if activation_partitioning_dims == 2:
    rules.append(('embed', 'model'))
  if parameter_partitioning_dims == 2:
    rules.append(('embed', 'data'))
  if not any(name == 'embed' for name, _ in rules):
    rules.append(('embed', None))
  rules += [('embed_vocab', axis) for name, axis in rules if name == 'embed']
  rules += [(name, None) for name in REPLICATED_AXES]
  return (*rules, *additional_rules)


def fully_sharded_logical_axis_rules(
  parameters_over_data: bool = False,
  additional_rules: Rules = (),
) -> tuple[tuple[str, MeshAxes], ...]:
  """Fully sharded data parallelism for a mesh with axes 'data', 'fsdp' and 'model'.

  Rows are split over 'data' and 'fsdp', parameters and their optimizer state over 'fsdp' (and
  'model'), copied along 'data'. On a 3-D torus an 'fsdp' of two axes lets XLA gather weights as
  such; over three it sums them with zeros, at twice the bytes on the wire.

  Around the two arrays that have the vocabulary's length, tokens travel instead of weights: the
  embedding is split by width and the output head by vocabulary, both over 'fsdp', and each chip
  works on the rows of its whole 'fsdp' group there (`embed_and_logits_batch`).

  Args:
    parameters_over_data: store layers' weights in parts along 'data' too. Then 'data' belongs into
      `Partitioner.gathered_axes`.
    additional_rules: appended, so that they apply where no earlier rule does.
  """
  rules: list[tuple[str, MeshAxes]] = [
    ('batch', ('data', 'fsdp')),
    ('embed_and_logits_batch', 'data'),
    ('embed_vocab', 'fsdp'),
    ('vocab', ('fsdp', 'model')),
    ('mlp', 'model'),
    ('heads', 'model'),
    ('joined_kv', 'model'),
    *([('embed', ('fsdp', 'data'))] if parameters_over_data else []),
    ('embed', 'fsdp'),
  ]
  return (*rules, *((name, None) for name in REPLICATED_AXES), *additional_rules)


# XLA's CPU scheduler begins early what could run beside the rest, and keeps its arrays: 0.5 GiB of
# zeros, which the gradient of mT5's embedding is added to, through the whole forward pass.
_ONE_CPU_OPTIONS = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}
# Several TPU chips gather weights beside the products before those that need them, which libtpu by
# itself does on v5e alone. MaxText's recipe for v4 has the same (configs/v4/22b.sh).
_TPU_OPTIONS = {'xla_enable_async_all_gather': 'true'}
# On chips with SparseCores these do the collectives, as in MaxText's recipes for v6e
# (benchmarks/xla_flags_library.py).
_SPARSE_CORE_OPTIONS = {
  **{
    f'xla_tpu_enable_sparse_core_collective_offload_{kind}': 'true'
    for kind in ('all_gather', 'reduce_scatter', 'all_reduce')
  },
  'xla_tpu_enable_all_gather_offload_tracing': 'true',
  'xla_tpu_enable_async_collective_fusion_fuse_all_gather': 'false',
}
_HAVE_SPARSE_CORES = ('TPU v5', 'TPU v5p', 'TPU v6 lite', 'TPU v6e')


def _platform_options(kinds: Sequence[tuple[str, str]]) -> dict[str, str]:
  """XLA's options for a training step on devices of these platforms and kinds.

  A single CPU alone has its own: among several, sums over devices may wait for each other
  (factored_rms).
  """
  if [platform for platform, _ in kinds] == ['cpu']:
    return _ONE_CPU_OPTIONS
  if len(kinds) == 1 or {platform for platform, _ in kinds} != {'tpu'}:
    return {}
  sparse = all(kind in _HAVE_SPARSE_CORES for _, kind in kinds)
  return _TPU_OPTIONS | (_SPARSE_CORE_OPTIONS if sparse else {})


@dataclasses.dataclass(frozen=True, eq=False)
class Partitioner:
  """A mesh over some devices and the table of logical axes.

  Attributes:
    mesh_shape: sizes of the mesh axes in order; one may be -1 and takes the devices that are left.
      'data' must be among them: batches are split over it.
    logical_axis_rules: pairs (logical axis, mesh axis or None).
    devices: defaults to all devices of all hosts; a compile-only topology gives its own.
    gathered_axes: mesh axes along which weights are stored in parts but gathered once a step, in
      the activations' dtype, instead of layer by layer.
    compiler_options: XLA's, for the training step, beside those that the devices need; an option of
      theirs that is None here is left out. See `step_options`.
  """

  mesh_shape: Mapping[str, int]
  logical_axis_rules: Rules
  devices: Sequence[Any] | None = None
  gathered_axes: tuple[str, ...] = ()
  compiler_options: Mapping[str, str | None] | None = None

  def __post_init__(self):
    if 'data' not in self.mesh_shape:
      raise ValueError(f"MESH_SHAPE needs an axis 'data', got {dict(self.mesh_shape)}")
    named = {axis for _, axes in self.logical_axis_rules for axis in _as_tuple(axes)}
    unknown = named - set(self.mesh_shape)
    if unknown:
      raise ValueError(
        f'logical axis rules use the mesh axes {sorted(unknown)}, '
        f'but MESH_SHAPE has only {list(self.mesh_shape)}'
      )

  @functools.cached_property
  def mesh(self) -> Mesh:
    """The device mesh.

    Raises:
      ValueError: the sizes do not multiply to the number of devices.
    """
    devices = list(self.devices) if self.devices is not None else jax.devices()
    sizes = list(self.mesh_shape.values())
    if sizes.count(-1) == 1:
      known = math.prod(size for size in sizes if size != -1)
      sizes[sizes.index(-1)] = len(devices) // known
    if math.prod(sizes) != len(devices) or min(sizes) < 1:
      raise ValueError(
        f'MESH_SHAPE {dict(self.mesh_shape)} does not fit {len(devices)} devices: the sizes must '
        'multiply to that number (one of them may be -1)'
      )
    return jax.make_mesh(
      tuple(sizes),
      tuple(self.mesh_shape),
      axis_types=(jax.sharding.AxisType.Auto,) * len(sizes),
      devices=devices,
    )

  @contextlib.contextmanager
  def context(self) -> Iterator[None]:
    """Inside, logical constraints of the layers apply to this mesh."""
    with jax.set_mesh(self.mesh), nn.logical_axis_rules(self.logical_axis_rules):
      yield

  def spec(self, axes: tuple[str | None, ...]) -> PartitionSpec:
    """The mesh axes of an array with these logical axes.

    Raises:
      ValueError: a logical axis that no rule names.
    """
    known = {name for name, _ in self.logical_axis_rules}
    if missing := [name for name in axes if name is not None and name not in known]:
      raise ValueError(
        f'no rule for the logical axes {missing} of {axes}; rules exist for {sorted(known)}'
      )
    return PartitionSpec(*nn.logical_to_mesh_axes(axes, self.logical_axis_rules))

  def shardings(self, axes_tree: Any, abstract: Any) -> Any:
    """NamedShardings for a tree of arrays.

    An axis whose length the mesh does not divide is replicated (mT5-small has 6 heads).

    Args:
      axes_tree: tuples of logical axis names.
      abstract: a tree of the same structure with shapes.
    """

    def sharding(leaf: Any, axes: tuple[str | None, ...]) -> NamedSharding:
      mesh_axes = [
        axis if axis is None or leaf.shape[i] % self._size(axis) == 0 else None
        for i, axis in enumerate(self.spec(axes))
      ]
      return NamedSharding(self.mesh, PartitionSpec(*mesh_axes))

    return jax.tree.map(sharding, abstract, axes_tree)

  def _size(self, axis: str | tuple[str, ...]) -> int:
    return math.prod(self.mesh.shape[a] for a in _as_tuple(axis))

  def gather(self, params: Any, axes_tree: Any, dtype: Any) -> Any:
    """Weights as the layers compute with them: those stored along `gathered_axes`, cast and whole.

    The gradient comes back in parts again. Rounding here is what each layer does anyway.

    Args:
      params: float32 parameters.
      axes_tree: tuples of logical axis names.
      dtype: that of the activations.
    """
    gathered = set(self.gathered_axes)

    def one(x: jax.Array, sharding: NamedSharding) -> jax.Array:
      if not jax.numpy.issubdtype(x.dtype, jax.numpy.inexact):
        return x  # quantised, and layers bring it into their dtype
      stored = [_as_tuple(axes) for axes in sharding.spec]
      if not gathered & {axis for axes in stored for axis in axes}:
        return x
      kept = PartitionSpec(*(tuple(a for a in axes if a not in gathered) for axes in stored))
      return jax.lax.with_sharding_constraint(x.astype(dtype), NamedSharding(self.mesh, kept))

    return jax.tree.map(one, params, self.shardings(axes_tree, params)) if gathered else params

  @property
  def step_options(self) -> dict[str, str]:
    """XLA's options for the training step: what the devices need, and `compiler_options`."""
    kinds = [(device.platform, device.device_kind) for device in self.mesh.devices.flat]
    options = {**_platform_options(kinds), **(self.compiler_options or {})}
    return {name: value for name, value in options.items() if value is not None}

  @property
  def batch_sharding(self) -> NamedSharding:
    """Rows of a batch [B, ...] over the data axes."""
    return NamedSharding(self.mesh, PartitionSpec(*self.spec(('batch',))))

  @property
  def replicated(self) -> NamedSharding:
    return NamedSharding(self.mesh, PartitionSpec())

  @property
  def num_data_shards(self) -> int:
    """Into how many parts the rows of a batch are split."""
    (axis,) = self.spec(('batch',))
    return 1 if axis is None else self._size(axis)

  def check_batch_size(self, batch_size: int, num_microbatches: int = 1, name='BATCH_SIZE') -> None:
    """Refuses a batch that the data axis or the microbatches do not divide.

    Raises:
      ValueError: with both numbers and sizes that would do; a batch of nothing.
    """
    if batch_size < 1:
      raise ValueError(f'{name} must be at least 1, got {batch_size}')
    parts = self.num_data_shards * num_microbatches
    if batch_size % parts:
      good = max(batch_size // parts, 1) * parts
      raise ValueError(
        f'{name} {batch_size} is not divisible by {parts} ({self.num_data_shards} data shards x '
        f'{num_microbatches} microbatches, mesh {dict(self.mesh.shape)}): '
        f'take {good} or {good + parts}, or another MESH_SHAPE or NUM_MICROBATCHES'
      )

  @functools.cached_property
  def data_shard(self) -> tuple[int, int]:
    """Which part of a batch's rows this host's devices hold, and of how many parts.

    Hosts that hold the same rows, since an axis such as `model` runs over them, have the same part:
    they must be given the same rows (as `get_data_layout` of t5x/partitioning.py has it).

    Raises:
      ValueError: hosts share some of their rows, but not all.
    """
    shards = self.num_data_shards
    held: dict[int, set[int]] = {}
    devices: Mapping[Any, Any] = self.batch_sharding.devices_indices_map((shards,))
    for device, (rows,) in devices.items():
      held.setdefault(device.process_index, set()).update(range(shards)[rows])
    parts = sorted({tuple(sorted(rows)) for rows in held.values()})
    if len({len(part) for part in parts}) != 1 or sum(map(len, parts)) != shards:
      raise ValueError(
        f'MESH_SHAPE {dict(self.mesh_shape)} gives the hosts rows {parts} of {shards}: they must '
        'have the same rows or none in common, and equally many. Take a `model` axis that divides '
        'the devices of a host, or is a multiple of them'
      )
    return parts.index(tuple(sorted(held[jax.process_index()]))), len(parts)

  def to_global(self, local_batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Joins the rows [B / parts, ...] of each part (`data_shard`) into the whole batch [B, ...]."""
    sharding, (_, parts) = self.batch_sharding, self.data_shard
    return {
      name: jax.make_array_from_process_local_data(
        sharding, rows, (rows.shape[0] * parts, *rows.shape[1:])
      )
      for name, rows in local_batch.items()
    }

  def place(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Lays out a whole batch [B, ...] that every host has; its rows keep their order."""
    sharding = self.batch_sharding
    return {
      name: jax.make_array_from_callback(rows.shape, sharding, functools.partial(_part, rows))
      for name, rows in batch.items()
    }

  def jit(self, function: Callable[..., Any], **kwargs: Any) -> Callable[..., Any]:
    """`jax.jit` whose tracing and running see this mesh and these rules."""
    jitted = jax.jit(function, **kwargs)

    @functools.wraps(function)
    def call(*args: Any, **kw: Any) -> Any:
      with self.context():
        return jitted(*args, **kw)

    def lower(*args: Any, **kw: Any) -> Any:
      with self.context():
        return jitted.lower(*args, **kw)

    call.lower = lower  # type: ignore[attr-defined]
    return call


def _part(rows: np.ndarray, index: tuple[slice, ...]) -> np.ndarray:
  return rows[index]


# Inside a layer ---------------------------------------------------------------------------------


def per_shard(function: Callable[..., Any], in_axes: Any, out_axes: Any) -> Callable[..., Any]:
  """Runs a function on each device's part of its arguments; a kernel needs this, XLA cannot cut it.

  Outside of `Partitioner.context` the function runs as it is.

  Args:
    function: of positional arguments, pytrees of arrays.
    in_axes, out_axes: trees like the arguments and the results with a tuple of logical axis names
      at each array. An axis without a rule stays whole on each device.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return function

  def spec(axes: tuple[str | None, ...]) -> PartitionSpec:
    return PartitionSpec(*(_mesh_axes(name) for name in axes))

  specs = [jax.tree.map(spec, axes, is_leaf=parameter_tree.is_axes) for axes in (in_axes, out_axes)]
  return jax.shard_map(function, mesh=mesh, in_specs=specs[0], out_specs=specs[1], check_vma=False)


def sum_over(x: jax.Array, axis: str) -> jax.Array:
  """Inside `per_shard`: the sum over all parts of a logical axis."""
  if jax.sharding.get_abstract_mesh().empty or not (axes := _mesh_axes(axis)):
    return x
  return jax.lax.psum(x, axes)


def _mesh_axes(name: str | None) -> tuple[str, ...]:
  """Mesh axes longer than 1 that the rules in force give to one logical axis."""
  if name is None:
    return ()
  (axes,) = nn.logical_to_mesh_axes((name,), nn.get_logical_axis_rules())
  sizes = jax.sharding.get_abstract_mesh().shape
  return tuple(a for a in _as_tuple(axes) if sizes[a] > 1)


def _as_tuple(axes: MeshAxes) -> tuple[str, ...]:
  return (axes,) if isinstance(axes, str) else tuple(axes or ())


def one_device() -> Partitioner:
  """A partitioner of this process's first device alone."""
  rules = standard_logical_axis_rules()
  return Partitioner({'data': 1, 'model': 1}, rules, jax.local_devices()[:1])

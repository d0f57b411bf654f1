"""What a compiled program costs one chip: matrix FLOPs, bytes of HBM, bytes on the wire.

XLA's own cost analysis counts the body of a loop once; here it counts as often as it runs.
Everything is arithmetic on the program's text (aya_train/tpu/hlo.py).
"""

import collections
import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping

from aya_train.tpu import hlo

COLLECTIVES = ('all-gather', 'reduce-scatter', 'all-reduce', 'all-to-all', 'collective-permute')
# These name, group or wait for arrays; they move nothing.
_FREE = frozenset(
  [
    'parameter',
    'constant',
    'tuple',
    'get-tuple-element',
    'bitcast',
    'while',
    'conditional',
    'call',
    'after-all',
    'partition-id',
    'replica-id',
    'opt-barrier',
    'copy-done',
    'slice-done',
    'async-start',
    'async-update',
    'async-done',
    'domain',
    'send-done',
    'recv-done',
  ]
)
_FREE_CUSTOM_CALLS = ('ConcatBitcast', 'AllocateBuffer', 'AssumeGatherIndicesInBound', 'Sharding')


@dataclasses.dataclass(frozen=True)
class Collective:
  """All uses of one kind of collective in a step.

  Attributes:
    kind: one of COLLECTIVES.
    group_size: chips that take part.
    count: how often it runs in a step.
    wire_bytes: bytes that one chip sends in a step, by a ring.
  """

  kind: str
  group_size: int
  count: float
  wire_bytes: float


@dataclasses.dataclass(frozen=True)
class Costs:
  """Costs of one run of the program on one chip.

  Attributes:
    matmul_flops: of all matrix products, those inside kernels as their authors state them.
    hbm_bytes: read from and written to HBM; what stays on the chip does not count: a lower bound.
    array_bytes: the same of every array, wherever the compiler keeps it: what HBM would carry if
      nothing stayed on the chip.
    collectives: by kind and group size, most bytes first.
    matmul_flops_by_place, hbm_bytes_by_place: shares of the totals by JAX name stack (shortened).
  """

  matmul_flops: float
  hbm_bytes: float
  array_bytes: float
  collectives: tuple[Collective, ...]
  matmul_flops_by_place: Mapping[str, float]
  hbm_bytes_by_place: Mapping[str, float]

  @property
  def wire_bytes(self) -> float:
    return sum(c.wire_bytes for c in self.collectives)


def analyse(text: str) -> Costs:
  """Counts the costs of the text of a compiled program."""
  module = hlo.parse(text)
  flops: dict[str, float] = collections.defaultdict(float)
  traffic: dict[str, float] = collections.defaultdict(float)
  wires: dict[tuple[str, int], list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
  anywhere = 0.0
  for computation, times in module.executed():
    for instruction in computation.instructions:
      where = place(instruction.op_name)
      if count := matmul_flops(module, computation, instruction):
        flops[where] += times * count
      if moved := moved_bytes(module, computation, instruction):
        traffic[where] += times * moved
      anywhere += times * moved_bytes(module, computation, instruction, everywhere)
      if sent := wire(module, instruction):
        kind, size, moved = sent
        wires[kind, size][0] += times
        wires[kind, size][1] += times * moved
  collectives = [Collective(*key, *values) for key, values in wires.items()]
  return Costs(
    sum(flops.values()),
    sum(traffic.values()),
    anywhere,
    tuple(sorted(collectives, key=lambda c: -c.wire_bytes)),
    _sorted(flops),
    _sorted(traffic),
  )


def _sorted(values: Mapping[str, float]) -> dict[str, float]:
  return dict(sorted(values.items(), key=lambda item: -item[1]))


def place(op_name: str) -> str:
  """A name stack without what tracing adds: 'backward decoder/mlp/wi_0'."""
  direction = 'backward' if 'transpose(' in op_name else 'forward'
  if 'rematted_computation' in op_name:
    direction = 'recomputed'
  dull = {'while', 'body', 'closed_call', 'eval_jaxpr', 'checkpoint', 'rematted_computation', ''}
  kept = [p for p in op_name.split('/') if p not in dull and not set('(.') & set(p)]
  kept = [p for i, p in enumerate(kept) if i == 0 or p != kept[i - 1]]
  return f'{direction} {"/".join(kept[:3])}' if kept else 'other'


# Matrix products ----------------------------------------------------------------------------------


def matmul_flops(
  module: hlo.Module, computation: hlo.Computation, instruction: hlo.Instruction
) -> float:
  if instruction.opcode == 'fusion' and (called := instruction.called('calls')):
    inner = module.computations[called]
    return sum(matmul_flops(module, inner, i) for i in inner.instructions)
  if instruction.opcode == 'dot':
    return _dot_flops(computation, instruction)
  if instruction.opcode == 'convolution':
    return _convolution_flops(computation, instruction)
  if instruction.opcode in ('custom-call', 'custom-call-start'):
    return stated_costs(instruction).get('flops', 0.0)
  return 0.0


def stated_costs(call: hlo.Instruction) -> dict[str, float]:
  """The cost estimate that the author of a kernel gave: flops, bytes_accessed, ..."""
  found = re.search(r'"?cost_estimate"?\s*[:=]\s*(\{[^{}]*\})', call.attributes)
  if not found:
    return {}
  return {name: float(value) for name, value in json.loads(found[1]).items()}


def _dot_flops(computation: hlo.Computation, dot: hlo.Instruction) -> float:
  left = computation.by_name[dot.operands[0]].arrays[0]
  contracted = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', dot.attributes)
  dims = [int(n) for n in contracted[1].split(',') if n] if contracted else []
  return 2.0 * dot.arrays[0].elements * math.prod(left.dims[d] for d in dims)


def _convolution_flops(computation: hlo.Computation, convolution: hlo.Instruction) -> float:
  """XLA writes every matrix product of a TPU as a convolution; holes and padding do not count."""
  left, right = (computation.by_name[name].arrays[0].dims for name in convolution.operands[:2])
  out = convolution.arrays[0].dims
  labels = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', convolution.attributes)
  if labels is None:
    raise ValueError(f'convolution {convolution.name} has no dim_labels')
  left_labels, right_labels, out_labels = labels.groups()
  spatial = [c for c in out_labels if c.isdigit()]
  total = 2.0 * out[out_labels.index('b')] * out[out_labels.index('f')]
  total *= right[right_labels.index('i')]
  window = _window(convolution.attributes, len(spatial))
  for i, label in enumerate(sorted(spatial, key=int)):
    total *= _valid_pairs(
      left[left_labels.index(label)],
      right[right_labels.index(label)],
      out[out_labels.index(label)],
      **{name: values[i] for name, values in window.items()},
    )
  if batch_groups := re.search(r'batch_group_count=(\d+)', convolution.attributes):
    total /= int(batch_groups[1])
  return total


def _window(attributes: str, rank: int) -> dict[str, list[int]]:
  found = re.search(r'window=\{([^}]*)\}', attributes)
  text = found[1] if found else ''

  def numbers(key: str, default: int) -> list[int]:
    match = re.search(rf'(?:^|\s){key}=([\d_x\-]+)', text)
    return [int(n.split('_')[0]) for n in match[1].split('x')] if match else [default] * rank

  return {
    'stride': numbers('stride', 1),
    'pad_low': numbers('pad', 0),
    'left_dilation': numbers('lhs_dilate', 1),
    'right_dilation': numbers('rhs_dilate', 1),
  }


def _valid_pairs(
  left: int,
  right: int,
  out: int,
  *,
  stride: int,
  pad_low: int,
  left_dilation: int,
  right_dilation: int,
) -> int:
  """Pairs of output and kernel position in one dimension that meet an element of the input."""
  if left == right == out == 1:
    return 1
  count, extent = 0, (left - 1) * left_dilation + 1
  for position in range(out):
    for tap in range(right):
      at = position * stride - pad_low + tap * right_dilation
      count += 0 <= at < extent and at % left_dilation == 0
  return count


# Memory traffic -----------------------------------------------------------------------------------


def in_hbm(array: hlo.Array) -> bool:
  return array.space == hlo.HBM


def everywhere(array: hlo.Array) -> bool:
  del array
  return True


def moved_bytes(
  module: hlo.Module,
  computation: hlo.Computation,
  instruction: hlo.Instruction,
  counts: Callable[[hlo.Array], bool] = in_hbm,
) -> float:
  """Bytes one run of an instruction reads and writes, of those arrays that `counts` is true of.

  A slice that is read or replaced inside a larger array counts, not the array.
  """

  def size(arrays: tuple[hlo.Array, ...]) -> int:
    return sum(a.padded_bytes for a in arrays if counts(a))

  opcode = instruction.opcode
  if opcode in _FREE or opcode.endswith(('-done', '-update')):
    return 0
  if opcode == 'custom-call' and any(
    f'"{t}"' in instruction.attributes for t in _FREE_CUSTOM_CALLS
  ):
    return 0
  operands = [
    computation.by_name[name] for name in instruction.operands if name in computation.by_name
  ]
  if opcode == 'custom-call-start' and (called := instruction.called('called_computations')):
    # A kernel of the SparseCore; its operands are written nowhere but in the computation it calls.
    inner = module.computations[called]
    return sum(size(i.arrays) for i in (*inner.parameters.values(), inner.root))
  if opcode in ('copy-start', 'slice-start'):
    # Result: (destination, source, flag) of a copy, ((source), destination, flag) of a slice.
    moved = instruction.arrays[0 if opcode == 'copy-start' else 1]
    source = operands[0].arrays[0]
    return moved.padded_bytes * (counts(moved) + counts(source))
  if opcode in ('dynamic-slice', 'slice', 'gather'):
    read = moved = instruction.arrays[0]
    return read.padded_bytes * counts(operands[0].arrays[0]) + size((moved,))
  if opcode in ('dynamic-update-slice', 'scatter'):
    update = operands[-1 if opcode == 'scatter' else 1].arrays
    factor = 2 if opcode == 'scatter' else 1
    return size(update) + factor * update[0].padded_bytes * counts(operands[0].arrays[0])
  if opcode == 'fusion' and (called := instruction.called('calls')):
    return _fusion_bytes(module, module.computations[called], instruction, operands, counts)
  written = instruction.arrays
  if opcode.endswith('-start'):  # the result repeats the operands
    written = written[len(written) // 2 :]
  return sum(size(o.arrays) for o in operands) + size(written)


def _fusion_bytes(
  module: hlo.Module,
  inner: hlo.Computation,
  fusion: hlo.Instruction,
  operands: list[hlo.Instruction],
  counts: Callable[[hlo.Array], bool],
) -> float:
  total = 0.0
  for number, operand in enumerate(operands):
    if len(operand.arrays) == 1 and counts(operand.arrays[0]):
      total += _read_bytes(module, inner, inner.parameters[number])
  root = inner.root
  results = [inner.by_name[n] for n in root.operands] if root.opcode == 'tuple' else [root]
  for result, array in zip(results, fusion.arrays, strict=False):
    if counts(array):
      total += _written_bytes(module, inner, result, array)
  return total


def _read_bytes(module: hlo.Module, inner: hlo.Computation, value: hlo.Instruction) -> float:
  """Bytes of a fusion's operand that the fusion reads."""
  whole = value.arrays[0].padded_bytes
  read = 0.0
  for user in inner.users[value.name]:
    if user.opcode in ('dynamic-slice', 'slice', 'gather') and user.operands[0] == value.name:
      read += user.arrays[0].padded_bytes
    elif user.opcode in ('dynamic-update-slice', 'scatter') and user.operands[0] == value.name:
      if user.opcode == 'scatter':
        read += inner.by_name[user.operands[-1]].arrays[0].padded_bytes
    elif user.opcode == 'bitcast':
      read += _read_bytes(module, inner, user)
    elif user.opcode == 'fusion' and (called := user.called('calls')):
      nested = module.computations[called]
      for number, name in enumerate(user.operands):
        if name == value.name:
          read += _read_bytes(module, nested, nested.parameters[number])
    else:
      return whole
  return min(read, whole)


def _written_bytes(
  module: hlo.Module, inner: hlo.Computation, result: hlo.Instruction, array: hlo.Array
) -> float:
  """Bytes of a fusion's result that it writes: only the update where it updates in place."""
  while result.opcode == 'bitcast':
    result = inner.by_name[result.operands[0]]
  if result.opcode == 'dynamic-update-slice':
    return inner.by_name[result.operands[1]].arrays[0].padded_bytes
  if result.opcode == 'scatter':
    return inner.by_name[result.operands[-1]].arrays[0].padded_bytes
  if result.opcode == 'fusion' and (called := result.called('calls')):
    nested = module.computations[called]
    if nested.root.opcode != 'tuple':
      return _written_bytes(module, nested, nested.root, array)
  return array.padded_bytes


# Collectives --------------------------------------------------------------------------------------


def wire(module: hlo.Module, instruction: hlo.Instruction) -> tuple[str, int, float] | None:
  """Kind, group size and bytes that one chip sends in a collective run by a ring."""
  opcode = instruction.opcode.removesuffix('-start')
  if instruction.opcode == 'fusion' and (called := instruction.called('calls')):
    return _fused_wire(module, module.computations[called])
  if opcode == 'custom-call' and (called := instruction.called('called_computations')):
    # One that the SparseCore does (v5p, v6e).
    return _first_wire(module, module.computations[called])
  if opcode not in COLLECTIVES:
    return None
  arrays = instruction.arrays
  if instruction.opcode.endswith('-start') and opcode != 'all-reduce':
    arrays = tuple(a for a in arrays if a.space != 2 and a.dims)
    arrays = arrays[len(arrays) // 2 :]
  size = group_size(instruction.attributes)
  return opcode, size, wire_bytes(opcode, sum(a.bytes for a in arrays), size)


def _first_wire(module: hlo.Module, inner: hlo.Computation) -> tuple[str, int, float] | None:
  found = (wire(module, instruction) for instruction in inner.instructions)
  return next((sent for sent in found if sent is not None), None)


def _fused_wire(module: hlo.Module, inner: hlo.Computation) -> tuple[str, int, float] | None:
  """A reduce-scatter is compiled as a fusion of an all-reduce and the slice that a chip keeps.

  Where a collective runs beside other work (v5e), it stands in each of the fusions of a chain: the
  one that starts it, those that compute meanwhile, and the one that ends it, which is counted.
  """
  for instruction in inner.instructions:
    sent = wire(module, instruction)
    if sent is not None:
      if (
        'chain_id=' in instruction.attributes and 'AsyncCollectiveDone' not in inner.root.attributes
      ):
        return None
      kind, size, _ = sent
      if kind == 'all-reduce' and inner.root.opcode != 'all-reduce':
        whole = sum(a.bytes for a in instruction.arrays)
        return 'reduce-scatter', size, wire_bytes('reduce-scatter', whole / size, size)
      return sent
  return None


def wire_bytes(kind: str, result_bytes: float, size: int) -> float:
  """Bytes that each of `size` chips sends, given those of its result; a ring is assumed."""
  if kind == 'collective-permute':
    return result_bytes
  if size <= 1:
    return 0.0
  share = (size - 1) / size
  if kind == 'all-reduce':
    return 2 * result_bytes * share
  if kind == 'reduce-scatter':
    return result_bytes * (size - 1)
  return result_bytes * share


def group_size(attributes: str) -> int:
  """Chips in one group of a collective, from any of the three ways to write replica_groups."""
  if mesh := re.search(r'replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}', attributes):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
    size = 1
    for axis, part in re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2]):
      size *= int(part or sizes[axis])
    return size
  if iota := re.search(r'replica_groups=\[(\d+),(\d+)\]', attributes):
    return int(iota[2])
  if listed := re.search(r'replica_groups=\{\{([\d,]*)\}', attributes):
    return len(listed[1].split(','))
  return 1

"""What ran out, by the words of compilers and allocators."""

import pytest

from aya_train import memory_limits
from aya_train.memory_limits import Overflow

M, G = 2**20, 2**30
# libtpu 0.0.52 on a float32 step with the fused kernel, without its long lines.
VMEM = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space \
vmem. Used 20.73M of 16.00M vmem. Exceeded vmem capacity by 4.73M.

Program vmem requirement 20.73M:
    scoped           20.73M

  Largest program allocations in vmem:

  1. Size: 9.99M
     XLA label: register allocator spill slots in HLO :: attention_backward.5
     Allocation type: scoped
     ==========================

  2. Size: 1.25M
     Operator: op_name="jit(step)/transpose(jvp(T))/shard_map/attention_backward/pallas_call"
     XLA label: attention_backward.5 = custom-call(dynamic-slice_bitcast_fusion.76)
"""


@pytest.mark.parametrize(
  ('message', 'want'),
  [
    (
      'Ran out of memory in memory space hbm. Used 31.41G of 30.75G hbm. Exceeded hbm capacity by '
      '676.0M.\n  1. Size: 9.9G\n     XLA label: fusion.5 = fusion(copy.1)',
      Overflow('hbm', int(31.41 * G), int(30.75 * G)),
    ),
    (
      'the total memory required for HLO temporaries (54.80G) exceeds available HBM (30.75G).',
      Overflow('hbm', int(54.80 * G), int(30.75 * G)),
    ),
    ('Used 512.00M of 30.75G hbm', Overflow('hbm', 512 * M, int(30.75 * G))),
    (VMEM, Overflow('vmem', int(20.73 * M), 16 * M, 'attention_backward')),
    (
      'Ran out of memory in memory space vmem while allocating on stack for %attention_forward.2 = '
      'f32[8] custom-call(...). Scoped allocation with size 18.50M and limit 16.00M exceeded '
      'scoped vmem limit by 2.50M.',
      Overflow('vmem', int(18.5 * M), 16 * M, 'attention_forward'),
    ),
    (
      'Ran out of memory in memory space smem. Used 1.25M of 1.00M smem. Exceeded smem capacity by '
      '256.0K.',
      Overflow('smem', int(1.25 * M), M),
    ),
    (
      'Ran out of memory in memory space cmem. Used 130.0M of 128.0M cmem',
      Overflow('cmem', 130 * M, 128 * M),
    ),
    ('something else', Overflow('hbm')),
  ],
)
def test_memories_are_told_apart(message, want):
  found = memory_limits.overflow(message)
  assert found == want
  assert found.on_chip == (want.space in ('vmem', 'smem', 'cmem'))


def test_an_overflow_says_where_and_how_much():
  assert str(memory_limits.overflow(VMEM)) == (
    'attention_backward wants 20.73 MiB of the 16.00 MiB that there are in vmem'
  )


class JaxRuntimeError(RuntimeError):
  """Known by its name."""


@pytest.mark.parametrize(
  ('error', 'space'),
  [
    (MemoryError(), 'host'),
    (MemoryError('Unable to allocate 9.31 GiB for an array'), 'host'),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 'host'),
    (JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 400 bytes.'), 'device'),
    (JaxRuntimeError(VMEM), 'vmem'),
    (RuntimeError('RESOURCE_EXHAUSTED: Failed to write 12 bytes'), None),
    (ValueError('the batch has 3 rows'), None),
  ],
)
def test_what_says_that_memory_ran_out(error, space):
  found = memory_limits.exhausted(error)
  assert (None if found is None else found.space) == space


def test_a_cause_counts_too():
  error = ValueError('a step failed')
  error.__cause__ = MemoryError()
  assert memory_limits.exhausted(error) == Overflow('host')

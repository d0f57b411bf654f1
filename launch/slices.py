"""How Cloud TPU and GKE name slices; needs the standard library only, like all of launch/.

Sources: docs.cloud.google.com/tpu/docs/runtimes, .../tpu/docs/v4 to v6e, and
docs.cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus.
"""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Generation:
  """What differs between generations.

  Attributes:
    prefix: of its accelerator types in gcloud.
    runtime: software version for JAX.
    accelerator: value of the node label cloud.google.com/gke-tpu-accelerator.
    cores: TensorCores of a chip, which the names of v4 and v5p count.
    axes: of the interconnect.
  """

  prefix: str
  runtime: str
  accelerator: str
  cores: int
  axes: int


GENERATIONS = {
  'v4': Generation('v4', 'tpu-ubuntu2204-base', 'tpu-v4-podslice', 2, 3),
  'v5p': Generation('v5p', 'v2-alpha-tpuv5', 'tpu-v5p-slice', 2, 3),
  'v5e': Generation('v5litepod', 'v2-alpha-tpuv5-lite', 'tpu-v5-lite-podslice', 1, 2),
  'v6e': Generation('v6e', 'v2-alpha-tpuv6e', 'tpu-v6e-slice', 1, 2),
}
_TOPOLOGIES = {
  2: ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16'),
  3: (
    *('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8', '8x8x8', '8x8x16'),
    *('8x16x16', '16x16x16'),
  ),
}


@dataclasses.dataclass(frozen=True)
class Slice:
  """One slice.

  Attributes:
    type: as gcloud spells it, 'v5litepod-64'.
    generation: of its chips.
    topology: chips along each axis, '8x8'.
  """

  type: str
  generation: Generation
  topology: str

  @property
  def chips(self) -> int:
    return chips_of(self.topology)

  @property
  def chips_per_host(self) -> int:
    # v5e and v6e have machines of 1, 4 and 8 chips; slices of several hosts consist of those of 4.
    return self.chips if self.chips <= 8 and self.generation.axes == 2 else 4

  @property
  def hosts(self) -> int:
    return self.chips // self.chips_per_host


def chips_of(topology: str) -> int:
  """Chips of '4x4x4'.

  Raises:
    ValueError: not numbers with x between them.
  """
  sides = topology.split('x')
  if len(sides) not in (2, 3) or not all(s.isdecimal() and int(s) for s in sides):
    raise ValueError(f'expected a topology such as 4x4 or 4x4x4, got {topology!r}')
  return math.prod(map(int, sides))


def get(name: str) -> Slice:
  """The slice of a type; 'v5e-64' and 'v5litepod-64' are the same.

  Raises:
    ValueError: no such type; the message lists those of its generation.
  """
  prefix, _, count = name.partition('-')
  for key, generation in GENERATIONS.items():
    if prefix not in (key, generation.prefix):
      continue
    sizes = {chips_of(t) * generation.cores: t for t in _TOPOLOGIES[generation.axes]}
    if count.isdecimal() and int(count) in sizes:
      return Slice(f'{generation.prefix}-{int(count)}', generation, sizes[int(count)])
    known = ', '.join(f'{generation.prefix}-{size}' for size in sizes)
    raise ValueError(f'there is no slice {name!r}; those of its generation: {known}')
  raise ValueError(f'unknown TPU {name!r}: known are {", ".join(GENERATIONS)}, as in v4-128')

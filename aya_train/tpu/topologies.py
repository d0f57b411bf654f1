"""TPU slices by their public names, and what each chip can do at most, as published."""

import dataclasses
import importlib.metadata
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """Published rates of one chip.

  Attributes:
    name: public name of the generation.
    flops: bfloat16 matrix FLOP/s.
    hbm_bandwidth: bytes/s.
    ici_bandwidth: bytes/s that one chip sends over all its links together, one direction.
    usable_hbm: bytes that XLA lets a program use (the limit in its out-of-memory message).
    chips_per_host: of the hosts that slices are made of.
    cores: TensorCores of a chip; slices of the megacore generations are named by these.
    torus: axes of the interconnect.
    dollars: on-demand list price of a chip-hour in us-central or the nearest region.
    source: where the rates are published.
  """

  name: str
  flops: float
  hbm_bandwidth: float
  ici_bandwidth: float
  usable_hbm: int
  chips_per_host: int
  cores: int
  torus: int
  dollars: float
  source: str


_DOCS = 'https://docs.cloud.google.com/tpu/docs/'
CHIPS = {
  # 2400 Gbit/s is 300 GB/s; the newer pages give twice that, both directions counted.
  'v4': Chip('v4', 275e12, 1.2288e12, 300e9, int(30.75 * GIB), 4, 2, 3, 3.22, _DOCS + 'v4'),
  'v5e': Chip('v5e', 197e12, 0.819e12, 200e9, int(15.75 * GIB), 4, 1, 2, 1.20, _DOCS + 'v5e'),
  'v5p': Chip('v5p', 459e12, 2.765e12, 600e9, int(95.74 * GIB), 4, 2, 3, 4.20, _DOCS + 'v5p'),
  'v6e': Chip('v6e', 918e12, 1.638e12, 400e9, int(31.25 * GIB), 4, 1, 2, 2.70, _DOCS + 'v6e'),
}

_ALIASES = {'v5litepod': 'v5e', 'v5lite': 'v5e', 'trillium': 'v6e'}
# Shapes of slices by number of chips. Sources: the tables of configurations on the pages above.
_SHAPES_2D = {1: (1, 1), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8)} | {
  128: (8, 16),
  256: (16, 16),
}
_SHAPES_3D = {4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4), 64: (4, 4, 4)} | {
  128: (4, 4, 8),
  256: (4, 8, 8),
  512: (8, 8, 8),
  1024: (8, 8, 16),
  2048: (8, 16, 16),
  4096: (16, 16, 16),
}


@dataclasses.dataclass(frozen=True)
class Slice:
  """A TPU slice.

  Attributes:
    name: as the cloud's API names it, such as 'v4-128'.
    chip: rates of its chips.
    shape: chips along each axis of the torus.
  """

  name: str
  chip: Chip
  shape: tuple[int, ...]

  @property
  def num_chips(self) -> int:
    return math.prod(self.shape)

  def devices(self) -> Sequence[Any]:
    """Devices that programs can be compiled for but not run on; needs libtpu, and no TPU.

    Raises:
      ValueError: libtpu is not installed, or refuses the topology.
    """
    require_libtpu()
    # Else libtpu asks a metadata server that only a cloud machine has, and waits minutes for it.
    os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
    os.environ.setdefault('TPU_ACCELERATOR_TYPE', self.name)
    os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
    # No chip is held here, so several programs may compile at once.
    os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
    from jax.experimental import topologies

    options: dict[str, Any] = {}
    if self.chip.cores == 2:
      options['chip_config_name'] = 'megacore'
    if self.num_chips >= 4:
      bounds = (2, 2, 1)
      options['chips_per_host_bounds'] = bounds
    name = f'{self.chip.name}:' + 'x'.join(str(n) for n in self.shape)
    try:
      topology = topologies.get_topology_desc(
        platform='tpu', topology_name=name, num_slices=1, **options
      )
    except Exception as error:
      raise ValueError(f'libtpu refuses the topology {name} ({self.name}): {error}') from error
    return topology.devices


def compiler() -> str:
  """Versions of what compiles for a TPU here."""
  names = [name for name in ('jax', 'libtpu') if importlib.util.find_spec(name)]
  return ' '.join(f'{name} {importlib.metadata.version(name)}' for name in names)


def require_libtpu() -> None:
  """Refuses to go on without libtpu.

  Raises:
    ValueError: with the command that installs it.
  """
  if importlib.util.find_spec('libtpu') is None:
    raise ValueError(
      'compiling for a TPU needs libtpu (a TPU it does not need): '
      "pip install --constraint constraints.txt 'aya-train[tpu]'"
    )


def get(name: str) -> Slice:
  """The slice with a public name.

  v4 and v5p count TensorCores, two a chip (v4-128 has 64 chips); v5e and v6e count chips. Names are
  taken as consoles, docs and hardware files write them: 'V4-128', 'tpu_v4_128', 'TPUv4-128',
  'v5litepod-16' (v5e-16). A slice of another shape is named by its chips: 'v4-4x4x12'.

  Raises:
    ValueError: no such slice; the message lists those of the generation.
  """
  plain = name.strip().lower().replace('_', '-').removeprefix('tpu').lstrip('-')
  for alias, generation in _ALIASES.items():
    plain = plain.replace(alias, generation)
  generation, _, count = plain.partition('-')
  if generation not in CHIPS:
    raise ValueError(f'unknown TPU {name!r}: known are {", ".join(CHIPS)}, as in v4-128 or v5e-16')
  chip = CHIPS[generation]
  shapes = _SHAPES_3D if chip.torus == 3 else _SHAPES_2D
  names = {f'{generation}-{chips * chip.cores}': shape for chips, shape in shapes.items()}
  canonical = f'{generation}-{count}'
  if re.fullmatch(r'[1-9]\d*(x[1-9]\d*)+', count) and count.count('x') == chip.torus - 1:
    shape = tuple(int(n) for n in count.split('x'))
    return Slice(next((n for n in names if names[n] == shape), canonical), chip, shape)
  if canonical not in names:
    counted = 'TensorCores, two a chip' if chip.cores == 2 else 'chips'
    example = 'x'.join('4' * chip.torus)
    raise ValueError(
      f'there is no slice {name!r}; names of {generation} count {counted}: {", ".join(names)}; '
      f'any other shape by its chips, as in {generation}-{example}'
    )
  return Slice(canonical, chip, names[canonical])

"""The attention kernels for NVIDIA GPUs, compiled without one: registers, spills, shared memory.

    python -m benchmarks.gpu_kernels --heads 32 --length 1024 --capabilities 80,90

JAX lowers attention and its gradient for `cuda` on any machine. Where the package `triton` is
installed (`pip install 'triton>=3.4,<4'`, no GPU needed), its compiler and the `ptxas` in it then
make machine code of each kernel. `registers` are those of a thread; spilled ones go to memory and
are slow; `warps` is how many of an SM's 64 the registers and the shared memory let run at a time;
`matrix products` are the instructions of tensor cores. Nothing here is a measured speed.
"""

import argparse
import functools
import json
import os
import pathlib
import re
import subprocess
import tempfile
from typing import Any

_REGISTERS = 65536  # of an SM
_SHARED = {80: 163 * 1024, 90: 227 * 1024}  # bytes of an SM that programs may share


def kernels(args: argparse.Namespace) -> dict[str, tuple[str, int, int]]:
  """Triton's IR as text of each kernel, its warps and its stages."""
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  import jax
  import jax.numpy as jnp
  from jaxlib.mlir import ir
  from jaxlib.triton import dialect

  from aya_train.models import attention_visibility, fused_attention, layers

  joined = args.heads * args.head_dim
  row = jax.ShapeDtypeStruct((args.batch, args.length, joined), jnp.dtype(args.dtype))
  ids = jnp.ones((args.batch, args.length), jnp.int32)
  bucket = functools.partial(
    layers.relative_position_bucket, bidirectional=not args.causal, num_buckets=32, max_distance=128
  )
  tiles = args.length // attention_visibility.TILE
  patterns = attention_visibility.Patterns.of(bucket, tiles, tiles, 32)

  def total(query: Any, key: Any, value: Any, table: Any) -> Any:
    visible = attention_visibility.visibility(
      ids > 0, ids > 0, ids, ids, table_HR=table, patterns=patterns, causal=args.causal
    )
    out = fused_attention.attend(
      query, key, value, visible, None, head_dim=args.head_dim, kernel='fused_gpu'
    )
    return jnp.sum(out.astype(jnp.float32))

  table = jax.ShapeDtypeStruct((args.heads, 32), jnp.float32)
  traced = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3))).trace(row, row, row, table)
  found = {}
  for call in _calls(traced.lower(lowering_platforms=('cuda',)).compiler_ir('stablehlo').operation):
    said = call.attributes['mhlo.backend_config']
    context = ir.Context()
    dialect.register_dialect(context)
    with context:
      text = str(ir.Module.parse(said['ir'].value_bytes))
    numbers = (int(str(said[name]).split()[0]) for name in ('num_warps', 'num_stages'))
    found[said['name'].value] = (text, *numbers)
  return found


def _calls(operation: Any) -> list[Any]:
  """The calls of Triton's kernels within an operation."""
  found = []
  for region in operation.regions:
    for block in region:
      for inner in block:
        if 'xla.gpu.triton' in str(inner.operation.attributes.get('call_target_name', '')):
          found.append(inner.operation)
        found += _calls(inner.operation)
  return found


def compiled(text: str, warps: int, stages: int, capability: int) -> dict[str, int]:
  """Figures of the machine code. Raises ImportError where `triton` is not installed."""
  import triton
  from triton.backends.compiler import GPUTarget

  with tempfile.TemporaryDirectory() as folder:
    source = pathlib.Path(folder, 'kernel.ttir')
    source.write_text(text)
    made = triton.compile(
      str(source),
      target=GPUTarget('cuda', capability, 32),
      options={'num_warps': warps, 'num_stages': stages},
    )
    ptx = pathlib.Path(folder, 'kernel.ptx')
    ptx.write_text(made.asm['ptx'])
    architecture = re.findall(r'\.target (sm_\w+)', made.asm['ptx'])[0]
    program = next(pathlib.Path(triton.__file__).parent.glob('backends/nvidia/bin/ptxas*'))
    said = subprocess.run(
      [program, '-v', '--gpu-name', architecture, ptx, '-o', os.devnull],
      capture_output=True,
      text=True,
      check=True,
    ).stderr
  registers = int(re.findall(r'Used (\d+) registers', said)[0])
  shared = int(made.metadata.shared)
  programs = min(_REGISTERS // (registers * 32 * warps), _SHARED[capability] // max(1, shared))
  return {
    'registers': registers,
    'spilled bytes': sum(map(int, re.findall(r'(\d+) bytes spill', said))),
    'shared KiB': round(shared / 1024),
    'warps': min(64, programs * warps),
    'matrix products': len(re.findall(r'\b(?:wgmma|mma)\.', made.asm['ptx'])),
  }


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--batch', type=int, default=4, help='rows')
  parser.add_argument('--heads', type=int, default=32)
  parser.add_argument('--length', type=int, default=1024, help='of queries and keys')
  parser.add_argument('--head_dim', type=int, default=64)
  parser.add_argument('--causal', action='store_true', help='as in the decoder')
  parser.add_argument('--dtype', choices=('bfloat16', 'float32'), default='bfloat16')
  parser.add_argument(
    '--capabilities', default='80,90', help='of GPUs: 80 is A100, 90 is H100 and H200'
  )
  parser.add_argument('--json', type=pathlib.Path, help='where the figures are written')
  args = parser.parse_args()
  capabilities = [int(text) for text in args.capabilities.split(',')]
  if unknown := sorted({*capabilities} - {*_SHARED}):
    parser.error(f'--capabilities {unknown} are not known, known are {sorted(_SHARED)}')
  found = []
  made = kernels(args)
  print(f'{len(made)} kernels were lowered for cuda: {", ".join(made)}')
  try:
    for name, (text, warps, stages) in made.items():
      for capability in capabilities:
        figures = compiled(text, warps, stages, capability)
        found.append({'kernel': name, 'capability': capability, **figures})
  except ImportError as error:
    print(f"no machine code is made: {error}; pip install 'triton>=3.4,<4'")
  if found:
    print('| ' + ' | '.join(found[0]) + ' |')
    print('|' + '---|' * len(found[0]))
    for row in found:
      print('| ' + ' | '.join(map(str, row.values())) + ' |')
  if args.json:
    args.json.write_text(json.dumps({'kernels': [*made], 'figures': found}, indent=2))


if __name__ == '__main__':
  main()

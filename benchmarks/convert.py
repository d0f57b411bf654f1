r"""Converts a checkpoint of mT5's shape: time and peak memory beside a plain copy of the source.

  python benchmarks/convert.py --size xl --folder /tmp/convert \
    --vocabulary path/to/mc4.250000.100extra/sentencepiece.model

Writes a T5X checkpoint of random float32 weights, then T5X -> Hugging Face (bfloat16) -> native.
Each conversion is a process of its own; before each, `cp` copies its source to the same disk, or,
with `--copy_share`, about that share of its bytes, and the time is that of the whole at the same
rate. All times include `sync`, and as root begin with an empty page cache, so that both read from
the disk. The largest files of one size are on disk together: 22 GB for xl, 74 GB for xxl, and the
copy.
"""

import argparse
import contextlib
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from aya_train.checkpoint import contents
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.checkpoint.t5x import t5x_format, t5x_leaves
from aya_train.models import network, t5_config

# emb_dim, heads, layers of each stack, mlp_dim: t5x/examples/t5/mt5/*.gin.
SIZES = {
  'tiny': (32, 2, 1, 32),  # to see that it runs
  'small': (512, 6, 8, 1024),
  'base': (768, 12, 12, 2048),
  'large': (1024, 16, 24, 2816),
  'xl': (2048, 32, 24, 5120),
  'xxl': (4096, 64, 24, 10240),
}
BLOCK = np.random.default_rng(0).normal(scale=0.05, size=(1 << 22) + 7).astype(np.float32)


def random_array(shape: tuple[int, ...]) -> lazy_arrays.LazyArray:
  def get(index: tuple[slice, ...]) -> np.ndarray:
    return np.resize(BLOCK, [i.stop - i.start for i in index])

  return lazy_arrays.LazyArray(shape, np.dtype(np.float32), get)


def checkpoint(size: str) -> contents.Checkpoint:
  width, heads, layers, mlp = SIZES[size]
  config = t5_config.T5Config(
    vocab_size=250112,
    emb_dim=width,
    num_heads=heads,
    num_encoder_layers=layers,
    num_decoder_layers=layers,
    head_dim=64,
    mlp_dim=mlp,
    mlp_activations=('gelu', 'linear'),
    logits_via_embedding=False,
    scan_layers=False,
  )
  shapes = nn.unbox(
    jax.eval_shape(lambda k: network.initial_variables(config, k), jax.random.key(0))
  )
  flat = traverse_util.flatten_dict(shapes, sep='/')
  return contents.Checkpoint(
    where=f'mT5-{size}', config=config, params={k: random_array(v.shape) for k, v in flat.items()}
  )


def gigabytes(folder: pathlib.Path) -> float:
  return sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) / 1e9


def forget_files() -> None:
  """Empties the page cache where that is allowed (Linux, root)."""
  os.sync()
  with contextlib.suppress(OSError):
    pathlib.Path('/proc/sys/vm/drop_caches').write_text('3')


def timed(
  command: list[str], log: pathlib.Path, cwd: pathlib.Path | None = None
) -> tuple[float, float]:
  """Seconds until the result is on disk, and the process's peak resident GiB."""
  forget_files()
  started = time.monotonic()
  with log.open('w') as out:
    process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=cwd)
    _, status, usage = os.wait4(process.pid, 0)
  if code := os.waitstatus_to_exitcode(status):
    raise SystemExit(f'{" ".join(command)} exited with {code}:\n{log.read_text()}')
  os.sync()
  return time.monotonic() - started, usage.ru_maxrss / (1 << 20)


def copy_seconds(source: pathlib.Path, target: pathlib.Path, share: float) -> float:
  """Seconds to copy a folder, from those for files that hold about a share of its bytes."""
  files = sorted(f for f in source.rglob('*') if f.is_file())
  random.Random(0).shuffle(files)
  total, chosen, size = sum(f.stat().st_size for f in files), [], 0
  for file in files:
    if size < share * total:
      chosen.append(str(file.relative_to(source)))
      size += file.stat().st_size
  target.mkdir()
  command = ['cp', '--parents', *chosen, str(target.resolve())]
  seconds, _ = timed(command, target.parent / 'log', cwd=source)
  return seconds * total / size


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--size', choices=SIZES, default='base')
  parser.add_argument(
    '--folder', type=pathlib.Path, required=True, help='made, and removed at the end'
  )
  parser.add_argument(
    '--vocabulary', required=True, help='any SentencePiece file with fewer pieces'
  )
  parser.add_argument(
    '--source', type=pathlib.Path, help='a T5X checkpoint to read instead of random weights; kept'
  )
  parser.add_argument(
    '--copy_share', type=float, default=1.0, help='of the bytes that the plain copy is timed on'
  )
  args = parser.parse_args()
  args.folder.mkdir(parents=True)
  try:
    compare(args.size, args.folder, args.vocabulary, args.source, args.copy_share)
  finally:
    shutil.rmtree(args.folder)


def compare(
  size: str,
  folder: pathlib.Path,
  vocabulary: str,
  given: pathlib.Path | None = None,
  copy_share: float = 1.0,
) -> None:
  source = given or folder / 'checkpoint_0'
  if given is None:
    source.mkdir()
    t5x_format.write(source, t5x_leaves.to_leaves(checkpoint(size), scan_layers=False))
    os.sync()
  name = f'mT5-{size}' if given is None else str(given)
  print(f'{name}: {gigabytes(source):.2f} GB of T5X', flush=True)
  print('| conversion | read GB | written GB | plain copy s | convert s | ratio | peak RSS GiB |')
  print('|---|---|---|---|---|---|---|')
  for name, to, options in (
    ('T5X to Hugging Face, bfloat16', 'hf', ['--dtype', 'bfloat16']),
    ('Hugging Face to native, bfloat16', 'native', []),
  ):
    copy, target = folder / 'copy', folder / to
    copied = copy_seconds(source, copy, copy_share)
    shutil.rmtree(copy)
    command = [sys.executable, '-m', 'aya_train', 'convert', str(source), str(target), '--to', to]
    command += ['--vocabulary', vocabulary, *options]
    seconds, peak = timed(command, folder / 'log')
    print(
      f'| {name} | {gigabytes(source):.2f} | {gigabytes(target):.2f} | {copied:.1f} '
      f'| {seconds:.1f} | {seconds / copied:.2f} | {peak:.2f} |',
      flush=True,
    )
    if source != given:
      shutil.rmtree(source)
    source = target


if __name__ == '__main__':
  main()

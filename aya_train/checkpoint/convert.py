"""`aya-train convert`: one checkpoint format into another, block by block.

The source is only read. The result is written beside `dst` and takes its name when it is complete,
and, with `verify`, has been read back; a conversion that ends early leaves `dst` as it was.
"""

import dataclasses
import importlib.util
import logging
import math
import shutil
import time
from collections.abc import Callable

import numpy as np
from etils import epath

from aya_train import destinations
from aya_train.checkpoint import contents, formats, native, progress, sample_logits, work_folder
from aya_train.checkpoint.arrays import lazy_arrays, orbax_tree, spool, workers
from aya_train.checkpoint.hf import hf_export
from aya_train.checkpoint.t5x import t5x_format, t5x_leaves

logger = logging.getLogger(__name__)

TARGETS = ('hf', 'native', 't5x')
DTYPES = {
  'hf': ('float32', 'bfloat16', 'float16'),
  'native': ('float32', 'bfloat16'),
  't5x': ('float32', 'bfloat16'),
}
MAX_SHARD_SIZE = '5GB'
_SPOOL_BYTES = 1 << 20  # smaller parameters are read again for each layer
_HF_PACKAGES = {
  'huggingface_hub': 'huggingface_hub',
  'tokenizers': 'tokenizers',
  'google.protobuf': 'protobuf',
}


@dataclasses.dataclass(frozen=True)
class _ConversionPlan:
  """What is to be written, every default filled in.

  Attributes:
    to, dtype, vocabulary_file: as for `convert`; the last is '' where there is none.
    scan_layers: whether layers are stacked.
    max_shard_size: of each safetensors file.
  """

  to: str
  dtype: str
  vocabulary_file: str
  scan_layers: bool
  max_shard_size: str


def convert(
  src: epath.PathLike,
  dst: epath.PathLike,
  *,
  to: str = 'hf',
  dtype: str | None = None,
  max_shard_size: str | None = None,
  vocabulary_file: str | None = None,
  overwrite: bool = False,
  scan_layers: bool | None = None,
  verify: bool = False,
  allow_float16_overflow: bool = False,
  finish: Callable[[epath.Path], None] | None = None,
) -> epath.Path:
  """Writes `src` into the folder `dst` in another format; `src` is only read.

  The format may be the same if something else changes: dtype, layout, shards or the vocabulary.

  Args:
    src: anything `formats.detect` knows.
    dst: folder to make. For T5X call it checkpoint_<step>: T5X finds it then by its parent.
    to: 'hf', 'native' or 't5x'.
    dtype: of the parameters written, one of DTYPES[to]. By default that of the source where the
      format stays or a native checkpoint gets weights alone that are bfloat16; else float32.
      Optimizer states are float32.
    max_shard_size: of each safetensors file, by default MAX_SHARD_SIZE.
    vocabulary_file: SentencePiece file; by default the one that the checkpoint names.
    overwrite: replace `dst`.
    scan_layers: whether parameters of a native or T5X checkpoint are stacked; by default as in the
      source where the format stays, else they are in native ones and are not in T5X ones, as in
      every released mT5.
    verify: read every array back and compare it bit for bit, and, if the model fits in memory,
      compare logits on sample prompts (`sample_logits`), before `dst` appears.
    allow_float16_overflow: see `hf_export.export`.
    finish: is given the complete folder before it takes its name, to add files to it.

  Raises:
    FileNotFoundError: no checkpoint, or no vocabulary.
    FileExistsError: `dst` is there.
    ValueError: a damaged checkpoint, formats or shapes that do not fit, or nothing to change.
    OSError: no room or no permission.
  """
  started = time.monotonic()
  source, target = formats.detect(src), work_folder.check(dst, overwrite=overwrite)
  _check(to, dtype)
  work_folder.check_apart(source.path, dst)
  checkpoint = formats.open_checkpoint(source)
  lazy_arrays.check_floats(checkpoint.params, str(src))
  plan = _planned(
    source, checkpoint, to, dtype, max_shard_size or MAX_SHARD_SIZE, vocabulary_file, scan_layers
  )
  with work_folder.replacing(target, overwrite=overwrite) as work:
    out = work / 'out'
    _check_room(work, checkpoint, plan)
    if to == 'hf' or not plan.scan_layers:
      checkpoint = _spooled(checkpoint, work / 'spool')
    written = _write(out, checkpoint, plan, allow_float16_overflow)
    if verify:
      _verify(_read_back(out, to), written, str(dst))
      result = formats.open_checkpoint(formats.detect(out)) if to != 'hf' else out
      sample_logits.compare(
        checkpoint,
        result,
        dtype=plan.dtype,
        vocabulary_file=plan.vocabulary_file if _is_file(plan.vocabulary_file) else '',
        where=str(dst),
      )
    if finish is not None:
      finish(out)
  logger.info('wrote %s from %s in %.1f s', dst, source.path, time.monotonic() - started)
  return epath.Path(dst)


def _check(to: str, dtype: str | None) -> None:
  if to not in TARGETS:
    raise ValueError(f'to must be one of {TARGETS}, got {to!r}')
  if dtype is not None and dtype not in DTYPES[to]:
    raise ValueError(f'--dtype of --to {to} must be one of {DTYPES[to]}, got {dtype!r}')
  if to == 'hf':
    missing = [
      package
      for module, package in _HF_PACKAGES.items()
      if importlib.util.find_spec(module) is None
    ]
    if missing:
      raise ValueError(f"--to hf needs {', '.join(missing)}: pip install 'aya-train[hf]'")


def _planned(
  source: formats.Detected,
  checkpoint: contents.Checkpoint,
  to: str,
  dtype: str | None,
  max_shard_size: str,
  vocabulary_file: str | None,
  scan_layers: bool | None,
) -> _ConversionPlan:
  """Fills in the defaults; raises ValueError if nothing would change."""
  stays = source.format.value == to
  held = {str(array.dtype) for array in checkpoint.params.values()}
  weights_alone = to == 'native' and checkpoint.moments is None
  kept = next(iter(held)) if len(held) == 1 and (stays or weights_alone) else 'float32'
  if kept not in DTYPES[to]:
    kept = 'float32'
  config = checkpoint.config
  if scan_layers is None:
    scan_layers = config.scan_layers if stays else to == 'native'
  if to == 'hf' or vocabulary_file:
    _check_vocabulary(vocabulary_file or checkpoint.vocabulary_file, source)
  plan = _ConversionPlan(
    to=to,
    dtype=dtype or kept,
    vocabulary_file=vocabulary_file or checkpoint.vocabulary_file,
    scan_layers=scan_layers,
    max_shard_size=max_shard_size,
  )
  if not stays or (vocabulary_file and to != 't5x'):
    return plan
  if to == 'hf':
    same = hf_export.is_laid_out(source.path, plan.dtype, max_shard_size)
    others = '--dtype, --max_shard_size or --vocabulary'
  else:
    layout = (config.scan_layers, config.param_scan_axis if config.scan_layers else 1)
    same = held == {plan.dtype} and layout == (scan_layers, 1)
    others = '--dtype or --scan_layers'
  if same:
    raise ValueError(
      f'{source.path} is already in the format {to!r}, of {plan.dtype} and laid out as asked: '
      f'nothing would change. Copy the folder, or give another {others}'
    )
  return plan


def _check_vocabulary(vocabulary_file: str, source: formats.Detected) -> None:
  if _is_file(vocabulary_file):
    return
  named = f'the vocabulary {vocabulary_file!r} for' if vocabulary_file else 'no vocabulary in'
  raise FileNotFoundError(
    f'{named} {source.path}' + (' does not exist' if vocabulary_file else '') + ': give its '
    'SentencePiece file with --vocabulary'
  )


def _is_file(path: str) -> bool:
  return bool(path) and epath.Path(path).is_file()


def _check_room(work: epath.Path, checkpoint: contents.Checkpoint, plan: _ConversionPlan) -> None:
  """Raises OSError where the result and what is copied on the way cannot fit."""
  if not destinations.is_local(work):
    return
  count = sum(math.prod(array.shape) for array in checkpoint.params.values())
  needed = count * np.dtype(plan.dtype).itemsize
  if plan.to == 't5x':
    needed //= 2  # chunks are compressed, bfloat16 numbers in float32 to about half
  if plan.to == 'native':
    needed += progress.total_bytes(checkpoint.moments or {})
  if plan.to == 'hf' or not plan.scan_layers:
    needed += progress.total_bytes(_to_spool(checkpoint))
  free = shutil.disk_usage(work).free
  if free < needed:
    raise OSError(
      f'{work.parent} has {free / 1e6:,.1f} MB free, the conversion takes {needed / 1e6:,.1f} MB '
      'there: free some, or choose another disk'
    )


def _to_spool(checkpoint: contents.Checkpoint) -> lazy_arrays.Arrays:
  """Stacked parameters whose chunks span several layers."""
  config = checkpoint.config
  axis = config.param_scan_axis
  return {
    name: array
    for name, array in checkpoint.params.items()
    if config.scan_layers
    and name.startswith(('encoder/encoder/', 'decoder/decoder/'))
    and array.nbytes > _SPOOL_BYTES
    and (array.chunks or array.shape)[axis] > 1
  }


def _spooled(checkpoint: contents.Checkpoint, folder: epath.Path) -> contents.Checkpoint:
  """Lets layers be read one by one from stacked parameters, at the price of room on disk."""
  folder.mkdir()
  axis = checkpoint.config.param_scan_axis
  spooled = {
    name: spool.spooled(array, axis, folder / name.replace('/', '.'))
    for name, array in _to_spool(checkpoint).items()
  }
  return dataclasses.replace(checkpoint, params={**checkpoint.params, **spooled})


def _write(
  out: epath.Path,
  checkpoint: contents.Checkpoint,
  plan: _ConversionPlan,
  allow_float16_overflow: bool,
) -> lazy_arrays.Arrays:
  """Writes the folder `out`; returns what is in it, as `_read_back` names it."""
  if plan.to == 'native':
    return native.write(
      out,
      checkpoint,
      plan.vocabulary_file,
      scan_layers=plan.scan_layers,
      dtype=plan.dtype,
    )
  if plan.to == 't5x':
    out.mkdir()
    leaves = t5x_leaves.to_leaves(checkpoint, scan_layers=plan.scan_layers, dtype=plan.dtype)
    with progress.shown('writing', progress.total_bytes(leaves)) as advance:
      t5x_format.write(out, progress.counted(leaves, advance))
    return leaves
  config = dataclasses.replace(checkpoint.config, scan_layers=False)
  params = checkpoint.in_layout(config)
  written = {name: lazy_arrays.cast(array, plan.dtype) for name, array in params.items()}
  if plan.dtype == 'bfloat16':
    params = written  # half as much to transpose; the export checks what float16 cannot hold
  with progress.shown('writing', progress.total_bytes(params)) as advance:
    hf_export.export(
      progress.counted(params, advance),
      config,
      plan.vocabulary_file,
      out,
      dtype=plan.dtype,
      max_shard_size=plan.max_shard_size,
      allow_float16_overflow=allow_float16_overflow,
    )
  return written


# Reading back -------------------------------------------------------------------------------------


def _read_back(out: epath.Path, to: str) -> lazy_arrays.Arrays:
  if to == 't5x':
    return t5x_format.read(out)
  if to == 'native':
    items = [item for item in ('params', 'training') if (out / item).exists()]
    return {
      f'{item}/{name}': array
      for item in items
      for name, array in orbax_tree.read(out / item).items()
    }
  return formats.open_checkpoint(formats.Detected(out, formats.Format.HF)).params


def _verify(found: lazy_arrays.Arrays, written: lazy_arrays.Arrays, where: str) -> None:
  if set(found) != set(written):
    raise ValueError(f'{where}: read back other arrays: {sorted(set(found) ^ set(written))[:5]}')

  def difference(name: str) -> str | None:
    return lazy_arrays.first_difference(name, written[name], found[name])

  with progress.shown('verifying', progress.total_bytes(found)) as advance:
    found = progress.counted(found, advance)
    for told in workers.ahead(difference, written, waiting=workers.MANY):
      if told:
        raise ValueError(f'{where}: what was written does not read back: {told}')
  logger.info('verified %d arrays, bit for bit', len(written))

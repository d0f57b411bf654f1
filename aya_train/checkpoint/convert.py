"""`aya-train convert`: one checkpoint format into another, block by block.

The source is only read. The result is written beside `dst` and takes its name when it is complete,
and, with `verify`, has been read back; a conversion that ends early leaves `dst` as it was.
"""

import dataclasses
import importlib.util
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence

import numpy as np
from etils import epath

from aya_train import destinations
from aya_train.checkpoint import (
  adapters,
  carrying,
  contents,
  formats,
  native,
  peft_export,
  progress,
  sample_answers,
  sample_logits,
  sha256sums,
  soup,
  work_folder,
)
from aya_train.checkpoint.arrays import finite_arrays, lazy_arrays, orbax_tree, spool, workers
from aya_train.checkpoint.hf import hf_export, hf_vocabulary
from aya_train.checkpoint.t5x import t5x_format, t5x_leaves, t5x_settings

logger = logging.getLogger(__name__)

TARGETS = ('hf', 'native', 't5x', 'peft')
DTYPES = {
  'hf': ('float32', 'bfloat16', 'float16'),
  'native': ('float32', 'bfloat16'),
  't5x': ('float32', 'bfloat16'),
  'peft': ('float32', 'bfloat16', 'float16'),
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
    to, dtype: as for `convert`.
    vocabulary: what becomes of the vocabulary.
    allow_float16_overflow, allow_non_finite: as for `convert`.
    scan_layers: whether layers are stacked.
    max_shard_size: of each safetensors file.
  """

  to: str
  dtype: str
  vocabulary: carrying.Vocabulary
  scan_layers: bool
  max_shard_size: str
  allow_float16_overflow: bool
  allow_non_finite: bool


def convert(
  src: epath.PathLike,
  dst: epath.PathLike,
  *,
  to: str = 'hf',
  base: str | None = None,
  dtype: str | None = None,
  max_shard_size: str | None = None,
  vocabulary_file: str | None = None,
  overwrite: bool = False,
  scan_layers: bool | None = None,
  verify: bool = False,
  allow_float16_overflow: bool = False,
  allow_non_finite: bool = False,
  max_new_tokens: int | None = None,
  average: Sequence[epath.PathLike] = (),
  average_weights: Sequence[float] | None = None,
  finish: Callable[[epath.Path], None] | None = None,
) -> epath.Path:
  """Writes `src` into the folder `dst` in another format; `src` is only read.

  The format may be the same if something else changes: dtype, layout, shards or the vocabulary.

  Args:
    src: anything `formats.detect` knows.
    dst: folder to make. For T5X call it checkpoint_<step>: T5X finds it then by its parent.
    to: 'hf', 'native', 't5x'; or 'peft' for an adapter without the weights under it.
    base: of an adapter, where these weights are, by default where it says. They are merged with it;
      PEFT's adapter_config.json gets the name instead, which may be one on the Hub.
    dtype: of the parameters written, one of DTYPES[to]. By default that of the source where the
      format stays or a native checkpoint gets weights alone that are bfloat16; else float32.
      Optimizer states are float32.
    max_shard_size: of each safetensors file, by default MAX_SHARD_SIZE.
    vocabulary_file: SentencePiece file; by default the one that the checkpoint names.
    overwrite: replace `dst`.
    scan_layers: whether parameters of a native or T5X checkpoint are stacked; by default as in the
      source where the format stays, else they are in native ones and are not in T5X ones, as in
      every released mT5. T5X has position biases of each layer only where they are stacked.
    verify: before `dst` appears, open it as a user does: read every array back and compare it bit
      for bit, compare settings and token ids of sample texts, and, if the model fits in memory,
      logits and answers on sample prompts (`sample_logits`, `sample_answers`).
    allow_float16_overflow: see `hf_export.export`.
    allow_non_finite: convert NaN and infinity as they are.
    max_new_tokens: length of answers for generation_config.json; by default what the run was
      trained for, or what the source says (`carrying.settings`).
    average: more checkpoints of the same network, whose mean with `src` is written, without an
      optimizer state. Adapters are merged with their base before; `base` is that of all of them.
    average_weights: of `src` and of these; by default all the same.
    finish: is given the complete folder before it takes its name, to add files to it.

  Raises:
    FileNotFoundError: no checkpoint, or no vocabulary.
    FileExistsError: `dst` is there.
    ValueError: a damaged checkpoint, formats or shapes that do not fit, or nothing to change.
    OSError: no room or no permission.
  """
  started = time.monotonic()
  _check(to, dtype, max_new_tokens)
  target = work_folder.check(dst, overwrite=overwrite)
  if to == 'peft':
    peft_export.export(src, target, base=base, dtype=dtype, overwrite=overwrite, verify=verify)
    return epath.Path(dst)
  source = formats.detect(src, base)
  work_folder.check_apart(source.path, dst)
  sources = [source, *(_averaged(other, base) for other in average)]
  weights = soup.checked_weights(average_weights, len(sources))
  soup.check_vocabularies(sources)
  if soup.are_encoders(sources) and to == 'native':
    given = {
      '--vocabulary': vocabulary_file,
      '--max_new_tokens': max_new_tokens,
      '--scan_layers': scan_layers,
    }
    if asked := [option for option, value in given.items() if value is not None]:
      raise ValueError(
        f'{", ".join(asked)}: a native checkpoint of a sentence encoder keeps what its run says; '
        'leave that out'
      )
    with work_folder.replacing(target, overwrite=overwrite) as work:
      arrays = soup.mean_encoders(sources, weights)
      if not allow_non_finite:
        arrays = finite_arrays.checked(arrays, str(src))
      written = native.write_encoder(work / 'out', arrays, source.path, dtype=dtype or 'float32')
      if verify:
        _verify(_read_back(work / 'out', to), written, str(dst))
    logger.info('wrote %s of %d checkpoints', dst, len(sources))
    return epath.Path(dst)
  checkpoint = formats.open_checkpoint(source)
  for each in sources:
    if each.is_adapter:
      adapters.tell_weights(formats.open_adapter(each))
  if average:
    others = [formats.open_checkpoint(other) for other in sources[1:]]
    checkpoint = soup.mean(checkpoint, others, weights)
  lazy_arrays.check_floats(checkpoint.params, str(src))
  vocabulary = carrying.vocabulary(checkpoint, to, vocabulary_file, source.path)
  checkpoint = dataclasses.replace(
    checkpoint, settings=carrying.settings(checkpoint, source.format, to, max_new_tokens)
  )
  plan = _ConversionPlan(
    to=to,
    dtype=dtype or _kept_dtype(source, checkpoint, to),
    vocabulary=vocabulary,
    scan_layers=_layers_are_stacked(source, checkpoint, to, scan_layers),
    max_shard_size=max_shard_size or MAX_SHARD_SIZE,
    allow_float16_overflow=allow_float16_overflow,
    allow_non_finite=allow_non_finite,
  )
  if not (average or max_new_tokens or (vocabulary_file and to != 't5x')):
    _check_changes(source, checkpoint, plan)
  with work_folder.replacing(target, overwrite=overwrite) as work:
    out = work / 'out'
    _check_room(work, checkpoint, plan)
    pieces = vocabulary.written_to(work / 'vocabulary.model')
    if to == 'hf' or not plan.scan_layers:
      checkpoint = _spooled(checkpoint, work / 'spool')
    if not allow_non_finite:
      checkpoint = _finite(checkpoint)
    written = _write(out, checkpoint, plan, pieces)
    if verify:
      _verify(_read_back(out, to), written, str(dst))
      _verify_use(out, checkpoint, plan, pieces, str(dst))
    if finish is not None:
      finish(out)
    if to != 'native':  # whose arrays have digests of their own
      sha256sums.write(out)
  logger.info('wrote %s from %s in %.1f s', dst, source.path, time.monotonic() - started)
  return epath.Path(dst)


def _averaged(path: epath.PathLike, base: str | None) -> formats.Detected:
  """One of the checkpoints of a mean; `base` is that of all adapters among them."""
  found = formats.detect(path)
  return dataclasses.replace(found, base=base) if found.is_adapter else found


def _check(to: str, dtype: str | None, max_new_tokens: int | None) -> None:
  if to not in TARGETS:
    raise ValueError(f'to must be one of {TARGETS}, got {to!r}')
  if dtype is not None and dtype not in DTYPES[to]:
    raise ValueError(f'--dtype of --to {to} must be one of {DTYPES[to]}, got {dtype!r}')
  if max_new_tokens is not None and max_new_tokens < 1:
    raise ValueError(f'--max_new_tokens must be at least 1, got {max_new_tokens}')
  if to == 'hf':
    missing = [
      package
      for module, package in _HF_PACKAGES.items()
      if importlib.util.find_spec(module) is None
    ]
    if missing:
      raise ValueError(f"--to hf needs {', '.join(missing)}: pip install 'aya-train[hf]'")


def _kept_dtype(source: formats.Detected, checkpoint: contents.Checkpoint, to: str) -> str:
  """The dtype written where none is asked for."""
  held = {str(array.dtype) for array in checkpoint.params.values()}
  weights_alone = to == 'native' and checkpoint.moments is None
  stays = source.format.value == to
  kept = next(iter(held)) if len(held) == 1 and (stays or weights_alone) else 'float32'
  return kept if kept in DTYPES[to] else 'float32'


def _layers_are_stacked(
  source: formats.Detected, checkpoint: contents.Checkpoint, to: str, asked: bool | None
) -> bool:
  config = checkpoint.config
  if asked is None:
    stays = source.format.value == to
    return config.scan_layers if stays else to == 'native' or config.relpos_bias_per_layer
  if to == 't5x' and not asked and config.relpos_bias_per_layer:
    logger.warning(
      '%s has position biases in each layer, which T5X has only with --scan_layers (scalable_t5): '
      'no network of T5X reads what is written',
      checkpoint.where,
    )
  return asked


def _check_changes(
  source: formats.Detected, checkpoint: contents.Checkpoint, plan: _ConversionPlan
) -> None:
  """Raises ValueError if nothing would change."""
  if source.format.value != plan.to:
    return
  config = checkpoint.config
  if plan.to == 'hf':
    same = hf_export.is_laid_out(source.path, plan.dtype, plan.max_shard_size)
    others = '--dtype, --max_shard_size, --vocabulary or --max_new_tokens'
  else:
    held = {str(array.dtype) for array in checkpoint.params.values()}
    layout = (config.scan_layers, config.param_scan_axis if config.scan_layers else 1)
    same = held == {plan.dtype} and layout == (plan.scan_layers, 1)
    others = '--dtype or --scan_layers'
  if same:
    raise ValueError(
      f'{source.path} is already in the format {plan.to!r}, of {plan.dtype} and laid out as asked: '
      f'nothing would change. Copy the folder, or give another {others}'
    )


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
      f'{work_folder.known(work)} has {free / 1e6:,.1f} MB free, the conversion takes '
      f'{needed / 1e6:,.1f} MB there: free some, or choose another disk'
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


def _absolute(path: str) -> str:
  return os.path.abspath(path) if path and destinations.is_local(path) else path


def _finite(checkpoint: contents.Checkpoint) -> contents.Checkpoint:
  """Refuses NaN and infinity when they are read, by name."""
  where, moments = checkpoint.where, checkpoint.moments
  return dataclasses.replace(
    checkpoint,
    params=finite_arrays.checked(checkpoint.params, where),
    moments=None if moments is None else finite_arrays.checked(moments, where),
  )


def _write(
  out: epath.Path, checkpoint: contents.Checkpoint, plan: _ConversionPlan, pieces: str
) -> lazy_arrays.Arrays:
  """Writes the folder `out`; returns what is in it, as `_read_back` names it.

  `pieces` is a file with the whole SentencePiece model, '' where there is none.
  """
  vocabulary = plan.vocabulary
  if plan.to == 'native':
    return native.write(
      out,
      checkpoint,
      vocabulary.file,
      scan_layers=plan.scan_layers,
      dtype=plan.dtype,
      own_vocabulary=vocabulary.model,
    )
  if plan.to == 't5x':
    out.mkdir()
    leaves = t5x_leaves.to_leaves(checkpoint, scan_layers=plan.scan_layers, dtype=plan.dtype)
    with progress.shown('writing', progress.total_bytes(leaves)) as advance:
      t5x_format.write(out, progress.counted(leaves, advance))
    t5x_settings.write(out, checkpoint, _absolute(vocabulary.file), vocabulary.model)
    if vocabulary.model:
      hf_vocabulary.keep(checkpoint.tokenizer_folder, out / t5x_settings.TOKENIZER)
    return leaves
  config = dataclasses.replace(checkpoint.config, scan_layers=False)
  params = checkpoint.in_layout(config)
  written = {name: lazy_arrays.cast(array, plan.dtype, name) for name, array in params.items()}
  if plan.dtype == 'bfloat16':
    params = written  # half as much to transpose; the export checks what float16 cannot hold
  with progress.shown('writing', progress.total_bytes(params)) as advance:
    hf_export.export(
      progress.counted(params, advance),
      config,
      pieces,
      out,
      dtype=plan.dtype,
      max_shard_size=plan.max_shard_size,
      allow_float16_overflow=plan.allow_float16_overflow,
      allow_non_finite=plan.allow_non_finite,
      settings=checkpoint.settings,
      tokenizer_folder=vocabulary.tokenizer or None,
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


def _verify_use(
  out: epath.Path, checkpoint: contents.Checkpoint, plan: _ConversionPlan, pieces: str, where: str
) -> None:
  """Compares what a user gets from the folder with what the source says and computes."""
  opened = formats.open_checkpoint(formats.detect(out))
  carrying.check_carried(opened, checkpoint, plan.vocabulary, where)
  result = out if plan.to == 'hf' else opened
  options = {'dtype': plan.dtype, 'vocabulary_file': pieces, 'where': where}
  if plan.to == 'hf':
    sample_answers.compare_ids(out, plan.vocabulary.tokenizer, pieces, where)
  if sample_logits.compare(checkpoint, result, **options) is not None and plan.to == 'hf':
    sample_answers.compare(checkpoint, out, **options)

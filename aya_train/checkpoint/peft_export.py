"""`aya-train convert --to peft`: an adapter without the weights under it, as PEFT loads it."""

import dataclasses
import logging
import time

from etils import epath

from aya_train.checkpoint import adapters, formats, sha256sums, work_folder
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.checkpoint.hf import peft_folder

logger = logging.getLogger(__name__)


def export(
  src: epath.PathLike,
  target: epath.Path,
  *,
  base: str | None,
  dtype: str | None,
  overwrite: bool,
  verify: bool,
) -> None:
  """Writes the adapter in `src` into the folder `target`.

  Args:
    src: a run that trained an adapter, a step of it, or a folder of PEFT's.
    target: as `work_folder.check` gives it.
    base: what adapter_config.json names as its base: a folder, or an id on the Hub. By default the
      base of the adapter, which must be a Hugging Face folder then.
    dtype: of the tensors, by default float32.
    overwrite: replace `target`.
    verify: read the folder back before it takes its name, and hold the arrays of a `base` that is
      named against those of the adapter's own.

  Raises:
    FileNotFoundError: nothing there.
    ValueError: no adapter; a base that transformers cannot open, and no other was named; or, where
      it is verified, one of other weights.
  """
  started = time.monotonic()
  source = formats.detect(src)
  if not source.is_adapter:
    raise ValueError(
      f'{src} holds whole weights and no adapter: --to peft takes a run of recipes/lora.gin or a '
      'folder of PEFT; --to hf writes whole weights'
    )
  work_folder.check_apart(source.path, target)
  adapter = formats.open_adapter(source)
  adapters.tell_weights(adapter)
  weights = _base(source, adapter, base)
  config = formats.open_checkpoint(weights).config if weights is not None else None
  if config is not None:
    adapters.check_fits(adapter, config, str(weights.path) if weights else '')
  if verify and base is not None and weights is not None:
    _verify_base(source, adapter, weights)
  depths = (
    adapters.depths(adapter)
    if config is None
    else {'encoder': config.num_encoder_layers, 'decoder': config.num_decoder_layers}
  )
  name = base or adapter.base_path
  with work_folder.replacing(target, overwrite=overwrite) as work:
    out = work / 'out'
    written = peft_folder.write(out, adapter, name, depths, dtype or 'float32')
    if verify:
      _verify(out, adapter, written, str(target))
    sha256sums.write(out)
  logger.info(
    'wrote the adapter of %d kernels to %s in %.1f s; it is for %s',
    *(len(adapter.pairs), target, time.monotonic() - started, name),
  )


def _base(
  source: formats.Detected, adapter: adapters.Adapter, base: str | None
) -> formats.Detected | None:
  """The weights under the adapter, None where they are only named."""
  if base is not None and not epath.Path(base).exists():
    logger.info('%s is no folder here: taken for a name on the Hub, and not held against it', base)
    return None
  if base is not None:
    found = formats.detect(base)  # an export of the base has another identity than it
  else:
    found = formats.base_of(source, adapter)
  if found.format is not formats.Format.HF:
    raise ValueError(
      f'the base of the adapter, {found.path}, is no Hugging Face folder, and transformers is to '
      f'open it: aya-train convert {found.path} HF_FOLDER, then --base HF_FOLDER'
    )
  return found


def _verify_base(
  source: formats.Detected, adapter: adapters.Adapter, weights: formats.Detected
) -> None:
  """Compares bit for bit, rounded to the dtype of the base that is named.

  Raises:
    ValueError: they differ.
  """
  if not adapter.base_path or not epath.Path(adapter.base_path).exists():
    logger.warning(
      'the weights that the adapter was trained on are not at %s: %s was held against it by shapes '
      'alone',
      *(adapter.base_path or 'any path that it names', weights.path),
    )
    return
  own = formats.open_checkpoint(formats.base_of(source, adapter))
  layout = dataclasses.replace(own.config, scan_layers=False)
  given = formats.open_checkpoint(weights).in_layout(layout)
  expected = own.in_layout(layout)
  differing = sorted(given.keys() ^ expected.keys())
  for name in sorted(given.keys() & expected.keys()):
    rounded = lazy_arrays.cast(expected[name], given[name].dtype, name)
    if told := lazy_arrays.first_difference(name, rounded, given[name]):
      differing.append(told)
  if differing:
    raise ValueError(
      f'{len(differing)} of {len(expected)} arrays in {weights.path} are not those in '
      f'{adapter.base_path}, which the adapter in {adapter.where} was trained on: '
      f'{"; ".join(differing[:3])}. Give an export of that: aya-train convert {adapter.base_path} '
      'HF_FOLDER'
    )
  logger.info(
    'the %d arrays in %s are those that the adapter was trained on', len(expected), weights.path
  )


def _verify(
  out: epath.Path, adapter: adapters.Adapter, written: lazy_arrays.Arrays, where: str
) -> None:
  found = peft_folder.open_folder(out)
  wrong = [] if found.pairs.keys() == adapter.pairs.keys() else ['its modules']
  for name, pair in () if wrong else adapter.pairs.items():
    back = found.pairs[name]
    if abs(back.scale - pair.scale) > 1e-6 * pair.scale:
      wrong.append(f'{name}: scale {back.scale}, expected {pair.scale}')
    for mine, theirs in ((pair.a, back.a), (pair.b, back.b)):
      told = lazy_arrays.first_difference(name, lazy_arrays.cast(mine, theirs.dtype), theirs)
      wrong += [told] if told else []
  if wrong:
    raise ValueError(f'{where}: what was written does not read back: {"; ".join(wrong[:5])}')
  logger.info('verified %d arrays, bit for bit', len(written))

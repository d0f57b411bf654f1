"""`aya-train convert --to ct2`, `--to gguf`: any checkpoint as a quantised model with a report."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from aya_train.checkpoint import convert, formats, sha256sums, work_folder
from aya_train.embedding import encoder_checkpoint
from aya_train.export import ct2_model, gguf_file, model_card, quality, quantised_encoder
from aya_train.report import run_record

logger = logging.getLogger(__name__)

_EXPORTS: Mapping[str, Callable[..., epath.Path]] = {
  'ct2': ct2_model.to_ctranslate2,
  'gguf': gguf_file.to_gguf,
}
QUANTISATIONS = {'ct2': ct2_model.QUANTISATIONS, 'gguf': gguf_file.QUANTISATIONS}
DEFAULTS = {'ct2': ct2_model.DEFAULT_QUANTISATION, 'gguf': gguf_file.DEFAULT_QUANTISATION}
_PACKAGES = {'ct2': 'ctranslate2', 'gguf': 'gguf'}


def quantise(
  src: epath.PathLike,
  dst: epath.PathLike,
  *,
  to: str,
  base: str | None = None,
  quantisation: str | None = None,
  dtype: str = 'float32',
  vocabulary_file: str | None = None,
  examples_file: epath.PathLike | None = None,
  num_examples: int = 256,
  base_model: str | None = None,
  license: str = 'apache-2.0',
  overwrite: bool = False,
  allow_float16_overflow: bool = False,
  verify: bool = False,
  max_length: int | None = None,
) -> epath.Path:
  """Writes `src` as a quantised model, with its size, its loss in quality, card and licence.

  Sentence encoders, and encoders alone, go to `quantised_encoder.quantise`.

  A source that is no Hugging Face folder, or gets another vocabulary, is first exported to one
  beside `dst`, which is removed at the end. `dst` appears complete or not at all.

  Args:
    src: anything `formats.detect` knows.
    dst: local folder to make.
    to: 'ct2' or 'gguf'.
    base: of an adapter, where the weights under it are; None: where it says.
    quantisation: one of QUANTISATIONS[to], by default int8_float32 and q8_0.
    dtype: of the folder exported on the way.
    vocabulary_file: SentencePiece file; by default the one that the checkpoint names.
    examples_file: JSON lines that the quantised and the float model are compared on; by default the
      newest decodings that the run kept.
    num_examples: how many of them; 0 compares nothing, which saves loading both models.
    base_model, license: for the card.
    overwrite: replace `dst`.
    verify: check the folder exported on the way (see `convert.convert`); what quantisation costs is
      in the report.
    max_length: tokens of a text, of a sentence encoder.
    allow_float16_overflow: see `hf_export.export` and `ct2_model.to_ctranslate2`.

  Raises:
    ValueError: an unknown quantisation, a missing package, or what the exports refuse.
    FileExistsError: `dst` is there.
  """
  started = time.monotonic()
  quantisation = quantisation or DEFAULTS[to]
  if quantisation not in QUANTISATIONS[to]:
    raise ValueError(
      f'--quantisation of {to} must be one of {QUANTISATIONS[to]}, not {quantisation}'
    )
  require(to)
  if base is not None:
    formats.detect(src, base)  # refuses what is no adapter, encoders among it
  if encoder_checkpoint.is_encoder(src):
    quantised_encoder.quantise(
      src,
      dst,
      to=to,
      quantisation=quantisation,
      dtype=dtype,
      vocabulary_file=vocabulary_file,
      examples_file=examples_file,
      num_examples=num_examples,
      max_length=max_length,
      base_model=base_model,
      license=license,
      overwrite=overwrite,
      verify=verify,
    )
    return epath.Path(dst)
  source = formats.detect(src, base)
  target = work_folder.check(dst, overwrite=overwrite)
  work_folder.check_apart(source.path, dst)
  formats.open_checkpoint(source)
  model_dir = run_record.find(source.path)
  examples_file = examples_file or (quality.examples_of_run(model_dir) if model_dir else None)
  if num_examples and examples_file is not None:
    quality.example_texts(examples_file, num_examples)
  with work_folder.replacing(target, overwrite=overwrite) as work:
    hf_folder, out = source.path, work / 'out'
    if source.format is not formats.Format.HF or vocabulary_file:
      hf_folder = work / 'hf' / target.name
      convert.convert(
        source.path,
        hf_folder,
        to='hf',
        base=base,
        dtype=None if source.format is formats.Format.HF else dtype,
        vocabulary_file=vocabulary_file,
        allow_float16_overflow=allow_float16_overflow,
        verify=verify,
      )
    options = {'allow_float16_overflow': allow_float16_overflow} if to == 'ct2' else {}
    _EXPORTS[to](hf_folder, out, quantisation=quantisation, **options)
    found = quality.report(
      out,
      hf_folder,
      quantisation=quantisation,
      examples_file=examples_file if num_examples else None,
      num_examples=num_examples,
    )
    model_card.write(
      out,
      hf_folder,
      name=target.name,
      model_dir=model_dir,
      base_model=base_model,
      license=license,
    )
    sha256sums.write(out)
  logger.info('%s', summary(found))
  logger.info('wrote %s from %s in %.1f s', dst, source.path, time.monotonic() - started)
  return epath.Path(dst)


def require(to: str) -> None:
  """Raises ValueError, saying what to install, if the package of a format is missing."""
  import importlib.util

  if importlib.util.find_spec(_PACKAGES[to]) is None:
    raise ValueError(f"--to {to} needs {_PACKAGES[to]}: pip install 'aya-train[hf,quantised]'")


def summary(found: Mapping[str, Any]) -> str:
  """A report of `quality.report` in one line."""
  text = (
    f'{found["quantisation"]}: {found["bytes"] / 1e6:,.1f} MB, '
    f'{found["bytes_per_parameter"]:.2f} bytes a parameter'
  )
  if 'loss' not in found:
    return text
  return (
    f'{text}; loss {found["loss"]:.4f} (float {found["float_loss"]:.4f}), '
    f'{found["same_answers"]:.1f} % of {found["examples"]} answers unchanged'
  )

"""`convert --to ct2` and `--to gguf` of a sentence encoder: quantised, with what it costs measured.

    DST/model.bin or model-<quantisation>.gguf   the encoder; its vector is the mean of its output
       /projection.safetensors                   `linear.weight` [dimension, width], if there is one
       /embedding.json                           pooling, prompts, lengths, dimensions
       /quantised.json                           size, and how far its vectors are from ours
Neither library has a place for a projection behind the mean: whoever uses the folder multiplies.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from aya_train import ct2_library, path_facts
from aya_train.checkpoint import sha256sums, work_folder
from aya_train.checkpoint.arrays import lazy_arrays, safetensors_file
from aya_train.checkpoint.hf import hf_files, hf_torch, hf_vocabulary
from aya_train.embedding import (
  ct2_vectors,
  encoder_checkpoint,
  encoder_layout,
  text_encoder,
  text_rows,
)
from aya_train.export import ct2_model, gguf_file, quality, sentence_folder

logger = logging.getLogger(__name__)
SAMPLES = (*sentence_folder.SAMPLES, *hf_torch.PROMPTS)
QUANTISATIONS = {'ct2': ct2_model.ENCODER_QUANTISATIONS, 'gguf': gguf_file.QUANTISATIONS}
# Of the cosine of a vector and the one that it stands for, in the mean over all texts.
LEAST_COSINE = 0.9


def quantise(
  src: epath.PathLike,
  dst: epath.PathLike,
  *,
  to: str,
  quantisation: str,
  dtype: str = 'float32',
  vocabulary_file: str | None = None,
  examples_file: epath.PathLike | None = None,
  num_examples: int = 256,
  max_length: int | None = None,
  base_model: str | None = None,
  license: str = 'apache-2.0',
  overwrite: bool = False,
  verify: bool = False,
) -> dict[str, Any]:
  """Writes the folder; it appears complete or not at all.

  Args:
    src: a run of embeddings, a folder of sentence-transformers, or a Hugging Face encoder.
    dst: local folder to make.
    to: 'ct2' or 'gguf'.
    quantisation: one of QUANTISATIONS[to].
    dtype: of the folder of sentence-transformers that is made on the way.
    vocabulary_file: SentencePiece file; by default the one that the checkpoint names.
    examples_file: texts on which vectors are compared, in any form that `embed` reads; by default
      samples of several languages.
    num_examples: how many of them; 0 compares nothing.
    max_length: tokens of a text; by default as trained, or 512.
    base_model, license: for the card.
    overwrite: replace `dst`.
    verify: check the folder that is made on the way (`sentence_folder.export`).

  Returns:
    The report, see `compare`.

  Raises:
    ValueError: another quantisation; what the exports refuse; or vectors whose mean cosine with the
      checkpoint's is less than LEAST_COSINE.
    FileNotFoundError: no checkpoint, or no vocabulary.
    FileExistsError: `dst` is there.
  """
  started = time.monotonic()
  if quantisation not in QUANTISATIONS[to]:
    raise ValueError(
      f'--quantisation of an encoder for {to} must be one of {QUANTISATIONS[to]}, got '
      f'{quantisation!r}'
    )
  target = work_folder.check(dst, overwrite=overwrite)
  checkpoint = encoder_checkpoint.open_checkpoint(src)
  work_folder.check_apart(checkpoint.path, dst)
  texts = _texts(examples_file, num_examples)
  with work_folder.replacing(target, overwrite=overwrite) as work:
    folder, out = work / 'hf' / target.name, work / 'out'
    folder.parent.mkdir()
    sentence_folder.export(
      src,
      folder,
      dtype=dtype,
      vocabulary_file=vocabulary_file,
      max_length=max_length,
      base_model=base_model,
      license=license,
      verify=verify,
    )
    ours = encoder_checkpoint.open_checkpoint(folder)
    length = ours.max_length or text_encoder.MAX_LENGTH
    if to == 'ct2':
      logger.info('CTranslate2 is quantising, which shows no progress')
      ct2_model.encoder_to_ctranslate2(folder, out, quantisation=quantisation)
    else:
      gguf_file.encoder_to_gguf(folder, out, quantisation=quantisation, context_length=length)
      hf_vocabulary.copy(folder, out)
    _write_settings(out, ours, folder, length)
    found = {'quantisation': quantisation, **quality.sizes(out, folder)}
    if texts:
      found |= compare(out, ours, texts)
    (out / quality.FILE).write_text(json.dumps(found, indent=2) + '\n')
    if texts and not found['cosine'] >= LEAST_COSINE:
      raise ValueError(
        f'{quantisation} vectors of {src} have a cosine of {found["cosine"]:.3f} with the '
        f'unquantised ones on {len(texts)} texts, less than {LEAST_COSINE}: they are no longer its '
        'vectors. Take a finer --quantisation'
      )
    sentence_folder.write_card(
      out, checkpoint, target.name, length, base_model, license, form=to, report=found
    )
    sha256sums.write(out)
  logger.info('%s', summary(found))
  logger.info('wrote %s from %s in %.1f s', dst, checkpoint.path, time.monotonic() - started)
  return found


def _write_settings(
  out: epath.Path,
  checkpoint: encoder_checkpoint.EncoderCheckpoint,
  folder: epath.Path,
  length: int,
) -> None:
  content = ct2_vectors.settings_of(checkpoint, hf_files.read_config(folder), length)
  text = json.dumps(content, indent=2, ensure_ascii=False)
  (out / ct2_library.ENCODER).write_text(f'{text}\n')
  if checkpoint.projection:
    kernel = checkpoint.params[encoder_checkpoint.PROJECTION]
    weight = {ct2_vectors.WEIGHT: lazy_arrays.transpose(kernel)}
    safetensors_file.write(
      out / ct2_vectors.PROJECTION, weight, np.dtype(np.float32), sentence_folder.rounded
    )


def _texts(examples_file: epath.PathLike | None, count: int) -> Sequence[str]:
  """At most `count` texts, spread evenly over a file."""
  if examples_file is None or not count:
    return SAMPLES[:count] if count else ()
  rows = [row.text for row in text_rows.good(text_rows.of_files([examples_file]))]
  if not rows:
    raise ValueError(f'{examples_file} holds no texts')
  return rows[:: max(1, len(rows) // count)][:count]


def compare(
  folder: epath.Path, checkpoint: encoder_checkpoint.EncoderCheckpoint, texts: Sequence[str]
) -> dict[str, Any]:
  """How near the vectors of a quantised folder are to those of the checkpoint it was made of.

  Vectors of CTranslate2 are CTranslate2's; of a GGUF file those of the weights that it decodes to.

  Returns:
    `examples`; `cosine` and `smallest_cosine` of the two vectors of a text, mean and least; and
    `score_difference`, the largest change of the similarity of two texts.
  """
  float_encoder = text_encoder.TextEncoder(checkpoint, text_encoder.partitioner())
  before, after = float_encoder.vectors(texts), _quantised(folder, checkpoint).vectors(texts)
  cosines = np.einsum('td,td->t', before, after)
  return {
    'examples': len(texts),
    'cosine': float(cosines.mean()),
    'smallest_cosine': float(cosines.min()),
    'score_difference': float(np.abs(before @ before.T - after @ after.T).max()),
  }


def _quantised(
  folder: epath.Path, checkpoint: encoder_checkpoint.EncoderCheckpoint
) -> text_encoder.TextEncoder:
  if not path_facts.matching(folder, '*.gguf'):
    return ct2_vectors.Ct2TextEncoder(folder)
  weights = {
    name: lazy_arrays.of(np.array(array))
    for name, array in gguf_file.read(folder).weights().items()
  }
  params = encoder_layout.from_hf(weights, checkpoint.config, str(folder))
  if checkpoint.projection:
    params[encoder_checkpoint.PROJECTION] = checkpoint.params[encoder_checkpoint.PROJECTION]
  decoded = dataclasses.replace(checkpoint, params=params)
  return text_encoder.TextEncoder(decoded, text_encoder.partitioner())


def summary(found: Mapping[str, Any]) -> str:
  """A report in one line."""
  text = (
    f'{found["quantisation"]}: {found["bytes"] / 1e6:,.1f} MB, '
    f'{found["bytes_per_parameter"]:.2f} bytes a parameter'
  )
  if 'cosine' not in found:
    return text
  return (
    f'{text}; cosine with the unquantised vectors {found["cosine"]:.5f} (least '
    f'{found["smallest_cosine"]:.5f}) on {found["examples"]} texts, scores change by '
    f'{found["score_difference"]:.2g} at most'
  )

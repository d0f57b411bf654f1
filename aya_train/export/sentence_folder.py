"""`convert --to sentence-transformers`: an encoder as a folder of that library's own modules.

    DST/modules.json                          Transformer, Pooling, Dense (a projection), Normalize
       /config.json, model.safetensors        the encoder, as transformers' *EncoderModel loads it
       /tokenizer.json ...                    its tokenizer
       /1_Pooling, /2_Dense, /3_Normalize
       /config_sentence_transformers.json     prompts, similarity
       /README.md                             a model card

The names of classes and settings are those that version 3 wrote: versions 3 to 6 read them. No code
of this package is needed to load the folder, and sentence-transformers is not needed to write it.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from etils import epath

from aya_train.checkpoint import progress, sha256sums, work_folder
from aya_train.checkpoint.arrays import finite_arrays, lazy_arrays, safetensors_file
from aya_train.checkpoint.hf import hf_config, hf_export, hf_files, hf_tokenizer, hf_vocabulary
from aya_train.embedding import encoder_checkpoint, encoder_layout, text_encoder
from aya_train.export import model_card
from aya_train.report import run_record

logger = logging.getLogger(__name__)
DTYPES = ('float32', 'bfloat16')
TOLERANCE = 1e-4
_MODULE = 'sentence_transformers.models.'
_POOLINGS = ('cls_token', 'mean_tokens', 'max_tokens', 'mean_sqrt_len_tokens')
_TAGS = {
  'sentence-transformers': ('sentence-transformers',),
  'ct2': ('ctranslate2', 'int8'),
  'gguf': ('gguf', 'llama-cpp'),
}
_ALIAS = 'encoder.embed_tokens.weight'
SAMPLES = (
  'Lagos is the largest city of Nigeria.',
  'Wo liegt Nairobi?',
  'Mwanaume alifungua bomba la maji.',
  'मैं अपना समय कैसे बचा सकता हूँ?',
  '東京',
)


def export(
  src: epath.PathLike,
  dst: epath.PathLike,
  *,
  base: str | None = None,
  dtype: str | None = None,
  vocabulary_file: str | None = None,
  max_shard_size: str | None = None,
  max_length: int | None = None,
  overwrite: bool = False,
  verify: bool = False,
  base_model: str | None = None,
  license: str = 'apache-2.0',
) -> epath.Path:
  """Writes the folder; it appears complete or not at all.

  Args:
    src: anything `encoder_checkpoint.open_checkpoint` knows.
    dst: folder to make.
    base: of an adapter, where the weights under it are; None: where it says.
    dtype: of the tensors, 'float32' or 'bfloat16'; the projection stays float32.
    vocabulary_file: SentencePiece file; by default the one that the checkpoint names.
    max_shard_size: of each safetensors file, by default 5GB.
    max_length: tokens of a text; by default as trained, or 512.
    overwrite: replace `dst`.
    verify: read the folder back bit for bit, and, where sentence-transformers is installed, compare
      its vectors of sample texts with ours.
    base_model, license: for the card.

  Raises:
    ValueError: what cannot be exported, or does not read back.
    FileNotFoundError: no checkpoint, or no vocabulary.
    FileExistsError: `dst` is there.
  """
  started = time.monotonic()
  dtype = dtype or 'float32'
  if dtype not in DTYPES:
    raise ValueError(
      f'--dtype of --to sentence-transformers must be one of {DTYPES}, got {dtype!r}: encoders of '
      'T5 overflow in float16'
    )
  target = work_folder.check(dst, overwrite=overwrite)
  checkpoint = encoder_checkpoint.open_checkpoint(src, base)
  work_folder.check_apart(checkpoint.path, dst)
  length = max_length or checkpoint.max_length or text_encoder.MAX_LENGTH
  pieces = checkpoint.vocabulary_model(vocabulary_file)
  content = _config(checkpoint, dtype)
  with work_folder.replacing(target, overwrite=overwrite) as work:
    out = work / 'out'
    out.mkdir()
    _write_json(out / 'config.json', content)
    _write_tokenizer(out, checkpoint, pieces, vocabulary_file, work)
    tensors = {
      name: finite_arrays.checked({name: array}, str(src))[name]
      for name, array in _tensors(checkpoint).items()
    }
    _write_tensors(out, tensors, dtype, max_shard_size or '5GB')
    _write_modules(out, checkpoint, length)
    write_card(out, checkpoint, target.name, length, base_model, license)
    if verify:
      _verify(out, checkpoint, dtype, str(dst), vocabulary_file, length)
    sha256sums.write(out)
  logger.info('wrote %s from %s in %.1f s', dst, checkpoint.path, time.monotonic() - started)
  return epath.Path(dst)


def _config(checkpoint: encoder_checkpoint.EncoderCheckpoint, dtype: str) -> dict[str, Any]:
  content = hf_config.to_hf_config(checkpoint.config, dtype=dtype)
  kind = {'t5': 'T5', 'mt5': 'MT5', 'umt5': 'UMT5'}[content['model_type']]
  return {**content, 'architectures': [f'{kind}EncoderModel'], 'is_encoder_decoder': False}


def _tensors(checkpoint: encoder_checkpoint.EncoderCheckpoint) -> dict[str, lazy_arrays.LazyArray]:
  """The encoder's tensors; the input table under each name that a version of transformers reads.

  transformers 5.0 to 5.2 fill the table of an umT5 encoder from `encoder.embed_tokens.weight` alone
  (huggingface/transformers#43880); all other classes and versions take `shared.weight`.
  """
  tensors = encoder_layout.to_hf(checkpoint.params, checkpoint.config)
  if checkpoint.config.relpos_bias_per_layer:
    tensors[_ALIAS] = tensors['shared.weight']
  return tensors


def _write_tensors(
  out: epath.Path, tensors: Mapping[str, lazy_arrays.LazyArray], dtype: str, shard_size: str
) -> None:
  split = hf_export.shards(tensors, dtype, shard_size)
  with progress.shown('writing', progress.total_bytes(tensors)) as advance:
    counted = progress.counted(tensors, advance)
    for filename, names in split.filename_to_tensors.items():
      chosen = {name: counted[name] for name in names}
      safetensors_file.write(out / filename, chosen, hf_export.DTYPES[dtype], rounded)
  if split.is_sharded:
    index = {'metadata': split.metadata, 'weight_map': split.tensor_to_filename}
    _write_json(out / hf_files.INDEX, index)


def rounded(block: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
  """Numbers in a type, little-endian, as safetensors has them."""
  return lazy_arrays.rounded(block, dtype, name).astype(dtype.newbyteorder('<'), copy=False)


def _write_tokenizer(
  out: epath.Path,
  checkpoint: encoder_checkpoint.EncoderCheckpoint,
  pieces: bytes,
  vocabulary_file: str | None,
  work: epath.Path,
) -> None:
  folder = epath.Path(checkpoint.vocabulary)
  if not vocabulary_file and folder.is_dir() and (folder / 'tokenizer.json').exists():
    hf_vocabulary.copy(folder, out)
    return
  file = work / 'vocabulary.model'
  file.write_bytes(pieces)
  hf_tokenizer.write(file, out)


def _write_modules(
  out: epath.Path, checkpoint: encoder_checkpoint.EncoderCheckpoint, length: int
) -> None:
  width = checkpoint.config.emb_dim
  modules = ['Transformer', 'Pooling']
  modules += ['Dense'] if checkpoint.projection else []
  modules += ['Normalize']
  entries = [
    {
      'idx': i,
      'name': str(i),
      'path': '' if kind == 'Transformer' else f'{i}_{kind}',
      'type': _MODULE + kind,
    }
    for i, kind in enumerate(modules)
  ]
  _write_json(out / encoder_checkpoint.MODULES, entries)
  _write_json(out / 'sentence_bert_config.json', {'max_seq_length': length, 'do_lower_case': False})
  for entry in entries[1:]:
    (out / entry['path']).mkdir()
  modes = {f'pooling_mode_{name}': name == 'mean_tokens' for name in _POOLINGS}
  pooling = {'word_embedding_dimension': width, **modes, 'include_prompt': True}
  _write_json(out / '1_Pooling' / 'config.json', pooling)
  if checkpoint.projection:
    dense = {
      'in_features': width,
      'out_features': checkpoint.projection,
      'bias': False,
      'activation_function': 'torch.nn.modules.linear.Identity',
    }
    _write_json(out / '2_Dense' / 'config.json', dense)
    kernel = checkpoint.params[encoder_checkpoint.PROJECTION]
    weight = {'linear.weight': lazy_arrays.transpose(kernel)}
    safetensors_file.write(out / '2_Dense' / hf_files.WHOLE, weight, np.dtype(np.float32), rounded)
  prompts = dict(checkpoint.prompts)
  if encoder_checkpoint.PASSAGE in prompts:
    prompts['document'] = prompts[encoder_checkpoint.PASSAGE]
  about = {
    '__version__': {'sentence_transformers': '3.0.0'},
    'prompts': prompts,
    'default_prompt_name': None,
    'similarity_fn_name': 'cosine',
    'matryoshka_dimensions': list(checkpoint.matryoshka_dimensions),
  }
  _write_json(out / 'config_sentence_transformers.json', about)


def _write_json(path: epath.Path, content: Any) -> None:
  path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + '\n')


def write_card(
  out: epath.Path,
  checkpoint: encoder_checkpoint.EncoderCheckpoint,
  name: str,
  length: int,
  base_model: str | None,
  license: str,
  *,
  form: str = 'sentence-transformers',
  report: Mapping[str, Any] | None = None,
) -> None:
  """Writes README.md, and LICENSE where its text is known.

  Args:
    out: folder.
    checkpoint: what it was made of.
    name: of the folder.
    length: most tokens of a text.
    base_model, license: see `export`.
    form: 'sentence-transformers', 'ct2' or 'gguf'.
    report: of `quantised_encoder.quantise`.
  """
  model_dir = run_record.find(checkpoint.path)
  is_run = encoder_checkpoint.is_embedding_run(checkpoint)
  card = model_card.read(model_dir) if model_dir is not None and is_run else None
  data = card.data if card else None
  languages = sorted(model_card.known_languages(data))
  import huggingface_hub

  metadata = huggingface_hub.ModelCardData(
    language=languages or None,
    license=license,
    base_model=base_model,
    library_name={'ct2': 'ctranslate2'}.get(form, form),
    pipeline_tag='sentence-similarity',
    tags=[*_TAGS[form], 'feature-extraction', 'sentence-similarity', 'mt5', 'aya'],
  )
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('aya_train.export', 'templates'), trim_blocks=True, autoescape=False
  )
  (out / 'README.md').write_text(
    environment.get_template('sentence_card.md.jinja').render(
      metadata=metadata.to_yaml().strip(),
      name=name,
      kind=checkpoint.kind,
      trained=is_run,
      config=checkpoint.config,
      dimension=checkpoint.dimension,
      projection=checkpoint.projection,
      max_length=length,
      prompts=checkpoint.prompts,
      matryoshka_dimensions=list(checkpoint.matryoshka_dimensions),
      recipe=card.recipe if card else (),
      data=data,
      license=license,
      form=form,
      report=report,
    )
  )
  if license in model_card.LICENSES:
    (out / 'LICENSE').write_text(model_card.license_text(license))


# Reading back -------------------------------------------------------------------------------------


def _verify(
  out: epath.Path,
  checkpoint: encoder_checkpoint.EncoderCheckpoint,
  dtype: str,
  where: str,
  vocabulary_file: str | None,
  length: int,
) -> None:
  found = encoder_checkpoint.open_checkpoint(out)
  config = dataclasses.replace(checkpoint.config, scan_layers=False)
  wanted = encoder_layout.from_hf(
    encoder_layout.to_hf(checkpoint.params, checkpoint.config), config, where
  )
  if checkpoint.projection:
    wanted[encoder_checkpoint.PROJECTION] = checkpoint.params[encoder_checkpoint.PROJECTION]
  for name, array in wanted.items():
    kept = dtype if name != encoder_checkpoint.PROJECTION else 'float32'
    told = lazy_arrays.first_difference(
      name, lazy_arrays.cast(array, kept, name), found.params[name]
    )
    if told:
      raise ValueError(f'{where}: what was written does not read back: {told}')
  logger.info('verified %d arrays, bit for bit', len(wanted))
  if dtype == 'float32':
    compare(out, checkpoint, where, vocabulary_file=vocabulary_file, max_length=length)


def compare(
  folder: epath.PathLike,
  checkpoint: encoder_checkpoint.EncoderCheckpoint,
  where: str,
  *,
  texts: Sequence[str] = SAMPLES,
  vocabulary_file: str | None = None,
  max_length: int | None = None,
) -> float | None:
  """Compares the vectors that sentence-transformers makes of texts with ours.

  Returns:
    The largest difference; None where sentence-transformers is not installed, which is said.

  Raises:
    ValueError: it is more than TOLERANCE.
  """
  try:
    import sentence_transformers
  except ImportError:
    logger.info(
      'sentence-transformers is not installed, so its vectors are not compared: '
      "pip install 'aya-train[embed]'"
    )
    return None
  model = sentence_transformers.SentenceTransformer(str(folder), device='cpu')
  theirs = model.encode(list(texts), convert_to_numpy=True)
  settings = text_encoder.Settings(max_length=max_length, vocabulary=vocabulary_file)
  encoder = text_encoder.TextEncoder(checkpoint, text_encoder.partitioner(), settings)
  difference = float(np.abs(encoder.vectors(list(texts)) - theirs).max())
  if not difference <= TOLERANCE:
    raise ValueError(
      f'{where}: sentence-transformers {sentence_transformers.__version__} gives vectors that '
      f'differ by {difference:.2g} from ours, more than {TOLERANCE:g}'
    )
  logger.info('vectors of %d texts differ by %.2g at most', len(texts), difference)
  return difference

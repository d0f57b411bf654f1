"""What makes vectors of a checkpoint of any kind: the encoder's arrays, projection, prompts, ids.

A run of recipes/embed_*.gin and a folder of sentence-transformers say all of it. Of any other
checkpoint (an SFT run, T5X, a Hugging Face folder of a whole model or of an encoder) the encoder is
taken, with the mean over its output.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import ct2_library
from aya_train.checkpoint import checkpoint_identity, formats, manager, native, sha256sums
from aya_train.checkpoint.arrays import lazy_arrays, safetensors_file
from aya_train.checkpoint.hf import hf_config, hf_files, hf_tokenizer, hf_vocabulary
from aya_train.embedding import encoder_layout
from aya_train.models import t5_config
from aya_train.objectives import embedding

MODULES = 'modules.json'
PROJECTION = 'projection/kernel'
QUERY, PASSAGE = 'query', 'passage'
_DOCUMENT = 'document'  # what sentence-transformers calls a passage
EMBEDDING_RUN = 'an embedding run'
SENTENCE_FOLDER = 'a folder of sentence-transformers'
_ABOUT = 'config_sentence_transformers.json'
_DAMAGED = 'Copy the folder again from its source'


@dataclasses.dataclass(frozen=True)
class EncoderCheckpoint:
  """An encoder and what makes vectors of it; its arrays are opened, not read.

  Attributes:
    path: the checkpoint.
    kind: in words, for people.
    config: the network; its decoder's fields mean nothing where there is none.
    params: name -> array in the layout of `config`, with `projection/kernel` [E, D] if there is a
      projection.
    step: of the run, 0 if unknown.
    vocabulary: a SentencePiece file or the folder of a tokenizer of transformers; '' if unknown.
    prompts: put before the texts of each side, by 'query', 'passage' and other names.
    matryoshka_dimensions: that the model was trained for.
    max_length: most tokens of a text that the model says; None if it says nothing.
  """

  path: epath.Path
  kind: str
  config: t5_config.T5Config
  params: lazy_arrays.Arrays
  step: int = 0
  vocabulary: str = ''
  prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)
  matryoshka_dimensions: Sequence[int] = ()
  max_length: int | None = None

  @property
  def projection(self) -> int | None:
    """Width of the projection, None without one."""
    return int(self.params[PROJECTION].shape[1]) if PROJECTION in self.params else None

  @property
  def dimension(self) -> int:
    """Width of a vector."""
    return self.projection or self.config.emb_dim

  @functools.cached_property
  def identity(self) -> str:
    """Name and digest of the files, the same wherever a copy lies."""
    return f'{self.path.name} {checkpoint_identity.of(self.path)}'

  def vocabulary_model(self, vocabulary_file: str | None = None) -> bytes:
    """The SentencePiece model of its ids.

    Raises:
      FileNotFoundError: there is none.
      ValueError: more pieces than the table has rows; or no SentencePiece model says its ids.
    """
    source = vocabulary_file or self.vocabulary
    if not source or not epath.Path(source).exists():
      named = f'the vocabulary {source!r} for' if source else 'no vocabulary in'
      raise FileNotFoundError(
        f'{named} {self.path}' + (' does not exist' if source else '') + ': give its SentencePiece '
        'file with --vocabulary'
      )
    path = epath.Path(source)
    rows = self.config.vocab_size
    if path.is_dir():
      if not hf_vocabulary.has_tokenizer(path):
        raise FileNotFoundError(f'{path} holds no tokenizer: give its file with --vocabulary')
      own = hf_vocabulary.own_model(path, rows)
      content = own or (hf_vocabulary.file_of(path) or path).read_bytes()
    else:
      hf_tokenizer.read_vocabulary(path)
      content = path.read_bytes()
    return content


def is_encoder(path: epath.PathLike) -> bool:
  """Whether a checkpoint is made for vectors, or an encoder alone; nothing else can be had of it.

  Raises:
    FileNotFoundError, ValueError: nothing there, or damaged.
  """
  if _is_sentence_folder(epath.Path(path)) or ct2_library.is_encoder_folder(path):
    return True
  source = formats.detect(path)
  if source.format is formats.Format.HF:
    return _is_encoder_alone(source.path)
  return source.format is formats.Format.NATIVE and native.is_encoder(source.path)


def open_checkpoint(path: epath.PathLike, base: str | None = None) -> EncoderCheckpoint:
  """Opens any checkpoint that has an encoder.

  Args:
    path: where it is.
    base: of an adapter, where the weights under it are; None: where it says.

  Raises:
    FileNotFoundError: nothing there.
    ValueError: damaged, of another network, or a sentence-transformers folder that computes
      something else than mean pooling, at most one projection and cosine similarity.
  """
  path = epath.Path(path)
  if base is not None:
    formats.detect(path, base)  # refuses what is no adapter
  if ct2_library.is_encoder_folder(path):
    raise ValueError(
      f'{path} is a CTranslate2 encoder, whose weights are quantised: `embed`, `mine` and '
      '`eval-embeddings` use it as it is, and nothing else can be made of it'
    )
  if _is_sentence_folder(path):
    return _sentence_transformers(path)
  source = formats.detect(path, base)
  if source.format is formats.Format.HF and _is_encoder_alone(source.path):
    return _encoder_folder(source.path)
  if source.format is formats.Format.NATIVE and native.is_encoder(source.path):
    return _embedding_run(source.path)
  checkpoint = formats.open_checkpoint(source)
  return EncoderCheckpoint(
    path=source.path,
    kind=f'the encoder of a {source.format.value} checkpoint, mean pooling',
    config=checkpoint.config,
    params=encoder_layout.share(checkpoint.params),
    step=checkpoint.step,
    vocabulary=checkpoint.tokenizer_folder or checkpoint.vocabulary_file,
  )


def _embedding_run(path: epath.Path) -> EncoderCheckpoint:
  metadata = manager.read_metadata(path)
  checkpoint, further = native.open_encoder(path)
  model = embedding.from_metadata(metadata, None)
  params = dict(checkpoint.params)
  if model.projection is not None:
    params[PROJECTION] = lazy_arrays.of(further[PROJECTION])
  lengths = metadata.get('task_feature_lengths') or {}
  prompts = {QUERY: model.query_prompt, PASSAGE: model.passage_prompt}
  return EncoderCheckpoint(
    path=path,
    kind=EMBEDDING_RUN,
    config=checkpoint.config,
    params=params,
    step=checkpoint.step,
    vocabulary=checkpoint.vocabulary_file,
    prompts={name: text for name, text in prompts.items() if text},
    matryoshka_dimensions=model.matryoshka_dimensions,
    max_length=max(map(int, lengths.values())) if lengths else None,
  )


def is_embedding_run(checkpoint: EncoderCheckpoint) -> bool:
  """Whether it was trained for embeddings by this package, and its run may lie around it."""
  return checkpoint.kind == EMBEDDING_RUN


# Folders of encoders ------------------------------------------------------------------------------


def _is_sentence_folder(path: epath.Path) -> bool:
  """Whether a folder is one of sentence-transformers.

  Raises:
    FileNotFoundError: it was one, and what names its modules is gone: without its projection and
      its prompts the encoder would give other vectors.
  """
  if (path / MODULES).exists():
    return True
  if left := [name for name in (_ABOUT, '1_Pooling') if (path / name).exists()]:
    raise FileNotFoundError(f'{path} has {left[0]} and no {MODULES}. {_DAMAGED}')
  return False


def _is_encoder_alone(folder: epath.Path) -> bool:
  if not (folder / hf_files.WHOLE).exists() and not (folder / hf_files.INDEX).exists():
    return False
  return not any(name.startswith('decoder.block.') for name in hf_files.open_tensors(folder))


def _encoder_folder(folder: epath.Path) -> EncoderCheckpoint:
  sha256sums.check(folder)
  content = dict(hf_files.read_config(folder))
  # An encoder says that it is none of the two, and has no head.
  content.pop('is_encoder_decoder', None)
  config = hf_config.from_hf_config(content, has_head=True, where=str(folder))
  params = encoder_layout.from_hf(hf_files.open_tensors(folder), config, str(folder))
  return EncoderCheckpoint(
    path=folder,
    kind='a Hugging Face encoder, mean pooling',
    config=config,
    params=params,
    vocabulary=str(folder) if hf_vocabulary.has_tokenizer(folder) else '',
  )


def _sentence_transformers(folder: epath.Path) -> EncoderCheckpoint:
  sha256sums.check(folder)
  modules = _json(folder / MODULES, list)
  found: dict[str, epath.Path] = {}
  for module in modules:
    if not isinstance(module, dict) or not {'type', 'path'} <= module.keys():
      raise ValueError(f'{folder / MODULES}: {module!r} is no module. {_DAMAGED}')
    found[str(module['type']).rpartition('.')[2]] = folder / str(module['path'])
  order = list(found)
  known = ('Transformer', 'Pooling', 'Dense', 'Normalize')
  if order != [name for name in known if name in found] or not {'Transformer', 'Pooling'} <= {
    *order
  }:
    raise ValueError(
      f'{folder} has the modules {order}: expected {list(known)}, the last two as needed'
    )
  _check_pooling(found['Pooling'])
  encoder = found['Transformer']
  if _is_encoder_alone(encoder):
    base = _encoder_folder(encoder)
  else:
    base = open_checkpoint(encoder) if encoder != folder else _whole_model(folder)
  params = dict(base.params)
  if 'Dense' in found:
    params[PROJECTION] = _projection(found['Dense'], base.config.emb_dim)
  about = folder / _ABOUT
  said = _json(about, dict) if about.exists() else {}
  prompts = {str(k): str(v) for k, v in (said.get('prompts') or {}).items() if v}
  if _DOCUMENT in prompts:
    prompts.setdefault(PASSAGE, prompts.pop(_DOCUMENT))
  limits = encoder / 'sentence_bert_config.json'
  length = _json(limits, dict).get('max_seq_length') if limits.exists() else None
  return dataclasses.replace(
    base,
    path=folder,
    kind=SENTENCE_FOLDER,
    params=params,
    prompts=prompts,
    matryoshka_dimensions=tuple(said.get('matryoshka_dimensions') or ()),
    max_length=length if type(length) is int and length > 0 else None,
  )


def _whole_model(folder: epath.Path) -> EncoderCheckpoint:
  checkpoint = formats.open_checkpoint(formats.Detected(folder, formats.Format.HF))
  return EncoderCheckpoint(
    path=folder,
    kind='',
    config=checkpoint.config,
    params=encoder_layout.share(checkpoint.params),
    vocabulary=checkpoint.tokenizer_folder or checkpoint.vocabulary_file,
  )


def _check_pooling(folder: epath.Path) -> None:
  content = _json(folder / 'config.json', dict)
  modes = {
    key.removeprefix('pooling_mode_').removesuffix('s').removesuffix('_token')
    for key, value in content.items()
    if key.startswith('pooling_mode_') and value is True
  }
  if isinstance(mode := content.get('pooling_mode'), str):
    modes = {mode}
  if modes != {'mean'} or content.get('include_prompt') is False:
    raise ValueError(
      f'{folder / "config.json"} asks for the pooling {sorted(modes)}'
      + (' without the prompt' if content.get('include_prompt') is False else '')
      + ': expected the mean over all tokens'
    )


def _projection(folder: epath.Path, width: int) -> lazy_arrays.LazyArray:
  content = _json(folder / 'config.json', dict)
  activation = str(content.get('activation_function', '')).rpartition('.')[2]
  tensors = safetensors_file.open_file(folder / hf_files.WHOLE)
  weight = tensors.get('linear.weight')
  if activation != 'Identity' or {*tensors} != {'linear.weight'} or weight is None:
    raise ValueError(
      f'{folder} has the activation {activation!r} and the arrays {sorted(tensors)}: expected a '
      'projection without bias and without an activation (Identity)'
    )
  if weight.shape[1] != width:
    raise ValueError(f'{folder} projects {weight.shape[1]} numbers, the encoder gives {width}')
  return lazy_arrays.transpose(lazy_arrays.of(weight))


def _json(path: epath.Path, kind: type) -> Any:
  if not path.exists():
    raise FileNotFoundError(f'no {path}, which {MODULES} speaks of. {_DAMAGED}')
  try:
    content = json.loads(path.read_bytes())
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path} is no JSON: {error}. {_DAMAGED}') from error
  if not isinstance(content, kind):
    raise ValueError(f'{path} must hold a JSON {kind.__name__}, got {type(content).__name__}')
  return content

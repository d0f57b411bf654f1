"""The formats a checkpoint may have, and the one place that tells them apart.

After `detect` the program knows a single format; `open_checkpoint` shows any of them as lazy arrays
under one set of names. reading.py gives their parameters to a model.
"""

import dataclasses
import enum

from etils import epath

from aya_train import ct2_library
from aya_train.checkpoint import (
  adapters,
  checkpoint_identity,
  contents,
  manager,
  native,
  sha256sums,
)
from aya_train.checkpoint.arrays import msgpack_index, orbax_tree
from aya_train.checkpoint.hf import hf_import, peft_folder
from aya_train.checkpoint.t5x import t5x_format, t5x_leaves, t5x_settings

_READS = (
  'Give a MODEL_DIR, one of its checkpoints/<step> folders, a T5X checkpoint_<step> folder, or '
  'a Hugging Face folder with safetensors'
)
_PICKLES = ('.bin', '.pt', '.pth', '.ckpt', '.pkl', '.pickle')


class Format(enum.Enum):
  """Each format in one sentence."""

  NATIVE = 'native'  # ours: a step folder with Orbax items `params`, `training`, `metadata`
  HF = 'hf'  # Hugging Face: config.json beside *.safetensors
  T5X = 't5x'  # T5X's own: a msgpack index `checkpoint` beside zarr arrays
  T5X_ORBAX = 't5x_orbax'  # T5X through Orbax: a tree in `state/`, with or without OCDBT
  ADAPTER = 'adapter'  # ours, of an adapter alone; read as the base that it names with it merged
  PEFT = 'peft'  # PEFT's: adapter_config.json beside safetensors; read in the same way


@dataclasses.dataclass(frozen=True)
class Detected:
  """A checkpoint that exists, and its format.

  Attributes:
    path: the folder or file.
    format: of it.
    base: of an adapter, where the weights under it are; None: where it says.
  """

  path: epath.Path
  format: Format
  base: str | None = None

  @property
  def is_adapter(self) -> bool:
    """Whether it holds an adapter alone."""
    return self.format in (Format.ADAPTER, Format.PEFT)


def detect(path: epath.PathLike, base: str | None = None) -> Detected:
  """Names the format of a checkpoint; of a run, the newest checkpoint is meant.

  Args:
    path: where it is.
    base: of an adapter, where the weights under it are; None: where it says.

  Raises:
    FileNotFoundError: nothing there.
    ValueError: a format that cannot be read, with the way out.
  """
  found = _detect(epath.Path(path))
  if base is None:
    return found
  if not found.is_adapter:
    raise ValueError(
      f'{path} is no adapter, but whole weights: it has no base, and {base} was given'
    )
  return dataclasses.replace(found, base=base)


def _detect(path: epath.Path) -> Detected:
  if not path.exists():
    raise FileNotFoundError(f'no checkpoint at {path}: the path does not exist. {_READS}')
  if t5x_format.is_mesh_tensorflow(path):
    raise ValueError(
      f'{path} is a TensorFlow checkpoint (Mesh TensorFlow T5), which is not read: convert it with '
      "T5X's t5x/scripts/convert_tf_checkpoint.py, or take a released T5X checkpoint "
      '(gs://t5-data/pretrained_models/t5x/) or a Hugging Face one'
    )
  if of_others := _for_other_programs(path):
    raise ValueError(f'{path} {of_others}')
  if path.is_file() and path.suffix in _PICKLES:
    raise ValueError(f'{path} {_pickle_message()}')
  if peft_folder.is_there(path):
    return Detected(path, Format.PEFT)
  if (path / 'config.json').exists():
    return Detected(path, Format.HF)
  if (folder := t5x_format.step_folder(path)) is not None:
    if (root := t5x_format.orbax_root(folder)) is not None:
      return Detected(root, Format.T5X_ORBAX)
    return Detected(folder, Format.T5X)
  if path.is_file():
    return Detected(_index_file(path), Format.T5X)
  if pickles := [p.name for p in path.iterdir() if p.suffix in _PICKLES]:
    raise ValueError(f'{path} holds {sorted(pickles)[:3]}: this {_pickle_message()}')
  try:
    folder = manager.find(path)
    return Detected(folder, Format.ADAPTER if adapters.is_there(folder) else Format.NATIVE)
  except FileNotFoundError as error:
    raise FileNotFoundError(f'no checkpoint at {path}. {_READS}') from error


def _for_other_programs(path: epath.Path) -> str:
  """What a model is whose weights are for another program alone; '' if it is none."""
  folder = path.parent if path.name == ct2_library.MODEL else path
  files = [path.name] if path.is_file() else [p.name for p in path.iterdir()]
  if any(name.startswith('model') and name.endswith('.safetensors') for name in files):
    return ''  # the same model for transformers beside it
  source = 'give what it was converted from'
  if ct2_library.is_encoder_folder(folder):
    return (
      'is a sentence encoder of CTranslate2, whose weights are quantised: `embed`, `mine` and '
      f'`eval-embeddings` use its folder as it is; here {source}'
    )
  if ct2_library.is_folder(folder):
    return (
      'is a model of CTranslate2, whose weights are quantised: `eval` uses its folder as it is, '
      f'ctranslate2 answers with it; here {source}'
    )
  if any(name.endswith('.gguf') for name in files):
    return f'is a model of llama.cpp (GGUF), which is not read back: {source}'
  return ''


def _pickle_message() -> str:
  return (
    'is a pickle of torch, which is never loaded since it can run code: load the model with '
    'transformers and save_pretrained it, which writes safetensors'
  )


def _index_file(path: epath.Path) -> epath.Path:
  """A lone msgpack index, as T5X wrote before it had folders."""
  try:
    if 'optimizer' in msgpack_index.read(path):
      return path
  except ValueError:
    pass
  raise ValueError(f'{path} is a file of no known checkpoint format. {_READS}')


def open_checkpoint(source: Detected) -> contents.Checkpoint:
  """Reads what a checkpoint says of itself and opens its arrays; none of them is read.

  Raises:
    ValueError, FileNotFoundError: a damaged checkpoint or a foreign architecture; the base of an
      adapter is not there, or is another.
  """
  if source.is_adapter:
    adapter = open_adapter(source)
    return adapters.merged(open_checkpoint(base_of(source, adapter)), adapter)
  if source.format is Format.T5X:
    sha256sums.check(source.path)
    checkpoint = t5x_leaves.from_leaves(t5x_format.read(source.path), str(source.path))
    return t5x_settings.read(checkpoint, source.path)
  if source.format is Format.T5X_ORBAX:
    checkpoint = t5x_leaves.from_leaves(orbax_tree.read(source.path), str(source.path))
    return t5x_settings.read(checkpoint, source.path)
  if source.format is Format.NATIVE:
    return native.open_folder(source.path)
  return hf_import.open_folder(source.path)


def open_adapter(source: Detected) -> adapters.Adapter:
  """Opens an adapter without the weights under it.

  Raises:
    ValueError, FileNotFoundError: it is damaged, or of a sort that is not read.
  """
  if source.format is Format.PEFT:
    return peft_folder.open_folder(source.path)
  return adapters.open_step(source.path)


def base_of(source: Detected, adapter: adapters.Adapter | None = None) -> Detected:
  """The weights under an adapter, or the checkpoint itself if it is none.

  Raises:
    FileNotFoundError: they are not there.
    ValueError: they are others than those that the adapter was trained on.
  """
  if not source.is_adapter:
    return source
  adapter = adapter or open_adapter(source)
  path = source.base or adapter.base_path
  if not path or not epath.Path(path).exists():
    raise FileNotFoundError(
      f'the base of the adapter in {source.path} is not at {path or "any path that it names"}: '
      'give its folder (--base of convert; BASE_CHECKPOINT_PATH of train, infer and eval)'
    )
  base = detect(path)
  if base.is_adapter:
    raise ValueError(
      f'the base of the adapter in {source.path} is {base.path}, an adapter itself: merge that '
      'first, with aya-train convert'
    )
  if adapter.base_identity:
    check_identity(base, adapter.base_identity, f'the adapter in {source.path}')
  return base


def check_identity(base: Detected, identity: str, what: str) -> None:
  """Refuses weights that are not those of an identity.

  Raises:
    ValueError: with both.
  """
  found = checkpoint_identity.of(base.path)
  if found != identity:
    raise ValueError(
      f'{what} belongs to a base of identity {identity}, and {base.path} has {found}: these are '
      'other weights, on which it means nothing. Give the base that it was trained on'
    )

"""The formats a checkpoint may have, and the one place that tells them apart.

After `detect` the program knows a single format; `open_checkpoint` shows any of them as lazy arrays
under one set of names, and `read` gives parameters in the model's own layout and sharding, each
device reading its own slices.
"""

import dataclasses
import enum
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import traverse_util

from aya_train import ct2_library, finiteness, parameter_tree, partitioning, train_state
from aya_train.checkpoint import (
  adapters,
  checkpoint_identity,
  contents,
  manager,
  native,
  optax_state,
  quantised_leaves,
  restoration,
  vocabularies,
)
from aya_train.checkpoint.arrays import lazy_arrays, msgpack_index, orbax_tree
from aya_train.checkpoint.hf import hf_import, peft_folder
from aya_train.checkpoint.t5x import t5x_format, t5x_leaves, t5x_settings
from aya_train.models import lora, network, t5_config
from aya_train.objectives import objective

if TYPE_CHECKING:
  import seqio

_READS = (
  'It takes a MODEL_DIR, one of its checkpoints/<step> folders, a T5X checkpoint_<step> folder, or '
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
    raise FileNotFoundError(
      f'no checkpoint at {path}: the path does not exist. INITIAL_CHECKPOINT_PATH: {_READS}; None '
      'trains from scratch'
    )
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


def check(source: Detected, abstract_params: Any, model: objective.Objective) -> int:
  """Refuses a checkpoint that a model cannot start from; nothing but its description is read.

  Args:
    source: the checkpoint.
    abstract_params: shapes of the model's parameters.
    model: the objective, with the network and the vocabulary wanted.

  Returns:
    The step it was saved at, 0 if unknown. 0, too, where the model has parts of its own
    (`Objective.is_shared`): its training begins there.

  Raises:
    ValueError: another architecture, with names and shapes; another vocabulary (see
      `check_vocabulary`); or a damaged checkpoint.
  """
  if model.config is None:
    return _check_own_kind(source, model)
  if not model.is_whole:
    _opened_parts(source, abstract_params, model)
    check_vocabulary(source, model.output_vocabulary)
    return 0
  if model.adapter is not None:
    abstract_params = network.parameter_axes(model.config)[0]
    if source.is_adapter:
      adapter = open_adapter(source)
      adapters.check_room(adapter, model.adapter)
      if adapter.kept:
        adapters.check_kept(adapter, open_checkpoint(base_of(source, adapter)))
  step = _opened(source, abstract_params, model.config)[1].step
  check_vocabulary(source, model.output_vocabulary)
  return step


def _check_own_kind(source: Detected, model: objective.Objective) -> int:
  """`check` for parameters that are no T5 network's."""
  theirs: Any = 'a T5 network'
  if source.format is Format.NATIVE:
    metadata = manager.read_metadata(source.path)
    theirs = metadata['architecture']
    if theirs == model.metadata()['architecture']:
      return metadata['step']
  raise ValueError(
    f'{source.path} holds {theirs}, and the objective is {model.metadata()["architecture"]}: give '
    'a native checkpoint of the same objective, or INITIAL_CHECKPOINT_PATH = None'
  )


def _opened(
  source: Detected, abstract_params: Any, config: t5_config.T5Config
) -> tuple[lazy_arrays.Arrays, contents.Checkpoint]:
  checkpoint = open_checkpoint(source)
  checkpoint = contents.with_relpos(checkpoint, per_layer=config.relpos_bias_per_layer)
  have = checkpoint.in_layout(config)
  restoration.check_same_shapes(
    traverse_util.unflatten_dict(dict(have), sep='/'),
    abstract_params,
    f'checkpoint {source.path}',
    'the model',
  )
  says = (Format.HF, Format.NATIVE, Format.ADAPTER, Format.PEFT)
  if source.format in says or t5x_settings.tells_function(source.path):
    _check_function(checkpoint, config)
  return have, checkpoint


def _opened_parts(
  source: Detected, abstract_params: Any, model: objective.Objective
) -> lazy_arrays.Arrays:
  """Arrays by the model's names: its share of a T5 network, and of its own parts those there are.

  Raises:
    ValueError: another network; parts of its own that have other shapes, or that the model lacks.
  """
  own: lazy_arrays.Arrays = {}
  if source.format is Format.NATIVE and native.is_encoder(source.path):
    checkpoint, own = native.open_encoder(source.path)
  else:
    checkpoint = open_checkpoint(source)
  config: t5_config.T5Config = model.config
  checkpoint = contents.with_relpos(checkpoint, per_layer=config.relpos_bias_per_layer)
  layout = dataclasses.replace(
    checkpoint.config, scan_layers=config.scan_layers, param_scan_axis=config.param_scan_axis
  )
  have = {n: x for n, x in checkpoint.in_layout(layout).items() if model.is_shared(n)}
  wanted = traverse_util.flatten_dict(abstract_params, sep='/')
  restoration.check_same_shapes(
    traverse_util.unflatten_dict(have, sep='/'),
    traverse_util.unflatten_dict({n: x for n, x in wanted.items() if model.is_shared(n)}, sep='/'),
    f'checkpoint {source.path}',
    'the model',
  )
  if source.format in (Format.HF, Format.NATIVE) or t5x_settings.tells_function(source.path):
    _check_function(checkpoint, config)
  differing = [
    f'{name} {list(x.shape)}, and the model '
    f'{list(wanted[name].shape) if name in wanted else "none of that name"}'
    for name, x in own.items()
    if x.shape and (name not in wanted or tuple(wanted[name].shape) != tuple(x.shape))
  ]
  if differing:
    raise ValueError(
      f'{source.path} has {"; ".join(differing)}: bind PROJECTION as the run had it, or start from '
      'the checkpoint that it began with'
    )
  return {**have, **{name: x for name, x in own.items() if name in wanted}}


def _check_function(checkpoint: contents.Checkpoint, config: t5_config.T5Config) -> None:
  """Refuses a network whose arrays have the same shapes, and which computes something else."""
  theirs, mine = checkpoint.config.architecture(), config.architecture()
  differing = [
    f'{name} {theirs[name]!r}, and the model {mine[name]!r}'
    for name in ('mlp_activations', 'relative_attention_max_distance')
    if theirs[name] != mine[name]
  ]
  if differing:
    raise ValueError(
      f'{checkpoint.where} has {"; ".join(differing)}: bind T5Config as the checkpoint has it'
    )


def check_vocabulary(source: Detected, vocabulary: 'seqio.Vocabulary') -> None:
  """Refuses weights that were trained with other ids than a vocabulary's.

  T5X checkpoints do not say which vocabulary they belong to, so nothing is known of them.

  Raises:
    ValueError: the vocabulary differs in more than 1 % of the ids, with an example; or the stored
      fingerprint differs, and the file that it was taken of is no longer there.
  """
  from aya_train.data import fingerprints

  stored = stored_vocabulary(source)
  if stored.fingerprint == fingerprints.of_vocabulary(vocabulary):
    return
  mine = str(getattr(vocabulary, 'sentencepiece_model_file', ''))
  how = ''
  if mine and stored.file and epath.Path(stored.file).exists():
    how = vocabularies.difference(vocabularies.pieces(mine), vocabularies.pieces(stored.file))
    if not how:
      return
  elif stored.fingerprint is None:
    return
  raise ValueError(
    f'the weights in {source.path} belong to another vocabulary ({stored.file or "no file"}) than '
    f'this run has ({mine or vocabulary})'
    + (f': {how}' if how else '')
    + '. Bind VOCABULARY_FILE to the SentencePiece model of the weights'
  )


def stored_vocabulary(source: Detected) -> vocabularies.Stored:
  """What a checkpoint says of its vocabulary; nothing, if T5X itself wrote it."""
  if source.is_adapter:
    adapter = open_adapter(source)
    if adapter.vocabulary is not None:
      return vocabularies.Stored(adapter.vocabulary, adapter.vocabulary_file)
    return stored_vocabulary(base_of(source, adapter))
  if source.format is Format.HF:
    return vocabularies.of_hf(source.path)
  if source.format is Format.NATIVE:
    metadata = native.read_description(source.path, encoder_alone=True)[1]
    return vocabularies.Stored(metadata['vocabulary'], metadata['vocabulary_file'])
  if source.format is Format.T5X:
    return vocabularies.Stored(file=t5x_settings.vocabulary_file(source.path))
  return vocabularies.Stored()


def read(
  source: Detected, abstract_params: Any, config: t5_config.T5Config | None
) -> tuple[Any, int]:
  """Parameters laid out as `abstract_params`, and the step they were saved at (0 if unknown).

  Each host reads the slices that its devices hold. `config` says whether layers are stacked; it is
  None for an objective of another kind, whose native checkpoints are read as they are.

  Raises:
    ValueError: another architecture, with names and shapes; or a damaged checkpoint.
  """
  if config is None:
    step = manager.read_metadata(source.path)['step']
    return manager.read_params(source.path, abstract_params), step
  if source.format is Format.NATIVE:
    theirs, metadata = native.read_description(source.path)
    if contents.same_layout(theirs, config):
      return manager.read_params(source.path, abstract_params), metadata['step']
  wanted = traverse_util.flatten_dict(abstract_params, sep='/')
  have, checkpoint = _opened(source, abstract_params, config)
  params = {name: restoration.place(have[name], leaf) for name, leaf in wanted.items()}
  return traverse_util.unflatten_dict(params, sep='/'), checkpoint.step


def read_parts(source: Detected, abstract_params: Any, model: objective.Objective) -> Any:
  """Those parameters of a model with parts of its own that a checkpoint has, as a tree.

  Laid out as in `abstract_params`; each host reads the slices that its devices hold. What the tree
  lacks begins at random.

  Raises:
    ValueError: as `check`.
  """
  wanted = traverse_util.flatten_dict(abstract_params, sep='/')
  have = _opened_parts(source, abstract_params, model)
  found = {name: restoration.place(x, wanted[name]) for name, x in have.items()}
  return traverse_util.unflatten_dict(found, sep='/')


def read_optimizer_state(
  source: Detected, abstract_state: train_state.TrainState, config: t5_config.T5Config | None
) -> Any | None:
  """The optimizer state of a checkpoint, laid out as `abstract_state.opt_state`.

  T5X restores the optimizer together with the parameters of an initial checkpoint; so does this for
  T5X's Adafactor and ours, stacked or not.

  Returns:
    A tree of arrays, its step counts those of the checkpoint; None where the checkpoint holds
    weights alone, or is of an objective of another kind (`config` is None), or where one of the two
    optimizers is no Adafactor (a warning says so).

  Raises:
    ValueError: a damaged checkpoint, or moments that do not fit the parameters.
  """
  if config is None or source.format is Format.HF:
    return None
  checkpoint = open_checkpoint(source)
  filled = optax_state.fill(abstract_state.opt_state, abstract_state.params, checkpoint, config)
  return (
    None if filled is None else jax.tree.map(restoration.place, filled, abstract_state.opt_state)
  )


def read_for(
  model: objective.Objective,
  partitioner: partitioning.Partitioner,
  source: Detected,
  dtype: str = 'float32',
) -> Any:
  """Parameters of a checkpoint for a model, sharded over the partitioner's mesh, all finite.

  Args:
    model, partitioner: what reads them.
    source: where they are.
    dtype: of the floating point ones in memory, 'float32' or 'bfloat16'; quantised ones, and those
      beside an adapter, are cast when they are read.

  Raises:
    ValueError: another network or vocabulary; a damaged checkpoint; or one with NaN or infinity,
      whose first array is named (`finiteness.NonFiniteError`).
  """
  abstract, axes = objective.parameter_axes(model)
  check(source, abstract, model)
  if model.adapter is not None:
    return parameter_tree.cast(_read_adapted(model, partitioner, source), dtype)
  shardings = partitioner.shardings(axes, abstract)
  abstract = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(
      x.shape, dtype if x.dtype == jnp.float32 else x.dtype, sharding=s
    ),
    abstract,
    shardings,
  )
  if model.config is None or model.is_whole:
    params = read(source, abstract, model.config)[0]
  else:
    params = read_parts(source, abstract, model)
    restoration.check_same_shapes(params, abstract, f'checkpoint {source.path}', 'the model')
  finiteness.check(
    params,
    f'the checkpoint {source.path}',
    'Its answers and figures would mean nothing: take another',
  )
  return params


# Models with an adapter ---------------------------------------------------------------------------


def read_frozen(source: Detected, abstract: Any, config: t5_config.T5Config) -> Any:
  """The weights under an adapter, each laid out, and quantised, as `abstract` says.

  Args:
    source: those weights, or an adapter on them.
    abstract: of `objective.frozen`.
    config: the network.

  Raises:
    ValueError: another architecture, with names and shapes; or a damaged checkpoint.
  """
  have = _opened(base_of(source), network.parameter_axes(config)[0], config)[0]
  return traverse_util.unflatten_dict(
    {
      name: quantised_leaves.place(have[name], leaf, config.param_scan_axis)
      for name, leaf in traverse_util.flatten_dict(abstract, sep='/').items()
    },
    sep='/',
  )


def read_adapter(
  source: Detected, abstract: Any, model: objective.Objective, rng: jax.Array
) -> Any:
  """A network's adapter: what `source` holds of one, the rest at random with zeros for each `b`.

  Args:
    source: an adapter, or weights without one.
    abstract: of `objective.trained`.
    model: whose network has an adapter.
    rng: decides what is drawn.

  Raises:
    ValueError: an adapter that the network's cannot hold; or a damaged one.
  """
  flat = traverse_util.flatten_dict(abstract, sep='/')
  axis = model.config.param_scan_axis if model.config.scan_layers else 1
  drawn: dict[str, Any] = {
    name: lora.initial_matrix(name, leaf.shape, axis, rng) for name, leaf in flat.items()
  }
  if source.is_adapter:
    drawn = adapters.for_network(open_adapter(source), drawn, model.adapter, model.config)
  placed = {
    name: restoration.place(lazy_arrays.of(np.asarray(x)), flat[name]) for name, x in drawn.items()
  }
  return traverse_util.unflatten_dict(placed, sep='/')


def _read_adapted(
  model: objective.Objective, partitioner: partitioning.Partitioner, source: Detected
) -> Any:
  abstract, axes = objective.parameter_axes(model)
  abstract = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    abstract,
    partitioner.shardings(axes, abstract),
  )
  frozen = read_frozen(source, objective.frozen(model, abstract), model.config)
  rng = jax.random.key(0)
  adapter = read_adapter(source, objective.trained(model, abstract), model, rng)
  params = parameter_tree.merged(adapter, frozen)
  finiteness.check(
    params,
    f'the checkpoint {source.path}',
    'Its answers and figures would mean nothing: take another',
  )
  return params

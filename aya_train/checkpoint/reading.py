"""Parameters of a checkpoint for a model: checked against it, then read.

They come in the model's own layout and sharding, each device reading its own slices.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import traverse_util

from aya_train import finiteness, parameter_tree, partitioning, train_state
from aya_train.checkpoint import (
  adapters,
  contents,
  formats,
  manager,
  native,
  optax_state,
  quantised_leaves,
  restoration,
  vocabularies,
)
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.checkpoint.t5x import t5x_settings
from aya_train.models import lora, network, t5_config
from aya_train.objectives import objective

if TYPE_CHECKING:
  import seqio


def check(source: formats.Detected, abstract_params: Any, model: objective.Objective) -> int:
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
    _check_adapter(source, formats.open_adapter(source), model.adapter)
  step = _opened(source, abstract_params, model.config)[1].step
  check_vocabulary(source, model.output_vocabulary)
  return step


def _check_adapter(
  source: formats.Detected, adapter: adapters.Adapter, wanted: lora.LoraConfig | None
) -> None:
  """Whether a model has room for an adapter beside its weights; None merges it into them."""
  if wanted is not None:
    adapters.check_room(adapter, wanted)
    if adapter.kept:
      adapters.check_kept(adapter, formats.open_checkpoint(formats.base_of(source, adapter)))
  adapters.tell_weights(adapter, 'float' if wanted is None else wanted.base_weights)


def _check_own_kind(source: formats.Detected, model: objective.Objective) -> int:
  """`check` for parameters that are no T5 network's."""
  theirs: Any = 'a T5 network'
  if source.format is formats.Format.NATIVE:
    metadata = manager.read_metadata(source.path)
    theirs = metadata['architecture']
    if theirs == model.metadata()['architecture']:
      return metadata['step']
  raise ValueError(
    f'{source.path} holds {theirs}, and the objective is {model.metadata()["architecture"]}: give '
    'a native checkpoint of the same objective, or INITIAL_CHECKPOINT_PATH = None'
  )


def _opened(
  source: formats.Detected, abstract_params: Any, config: t5_config.T5Config
) -> tuple[lazy_arrays.Arrays, contents.Checkpoint]:
  checkpoint = formats.open_checkpoint(source)
  checkpoint = contents.with_relpos(checkpoint, per_layer=config.relpos_bias_per_layer)
  have = checkpoint.in_layout(config)
  restoration.check_same_shapes(
    traverse_util.unflatten_dict(dict(have), sep='/'),
    abstract_params,
    f'checkpoint {source.path}',
    'the model',
  )
  says = (formats.Format.HF, formats.Format.NATIVE, formats.Format.ADAPTER, formats.Format.PEFT)
  if source.format in says or t5x_settings.tells_function(source.path):
    _check_function(checkpoint, config)
  return have, checkpoint


def _opened_parts(
  source: formats.Detected, abstract_params: Any, model: objective.Objective
) -> lazy_arrays.Arrays:
  """Arrays by the model's names: its share of a T5 network, and of its own parts those there are.

  Raises:
    ValueError: another network; parts of its own that have other shapes, or that the model lacks.
  """
  own: lazy_arrays.Arrays = {}
  if source.format is formats.Format.NATIVE and native.is_encoder(source.path):
    checkpoint, own = native.open_encoder(source.path)
  else:
    checkpoint = formats.open_checkpoint(source)
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
  if source.format in (formats.Format.HF, formats.Format.NATIVE) or t5x_settings.tells_function(
    source.path
  ):
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


def check_vocabulary(source: formats.Detected, vocabulary: 'seqio.Vocabulary') -> None:
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


def stored_vocabulary(source: formats.Detected) -> vocabularies.Stored:
  """What a checkpoint says of its vocabulary; nothing, if T5X itself wrote it."""
  if source.is_adapter:
    adapter = formats.open_adapter(source)
    if adapter.vocabulary is not None:
      return vocabularies.Stored(adapter.vocabulary, adapter.vocabulary_file)
    return stored_vocabulary(formats.base_of(source, adapter))
  if source.format is formats.Format.HF:
    return vocabularies.of_hf(source.path)
  if source.format is formats.Format.NATIVE:
    metadata = native.read_description(source.path, encoder_alone=True)[1]
    return vocabularies.Stored(metadata['vocabulary'], metadata['vocabulary_file'])
  if source.format is formats.Format.T5X:
    return vocabularies.Stored(file=t5x_settings.vocabulary_file(source.path))
  return vocabularies.Stored()


def read(
  source: formats.Detected, abstract_params: Any, config: t5_config.T5Config | None
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
  if source.format is formats.Format.NATIVE:
    theirs, metadata = native.read_description(source.path)
    if contents.same_layout(theirs, config):
      return manager.read_params(source.path, abstract_params), metadata['step']
  wanted = traverse_util.flatten_dict(abstract_params, sep='/')
  have, checkpoint = _opened(source, abstract_params, config)
  params = {name: restoration.place(have[name], leaf) for name, leaf in wanted.items()}
  return traverse_util.unflatten_dict(params, sep='/'), checkpoint.step


def read_parts(source: formats.Detected, abstract_params: Any, model: objective.Objective) -> Any:
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
  source: formats.Detected,
  abstract_state: train_state.TrainState,
  config: t5_config.T5Config | None,
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
  if config is None or source.format is formats.Format.HF:
    return None
  checkpoint = formats.open_checkpoint(source)
  filled = optax_state.fill(abstract_state.opt_state, abstract_state.params, checkpoint, config)
  return (
    None if filled is None else jax.tree.map(restoration.place, filled, abstract_state.opt_state)
  )


def read_for(
  model: objective.Objective,
  partitioner: partitioning.Partitioner,
  source: formats.Detected,
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


def read_frozen(source: formats.Detected, abstract: Any, config: t5_config.T5Config) -> Any:
  """The weights under an adapter, each laid out, and quantised, as `abstract` says.

  Args:
    source: those weights, or an adapter on them.
    abstract: of `objective.frozen`.
    config: the network.

  Raises:
    ValueError: another architecture, with names and shapes; or a damaged checkpoint.
  """
  have = _opened(formats.base_of(source), network.parameter_axes(config)[0], config)[0]
  return traverse_util.unflatten_dict(
    {
      name: quantised_leaves.place(have[name], leaf, config.param_scan_axis)
      for name, leaf in traverse_util.flatten_dict(abstract, sep='/').items()
    },
    sep='/',
  )


def read_adapter(
  source: formats.Detected, abstract: Any, model: objective.Objective, rng: jax.Array
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
    drawn = adapters.for_network(formats.open_adapter(source), drawn, model.adapter, model.config)
  placed = {
    name: restoration.place(lazy_arrays.of(np.asarray(x)), flat[name]) for name, x in drawn.items()
  }
  return traverse_util.unflatten_dict(placed, sep='/')


def _read_adapted(
  model: objective.Objective, partitioner: partitioning.Partitioner, source: formats.Detected
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

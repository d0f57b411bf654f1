"""What a checkpoint of any format holds, and its parameters in the layout of another network."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from aya_train.checkpoint import adafactor_moments, layouts, model_settings
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.models import t5_config

RELPOS = 'relpos_bias/rel_embedding'


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A checkpoint of any format, opened: nothing but its index has been read.

  Attributes:
    where: for messages.
    config: the network; `config.scan_layers` says which layout `params` have.
    params: whole name to array.
    step: updates done, 0 if unknown.
    moments: Adafactor's state (see `adafactor_moments`), None where there is none to be had.
    vocabulary_file: the SentencePiece file that it names, or ''.
    settings: what else it says of its model.
    tokenizer_folder: the folder with the files of a tokenizer of transformers, or ''.
  """

  where: str
  config: t5_config.T5Config
  params: lazy_arrays.Arrays
  step: int = 0
  moments: lazy_arrays.Arrays | None = None
  vocabulary_file: str = ''
  settings: model_settings.ModelSettings = dataclasses.field(
    default_factory=model_settings.ModelSettings
  )
  tokenizer_folder: str = ''

  def in_layout(self, config: t5_config.T5Config) -> lazy_arrays.Arrays:
    """The parameters in the layout of another config; arrays keep their dtype. See `relayout`."""
    return relayout(self.params, self.config, config)


def relayout(
  params: lazy_arrays.Arrays, source: t5_config.T5Config, target: t5_config.T5Config
) -> lazy_arrays.Arrays:
  """Stacks or unstacks layers, and gives position biases to each stack or layer, as in `target`.

  Raises:
    ValueError: layers have different position biases where `target` has one table for a stack.
  """
  if same_layout(source, target):
    return params
  whole = any(name.startswith('decoder/') for name in params)
  if source.scan_layers:
    params = layouts.to_unrolled(params, layouts.table_of(source, whole), source.param_scan_axis)
  if source.relpos_bias_per_layer != target.relpos_bias_per_layer:
    params = _relpos(params, '', source, per_layer=target.relpos_bias_per_layer)
  if target.scan_layers:
    params = layouts.to_scanned(params, layouts.table_of(target, whole), target.param_scan_axis)
  return params


def same_layout(one: t5_config.T5Config, other: t5_config.T5Config) -> bool:
  """Whether two networks of the same architecture name and stack their parameters alike."""
  return (one.scan_layers, one.relpos_bias_per_layer) == (
    other.scan_layers,
    other.relpos_bias_per_layer,
  ) and (not one.scan_layers or one.param_scan_axis == other.param_scan_axis)


def with_relpos(checkpoint: Checkpoint, *, per_layer: bool) -> Checkpoint:
  """The same function with position biases of each layer, or of each stack; moments follow.

  A shared table is copied; tables that are all the same become one, with the moments of the first.

  Raises:
    ValueError: layers have different tables, and are to share one.
  """
  config = checkpoint.config
  if config.relpos_bias_per_layer == per_layer:
    return checkpoint
  target = dataclasses.replace(config, relpos_bias_per_layer=per_layer)
  moments = checkpoint.moments
  try:
    params = relayout(checkpoint.params, config, target)
  except ValueError as error:
    raise ValueError(f'{checkpoint.where}: {error}') from error
  for field in adafactor_moments.FIELDS if moments is not None else ():
    moments = _relpos(moments or {}, f'/{field}', config, per_layer=per_layer)
  return dataclasses.replace(checkpoint, config=target, params=params, moments=moments)


def _relpos(
  arrays: lazy_arrays.Arrays, suffix: str, config: t5_config.T5Config, *, per_layer: bool
) -> dict[str, lazy_arrays.LazyArray]:
  """`arrays`, by unrolled names with `suffix`, the tables of position biases copied or joined."""
  out = dict(arrays)
  for stack, depth in (
    ('encoder', config.num_encoder_layers),
    ('decoder', config.num_decoder_layers),
  ):
    shared = f'{stack}/{RELPOS}{suffix}'
    layers = [f'{stack}/layers_{i}/{RELPOS}{suffix}' for i in range(depth)]
    if not {shared, *layers} & {*out}:
      continue  # the encoder by itself
    if per_layer:
      table = out.pop(shared)
      out |= dict.fromkeys(layers, table)
      continue
    tables = [out.pop(name) for name in layers]
    if not suffix and not _all_equal(tables):
      raise ValueError(
        f'the {depth} layers of the {stack} have different relative position biases, as umT5 and '
        'all networks that scalable_t5 trains; T5 1.1, mT5 and Aya share one table in a stack. Set '
        'RELPOS_BIAS_PER_LAYER = True to run such a network'
      )
    out[shared] = tables[0]
  return out


def _all_equal(tables: Sequence[lazy_arrays.LazyArray]) -> bool:
  first = tables[0].read()
  return all(np.array_equal(table.read(), first) for table in tables[1:])


def relpos_are_equal(checkpoint: Checkpoint) -> bool:
  """Whether the layers of each stack share their position biases, or have copies of one table."""
  if not checkpoint.config.relpos_bias_per_layer:
    return True
  unrolled = dataclasses.replace(checkpoint.config, scan_layers=False)
  params = checkpoint.in_layout(unrolled)
  depths = {'encoder': unrolled.num_encoder_layers, 'decoder': unrolled.num_decoder_layers}
  return all(
    _all_equal([params[f'{stack}/layers_{i}/{RELPOS}'] for i in range(depth)])
    for stack, depth in depths.items()
  )

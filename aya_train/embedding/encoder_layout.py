"""The encoder's share of a T5 network, and its names in transformers."""

from aya_train.checkpoint import layouts, names
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.models import sentence_encoder, t5_config


def share(params: lazy_arrays.Arrays) -> dict[str, lazy_arrays.LazyArray]:
  """The encoder and the input table of a whole network's parameters, in any layout."""
  shared = sentence_encoder.SHARE
  return {name: lazy_arrays.of(x) for name, x in params.items() if name.startswith(shared)}


def from_hf(
  tensors: lazy_arrays.Arrays, config: t5_config.T5Config, where: str
) -> dict[str, lazy_arrays.LazyArray]:
  """Parameters in the unrolled layout of the state dict of an encoder, or of a whole model.

  Raises:
    ValueError: tensors of the encoder are missing, or there are too many.
  """
  tensors = {
    name: tensor
    for name, tensor in tensors.items()
    if name.startswith('encoder.') or name in (names.HF_TABLE, *names.HF_TABLE_ALIASES)
  }
  return layouts.from_hf(tensors, layouts.table_of(config, has_decoder=False), where)


def to_hf(
  params: lazy_arrays.Arrays, config: t5_config.T5Config
) -> dict[str, lazy_arrays.LazyArray]:
  """The inverse of `from_hf`, of either layout; the input table is `shared.weight`."""
  table = layouts.table_of(config, has_decoder=False)
  params = share(params)
  if config.scan_layers:
    params = layouts.to_unrolled(params, table, config.param_scan_axis)
  return layouts.to_hf(params, table)

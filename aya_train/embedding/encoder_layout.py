"""The encoder's share of a T5 network: which parameters it is, and their names elsewhere."""

from collections.abc import Iterator

from aya_train.checkpoint import layouts, names
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.models import t5_config

TABLE = 'token_embedder/embedding'
_OURS = ('token_embedder/', 'encoder/')


def share(params: lazy_arrays.Arrays) -> dict[str, lazy_arrays.LazyArray]:
  """The encoder and the input table of a whole network's parameters, in any layout."""
  return {name: array for name, array in params.items() if name.startswith(_OURS)}


def _parameters(config: t5_config.T5Config) -> Iterator[tuple[names.Rule, int | None]]:
  for rule, layer in layouts.table_of(config).parameters():
    if rule.unrolled.startswith(_OURS):
      yield rule, layer


def from_hf(
  tensors: lazy_arrays.Arrays, config: t5_config.T5Config, where: str
) -> dict[str, lazy_arrays.LazyArray]:
  """Parameters in the unrolled layout of the state dict of an encoder, or of a whole model.

  Raises:
    ValueError: tensors are missing.
  """
  held = names.hf_names(tensors, tied=False)
  wanted = {rule.name('hf', layer): (rule, layer) for rule, layer in _parameters(config)}
  if missing := sorted({*wanted} - {*held}):
    raise ValueError(f'{where}: {len(missing)} tensors of the encoder are missing: {missing[:5]}')
  return {
    rule.name('unrolled', layer): _turned(tensors[held[name]], rule)
    for name, (rule, layer) in wanted.items()
  }


def to_hf(
  params: lazy_arrays.Arrays, config: t5_config.T5Config
) -> dict[str, lazy_arrays.LazyArray]:
  """The inverse of `from_hf`, of either layout; the input table is `shared.weight`."""
  found = {}
  for rule, layer in _parameters(config):
    if config.scan_layers and layer is not None:
      array = lazy_arrays.take(lazy_arrays.of(params[rule.scanned]), config.param_scan_axis, layer)
    else:
      name = rule.scanned if config.scan_layers else rule.name('unrolled', layer)
      array = lazy_arrays.of(params[name])
    found[rule.name('hf', layer)] = _turned(array, rule)
  return found


def _turned(array: lazy_arrays.LazyArray, rule: names.Rule) -> lazy_arrays.LazyArray:
  return lazy_arrays.transpose(array) if rule.transposed else array

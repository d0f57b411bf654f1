"""The mean of several checkpoints of one network, array by array (Wortsman et al. 2022).

Runs from one start, or steps of one run, are averaged; of others the mean is no model.
"""

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from aya_train.checkpoint import contents, formats, manager, native, reading, restoration
from aya_train.checkpoint.arrays import blocks, lazy_arrays

logger = logging.getLogger(__name__)


def checked_weights(weights: Sequence[float] | None, count: int) -> list[float]:
  """Weights that add up to 1; by default all the same.

  Raises:
    ValueError: another number of them than checkpoints, or one that is no share.
  """
  if weights is None:
    return [1.0 / count] * count
  if len(weights) != count or any(not math.isfinite(w) or w < 0 for w in weights):
    raise ValueError(
      f'--average_weights: expected a weight, not negative, for each of the {count} checkpoints '
      f'(SRC first), got {list(weights)}'
    )
  if not (total := sum(weights)) > 0:
    raise ValueError(f'--average_weights: all are 0: {list(weights)}')
  return [weight / total for weight in weights]


def mean(
  first: contents.Checkpoint, others: Sequence[contents.Checkpoint], weights: Sequence[float]
) -> contents.Checkpoint:
  """The mean of opened checkpoints, float32, in the layout of the first; nothing is read yet.

  Settings, vocabulary and step are the first one's; there is no optimizer state.

  Raises:
    ValueError: another network; both shapes are shown. Answers that start or end otherwise.
  """
  config = first.config
  found = [first.params]
  for other in others:
    other = contents.with_relpos(other, per_layer=config.relpos_bias_per_layer)
    layout = dataclasses.replace(
      other.config, scan_layers=config.scan_layers, param_scan_axis=config.param_scan_axis
    )
    params = other.in_layout(layout)
    restoration.check_same_shapes(params, first.params, f'checkpoint {other.where}', first.where)
    _check_same_network(first, other)
    _check_settings(_settings(other), _settings(first), other.where, first.where)
    found.append(params)
  return dataclasses.replace(
    first,
    where=f'the mean of {len(found)} checkpoints',
    params=mean_arrays(found, weights),
    moments=None,
  )


def _check_same_network(first: contents.Checkpoint, other: contents.Checkpoint) -> None:
  """Refuses what shapes of arrays do not show."""
  theirs, mine = other.config.architecture(), first.config.architecture()
  for name in ('mlp_activations', 'relative_attention_max_distance'):
    if theirs[name] != mine[name]:
      raise ValueError(
        f'{other.where} has {name} {theirs[name]!r} and {first.where} {mine[name]!r}: their mean '
        'is no model'
      )


# A model is used with them as it was trained with them, so that other ones make it another model.
_DECISIVE = ('decoder_start_id', 'eos_ids', 'prompts')


def _settings(checkpoint: contents.Checkpoint) -> dict[str, Any]:
  said = checkpoint.settings
  return {
    'decoder_start_id': said.decoder_start_id,
    'eos_ids': said.eos_ids,
    'dropout_rate': checkpoint.config.dropout_rate,
    **said.config,
    **said.generation,
  }


def _encoder_settings(path: epath.Path) -> dict[str, Any]:
  metadata = manager.read_metadata(path)
  said = {name: metadata.get(name) for name in ('task_feature_lengths', 'dropout_rate')}
  return {**said, **metadata['embedding']}


def _check_settings(
  theirs: Mapping[str, Any], mine: Mapping[str, Any], other: str, first: str
) -> None:
  """Refuses settings of which there is no mean, and tells of those that the first one decides.

  Raises:
    ValueError: naming what differs of `_DECISIVE`.
  """
  differ = {
    name: f'{name} {theirs.get(name)!r} and {mine.get(name)!r}'
    for name in {**mine, **theirs}
    if theirs.get(name) != mine.get(name)
  }
  if decisive := [said for name, said in differ.items() if name in _DECISIVE]:
    raise ValueError(
      f'{other} and {first} have {", ".join(decisive)}: their mean would be used in a way that '
      'one of them was not trained for. Average models that were trained alike'
    )
  if differ:
    logger.warning(
      '%s and %s have %s: the mean keeps the latter', other, first, ', '.join(differ.values())
    )


def mean_arrays(
  trees: Sequence[lazy_arrays.Arrays], weights: Sequence[float]
) -> dict[str, lazy_arrays.LazyArray]:
  """Weighted sums of arrays of the same names and shapes, float32, computed as they are read."""
  return {name: _mean([tree[name] for tree in trees], weights) for name in trees[0]}


def _mean(
  arrays: Sequence[lazy_arrays.LazyArray], weights: Sequence[float]
) -> lazy_arrays.LazyArray:
  def get(index: blocks.Index) -> np.ndarray:
    total = np.zeros([i.stop - i.start for i in index], np.float64)
    for array, weight in zip(arrays, weights, strict=True):
      total += weight * array.get(index).astype(np.float64)
    return total.astype(np.float32)

  return lazy_arrays.LazyArray(arrays[0].shape, np.dtype(np.float32), get, arrays[0].chunks)


def check_vocabularies(sources: Sequence[formats.Detected]) -> None:
  """Refuses checkpoints of different vocabularies, as far as they say theirs.

  Raises:
    ValueError: naming two of them.
  """
  said = {s.path: reading.stored_vocabulary(s).fingerprint for s in sources}
  known = {path: print_ for path, print_ in said.items() if print_ is not None}
  if len({*known.values()}) > 1:
    (one, first), *rest = known.items()
    other = next(path for path, print_ in rest if print_ != first)
    raise ValueError(f'{one} and {other} have different vocabularies: their mean is no model')


def are_encoders(sources: Sequence[formats.Detected]) -> bool:
  """Whether the checkpoints are of runs of sentence encoders.

  Raises:
    ValueError: some are, and some are not.
  """
  found = {s.path: s.format is formats.Format.NATIVE and native.is_encoder(s.path) for s in sources}
  if len({*found.values()}) > 1:
    raise ValueError(
      f'{[str(p) for p, is_one in found.items() if is_one]} are sentence encoders and '
      f'{[str(p) for p, is_one in found.items() if not is_one]} are not: their mean is no model'
    )
  return all(found.values())


def mean_encoders(
  sources: Sequence[formats.Detected], weights: Sequence[float]
) -> dict[str, lazy_arrays.LazyArray]:
  """The mean of sentence encoders, their own parts too.

  Raises:
    ValueError: different networks, projections or prompts, or layers that are stacked in some of
      them.
  """
  opened = [native.open_encoder(source.path) for source in sources]
  trees = [{**checkpoint.params, **own} for checkpoint, own in opened]
  for source, (checkpoint, _), arrays in zip(sources[1:], opened[1:], trees[1:], strict=True):
    _check_same_network(opened[0][0], checkpoint)
    mine, theirs = (_encoder_settings(path) for path in (sources[0].path, source.path))
    _check_settings(theirs, mine, str(source.path), str(sources[0].path))
    restoration.check_same_shapes(arrays, trees[0], f'checkpoint {source.path}', 'the first one')
  return mean_arrays(trees, weights)

"""Low-rank adapters apart from the weights under them: opened, merged, and laid out for a network.

An adapter is opened as pairs of matrices by the unrolled name of the kernel that they stand beside,
whatever format it has. A run's checkpoints hold the pairs alone as `params`, and say in `metadata`
which base they belong to.
"""

import dataclasses
import logging
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from aya_train.checkpoint import contents, layouts, manager, soundness
from aya_train.checkpoint.arrays import blocks, lazy_arrays
from aya_train.models import lora, t5_config

logger = logging.getLogger(__name__)
ADAPTER, BASE = 'adapter', 'base'  # keys of a run's metadata
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Pair:
  """What is added to a kernel [in, out]: scale * a @ b.

  Attributes:
    a, b: [in, rank] and [rank, out].
    scale: of the product.
  """

  a: lazy_arrays.LazyArray
  b: lazy_arrays.LazyArray
  scale: float

  @property
  def rank(self) -> int:
    return self.a.shape[1]


@dataclasses.dataclass(frozen=True)
class Adapter:
  """An adapter, opened: nothing but its index has been read.

  Attributes:
    where: for messages.
    pairs: by the unrolled name of each kernel, such as 'encoder/layers_0/attention/query/kernel'.
    base_path: where the weights under it lay, '' where it does not say.
    base_identity: their `checkpoint_identity`, '' where it does not say.
    step: updates done, those of the base included; 0 if unknown.
    max_new_tokens: length of the answers that it was trained on, None if unknown.
    kept: whole parameters by unrolled name that it holds too: PEFT stores an output head with its
      adapter, as it may have been resized.
    rank_stabilised: whether its scale is alpha / sqrt(rank), for who writes it down again.
    vocabulary_file, vocabulary: SentencePiece file and fingerprint, '' and None if unknown.
    quantised_to: kind of the weights that it was trained on, 'int8' or 'nf4'; '' where they were
      float, or it does not say.
  """

  where: str
  pairs: Mapping[str, Pair]
  base_path: str
  base_identity: str = ''
  step: int = 0
  max_new_tokens: int | None = None
  kept: lazy_arrays.Arrays = dataclasses.field(default_factory=dict)
  rank_stabilised: bool = False
  vocabulary_file: str = ''
  vocabulary: str | None = None
  quantised_to: str = ''


def is_there(step_folder: epath.Path) -> bool:
  """Whether a step folder of a run holds an adapter alone."""
  try:
    return ADAPTER in soundness.read_json(step_folder, 'metadata')
  except (OSError, ValueError):
    return False  # whoever opens it as a whole says what is damaged


def open_step(path: epath.Path) -> Adapter:
  """Opens a step of a run that trained an adapter.

  Raises:
    ValueError, FileNotFoundError: it is damaged.
  """
  metadata = manager.read_metadata(path)
  try:
    config = t5_config.T5Config(**metadata['architecture'])
    said = {key: metadata[ADAPTER][key] for key in ('rank', 'alpha', 'rank_stabilised', 'modules')}
    settings = lora.LoraConfig(**said)
    base = metadata[BASE]
    kind = metadata[ADAPTER].get('base_weights')
    base_path, identity, step = str(base['path']), str(base['identity']), int(metadata['step'])
    length = (metadata.get('task_feature_lengths') or {}).get('targets')
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f'{path}/metadata is not what was written for an adapter ({error!r}). Copy the checkpoint '
      'again from its source'
    ) from error
  soundness.check_items(path, ['params'])
  params = soundness.open_tree(path, 'params', soundness.read(path))
  return Adapter(
    where=str(path),
    pairs=_pairs(params, config, settings.scale),
    base_path=base_path,
    base_identity=identity,
    step=step,
    max_new_tokens=length,
    rank_stabilised=settings.rank_stabilised,
    vocabulary_file=metadata.get('vocabulary_file') or '',
    vocabulary=metadata.get('vocabulary'),
    quantised_to=kind if kind in lora.QUANTISED else '',
  )


def _pairs(params: lazy_arrays.Arrays, config: t5_config.T5Config, scale: float) -> dict[str, Pair]:
  """Pairs by unrolled names, of arrays in the layout of `config`."""
  found = {}
  depths = {'encoder': config.num_encoder_layers, 'decoder': config.num_decoder_layers}
  for name, a in params.items():
    if not name.endswith(lora.SUFFIX_A):
      continue
    kernel = name.removesuffix(lora.SUFFIX_A)
    b = params[kernel + lora.SUFFIX_B]
    stack, _, rest = kernel.partition('/')
    if len(a.shape) == 2:
      found[kernel] = Pair(a, b, scale)
      continue
    for layer in range(depths[stack]):
      of_layer, other = (lazy_arrays.take(x, config.param_scan_axis, layer) for x in (a, b))
      found[f'{stack}/layers_{layer}/{rest.partition("/")[2]}'] = Pair(of_layer, other, scale)
  return found


# Merging ------------------------------------------------------------------------------------------


def merged(base: contents.Checkpoint, adapter: Adapter) -> contents.Checkpoint:
  """The base with the adapter in its kernels, unrolled; sums are made where they are read.

  Kernels with an adapter become float32, whatever the base holds.

  Raises:
    ValueError: the adapter does not fit the base.
  """
  config = dataclasses.replace(base.config, scan_layers=False)
  check_fits(adapter, config, base.where)
  params = {**base.in_layout(config), **adapter.kept}
  for name, pair in adapter.pairs.items():
    params[name] = _sum(params[name], pair)
  settings = base.settings
  if adapter.max_new_tokens is not None:
    settings = settings.with_length(adapter.max_new_tokens)
  return dataclasses.replace(
    base,
    where=adapter.where,
    config=config,
    params=params,
    step=adapter.step or base.step,
    moments=None,
    vocabulary_file=base.vocabulary_file or adapter.vocabulary_file,
    settings=settings,
  )


def tell_weights(adapter: Adapter, kind: str = 'float') -> None:
  """Says of an adapter that it was trained on other weights than those that it is put on.

  Args:
    adapter: nothing is said where it was trained on float weights, or does not say.
    kind: of the weights that it is put on.
  """
  if adapter.quantised_to not in ('', kind):
    logger.warning(
      'the adapter in %s was trained on %s weights and is put on %s ones, so its answers may be '
      'others than in training (docs/lora.md says how many)',
      adapter.where,
      adapter.quantised_to,
      kind,
    )


def _sum(kernel: lazy_arrays.LazyArray, pair: Pair) -> lazy_arrays.LazyArray:
  def get(index: blocks.Index) -> np.ndarray:
    rows, columns = index
    a = np.asarray(pair.a[rows, :], np.float32)
    b = np.asarray(pair.b[:, columns], np.float32)
    return kernel.get(index).astype(np.float32) + np.float32(pair.scale) * (a @ b)

  return dataclasses.replace(kernel, dtype=np.dtype(np.float32), get=get)


def check_fits(adapter: Adapter, config: t5_config.T5Config, base: str) -> None:
  """Refuses an adapter of another network.

  Raises:
    ValueError: with up to five kernels that are missing or of another shape.
  """
  shapes = layouts.expected_shapes(dataclasses.replace(config, scan_layers=False))
  resized = [
    f'{name} {array.shape} there, {shapes.get(name, "missing")} here'
    for name, array in adapter.kept.items()
    if shapes.get(name) != array.shape
  ]
  wrong = [
    f'{name} {(pair.a.shape[0], pair.b.shape[1])} there, {shapes.get(name, "missing")} here'
    for name, pair in adapter.pairs.items()
    if shapes.get(name) != (pair.a.shape[0], pair.b.shape[1]) or pair.b.shape[0] != pair.rank
  ]
  if wrong := wrong + resized:
    raise ValueError(
      f'the adapter in {adapter.where} is of another network than {base}: {len(wrong)} of '
      f'{len(adapter.pairs)} kernels differ: {"; ".join(sorted(wrong)[:_SHOWN])}'
    )


# For a network with an adapter --------------------------------------------------------------------


def check_room(adapter: Adapter, wanted: lora.LoraConfig) -> None:
  """Refuses an adapter that a network's own adapter cannot hold.

  Raises:
    ValueError: a larger rank, or other modules.
  """
  rank = max((pair.rank for pair in adapter.pairs.values()), default=0)
  ours = {lora.MODULES[name] for name in wanted.modules}
  theirs = {name.split('/')[-2] for name in adapter.pairs}
  if rank > wanted.rank or theirs - ours:
    known = {module: name for name, module in lora.MODULES.items()}
    raise ValueError(
      f'the adapter in {adapter.where} has rank {rank} on {sorted(known[m] for m in theirs)}, and '
      f'this run one of rank {wanted.rank} on {sorted(wanted.modules)}: bind LORA_RANK and '
      'LORA_MODULES to hold it'
    )


def check_kept(adapter: Adapter, base: contents.Checkpoint) -> None:
  """Refuses an adapter that brings other weights than its base has, where these are not merged.

  Raises:
    ValueError: the first that differs.
  """
  params = base.in_layout(dataclasses.replace(base.config, scan_layers=False))
  for name, array in adapter.kept.items():
    mine = lazy_arrays.cast(params[name], np.float32)
    if lazy_arrays.first_difference(name, mine, lazy_arrays.cast(array, np.float32)):
      raise ValueError(
        f'{adapter.where} brings a {name} of its own, other than that of {base.where}: merge it '
        'first, with aya-train convert, and train on the result'
      )


def for_network(
  adapter: Adapter, drawn: Mapping[str, Any], wanted: lora.LoraConfig, config: t5_config.T5Config
) -> dict[str, np.ndarray]:
  """The arrays of a network's adapter that compute what `adapter` does.

  Ranks and scales may differ: what is left over of the rank keeps the `a` that was drawn for it,
  and zeros for `b`, so that it can be trained.

  Args:
    adapter: opened.
    drawn: an initial adapter of the network, by whole name in its layout.
    wanted: the network's adapter.
    config: its layout.

  Raises:
    ValueError: see `check_room`.
  """
  check_room(adapter, wanted)
  out = {name: np.array(x, np.float32) for name, x in drawn.items()}
  layers = layouts.table_of(dataclasses.replace(config, scan_layers=False))
  for name, pair in adapter.pairs.items():
    rule, layer = layers.match(name, 'unrolled')
    kernel = rule.scanned if config.scan_layers else name
    stacked = config.scan_layers and layer is not None
    place: tuple[Any, ...] = (slice(None), slice(None))
    if stacked:
      place = (*place[: config.param_scan_axis], layer, *place[config.param_scan_axis :])
    a, b = out[kernel + lora.SUFFIX_A][place], out[kernel + lora.SUFFIX_B][place]
    a[:, : pair.rank] = pair.a.read()
    b[: pair.rank] = pair.b.read().astype(np.float32) * np.float32(pair.scale / wanted.scale)
  return out


def depths(adapter: Adapter) -> dict[str, int]:
  """The layers of each stack, as far as the adapter itself tells."""
  found = {'encoder': 0, 'decoder': 0}
  for name in adapter.pairs:
    if matched := re.match(r'(encoder|decoder)/layers_(\d+)/', name):
      found[matched[1]] = max(found[matched[1]], int(matched[2]) + 1)
  return found

"""What the trainer knows of an objective: parameters, data, sums of a batch, figures for people.

The loop, the step, `precompile` and the readers of data use this and nothing else, so a new
objective is a class of its own and no copy of the loop. `seq2seq.EncoderDecoderModel` is the one of
supervised fine-tuning.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aya_train import parameter_tree
from aya_train.data import feature_converters

Array = jax.Array
Batch = Mapping[str, Array]
Sums = dict[str, Array]
OF_STEPS = ('loss', 'grad_norm', 'learning_rate')
"""Sums that every step has: their means over steps are logged."""


@dataclasses.dataclass(frozen=True)
class RowTokens:
  """Tokens of a row on both sides of a T5 network, padding included.

  Attributes:
    encoded: of each text that the encoder reads by itself.
    decoded: of each text that the decoder reads by itself, with all that is encoded.
    scored: that logits over the whole vocabulary are computed of.
  """

  encoded: tuple[int, ...]
  decoded: tuple[int, ...] = ()
  scored: int = 0

  @property
  def total(self) -> int:
    return sum(self.encoded) + sum(self.decoded)


class Objective(abc.ABC):
  """A loss over batches of N named features, and the parameters that it trains.

  `initial_variables` and `sums` must be given; what else there is has a default. An object must not
  change: compiled steps close over it.

  Attributes:
    feature_converter: which features of a prepared record are read, and the arrays made of them.
    config: the T5Config whose weights T5X and Hugging Face checkpoints hold; None if `params` are
      of another kind, which only native checkpoints hold.
    is_whole: whether `params` are all of the network of `config`, and nothing besides; else
      `is_shared` tells those that are.
    output_vocabulary: the SeqIO vocabulary that checkpoints are held against; None for any.
    activation_dtype: what sharded parameters are gathered in, where a layer needs the whole.
    adapter: the LoraConfig of an adapter that alone is trained, None where there is none.
  """

  feature_converter: feature_converters.FeatureConverter
  config: Any = None
  is_whole: bool = True
  output_vocabulary: Any = None
  activation_dtype: Any = jnp.float32
  adapter: Any = None

  # Parameters

  @abc.abstractmethod
  def initial_variables(self, rng: Array) -> Any:
    """Random float32 parameters, boxed with logical axes (flax.linen.LogicallyPartitioned)."""

  def is_shared(self, name: str) -> bool:
    """Whether a parameter is one of `config`'s network, which T5 checkpoints hold.

    Args:
      name: the path of the parameter, joined by '/'.

    Returns:
      True, by default for all. Asked where `is_whole` is False: then a checkpoint's other
      parameters are not looked at, and those that it does not hold begin at random.
    """
    del name
    return True

  def is_trained(self, name: str) -> bool:
    """Whether parameters of a (last) name are trained and saved; the others stay as they are."""
    del name
    return True

  def check_vocabulary(self) -> None:
    """Refuses, with a ValueError, a vocabulary that does not fit; by default none is looked at."""
    return

  def check(self, platform: str) -> None:
    """Refuses settings that do not fit together, before anything long begins.

    Args:
      platform: JAX's name of the devices.

    Raises:
      ValueError: what was expected and what was got.
    """
    del platform
    self.check_vocabulary()

  def check_batch(self, batch_size: int, lengths: Mapping[str, int]) -> None:
    """Refuses, with a ValueError, a batch that nothing is learnt from; by default none.

    Args:
      batch_size: rows of the batch, over all hosts.
      lengths: of a row, by task feature.
    """
    del batch_size, lengths

  def row_tokens(self, lengths: Mapping[str, int]) -> RowTokens | None:
    """What T5's network computes of a row in a step, which says its FLOPs and what layers save.

    What is computed without a gradient, such as log-likelihoods of a reference, is not counted.

    Args:
      lengths: of a row, by task feature.

    Returns:
      None, by default, where that is not known: then `precompile` tells no times and `plan`
      searches nothing. Needs `config`.
    """
    del lengths
    return None

  def on_network(self, config: Any) -> 'Objective':
    """The same objective with another T5Config of the same parameters, such as other remat.

    Asked for where `row_tokens` gives what is computed.
    """
    raise NotImplementedError(f'{type(self).__name__} gives row_tokens and no on_network')

  def metadata(self) -> dict[str, Any]:
    """What makes a checkpoint usable by another program, as JSON; a run refuses another one's.

    `architecture`, `vocabulary` and `vocabulary_file` have a meaning for `run_dir.check`.
    """
    return {'architecture': {'objective': type(self).__name__}}

  # The loss

  def draw(self, params: Any, batch: Batch, key: Callable[[], Array], partitioner: Any) -> Batch:
    """What a batch gets from the model before a step, outside of the compiled one.

    Such as answers of the model to prompts, and what people, servers or other models say of them.
    By default the batch is all.

    Args:
      params: parameters before the step.
      batch: arrays [B, ...] of the feature converter, sharded over all hosts.
      key: gives the random key of the step, on every host the same.
      partitioner: the run's.

    Returns:
      The arrays that `weigh` gets; `abstract_drawn` says their shapes.
    """
    del params, key, partitioner
    return batch

  def abstract_drawn(
    self, batch: Mapping[str, jax.ShapeDtypeStruct]
  ) -> Mapping[str, jax.ShapeDtypeStruct]:
    """Shapes of what `draw` gives, of a batch as the feature converter gives it."""
    return batch

  def weigh(self, batch: Batch) -> tuple[Batch, Array]:
    """Prepares a whole batch, before it is cut into microbatches.

    Returns:
      The batch, and the denominator of its loss, float32 []; by default the examples in it. Both
      are of all parts together, so that N parts give the gradient of one.
    """
    return batch, jnp.sum(batch['example_weights'])

  def look_ahead(self, params: Any, parts: Batch, keys: Array | None) -> Batch:
    """What the loss of a row needs of other rows of the whole batch, computed before any gradient.

    Losses of rows that need each other (in-batch negatives, KTO's reference point) are computed
    here part by part, and what `sums` has to know of the whole is given to it as more arrays of the
    batch. No gradient flows through this; by default nothing is looked at.

    Args:
      params: parameters, as `sums` gets them.
      parts: arrays [N, B / N, ...] of what `weigh` returned, for N microbatches; 1 in evaluation.
        Row r of part n is row r * N + n of the batch.
      keys: [N], the dropout key that `sums` will get with each part; None in evaluation.

    Returns:
      Arrays [N, B / N, ...], from which `sums` gets its part.
    """
    del params, keys
    return parts

  @abc.abstractmethod
  def sums(
    self, params: Any, batch: Batch, denominator: Array, dropout_key: Array | None
  ) -> tuple[Array, Sums]:
    """The loss of a part of a batch, and what else is counted there.

    Args:
      params: parameters.
      batch: rows of what `weigh` and then `look_ahead` returned.
      denominator: that of the whole batch.
      dropout_key: None in evaluation.

    Returns:
      The part's share of the loss, divided by `denominator`, float32 []; and sums by name, float32
      [] each. All of them add up over microbatches, devices, hosts and steps.
    """

  # What people see

  def readable(self, batch: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """A batch as people read it, JSON for each row; by default its integers without the padding.

    Args:
      batch: arrays [B, ...] of the feature converter, with the rows of this host.
    """
    ids = {name: x for name, x in batch.items() if x.ndim == 2 and x.dtype.kind in 'iu'}
    size = len(next(iter(batch.values())))
    return [
      {name: np.trim_zeros(x[i], 'b').tolist() for name, x in ids.items()} for i in range(size)
    ]

  def train_summary(self, sums: Mapping[str, Any], seconds: float) -> dict[str, float]:
    """Figures of some training steps.

    Args:
      sums: of `train_step.train_step`, added over the steps: those of `sums`, OF_STEPS and `steps`.
      seconds: that they took.
    """
    s = {name: float(value) for name, value in sums.items()}
    return {
      **{name: s[name] / s['steps'] for name in OF_STEPS},
      **self._per_step(s),
      'steps_per_second': s['steps'] / seconds,
    }

  def eval_summary(self, sums: Mapping[str, Any]) -> dict[str, float]:
    """Figures of a whole evaluation.

    Args:
      sums: of `train_step.eval_step`, added over the batches: those of `sums` with a denominator of
        1, `loss`, `denominator` and `steps`.
    """
    s = {name: float(value) for name, value in sums.items()}
    return {'loss': s['loss'] / max(s['denominator'], 1e-30), **self._per_step(s)}

  def _per_step(self, s: Mapping[str, float]) -> dict[str, float]:
    ours = {*OF_STEPS, 'steps', 'denominator'}
    return {name: value / s['steps'] for name, value in s.items() if name not in ours}

  def train_line(self, summary: Mapping[str, float]) -> str:
    """What the log says of `train_summary`."""
    return f'loss {summary["loss"]:.4f}  {summary["steps_per_second"]:.2f} steps/s'

  def eval_line(self, summary: Mapping[str, float]) -> str:
    """What the log says of `eval_summary`."""
    return f'loss {summary["loss"]:.4f}'


def check_fits(vocabulary: Any, num_embeddings: int, what: str) -> None:
  """Refuses a SeqIO vocabulary whose ids an embedding of T5 has no rows for.

  Args:
    vocabulary: SeqIO's.
    num_embeddings: rows.
    what: the vocabulary is called, such as 'input vocabulary'.

  Raises:
    ValueError: more ids than rows, or special ids other than pad 0 and eos 1.
  """
  if vocabulary.vocab_size > num_embeddings:
    raise ValueError(
      f'the {what} has {vocabulary.vocab_size} ids but the model has {num_embeddings} embedding '
      'rows: bind VOCABULARY_FILE to a smaller vocabulary or T5Config.vocab_size to at least '
      f'{-(-vocabulary.vocab_size // 128) * 128}'
    )
  if (vocabulary.pad_id, vocabulary.eos_id) != (0, 1):
    raise ValueError(
      f'the {what} has pad {vocabulary.pad_id} and eos {vocabulary.eos_id}; mT5 needs pad 0 and '
      'eos 1'
    )


def parameter_axes(objective: Objective) -> tuple[Any, Any]:
  """Abstract parameters and their logical axes, without allocating anything.

  Returns:
    A tree of jax.ShapeDtypeStruct and a tree of tuples of logical axis names.

  Raises:
    ValueError: parameters without logical axes, each named.
  """
  boxed = jax.eval_shape(lambda: objective.initial_variables(jax.random.key(0)))
  is_box = lambda x: isinstance(x, nn.LogicallyPartitioned)  # noqa: E731
  leaves = jax.tree_util.tree_leaves_with_path(boxed, is_leaf=is_box)
  if bare := [jax.tree_util.keystr(path) for path, leaf in leaves if not is_box(leaf)]:
    raise ValueError(
      f'{type(objective).__name__}.initial_variables gives parameters without logical axes: '
      f'{bare[:5]}. Wrap their initializers in flax.linen.with_logical_partitioning'
    )
  axes = jax.tree.map(
    lambda box: box.names, boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)
  )
  return nn.unbox(boxed), axes


def trained(objective: Objective, tree: Any) -> Any:
  """Of a tree like the parameters (arrays, shapes, axes) what is trained."""
  return parameter_tree.only(tree, objective.is_trained) if isinstance(tree, Mapping) else tree


def frozen(objective: Objective, tree: Any) -> Any:
  """Of a tree like the parameters what is not trained; {} where everything is."""
  if not isinstance(tree, Mapping):
    return {}
  return parameter_tree.only(tree, lambda name: not objective.is_trained(name))


def abstract_batch(
  objective: Objective, lengths: Mapping[str, int], batch_size: int, *, packed: bool
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of a batch as an objective's feature converter, and then its `draw`, give it.

  Args:
    objective: whose converter.
    lengths: of a row, by task feature.
    batch_size: rows.
    packed: whether rows are packed.
  """
  sizes = feature_converters.row_lengths(lengths, packed=packed)
  one_row = objective.feature_converter.convert(
    feature_converters.padded([], sizes, 1), packed=packed
  )
  shapes = {
    name: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype) for name, x in one_row.items()
  }
  return dict(objective.abstract_drawn(shapes))


def check_sums(objective: Objective, batch: Mapping[str, jax.ShapeDtypeStruct]) -> None:
  """Traces the loss of a batch, and refuses what the trainer could not add up.

  Args:
    objective: of which nothing is computed.
    batch: as `abstract_batch` gives it.

  Raises:
    ValueError: what `weigh` or `sums` raise on such a batch; a loss or a sum that is no floating
      point scalar; a sum with the name of one of the trainer's own.
  """
  name = type(objective).__name__

  def trace(params: Any, batch: Any, key: Array) -> Any:
    weighed, denominator = objective.weigh(batch)
    parts = jax.tree.map(lambda x: x[None], weighed)
    part = jax.tree.map(lambda x: x[0], objective.look_ahead(params, parts, key[None]))
    return objective.sums(params, part, denominator, key)

  try:
    loss, sums = jax.eval_shape(trace, parameter_axes(objective)[0], dict(batch), jax.random.key(0))
  except (KeyError, TypeError, AttributeError) as error:
    shapes = {feature: x.shape for feature, x in batch.items()}
    raise ValueError(
      f'the loss of {name} cannot be computed on a batch of {shapes}: '
      f'{type(error).__name__}: {str(error).splitlines()[0]}'
    ) from error
  wrong = {
    what: f'{x.dtype}{list(x.shape)}'
    for what, x in {'the loss': loss, **sums}.items()
    if x.shape or not jnp.issubdtype(x.dtype, jnp.floating)
  }
  if wrong:
    raise ValueError(f'{name}.sums must give float32 scalars, which add up over parts, got {wrong}')
  if taken := {*OF_STEPS, 'steps', 'denominator', 'nonfinite'} & {*sums}:
    raise ValueError(f'{name}.sums gives {sorted(taken)}: the trainer has sums of these names')

"""Vectors of sentences: the encoder alone, trained to tell which text belongs to which (GTR).

The softmax is over the whole batch of all hosts. In microbatches, `look_ahead` embeds every part
without a gradient, takes the loss of the whole batch and its gradient at each vector, and `sums`
passes that gradient on through its part: gradient caching (Gao et al. 2021), exact for any number
of parts. Only the vectors of the whole batch are in memory together.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from aya_train import contrastive_losses
from aya_train.data import fingerprints, pair_converter
from aya_train.models import fused_attention, network, sentence_encoder, t5_config
from aya_train.objectives import objective

if TYPE_CHECKING:
  import seqio

Array = jax.Array
Batch = Mapping[str, Array]
NAME = sentence_encoder.OBJECTIVE
POOLING = 'mean'
SIMILARITY = 'cosine'
_TERM, _GRADIENT = 'term_', 'gradient_'
_COUNTED = ('correct', 'reverse_correct', 'negatives', 'masked', 'positive_score', 'alone')


@dataclasses.dataclass(frozen=True, eq=False)
class EmbeddingModel(objective.Objective):
  """A sentence encoder and the contrast that it learns from.

  Attributes:
    network: the config of the network of which the encoder is used, or that network.
    vocabulary: SeqIO vocabulary of all texts.
    projection: width of the vectors, by a float32 matrix without bias; None: the encoder's.
    temperature: what cosines are divided by; where it is learned, in the beginning.
    learned_temperature: train its logarithm.
    bidirectional, same_source_negatives, false_negative_margin, false_negative_strategy, hardness,
      hardness_kind, matryoshka_dimensions, matryoshka_weights: see `contrastive_losses.Contrast`.
    query_prompt, passage_prompt: what the tasks put before the texts of either side; kept for
      those who use the model.
  """

  network: t5_config.T5Config | network.Transformer
  vocabulary: 'seqio.Vocabulary'
  projection: int | None = None
  temperature: float = 0.01
  learned_temperature: bool = False
  bidirectional: bool = True
  same_source_negatives: bool = False
  false_negative_margin: float | None = None
  false_negative_strategy: str = 'absolute'
  hardness: float = 0.0
  hardness_kind: str = 'hard'
  matryoshka_dimensions: Sequence[int] = ()
  matryoshka_weights: Sequence[float] | None = None
  query_prompt: str = ''
  passage_prompt: str = ''
  is_whole = False  # has no decoder

  def __post_init__(self):
    if getattr(self.network, 'lora', None) is not None:
      raise ValueError(
        'a sentence encoder trains all weights of its encoder, and no adapter: leave '
        'recipes/lora.gin out'
      )
    if not self.temperature > 0.0:
      raise ValueError(f'TEMPERATURE_OF_SCORES must be positive, got {self.temperature!r}')
    too_wide = [d for d in self.contrast.matryoshka_dimensions if d > self.encoder.dimension]
    if too_wide:
      raise ValueError(
        f'MATRYOSHKA_DIMENSIONS {too_wide} are more than the {self.encoder.dimension} dimensions '
        'that a vector has (PROJECTION, or the width of the encoder)'
      )
    object.__setattr__(self, 'matryoshka_dimensions', self.contrast.matryoshka_dimensions)

  @property
  def encoder(self) -> sentence_encoder.SentenceEncoder:
    """The network: `encoder.embed(params, tokens)` gives vectors."""
    start = float(np.log(self.temperature)) if self.learned_temperature else None
    return sentence_encoder.SentenceEncoder(self.config, self.projection, start)

  @property
  def config(self) -> t5_config.T5Config:
    given = self.network
    return given if isinstance(given, t5_config.T5Config) else given.config

  def row_tokens(self, lengths: Mapping[str, int]) -> objective.RowTokens:
    """All texts go through the encoder."""
    texts = [length for name, length in lengths.items() if name != pair_converter.LABELS]
    return objective.RowTokens(tuple(texts))

  def on_network(self, config: t5_config.T5Config) -> 'EmbeddingModel':
    """With that config as its network."""
    return dataclasses.replace(self, network=config)

  @property
  def contrast(self) -> contrastive_losses.Contrast:
    """What the softmax is taken over."""
    names = [field.name for field in dataclasses.fields(contrastive_losses.Contrast)]
    return contrastive_losses.Contrast(**{name: getattr(self, name) for name in names})

  @property
  def feature_converter(self) -> pair_converter.PairFeatureConverter:  # type: ignore[override]
    return pair_converter.PairFeatureConverter()

  @property
  def output_vocabulary(self) -> 'seqio.Vocabulary':
    return self.vocabulary

  @property
  def activation_dtype(self) -> Any:
    return self.config.dtype

  # Parameters

  def initial_variables(self, rng: Array) -> Any:
    """See `sentence_encoder.SentenceEncoder.initial_variables`."""
    return self.encoder.initial_variables(rng)

  def is_shared(self, name: str) -> bool:
    """The encoder's and the table's; the projection and the temperature are the objective's own."""
    return name.startswith(sentence_encoder.SHARE)

  def check(self, platform: str) -> None:
    """Refuses a vocabulary without rows, and a kernel that the devices do not have."""
    self.check_vocabulary()
    fused_attention.check_platform(self.config.attention_kernel, platform)

  def check_batch(self, batch_size: int, lengths: Mapping[str, int]) -> None:
    """Refuses batches without any negative."""
    if batch_size < 2 and not pair_converter.negatives_of(lengths):
      raise ValueError(
        f'BATCH_SIZE {batch_size}: a pair that is alone in its batch has no negatives, so nothing '
        "is learnt from it: take a larger batch, or hard negatives ('negative_1' in "
        'TASK_FEATURE_LENGTHS)'
      )

  def check_vocabulary(self) -> None:
    """Refuses a vocabulary whose ids the embedding has no rows for.

    Raises:
      ValueError: more ids than rows, or special ids other than pad 0 and eos 1.
    """
    objective.check_fits(self.vocabulary, self.config.vocab_size, 'vocabulary')

  def metadata(self) -> dict[str, Any]:
    """Architecture and vocabulary, and all that another program needs to make the same vectors.

    `from_metadata` is the inverse, but for what only training needs.
    """
    return {
      'architecture': self.encoder.architecture(),
      'vocabulary': fingerprints.of_vocabulary(self.vocabulary),
      'vocabulary_file': str(getattr(self.vocabulary, 'sentencepiece_model_file', '')),
      'embedding': {
        'dimension': self.encoder.dimension,
        'pooling': POOLING,
        'similarity': SIMILARITY,
        'temperature': self.temperature,
        'matryoshka_dimensions': list(self.matryoshka_dimensions),
        'prompts': {'query': self.query_prompt, 'passage': self.passage_prompt},
      },
    }

  # The loss

  def look_ahead(self, params: Any, parts: Batch, keys: Array | None) -> Batch:
    """Where there are several parts, the loss of each row and its gradient at each vector.

    With one part the batch is whole, and `sums` takes the gradient directly.
    """
    count = parts['example_weights'].shape[0]
    if count == 1:
      return parts
    tokens = {name: parts[name] for name in self._text_names(parts)}
    vectors = jax.lax.map(lambda x: self._vectors(params, *x), (tokens, keys))
    whole = jax.tree.map(_joined, vectors)
    texts = _texts(jax.tree.map(_joined, dict(parts)))

    def total(vectors: contrastive_losses.Vectors) -> tuple[Array, dict[str, Array]]:
      terms = self._terms(vectors, texts, self._temperature(params))
      return jnp.sum(terms['loss']), terms

    gradient, terms = jax.grad(total, has_aux=True)(whole)
    found = {_TERM + name: x for name, x in terms.items()}
    found |= {_GRADIENT + name: x for name, x in gradient._asdict().items()}
    if self.learned_temperature:
      log_temperature = params['log_temperature']
      found[_GRADIENT + 'log_temperature'] = jax.jvp(
        lambda x: self._terms(whole, texts, jnp.exp(x))['loss'],
        (log_temperature,),
        (jnp.ones_like(log_temperature),),
      )[1]
    return {**parts, **{name: _cut(x, count) for name, x in found.items()}}

  def sums(
    self, params: Any, batch: Batch, denominator: Array, dropout_key: Array | None
  ) -> tuple[Array, objective.Sums]:
    """The loss of GTR, and what is counted of the rows.

    Returns:
      The normalised loss, float32 []; and sums over rows, float32 [] each: those of
      `contrastive_losses.row_terms`, the examples, and the temperature times the examples.
    """
    tokens = {name: batch[name] for name in self._text_names(batch)}
    vectors = self._vectors(params, tokens, dropout_key)
    if _TERM + 'loss' in batch:
      known = {name: batch[_TERM + name] for name in ('loss', *_COUNTED)}
      pulled = sum(jnp.vdot(x, batch[_GRADIENT + name]) for name, x in vectors._asdict().items())
      if self.learned_temperature:
        pulled += params['log_temperature'] * jnp.sum(batch[_GRADIENT + 'log_temperature'])
      # Its value is the rows' share of the loss, its gradient that of the whole.
      loss = jnp.sum(known['loss']) + pulled - jax.lax.stop_gradient(pulled)
    else:
      known = self._terms(vectors, _texts(batch), self._temperature(params))
      loss = jnp.sum(known['loss'])
    examples = jnp.sum(batch['example_weights'])
    return loss / denominator, {
      **{name: jnp.sum(known[name]) for name in _COUNTED},
      'examples': examples,
      'temperature': jax.lax.stop_gradient(self._temperature(params)) * examples,
    }

  def _terms(
    self, vectors: contrastive_losses.Vectors, texts: contrastive_losses.Texts, temperature: Any
  ) -> dict[str, Array]:
    return contrastive_losses.row_terms(vectors, texts, temperature, self.contrast)

  def _temperature(self, params: Any) -> Array:
    if self.learned_temperature:
      return jnp.exp(params['log_temperature'])
    return jnp.float32(self.temperature)

  def _text_names(self, batch: Mapping[str, Any]) -> list[str]:
    return ['inputs', 'targets', *pair_converter.negatives_of(batch)]

  def _vectors(
    self, params: Any, tokens: Batch, dropout_key: Array | None
  ) -> contrastive_losses.Vectors:
    """Vectors of a batch's texts; those of one length go through the encoder together."""
    # Loops of JAX sort the names of what they pass on. The order decides which negative is which,
    # and what dropout draws.
    texts = self._text_names(tokens)
    by_length: dict[int, list[str]] = {}
    for name in texts:
      by_length.setdefault(tokens[name].shape[1], []).append(name)
    found: dict[str, Array] = {}
    for i, (length, names) in enumerate(by_length.items()):
      key = None if dropout_key is None else jax.random.fold_in(dropout_key, i)
      # Rows stay on their devices: what is merged is within a row.
      rows = jnp.stack([tokens[name] for name in names], axis=1)
      x = self.encoder.embed(params, rows.reshape(-1, length), key)
      x = x.reshape(-1, len(names), x.shape[-1])
      found |= {name: x[:, j] for j, name in enumerate(names)}
    negatives = [found[name] for name in texts if name not in ('inputs', 'targets')]
    empty = found['inputs'][:, None][:, :0]
    return contrastive_losses.Vectors(
      found['inputs'], found['targets'], jnp.stack(negatives, axis=1) if negatives else empty
    )

  # What people see

  def readable(self, batch: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Each row's texts, and the ids of their tokens without the padding."""
    names = self._text_names(batch)
    rows = []
    for i in range(len(batch['example_weights'])):
      ids = {name: np.trim_zeros(batch[name][i], 'b').tolist() for name in names}
      texts = {name: str(self.vocabulary.decode(x)) for name, x in ids.items()}
      rows.append({'examples': [texts], **ids})
    return rows

  def train_summary(self, sums: Mapping[str, Any], seconds: float) -> dict[str, float]:
    """Means over steps and over examples, and rates over the seconds they took.

    Returns:
      `loss`, `grad_norm`, `learning_rate`: means over steps; `accuracy` and `reverse_accuracy`: of
      finding the target of a query and the query of a target in the batch; `positive_score`: the
      cosine of a pair; `negatives`, `masked`: candidates of an example, and those left out as false
      negatives; `alone`: share of examples without any negative; `temperature`;
      `steps_per_second`, `examples_per_second`, `examples_per_step`.
    """
    s = {name: float(value) for name, value in sums.items()}
    return {
      **{name: s[name] / s['steps'] for name in objective.OF_STEPS},
      **_means(s),
      'steps_per_second': s['steps'] / seconds,
      'examples_per_second': s['examples'] / seconds,
      'examples_per_step': s['examples'] / s['steps'],
    }

  def eval_summary(self, sums: Mapping[str, Any]) -> dict[str, float]:
    """The same of an evaluation, whose batches are compared with nothing but themselves."""
    s = {name: float(value) for name, value in sums.items()}
    return {
      'loss': s['loss'] / max(s['denominator'], 1e-30),
      **_means(s),
      'examples': s['examples'],
    }

  def train_line(self, summary: Mapping[str, float]) -> str:
    return (
      f'{self.eval_line(summary)}  negatives {summary["negatives"]:.0f}'
      f'  {summary["examples_per_second"]:.0f} examples/s'
    )

  def eval_line(self, summary: Mapping[str, float]) -> str:
    line = (
      f'loss {summary["loss"]:.4f}  in batch {100 * summary["accuracy"]:.1f} %'
      f'  back {100 * summary["reverse_accuracy"]:.1f} %'
    )
    if not (alone := summary['alone']):
      return line
    # Their loss of 0 looks like the best of all.
    return f'{line}  {100 * alone:.1f} % of the pairs have no negative: nothing is learnt from them'


def from_metadata(
  metadata: Mapping[str, Any],
  vocabulary: 'seqio.Vocabulary',
  *,
  dtype: Any = 'float32',
  attention_kernel: str = 'plain',
) -> EmbeddingModel:
  """The model of a run, of what run.json or a checkpoint's metadata says.

  Args:
    metadata: as `EmbeddingModel.metadata` gave it.
    vocabulary: that of `vocabulary_file`.
    dtype: of activations.
    attention_kernel: see `T5Config`.

  Raises:
    ValueError: it is of another objective, or damaged.
  """
  encoder = sentence_encoder.from_architecture(
    metadata.get('architecture') or {}, dtype=dtype, attention_kernel=attention_kernel
  )
  try:
    about = metadata['embedding']
    if (about['pooling'], about['similarity']) != (POOLING, SIMILARITY):
      raise KeyError(f'pooling {about["pooling"]}, similarity {about["similarity"]}')
    return EmbeddingModel(
      encoder.config,
      vocabulary,
      encoder.projection,
      about['temperature'],
      encoder.initial_log_temperature is not None,
      matryoshka_dimensions=about['matryoshka_dimensions'],
      query_prompt=about['prompts']['query'],
      passage_prompt=about['prompts']['passage'],
    )
  except (KeyError, TypeError, AttributeError) as error:
    raise ValueError(f'what a run of embeddings says of itself is damaged ({error!r})') from error


def _texts(batch: Batch) -> contrastive_losses.Texts:
  negatives = pair_converter.negatives_of(batch)
  weights = batch['example_weights']
  ids = [batch[f'{name}_id'] for name in negatives]
  # A text of nothing but its end, id 1, is none.
  there = [jnp.any(batch[name] > 1, axis=1) for name in negatives]
  size = len(weights)
  return contrastive_losses.Texts(
    weights,
    batch['inputs_id'],
    batch['targets_id'],
    jnp.stack(ids, axis=1) if ids else jnp.zeros((size, 0, 2), jnp.int32),
    (jnp.stack(there, axis=1) if there else jnp.zeros((size, 0))) * weights[:, None],
    batch['sources'],
    batch['groups'],
  )


def _joined(parts: Array) -> Array:
  """Parts [N, B / N, ...] as the batch [B, ...] that they were cut from."""
  count, size, *rest = parts.shape  # of no negatives there is no size to be inferred
  return jnp.moveaxis(parts, 0, 1).reshape(count * size, *rest)


def _cut(x: Array, count: int) -> Array:
  """`_joined`'s inverse."""
  return jnp.moveaxis(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 1, 0)


def _means(s: Mapping[str, float]) -> dict[str, float]:
  figures = {'correct': 'accuracy', 'reverse_correct': 'reverse_accuracy'}
  examples = max(s['examples'], 1.0)
  return {figures.get(name, name): s[name] / examples for name in (*_COUNTED, 'temperature')}

"""One vector for a text: mT5's encoder, the mean over its tokens, a projection, length 1 (GTR).

Ni et al. 2022, "Large Dual Encoders Are Generalizable Retrievers". Both sides of a pair share the
weights. The names of the encoder's parameters are those of `network.Transformer`, so that they are
a part of any mT5 checkpoint.

Dimension letters: B rows, S positions, E the encoder's width, D the width of a vector.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aya_train.models import layers, network, t5_config

Array = jax.Array
OBJECTIVE = 'EmbeddingModel'
"""What `architecture` says under 'objective' of a run that trained a sentence encoder."""

SHARE = ('token_embedder/', 'encoder/')
"""How names of parameters begin that are mT5's; the others are the sentence encoder's own."""


class _Network(nn.Module):
  """`SentenceEncoder` as Linen has it; `projection` is the name of a parameter here."""

  config: t5_config.T5Config
  width: int | None
  initial_log_temperature: float | None

  def setup(self):
    self.token_embedder = layers.TokenEmbedder(self.config)
    self.encoder = network.Encoder(self.config, self.token_embedder)
    if self.width is not None:
      self.projection = layers.Dense(self.width, (None, None), jnp.float32)
    if (start := self.initial_log_temperature) is not None:
      constant = nn.with_logical_partitioning(nn.initializers.constant(start), ())
      self.log_temperature = self.param('log_temperature', constant, (), jnp.float32)

  def __call__(self, tokens_BS: Array, enable_dropout: bool) -> Array:
    valid_BS = tokens_BS > 0
    x_BSE = self.encoder(tokens_BS, valid_BS, None, not enable_dropout)
    pooled = masked_mean(x_BSE, valid_BS)
    if self.width is not None:
      with jax.default_matmul_precision('float32'):
        pooled = self.projection(pooled)
    return normalised(pooled)


@dataclasses.dataclass(frozen=True)
class SentenceEncoder:
  """The encoder and what makes one vector of its output.

  Attributes:
    config: the network; nothing of its decoder is used.
    projection: width of the vectors, made by a float32 matrix without bias; None: the encoder's.
    initial_log_temperature: adds a parameter `log_temperature` that starts there; None: none.
  """

  config: t5_config.T5Config
  projection: int | None = None
  initial_log_temperature: float | None = None

  def __post_init__(self):
    if self.projection is not None and (type(self.projection) is not int or self.projection < 1):
      raise ValueError(
        f'PROJECTION must be None or a positive number of dimensions, got {self.projection!r}'
      )

  @property
  def dimension(self) -> int:
    """D."""
    return self.config.emb_dim if self.projection is None else self.projection

  def architecture(self) -> dict[str, Any]:
    """What decides names and shapes of the parameters and the function, as JSON."""
    return {
      'objective': OBJECTIVE,
      **self.config.architecture(),
      'projection': self.projection,
      'learned_temperature': self.initial_log_temperature is not None,
    }

  def initial_variables(self, rng: Array) -> Any:
    """Random parameters, boxed with their logical axes.

    Returns:
      `token_embedder` and `encoder` as in mT5; `projection/kernel` [E, D] if there is a projection;
      `log_temperature` [] if it is learned. All are float32.
    """
    return self._network().init(rng, jnp.ones((1, 2), jnp.int32), False)['params']

  def embed(self, params: Any, tokens: Array, dropout_key: Array | None = None) -> Array:
    """One vector of length 1 for each text, float32 [B, D].

    Args:
      params: as `initial_variables` gives them; other parts of a whole mT5 are not looked at.
      tokens: int32 [B, S], 0 for padding. A row of nothing but padding gives zeros.
      dropout_key: None: no dropout.
    """
    rngs = None if dropout_key is None else {'dropout': dropout_key}
    needed = ('token_embedder', 'encoder', 'projection', 'log_temperature')
    params = {name: params[name] for name in needed if name in params}
    return self._network().apply({'params': params}, tokens, dropout_key is not None, rngs=rngs)

  def _network(self) -> _Network:
    return _Network(self.config, self.projection, self.initial_log_temperature)


def from_architecture(
  architecture: Mapping[str, Any], *, dtype: Any = 'float32', attention_kernel: str = 'plain'
) -> SentenceEncoder:
  """The encoder of which `SentenceEncoder.architecture` was written.

  Args:
    architecture: of run.json, or of a checkpoint's metadata.
    dtype, attention_kernel: of the T5Config.

  Raises:
    ValueError: it is of another objective, or damaged.
  """
  values = dict(architecture)
  if (name := values.pop('objective', None)) != OBJECTIVE:
    raise ValueError(
      f'the run trained {name or "an encoder-decoder"}, no embedding model: expected what a run of '
      'recipes/embed_*.gin writes'
    )
  try:
    projection, learned = values.pop('projection'), values.pop('learned_temperature')
    config = t5_config.T5Config(**values, dtype=dtype, attention_kernel=attention_kernel)
  except (KeyError, TypeError) as error:
    raise ValueError(f'what a run of embeddings says of itself is damaged ({error!r})') from error
  return SentenceEncoder(config, projection, 0.0 if learned else None)


def masked_mean(x_BSE: Array, valid_BS: Array) -> Array:
  """Mean over the valid positions, the end of the text included, float32 [B, E]; 0 if none is."""
  weights = valid_BS.astype(jnp.float32)[..., None]
  total = jnp.sum(x_BSE.astype(jnp.float32) * weights, axis=1)
  return total / jnp.maximum(jnp.sum(weights, axis=1), 1.0)


def normalised(x_BD: Array) -> Array:
  """Rows of length 1, those of zeros as they are."""
  squares = jnp.sum(jnp.square(x_BD), axis=-1, keepdims=True)
  return x_BD * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))

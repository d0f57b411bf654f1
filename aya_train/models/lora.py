"""Low-rank adapters (Hu et al. 2021) on the network, and weights under them that are not trained.

Google's qwix puts both into the Linen modules as they are: it takes the place of their matrix
products. A kernel [in, out] stays where it was, as floating point numbers or quantised, and two
matrices `kernel_lora_a` [in, rank] and `kernel_lora_b` [rank, out] stand beside it: the product
becomes x @ kernel + scale * (x @ a) @ b. Only those two are trained.
"""

import dataclasses
import functools
import importlib.util
import math
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aya_train.models import network, t5_config

Array = jax.Array

# By PEFT's names of T5's modules, ours.
MODULES: Mapping[str, str] = {
  'q': 'query',
  'k': 'key',
  'v': 'value',
  'o': 'out',
  'wi': 'wi',
  'wi_0': 'wi_0',
  'wi_1': 'wi_1',
  'wo': 'wo',
  'lm_head': 'logits_dense',
}
ALL_LINEAR = 'all-linear'  # PEFT's word for all of them but the head
BASE_WEIGHTS = ('float32', 'bfloat16', 'int8', 'nf4')
QUANTISED = ('int8', 'nf4')
SUFFIX_A, SUFFIX_B = '_lora_a', '_lora_b'
_TILE = 64  # numbers along the contracted axis that share a scale in nf4 (Dettmers et al. 2023)
# The levels of NormalFloat4 (Dettmers et al. 2023, appendix E).
_BELOW = (
  *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
  *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495),
)
_ABOVE = (
  *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
  *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
_METHODS = (
  *('__call__', 'features', 'encode', 'decode_features'),
  *('logits', 'init_cache', 'decode_step'),
)


@dataclasses.dataclass(frozen=True)
class LoraConfig:
  """An adapter, and what the weights under it are kept as.

  Attributes:
    rank: columns of `a` and rows of `b`.
    alpha: numerator of the scale, as PEFT's lora_alpha.
    modules: names of MODULES; ('all-linear',) are all of them but the head.
    dropout: rate on what enters `a`, in training.
    rank_stabilised: the scale is alpha / sqrt(rank), not alpha / rank (Kalajdzievski 2023).
    base_weights: 'float32' and 'bfloat16' keep weights so; 'int8' and 'nf4' quantise the kernels of
      all layers, and the table of embeddings and the head are bfloat16. What is computed with
      them is computed in the activations' dtype.
  """

  rank: int
  alpha: float
  modules: tuple[str, ...]
  dropout: float = 0.0
  rank_stabilised: bool = False
  base_weights: str = 'bfloat16'

  def __post_init__(self):
    modules = (self.modules,) if isinstance(self.modules, str) else tuple(self.modules)
    if modules == (ALL_LINEAR,):
      modules = tuple(name for name in MODULES if name != 'lm_head')
    object.__setattr__(self, 'modules', modules)
    object.__setattr__(self, 'alpha', float(self.alpha))
    if type(self.rank) is not int or self.rank < 1:
      raise ValueError(f'LORA_RANK must be a positive integer, got {self.rank!r}')
    if not math.isfinite(self.alpha) or self.alpha <= 0:
      raise ValueError(f'LORA_ALPHA must be above 0, got {self.alpha!r}')
    if not 0.0 <= self.dropout < 1.0:
      raise ValueError(f'LORA_DROPOUT must be in [0, 1), got {self.dropout!r}')
    if unknown := [name for name in modules if name not in MODULES]:
      raise ValueError(
        f'LORA_MODULES {unknown} are none of T5: give some of {tuple(MODULES)}, or '
        f"('{ALL_LINEAR}',)"
      )
    if not modules or len(set(modules)) != len(modules):
      raise ValueError(f'LORA_MODULES must be names, each once, got {modules}')
    if self.base_weights not in BASE_WEIGHTS:
      raise ValueError(
        f'LORA_BASE_WEIGHTS must be one of {BASE_WEIGHTS}, got {self.base_weights!r}'
      )

  @property
  def scale(self) -> float:
    """What the product of the two matrices is multiplied with."""
    return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

  def settings(self) -> dict[str, Any]:
    """What decides names, shapes and function of an adapter, as JSON."""
    return {
      'rank': self.rank,
      'alpha': self.alpha,
      'rank_stabilised': self.rank_stabilised,
      'modules': list(self.modules),
      'base_weights': self.base_weights,
    }


class LoraTransformer(network.Transformer):
  """The network with an adapter; `transformer` makes it."""

  lora: LoraConfig | None = None

  @nn.nowrap
  def initial_variables(self, rng: Array) -> Any:
    """Random parameters, boxed: those of the adapter float32, the others as `base_weights` says."""
    assert self.lora is not None
    boxed = super().initial_variables(rng)
    wide = jnp.float32 if self.lora.base_weights == 'float32' else jnp.bfloat16

    def one(path: tuple[Any, ...], box: Any) -> Any:
      name = next(k.key for k in reversed(path) if isinstance(k, jax.tree_util.DictKey))
      if is_adapter(name):
        names = '/'.join(k.key for k in path if isinstance(k, jax.tree_util.DictKey))
        axis = self.config.param_scan_axis if self.config.scan_layers else 1
        return box.replace_boxed(initial_matrix(names, box.value.shape, axis, rng))
      in_layer = name in ('kernel', 'embedding') and isinstance(path[-1], jax.tree_util.DictKey)
      return box.replace_boxed(box.value.astype(wide)) if in_layer else box

    return jax.tree_util.tree_map_with_path(
      one, boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)
    )

  @nn.nowrap
  def apply(self, variables: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """As Linen's, the adapter cast to the activations' dtype, as each layer does with kernels."""
    cast = functools.partial(_cast_adapter, dtype=self.config.dtype)
    params = jax.tree_util.tree_map_with_path(cast, variables['params'])
    return super().apply({**variables, 'params': params}, *args, **kwargs)


def _cast_adapter(path: tuple[Any, ...], x: Array, dtype: Any) -> Array:
  names = [k.key for k in path if isinstance(k, jax.tree_util.DictKey)]
  in_head = MODULES['lm_head'] in names  # which is computed in float32
  return x.astype(dtype) if is_adapter(names[-1]) and not in_head else x


def transformer(
  config: t5_config.T5Config,
  rank: int = 16,
  alpha: float = 32.0,
  modules: tuple[str, ...] = ('q', 'v'),
  dropout: float = 0.0,
  rank_stabilised: bool = False,
  base_weights: str = 'bfloat16',
) -> LoraTransformer:
  """The network with an adapter of zeros; arguments are LoraConfig's.

  Raises:
    ValueError: settings that are none, or fit no such network; qwix is not installed.
  """
  lora = LoraConfig(rank, alpha, modules, dropout, rank_stabilised, base_weights)
  _check_fits(lora, config)
  if importlib.util.find_spec('qwix') is None:
    raise ValueError("LoRA needs Google's qwix: pip install 'aya-train[lora]'")
  import qwix

  # This class sees to the scale, which depends on more than qwix's rules say.
  made = LoraTransformer(config, lora)
  return qwix.apply_lora_to_model(
    made, _provider()(_rules(lora, config), config.dtype), methods=_METHODS
  )


def _check_fits(lora: LoraConfig, config: t5_config.T5Config) -> None:
  if lora.modules[0] in MODULES and 'lm_head' in lora.modules and config.logits_via_embedding:
    raise ValueError("LORA_MODULES name 'lm_head', and this network's head is its input table")
  smallest = min(config.emb_dim, config.num_heads * config.head_dim, config.mlp_dim)
  if lora.rank >= smallest:
    raise ValueError(
      f'LORA_RANK {lora.rank} is not below the smallest side of a kernel, {smallest}: an adapter '
      'as large as what it adapts saves nothing; take a smaller one'
    )
  gated = len(config.mlp_activations) > 1
  there = {'wi_0', 'wi_1'} if gated else {'wi'}
  absent = [m for m in lora.modules if m in {'wi', 'wi_0', 'wi_1'} - there]
  if set(lora.modules) <= set(absent):
    raise ValueError(f'LORA_MODULES {absent} are not in this network, which has {sorted(there)}')


def _rules(lora: LoraConfig, config: t5_config.T5Config) -> list[Any]:
  import qwix

  joined = config.num_heads * config.head_dim
  widths = {'out': joined, 'wo': config.mlp_dim}
  rules = []
  for name, module in MODULES.items():
    weights: dict[str, Any] = {'module_path': f'(.*/)?{module}'}
    if lora.base_weights in QUANTISED and name != 'lm_head':
      weights['weight_qtype'] = lora.base_weights
    if lora.base_weights == 'nf4':
      weights['tile_size'] = math.gcd(_TILE, widths.get(module, config.emb_dim))
    if name in lora.modules:
      options = {'rank': lora.rank, 'alpha': lora.scale * lora.rank, 'dropout': lora.dropout}
      rules.append(qwix.LoraRule(**options, **weights))
    elif lora.base_weights in QUANTISED and name != 'lm_head':
      rules.append(qwix.QuantizationRule(**weights))
  return rules


@functools.cache
def _provider() -> Any:
  """qwix's provider for layers that cast their kernels, with products that take little memory."""
  import qwix
  from qwix._src.providers import ptq
  from qwix._src.utils import flax_util

  class Kernel(ptq.WithAux):
    """A quantised kernel whose cast casts its scales; qwix 0.1.8 refuses to."""

    def astype(self, dtype: Any) -> 'Kernel':
      return Kernel(self.array.astype(dtype), self.how)

  class Provider(qwix.LoraProvider):
    """Keeps the activations' dtype, and drops out in training alone."""

    def __init__(self, rules: Any, dtype: Any):
      super().__init__(rules)
      self._dtype = dtype
      self._dot_general_fn = _quantised_product

    def nn_param(self, module: nn.Module, name: str, *args: Any, **kwargs: Any) -> Any:
      x = super().nn_param(module, name, *args, **kwargs)
      return Kernel(x.array, x.how) if isinstance(x, ptq.WithAux) else x

    def dot_general(self, lhs: Array, rhs: Any, dimension_numbers: Any, **kwargs: Any) -> Array:
      module = flax_util.get_current_module()
      in_head = module.name == MODULES['lm_head'] and self._dtype == jnp.bfloat16
      if in_head and not module.is_initializing():
        head = module.get_variable('params', 'kernel')
        if head.dtype == jnp.bfloat16 and not module.has_variable('params', 'kernel' + SUFFIX_A):
          return _narrow_head(lhs, head)
      product = super().dot_general(lhs, rhs, dimension_numbers, **kwargs)
      return product.astype(lhs.dtype)

    def _get_current_rule_and_op_id(self, op_name: str, **kwargs: Any) -> Any:
      rule, op_id = super()._get_current_rule_and_op_id(op_name, **kwargs)
      if getattr(rule, 'dropout', 0.0) and not flax_util.get_current_module().has_rng('dropout'):
        rule = dataclasses.replace(rule, dropout=0.0)
      return rule, op_id

  return Provider


def _quantised_product(lhs: Array, rhs: Any, dimension_numbers: Any, **kwargs: Any) -> Array:
  """lhs @ rhs of a quantised kernel, which compilers dequantise inside of the product."""
  return jax.lax.dot_general(lhs, dequantised(rhs), dimension_numbers, **kwargs)


def dequantised(kernel: Any) -> Array:
  """The numbers of a qwix.QArray [in, out], in the dtype of its scales.

  qwix looks levels of nf4 up one by one, which a TPU does from a table of the indices that is 128
  times as large as it need be. Here they are chosen by their bits.
  """
  import qwix

  if kernel.qtype != 'nf4':
    return qwix.dequantize(kernel)
  values, (tiles, columns) = _of_levels(kernel.qvalue, kernel.scale.dtype), kernel.scale.shape
  tiled = values.reshape(tiles, -1, columns) * kernel.scale[:, None]
  return tiled.reshape(kernel.qvalue.shape)


def _of_levels(index: Array, dtype: Any) -> Array:
  chosen: list[Any] = [jnp.asarray(level, dtype) for level in (*_BELOW, 0.0, *_ABOVE)]
  bits = index.astype(jnp.int32)
  for bit in range(4):  # the last one first: pairs of levels that differ in it alone
    is_set = (bits >> bit) & 1 == 1
    chosen = [jnp.where(is_set, x, y) for y, x in zip(chosen[::2], chosen[1::2], strict=True)]
  return chosen[0]


@jax.custom_vjp
def _narrow_head(features: Array, kernel: Array) -> Array:
  """The product with a bfloat16 head of features that bfloat16 holds, summed in float32.

  Without a copy of the head in float32, which is 4 GB for mT5-xxl.
  """
  return jnp.matmul(features.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)


def _narrow_head_forward(features: Array, kernel: Array) -> tuple[Array, Array]:
  return _narrow_head(features, kernel), kernel


def _narrow_head_backward(kernel: Array, gradient: Array) -> tuple[Array, Array]:
  back = jnp.matmul(gradient.astype(kernel.dtype), kernel.T, preferred_element_type=jnp.float32)
  return back, jnp.zeros_like(kernel)  # it is not trained


_narrow_head.defvjp(_narrow_head_forward, _narrow_head_backward)


# Parameters ---------------------------------------------------------------------------------------


def is_adapter(name: str) -> bool:
  """Whether a parameter of this (last) name is an adapter's."""
  return name.endswith((SUFFIX_A, SUFFIX_B))


def initial_matrix(name: str, shape: tuple[int, ...], layer_axis: int, rng: Array) -> Array:
  """What a matrix of an adapter begins with, float32: zeros for `b`, and for `a` as PEFT draws it.

  Args:
    name: whole; with `rng` it decides what is drawn.
    shape: [in, rank] or [rank, out], with stacked layers on `layer_axis` if there are three axes.
    layer_axis: 0 or 1.
    rng: key.
  """
  if name.endswith(SUFFIX_B):
    return jnp.zeros(shape, jnp.float32)
  bound = shape[1 if len(shape) == 3 and layer_axis == 0 else 0] ** -0.5
  key = jax.random.fold_in(rng, zlib.crc32(name.encode()))
  return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def base_alone(params: Any) -> Any:
  """The parameters of a network with an adapter, for which it computes what its base does.

  The same tree, with zeros for each `b`: a model of reference without a second copy of the weights.
  Parameters without an adapter stay as they are, so that this is the identity for them.
  """

  def one(path: tuple[Any, ...], x: Any) -> Any:
    names = [k.key for k in path if isinstance(k, jax.tree_util.DictKey)]
    return jnp.zeros_like(x) if names[-1].endswith(SUFFIX_B) else x

  return jax.tree_util.tree_map_with_path(one, params)

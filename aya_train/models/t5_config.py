"""Hyperparameters of the T5 1.1 / mT5 network."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

REMAT_POLICIES = ('none', 'minimal', 'full', 'save_named')
# What a layer names for `remat_policy='save_named'`: each projection's result, the result of the
# attention before `out`, the branches of the MLP before their activation, the sums between blocks.
REMAT_NAMES = ('query', 'key', 'value', 'attention', 'wi', 'residual')
ATTENTION_KERNELS = ('plain', 'fused', 'fused_gpu', 'interpreted', 'interpreted_gpu')
ACTIVATIONS = {'gelu': nn.gelu, 'relu': nn.relu, 'silu': nn.silu, 'linear': lambda x: x}


@dataclasses.dataclass(frozen=True)
class T5Config:
  """What defines one network; fields carry T5X's names (t5x/examples/scalable_t5/network.py).

  Attributes:
    vocab_size: rows of the embedding and columns of the output head. mT5 has 250,112: the
      tokenizer's 250,100 ids rounded up to a multiple of 128.
    dtype: dtype of activations. Parameters and logits are always float32.
    emb_dim, num_heads, head_dim, mlp_dim: widths D, H, K and F.
    num_encoder_layers, num_decoder_layers: depth of the two stacks.
    mlp_activations: one name of ACTIVATIONS for each `wi_*` kernel; their product enters `wo`.
    dropout_rate: in [0, 1); applied only where `enable_dropout` is true.
    logits_via_embedding: tie the output head to the input embedding. mT5 does not.
    float32_attention_logits: compute attention scores and softmax in float32 whatever `dtype` is.
    scan_layers: stack the layers' parameters and scan over them; compiles once per stack.
    param_scan_axis: position of the `layers` axis in a stacked parameter (T5X: 1).
    remat_policy: what the backward pass may keep of a layer. 'none' keeps everything, 'minimal'
      keeps products without a batch dimension, 'full' keeps only the layer's input, 'save_named'
      keeps what `remat_save_names` lists.
    remat_save_names: some of REMAT_NAMES.
    attention_kernel: 'plain' leaves attention to XLA. 'fused' is a kernel for TPUs, 'fused_gpu' one
      for NVIDIA GPUs (aya_train/models/fused_attention.py), used where sequence lengths are
      multiples of 128 and, on GPUs, heads are 16, 32, 64 or 128 wide; 'interpreted' and
      'interpreted_gpu' run them on any machine, slowly, for tests.
    relative_attention_num_buckets, relative_attention_max_distance: Raffel et al. 2020, section
      2.1.
    relpos_bias_per_layer: a table of position biases in each layer, as umT5 and all networks of
      T5X's examples/scalable_t5 have; T5 1.1 and mT5 share one in each stack.
  """

  vocab_size: int
  dtype: Any = 'float32'
  emb_dim: int = 512
  num_heads: int = 8
  num_encoder_layers: int = 6
  num_decoder_layers: int = 6
  head_dim: int = 64
  mlp_dim: int = 2048
  mlp_activations: tuple[str, ...] = ('gelu', 'linear')
  dropout_rate: float = 0.1
  logits_via_embedding: bool = False
  float32_attention_logits: bool = False
  scan_layers: bool = True
  param_scan_axis: int = 1
  remat_policy: str = 'none'
  remat_save_names: tuple[str, ...] = REMAT_NAMES
  attention_kernel: str = 'plain'
  relative_attention_num_buckets: int = 32
  relative_attention_max_distance: int = 128
  relpos_bias_per_layer: bool = False

  def __post_init__(self):
    object.__setattr__(self, 'mlp_activations', tuple(self.mlp_activations))
    object.__setattr__(self, 'remat_save_names', tuple(self.remat_save_names))
    try:
      object.__setattr__(self, 'dtype', jnp.dtype(self.dtype))
    except TypeError as error:
      raise ValueError(
        f'T5Config.dtype (ACTIVATION_DTYPE) must be float32 or bfloat16, got {self.dtype!r}'
      ) from error
    for name in (
      'vocab_size',
      'emb_dim',
      'num_heads',
      'num_encoder_layers',
      'num_decoder_layers',
      'head_dim',
      'mlp_dim',
    ):
      value = getattr(self, name)
      if not isinstance(value, int) or value < 1:
        raise ValueError(f'T5Config.{name} must be a positive integer, got {value!r}')
    if not 0.0 <= self.dropout_rate < 1.0:
      raise ValueError(f'T5Config.dropout_rate must be in [0, 1), got {self.dropout_rate!r}')
    if self.dtype not in (jnp.float32, jnp.bfloat16):
      raise ValueError(
        f'T5Config.dtype must be float32 or bfloat16, got {self.dtype}: '
        'T5 overflows in float16 (transformers#4586)'
      )
    for name, known in (
      ('remat_policy', REMAT_POLICIES),
      ('attention_kernel', ATTENTION_KERNELS),
    ):
      if getattr(self, name) not in known:
        raise ValueError(f'T5Config.{name} must be one of {known}, got {getattr(self, name)!r}')
    if unknown := [name for name in self.remat_save_names if name not in REMAT_NAMES]:
      raise ValueError(f'T5Config.remat_save_names {unknown} not among {REMAT_NAMES}')
    if self.param_scan_axis not in (0, 1):
      raise ValueError(f'T5Config.param_scan_axis must be 0 or 1, got {self.param_scan_axis!r}')
    if unknown := [a for a in self.mlp_activations if a not in ACTIVATIONS]:
      raise ValueError(f'T5Config.mlp_activations {unknown} not among {sorted(ACTIVATIONS)}')

  @property
  def cache_offset(self) -> int:
    """Position of the batch axis in a leaf of the decoding cache."""
    return 1 if self.scan_layers else 0

  def architecture(self) -> dict[str, Any]:
    """The JSON-able fields that decide names and shapes of parameters and the function computed."""
    names = (
      'vocab_size',
      'emb_dim',
      'num_heads',
      'num_encoder_layers',
      'num_decoder_layers',
      'head_dim',
      'mlp_dim',
      'mlp_activations',
      'logits_via_embedding',
      'scan_layers',
      'param_scan_axis',
      'relative_attention_num_buckets',
      'relative_attention_max_distance',
      'relpos_bias_per_layer',
    )
    return {
      name: list(value) if isinstance(value := getattr(self, name), tuple) else value
      for name in names
    }


def padded_vocab_size(vocabulary: Any, multiple: int = 128) -> int:
  """Rows of an embedding for a vocabulary: its ids rounded up, as mT5's 250,100 became 250,112."""
  return -(-vocabulary.vocab_size // multiple) * multiple

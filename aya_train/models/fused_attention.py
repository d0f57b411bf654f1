"""T5's attention as a kernel of the device, differentiable: who computes it, and its gradients.

The kernels are those of tpu_attention.py and gpu_attention.py. Scores never reach the memory of
the device, forward or backward.

Dimension letters: B batch, T query positions, S key positions, H heads, K head width, J = H x K,
R buckets.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from aya_train import partitioning
from aya_train.models import attention_visibility, gpu_attention, tpu_attention

Array = jax.Array
# The platform of a kernel, and whether its Python is run, slowly, on any machine.
KERNELS = {
  'fused': ('tpu', False),
  'interpreted': ('tpu', True),
  'fused_gpu': ('gpu', False),
  'interpreted_gpu': ('gpu', True),
}
_MODULES: dict[str, Any] = {'tpu': tpu_attention, 'gpu': gpu_attention}
_TILE = attention_visibility.TILE


def supports(kernel: str, query_length: int, key_length: int, head_dim: int) -> bool:
  """Whether a kernel takes these lengths, multiples of 128 up to its own limit, and that width."""
  module = _MODULES[KERNELS[kernel][0]]
  lengths = (query_length, key_length)
  return module.takes_width(head_dim) and all(
    length % _TILE == 0 and 0 < length <= module.MAX_LENGTH for length in lengths
  )


def check_platform(kernel: str, platform: str) -> None:
  """Refuses a kernel that the devices of a platform do not have.

  Raises:
    ValueError: it is for others.
  """
  wanted, interpreted = KERNELS.get(kernel, (platform, True))
  if interpreted or wanted == platform:
    return
  own = next((k for k, v in KERNELS.items() if v == (platform, False)), 'plain')
  raise ValueError(
    f'ATTENTION_KERNEL {kernel!r} is a {wanted.upper()} kernel and these devices are '
    f'{platform!r}: bind ATTENTION_KERNEL = {own!r}'
  )


@dataclasses.dataclass(frozen=True)
class _Options:
  platform: str
  kernel: attention_visibility.KernelOptions


def attend(
  query_BTJ: Array,
  key_BSJ: Array,
  value_BSJ: Array,
  visible: attention_visibility.Visibility,
  keep_BHS: Array | None,
  *,
  head_dim: int,
  kernel: str = 'fused',
) -> Array:
  """softmax(q k + bias) v of each head, unscaled as in T5; differentiable in q, k, v and the table.

  Args:
    query_BTJ, key_BSJ, value_BSJ: heads side by side in the last axis.
    visible: mask and bias.
    keep_BHS: what dropout multiplies each key's weight with, 0 or 1 / (1 - rate); None for none.
    head_dim: K.
    kernel: of KERNELS.

  Returns:
    [B, T, J] in the dtype of `query_BTJ`. Scores and softmax are float32, products take the dtype
    of the arguments.
  """
  if keep_BHS is None:
    heads = query_BTJ.shape[-1] // head_dim
    keep_BHS = jnp.ones((key_BSJ.shape[0], heads, key_BSJ.shape[1]), jnp.float32)
  platform, interpret = KERNELS[kernel]
  options = _Options(platform, attention_visibility.KernelOptions(head_dim, interpret))
  return _attend(options, query_BTJ, key_BSJ, value_BSJ, visible, keep_BHS.astype(jnp.float32))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(options, query, key, value, visible, keep):
  return _forward(options, query, key, value, visible, keep)[0]


_JOINED = ('batch', None, 'heads')
_BY_HEAD = ('batch', 'heads', None)
_ROW = ('batch', None)
_TABLE = ('heads', None)


def _axes_of(visible: attention_visibility.Visibility) -> attention_visibility.Visibility:
  table = None if visible.table_HR is None else _TABLE
  return dataclasses.replace(visible, query_ids=_ROW, key_ids=_ROW, table_HR=table)


def _forward(options, query, key, value, visible, keep):
  run = partitioning.per_shard(
    functools.partial(_MODULES[options.platform].forward, options.kernel),
    in_axes=(_JOINED, _JOINED, _JOINED, _axes_of(visible), _BY_HEAD),
    out_axes=(_JOINED, _BY_HEAD),
  )
  out, log_sum = run(query, key, value, visible, keep)
  # What the backward pass needs beside the projections; remat policies may save it by this name.
  out, log_sum = checkpoint_name(out, 'attention'), checkpoint_name(log_sum, 'attention')
  return out, (query, key, value, visible, keep, out, log_sum)


def _backward(options, saved, d_out):
  query, key, value, visible, keep, out, log_sum = saved
  run = partitioning.per_shard(
    functools.partial(_MODULES[options.platform].backward, options.kernel),
    in_axes=(_JOINED, _JOINED, _JOINED, _axes_of(visible), _BY_HEAD, _JOINED, _BY_HEAD, _JOINED),
    out_axes=(_JOINED, _JOINED, _JOINED, None if visible.table_HR is None else _TABLE),
  )
  d_query, d_key, d_value, d_table = run(
    query, key, value, visible, keep, out, log_sum, d_out.astype(query.dtype)
  )
  none = functools.partial(np.zeros, dtype=jax.dtypes.float0)
  d_visible = dataclasses.replace(
    visible,
    query_ids=none(visible.query_ids.shape),
    key_ids=none(visible.key_ids.shape),
    table_HR=d_table,
  )
  return d_query, d_key, d_value, d_visible, jnp.zeros_like(keep)


_attend.defvjp(_forward, _backward)

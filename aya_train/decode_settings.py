"""What a decode function does, whoever bound its options: told by itself when it is traced."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from aya_train import logits_processors

DRAWS = 'draws'  # whether answers depend on a seed
_VOCABULARY = 1 << 20  # of the model that stands for any; nothing of it is computed
_notes: contextvars.ContextVar[list[dict[str, Any]] | None] = contextvars.ContextVar(
  'decode_settings', default=None
)


def note(
  name: str,
  *,
  processors: logits_processors.Processors,
  draws: bool = False,
  **settings: Any,
) -> None:
  """Called by a decode function with what it will do."""
  if (notes := _notes.get()) is not None:
    notes.append({'function': name, DRAWS: draws, **settings, **dataclasses.asdict(processors)})


@contextlib.contextmanager
def _listening() -> Iterator[list[dict[str, Any]]]:
  notes: list[dict[str, Any]] = []
  token = _notes.set(notes)
  try:
    yield notes
  finally:
    _notes.reset(token)


def of(decode_fn: Callable[..., Any], max_decode_length: int) -> Mapping[str, Any]:
  """Settings of a decode function by name, JSON: `function`, `draws`, `num_decodes` and more.

  Of one that notes nothing, such as a user's own, `function` alone, its name.

  Raises:
    ValueError: options out of range.
  """

  def model(tokens: jax.Array, position: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
    return jnp.zeros((tokens.shape[0], _VOCABULARY)), cache

  def decode(key: jax.Array) -> Any:
    cache = {'cache': jnp.zeros((1, 1))}
    return decode_fn(
      cache,
      model,
      max_decode_length=max_decode_length,
      decode_rng=key,
      row_ids=jnp.zeros((1,), jnp.int32),
      cache_offset=0,
      eos_id=1,
    )

  with _listening() as notes:
    try:
      jax.eval_shape(decode, jax.random.key(0))
    except Exception:
      if notes or _is_ours(decode_fn):
        raise
  if notes:
    return notes[0]
  named = getattr(decode_fn, 'func', decode_fn)
  return {'function': f'{named.__module__}.{getattr(named, "__qualname__", named)}'}


def _is_ours(decode_fn: Callable[..., Any]) -> bool:
  named = getattr(decode_fn, 'func', decode_fn)
  return getattr(named, '__module__', '').startswith(f'{__package__}.')

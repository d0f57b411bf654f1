"""Answers of a model to many inputs, batch by batch.

An answer, and a sample too, depends on its input alone: not on the batch, its size, the devices, or
on what was answered before.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from aya_train import decode_settings, finiteness, model_answers, partitioning
from aya_train.objectives import seq2seq

logger = logging.getLogger(__name__)
_WINDOW = 64  # batches in which inputs are sorted by length


def plan(
  tokens: Sequence[Sequence[int]], todo: Sequence[int], batch_size: int, *, in_order: bool = False
) -> list[list[int]]:
  """Which inputs are answered together: those of about one length.

  Args:
    tokens: ids of every input.
    todo: places of those to answer, ascending.
    batch_size: of each batch but the last.
    in_order: keep the order of `todo`.
  """
  window = batch_size * (1 if in_order else _WINDOW)
  order: list[int] = []
  for start in range(0, len(todo), window):
    part = list(todo[start : start + window])
    # The longest first: what does not fit into memory is known at once.
    order += part if in_order else sorted(part, key=lambda i: -len(tokens[i]))
  return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def sampler(
  decode_fn: Callable[..., Any], num_samples: int, max_decode_length: int
) -> tuple[Callable[..., Any], dict[str, Any]]:
  """A decode function that gives at least `num_samples` answers, and what it does.

  Raises:
    ValueError: the way of decoding has fewer; or its options are out of range.
  """
  if num_samples < 1:
    raise ValueError(f'NUM_SAMPLES must be at least 1, got {num_samples}')
  settings = dict(decode_settings.of(decode_fn, max_decode_length))
  draws, count = settings.get(decode_settings.DRAWS), settings.get('num_decodes')
  if draws is None:  # a user's own function
    return (_with_decodes(decode_fn, num_samples) if num_samples > 1 else decode_fn), settings
  if draws:
    del settings['num_decodes']  # samples do not depend on how many there are
    if count != num_samples:
      decode_fn = _with_decodes(decode_fn, num_samples)
  elif settings['function'] == 'temperature_sample':
    if num_samples > 1:
      raise ValueError(
        f'NUM_SAMPLES = {num_samples}, but greedy decoding has one answer to a prompt: sample '
        '(--decoding aya_sampling, or TEMPERATURE = 0.9), or search with beams'
      )
    if count != 1:
      decode_fn = _with_decodes(decode_fn, 1)
    settings['num_decodes'] = 1
  elif count is not None and num_samples > count:
    raise ValueError(
      f'NUM_SAMPLES = {num_samples}, but a search with {count} beams has as many answers: raise '
      'NUM_BEAMS'
    )
  return decode_fn, settings


def _with_decodes(decode_fn: Callable[..., Any], count: int) -> Callable[..., Any]:
  def decode(*args: Any, **kwargs: Any) -> Any:
    return decode_fn(*args, num_decodes=count, **kwargs)

  return decode


def answers(
  model: seq2seq.EncoderDecoderModel,
  params: Any,
  tokens: Sequence[Sequence[int]],
  batches: Sequence[Sequence[int]],
  *,
  input_length: int,
  max_decode_length: int,
  batch_size: int,
  partitioner: partitioning.Partitioner,
  decode_fn: Callable[..., Any] | None = None,
  num_samples: int = 1,
  seed: int = 0,
) -> Iterator[tuple[Sequence[int], list[list[list[int]]]]]:
  """Answers of each batch as soon as it is decoded; on every host.

  Args:
    model, params: the model.
    tokens: ids of every input, at most `input_length`.
    batches: of `plan`.
    input_length, max_decode_length: most tokens of an input and of an answer, its end included.
    batch_size: rows of the arrays; fewer if there are fewer inputs in all.
    partitioner: mesh.
    decode_fn: of `sampler`; None: the model's.
    num_samples: answers that are kept of each input.
    seed: for sampling. A sample's draws follow from it, its input's place and its number.

  Yields:
    Places of a batch's inputs, and for each its answers as ids, cut after their end.

  Raises:
    finiteness.NonFiniteError: the model gives an answer no finite log-likelihood.
  """

  def predict(params: Any, inputs: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    decoded, scores = model.predict_batch(
      params,
      {'encoder_input_tokens': inputs},
      jax.random.key(seed),
      ids,
      max_decode_length=max_decode_length,
      decode_fn=decode_fn,
    )
    return decoded[:, :num_samples], scores[:, :num_samples]

  step = partitioner.jit(predict, out_shardings=partitioner.replicated)
  shards = partitioner.num_data_shards
  largest = max(map(len, batches), default=0)
  rows = min(batch_size, -(-largest // shards) * shards)
  for batch in batches:
    padded = [*batch, *[batch[0]] * (rows - len(batch))]
    width = model_answers.input_width(max(1, *(len(tokens[i]) for i in batch)), input_length)
    inputs = np.zeros((rows, width), np.int32)
    for row, index in enumerate(padded):
      inputs[row, : len(tokens[index])] = tokens[index]
    placed = partitioner.place({'inputs': inputs, 'ids': np.array(padded, np.int32)})
    decoded, scores = (
      np.asarray(values)[: len(batch)] for values in step(params, placed['inputs'], placed['ids'])
    )
    finiteness.check_scores(np.ravel(scores))
    yield batch, [[_cut(answer) for answer in row] for row in decoded.tolist()]


def _cut(ids: Sequence[int]) -> list[int]:
  """An answer without the padding behind it."""
  return [token for token in ids if token != 0]

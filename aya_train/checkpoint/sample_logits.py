"""What a converted checkpoint computes on sample prompts, beside what its source computes.

Both sides compute in float32, the source from weights rounded to the dtype written: what is left to
differ is the order of sums, whatever the dtype.
"""

import dataclasses
import functools
import importlib.util
import logging
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import traverse_util

from aya_train.checkpoint import contents
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.checkpoint.hf import hf_tokenizer, hf_torch
from aya_train.models import network, t5_config

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3  # of the largest logit; sums in another order differ by some 1e-5 of it
_MAX_TOKENS = 32
_WITHOUT_VOCABULARY = 8  # sequences of arbitrary ids
_ROOM = 1.25  # beside float32 weights: one matrix in a second layout, activations, logits

Ids = Sequence[Sequence[int]]
Logits = Sequence[np.ndarray]


def compare(
  source: contents.Checkpoint,
  result: contents.Checkpoint | epath.Path,
  *,
  dtype: str,
  vocabulary_file: epath.PathLike,
  where: str,
) -> float | None:
  """Computes logits from both, if the model fits in memory; says in the log if it does not.

  Args:
    source: what was converted.
    result: what was written, read again: a checkpoint, or the Hugging Face folder, which
      transformers loads.
    dtype: of the weights written.
    vocabulary_file: for the prompts of `hf_torch.PROMPTS`; with '' arbitrary ids are taken.
    where: for messages.

  Returns:
    The largest difference as a share of the largest logit; None if nothing was computed.

  Raises:
    ValueError: they differ by more than TOLERANCE, or a logit is not finite.
  """
  if reason := _hindrance(source, result):
    logger.info('logits on sample prompts were not compared: %s', reason)
    return None
  ids = sample_ids(vocabulary_file, source.config.vocab_size)
  before = of_checkpoint(source, ids, dtype)
  if isinstance(result, contents.Checkpoint):
    after = of_checkpoint(result, ids, dtype)
  else:
    after = of_transformers(result, ids)
  found = _difference(before, after)
  if not math.isfinite(found) and not all(np.isfinite(x).all() for x in (*before, *after)):
    raise ValueError(
      f'{where}: logits on sample prompts are not finite: {source.where} holds weights that are '
      'not, or so large that their products are not'
    )
  if not found <= TOLERANCE:
    raise ValueError(
      f'{where}: logits on sample prompts differ from those of {source.where} by {found:.2g} of '
      f'the largest, expected at most {TOLERANCE:g}: the result is not the same model'
    )
  logger.info(
    'verified logits on %d sample prompts: they differ by %.1g of the largest', len(ids), found
  )
  return found


def _hindrance(source: contents.Checkpoint, result: Any) -> str:
  missing = [name for name in ('torch', 'transformers') if importlib.util.find_spec(name) is None]
  if missing and not isinstance(result, contents.Checkpoint):
    return f"{' and '.join(missing)} not installed (pip install 'aya-train[hf]')"
  needed = _ROOM * 4 * sum(math.prod(array.shape) for array in source.params.values())
  free = available_bytes()
  if needed > free:
    return f'the model in float32 needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} are free'
  return ''


def available_bytes() -> int:
  """Memory that a program can still take: the machine's, or less where a control group says so."""
  free = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  meminfo = epath.Path('/proc/meminfo')
  if meminfo.exists():
    fields = dict(line.split(':', 1) for line in meminfo.read_text().splitlines())
    free = int(fields['MemAvailable'].split()[0]) * 1024
  group = epath.Path('/sys/fs/cgroup')
  for limit, used in (
    ('memory.max', 'memory.current'),
    ('memory/memory.limit_in_bytes', 'memory/memory.usage_in_bytes'),
  ):
    if (group / limit).exists() and (most := (group / limit).read_text().strip()) != 'max':
      free = min(free, int(most) - int((group / used).read_text()))
  return free


def sample_ids(vocabulary_file: epath.PathLike, vocab_size: int) -> list[list[int]]:
  """Token ids of the prompts, cut to _MAX_TOKENS, with the end of sequence if nothing was cut."""
  if not os.fspath(vocabulary_file):
    draw = np.random.default_rng(0).integers
    return [
      draw(min(3, vocab_size - 1), vocab_size, length).tolist()
      for length in range(_MAX_TOKENS - _WITHOUT_VOCABULARY, _MAX_TOKENS)
    ]
  import sentencepiece

  model = hf_tokenizer.read_vocabulary(vocabulary_file)
  processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
  return [
    [*processor.EncodeAsIds(prompt), model.trainer_spec.eos_id][:_MAX_TOKENS]
    for prompt in hf_torch.PROMPTS
  ]


def of_checkpoint(
  checkpoint: contents.Checkpoint, ids: Ids, dtype: str, answers: Ids | None = None
) -> list[np.ndarray]:
  """Our network's logits, float32 [length, vocabulary] for each token that the decoder is fed.

  Args:
    checkpoint: its parameters are read whole.
    ids: of the prompts, none longer than _MAX_TOKENS.
    dtype: that weights are rounded to before they are used.
    answers: what the decoder is fed after its start token, by default the prompts.
  """
  answers = ids if answers is None else answers
  config = dataclasses.replace(
    checkpoint.config,
    dtype='float32',
    scan_layers=True,  # compiles once for all layers
    param_scan_axis=1,
    remat_policy='none',
  )
  with jax.default_device(jax.local_devices(backend='cpu')[0]):
    params = {
      name: jax.numpy.asarray(lazy_arrays.cast(array, dtype).read().astype(np.float32))
      for name, array in checkpoint.in_layout(config).items()
    }
    apply = _compiled(config)
    variables = {'params': traverse_util.unflatten_dict(params, sep='/')}
    found = []
    for prompt, answer in zip(ids, answers, strict=True):
      inputs, targets = _row(prompt), _row(answer)
      start = checkpoint.settings.decoder_start_id
      fed = np.pad(targets, ((0, 0), (1, 0)), constant_values=start)[:, :-1]
      # Targets are only asked which of them are padding: none of them is, whatever its id.
      mask = np.ones_like(targets)
      found.append(np.asarray(apply(variables, inputs, fed, mask))[0, : len(answer)])
  return found


@functools.lru_cache(maxsize=2)
def _compiled(config: t5_config.T5Config) -> Callable[..., jax.Array]:
  """The network without dropout; logits and answers of one source share what is compiled."""
  return jax.jit(functools.partial(network.Transformer(config).apply, enable_dropout=False))


def _row(ids: Sequence[int]) -> np.ndarray:
  row = np.zeros((1, _MAX_TOKENS), np.int32)
  row[0, : len(ids)] = ids
  return row


def of_transformers(folder: epath.PathLike, ids: Ids) -> list[np.ndarray]:
  """The same from a Hugging Face folder, as `user_model` loads it. Errors as there."""
  import torch

  model = user_model(folder)
  start = model.generation_config.decoder_start_token_id
  found = []
  with torch.inference_mode():
    for prompt in ids:
      inputs = torch.tensor([list(prompt)])
      fed = torch.nn.functional.pad(inputs, (1, 0), value=start)[:, :-1]
      found.append(model(input_ids=inputs, decoder_input_ids=fed).logits[0].numpy())
  return found


def user_model(folder: epath.PathLike) -> Any:
  """The float32 model of a folder, as a user of transformers loads it.

  Raises:
    ValueError: transformers finds parameters missing or in excess.
  """
  import torch
  import transformers

  model, info = transformers.AutoModelForSeq2SeqLM.from_pretrained(
    os.fspath(folder), output_loading_info=True, dtype=torch.float32
  )
  if wrong := {key: sorted(map(str, value))[:5] for key, value in info.items() if value}:
    raise ValueError(f'{folder}: transformers {transformers.__version__} loads it with {wrong}')
  config = model.config
  untied = model.lm_head.weight is not model.shared.weight
  if config.model_type == 'umt5' and untied and config.tie_word_embeddings:
    logger.warning(
      'transformers %s scales the logits of every umt5 model by d_model**-0.5: set '
      'model.config.tie_word_embeddings = False after loading, as is done here',
      transformers.__version__,
    )
    config.tie_word_embeddings = False
  return model.eval()


def _difference(before: Logits, after: Logits) -> float:
  """Largest difference of two lists of logits, as a share of the largest; inf where one is nan."""
  largest = max(float(np.abs(logits).max()) for logits in before)
  found = max(float(np.abs(x - y).max()) for x, y in zip(before, after, strict=True))
  if not math.isfinite(found) or not math.isfinite(largest):
    return math.inf
  return found / largest if largest else (0.0 if found == 0 else math.inf)

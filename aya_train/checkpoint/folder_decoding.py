"""The way of decoding that a folder's generation_config.json asks for, as our own functions."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from aya_train import decoding, hf_beams

_TOP_K = 50  # transformers' own, where a file says nothing and samples
_PENALTIES = ('repetition_penalty', 'no_repeat_ngram_size')
_SAMPLING = ('temperature', 'top_k', 'top_p')
_BEAMS = ('length_penalty', 'early_stopping')
_KNOWN = (
  *('num_beams', 'do_sample', 'min_length', 'min_new_tokens', *_PENALTIES, *_SAMPLING, *_BEAMS),
)
# Entries that change no answer, or that `answering` and `model_settings` see to.
_OTHERS = (
  *('max_length', 'max_new_tokens', 'pad_token_id', 'bos_token_id', 'eos_token_id'),
  *('decoder_start_token_id', 'transformers_version', '_from_model_config', 'use_cache'),
  *('cache_implementation', 'cache_config', 'output_attentions', 'output_hidden_states'),
  *('output_scores', 'output_logits', 'return_dict_in_generate', 'num_return_sequences'),
  *('is_assistant', 'num_assistant_tokens', 'num_assistant_tokens_schedule', 'low_memory'),
  *('assistant_confidence_threshold', 'prefill_chunk_size', 'compile_config', 'disable_compile'),
  *('diversity_penalty', 'target_lookbehind', 'assistant_lookbehind'),
)
# What means that an entry is off.
_OFF: Mapping[str, Any] = {
  **dict.fromkeys(('num_beams', 'num_beam_groups'), 1),
  **dict.fromkeys(('min_length', 'min_new_tokens', 'no_repeat_ngram_size'), 0),
  **dict.fromkeys(('encoder_no_repeat_ngram_size', 'epsilon_cutoff', 'eta_cutoff'), 0),
  **dict.fromkeys(('temperature', 'top_p', 'typical_p', 'length_penalty', 'guidance_scale'), 1),
  **dict.fromkeys(('repetition_penalty', 'encoder_repetition_penalty'), 1),
  **dict.fromkeys(('do_sample', 'early_stopping', 'remove_invalid_values'), False),
  'renormalize_logits': False,
}


def asked(generation: Mapping[str, Any]) -> dict[str, Any]:
  """Entries that change answers and are on, by name."""
  return {
    key: value
    for key, value in generation.items()
    if key not in _OTHERS and value is not None and not (key in _OFF and _OFF[key] == value)
  }


def decode_fn(generation: Mapping[str, Any], where: str, num_ids: int) -> Callable[..., Any]:
  """A decode function that answers as `generate` would with these entries.

  Args:
    generation: of generation_config.json.
    where: the folder, for messages.
    num_ids: of the model; a `top_k` of more keeps all, as there.

  Raises:
    ValueError: it asks for what is not known here, or for sampling among beams.
  """
  wanted = asked(generation)
  if unknown := {key: value for key, value in wanted.items() if key not in _KNOWN}:
    raise ValueError(
      f'{where} asks for {unknown} in generation_config.json, which is not known here: take the '
      'entries out of a copy, or decode as gin says (DECODE_AS_CHECKPOINT = False)'
    )
  options = {key: wanted[key] for key in _PENALTIES if key in wanted}
  # `min_length` counts the start token of the decoder, and says nothing beside `min_new_tokens`.
  shortest = generation.get('min_new_tokens')
  if shortest is None:
    shortest = wanted.get('min_length', 0) - 1
  if shortest > 0:
    options['min_new_tokens'] = shortest
  beams = wanted.get('num_beams', 1)
  if wanted.get('do_sample'):
    if beams > 1:
      raise ValueError(
        f'{where} samples among {beams} beams (do_sample and num_beams in generation_config.json), '
        'which is not known here: keep one of the two in a copy, or decode as gin says'
      )
    return functools.partial(
      decoding.temperature_sample,
      temperature=float(wanted.get('temperature', 1.0)),
      topk=min(_TOP_K if (top_k := generation.get('top_k')) is None else top_k, num_ids),
      topp=float(wanted.get('top_p', 1.0)),
      **options,
    )
  if beams > 1:
    return functools.partial(
      hf_beams.hf_beam_search,
      num_decodes=beams,
      **{key: wanted[key] for key in _BEAMS if key in wanted},
      **options,
    )
  return functools.partial(decoding.temperature_sample, temperature=0.0, **options)

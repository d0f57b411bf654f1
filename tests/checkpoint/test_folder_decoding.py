"""What generation_config.json asks for is done, or refused by name."""

import functools

import pytest

from aya_train import decode_settings
from aya_train.checkpoint import folder_decoding

PLAIN = {'max_new_tokens': 5, 'pad_token_id': 0, 'transformers_version': '5.0', 'use_cache': True}
OFF = {'num_beams': 1, 'do_sample': False, 'temperature': 1.0, 'repetition_penalty': 1.0}


def settings(**generation):
  decode_fn = folder_decoding.decode_fn({**PLAIN, **generation}, 'folder', 40)
  return decode_settings.of(decode_fn, 64)


@pytest.mark.parametrize(
  ('generation', 'expected'),
  [
    (OFF, {'function': 'temperature_sample', 'temperature': 0.0, 'draws': False}),
    ({'do_sample': True}, {'temperature': 1.0, 'topk': 40, 'topp': 1.0, 'draws': True}),
    (
      {'do_sample': True, 'temperature': 0.7, 'top_k': 0, 'top_p': 0.9},
      {'temperature': 0.7, 'topk': 0, 'topp': 0.9},
    ),
    (
      {'num_beams': 3, 'length_penalty': 2.0, 'early_stopping': True},
      {'function': 'hf_beam_search', 'num_decodes': 3, 'length_penalty': 2.0, 'draws': False},
    ),
    (
      {'min_length': 4, 'no_repeat_ngram_size': 2, 'repetition_penalty': 1.2},
      {'min_new_tokens': 3, 'no_repeat_ngram_size': 2, 'repetition_penalty': 1.2},
    ),
    ({'min_length': 4, 'min_new_tokens': 9}, {'min_new_tokens': 9}),
    ({'min_length': 9, 'min_new_tokens': 4}, {'min_new_tokens': 4}),
    ({'min_length': 9, 'min_new_tokens': 0}, {'min_new_tokens': 0}),
    ({'min_length': 9, 'min_new_tokens': None}, {'min_new_tokens': 8}),
  ],
)
def test_it_is_done(generation, expected):
  found = settings(**generation)
  assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
  ('generation', 'message'),
  [
    ({'typical_p': 0.9, 'num_beams': 2}, r"folder asks for \{'typical_p': 0\.9\}"),
    ({'do_sample': True, 'num_beams': 4}, 'samples among 4 beams'),
    ({'bad_words_ids': [[5]]}, 'bad_words_ids'),
  ],
)
def test_it_is_refused(generation, message):
  with pytest.raises(ValueError, match=message):
    settings(**generation)


def test_what_is_off_asks_for_nothing():
  assert folder_decoding.asked({**PLAIN, **OFF, 'top_k': None}) == {}


def test_a_user_s_own_function_is_known_by_its_name():
  def mine(cache, tokens_to_logits, **options):
    raise NotImplementedError

  found = decode_settings.of(functools.partial(mine), 4)
  assert found['function'].endswith('mine') and [*found] == ['function']

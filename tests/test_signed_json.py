import json

import pytest

from aya_train import signed_json

CONTENT = {'b': [1, 2.5, None], 'a': {'x': 'ä', '3': True}}


@pytest.mark.parametrize('indent', [None, 2])
def test_what_is_written_is_read(indent):
  text = signed_json.dump(CONTENT, indent)
  assert signed_json.load(text) == CONTENT == signed_json.load(text.encode())
  assert signed_json.load(json.dumps(json.loads(text), sort_keys=True)) == CONTENT


def test_an_object_that_may_be_unsigned_is_told_from_one_that_was_changed():
  signed = json.loads(signed_json.dump(CONTENT))
  assert not signed_json.is_changed(signed)
  assert not signed_json.is_changed(CONTENT)
  assert signed_json.is_changed({**signed, 'b': 3})


def test_numbers_as_keys_are_read_as_text():
  assert signed_json.load(signed_json.dump({3: [1], 1: (2, 3)})) == {'3': [1], '1': [2, 3]}


def test_every_flipped_bit_is_seen():
  whole = signed_json.dump(CONTENT).encode()
  for place in range(len(whole)):
    for bit in range(8):
      flipped = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
      with pytest.raises(ValueError, match=r'.'):
        signed_json.load(flipped)


@pytest.mark.parametrize('text', ['', '{', '{}', '[]', '3', 'null', '[' * 100_000])
def test_what_has_no_digest_is_refused(text):
  with pytest.raises(ValueError, match=r'.'):
    signed_json.load(text)

"""Elements of a JSON file that is one array, however large, one after the other."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from aya_train.tasks.building import text_files

_BLOCK = 1 << 20
_WHITE = ' \t\n\r'


class BrokenArrayError(ValueError):
  """The array cannot be read on; the message says where in it and why."""


class RepeatedNameError(ValueError):
  """Two members of an object have one name."""


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """A JSON object of its members; `json` would keep the last of those with one name.

  Raises:
    RepeatedNameError: two have the same.
  """
  found = dict(pairs)
  if len(found) < len(pairs):
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    raise RepeatedNameError(f'the names {twice} stand twice in one object')
  return found


DECODER = json.JSONDecoder(object_pairs_hook=unique_keys)


class _Text:
  """Text of a file of which more is read when it is needed."""

  def __init__(self, file: BinaryIO):
    self._file = file
    self._decoder = codecs.getincrementaldecoder('utf-8')('strict')
    self.text = ''
    self.at = 0
    self.ended = False

  def more(self, size: int = _BLOCK) -> bool:
    """Reads on; False at the end. What lies before `at` is forgotten."""
    if self.ended:
      return False
    block = self._file.read(size)
    self.ended = not block
    self.text = self.text[self.at :] + self._decoder.decode(block, final=self.ended)
    self.at = 0
    return True

  def next_character(self) -> str:
    """The next one that is no white space, not passed; '' at the end."""
    while True:
      while self.at < len(self.text) and self.text[self.at] in _WHITE:
        self.at += 1
      if self.at < len(self.text):
        return self.text[self.at]
      if not self.more():
        return ''


def elements(file: BinaryIO, longest: int) -> Iterator[Any]:
  """Yields the elements; memory is bounded by the largest one.

  Args:
    file: UTF-8 without a byte-order mark.
    longest: characters of an element at most.

  Raises:
    BrokenArrayError: with the number of the element, from 1.
  """
  text = _Text(file)
  number = 0
  try:
    if text.next_character() != '[':
      raise ValueError('expected "["')
    text.at += 1
    number = 1
    while True:
      character = text.next_character()
      if character == ']' and number == 1:
        break
      value = _element(text, longest)
      yield value
      character = text.next_character()
      if character not in (',', ']'):
        raise ValueError(
          'the file ends in the middle of the array'
          if not character
          else f'expected "," or "]", got {text.text[text.at : text.at + 20]!r}'
        )
      if character == ']':
        break
      text.at += 1
      number += 1
    text.at += 1
    if text.next_character():
      raise ValueError(f'more after the array: {text.text[text.at : text.at + 20]!r}')
  except UnicodeDecodeError as error:
    raise BrokenArrayError(f'element {number} or after: {text_files.not_utf8(error)}') from error
  except (ValueError, RecursionError) as error:
    detail = str(error).partition('\n')[0][:200] or type(error).__name__
    raise BrokenArrayError(f'element {number}: {detail}') from error


def _element(text: _Text, longest: int) -> Any:
  size = _BLOCK
  while True:
    try:
      value, end = DECODER.raw_decode(text.text, text.at)
      # A number or a word may go on where the text does not yet.
      if end < len(text.text) or text.ended:
        text.at = end
        return value
      problem: ValueError | None = None
    except json.JSONDecodeError as error:
      problem = error
    if len(text.text) - text.at > longest:
      raise ValueError(f'broken, or of over {longest:,} characters') from problem
    if not text.more(size):
      if problem is not None:
        raise problem
      continue
    size *= 2

"""Which label a judge's reply ends with, in the spellings that judges have for it."""

import html
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

_FENCED = re.compile(r'```\w*\s*(\{.*?\})\s*```', re.DOTALL)
_NAMED = re.compile(r'^[^\W\d][^:\n]{0,24}:\s*')  # 'Label: '
_AROUND = ' \t*_`#."\''


def label(reply: str, labels: Mapping[str, Any]) -> Any:
  """What a reply means; None if it has no label, or several without a last line of one.

  A label counts in full width, escaped for Markdown or HTML, and with signs of emphasis in it, too.
  Without its brackets it counts where the last line, or a value of a JSON object that is the whole
  reply or stands in a fence, is nothing else. Thoughts that a model sends along, as
  `<think>...</think>`, do not count.

  Args:
    reply: the whole text.
    labels: '[[A>B]]' -> what it means.
  """
  _, closed, said = reply.rpartition('</think>')
  if not closed and said.lstrip().startswith('<think>'):
    return None
  meanings = {_spelling(text): meaning for text, meaning in labels.items()}
  for text in (said, _plain(said)):
    found = [_spelling(match) for match in pattern(labels).findall(text)]
    if len({meanings[spelling] for spelling in found}) == 1:
      return meanings[found[0]]
    if (last := _spelling(_last_line(text))) in meanings:
      return meanings[last]
    if found:
      return None
  bare = _bare(labels)
  for value in (_last_line(_plain(said)), *_values(said)):
    if (meaning := bare.get(_spelling(_NAMED.sub('', value).strip(_AROUND)))) is not None:
      return meaning
  return None


def holds(text: str, labels: Mapping[str, Any]) -> bool:
  """Whether a text, such as an answer, holds a label in any of these spellings."""
  found = pattern(labels)
  return any(found.search(each) is not None for each in (text, _plain(text)))


def pattern(labels: Mapping[str, Any]) -> re.Pattern[str]:
  """Finds labels in a text, with spaces between their words and signs or without."""
  longest_first = sorted(labels, key=len, reverse=True)
  words = (r'\s*'.join(map(re.escape, _pieces(text))) for text in longest_first)
  return re.compile('|'.join(words), re.IGNORECASE)


def _plain(text: str) -> str:
  """Without full width, escapes and emphasis."""
  text = unicodedata.normalize('NFKC', html.unescape(text))
  text = text.translate(str.maketrans('【】〔〕', '[][]'))
  return re.sub(r'\\(?=[\[\]<>=(){}_*])|\*+|(?<!\w)_+|_+(?!\w)|`', '', text)


def _last_line(text: str) -> str:
  return text.strip().rpartition('\n')[2].strip(_AROUND)


def _values(reply: str) -> Iterator[str]:
  """Values of the one JSON object in a reply that are texts or numbers; none of several objects."""
  found = _FENCED.findall(reply) or [reply.strip()]
  if len(found) != 1 or not found[0].startswith('{'):
    return
  try:
    values = json.loads(found[0])
  except (ValueError, RecursionError):
    return
  for value in values.values():
    if isinstance(value, str | int | float) and not isinstance(value, bool):
      yield str(value)


def _bare(labels: Mapping[str, Any]) -> dict[str, Any]:
  """Labels without the signs around them, where that leaves a word that no other label has."""
  found: dict[str, set[Any]] = {}
  for text, meaning in labels.items():
    found.setdefault(_spelling(re.sub(r'^\W+|\W+$', '', text)), set()).add(meaning)
  return {text: next(iter(each)) for text, each in found.items() if text and len(each) == 1}


def _pieces(text: str) -> list[str]:
  """Words and single signs, between which a reply may have spaces."""
  return re.findall(r'\w+|[^\w\s]', text)


def _spelling(text: str) -> str:
  return re.sub(r'\s+', '', text).casefold()

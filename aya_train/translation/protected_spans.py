"""What in a text is not language: found, replaced by marks that a model passes on, put back.

Marks are bracketed numbers, `[1]`, which models of every vocabulary copy. A mark that does not come
back exactly once is a loss, never repaired by guessing.
"""

import dataclasses
import functools
import re

# In this order: an earlier pattern wins where two begin at the same character, as a longer one
# would be cut by a shorter (a URL in a link, a field in a tag).
_PATTERNS = {
  'code': r'(?P<tick>`+)(?!`).+?(?<!`)(?P=tick)(?!`)|`{2,}\w*',
  'formula': (
    r'\$\$.+?\$\$|\\\(.+?\\\)|\\\[.+?\\\]'
    r'|(?<![\w$])\$(?=[^\s\d$])[^$\n]{0,200}?[^\s$]\$(?!\w)'
  ),
  'field': (
    r'\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}|\$\{[^{}\n]*\}|<<[^<>\n]*>>|<extra_id_\d+>'
    r'|\{[A-Za-z_]?[\w.:!\[\]-]*\}|%\(\w+\)[-#0 +]*\d*(?:\.\d+)?[a-zA-Z]'
    r'|(?<![\w%])%[-#0 +]*\d*(?:\.\d+)?[sdifgxr](?!\w)|(?<!\w)\$[A-Za-z_]\w*|\[\[.*?\]\]'
    r'|\[[A-Z][A-Z0-9_ ]{2,40}\]|<[A-Z][A-Z0-9_]+>|_{2,}(?!\w)|\[MASK\]'
  ),
  'link': (r'\[(?=[^\[\]\n]*\]\()|\]\((?:[^()\s]|\([^()\s]*\))+(?:\s+"[^"\n]*")?\)|!\['),
  'address': (
    r'(?:https?|ftp|gs|s3|file)://[^\s<>"\'`|\[\]{}，。、؛،」』）]*'
    r'[^\s<>"\'`|\[\]{}.,;:!?)،，。、؛」』）]'
    r'|\bwww\.[^\s<>"\'|，。、]+[^\s<>"\'.,;:!?)|，。、]|\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+'
    r'|(?<![\w@])@[A-Za-z_]\w+|\b[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:com|org|net|edu|gov|io)\b'
    r'(?:/[^\s<>"\'|，。、]*[^\s<>"\'.,;:!?)|，。、])?'
  ),
  'path': (
    r'(?<![\w/])(?:~|\.{1,2})?(?:/[\w.-]+){2,}/?|\b[A-Za-z]:\\[\w\\. -]+\w'
    r'|\b[\w-]+\.(?:py|js|ts|json|csv|txt|html?|css|java|cpp|sh|md|xml|ya?ml|exe|pdf)\b'
  ),
  'tag': (
    r'</?[A-Za-z][\w:-]*(?:\s+[\w:@-]+(?:\s*=\s*(?:"[^"]*"|\'[^\']*\'|[^\s"\'>]+))?)*\s*/?>'
    r'|<!--.*?-->|&(?:[a-zA-Z]{2,8}|#\d{1,6});'
  ),
  'emphasis': (r'\*{1,3}(?=\S)|(?<=\S)\*{1,3}|(?<!\w)_{1,2}(?=[^\W_])|(?<=[^\W_])_{1,2}(?!\w)|~~'),
  'identifier': (
    r'\b[A-Za-z]+(?:_[A-Za-z0-9]+)+\b|\b[a-z]+(?:[A-Z][a-z0-9]+)+\b(?:\(\))?|\b\w+\(\)'
    r'|(?<![\w-])--[A-Za-z][\w-]*(?:=\S+)?|(?<![\w-])-[A-Za-z](?![\w-])'
    r'|\b[A-Za-z][\w.-]*=[^\s=,.;]+|#\w+(?!\w)'
  ),
  'emoji': (
    '(?:[\U0001f1e6-\U0001f1ff]{2}|'
    '[\U0001f300-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u2190-\u21ff\\d#*]\ufe0f?\u20e3'
    '|[\U0001f300-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u2190-\u21ff][\ufe0e\ufe0f]?'
    '[\U0001f3fb-\U0001f3ff]?(?:\u200d[\U0001f300-\U0001faff\u2600-\u27bf]\ufe0f?'
    '[\U0001f3fb-\U0001f3ff]?)*)+'
  ),
}
KINDS = tuple(_PATTERNS)
_ANY = re.compile('|'.join(f'(?P<{kind}>{p})' for kind, p in _PATTERNS.items()))
_MARK = re.compile(r'\[(\d+)\]')


@dataclasses.dataclass(frozen=True)
class Span:
  """A protected piece of a text, at [start, end)."""

  start: int
  end: int
  kind: str


@dataclasses.dataclass(frozen=True)
class Masked:
  """A text with marks.

  Attributes:
    text: with a mark for each protected piece.
    pieces: (mark, what it stands for), in the order of the text.
  """

  text: str
  pieces: tuple[tuple[str, str], ...]


@functools.lru_cache(maxsize=1 << 14)
def find(text: str) -> tuple[Span, ...]:
  """Protected pieces, from left to right; those that touch are one."""
  found: list[Span] = []
  for match in _ANY.finditer(text):
    kind = next(k for k in KINDS if match[k] is not None)
    if found and found[-1].end == match.start():
      found[-1] = Span(found[-1].start, match.end(), found[-1].kind)
    elif match.end() > match.start():
      found.append(Span(match.start(), match.end(), kind))
  return tuple(found)


def mask(text: str) -> Masked:
  """A text with its protected pieces replaced; numbers in brackets that it has are not used."""
  taken = {int(digits) for digits in _MARK.findall(text) if len(digits) < 9}
  made, pieces, at, number = [], [], 0, 0
  for span in find(text):
    number += 1
    while number in taken:
      number += 1
    made += [text[at : span.start], f'[{number}]']
    pieces.append((f'[{number}]', text[span.start : span.end]))
    at = span.end
  return Masked(''.join([*made, text[at:]]), tuple(pieces))


def restore(translated: str, masked: Masked) -> str | None:
  """The translation with the pieces in the places of their marks; None where one was lost.

  A mark may move, as words do, and may have gained spaces inside its brackets. It is lost when it
  is not there exactly once, or when a mark is there that was not asked for.
  """
  tidy = (
    re.sub(r'[\[［【]\s*(\d+)\s*[\]］】]', r'[\1]', translated) if masked.pieces else translated
  )
  known = dict(masked.pieces)
  found = [m[0] for m in _MARK.finditer(tidy)]
  if sorted(m for m in found if m in known) != sorted(known):
    return None
  return _MARK.sub(lambda m: known.get(m[0], m[0]), tidy)


def fragments(text: str) -> list[tuple[str, bool]]:
  """The text cut at its protected pieces: (piece, whether it is protected); joined, the text."""
  made, at = [], 0
  for span in find(text):
    made += [(text[at : span.start], False), (text[span.start : span.end], True)]
    at = span.end
  return [(piece, fixed) for piece, fixed in [*made, (text[at:], False)] if piece]

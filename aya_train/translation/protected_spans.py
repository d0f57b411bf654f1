"""What in a text is not language: found, replaced by marks that a model passes on, put back.

Marks are bracketed numbers, `[1]`, which models of every vocabulary copy. A mark that does not come
back exactly once is a loss, never repaired by guessing.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator

_EXTENSIONS = (
  'py|pyi|js|ts|jsx|tsx|mjs|vue|json|jsonl|csv|tsv|txt|html?|css|scss|java|kt|cpp|hpp|cc|cs|rs|go|rb'
  '|php|sql|swift|scala|sh|bat|ps1|md|rst|tex|xml|ya?ml|toml|ini|cfg|conf|lock|log|env|gin|ipynb'
  '|exe|dll|so|jar|whl|pdf|docx?|xlsx?|pptx?|png|jpe?g|gif|svg|webp|mp3|mp4|wav|avi|zip|tar|gz|parquet'
)
_MODULES = (
  'np|pd|os|sys|plt|tf|torch|jax|jnp|re|math|json|self|this|console|document|window|System|Math'
  '|String|JSON|Object|Array|random|df|req|res|app|requests|logging'
)

_ELEMENTS = (
  'A[cglmrstu]|B[aehikr]?|C[adefl-orsu]?|D[bsy]|E[rsu]|F[elmr]?|G[ade]|H[efgos]?|I[nr]?|Kr?|L[airuv]'
  '|M[cdgnot]|N[abdehiop]?|O[gs]?|P[abdmortu]?|R[abefghnu]|S[bcegimnr]?|T[abcehilms]|U|V|W|Xe|Yb?|Z[nr]'
)
_MOVE = r'(?:[KQRBN]?[a-h]?[1-8]?x?[a-h][1-8](?:=[QRBN])?|O-O(?:-O)?)[+#]?[!?]{0,2}'
_KEYS = 'Ctrl|Control|Alt|AltGr|Shift|Cmd|Command|Win|Windows|Fn|Meta|Super|Option|⌘|⌥'
TOOL = (
  r'(?:pip3?|npm|yarn|pnpm|conda|brew|cargo|gem|apt|apt-get|yum|dnf|git|docker|kubectl|npx) '
  r'(?:install|uninstall|update|upgrade|init|clone|add|commit|push|pull|checkout|run|build|fetch|remove'
  r'|merge|rebase|status|create|exec|apply|publish|test|start|compose)\b'
)
"""A program of the command line and what it is to do."""
_TOOLS = (
  rf'(?:sudo )?{TOOL}'
  # Flags, names with a version, paths; of what is installed its name.
  r'(?: (?:-{1,2}[A-Za-z][\w-]*(?:[= ]\S*[^\s.,;:!?])?|[\w@][\w.@/:~-]*(?:==|>=|@|/)[\w./@:-]*\w'
  r'|(?:(?<=install )|(?<=run ))(?!(?:the|an?|it|its|this|that|them|in|on|to|with|and|or|is|your'
  r'|my|all|for|from|using|again|first)\b)[a-z][\w-]*))*'
)

# In this order: an earlier pattern wins where two begin at the same character, as a longer one
# would be cut by a shorter (a URL in a link, a field in a tag).
_PATTERNS = {
  'code': r'(?P<tick>`+)(?!`).{1,2000}?(?<!`)(?P=tick)(?!`)|`{2,}\w*',
  'formula': (
    r'(?<!\w)\\\\\w[\w.-]*(?:\\[\w.$-]*\w)+|'
    r'\$\([a-z][\w .-]*\)(?=[\s,;.!?)"\']|$)|\$\$.{1,1000}?\$\$'
    r'|\\\(.{1,1000}?\\\)|\\\[.{1,1000}?\\\]'
    # Dollars as Pandoc has them; an amount of money begins no formula without an operator.
    r'|(?<![\w$])(?:\$(?=[^\s\d$])[^$\n]{0,200}?[^\s$]\$(?![^\W_])|\$(?=\S)[^\s$]\$(?![^\W_]))+'
    r'|(?<![\w$])\$(?=\d)(?=[^$\n]*(?:[=^_\\+*<>]|\d[a-z]\b))'
    r'(?:\\[a-zA-Z]+|[A-Za-z]{1,2}(?![A-Za-z])|[^A-Za-z$\n])*(?<!\s)\$(?!\w)'
    r'|\\[ntr](?![a-z])|\\[A-Za-z]+\*?(?:[_^](?:\{[^{}\n]{1,80}\}|\w))*|\\[{}%&_#\\]'
    r'|(?<=\})[_^](?:\{[^{}\n]{1,80}\}|\w)'
  ),
  'field': (
    # BBCode; JSON in a line, whatever its values say.
    r'\[/?(?:b|i|u|s|url|img|quote|code|size|color|colour|font|list|li|center|spoiler|sup|sub)'
    r'(?:=[^\]\n]{0,200})?\](?!\()|\{\s*"[\w.$@-]+"\s*:[^{}\n]{0,1000}\}'
    r'|\{\{\{.{0,1000}?\}\}\}|\{\{.{0,1000}?\}\}|\{%.{0,1000}?%\}|\{#.{0,1000}?#\}'
    r'|<%.{0,1000}?%>|<\?.{0,1000}?\?>|<\|[^|<>\n]+\|>'
    r'|<<[^<>\n]*>>|<extra_id_\d+>|\$\([^()\n]*\)|%[A-Z][A-Z0-9_]*%|%\{\w+\}[a-z]?'
    # Braces with others in them, or without words in a row.
    r'|[$#@]?\{[^{}\n]{0,200}(?:\{[^{}\n]{0,200}\}[^{}\n]{0,200}){1,20}\}'
    r'|[$#@]?\{(?!(?:[^{}\n]{0,60}?(?u:[^\W\d_]){1,30}[,;]?[ ]+){3})[^{}\n]{0,120}\}'
    # printf: with a name or a position; a length; never behind a number, '5 %'.
    r'|(?<![\d%])(?:%(?:\([^()\s]+\)|\d+\$)?[-#0+]*(?:\d+|\*)?(?:\.(?:\d+|\*))?'
    r'(?:hh|ll|[hlLqjzt])?[diouxXeEfgGcspn@])+[a-zA-Z]{0,2}(?!\w)|%%'
    r'|(?<!\w)(?:\$[A-Za-z_]\w*)+|\[\[[^\n]{1,300}?\]\]'
    r'|\[/?[A-Z][A-Z0-9_ ]{2,40}\]|<[A-Z][A-Z0-9_]+>|(?<!\w)__[A-Z][A-Z0-9_]*?__(?!\w)'
    r'|_{2,}(?!\w)|\[MASK\]|(?<![\w:]):[a-z][a-z0-9_+-]+:(?![\w:])|\[\^[\w-]+\]:?'
  ),
  'link': (
    # Inline ones, those by a name, and where the name is said.
    r'\[(?=[^\[\]\n]*\](?:\(|\[[A-Za-z]|\[\]))|\]\[(?:[A-Za-z][^\[\]\n]*)?\]'
    r'|(?m:^)[ ]{0,3}\[[^\[\]\n]+\]:[ \t]+\S+|\]\((?:[^()\s]|\([^()\s]*\))+(?:\s+"[^"\n]*")?\)|!\['
  ),
  'address': (
    r'<(?:[\w.+-]{1,64}@[\w.-]{1,200}|https?://[^\s<>]{1,500})>'
    r'|\b[a-z][a-z0-9+.-]{1,15}://(?:[^\s<>"\'`|\[\]{}/@]*@)?(?:\[[0-9A-Fa-f:.]+\])?'
    r'(?:[^\s<>"\'`|\[\]{}()，。、؛،」』）]|\([^\s<>()]{0,200}\))*'
    r'(?:[^\s<>"\'`|\[\]{}.,;:!?()，،。、؛」』）]|\([^\s<>()]{0,200}\))'
    r'|\b(?:mailto|tel|doi|urn|data|sms):[^\s<>"\'`|{}]*[^\s<>"\'`|{}.,;:!?)]'
    r'|\bwww\.[^\s<>"\'|，。、]+[^\s<>"\'.,;:!?)|，。、]|\b[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)*'
    r'|(?<![\w@])(?:@[A-Za-z_]\w+)+|\b[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,5}\.(?:com|org|net|edu|gov|io)\b'
    r'(?:/[^\s<>"\'|，。、]*[^\s<>"\'.,;:!?)|，。、])?'
  ),
  'path': (
    r'(?<![\w/])(?:~|\.{1,2})?(?:/[\w.-]+){2,}/?'
    r'|(?<![\w/])/(?:etc|usr|bin|sbin|tmp|var|home|dev|opt|proc|sys|lib|mnt|media|root|api)\b/?'
    r'|\b[A-Za-z]:\\(?:[\w.$%-]{1,60}(?: [\w.()-]{1,60}){0,5}\\)*(?:[\w.$%-]*\w)?'
    r'|(?<![\w/.])(?:~|\.{1,2})/(?:[\w./-]*[\w/])?|(?<![\w.])\.[A-Za-z]\w+(?:[.-]\w+)*'
    r'|\b(?:[\w.-]{1,80}/){0,12}[\w-]{1,80}(?:\.[\w-]{1,40}){0,4}'
    rf'\.(?:{_EXTENSIONS})\b'
  ),
  'tag': (
    r'</?[A-Za-z][\w:-]*(?:\s+[\w:@-]+(?:\s*=\s*(?:"[^"]*"|\'[^\']*\'|[^\s"\'>]+))?)*\s*/?>'
    r'|<!--.{0,4000}?-->|<![A-Za-z][^<>\n]*>|&(?:[a-zA-Z]{2,8}|#\d{1,6}|#x[0-9A-Fa-f]{1,5});'
  ),
  'emphasis': (
    r'\'{3}|(?<![\'\w])\'{2,5}(?=[^\s\'])|(?<=[^\s\'])\'{2,5}(?![\'\w])|(?<![\w=])={2,6}(?![\w=])'
    r'|\*{1,2}(?:kw)?args\b|(?<!\w)__[a-z]+__(?:\(\))?(?!\w)'
    r'|\*{1,3}(?=\S)|(?<=\S)\*{1,3}|(?<!\w)_{1,2}(?=[^\W_])|(?<=[^\W_])_{1,2}(?!\w)|~~'
  ),
  'identifier': (
    rf'\b{_TOOLS}|(?<![^\s"\'(])(?:[!<>:=]=|={{3}}|!==|&&|=>|->|<-)(?![^\s"\'),.;:?!])'
    r'|\b[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\b'
    # Calls; 'item(s)' is a plural.
    r'|\b[A-Za-z_][\w.]{0,80}\((?!(?:s|es|ies|r|n|en|e)\))[\w.,=+*/"\'\[\]:$ -]{0,60}?\)'
    r'|\b[A-Za-z_][\w.-]{0,60}=[^\s=,.;](?:[^\s=,;]*[^\s=,.;:!?)\]])?'
    # Numbers whose order says something: of books and articles, addresses of the net, telephones,
    # moments, checksums.
    r'|\b97[89](?:[ -]?\d){9}[ -]?[\dX]\b|(?<=ISBN )\d(?:[ -]?\d){8}[ -]?[\dX]\b'
    r'|\b10\.\d{4,9}/[^\s<>"\'{}|]*\w|\barXiv:\d{4}\.\d{4,5}(?:v\d+)?\b'
    r'|(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?:[:/]\d{1,5})?(?![\d.]*\d)'
    r'|(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){3,7}(?::|[0-9A-Fa-f]{1,4})(?:/\d{1,3})?(?![\w:])'
    r'|(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){1,6}:(?:[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,5})?(?![\w:])'
    r'|(?<![\w+])\+\d{1,3}[ .-]?(?:\(\d{1,4}\)|\d{1,4})(?:[ .-]?\d{2,4}){2,4}\b'
    r'|(?<!\w)\(\d{3}\) ?\d{3}-\d{4}\b|\b\d{3}-\d{3}-\d{4}\b'
    r'|\b\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?'
    r'|\b(?=[0-9a-f]{0,40}\d)(?=[0-9a-f]{0,40}[a-f])[0-9a-f]{12,128}\b|\b[ACGTU]{8,}\b'
    # Formulas of chemistry with a number, games of chess, keys, sounds, patterns.
    rf'|\b(?=[A-Za-z()]{{0,20}}[\d₀-₉])(?:(?:{_ELEMENTS})[\d₀-₉]*|\((?:(?:{_ELEMENTS})[\d₀-₉]*){{1,6}}\)'
    r'[\d₀-₉]*){2,30}(?:\^?[\d²³]?[+-](?!\w)|[⁺⁻²³]+)?(?![\w₀-₉])'
    rf'|\b\d{{1,3}}\.{{1,3}} ?{_MOVE}(?:\s+(?:\d{{1,3}}\.{{1,3}} ?)?{_MOVE})*(?!\w)'
    r'|\b[KQRBN][a-h]?x?[a-h][1-8][+#]?(?!\w)|\b[a-h]x[a-h][1-8][+#]?(?!\w)|\bO-O(?:-O)?\b'
    rf'|(?<!\w)(?:{_KEYS})(?: ?[+-] ?(?:{_KEYS}|F\d{{1,2}}|[A-Z][a-z]+|[A-Za-z0-9]))+(?!\w)'
    r'|[/\[](?=[^/\[\]\n]{0,60}[ɐ-ʯˈˌː])[^/\[\]\n]{1,80}[/\]]'
    r'|(?<![^\s"\'(])/(?=\S*[\\^$*+?|\[(])[^\s/]{1,80}/[gimsuy]{0,4}(?!\w)'
    r'|(?<![^\s"\'(])[^\s"\'(]{0,40}\[\^?(?:[a-zA-Z0-9]-[a-zA-Z0-9]|\\\w)[^\]\s]{0,60}\](?:[^\s,;.]|[.](?=\S)){0,60}'
    r'|\b[A-Z]{1,3}\d{1,7}:[A-Z]{1,3}\d{1,7}\b|(?<!\w)=[A-Z]{2,12}\([^()\n]{0,200}\)'
    r'|(?<!\S)[:;][-\']?[)(DP](?!\w)'
    # Powers and indices.
    r'|\b[A-Za-z]{1,3}(?:\^(?:\{[^{}\n]{1,40}\}|-?\w{1,3}\b)|_\{[^{}\n]{1,40}\})+'
    # Words with capitals in them, but for names of people.
    r'|\b(?!(?:Mac|Mc|De|Di|Da|Du|Des|La|Le|Van|Von|Fitz|O)[A-Z][a-z]+\b)'
    r'(?:[A-Z]{1,8}[a-z0-9]+){2,8}[A-Z]{0,3}\b(?:\(\))?'
    r'|\b(?:[A-Za-z]|arr|array|list|lst|nums?|matrix|grid|dp|data|args|argv|row|rows|vec|xs|ys)'
    r'(?:\[-?\d{1,9}\])+|\b[A-Za-z_]\w*\[(?:0|-\d{1,9}|-?\d{0,9}:-?\d{0,9}(?::-?\d{0,9})?)\](?:\[[^\[\]\n]{1,20}\])*'
    r'|\b[A-Za-z]+(?:_[A-Za-z0-9]+)+\b(?:\(\))?|\b[a-z]+(?:[A-Z]{1,8}[a-z0-9]+)+\b(?:\(\))?|\b[a-z]{2,}[A-Z]{2,8}\b'
    rf'|\b(?:{_MODULES})(?:\.[A-Za-z_]\w*)+|\b[a-z]{{2,}}(?:\.[a-z_]{{2,}}){{2,9}}\b'
    r'|\b\w+(?:::\w+)+(?:<[\w:, <>]*>)?|\b[A-Za-z]\w*<[A-Za-z]\w*(?:, ?\w+)*>|\b\w+->\w+'
    r'|\b[A-Za-z_]\w*(?:\[[A-Za-z_]\w{0,20}(?:[+*-]\w+)?\])+|\b[A-Za-z_]\w*\s?[-+*/%|&^]=\s?\w+'
    r'|\b\w+\+\+|\b[A-Z]#|\b0x[0-9A-Fa-f]+\b|\bv\d+(?:\.\d+)+(?:-[a-z][\w.]*\w)?\b|\b\d+(?:\.\d+)?[eE][+-]?\d+\b'
    r'|(?<![\w-])--[A-Za-z][\w-]*(?:=\S+)?|(?<![\w-])-[A-Za-z](?![\w-])'
    r'|\b[A-Za-z][\w.-]{0,60}=[^\s=,.;]+|(?u:#\w+)'
  ),
  'emoji': (
    '(?:[\U0001f1e6-\U0001f1ff]{2}|[\U0001f000-\U0001f2ff\u203c\u2049]\ufe0f?|[©®™]\ufe0f|'
    '[\U0001f300-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u2190-\u21ff\\d#*]\ufe0f?\u20e3'
    '|[\U0001f300-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u2190-\u21ff][\ufe0e\ufe0f]?'
    '[\U0001f3fb-\U0001f3ff]?[\U000e0020-\U000e007f]*(?:\u200d[\U0001f300-\U0001faff\u2600-\u27bf]\ufe0f?'
    '[\U0001f3fb-\U0001f3ff]?)*)+'
  ),
}
KINDS = tuple(_PATTERNS)
# Where words are not divided by spaces, what is written in ASCII ends where its letters end.
_ASCII = frozenset({'formula', 'field', 'address', 'path', 'identifier'})
_ANY = re.compile(
  '|'.join(f'(?P<{k}>(?{"a" if k in _ASCII else "u"}:{p}))' for k, p in _PATTERNS.items())
)
# Over several lines of a paragraph; code in backticks only where it cannot be a quotation.
_LINES = re.compile(
  r'\{\{\{?(?:(?!\{\{|\}\}).){1,2000}?\}\}\}?|\{%(?:(?!%\}).){1,2000}?%\}|\{#(?:(?!#\}).){1,4000}?#\}'
  r'|<!--.{1,4000}?-->|\$\$(?:(?!\n\s*\n).){1,2000}?\$\$|\\\[(?:(?!\n\s*\n).){1,2000}?\\\]'
  r'|</?[A-Za-z][\w:-]*(?:\s+[\w:@-]+(?:\s*=\s*(?:"[^"<>]{0,500}"|\'[^\'<>]{0,500}\'|[^\s"\'<>]+))?)+\s*/?>'
  r'|(?<![\w`])`(?=[^\s`])[^`\n]{1,200}\n(?!\s*\n)[^`\n]{1,200}(?<![\s`])`(?![\w`\'])',
  re.DOTALL,
)
# One thing again and again is no language, and what would take long to look through.
_RUN = re.compile(r'([^\n\r]{1,16}?)\1{24,}')
_RUN_LENGTH = 400
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
  every, at = [], 0
  for run in runs(text):
    every += [*_found(text, at, run.start), run]
    at = run.end
  found: list[Span] = []
  for span in [*every, *_found(text, at, len(text))]:
    if found and found[-1].end == span.start:
      found[-1] = Span(found[-1].start, span.end, found[-1].kind)
    elif span.end > span.start:
      found.append(span)
  return tuple(found)


def _found(text: str, start: int, end: int) -> Iterator[Span]:
  for match in _ANY.finditer(text, start, end):
    yield Span(match.start(), match.end(), next(k for k in KINDS if match[k] is not None))


def runs(text: str) -> list[Span]:
  """Where one thing of at most 16 characters is said again and again, 400 characters or more."""
  if len(text) < _RUN_LENGTH:
    return []
  found = (Span(m.start(), m.end(), 'run') for m in _RUN.finditer(text))
  return [run for run in found if run.end - run.start >= _RUN_LENGTH]


def across_lines(text: str) -> list[Span]:
  """Protected pieces that lines are not looked at for, in order.

  These are those with line breaks in them (fields, comments, tags, formulas, code), and `runs`.
  """
  made, at = [], 0
  for run in [*runs(text), Span(len(text), len(text), 'run')]:
    made += [
      Span(m.start(), m.end(), 'lines')
      for m in _LINES.finditer(text, at, run.start)
      if len(m[0].splitlines()) > 1
    ]
    made += [run] * (run.end > run.start)
    at = run.end
  return made


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

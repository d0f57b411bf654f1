"""A text as the pieces that stay and the sentences that are translated; joined, the text.

Lines stay lines. What begins or ends a line but is no language (bullets, numbers of a list,
headings, quotations, bars of a table) stays, and so do whole blocks of code, formulas and rules.
"""

import bisect
import collections
import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence

from aya_train.translation import protected_spans, sentences

_BREAKS = re.compile(r'(\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])')
_FENCE = re.compile(
  r'\s*+(?:>\s?)*+(?:[-*+]\s+|\d{1,9}[.)]\s+)?(?P<mark>`{3,}|~{3,})(?P<info>[^`]*)$'
)
_OPENS_LATE = re.compile(r'```\w*\s*$')
_ENVIRONMENT = re.compile(
  r'\s*+(?:\\begin\{(?P<name>\w+\*?)\}|(?P<dollars>\$\$)|(?P<bracket>\\\[))'
)
_HEAD = re.compile(
  r'\s*(?:(?:>+|[-*+•‣◦▪●○–—·]|#{1,6}|\[[ xX]\]|[①-⑳]|\d{1,3}(?:\.\d{1,3})++\.?'
  r'|\(?(?:\d{1,3}|[٠-٩۰-۹०-९০-৯]{1,3}|[A-Za-zА-Яа-я]|[ivxIVX]{1,4})[.)、:]'
  r')(?:\s+|$))*'
)
_TABLE_RULE = re.compile(r'\s*+(?:\|\s*+)?:?-{2,}:?\s*+(?:\|\s*+:?-{2,}:?\s*+)*+(?:\|\s*+)?$')
_CODE = re.compile(
  r'\s*+(?:'
  r'>>> |\.\.\. |\$ \w|#include\b|#!/|(?:async )?def \w+\(|class \w+[(:]'
  r'|import [\w.]+(?: as \w+)?$|from [\w.]+ import |return\b.*[\w)\]};]$'
  r'|(?:if|for|while|elif|with|except)\b.*:$|(?:else|try|finally):$'
  r'|(?:if|for|while|switch)\s*\(.*\)\s*\{?$|\}\s*(?:else|catch|finally)?.*\{?$'
  r'|(?:public|private|static|const|let|var|func|fn|int|void|double|char)\b.*[;{=(]$'
  r'|function\s*\w*\(|@\w+(?:\(.*\))?$|print\(.*\)$|//|/\*|\*/|console\.|<\?|<!DOCTYPE'
  r'|SELECT\b.*\bFROM\b|(?:INSERT INTO|CREATE TABLE|UPDATE \w+ SET)\b'
  r'|(?:sudo |pip3? |npm |git |docker |apt(?:-get)? |conda )[a-z]|(?:std::|\w+(?:->|::)\w).*;$'
  r'|(?:public|private|protected|static) .*\(.*\)?$'
  r'|(?:SELECT|FROM|WHERE|ORDER BY|GROUP BY|HAVING|(?:LEFT |INNER |RIGHT |OUTER )*JOIN|VALUES|LIMIT'
  r'|DELETE FROM|ALTER TABLE|DROP TABLE|AND|OR) \S'
  r'|[\w.\[\]\'"]+\s*(?:[-+*/%|&]?=|:=)\s*(?:[^=\s].*)?[\w)\]}\'";,]$|\[\[?[\w.-]+\]\]?$'
  r'|Traceback \(most |File ".*", line \d+|[A-Z]\w*(?:Error|Exception): '
  r'|[\w.]+\(.*\)[;{,]?$|[{}\[\]();,]+$'
  r'|"[^"]*"\s*:\s*.*[,{\[\]}"\d]$|</?[a-zA-Z][^<>]*>\s*$|.*(?:[;{]|(?<!\w)\})$'
  r')'
)
_DECLARED = (
  r'(?:(?:public|private|protected|static|final|abstract|override) ){1,4}'
  r'[\w<>\[\], ]*\w\(.*\)?\s*\{?$'
)
# Statements whose words stand in a row as those of prose do.
_SHAPE = re.compile(
  r'\s*+(?:(?:async )?for \w+(?:, ?\w+)* in [\w.\[\]]+(?:\([^()]*(?:\([^()]*\))?[^()]*\))?:$'
  r'|if __name__ =='
  r'|(?:if|while|elif|assert) (?:not )?[\w.\[\]]+(?: (?:not )?in | is (?:not )?)[\w.\[\]()]+:?$'
  r'|(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE TABLE|ALTER TABLE|DROP TABLE|FROM|WHERE) \S.*'
  r'|return [\w.]+ if .* else '
  rf'|{_DECLARED})'
)
_JSON_VALUE = r'(?:"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?|true|false|null|[\[{].*)'
# Code even where it has no neighbour.
_SURELY = re.compile(
  r'\s*+(?:>>> |#include\b|#!/|(?:async )?def \w+\(.*:$|from [\w.]+ import '
  r'|import \w+(?:\.\w+)* as '
  r'|console\.\w+\(|print\(.*\)$|SELECT\b.*\bFROM\b|INSERT INTO \w+.*\bVALUES\b|UPDATE \w+ SET\b'
  r'|DELETE FROM \w+(?: WHERE\b.*)?;?$|(?:CREATE|ALTER|DROP) TABLE\b|<!DOCTYPE|if __name__ =='
  r'|for \w+(?:, ?\w+)* in (?:range|enumerate|zip|sorted|len|reversed)\(.*:$'
  rf'|"[\w.$@-]+"\s*:\s*{_JSON_VALUE}\s*,?$'
  # A shell's.
  r'|\$ [a-z./~][\w./-]*(?: .*)?$'
  rf'|(?:sudo )?{protected_spans.TOOL}(?: [^\s]+)*(?<![.?!:])$'
  # C's and Java's.
  r'|(?:std::|[\w.]+(?:->|::)\w).*;$'
  rf'|{_DECLARED}'
  r')'
)
_KEY = re.compile(r'\s*+(?:- )?[a-z][a-z0-9_.-]*:(?: \S.*)?$')
_PROSE_END = re.compile(r'(?<![^\W\d_])(?:[^\W\d_]+[,;]?\s+){3}[^\W\d_]')

# What a few-shot block calls its parts: a sentence by itself, so that it is the same in each.
_LABEL = re.compile(r'(?P<label>[^\W\d_][^:：.!?|\n]{0,40})(?P<colon>\s?[:：](?:\s+|$))')
_LABELS = frozenset(
  """
  answer answers article assistant body caption choices claim class code comment context conclusion
  definition dialogue document example explanation fact facts final_answer headline hint human
  hypothesis input inputs instruction instructions keywords label language negative_example note
  option options output outputs paragraph paraphrase passage positive_example premise prompt
  question rationale reason reference reply response review sentence sentence_1 sentence_2 solution
  source statement story summary system target task text title topic translation tweet user
  """.split()  # noqa: SIM905
)
_OPTION = re.compile(r'(?:(?<=[\s,;])|^)(?:\(?(?P<letter>[A-Ha-h])[.)]|\(?(?P<digit>[1-8])\))\s+')

_LONGEST_CODE = 4_000  # characters of a line that is looked at as code
_LONGEST_HEAD = 200
_NEAR = 12  # characters behind a head

_COMMENT = re.compile(r'\s*+(?:#(?!#)|//|/\*|\*\s|--\s|;|"""|\'\'\')')


@dataclasses.dataclass(frozen=True)
class Piece:
  """A part of a text.

  Attributes:
    text: as it stands there.
    translated: whether it is a sentence; else it stays.
  """

  text: str
  translated: bool


def pieces(text: str, language: str, longest: int = sentences.LONGEST) -> list[Piece]:
  """The pieces of a text; their texts joined are the text.

  Args:
    text: any.
    language: ISO 639-3, for the ends of sentences.
    longest: see `sentences.split`.
  """
  made: list[Piece] = []
  labels = _labels(_BREAKS.split(text)[::2])
  at = 0
  for start, end in [*_across_lines(text), (len(text), len(text))]:
    parts = _BREAKS.split(text[at:start])
    lines, breaks = parts[::2], [*parts[1::2], '']
    of_table = _rows(lines)
    for i, (line, stays) in enumerate(zip(lines, _stays(lines), strict=True)):
      if stays:
        made.append(Piece(line, False))
      else:
        made += _line(line, labels, language, longest, is_row=of_table[i])
      made.append(Piece(breaks[i], False))
    made.append(Piece(text[start:end], False))
    at = end
  return _joined(made)


def join(parts: Sequence[Piece], translations: Callable[[str], str]) -> str:
  """The text with each sentence replaced."""
  return ''.join(translations(p.text) if p.translated else p.text for p in parts)


def one_line(text: str) -> str:
  """A text without line breaks, and white space at its ends."""
  return _BREAKS.sub(' ', text.replace('\r\n', '\n')).strip()


def sentences_of(parts: Sequence[Piece]) -> list[str]:
  """The sentences in their order, repeated ones too."""
  return [p.text for p in parts if p.translated]


def _joined(parts: Sequence[Piece]) -> list[Piece]:
  made: list[Piece] = []
  for part in parts:
    if not part.text:
      continue
    if made and not (part.translated or made[-1].translated):
      made[-1] = Piece(made[-1].text + part.text, False)
    else:
      made.append(part)
  return made


def _across_lines(text: str) -> list[tuple[int, int]]:
  """Where protected pieces with line breaks stand, but for those that a block of code is in."""
  found = [(s.start, s.end) for s in protected_spans.across_lines(text)]
  if not found:
    return []
  parts = _BREAKS.split(text)
  fenced, closing, at = [], '', 0
  for line, end in zip(parts[::2], [*parts[1::2], ''], strict=True):
    fence = _FENCE.match(line)
    if closing or fence:
      fenced.append((at, at + len(line)))
    if closing:
      closing = '' if _closes(line, closing) else closing
    elif fence:
      closing = fence['mark']
    at += len(line) + len(end)
  return [(a, b) for a, b in found if not any(a < end and start < b for start, end in fenced)]


def _rows(lines: Sequence[str]) -> list[bool]:
  """For each line whether it belongs to a table whose rule is there, if with a single bar."""
  made = [False] * len(lines)
  for i, line in enumerate(lines):
    if '|' in line and _TABLE_RULE.match(line):
      above = i - 1 if i and '|' in lines[i - 1] else i
      below = next((k for k in range(i, len(lines)) if '|' not in lines[k]), len(lines))
      made[above:below] = [True] * (below - above)
  return made


def _stays(lines: Sequence[str]) -> list[bool]:
  """For each line whether it is left as it is: code, formulas, rules of tables, no words."""
  made: list[bool] = []
  closing: str | None = None
  for line in lines:
    if closing is not None:
      made.append(True)
      closing = None if _closes(line, closing) else closing
    elif (fence := _FENCE.match(line)) is not None:
      made.append(True)
      closing = fence['mark']
    elif (opened := _ENVIRONMENT.match(line)) is not None and (end := _end_of(opened)):
      made.append(True)
      closing = None if end in line[opened.end() :] else end
    else:
      made.append(bool(_TABLE_RULE.match(line)) or not _has_words(line))
      # A block may begin behind words: 'Explain: ```python'.
      closing = '```' if line.count('```') == 1 and _OPENS_LATE.search(line) else None
  for i, is_code in enumerate(_code_lines(lines)):
    made[i] = made[i] or is_code
  return made


def _code_lines(lines: Sequence[str]) -> list[bool]:
  """Lines of code outside of fences: those that look like it and have such a neighbour.

  Between two of them, up to three lines apart, comments and what is no prose are code as well.
  Prose ends in ';' too: a line by itself is taken for code only where it can be nothing else.
  """
  short = [len(line) <= _LONGEST_CODE for line in lines]
  sure = [s and bool(_SURELY.match(line)) for s, line in zip(short, lines, strict=True)]
  like = [
    sure[i] or (short[i] and bool(_CODE.match(line)) and _is_code(line))
    for i, line in enumerate(lines)
  ]
  rows_of_data = _comma_rows(lines)
  near = []
  for i, line in enumerate(lines):
    reach = 3 if line[:1].isspace() else 1  # a body may have words of its own in it
    near.append(any(like[max(0, i - reach) : i] + like[i + 1 : i + 1 + reach]))
  code = [sure[i] or (like[i] and near[i]) or rows_of_data[i] for i in range(len(lines))]
  code = [x or y for x, y in zip(code, _yaml(lines), strict=True)]
  marked = [i for i, is_code in enumerate(code) if is_code]
  for before, after in itertools.pairwise(marked):
    between = lines[before + 1 : after]
    if len([line for line in between if line.strip()]) <= 3:
      for i, line in enumerate(between, before + 1):
        code[i] = bool(_COMMENT.match(line)) or not _PROSE_END.search(line)
  return code


def _comma_rows(lines: Sequence[str]) -> list[bool]:
  """Rows of CSV: two lines or more with as many commas, two at least, and no space after any."""
  made = [False] * len(lines)
  counted = [(i, _commas(line)) for i, line in enumerate(lines)]
  for commas, group in itertools.groupby(counted, lambda pair: pair[1]):
    found = [i for i, _ in group]
    if commas >= 2 and len(found) >= 2:
      for i in found:
        made[i] = True
  return made


def _commas(line: str) -> int:
  """Commas between cells; 0 for a line of prose."""
  if len(line) > _LONGEST_CODE or ',' not in line:
    return 0
  bare = re.sub(r'"[^"]*"', '', line)
  return 0 if re.search(r',\s|[.!?]\s', bare) else bare.count(',')


def _yaml(lines: Sequence[str]) -> list[bool]:
  """Keys in lower case on three lines or more, one of which holds what is indented below it."""
  made = [False] * len(lines)
  for is_key, group in itertools.groupby(enumerate(lines), lambda x: bool(_KEY.match(x[1]))):
    found = list(group)
    nests = any(
      a.rstrip().endswith(':') and _indent(b) > _indent(a)
      for (_, a), (_, b) in itertools.pairwise(found)
    )
    if is_key and nests and len(found) >= 3:
      for i, _ in found:
        made[i] = True
  return made


def _indent(line: str) -> int:
  return len(line) - len(line.lstrip(' -'))


def _closes(line: str, closing: str) -> bool:
  if closing[0] in '`~':
    stripped = line.strip().lstrip('> ')
    return stripped.startswith(closing) and not stripped.strip(closing[0])
  return closing in line


def _end_of(opened: re.Match[str]) -> str:
  if opened['name']:
    return f'\\end{{{opened["name"]}}}'
  return '$$' if opened['dollars'] else '\\]'


def _is_code(line: str) -> bool:
  """Not four words in a row, unless they are in a comment or a string of it."""
  bare = re.sub(r'"[^"]*"|\'[^\']*\'|//.*|#.*|/\*.*', '', line)
  return not _PROSE_END.search(bare) or bool(_SHAPE.match(line))


def _has_words(text: str) -> bool:
  """Whether there is anything to translate: two letters together, or one that is a word.

  The letter of an option ('B') is none; a letter of a script without cases can be.
  """
  bare = ''.join(piece for piece, fixed in protected_spans.fragments(text) if not fixed)
  letters = [c for c in bare if c.isalpha()]
  return len(letters) > 1 or any(c.lower() == c.upper() for c in letters)


def _line(
  line: str, labels: frozenset[str], language: str, longest: int, *, is_row: bool
) -> list[Piece]:
  if is_row or _is_row(line):
    made = []
    for cell in _cells(line):
      fixed = cell in ('|', '\t')
      made += [Piece(cell, False)] if fixed else _text(cell, language, longest)
    return made
  made = []
  for marker, text in _options(line):
    at = _head(text)
    made += [Piece(marker + text[:at], False)]
    if (label := _LABEL.match(text, at)) and _key(label['label']) in labels:
      name = label['label'].rstrip()
      made += [Piece(name, True), Piece(text[at + len(name) : label.end()], False)]
      at = label.end()
    made += _text(text[at:], language, longest)
  return made


def _head(line: str) -> int:
  """Where what begins a line and is no language ends."""
  found = _HEAD.match(line, 0, _LONGEST_HEAD)
  end = found.end() if found else 0
  if not end or not line[:end].strip():
    return end
  # The number of a move in a game is none of a list.
  spans = protected_spans.find(line[: end + _NEAR])
  return next((s.start for s in spans if s.start < end < s.end), end)


def _options(line: str) -> list[tuple[str, str]]:
  """(mark, what follows it): the options of a line, '(A) red (B) blue'; one part without any."""
  found: list[re.Match[str]] = []
  for match in _OPTION.finditer(line):
    mark = match['letter'] or match['digit']
    wanted = chr(ord((found[-1]['letter'] or found[-1]['digit'])[0]) + 1) if found else mark
    if mark == wanted and (found or mark in 'Aa1'):
      found.append(match)
  if len(found) < 2:
    return [('', line)]
  ends = [*(m.start() for m in found[1:]), len(line)]
  texts = [(m[0], line[m.end() : end]) for m, end in zip(found, ends, strict=True)]
  return [('', line[: found[0].start()]), *texts]


def _labels(lines: Sequence[str]) -> frozenset[str]:
  """Labels of a text, 'Question' of 'Question: who?': known ones, and those that come again."""
  counted = collections.Counter(
    _key(found['label'])
    for line in lines
    if (
      found := _LABEL.match(
        line, head.end() if (head := _HEAD.match(line, 0, _LONGEST_HEAD)) else 0
      )
    )
  )
  return frozenset(label for label, n in counted.items() if n > 1 or label in _LABELS)


def _key(label: str) -> str:
  return re.sub(r'\s+', '_', label.strip().lower()).replace('.', '')


def _is_row(line: str) -> bool:
  return _cells(line).count('|') >= 2 or '\t' in line.strip()


def _cells(line: str) -> list[str]:
  """A line cut at its bars and tabs, which are pieces too; those of fields and code cut nothing."""
  bars = list(re.finditer(r'(?<!\\)\||\t', line))
  if not bars:
    return [line]
  made, at = [], 0
  fixed = [s for s in protected_spans.find(line) if s.kind in ('field', 'code')]
  starts = [s.start for s in fixed]
  for bar in bars:
    before = bisect.bisect_left(starts, bar.start())
    if not (before and bar.start() < fixed[before - 1].end - 1):
      made += [line[at : bar.start()], bar[0]]
      at = bar.end()
  return [*made, line[at:]]


def _text(text: str, language: str, longest: int) -> list[Piece]:
  """Sentences, and the white space between them."""
  made = []
  for sentence in _whole(sentences.split(text, language, longest), text):
    core = sentence.strip()
    at = sentence.find(core) if core else len(sentence)
    ends = sentence[at + len(core) :]
    made += [Piece(sentence[:at], False), Piece(core, _has_words(core)), Piece(ends, False)]
  return made


def _whole(parts: Sequence[str], text: str) -> list[str]:
  """Sentences joined again where an end fell into a protected piece (a dot in a URL)."""
  spans = protected_spans.find(text)
  starts = [span.start for span in spans]
  made: list[str] = []
  at, glue = 0, False
  for part in parts:
    if glue:
      made[-1] += part
    else:
      made.append(part)
    at += len(part)
    before = bisect.bisect_left(starts, at)
    glue = bool(before) and at < spans[before - 1].end
  return made

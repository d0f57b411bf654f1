"""Finds what the documentation shows: commands, snippets, and files that they read.

A code block is commands (```bash, or indented by four spaces), a snippet (```python), or a file:
its first line is a comment that names it. A fence without a language is a listing, of a folder or
of what a program prints. Code in a line of text is a command if it begins with a program's name and
has arguments.
"""

import ast
import contextlib
import dataclasses
import pathlib
import re
import shlex
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
# In the order in which a reader meets them.
PAGES = (
  'README.md',
  *(f'docs/{name}.md' for name in ('running', 'inference', 'macros', 'data', 'mixtures')),
  *(
    f'docs/{name}.md'
    for name in ('convert', 'quantised', 'tpu', 'objectives', 'benchmarks', 'performance')
  ),
  *(f'docs/{name}.md' for name in ('evaluation', 'metrics', 'report_eval', 'judging')),
  *(f'docs/{name}.md' for name in ('annotation', 'translation', 'reliability')),
  *(f'docs/{name}.md' for name in ('embeddings', 'embedding_use', 'lora', 'preference')),
  *('docs/design.md', 'docs/recipe.md', 'launch/README.md', 'examples/README.md'),
  'CONTRIBUTING.md',
)
PROGRAMS = (
  *('aya-train', 'bash', 'python', 'pip', 'pytest', 'launch/tpu_pod', 'launch/gke/apply', 'uv'),
  *(
    'hf',
    'ct2-transformers-converter',
    'llama-completion',
    'llama-simple',
    'git',
    'kubectl',
    'gcloud',
    'docker',
    'xpk',
    'ruff',
    'lint-imports',
    'cat',
    'printf',
  ),
)
BEGINS = re.compile(rf'(?:[A-Z_]+=\S* )*(?:{"|".join(PROGRAMS)})(?=\s|$)')
_FILE = re.compile(r'^(?:#|\{#|//) (\S+\.\w+)(?: #\})?$')


@dataclasses.dataclass(frozen=True)
class Shown:
  """Something that the documentation shows.

  Attributes:
    page, line: where.
    kind: 'command', 'name' (a command without its arguments), 'file', 'listing', or the language of
      a snippet.
    text: a command with its continuation lines, else the whole block.
    file: name of a file that is shown.
  """

  page: str
  line: int
  kind: str
  text: str
  file: str = ''

  def __str__(self) -> str:
    return f'{self.page}:{self.line} {" ".join(self.text.split())[:100]}'


def blocks(page: str, text: str) -> Iterator[tuple[int, str, str]]:
  """Line, language and text of each code block; indented ones are bash, untagged ones ''."""
  lines = text.splitlines()
  i = 0
  while i < len(lines):
    if fence := re.match(r'( *)(```+)(\w*)$', lines[i]):
      end = next((j for j in range(i + 1, len(lines)) if lines[j].strip() == fence[2]), None)
      if end is None:
        raise ValueError(f'{page}:{i + 1}: a code block without an end')
      body = [line.removeprefix(fence[1]) for line in lines[i + 1 : end]]
      yield i + 2, fence[3], '\n'.join(body)
      i = end + 1
    elif lines[i].startswith('    ') and (i == 0 or not lines[i - 1].strip()):
      end = i
      while end < len(lines) and (lines[end].startswith('    ') or not lines[end].strip()):
        end += 1
      yield i + 1, 'bash', '\n'.join(line[4:] for line in lines[i:end]).rstrip()
      i = end
    else:
      i += 1


def prose(text: str) -> Iterator[tuple[int, str]]:
  """Line and text of each piece of code inside a line of text; it may go on in the next line."""
  lines = text.splitlines()
  for start, _, body in list(blocks('', text)):
    for i in range(max(start - 2, 0), min(start + body.count('\n') + 1, len(lines))):
      lines[i] = ''
  for paragraph in re.finditer(r'(?:.+\n?)+', '\n'.join(lines)):
    for span in re.finditer(r'`([^`]+)`', paragraph[0]):
      line = text_line('\n'.join(lines), paragraph.start() + span.start())
      yield line, ' '.join(span[1].split())


def text_line(text: str, position: int) -> int:
  return text.count('\n', 0, position) + 1


def split(block: str) -> Iterator[tuple[int, str]]:
  """The commands of a block with the number of their first line, comments left out."""
  held: list[str] = []
  first = 0
  end = None
  for number, line in enumerate(block.splitlines()):
    if not held and (not line.strip() or line.lstrip().startswith('#')):
      continue
    first = first if held else number
    held.append(line if end else _without_comment(line))
    if end is not None:
      end = None if line == end else end
    elif here := re.search(r"<<-?\s*'?(\w+)'?", line):
      end = here[1]
    if end is None and _whole(held):
      yield first, '\n'.join(held)
      held = []
  if held:
    raise ValueError(f'a command without an end: {held}')


def _without_comment(line: str) -> str:
  """A line of a shell without the remark at its end."""
  for found in re.finditer(r'\s+#', line):
    before = line[: found.start()]
    with contextlib.suppress(ValueError):  # inside quotes
      shlex.split(before)
      return before
  return line


def _whole(lines: list[str]) -> bool:
  if lines[-1].endswith('\\'):
    return False
  if '<<' in lines[0]:
    return True
  try:
    shlex.split('\n'.join(lines), comments=True)
  except ValueError:
    return False
  return True


def of_page(page: str) -> Iterator[Shown]:
  """Everything that a page of Markdown shows, in its order."""
  text = (ROOT / page).read_text(encoding='utf-8')
  found = [*_of_blocks(page, text), *_of_prose(page, text)]
  yield from sorted(found, key=lambda shown: shown.line)


def _of_blocks(page: str, text: str) -> Iterator[Shown]:
  for line, language, body in blocks(page, text):
    name = _FILE.match(body.split('\n')[0])
    if name and language != 'bash':
      yield Shown(page, line, 'file', body + '\n', name[1])
    elif language == 'bash':
      for number, command in split(body):
        yield Shown(page, line + number, 'command', command)
    else:
      yield Shown(page, line, language or 'listing', body)


def _of_prose(page: str, text: str) -> Iterator[Shown]:
  for line, code in prose(text):
    if BEGINS.match(code) and ' ' in code:
      name = re.fullmatch(r'(aya-train|launch/tpu_pod) \w+', code)
      yield Shown(page, line, 'name' if name else 'command', code)


def in_comments(path: str) -> Iterator[Shown]:
  """Commands in comments at the head of a file: `# aya-train ...`, and lines that continue it."""
  lines = (ROOT / path).read_text(encoding='utf-8').splitlines()
  head = []
  for line in lines[lines[0].startswith('#!') :]:
    if not line.startswith('#'):
      break
    head.append(line.removeprefix('#'))
  offset = 1 + lines[0].startswith('#!')
  yield from _in_text(path, offset, head)


def in_docstring(path: str) -> Iterator[Shown]:
  """Commands on lines of their own in the docstring of a program."""
  source = (ROOT / path).read_text(encoding='utf-8')
  node = ast.parse(source).body[0]
  text = ast.get_docstring(ast.parse(source), clean=False) or ''
  yield from _in_text(path, node.lineno, text.splitlines())


def in_epilog() -> Iterator[Shown]:
  """The examples of `aya-train --help`."""
  from aya_train.cli import main

  source = (ROOT / 'aya_train/cli/main.py').read_text(encoding='utf-8')
  line = source[: source.index('EPILOG =')].count('\n') + 1
  yield from _in_text('aya_train/cli/main.py', line, main.EPILOG.splitlines())


def _in_text(path: str, offset: int, lines: list[str]) -> Iterator[Shown]:
  held: list[str] = []
  first = 0
  for number, line in enumerate(lines):
    if not held and not BEGINS.match(line.strip()):
      continue
    first = offset + number if not held else first
    held.append(_without_comment(line.strip()))
    if path.endswith('.sh'):  # what follows a gap is a remark
      held[-1] = re.sub(r'(?<=\S) {3,}\S.*', '', held[-1])
    if not line.endswith('\\'):
      yield Shown(path, first, 'command', '\n'.join(held))
      held = []


def everything() -> list[Shown]:
  """All that README, docs, launch and the heads of files show, in the order of a reader."""
  found = [shown for page in PAGES for shown in of_page(page)]
  found += in_epilog()
  for folder in ('gin', 'launch'):
    for path in sorted((ROOT / folder).rglob('*')):
      if path.suffix in ('.gin', '.sh') or path.name == 'Dockerfile':
        found += in_comments(str(path.relative_to(ROOT)))
  programs = [
    *sorted((ROOT / 'benchmarks').glob('*.py')),
    *sorted((ROOT / 'aya_train').glob('*.py')),
  ]
  for path in [ROOT / 'launch/tpu_pod', ROOT / 'launch/gke/apply', *programs]:
    found += in_docstring(str(path.relative_to(ROOT)))
  return found

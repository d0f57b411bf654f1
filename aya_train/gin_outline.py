"""What gin files and bindings define, read as text: no module that they import is imported.

Those modules take seconds, and what is most often wrong (a file's name, a macro's name, a macro
without a value) shows without them.
"""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from gin import config_parser

from aya_train import gin_text, path_facts
from aya_train.tasks.building import text_files

CONFIGS = epath.Path(__file__).parent / 'configs'
_MACRO = re.compile(r'[A-Z][A-Z0-9_]*')


def check(
  gin_files: Sequence[str],
  bindings: Sequence[str],
  search_paths: Sequence[str],
  *,
  require_all: bool = True,
) -> None:
  """Looks for every file, the name of every macro that is bound, and macros still required.

  What cannot be read as gin is passed over: gin's own parser says where it stands.

  Args:
    gin_files: looked for in the working directory, then in `search_paths`, as what they include.
    bindings: 'NAME = VALUE' lines that follow the files.
    search_paths: folders that are tried before the package's own.
    require_all: refuse a macro that is still `%gin.REQUIRED`.

  Raises:
    FileNotFoundError: a file is nowhere.
    ValueError: a binding of a macro that no file defines, or a macro without a value.
  """
  outline = _Outline([*search_paths, str(CONFIGS)])
  for name in gin_files:
    outline.add_file(name, top=name)
  known = sorted(outline.macros)
  for binding in bindings:
    if outline.is_readable:
      check_known(binding, known)
    outline.add_text(binding, top='--gin_bindings')
  if require_all and outline.is_readable:
    check_given(outline.macros)


def check_known(binding: str, known: Sequence[str]) -> None:
  """Refuses a binding of a macro that is not known; one of a parameter is not looked at.

  Raises:
    ValueError: with the macros whose names are close.
  """
  name = binding.partition('=')[0].strip()
  if _MACRO.fullmatch(name) and name not in known:
    close = difflib.get_close_matches(name, known, 3)
    raise ValueError(
      f'unknown gin macro {name}: no gin file given defines it'
      + (f'; did you mean {" or ".join(close)}?' if close else f'; defined are {", ".join(known)}')
    )


def check_given(macros: Mapping[str, Any]) -> None:
  """Refuses macros that are still `%gin.REQUIRED`.

  Raises:
    ValueError: with their names.
  """
  if missing := sorted(name for name, value in macros.items() if gin_text.is_required(value)):
    example = f'--gin.{missing[0]}=...'
    raise ValueError(f'required macros without a value: {", ".join(missing)}; give each, {example}')


class _Outline:
  """What has been read so far.

  Attributes:
    macros: their values, the last that was given.
    is_readable: whether all of it was gin; else `macros` may lack some.
  """

  def __init__(self, search_paths: Sequence[str]):
    self.macros: dict[str, Any] = {}
    self.is_readable = True
    self._search_paths = search_paths

  def add_file(self, name: str, top: str, within: tuple[str, ...] = ()) -> None:
    """Reads a file and what it includes; `top` is what the user gave, `within` the files around."""
    folders = ('',) if os.path.isabs(name) else ('', *self._search_paths)
    paths = [path for folder in folders if path_facts.is_file(path := os.path.join(folder, name))]
    if not paths:
      raise FileNotFoundError(_missing(name, top, self._search_paths))
    try:
      text = text_files.read(paths[0])
    except (OSError, ValueError):
      text = None
    if text is None or name in within:
      self.is_readable = False
    else:
      self.add_text(text, top, (*within, name))

  def add_text(self, text: str, top: str, within: tuple[str, ...] = ()) -> None:
    """Reads a text; arguments as those of `add_file`."""
    try:
      statements = list(gin_text.statements(text))
    except ValueError:
      self.is_readable = False
      return
    for statement in statements:
      if isinstance(statement, config_parser.IncludeStatement):
        self.add_file(statement.filename, top, within)
      elif isinstance(statement, config_parser.BindingStatement) and not (
        statement.arg_name or statement.scope
      ):
        self.macros[statement.selector] = statement.value


def _missing(name: str, top: str, search_paths: Sequence[str]) -> str:
  place = '' if name == top else f', which {top} includes'
  shipped = sorted(
    str(path.relative_to(CONFIGS))
    for pattern in ('*.gin', '*/*.gin')
    for path in path_facts.matching(CONFIGS, pattern)
  )
  close = difflib.get_close_matches(name, shipped, 3, 0.4)
  return f'no gin file {name!r}{place}, in the working directory or {list(search_paths)}' + (
    f'; did you mean {" or ".join(close)}?' if close else f'; shipped are {shipped}'
  )

"""Prompt templates in Jinja's sandbox: a row in, inputs and targets out.

This file is also a program: `template_worker` runs it in a process of its own, with little memory,
no right to write files and a clock outside, because a sandbox alone cannot stop a template that
loops for ever or doubles a string forty times. So it imports jinja2 and the standard library only.

The language is promptsource's (Bach et al. 2022, github.com/bigscience-workshop/promptsource):
`|||` between inputs and targets, `answer_choices` (split at `|||` too), the filters `choice` and
`most_frequent`, and `zip`. Unlike there, random picks are a function of seed, template and row,
null prints nothing, and a name that no row has is told and not printed as nothing.
"""

import collections
import hashlib
import json
import math
import random
import re
import resource
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
import jinja2.compiler
import jinja2.filters
import jinja2.meta
import jinja2.nodes
import jinja2.sandbox

SEPARATOR = '|||'
# What stands for '|||' inside a row's own text while a template is rendered: one character, which
# no slice can cut, and a lone surrogate, which no text has. promptsource's templates split at its
# own word for it.
_PROTECTED = '\ud8ff'
_PROTECTED_THERE = '3ed2dface8203c4c9dfb1a5dc58e41e0'
MAX_RANGE = 1_000
_MOST_POWERS = 1_000
_LONG_WIDTH = re.compile(r'\d{6}')
_LONGEST_TEMPLATE = 30_000  # characters; promptsource's longest has 4,000
MAX_OUTPUT = 200_000
ROW_SECONDS = 1.0


_GUARDS = ('defined', 'undefined')
_DEFAULTS = ('default', 'd')


class TemplateProblemError(ValueError):
  """A template that cannot be read, or breaks a limit on a row."""


class _WithoutFolding(jinja2.compiler.CodeGenerator):
  """Leaves constants to the rendering, which has limits: `{{ 'x' * 10 ** 10 }}` needs 10 GB."""

  def _output_child_to_const(self, node: Any, frame: Any, finalize: Any) -> str:
    if isinstance(node, jinja2.nodes.TemplateData):
      return super()._output_child_to_const(node, frame, finalize)
    raise jinja2.nodes.Impossible


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
  """No loader (so no include, import or extends), no globals beside a few harmless ones."""

  code_generator_class = _WithoutFolding
  intercepted_binops = frozenset(['*', '**', '%'])

  def __init__(self, max_characters: int | None):
    self.blank: dict[str, list[str]] = {}
    self.seen: set[str] = set()
    super().__init__(
      autoescape=False,
      finalize=_Shorten(max_characters),
      undefined=_noticing(self.blank),
      cache_size=0,
      optimized=False,
    )
    self.globals = {'range': _limited_range, 'zip': zip, 'dict': dict, 'namespace': _namespace()}
    self.filters['choice'] = self._choice
    self.filters['random'] = self._choice
    self.filters['most_frequent'] = most_frequent
    for name in ('pprint', 'xmlattr', 'urlize', 'tojson'):
      del self.filters[name]
    self.random = random.Random(0)

  def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
    sizes = [len(x) for x in (left, right) if isinstance(x, str | bytes | Sequence)]
    factors = [x for x in (left, right) if isinstance(x, int)]
    if operator == '*' and sizes and factors and sizes[0] * factors[0] > MAX_OUTPUT:
      raise TemplateProblemError(f'a text or list is repeated to over {MAX_OUTPUT:,} elements')
    if operator == '**' and len(factors) == 2 and abs(left) > 1 and right > _MOST_POWERS:
      raise TemplateProblemError(f'a number to the power of {right:,}')
    if operator == '%' and isinstance(left, str) and _LONG_WIDTH.search(left):
      raise TemplateProblemError(f'a format with a width of over {MAX_OUTPUT:,} characters')
    return super().call_binop(context, operator, left, right)

  def getitem(self, obj: Any, argument: Any) -> Any:
    return self._see(obj, argument, super().getitem(obj, argument))

  def getattr(self, obj: Any, attribute: str) -> Any:
    return self._see(obj, attribute, super().getattr(obj, attribute))

  def _see(self, obj: Any, name: Any, value: Any) -> Any:
    if isinstance(obj, Mapping) and not isinstance(value, jinja2.Undefined):
      self.seen.add(str(name))
    return value

  # With the context as argument: else Jinja picks once, when it folds constants.
  @jinja2.pass_context
  def _choice(self, context: Any, values: Iterable[Any]) -> Any:
    del context
    values = list(values)
    if not values:
      raise TemplateProblemError('choice of an empty list')
    return self.random.choice(values)


def _noticing(blank: dict[str, list[str]]) -> type[jinja2.Undefined]:
  """What stands for a name that is not there; notes fields of objects that are printed anyway.

  Args:
    blank: gets field -> those that the object has.
  """

  class Noticing(jinja2.Undefined):
    __slots__ = ()

    def __str__(self) -> str:
      if isinstance(self._undefined_obj, Mapping):
        blank.setdefault(str(self._undefined_name), sorted(map(str, self._undefined_obj)))
      return ''

  return Noticing


class _Shorten:
  """Prints null as nothing; cuts what each `{{ ... }}` prints, at a word.

  promptsource cuts at 2,048 characters.
  """

  def __init__(self, max_characters: int | None):
    self.max_characters = max_characters

  def __call__(self, value: Any) -> Any:
    if value is None:
      return ''
    if self.max_characters is None or isinstance(value, jinja2.Undefined):
      return value
    text = str(value)
    whole = text.replace(_PROTECTED, SEPARATOR)
    if len(whole) <= self.max_characters + 5:
      return text
    cut = whole[: self.max_characters - 3].rsplit(' ', 1)[0] + '...'
    return cut.replace(SEPARATOR, _PROTECTED)


def _namespace() -> Any:
  return jinja2.Environment().globals['namespace']


def _limited_range(*arguments: int) -> range:
  numbers = range(*arguments)
  if len(numbers) > MAX_RANGE:
    raise TemplateProblemError(f'range of {len(numbers):,} numbers, at most {MAX_RANGE:,}')
  return numbers


def most_frequent(values: Iterable[Any]) -> list[Any]:
  """The values that occur most often; the first of them first."""
  counts = collections.Counter(values)
  return [value for value, n in counts.items() if n == max(counts.values())]


def _optional(tree: jinja2.nodes.Template) -> set[str]:
  """Columns for which a template asks whether they are there."""
  return {
    node.node.name
    for kind, names in ((jinja2.nodes.Test, _GUARDS), (jinja2.nodes.Filter, _DEFAULTS))
    for node in tree.find_all(kind)
    if node.name in names and isinstance(node.node, jinja2.nodes.Name)
  }


class Template:
  """A compiled template.

  Attributes:
    reads: columns that it reads, where they are there.
    columns: of these, those for which it does not ask whether they are there (`is defined`,
      `default`).

  Raises:
    TemplateProblemError: a syntax error, with its line.
  """

  def __init__(
    self,
    name: str,
    jinja: str,
    answer_choices: str | None = None,
    *,
    seed: int = 0,
    max_characters: int | None = None,
  ):
    self.name = name
    self._seed = seed
    self._environment = _Environment(max_characters)
    if (size := max(len(jinja), len(answer_choices or ''))) > _LONGEST_TEMPLATE:
      raise TemplateProblemError(
        f'template {name!r} has {size:,} characters, expected at most {_LONGEST_TEMPLATE:,}; texts '
        'of that length belong into a column'
      )
    texts = [t.replace(_PROTECTED_THERE, _PROTECTED) for t in (jinja, answer_choices or '')]
    try:
      self._template = self._environment.from_string(texts[0])
      self._choices_environment = _Environment(None)
      self._choices = self._choices_environment.from_string(texts[1]) if answer_choices else None
      trees = [self._environment.parse(text) for text in texts]
      own = {*self._environment.globals} | ({'answer_choices'} if answer_choices else set())
      reads = [jinja2.meta.find_undeclared_variables(tree) for tree in trees]
      needs = [found - _optional(tree) for found, tree in zip(reads, trees, strict=True)]
      self.reads = sorted({name for found in reads for name in found} - own)
      self.columns = sorted({name for found in needs for name in found} - own)
    except jinja2.TemplateSyntaxError as error:
      raise TemplateProblemError(f'template {name!r}, line {error.lineno}: {error}') from error
    except (SyntaxError, RecursionError) as error:  # of the Python that Jinja makes of it
      raise TemplateProblemError(f'template {name!r}: {str(error)[:200]}') from error

  def blank_fields(self) -> dict[str, list[str]]:
    """Fields that were printed and that no object had, each with the fields of the first one."""
    blank, seen = self._environment.blank, self._environment.seen
    return {name: fields for name, fields in blank.items() if name not in seen}

  def apply(self, row: Mapping[str, Any], number: int) -> tuple[str, str] | None:
    """Inputs and targets of a row; None where the template gives not exactly one target.

    Args:
      row: the columns; '-' in a name becomes '_'.
      number: of the row, which with the seed and the template's name decides random picks.

    Raises:
      TemplateProblemError: the template fails on this row.
    """
    found = self.apply_with_options(row, number)
    return None if found is None else found[:2]

  def apply_with_options(
    self, row: Mapping[str, Any], number: int
  ) -> tuple[str, str, list[str]] | None:
    """`apply`, and the row's `answer_choices`; [] for a template that has none."""
    key = f'{self._seed}/{self.name}/{number}'.encode()
    for environment in (self._environment, self._choices_environment):
      environment.random = random.Random(hashlib.sha256(key).digest())
    columns = {name.replace('-', '_'): _protect(value) for name, value in row.items()}
    options: list[str] = []
    try:
      if self._choices is not None:
        choices = self._choices.render(**columns).split(SEPARATOR)
        columns['answer_choices'] = [choice.strip() for choice in choices]
        options = [choice.replace(_PROTECTED, SEPARATOR) for choice in columns['answer_choices']]
      rendered = self._template.render(**columns)
    except TemplateProblemError:
      raise
    except Exception as error:
      raise TemplateProblemError(f'{type(error).__name__}: {str(error)[:200]}') from error
    if len(rendered) > MAX_OUTPUT:
      raise TemplateProblemError(f'{len(rendered):,} characters, at most {MAX_OUTPUT:,}')
    parts = [part.strip().replace(_PROTECTED, SEPARATOR) for part in rendered.split(SEPARATOR)]
    if len(parts) != 2 or not all(parts):
      return None
    return parts[0], parts[1], options


def pick(seed: int, number: int, count: int) -> int:
  """Which of `count` templates a row gets."""
  digest = hashlib.sha256(f'{seed}/{number}'.encode()).digest()
  return int.from_bytes(digest[:8], 'little') % count


def _protect(value: Any) -> Any:
  if isinstance(value, str):
    if _PROTECTED in value:
      raise TemplateProblemError('a lone surrogate, U+D8FF, which is no text')
    return value.replace(SEPARATOR, _PROTECTED)
  if isinstance(value, Mapping):
    return {name: _protect(inner) for name, inner in value.items()}
  if isinstance(value, list | tuple):
    return [_protect(inner) for inner in value]
  return value


# The process ------------------------------------------------------------------------------------


def _limit(megabytes: int) -> None:
  resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
  for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
    resource.setrlimit(limit, (0, 0))
  files = len(sys.path) + 16
  resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


def _too_long(*unused: Any) -> None:
  raise TimeoutError(f'over {ROW_SECONDS:g} s')


def _set_clock(seconds: float) -> None:
  """Time of the processor until the alarm, and some later the end of the process; 0 for no end.

  Not of the wall: a busy machine, or one that was suspended, is not the template's fault.
  """
  signal.setitimer(signal.ITIMER_PROF, seconds)
  _, hard = resource.getrlimit(resource.RLIMIT_CPU)
  soft = math.ceil(time.process_time() + 2 * seconds) if seconds else hard
  if hard != resource.RLIM_INFINITY:
    soft = min(soft, hard)
  resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def answer(request: Mapping[str, Any], templates: Sequence[Template]) -> list[Any]:
  """Renders rows; [inputs, targets, options] or None of each, up to the first {'problem': ...}.

  Args:
    request: `template`, index into `templates`; `rows` and their `numbers`.
    templates: compiled.
  """
  results: list[Any] = []
  for number, row in zip(request['numbers'], request['rows'], strict=True):
    _set_clock(ROW_SECONDS)
    try:
      results.append(templates[request['template']].apply_with_options(row, number))
    except TemplateProblemError as error:
      results.append({'problem': str(error)})
      break  # the whole set is refused; the rows after it could take a second each
    except (TimeoutError, MemoryError, RecursionError) as error:
      results.append({'problem': f'{type(error).__name__}: {error}'})
      break
    finally:
      _set_clock(0)
  return results


def main() -> None:
  """Reads a line of templates, then lines of requests; writes a line for each."""
  settings = json.loads(sys.stdin.readline())
  signal.signal(signal.SIGPROF, _too_long)
  _limit(settings['megabytes'])
  templates = []
  for arguments in settings['templates']:
    # Compiling computes constants, so it needs the same limits.
    _set_clock(ROW_SECONDS)
    try:
      templates.append(Template(**arguments))
    except (TemplateProblemError, TimeoutError, MemoryError, RecursionError) as error:
      problem = f'template {arguments["name"]!r}: {type(error).__name__}: {error}'
      print(json.dumps({'problem': problem}), flush=True)
      return
    finally:
      _set_clock(0)
  print(json.dumps({'ready': [[t.columns, t.reads] for t in templates]}), flush=True)
  for line in sys.stdin:
    request = json.loads(line)
    results = answer(request, templates)
    blank = templates[request['template']].blank_fields()
    print(json.dumps({'results': results, 'blank': blank}), flush=True)


if __name__ == '__main__':
  main()

"""Prompt templates in Jinja's sandbox: a row in, inputs and targets out.

This file is also a program: `template_worker` runs it in a process of its own, with little memory,
no right to write files and a clock outside, because a sandbox alone cannot stop a template that
loops for ever or doubles a string forty times. So it imports jinja2 and the standard library only.

The language is promptsource's (Bach et al. 2022, github.com/bigscience-workshop/promptsource):
`|||` between inputs and targets, `answer_choices` (split at `|||` too), the filters `choice` and
`most_frequent`, and `zip`. Unlike there, random picks are a function of seed, template and row.
"""

import collections
import hashlib
import json
import random
import resource
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
import jinja2.filters
import jinja2.sandbox

SEPARATOR = '|||'
# What stands for '|||' inside a row's own text while a template is rendered.
_PROTECTED = '\ue000\ue001\ue000'
MAX_RANGE = 1_000
MAX_OUTPUT = 200_000
ROW_SECONDS = 1.0


class TemplateProblemError(ValueError):
  """A template that cannot be read, or breaks a limit on a row."""


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
  """No loader (so no include, import or extends), no globals beside a few harmless ones."""

  def __init__(self, max_characters: int | None):
    super().__init__(autoescape=False, finalize=_Shorten(max_characters), cache_size=0)
    self.globals = {'range': _limited_range, 'zip': zip, 'dict': dict, 'namespace': _namespace()}
    self.filters['choice'] = self._choice
    self.filters['random'] = self._choice
    self.filters['most_frequent'] = most_frequent
    for name in ('pprint', 'xmlattr', 'urlize', 'tojson'):
      del self.filters[name]
    self.random = random.Random(0)

  # With the context as argument: else Jinja picks once, when it folds constants.
  @jinja2.pass_context
  def _choice(self, context: Any, values: Iterable[Any]) -> Any:
    del context
    values = list(values)
    if not values:
      raise TemplateProblemError('choice of an empty list')
    return self.random.choice(values)


class _Shorten:
  """Cuts what each `{{ ... }}` prints, at a word; promptsource cuts at 2,048 characters."""

  def __init__(self, max_characters: int | None):
    self.max_characters = max_characters

  def __call__(self, value: Any) -> Any:
    if self.max_characters is None or isinstance(value, jinja2.Undefined):
      return value
    text = str(value)
    if len(text) <= self.max_characters + 5:
      return text
    return text[: self.max_characters - 3].rsplit(' ', 1)[0] + '...'


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


class Template:
  """A compiled template.

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
    try:
      self._template = self._environment.from_string(jinja)
      self._choices = None if not answer_choices else _Environment(None).from_string(answer_choices)
    except jinja2.TemplateSyntaxError as error:
      raise TemplateProblemError(f'template {name!r}, line {error.lineno}: {error}') from error

  def apply(self, row: Mapping[str, Any], number: int) -> tuple[str, str] | None:
    """Inputs and targets of a row; None where the template gives not exactly one target.

    Args:
      row: the columns; '-' in a name becomes '_'.
      number: of the row, which with the seed and the template's name decides random picks.

    Raises:
      TemplateProblemError: the template fails on this row.
    """
    key = f'{self._seed}/{self.name}/{number}'.encode()
    self._environment.random = random.Random(hashlib.sha256(key).digest())
    columns = {name.replace('-', '_'): _protect(value) for name, value in row.items()}
    try:
      if self._choices is not None:
        choices = self._choices.render(**columns).split(SEPARATOR)
        columns['answer_choices'] = [choice.strip() for choice in choices]
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
    return parts[0], parts[1]


def pick(seed: int, number: int, count: int) -> int:
  """Which of `count` templates a row gets."""
  digest = hashlib.sha256(f'{seed}/{number}'.encode()).digest()
  return int.from_bytes(digest[:8], 'little') % count


def _protect(value: Any) -> Any:
  if isinstance(value, str):
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


def answer(request: Mapping[str, Any], templates: Sequence[Template]) -> list[Any]:
  """Renders rows; [inputs, targets] or None of each, up to the first {'problem': ...}.

  Args:
    request: `template`, index into `templates`; `rows` and their `numbers`.
    templates: compiled.
  """
  results: list[Any] = []
  for number, row in zip(request['numbers'], request['rows'], strict=True):
    signal.setitimer(signal.ITIMER_REAL, ROW_SECONDS)
    try:
      results.append(templates[request['template']].apply(row, number))
    except (TemplateProblemError, TimeoutError, MemoryError, RecursionError) as error:
      results.append({'problem': f'{type(error).__name__}: {error}'})
      break  # the whole set is refused; the rows after it could take a second each
    finally:
      signal.setitimer(signal.ITIMER_REAL, 0)
  return results


def main() -> None:
  """Reads a line of templates, then lines of requests; writes a line for each."""
  settings = json.loads(sys.stdin.readline())
  signal.signal(signal.SIGALRM, _too_long)
  _limit(settings['megabytes'])
  templates = []
  for arguments in settings['templates']:
    # Compiling computes constants, so it needs the same limits.
    signal.setitimer(signal.ITIMER_REAL, ROW_SECONDS)
    try:
      templates.append(Template(**arguments))
    except (TemplateProblemError, TimeoutError, MemoryError, RecursionError) as error:
      problem = f'template {arguments["name"]!r}: {type(error).__name__}: {error}'
      print(json.dumps({'problem': problem}), flush=True)
      return
    finally:
      signal.setitimer(signal.ITIMER_REAL, 0)
  print(json.dumps({'ready': len(templates)}), flush=True)
  for line in sys.stdin:
    print(json.dumps(answer(json.loads(line), templates)), flush=True)


if __name__ == '__main__':
  main()

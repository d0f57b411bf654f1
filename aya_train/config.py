"""Gin: search paths, files, macros from the command line, and what is checked before anything runs.

The only module that knows what gin holds; everything else takes plain arguments. Parsing changes
that and nothing else: what the tasks share is set where a command begins, by `configure_*`.
"""

import contextlib
import copy
import inspect
import io
import math
import os
import re
import sys
import tokenize
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gin
from etils import epath
from gin import config_parser, resource_reader

from aya_train import (
  gin_outline,
  gin_text,
  moved_modules,
  path_facts,
  run_dir,
  task_registration,
  user_code,
  value_types,
)
from aya_train.data import feature_converters
from aya_train.tasks import shared_vocabulary
from aya_train.tasks.building import text_files

CONFIGS = gin_outline.CONFIGS
_OF_PATHS = re.compile(r'(?:^|_)(?:dir|file|path|table|summarie|folder)s?$', re.IGNORECASE)
# Of macros that no function takes as a parameter.
_MACRO_TYPES: Mapping[str, Any] = {
  **dict.fromkeys(
    ('VOCABULARY_FILE', 'MIXTURE_OR_TASK_MODULE', 'DATA_LICENSE_POLICY'),
    str | None,
  ),
  **dict.fromkeys(('QUERY_PROMPT', 'PASSAGE_PROMPT'), str | None),
  **dict.fromkeys(('MODEL_DIR', 'DATA_PROVENANCE_SUMMARIES', 'EVAL_DATA_DIR'), str | None),
  'DATASET_TABLES': Sequence[str] | None,
  'MIXTURE_WITHIN_SOURCE': str | Mapping[str, str] | None,
  'MIXTURE_DATASET_WEIGHTS': Mapping[str, Mapping[str, float]] | None,
  'MIXTURE_MISSING_SOURCES': str | None,
  'MIXTURE_OR_TASK_NAME': str | Sequence[str] | None,  # several for `eval` alone
  'VOCABULARY': shared_vocabulary.TextVocabulary,  # or another object of a reference
}
_PATH = re.compile(r'_(DIR|FILE|PATH|SUMMARIES)$')
_LONGEST_VALUE = 500  # characters of a value that a message repeats
# Imports of modules that are not ours.
_OTHERS = re.compile(r'^(?:from|import)\s+(?!aya_train\b|__gin__\b)\w', re.MULTILINE)


def parse(
  gin_files: Sequence[str],
  bindings: Sequence[str] = (),
  search_paths: Sequence[str] = (),
  *,
  require_all: bool = True,
) -> None:
  """Reads gin files, then bindings, and finalises the configuration.

  Files are looked for in the working directory, in `search_paths`, and among those that come with
  the package (`aya101.gin`, `models/mt5_tiny.gin` ...).

  Args:
    gin_files: at least one.
    bindings: 'NAME = VALUE' lines that override the files.
    search_paths: more folders, tried before the package's own.
    require_all: refuse a macro that is still `%gin.REQUIRED`.

  Raises:
    FileNotFoundError: a file is nowhere.
    ValueError: a value that is no gin literal, an unknown macro or parameter, a missing macro.
  """
  gin_outline.check(gin_files, bindings, search_paths, require_all=require_all)
  gin.clear_config()
  _read_no_packages()
  for path in [*search_paths, str(CONFIGS)]:
    gin.add_config_file_search_path(path)
  for name in gin_files:
    _parse_file(name)
  known = sorted(gin_text.macros(gin.config_str()))
  for binding in bindings:
    gin_outline.check_known(binding, known)
    _parse_binding(binding)
  _expand_home()
  _check_finite()
  if (lengths := macro('TASK_FEATURE_LENGTHS')) is not None:
    feature_converters.check_lengths(lengths)
  if require_all:
    gin_outline.check_given(gin_text.macros(gin.config_str()))
  _check_values()
  if require_all:
    with _lacking_macros_told():
      gin.finalize()


def _expand_home() -> None:
  """Replaces the `~` at the beginning of every path, by the names of macros and parameters."""
  for (scope, selector), parameters in gin.config._CONFIG.items():
    for name, value in parameters.items():
      if _OF_PATHS.search(scope if selector == 'gin.macro' else name):
        parameters[name] = _expanded(value)


def _expanded(value: Any) -> Any:
  if isinstance(value, str):
    return os.path.expanduser(value)
  return type(value)(map(_expanded, value)) if type(value) in (tuple, list) else value


def _check_finite() -> None:
  """Refuses infinity, such as 1e999, which gin can read and not write.

  Raises:
    ValueError: with the name under which the user sets it.
  """
  for (scope, selector), parameters in gin.config._CONFIG.items():
    for name, value in parameters.items():
      if isinstance(value, float) and not math.isfinite(value):
        name = scope if selector == 'gin.macro' else f'{selector}.{name}'
        raise ValueError(f'{name} = {value}: expected a finite number')


def _read_no_packages() -> None:
  """Stops gin from taking a folder for a Python package, which ends in a TypeError of its own.

  And has it read files as people save them, with a byte-order mark, as all other texts are read.

  `models/mt5_tiny.gin` is looked for in a package `models` too; with the working directory on
  Python's path any folder of that name is one, without the files.
  """
  readers = gin.config._FILE_READERS
  readers[:] = [
    (_opened if reader is open else reader, exists)
    for reader, exists in readers
    if reader is not resource_reader.system_path_reader
  ]


def _opened(path: str) -> io.StringIO:
  text = moved_modules.found(text_files.read(path))
  if _OTHERS.search(text):
    task_registration.need()  # a user's module may look tasks up as it is imported
  file = io.StringIO(text)
  file.name = path  # gin tells it with what is wrong
  return file


def _check_values() -> None:
  """Refuses values of another kind than our functions' parameters and macros take.

  Raises:
    ValueError: with the name under which the user sets it.
  """
  statements = [
    statement
    for statement in gin_text.statements(gin.config_str())
    if isinstance(statement, config_parser.BindingStatement)
  ]
  macros = {s.selector: s.value for s in statements if not s.arg_name}
  values = gin_text.resolved(macros)
  for name, value in values.items():
    if value == '' and _PATH.search(name):
      raise ValueError(f"{name} = '' names no path; where there is to be none it is None")
  for name, hint in _MACRO_TYPES.items():
    if name in values:
      _check_value(name, values[name], hint, '')
  for statement in statements:
    function = _our_function(statement.selector) if statement.arg_name else None
    if function is None:
      continue
    hint = _hints(function).get(statement.arg_name, Any)
    value, name = statement.value, f'{statement.selector}.{statement.arg_name}'
    if isinstance(value, gin_text.Reference) and value.startswith('%'):
      if (macro_name := value.removeprefix('%')) not in values:
        continue
      _check_value(macro_name, values[macro_name], hint, f' ({name})')
    else:
      _check_value(name, gin_text.substituted(value, values), hint, '')


def _check_value(name: str, value: Any, hint: Any, of: str) -> None:
  if not gin_text.has_references(value) and not value_types.fits(value, hint):
    raise ValueError(
      f'{name} = {value!r}: expected {value_types.describe(hint)}{of}, got {type(value).__name__}'
    )


def _our_function(selector: str) -> Any:
  """The function or class behind a selector, None unless it is one of this package."""
  try:
    function = inspect.unwrap(gin.get_configurable(selector))
  except ValueError:
    return None
  return function if function.__module__.startswith(__package__ + '.') else None


def _hints(function: Any) -> Mapping[str, Any]:
  """Types of a function's parameters, without those that name what only type checkers import."""
  called = inspect.getattr_static(function, '__init__') if isinstance(function, type) else function
  found: dict[str, Any] = {}
  for name, hint in getattr(called, '__annotations__', {}).items():
    one = types.SimpleNamespace(__annotations__={name: hint})
    with contextlib.suppress(NameError):
      found |= typing.get_type_hints(one, vars(sys.modules[function.__module__]))
  return found


def _parse_file(name: str) -> None:
  try:
    gin.parse_config_file(name)
  except (
    *(SyntaxError, TypeError, RecursionError, tokenize.TokenError),
    *(ImportError, NameError, AttributeError),
  ) as error:
    if user_code.place(error):
      raise
    raise ValueError(f'{name}: {_one_line(error)}') from error
  except ValueError as error:
    if user_code.place(error):
      raise
    raise ValueError(_one_line(error)) from error


def _one_line(error: Exception) -> str:
  """What gin says, with its place; gin repeats both for each file that includes the next."""
  lines = dict.fromkeys(line.strip() for line in str(error).splitlines())
  return ' '.join(filter(None, lines))


def _parse_binding(binding: str) -> None:
  name, _, value = (part.strip() for part in binding.partition('='))
  try:
    gin.parse_config(binding)
  except gin_text.UNREADABLE as error:
    value = value if len(value) <= _LONGEST_VALUE else f'{value[:_LONGEST_VALUE]}...'
    if not isinstance(error, ValueError) or 'literal' in str(error):
      raise ValueError(
        f'--gin.{name}={value}: {value!r} is not a gin value. Numbers, tuples and dicts are '
        f'written as in Python, strings in quotes of their own: --gin.{name}=\'"{value}"\''
      ) from error
    raise ValueError(f'--gin.{name}={value}: {str(error).splitlines()[0][:1000]}') from error


def text() -> str:
  """The whole configuration as gin."""
  return gin.config_str()


def macro(name: str, default: Any = None) -> Any:
  """The value of a macro, `default` where it is not defined or still required."""
  try:
    value = gin.query_parameter(f'{name}/gin.macro.value')
  except ValueError:
    return default
  with _lacking_macros_told():  # copying is how gin evaluates a reference to another macro
    value = copy.deepcopy(value)
  return default if value is gin.REQUIRED else value


def defines(name: str) -> bool:
  """Whether a gin file or binding defines a macro; its value is not evaluated."""
  try:
    gin.query_parameter(f'{name}/gin.macro.value')
  except ValueError:
    return False
  return True


def bound(function: Any) -> Any:
  """Gives the values that gin binds to single parameters of a function, without calling it.

  Returns:
    A function from a parameter's name to its value, references evaluated; None where unbound.

  Raises:
    ValueError: no gin file given binds a parameter of the function.
  """
  bindings = _bindings(function)

  def value(name: str) -> Any:
    with _lacking_macros_told():
      return copy.deepcopy(bindings.get(name))

  return value


def call(function: Any, *args: Any, **kwargs: Any) -> Any:
  """Calls a function with the parameters that gin binds to it.

  Raises:
    ValueError: no gin file given binds a parameter of the function.
  """
  _bindings(function)
  with _lacking_macros_told():
    return gin.get_configurable(function)(*args, **kwargs)


@contextlib.contextmanager
def _lacking_macros_told() -> Iterator[None]:
  """Says of a macro that nothing defines which files would; gin writes the whole configuration."""
  try:
    yield
  except ValueError as error:
    lacking = re.search(r"No bindings specified for '(\w+)(?:/gin\.macro)?' in", str(error))
    if lacking is None:
      raise
    name = lacking[1]
    folders = {
      path.parent.name
      for path in path_facts.matching(CONFIGS, '*/*.gin')
      if re.search(rf'^{name}\s*=', path.read_text(), re.MULTILINE)
    }
    such = f', one of {" or ".join(f"{f}/*.gin" for f in sorted(folders))}' if folders else ''
    raise ValueError(
      f'no gin file given defines {name}, which is needed: give one that does{such}'
    ) from error


def _bindings(function: Any) -> dict[str, Any]:
  try:
    bindings = gin.get_bindings(function, resolve_references=False)
  except (KeyError, ValueError):
    bindings = {}
  # A function that an earlier recipe of this process named stays registered, with nothing bound.
  if not bindings:
    raise ValueError(
      f'no gin file given configures {function.__module__}.{function.__name__}: '
      'does the recipe belong to this command?'
    )
  return bindings


def configure_vocabulary(macro: Callable[[str], Any] = macro) -> None:
  """Makes VOCABULARY_FILE the vocabulary of all tasks; without a value nothing changes.

  Args:
    macro: gives a macro's value, None where it has none; by default of what was parsed.
  """
  if (path := macro('VOCABULARY_FILE')) is not None:
    shared_vocabulary.set_vocabulary(path)


def configure_data(macro: Callable[[str], Any] = macro) -> None:
  """Applies the macros about data: a user's tables, mixing of sources, files of benchmarks.

  Args:
    macro: as for `configure_vocabulary`.

  Raises:
    ValueError: a table that cannot be read, or settings that fit no mixture.
  """
  from aya_train.tasks.eval import eval_releases
  from aya_train.tasks.mixtures import aya_mixtures, source_mixture
  from aya_train.tasks.retrieval import pair_tasks
  from aya_train.tasks.user import user_data

  eval_releases.set_eval_data_dir(macro('EVAL_DATA_DIR'))
  pair_tasks.set_prompts(macro('QUERY_PROMPT') or '', macro('PASSAGE_PROMPT') or '')
  user_data.add_tables(macro('DATASET_TABLES') or ())
  chosen = {
    field: macro(name)
    for field, name in (
      ('within_source', 'MIXTURE_WITHIN_SOURCE'),
      ('dataset_weights', 'MIXTURE_DATASET_WEIGHTS'),
      ('missing_sources', 'MIXTURE_MISSING_SOURCES'),
    )
  }
  aya_mixtures.configure(
    source_mixture.MixtureSettings(**{k: v for k, v in chosen.items() if v is not None})
  )


def check_licenses() -> str | None:
  """Holds the training mixture against DATA_LICENSE_POLICY; returns the policy, None if not set.

  Raises:
    ValueError: the mixture breaks it; every offending part is listed.
  """
  from aya_train.data import task_registry
  from aya_train.tasks.rights import provenance

  policy, name = macro('DATA_LICENSE_POLICY'), macro('MIXTURE_OR_TASK_NAME')
  if policy is None or name is None:
    return policy
  task_registry.get_mixture_or_task(name)  # refuses a name that is none, with those close to it
  folder = macro('DATA_PROVENANCE_SUMMARIES')
  provenance.check(name, policy, None if folder is None else provenance.read_summaries(folder))
  return policy


def write(model_dir: epath.PathLike) -> None:
  """Writes the configuration beside the run: all of it, and the part that was used.

  Those of earlier starts that differed stay, see `run_dir.keep_text`.
  """
  folder = epath.Path(model_dir)
  run_dir.keep_text(folder / 'config.gin', gin.config_str(max_line_length=100))
  run_dir.keep_text(folder / 'operative_config.gin', gin.operative_config_str(max_line_length=100))

"""Gin on a command line: its arguments, T5X's way of writing bindings, and what they set up.

Heavy libraries are imported where they are needed, so that usage is quick.
"""

import argparse
import importlib
import os
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from aya_train import task_registration, user_code

_OURS = 'aya_train.tasks'


def add_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
  """Adds `--gin_file`, `--gin_bindings` and `--gin_search_paths`."""
  parser.add_argument(
    '--gin_file',
    action='append',
    default=[],
    required=required,
    type=os.path.expanduser,
    help='gin file; repeatable',
  )
  parser.add_argument(
    '--gin_bindings',
    action='append',
    default=[],
    help="override, 'NAME = VALUE'; --gin.NAME=VALUE is the same",
  )
  parser.add_argument(
    '--gin_search_paths', default='', help='folders in which gin files are looked for, with commas'
  )


def add_tables(parser: argparse.ArgumentParser) -> None:
  """Adds `--dataset_tables`, for commands that can do without gin files."""
  parser.add_argument(
    '--dataset_tables',
    action='append',
    default=[],
    type=os.path.expanduser,
    metavar='TABLE',
    help='table of data sets of your own (docs/mixtures.md); repeatable',
  )


def set_up_without_gin(args: argparse.Namespace, module: str = _OURS) -> None:
  """Imports the module that registers the tasks, and adds the tables of `add_tables`.

  Raises:
    ValueError: bindings are given, and no gin file to change; see also `import_tasks` and
      `user_data.add_tables`.
  """
  if args.gin_bindings:
    raise ValueError(
      f'{args.gin_bindings[0]!r} changes a gin file, and none is given: add --gin_file'
    )
  import_tasks(module)
  set_up_tables(args)


def set_up_tables(args: argparse.Namespace) -> None:
  """Adds the tables of `add_tables`; ValueError or OSError, see `user_data.add_tables`."""
  from aya_train.tasks.user import user_data

  user_data.add_tables(args.dataset_tables)


def rewrite_gin_args(args: Sequence[str]) -> list[str]:
  """Turns T5X's `--gin.NAME=VALUE` into `--gin_bindings=NAME = VALUE`.

  Raises:
    ValueError: no `=` in such an argument.
  """
  rewritten = []
  for arg in args:
    if arg.startswith('--gin.'):
      name, equals, value = arg.removeprefix('--gin.').partition('=')
      if not equals:
        raise ValueError(f'{arg}: expected --gin.NAME=VALUE, got no "="')
      arg = f'--gin_bindings={name.strip()} = {value}'
    rewritten.append(arg)
  return rewritten


def parse(args: argparse.Namespace, *, require_all: bool = True) -> None:
  """Parses the gin files and bindings of a command; see `config.parse`. Sets nothing else."""
  from aya_train import config

  config.parse(args.gin_file, args.gin_bindings, _search_paths(args), require_all=require_all)


def check(args: argparse.Namespace, *, require_all: bool = True) -> None:
  """Says at once what is wrong with the texts alone; see `gin_outline.check`."""
  from aya_train import gin_outline

  gin_outline.check(args.gin_file, args.gin_bindings, _search_paths(args), require_all=require_all)


def _search_paths(args: argparse.Namespace) -> list[str]:
  return [os.path.expanduser(path) for path in args.gin_search_paths.split(',') if path]


def set_up(args: argparse.Namespace, *, require_all: bool = True) -> None:
  """Parses, then sets up the tasks as the macros say: what a command that reads data begins with.

  Raises:
    FileNotFoundError, ValueError: see `config.parse` and `set_up_tasks`.
  """
  from aya_train import config

  parse(args, require_all=require_all)
  set_up_tasks(config.macro)


def set_up_prompts(args: argparse.Namespace) -> None:
  """Parses, and sets up the tasks only where the macros name some: prompts need none.

  Raises:
    FileNotFoundError, ValueError: see `set_up`.
  """
  from aya_train import config

  parse(args)
  named = ('MIXTURE_OR_TASK_NAME', 'DATASET_TABLES')
  if any(map(config.macro, named)) or config.macro('MIXTURE_OR_TASK_MODULE') not in (None, _OURS):
    set_up_tasks(config.macro)
  else:
    config.configure_vocabulary()


def set_up_tasks(macro: Callable[[str], Any]) -> None:
  """Sets the vocabulary, imports the module that registers the tasks, and configures the data.

  Args:
    macro: gives a macro's value, None where it has none: `config.macro`, or that of a run on disk.

  Raises:
    ValueError: the module cannot be imported; see also `config.configure_data`.
  """
  from aya_train import config

  config.configure_vocabulary(macro)
  import_tasks(macro('MIXTURE_OR_TASK_MODULE') or _OURS)
  config.configure_data(macro)


def import_tasks(module: str, named_by: str = 'MIXTURE_OR_TASK_MODULE') -> None:
  """Imports a module that registers tasks; `named_by` says in messages who wants it.

  Raises:
    ValueError: it cannot be imported; a fault in it is told with its file and line.
  """
  task_registration.need()
  try:
    importlib.import_module(module)
  except ModuleNotFoundError as error:
    raise ValueError(f'{named_by} {module!r} cannot be imported: {error}') from error
  except Exception as error:
    if module.startswith('aya_train.'):
      raise
    at = traceback.extract_tb(error.__traceback__)[-1]
    where = user_code.place(error) or f'{at.filename}, line {at.lineno}'
    raise ValueError(
      f'{named_by} {module!r} cannot be imported: {type(error).__name__}: {error} ({where})'
    ) from error

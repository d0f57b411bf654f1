"""The command line: `aya-train COMMAND ...`. What each command does is in a module of its own.

Errors end in one message and exit code 1 (2 for wrong usage); `--debug` shows the traceback.
"""

import argparse
import contextlib
import os
import select
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Protocol

from aya_train import hosts, task_registration
from aya_train.cli import (
  annotate_command,
  contamination_command,
  convert_command,
  embed_command,
  error_report,
  eval_command,
  eval_embeddings_command,
  gin_args,
  infer_command,
  judge_command,
  libraries,
  mine_command,
  plan_command,
  precompile_command,
  prepare_command,
  replay_command,
  report_command,
  score_command,
  teach_command,
  train_command,
  translate_command,
)

# Lists, empty by default; and prompts that are to be none.
MAY_BE_EMPTY = (
  'beam_options',
  'gin_search_paths',
  'languages',
  'prompt',
  'query_prompt',
  'passage_prompt',
)
READER_IS_GONE = 141  # as of a program that SIGPIPE ends
EPILOG = """examples:
  aya-train prepare cldr
  aya-train train --gin_file=models/mt5_tiny.gin --gin_file=recipes/sft_smoke.gin \\
    --gin_file=hardware/cpu_local.gin --gin.MODEL_DIR='"runs/smoke"'
  aya-train convert runs/smoke runs/smoke/hf --to hf --overwrite
  aya-train precompile --gin_file=aya101.gin --topology=v4-128
"""


class Command(Protocol):
  """What a module of a command has.

  Attributes:
    SUMMARY: one line for `--help`.
  """

  SUMMARY: str

  def add_arguments(self, parser: argparse.ArgumentParser) -> None:
    """Adds the command's own arguments; imports nothing heavy, so that usage is quick."""

  def run(self, args: argparse.Namespace) -> None:
    """Does it. What is wrong with the input is a ValueError or an OSError."""


COMMANDS: Mapping[str, Command] = {
  'train': train_command,
  'eval': eval_command,
  'infer': infer_command,
  'embed': embed_command,
  'mine': mine_command,
  'eval-embeddings': eval_embeddings_command,
  'prepare': prepare_command,
  'score': score_command,
  'precompile': precompile_command,
  'plan': plan_command,
  'convert': convert_command,
  'replay': replay_command,
  'report': report_command,
  'annotate': annotate_command,
  'contamination': contamination_command,
  'judge': judge_command,
  'teach': teach_command,
  'translate': translate_command,
}


def parser() -> argparse.ArgumentParser:
  """The parser of every command; what it parses has `command`, `run`, `debug` and `verbose`."""
  top = argparse.ArgumentParser(
    prog='aya-train',
    description='Fine-tunes mT5 on the Aya instruction data and exports it to Hugging Face.',
    epilog=EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  common = argparse.ArgumentParser(add_help=False)
  common.add_argument('--debug', action='store_true', help='show the traceback of an error')
  common.add_argument('--verbose', action='store_true', help="show the libraries' log lines too")
  commands = top.add_subparsers(dest='command', required=True, metavar='COMMAND')
  for name, command in COMMANDS.items():
    summary = command.SUMMARY
    sub = commands.add_parser(name, help=summary, description=summary, parents=[common])
    sub.set_defaults(run=command.run)
    command.add_arguments(sub)
  return top


def main(argv: Sequence[str]) -> int:
  """Runs one command.

  Returns:
    The exit code: 0, 1 on an error, 2 on wrong usage, 3 when another host is missing or lost, 4
    when nothing moved (watchdog.py), 130 when stopped, 141 when nobody reads what it prints any
    more.
  """
  try:
    args = parser().parse_args(gin_args.rewrite_gin_args(argv))
    _refuse_empty(args)
  except ValueError as error:
    print(f'aya-train: error: {error}', file=sys.stderr)
    return 2
  try:
    libraries.quiet(args.verbose)
    libraries.choose_platform()
    libraries.quiet_tensorflow(args.verbose)
    args.run(args)
    sys.stdout.flush()  # here, so that a reader who has gone is noticed here
  except KeyboardInterrupt:
    return 130
  except Exception as error:
    if _reader_is_gone(error):
      return READER_IS_GONE
    if args.debug:
      traceback.print_exc()
    found = error_report.of(error)
    print(f'aya-train {args.command}: error: {found.text}', file=sys.stderr)
    if found.is_defect:
      print('This looks like a defect; --debug shows where.', file=sys.stderr)
    return found.code
  return 0


def _refuse_empty(args: argparse.Namespace) -> None:
  """An empty text names nothing: most often a variable of the shell that is not set."""
  for name, value in vars(args).items():
    if value == '' and name not in MAY_BE_EMPTY:
      raise ValueError(f'{args.command}: {name} is empty')


def _reader_is_gone(error: Exception) -> bool:
  """Whether it is about standard output, closed by whoever read it: `aya-train report | head`."""
  if not isinstance(error, BrokenPipeError):
    return False
  try:
    asked = select.poll()
    asked.register(sys.stdout.fileno(), 0)
    gone = bool(asked.poll(0))
  except (AttributeError, OSError):  # a system without poll, or an output that is no file
    return False
  if gone:
    # What is still to be written would fail again when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  return gone


def console() -> None:
  """Entry point of the `aya-train` script."""
  argv = sys.argv[1:]
  # Not in `main`: who calls that from a program of his own may import our tasks later.
  task_registration.put_off()
  # So that what a command has begun is cleared away; `train` and `eval` do better (stopping.py).
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  joins = any(word.startswith(('--multihost', '--coordinator_address')) for word in argv)
  with hosts.watched() if joins else contextlib.nullcontext():
    code = main(argv)
  hosts.leave(code)

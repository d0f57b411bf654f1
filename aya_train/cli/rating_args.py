"""Arguments of commands that read tables of answers which were rated one by one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from aya_train.annotation import rated_answers


def add(parser: argparse.ArgumentParser, of: str = '') -> None:
  """Adds --rating, --lowest_best and --columns; `of` begins their help."""
  parser.add_argument(
    '--rating',
    metavar='COLUMN',
    help=f'{of}of a table of answers, rated one by one: the number by which two are compared',
  )
  parser.add_argument(
    '--lowest_best', action='store_true', help=f'{of}the lower --rating wins, as of ranks'
  )
  parser.add_argument(
    '--columns',
    nargs='+',
    default=[],
    metavar='KEY=NAME',
    help=f'{of}names of columns of such a table: id, inputs, answer, system, language, annotator',
  )


def rating(args: argparse.Namespace) -> rated_answers.Rating | None:
  """What they say, None without --rating.

  Raises:
    ValueError: --lowest_best or --columns without it; a word of --columns without '='.
  """
  from aya_train.annotation import rated_answers
  from aya_train.cli import endpoint_args

  columns = endpoint_args.columns(args)
  if args.rating is None:
    if columns or args.lowest_best:
      raise ValueError(
        '--columns and --lowest_best are of a table of ratings: give --rating COLUMN'
      )
    return None
  return rated_answers.Rating(args.rating, args.lowest_best, columns)

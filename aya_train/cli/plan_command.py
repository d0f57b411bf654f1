"""`aya-train plan`."""

import argparse
import os

from aya_train import destinations
from aya_train.cli import number_args, slice_args

SUMMARY = 'find the best mesh, remat and microbatches for a TPU slice'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  slice_args.add_arguments(parser)
  parser.add_argument(
    '--output_dir',
    type=os.path.expanduser,
    default='.',
    help='where plan_<slice>.gin and its table go',
  )
  parser.add_argument('--max_compilations', type=int, default=8, help='stop after as many')


def run(args: argparse.Namespace) -> None:
  from aya_train.tpu import plan

  number_args.at_least(args, 1, 'max_compilations')
  destinations.check_folder(args.output_dir, '--output_dir')
  path = plan.plan(slice_args.set_up(args), args.output_dir, args.max_compilations)
  print(f'wrote {path}')

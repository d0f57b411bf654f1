"""`aya-train precompile`."""

import argparse
import os

from aya_train import destinations
from aya_train.cli import slice_args

SUMMARY = 'compile the training step for a TPU slice, without one'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  slice_args.add_arguments(parser)
  parser.add_argument(
    '--output_dir',
    type=os.path.expanduser,
    default='.',
    help='where precompile_<slice>.json and .html go',
  )


def run(args: argparse.Namespace) -> None:
  from aya_train.tpu import precompile, precompile_page

  slice_ = slice_args.set_up(args)
  destinations.check_folder(args.output_dir, '--output_dir')
  result = precompile.compile_job(slice_, precompile.job(slice_), precompile.settings())
  print(precompile_page.text(result))
  for path in precompile_page.write(result, args.output_dir):
    print(f'wrote {path}')
  if not result.fits:
    where = f': {result.overflow}' if result.overflow is not None else ''
    raise ValueError(f'the training step does not fit {slice_.name}{where}')

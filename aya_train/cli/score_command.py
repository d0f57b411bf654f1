"""`aya-train score`."""

import argparse

from aya_train.cli import gin_args, host_args

SUMMARY = 'what a reference model says of pairs of answers, before training on preferences'
_UNUSED = "MODEL_DIR = 'unused'"  # required of a run, and of no scores


def add_arguments(parser: argparse.ArgumentParser) -> None:
  gin_args.add_arguments(parser, required=True)
  host_args.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
  host_args.join(args)
  args.gin_bindings = [_UNUSED, *args.gin_bindings]
  gin_args.set_up(args)
  from aya_train import config, reference_scoring

  config.check_licenses()
  config.call(reference_scoring.score)
